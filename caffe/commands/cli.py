"""The `caffe` command: train, test, time, device_query, with Caffe's flags and log lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from boundary.engine import NAMES as ENGINES
from boundary.streams import say, stderr
from caffe import __version__
from caffe.commands.flags import Flag, Usage, run
from caffe.commands.script import load_engine
from caffe.errors import CaffeError
from caffe.process import log
from caffe.process.log import emit, number
from caffe.proto import caffe_pb2 as pb

if TYPE_CHECKING:
    from caffe.net import Net
    from caffe.plan.plan import Plan
    from caffe.train.find_lr import Sweep

USAGE = """caffe: command line brew
usage: caffe <command> <args>

commands:
  train           train or finetune a model
  test            score a model
  device_query    show GPU diagnostic information
  time            benchmark model execution time
"""

FIND_LR_ITERATIONS = 100

FLAGS = (
    Flag("gpu", "", "Run on these GPUs, separated by ','; 'all' for all there are."),
    Flag("cpu", 0, "Train with this many processes on the CPU. Not together with -gpu."),
    Flag(
        "sync_bn",
        False,
        "In training, BatchNorm takes its statistics over the batches of all processes.",
    ),
    Flag("solver", "", "The solver definition, a prototxt."),
    Flag("model", "", "The model definition, a prototxt."),
    Flag("phase", "", "Network phase, TRAIN or TEST. Only for 'time'."),
    Flag("level", 0, "Network level."),
    Flag("stage", "", "Network stages (not to be confused with phase), separated by ','."),
    Flag(
        "snapshot",
        "",
        "The solver state to resume training from; 'latest' for the newest good one of the "
        "solver's snapshot_prefix, or from the beginning where there is none.",
    ),
    Flag("snapshot_keep", 0, "Keep this many snapshots, the newest; 0: all."),
    Flag(
        "keep_best",
        "",
        "Keep the snapshot of the best test as PREFIX_best.*. An output of a test net judges: "
        "TOP[@NET][:INDEX][:max|min]. By default less is better of losses and errors, more of "
        "others.",
    ),
    Flag(
        "patience",
        0,
        "With -keep_best: stop after this many tests in a row that were not better; 0: never.",
    ),
    Flag(
        "weights",
        "",
        "Trained weights to start from, separated by ','. With -snapshot only beside 'latest', for "
        "when there is none.",
    ),
    Flag(
        "fresh",
        "",
        "Layers that start by their fillers whatever -weights has for them, separated by ','; "
        "names, or patterns with * and ?.",
    ),
    Flag(
        "allow_python",
        True,
        "Let nets have layers of type Python, whose prototxt names the code to run.",
    ),
    Flag(
        "align_crops",
        False,
        "Crop layers without crop_param cut by coordinates, as nets of HED, CRF-RNN and DeconvNet "
        "mean it, not at 0.",
    ),
    Flag(
        "fork",
        "",
        "The fork whose meaning a layer has if its name has several and its parameters leave it "
        "open: SegNet, SSD, ... (docs/forks.md). A comment '# fork: NAME' in the net wins.",
    ),
    Flag("precision", "fp32", "The arithmetic: fp32; bf16; or tf32, on GPUs that have it."),
    Flag(
        "engine",
        "torch",
        "With 'test' and 'time': what computes on the CPU in phase TEST: torch, openvino, "
        "onnxruntime; or auto, the fastest that is installed. -v 1 tells more.",
    ),
    Flag(
        "recompute",
        False,
        "In training, compute activations again in the backward pass: less memory, more time.",
    ),
    Flag("deterministic", False, "On a GPU, give the same numbers in every run."),
    Flag(
        "plan",
        False,
        "With 'time': the fused plan that 'train' and 'test' run by, and why it is not fused more.",
    ),
    Flag(
        "brief",
        None,
        "With 'train': show a summary, a line of progress and a line for each test in place of "
        "Caffe's log. By default so on a terminal, unless -alsologtostderr, -logtostderr or "
        "-minloglevel is given. -log_dir has the full log in any case.",
    ),
    Flag(
        "find_lr",
        False,
        "With 'train': only find a learning rate. On a copy, the rate rises exponentially over "
        "-iterations (100 by default); the losses are drawn, and a rate is suggested.",
    ),
    Flag("find_lr_range", "1e-6,10", "With -find_lr: the lowest and the highest rate."),
    Flag("iterations", 50, "The number of iterations to run."),
    Flag(
        "sigint_effect",
        "stop",
        "What SIGINT does in training: snapshot, stop, end or none. 'stop' saves a snapshot if the "
        "solver says snapshot_after_train; 'end' saves one in any case, and the exit status is 128 "
        "+ the signal's number.",
    ),
    Flag("sighup_effect", "snapshot", "What SIGHUP does: the same words."),
    Flag("sigterm_effect", "end", "What SIGTERM (a scheduler's stop) does: the same words."),
    Flag("version", False, "Show the version and exit."),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `caffe <command> <args>`; returns the exit status (1 bad input, 2 bad usage)."""
    return run(_command, USAGE, FLAGS, arguments, "caffe", at_once=True)


def _command(flags: SimpleNamespace, others: list[str], given: set[str]) -> int:
    if flags.version:
        print(f"caffe version {__version__}")
        return 0
    if len(others) != 1:
        raise Usage(f"expected one command, got {' '.join(others) or 'none'}")
    action = ACTIONS.get(others[0])
    if action is None:
        raise Usage(f"unknown command {others[0]!r}; expected one of {', '.join(sorted(ACTIONS))}")
    from caffe.formats import meaning
    from caffe.process import alignment, execution, permission

    if "allow_python" in given:  # else CAFFE_ALLOW_PYTHON holds
        permission.set_allow_python(flags.allow_python)
    if "align_crops" in given:  # else CAFFE_ALIGN_CROPS holds
        alignment.set_crop_alignment(flags.align_crops)
    if flags.fork:  # else CAFFE_FORK holds
        meaning.set_fork(flags.fork)
    if flags.precision not in execution.PRECISIONS:
        expected = ", ".join(execution.PRECISIONS)
        raise Usage(f"-precision {flags.precision}: expected one of {expected}")
    if flags.engine not in ENGINES:
        raise Usage(f"-engine {flags.engine}: expected one of {', '.join(ENGINES)}")
    if "engine" in given and action not in (test, time_model):
        raise Usage("-engine is for 'test' and 'time'")
    if action is train:
        log.set_brief(brief_by_default(flags, given) if flags.brief is None else flags.brief)
    if flags.find_lr and action is not train:
        raise Usage("-find_lr is for 'train'")
    if "find_lr_range" in given and not flags.find_lr:
        raise Usage("-find_lr_range says between which rates -find_lr looks: give both")
    if flags.find_lr and "iterations" not in given:
        flags.iterations = FIND_LR_ITERATIONS
    return action(flags)


def brief_by_default(flags: SimpleNamespace, given: set[str]) -> bool:
    """Whether training shows progress in place of Caffe's log: on a terminal, unless glog's flags
    or variables ask for lines.
    """
    names = ("logtostderr", "alsologtostderr")
    asked = any(
        getattr(flags, name) if name in given else log.asked_for(f"GLOG_{name}") for name in names
    )
    return stderr().isatty() and not asked and log.lowest_level() == log.INFO


def train(flags: SimpleNamespace) -> int:
    """Train or finetune a model."""
    _need(flags.solver, "solver", "train: a solver definition")
    if flags.snapshot not in ("", "latest") and flags.weights:
        raise Usage("give a -snapshot to resume training, or -weights to finetune, but not both")
    if flags.snapshot_keep < 0:
        raise Usage(f"-snapshot_keep {flags.snapshot_keep}: expected a number from 0 up")
    if flags.patience < 0:
        raise Usage(f"-patience {flags.patience}: expected a number from 0 up")
    if flags.patience and not flags.keep_best:
        raise Usage("-patience counts tests that are not better: it needs -keep_best")
    from caffe.formats import files
    from caffe.process.signals import SignalRequests

    param = files.read_solver(flags.solver, emit)
    if param.debug_info and flags.brief is None:
        log.set_brief(False)
    fresh = tuple(part for name in flags.fresh.split(",") if (part := name.strip()))
    if fresh and (flags.snapshot not in ("", "latest") or not (flags.weights or param.weights)):
        raise Usage("-fresh is about -weights: give both, and no other -snapshot than 'latest'")
    param.train_state.level = flags.level
    param.train_state.stage.extend(flags.stage.split(","))
    devices = _devices(flags, param)
    effects = flags.sigint_effect, flags.sighup_effect, flags.sigterm_effect
    requests = SignalRequests(*effects, at_once=True)
    _compute_as(flags)
    from caffe.solver.snapshots import resume_point

    snapshot = resume_point(flags.snapshot, param.snapshot_prefix)
    if snapshot or flags.weights:
        param.ClearField("weights")
    if flags.weights and not snapshot:
        param.weights.append(flags.weights)
    from caffe.train.training import Run
    from caffe.train.training import train as train_on

    run = Run(
        param,
        snapshot or None,
        flags.sync_bn,
        snapshot_keep=flags.snapshot_keep,
        keep_best=flags.keep_best,
        patience=flags.patience,
        fresh=() if snapshot else fresh,
    )
    asked = f"-gpu {flags.gpu}" if flags.gpu else f"-cpu {flags.cpu}"
    if flags.find_lr:
        from caffe.train.find_lr import find_rate

        return find_rate(_sweep(flags, param), run, devices, asked, requests)
    return train_on(run, devices, asked, requests)


def _sweep(flags: SimpleNamespace, param: pb.SolverParameter) -> Sweep:
    """What -find_lr asks for. The files have the snapshots' prefix, or the solver's name."""
    from caffe.train.find_lr import Sweep

    try:
        lowest, highest = (float(part) for part in flags.find_lr_range.split(","))
        prefix = param.snapshot_prefix or Path(flags.solver).stem
        return Sweep(prefix, flags.iterations, lowest, highest)
    except ValueError:
        raise Usage(
            f"-find_lr_range {flags.find_lr_range}: expected two rates, LOWEST,HIGHEST"
        ) from None


def test(flags: SimpleNamespace) -> int:
    """Score a model: the mean of every output over -iterations batches, or what it is of all."""
    _need(flags.model, "model", "test: a model definition")
    _need(flags.weights, "weights", "test: model weights")
    _need(flags.iterations > 0, "iterations", "test: a positive number")

    from caffe.process import memory

    memory.keep_small_memory()
    _use_one(flags, (266, 275))
    net = _net(flags, pb.TEST)
    net.observed = False
    emit("caffe.cpp:281", f"Running for {flags.iterations} iterations.")
    totals: dict[tuple[str, int], float] = {}
    loss = 0.0
    with net.testing() as accumulated:
        for i in range(flags.iterations):
            loss += net.forward_from_to(0, len(net.layers) - 1)
            for name in net.outputs:
                for k, score in enumerate(net.blobs[name].tensor().flatten().tolist()):
                    before = 0.0 if name in accumulated else totals.get((name, k), 0.0)
                    totals[name, k] = before + score
                    emit("caffe.cpp:304", f"Batch {i}, {name} = {number(score)}")
    emit("caffe.cpp:309", f"Loss: {number(loss / flags.iterations)}")
    for (name, _), total in totals.items():
        mean = total if name in accumulated else total / flags.iterations
        weight = net.blob_loss_weights[name]
        line = f"{name} = {number(mean)}"
        if weight:
            line += f" (* {number(weight)} = {number(weight * mean)} loss)"
        emit("caffe.cpp:321", line)
    return 0


def time_model(flags: SimpleNamespace) -> int:
    """Time every layer, or every operation of the plan, forward and backward. An engine's part is
    one operation of the plan of a net in phase TEST.
    """
    _need(flags.model, "model", "time: a model definition")
    _need(flags.iterations > 0, "iterations", "time: a positive number")
    if flags.phase not in ("", "TRAIN", "TEST"):
        raise Usage(f'-phase {flags.phase}: phase must be "TRAIN" or "TEST"')
    by_engine = flags.engine != "torch"
    if by_engine and flags.phase == "TRAIN":
        raise Usage(f"-engine {flags.engine} computes nets in phase TEST only")
    _use_one(flags, (339, 343))
    net = _net(flags, pb.TEST if by_engine or flags.phase == "TEST" else pb.TRAIN)
    planned = flags.plan or by_engine
    net.observed = not planned
    if planned and net.plan is None:
        asked = "-plan" if flags.plan else "-engine"
        raise CaffeError(
            f"{flags.model}: {asked}: this net runs layer by layer, because it says debug_info, or "
            f"has a layer that works on its blobs (a Python layer, say); time it without {asked}"
        )
    last = len(net.layers) - 1
    emit("caffe.cpp:351", "Performing Forward")
    emit("caffe.cpp:356", f"Initial loss: {number(net.forward_from_to(0, last))}")
    if by_engine:  # the first pass has chosen; this one prepares what was chosen
        net.forward_from_to(0, last)
    emit("caffe.cpp:357", "Performing Backward")
    net.backward_from_to(last, 0)
    emit("caffe.cpp:365", "*** Benchmark begins ***")
    emit("caffe.cpp:366", f"Testing for {flags.iterations} iterations.")
    from caffe.plan.clock import Clock

    start = _now()
    clock = Clock(net.plan, _now) if net.plan else None
    names = clock.names if clock else net.wiring.layer_names
    spent = clock.spent if clock else {w: [0.0] * len(names) for w in ("forward", "backward")}
    for j in range(flags.iterations):
        began = _now()
        with net.work.sharing():  # as in whole passes
            if clock:
                clock.run()
            else:
                _time_layers(net, spent)
        milliseconds = number((_now() - began) * 1e3)
        emit("caffe.cpp:394", f"Iteration: {j + 1} forward-backward time: {milliseconds} ms.")
    total = (_now() - start) * 1e3
    per = 1e3 / flags.iterations
    emit("caffe.cpp:397", "Average time per layer: ")
    for i, name in enumerate(names):
        for line, what in ((400, "forward"), (403, "backward")):
            shown = number(spent[what][i] * per)
            emit(f"caffe.cpp:{line}", f"{name:>10}\t{what}: {shown} ms.")
    forward, backward = (sum(spent[what]) * per for what in ("forward", "backward"))
    emit("caffe.cpp:408", f"Average Forward pass: {number(forward)} ms.")
    emit("caffe.cpp:410", f"Average Backward pass: {number(backward)} ms.")
    emit("caffe.cpp:412", f"Average Forward-Backward: {number(total / flags.iterations)} ms.")
    emit("caffe.cpp:414", f"Total Time: {number(total)} ms.")
    emit("caffe.cpp:415", "*** Benchmark ends ***")
    if flags.plan:
        _tell_misfits(net.plan)
    return 0


def _tell_misfits(plan: Plan) -> None:
    """Print why operations of a plan are not fused further; the log has Caffe's lines only."""
    for misfit in plan.report.misfits:
        say(f"caffe time: {misfit.rewrite}: {misfit.node} {misfit.reason}")


def _time_layers(net: Net, spent: dict[str, list[float]]) -> None:
    """Add each layer's seconds in one forward and one backward pass to `spent`."""
    for i in range(len(net.wiring)):
        spent["forward"][i] += _timed(lambda i=i: net.forward_layer(i))
    for i in reversed(range(len(net.wiring))):
        spent["backward"][i] += _timed(lambda i=i: net.backward_from_to(i, i))


def device_query(flags: SimpleNamespace) -> int:
    """Log the properties of the GPUs that -gpu names."""
    import torch

    emit("caffe.cpp:138", f"Querying GPUs {flags.gpu}")
    for index in _gpus(flags.gpu):
        p = torch.cuda.get_device_properties(index)
        for line, what, value in (
            (178, "Device id", index),
            (179, "Major revision number", p.major),
            (180, "Minor revision number", p.minor),
            (181, "Name", p.name),
            (182, "Total global memory", p.total_memory),
            (199, "Number of multiprocessors", p.multi_processor_count),
        ):
            emit(f"common.cpp:{line}", f"{what + ':':<30} {value}")
    return 0


ACTIONS: dict[str, Callable[[SimpleNamespace], int]] = {
    "train": train,
    "test": test,
    "time": time_model,
    "device_query": device_query,
}


def _need(value: object, flag: str, what: str) -> None:
    if not value:
        raise Usage(f"{what} is needed: -{flag}")


def _net(flags: SimpleNamespace, phase: int) -> Net:
    from caffe.net import Net

    net = Net(flags.model, phase, flags.level, flags.stage.split(","))
    for name in filter(None, flags.weights.split(",")):
        net.copy_from(name.strip())
    return net


def _gpus(text: str) -> list[int]:
    """The GPUs that -gpu names. Raises CaffeError if one does not exist."""
    if not text:
        return []
    try:
        ids = [int(part) for part in text.split(",")] if text != "all" else []
    except ValueError:
        raise Usage(f"-gpu {text}: expected 'all', or numbers separated by ','") from None
    import torch

    from caffe.process.device import check_gpu

    if text == "all":
        check_gpu(0)
        return list(range(torch.cuda.device_count()))
    for index in ids:
        check_gpu(index)
    return ids


def _devices(flags: SimpleNamespace, param: pb.SolverParameter) -> list[int | None]:
    """The devices to train on here, one process each; None stands for the CPU.

    -gpu or -cpu name them, else the solver's solver_mode and device_id. If torchrun has started
    several processes here, they take all GPUs instead of device_id.
    """
    if flags.gpu and flags.cpu:
        raise Usage("give -gpu or -cpu, but not both")
    if flags.cpu < 0:
        raise Usage(f"-cpu {flags.cpu}: expected the number of processes, at least 1")
    load_engine()
    from caffe.process.peers import place_from_environment

    place = place_from_environment()
    if flags.gpu:
        gpus = _gpus(flags.gpu)
        twice = [gpu for gpu in gpus if gpus.count(gpu) > 1]
        if twice:
            raise Usage(f"-gpu {flags.gpu}: GPU {twice[0]} is given twice")
        return [*gpus]
    if flags.cpu or param.solver_mode != param.GPU or not param.HasField("solver_mode"):
        return [None] * (flags.cpu or (place.local_count if place else 1))
    try:
        alone = place is None or place.local_count == 1
        return [*_gpus(str(param.device_id) if alone else "all")]
    except CaffeError as error:
        raise CaffeError(f"{flags.solver}: solver_mode is GPU: {error}") from None


def _compute_as(flags: SimpleNamespace) -> None:
    """Compute as the flags say. This loads torch, so it comes after what can be refused."""
    from caffe.process import execution

    load_engine()
    execution.set_precision(flags.precision)
    execution.set_recompute(flags.recompute)
    execution.set_deterministic(flags.deterministic)


def _use(gpus: list[int]) -> None:
    """Switch to the first of `gpus`, or to the CPU if there are none."""
    from caffe.process import device

    if not gpus:
        device.set_mode_cpu()
        return
    device.set_device(gpus[0])
    device.set_mode_gpu()


def _use_one(flags: SimpleNamespace, lines: tuple[int, int]) -> None:
    """Switch to the first GPU of -gpu, or to the CPU, and log it; lines: of Caffe's caffe.cpp."""
    gpus = _gpus(flags.gpu)
    if gpus:
        emit(f"caffe.cpp:{lines[0]}", f"Use GPU with device ID {gpus[0]}")
    else:
        emit(f"caffe.cpp:{lines[1]}", "Use CPU.")
    _compute_as(flags)
    _use(gpus)
    if flags.engine != "torch":
        from caffe.engines import set_engine

        set_engine(flags.engine)


def _timed(function: Callable[[], object]) -> float:
    """Seconds that `function` takes, including the work that it leaves to the GPU."""
    start = _now()
    function()
    return _now() - start


def _now() -> float:
    from caffe.process.device import current_device

    if current_device().type == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()

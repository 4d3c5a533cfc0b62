"""What a run is about to do, in ten lines at most: what `caffe train -brief` shows first."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from boundary.lines import fold
from boundary.streams import stderr
from caffe.layers import Layer
from caffe.net import Net
from caffe.process import log
from caffe.process.execution import Settings
from caffe.process.log import number
from caffe.proto.caffe_pb2 import SolverParameter
from caffe.solver import Solver, learning_rate

HEAD = 12  # columns of a line's name
SHOWN = 2  # sources or test nets that are told one by one

# Fields of a solver that a policy of the learning rate may use.
SCHEDULE = ("gamma", "power", "stepsize", "stepvalue", *learning_rate.TAKES)
SINGLE = ("records", "pictures", "frames", "clips")  # units of which a batch holds so many


def batch_of(net: Net) -> int:
    """How many records a pass reads: the first axis of its first source; 0 if it has none."""
    sources = _sources(net)
    return sources[0][1][0] if sources else 0


def summary(
    solver: Solver,
    devices: Sequence[int | None],
    processes: int,
    settings: Settings,
    snapshot: str | None = None,
    fresh: Sequence[str] = (),
    best: str = "",
    patience: int = 0,
) -> list[str]:
    """The lines.

    devices: of this machine (None: the CPU). processes: all, on all machines. snapshot: what the
    run was resumed from. fresh: layers that did not take their weights. best: the
    output of a test whose best snapshot is kept. patience: the tests in a row that need not be
    better; 0: any number.
    """
    p = solver.param
    lines = [
        ("net", [*_net(solver.net), _origin(p)]),
        ("parameters", _parameters(solver.net)),
        ("data", _data(solver, processes)),
        ("device", _device(devices, processes, settings)),
        ("solver", _schedule(p)),
        *(("tests", test) for test in _tests(solver)),
        ("snapshots", _snapshots(solver, best, patience)),
        ("start", _start(solver, snapshot, fresh)),
        ("log", [str(path)] if (path := log.full_log()) else []),
    ]
    width = stderr().columns()
    told = [(head, [part for part in parts if part]) for head, parts in lines]
    return [
        line
        for head, parts in told
        if parts
        for line in fold(f"{head:<{HEAD}}", parts, width, ", ", HEAD)
    ]


def _net(net: Net) -> list[str]:
    layers = sum(layer.type != "Split" for layer in net.wiring.layers)  # the engine adds these
    return [net.name or "without a name", f"{layers} layers"]


def _origin(p: SolverParameter) -> str:
    for field in ("net", "train_net"):
        if p.HasField(field):
            return getattr(p, field)
    return "given in the solver"


def _parameters(net: Net) -> list[str]:
    learned = frozen = 0
    for parameter in net.learnable:
        if parameter.lr_mult:
            learned += parameter.blob.count
        elif not parameter.layer.statistic(parameter.index):
            frozen += parameter.blob.count
    return [f"{learned:,} learned", f"{frozen:,} frozen (lr_mult 0)" if frozen else ""]


def _sources(net: Net) -> list[tuple[Layer, tuple[int, ...]]]:
    """The layers that give data: each with the shape of its first top, the batch in front.

    Layers that fill their tops by themselves (DummyData) are told where there are no others.
    """
    found: list[tuple[Layer, tuple[int, ...]]] = []
    for i, layer in enumerate(net.wiring.layers):
        tops = net.wiring.top_blobs(i)
        if layer.source and not layer.num_bottoms and tops and tops[0].shape:
            found.append((layer, tuple(tops[0].shape)))
    return [source for source in found if not source[0].fillers_of_tops()] or found


def _source(layer: Layer, shape: Sequence[int]) -> str:
    held = " and ".join(f"{count:,} {what}" for what, count in layer.contents().items())
    batch = f"batch {'x'.join(map(str, shape))}"
    return f"{layer.origin or layer.type} ({f'{held}, ' if held else ''}{batch})"


def _joined(sources: Sequence[tuple[Layer, tuple[int, ...]]]) -> list[str]:
    told = [_source(*source) for source in sources[:SHOWN]]
    more = len(sources) - len(told)
    return [*told, f"{more} more" if more else ""]


def _data(solver: Solver, processes: int) -> list[str]:
    sources, p = _sources(solver.net), solver.param
    if not sources:
        return []
    held = sum(count for what, count in sources[0][0].contents().items() if what in SINGLE)
    read = p.max_iter * p.iter_size * processes * batch_of(solver.net)
    epochs = read / held if held else 0
    told = f"{epochs:,.0f}" if epochs >= 100 else f"{epochs:.3g}"
    return [*_joined(sources), f"{told} epochs" if held else ""]


def _device(devices: Sequence[int | None], processes: int, settings: Settings) -> list[str]:
    gpus = [gpu for gpu in devices if gpu is not None]
    names = [f"GPU {gpu}: {torch.cuda.get_device_name(gpu)}" for gpu in gpus[:SHOWN]]
    if len(gpus) > SHOWN:
        names = [f"GPUs {', '.join(map(str, gpus))}: {torch.cuda.get_device_name(gpus[0])}"]
    return [
        *(names or ["CPU"]),
        f"{processes} processes" if processes > 1 else "",
        settings.precision,
        "recomputing" if settings.recompute else "",
        "deterministic" if settings.deterministic else "",
    ]


def _schedule(p: SolverParameter) -> list[str]:
    told = []
    for name in SCHEDULE:
        value = getattr(p, name)
        if value and (not isinstance(value, (int, float)) or p.HasField(name)):
            values = [value] if isinstance(value, (int, float)) else value
            told.append(f"{name} {' '.join(map(number, values))}")
    policy = f"{p.lr_policy} ({', '.join(told)})" if told else p.lr_policy
    return [
        p.type,
        f"rate {number(p.base_lr)} {policy}",
        f"iter_size {p.iter_size}" if p.iter_size > 1 else "",
        f"{p.max_iter:,} iterations",
    ]


def _tests(solver: Solver) -> list[list[str]]:
    p, told = solver.param, []
    for net, batches in list(zip(solver.test_nets, p.test_iter, strict=False))[:SHOWN]:
        tested = f"{batches:,} {'batch' if batches == 1 else 'batches'}"
        told.append([_every(p.test_interval), tested, *_joined(_sources(net))])
    if len(solver.test_nets) > SHOWN:
        told[-1].append(f"and {len(solver.test_nets) - SHOWN} more test nets")
    return told


def _every(iterations: int) -> str:
    return "every iteration" if iterations == 1 else f"every {iterations:,} iterations"


def _snapshots(solver: Solver, best: str, patience: int) -> list[str]:
    p = solver.param
    if not p.snapshot and not p.snapshot_after_train and not best:
        return []
    keep = solver.snapshot_keep
    return [
        f"{p.snapshot_prefix}_iter_N",
        _every(p.snapshot) if p.snapshot else "",
        "at the end" if p.snapshot_after_train and not p.snapshot else "",
        f"the newest {keep} kept" if keep else "",
        f"the best by {best} kept" if best else "",
        f"patience {patience}" if patience else "",
    ]


def _start(solver: Solver, snapshot: str | None, fresh: Sequence[str]) -> list[str]:
    if snapshot:
        return [f"resumed from {snapshot}", f"iteration {solver.iter:,}"]
    if not solver.net.loaded:
        return ["from scratch, by fillers"]
    all_layers = len(solver.net.params)
    told = [
        f"weights of {path} (for {taken} of {all_layers} layers)"
        for path, taken in solver.net.loaded.items()
    ]
    return [*told, f"{' '.join(fresh)} fresh" if fresh else ""]

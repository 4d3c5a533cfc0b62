"""One contender in its own process: sets up its net, then runs passes for each line on stdin.

An empty line asks for one pass, a number for passes of so many seconds in all, at least two. It
answers with a line of JSON: {"seconds": [...]} of each pass; at the end {"memory": bytes, "answer":
[...]}, some of the values that a prediction gives; {"failed": reason} if it cannot run the job.
bench/contender.py starts it; its argument is a Job as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from boundary.telemetry import load_onnxruntime, load_openvino

if TYPE_CHECKING:
    import numpy as np

CLASSES = 40
MOST_PASSES = 1000
WARM = 3.0  # seconds of passes before the first that is measured
ANSWERS = 500  # values of a prediction that are given out

Run = Callable[[], object]


@dataclass(frozen=True)
class Job:
    """One measurement.

    who: a key of CONTENDERS. task: train (a solver's step), or predict (a deploy net's pass).
    size: width, height. precision: fp32, tf32, bf16, or int8 with `file`. width: multiplies all
    channels. device: cpu or cuda. without: one of parts_of(), which the plan leaves out. net: SF5
    for 40 classes, or one of bench.nets, which has a size of its own and is for predictions. file:
    an ONNX file to take in place of the net's own. threads: of PyTorch, by default one a core.
    spins: how often they try before they sleep (GOMP_SPINCOUNT), by default what the engine and
    OpenMP choose.
    """

    who: str
    task: str
    batch: int
    size: tuple[int, int]
    precision: str = "fp32"
    width: float = 1.0
    device: str = "cpu"
    without: str = ""
    net: str = "SF5"
    file: str = ""
    threads: int | None = None
    spins: int | None = None

    @property
    def short(self) -> bool:
        """Whether it predicts a single image, which takes less than a second."""
        return (self.task, self.batch) == ("predict", 1)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that its process needs."""
        given = {"OMP_NUM_THREADS": self.threads, "GOMP_SPINCOUNT": self.spins}
        return {name: str(value) for name, value in given.items() if value is not None}

    def dumps(self) -> str:
        return json.dumps(asdict(self))


def inputs(job: Job):
    """Random colour, depth and labels of the shapes and ranges that a data layer gives."""
    import torch

    width, height = job.size
    torch.manual_seed(0)
    rgb = torch.rand(job.batch, 3, height, width) * 255
    depth = torch.rand(job.batch, 1, height, width) * 255
    return rgb, depth, torch.randint(0, CLASSES + 1, (job.batch, 1, height, width))


def train_param(job: Job):
    """netgen's train net with Input layers instead of its data layer."""
    from caffe.proto import caffe_pb2 as pb
    from netgen import Architecture, Training, train_net

    arch = Architecture("sf5", CLASSES, job.size, width_multiplier=job.width)
    param = train_net(arch, Training("", ""))
    net = pb.NetParameter(name=param.name)
    for blob, channels in (("rgb", 3), ("depth", 1), ("label", 1)):
        shape = pb.BlobShape(dim=[job.batch, channels, job.size[1], job.size[0]])
        net.layer.add(name=blob, type="Input", top=[blob]).input_param.shape.append(shape)
    for layer in param.layer:
        if layer.type not in ("Data", "Slice", "Accuracy"):
            net.layer.add().CopyFrom(layer)
    return net


def feed(job: Job) -> dict[str, np.ndarray]:
    """Random inputs of the deploy net, by name."""
    if job.net != "SF5":
        import numpy as np

        (shape,) = (layer.input_param.shape[0].dim for layer in deploy_param(job).layer[:1])
        return {"data": np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)}
    rgb, depth, _ = inputs(job)
    return {"rgb": rgb.numpy(), "depth": depth.numpy()}


def deploy_param(job: Job):
    if job.net != "SF5":
        from bench import nets

        return nets.deploy_param(job.net, job.batch)
    from netgen import Architecture, deploy_net

    param = deploy_net(Architecture("sf5", CLASSES, job.size, width_multiplier=job.width))
    for layer in param.layer:
        if layer.type == "Input":
            layer.input_param.shape[0].dim[0] = job.batch
    return param


def deploy_net_of(job: Job):
    """The deploy net, with running variances of 1."""
    import caffe

    caffe.set_random_seed(1)
    net = caffe.Net(deploy_param(job), caffe.TEST)
    for layer in net.layers:
        if layer.type == "BatchNorm":
            for blob in layer.blobs[1:]:
                blob.tensor().fill_(1)  # keeps no view, like loading weights from a file
    return net


def _engine(job: Job, observed: bool = False, recompute: bool = False) -> Run:
    import caffe
    from caffe.proto import caffe_pb2 as pb

    caffe.set_precision(job.precision)
    caffe.set_recompute(recompute)
    if job.device == "cuda":
        caffe.set_mode_gpu()
    if job.task == "train":
        solver = caffe.get_solver(
            pb.SolverParameter(
                net_param=train_param(job),
                **{"base_lr": 1e-3, "lr_policy": "fixed", "momentum": 0.9, "weight_decay": 5e-4},
            )
        )
        net, run = solver.net, lambda: solver.step(1)
        names = ("rgb", "depth", "label")
        given = {name: x.numpy() for name, x in zip(names, inputs(job), strict=True)}
    else:
        net = deploy_net_of(job)
        run, given = net.forward, feed(job)
    net.observed = observed
    for name, values in given.items():
        net.blobs[name].data[...] = values
    return run


def parts_of(task: str) -> list[str]:
    """The parts of a plan that can be left out, to measure their effect: the rewrites that take
    part in the task's plan, and what its operations do.
    """
    import caffe
    from caffe.plan.rewrites import ORDER

    job = Job("plan", task, 1, (64, 48), width=0.1)  # the same plan, and soon made
    param, phase = (
        (train_param(job), caffe.TRAIN) if task == "train" else (deploy_param(job), caffe.TEST)
    )
    net = caffe.Net(param, phase)
    net.observed = False
    acted = net.plan.report.acted
    rewrites = [each.name for each in ORDER if acted[each.name]]
    return [*rewrites, "winograd", *(["recomputed"] if task == "train" else []), "memory"]


def leave_out(part: str) -> None:
    """Have all plans of this process do without one of parts_of()."""
    from caffe.kernels import fused
    from caffe.plan import rewrites

    if part == "winograd":
        fused.choose_fp32 = fused.choose_bf16 = lambda *_: None
    elif part == "recomputed":
        fused.handle = lambda x: fused.Kept(x.detach())
    elif part not in ("", "memory"):
        rewrites.ORDER = tuple(each for each in rewrites.ORDER if each.name != part)


def _ours(job: Job, recompute: bool = False) -> Run:
    leave_out(job.without)
    if job.without != "memory":
        _treat_memory(job)
    run = _engine(job, recompute=recompute)
    if job.task == "predict":
        _warm(run)
    return run


def _warm(run: Run) -> None:
    """Run until the plan has come to its segments, but for some seconds at most."""
    from caffe.plan.segments import AFTER

    start = time.perf_counter()
    for _ in range(AFTER + 1):
        run()
        if time.perf_counter() - start > WARM:
            break


def _automatic(job: Job) -> Run:
    """The engine that set_engine("auto") finds in the first pass, with nothing kept before."""
    import caffe

    folder = tempfile.TemporaryDirectory()
    os.environ["XDG_CACHE_HOME"] = folder.name
    caffe.set_engine("auto")
    run = _ours(job)
    run()
    folder.cleanup()
    return run


def _ours_recomputing(job: Job) -> Run:
    return _ours(job, recompute=True)


def _treat_memory(job: Job) -> None:
    """Sets the C library's memory options as the caffe command does."""
    from caffe.process import memory

    if job.task == "train":
        memory.keep_freed_memory()
    else:
        memory.keep_small_memory()


def _observed(job: Job) -> Run:
    return _engine(job, observed=True)


def _eager(job: Job, compiled: bool = False) -> Run:
    import torch
    import torch.nn.functional as F

    from bench.plain import PlainFuseNet

    torch.backends.cudnn.allow_tf32 = job.precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = job.precision == "tf32"
    model = PlainFuseNet(CLASSES, job.width).to(job.device)
    rgb, depth, label = (x.to(job.device) for x in inputs(job))
    half = job.precision == "bf16"
    if half:  # the layout that PyTorch recommends for it
        model = model.to(memory_format=torch.channels_last)
        rgb, depth = (x.contiguous(memory_format=torch.channels_last) for x in (rgb, depth))
    call = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(job.device, torch.bfloat16, enabled=half):
            loss = F.cross_entropy(call(rgb, depth).float(), label[:, 0], ignore_index=0)
        loss.backward()
        optimizer.step()

    def predict() -> None:
        with torch.inference_mode(), torch.autocast(job.device, torch.bfloat16, enabled=half):
            call(rgb, depth).float().softmax(1)

    if job.task == "train":
        return step
    model.eval()
    return predict


def _compiled(job: Job) -> Run:
    return _eager(job, compiled=True)


@contextmanager
def _onnx_file(job: Job, target: str) -> Iterator[str]:
    """The path of the job's net as an ONNX file, within the block."""
    if job.file:
        yield job.file
        return
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "net.onnx")
        # Written by another process, so that its memory is not counted as the engine's.
        plain = replace(job, precision="fp32")
        command = [sys.executable, "-m", "bench.worker", plain.dumps(), path, target]
        subprocess.run(command, check=True)
        yield path


def _onnxruntime(job: Job) -> Run:
    onnxruntime = load_onnxruntime()
    with _onnx_file(job, "onnxruntime") as path:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names, given = [output.name for output in session.get_outputs()], feed(job)
    return lambda: dict(zip(names, session.run(None, given), strict=True))


def _openvino(job: Job) -> Run:
    openvino = load_openvino()
    core = openvino.Core()
    with _onnx_file(job, "openvino") as path:
        # By default it rounds to bfloat16 where the processor has instructions for that.
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "bf16" if job.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": len(os.sched_getaffinity(0)),
        }
        compiled = core.compile_model(core.read_model(path), "CPU", options)
    request, given = compiled.create_infer_request(), feed(job)
    names = [output.any_name for output in compiled.outputs]
    return lambda: dict(zip(names, request.infer(given).values(), strict=True))


def _opencv(job: Job) -> Run:
    import cv2

    cv2.setNumThreads(len(os.sched_getaffinity(0)))
    with _onnx_file(job, "opencv") as path:
        net = cv2.dnn.readNetFromONNX(path)
    given, names = feed(job), deploy_net_outputs(job)

    def run() -> dict[str, np.ndarray]:
        for name, values in given.items():
            net.setInput(values, name)
        return dict(zip(names, net.forward(names), strict=True))

    return run


def deploy_net_outputs(job: Job) -> list[str]:
    """The names of the deploy net's outputs: blobs that no layer takes."""
    layers = deploy_param(job).layer
    taken = {name for layer in layers for name in layer.bottom if name not in layer.top}
    return sorted({name for layer in layers for name in layer.top} - taken)


CONTENDERS: dict[str, Callable[[Job], Run]] = {
    "plan": _ours,
    "auto": _automatic,
    "plan, recompute": _ours_recomputing,
    "observed net": _observed,
    "eager PyTorch": _eager,
    "torch.compile": _compiled,
    "onnxruntime": _onnxruntime,
    "OpenVINO": _openvino,
    "OpenCV": _opencv,
}


def main() -> None:
    values = json.loads(sys.argv[1])
    job = Job(**{**values, "size": tuple(values["size"])})
    if len(sys.argv) > 2:  # only write the net to that path
        from caffe.convert import to_onnx

        path, target = sys.argv[2:]
        to_onnx(deploy_net_of(job), path, check=False, target=target)
        return
    try:
        _serve(job, CONTENDERS[job.who](job))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(json.dumps({"failed": reason}), flush=True)


def _serve(job: Job, run: Run) -> None:
    wait, memory = _on_gpu() if job.device == "cuda" else (lambda: None, _resident)
    result: object = None
    for line in sys.stdin:
        limit = float(line) if line.strip() else 0.0
        passes: list[float] = []
        while not passes or (limit and _goes_on(passes, limit)):
            start = time.perf_counter()
            result = run()
            wait()
            passes.append(time.perf_counter() - start)
        print(json.dumps({"seconds": passes}), flush=True)
    answer = _some(result) if isinstance(result, Mapping) else []
    print(json.dumps({"memory": memory(), "answer": answer}), flush=True)


def _on_gpu() -> tuple[Callable[[], object], Callable[[], int]]:
    """How to wait for the GPU, and the bytes that were taken there at most."""
    import torch

    return torch.cuda.synchronize, torch.cuda.max_memory_allocated


def _resident() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _goes_on(passes: list[float], limit: float) -> bool:
    return len(passes) < 2 or (sum(passes) < limit and len(passes) < MOST_PASSES)


def _some(outputs: Mapping[str, np.ndarray]) -> list[float]:
    """Values from all parts of all outputs."""
    import numpy as np

    values = np.concatenate([np.ravel(outputs[name]) for name in sorted(outputs)])
    places = np.linspace(0, len(values) - 1, min(ANSWERS, len(values))).astype(int)
    return values[places].astype(float).tolist()


if __name__ == "__main__":
    os.environ.setdefault("GLOG_minloglevel", "2")
    main()

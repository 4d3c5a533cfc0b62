"""One contender in its own process: sets up its net, then runs one pass for each line on stdin.

It answers with a line of JSON: {"seconds": ...} after each pass, {"memory": bytes} at the end.
`python -m bench` starts it; its argument is a Job as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

CLASSES = 40


@dataclass(frozen=True)
class Job:
    """One measurement: SF5 for 40 classes.

    who: a key of CONTENDERS. task: train (a solver's step), or predict (a deploy net's pass).
    size: width, height. precision: fp32, tf32 or bf16. width: multiplies all channels. device: cpu
    or cuda. without: one of PARTS, which the plan leaves out.
    """

    who: str
    task: str
    batch: int
    size: tuple[int, int]
    precision: str = "fp32"
    width: float = 1.0
    device: str = "cpu"
    without: str = ""

    @property
    def short(self) -> bool:
        """Whether it predicts a single image, which takes less than a second."""
        return (self.task, self.batch) == ("predict", 1)

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


def deploy_param(job: Job):
    from netgen import Architecture, deploy_net

    param = deploy_net(Architecture("sf5", CLASSES, job.size, width_multiplier=job.width))
    for layer in param.layer:
        if layer.type == "Input":
            layer.input_param.shape[0].dim[0] = job.batch
    return param


def deploy_net_of(job: Job):
    """The deploy net, with running variances of 1."""
    import caffe

    net = caffe.Net(deploy_param(job), caffe.TEST)
    for name, blobs in net.params.items():
        if name.endswith("_bn") or "_bn_" in name:
            for blob in blobs[1:]:
                blob.tensor().fill_(1)  # keeps no view, like loading weights from a file
    return net


def _engine(job: Job, observed: bool = False, recompute: bool = False) -> Callable[[], object]:
    import caffe
    from caffe.proto import caffe_pb2 as pb

    caffe.set_precision(job.precision)
    caffe.set_recompute(recompute)
    if job.device == "cuda":
        caffe.set_mode_gpu()
    names = ("rgb", "depth", "label")
    if job.task == "train":
        solver = caffe.get_solver(
            pb.SolverParameter(
                net_param=train_param(job),
                **{"base_lr": 1e-3, "lr_policy": "fixed", "momentum": 0.9, "weight_decay": 5e-4},
            )
        )
        net, run = solver.net, lambda: solver.step(1)
    else:
        net = deploy_net_of(job)
        names, run = names[:2], net.forward
    net.observed = observed
    for name, values in zip(names, inputs(job), strict=False):
        net.blobs[name].data[...] = values.numpy()
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


def _ours(job: Job, recompute: bool = False) -> Callable[[], object]:
    leave_out(job.without)
    if job.without != "memory":
        _treat_memory(job)
    return _engine(job, recompute=recompute)


def _ours_recomputing(job: Job) -> Callable[[], object]:
    return _ours(job, recompute=True)


def _treat_memory(job: Job) -> None:
    """Sets the C library's memory options as the caffe command does."""
    from caffe.process import memory

    if job.task == "train":
        memory.keep_freed_memory()
    else:
        memory.keep_small_memory()


def _observed(job: Job) -> Callable[[], object]:
    return _engine(job, observed=True)


def _eager(job: Job, compiled: bool = False) -> Callable[[], object]:
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


def _compiled(job: Job) -> Callable[[], object]:
    return _eager(job, compiled=True)


def _onnxruntime(job: Job) -> Callable[[], object]:
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "net.onnx")
        # Written by another process, so that its memory is not counted as onnxruntime's.
        subprocess.run([sys.executable, "-m", "bench.worker", job.dumps(), path], check=True)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    rgb, depth, _ = inputs(job)
    feed = {"rgb": rgb.numpy(), "depth": depth.numpy()}
    return lambda: session.run(None, feed)


CONTENDERS: dict[str, Callable[[Job], Callable[[], object]]] = {
    "plan": _ours,
    "plan, recompute": _ours_recomputing,
    "observed net": _observed,
    "eager PyTorch": _eager,
    "torch.compile": _compiled,
    "onnxruntime": _onnxruntime,
}


def main() -> None:
    os.environ.setdefault("GLOG_minloglevel", "2")
    values = json.loads(sys.argv[1])
    job = Job(**{**values, "size": tuple(values["size"])})
    if len(sys.argv) > 2:  # only write the net to that path
        from caffe.convert import to_onnx

        to_onnx(deploy_net_of(job), sys.argv[2], check=False)
        return
    run = CONTENDERS[job.who](job)
    import torch

    wait = torch.cuda.synchronize if job.device == "cuda" else lambda: None
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        wait()
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)
    if job.device == "cuda":
        memory = torch.cuda.max_memory_allocated()
    else:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"memory": memory}), flush=True)


if __name__ == "__main__":
    main()

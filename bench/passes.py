"""Times a training step and a prediction of FuseNet-SF5, beside the same net in plain PyTorch."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence

os.environ.setdefault("GLOG_minloglevel", "2")

import torch
import torch.nn.functional as F

import caffe
from bench.plain import PlainFuseNet
from caffe.proto import caffe_pb2 as pb
from netgen import Architecture, Training, deploy_net, train_net

CLASSES = 40


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, float]]:
    """Print one table; returns it: measurement -> contender -> seconds (medians)."""
    parser = argparse.ArgumentParser(prog="python -m bench.passes", description=__doc__)
    parser.add_argument("--size", default="160x120", help="default: 160x120")
    parser.add_argument("--batch-size", type=int, default=2, help="of the training step")
    parser.add_argument("--width", type=float, default=1.0, help="1: the paper's net")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    args = parser.parse_args(arguments)
    width, height = map(int, args.size.split("x"))
    arch = Architecture("sf5", CLASSES, (width, height), width_multiplier=args.width)
    table = {
        f"training step, batch {args.batch_size}": _training(arch, args.batch_size),
        "prediction, one frame": _prediction(arch),
    }
    print(f"FuseNet-SF5, {args.size}, width {args.width:g}, {torch.get_num_threads()} thread(s)")
    medians = {}
    for name, contenders in table.items():
        medians[name] = _measure(contenders, args.rounds)
        plain = medians[name]["plain PyTorch"]
        for contender, seconds in medians[name].items():
            print(f"{name:28s}{contender:28s}{seconds:9.3f} s {plain / seconds:6.2f} x plain")
    return medians


def _measure(contenders: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median seconds, the contenders in turn, so that a machine's moods meet all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if k:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def _with_inputs(param: pb.NetParameter, size: tuple[int, int], batch: int) -> pb.NetParameter:
    """The train net with inputs in the place of its data."""
    net = pb.NetParameter(name=param.name)
    for blob, channels in (("rgb", 3), ("depth", 1), ("label", 1)):
        shape = pb.BlobShape(dim=[batch, channels, size[1], size[0]])
        net.layer.add(name=blob, type="Input", top=[blob]).input_param.shape.append(shape)
    for layer in param.layer:
        if layer.type not in ("Data", "Slice", "Accuracy"):
            net.layer.add().CopyFrom(layer)
    return net


def _training(arch: Architecture, batch: int) -> dict[str, Callable[[], None]]:
    width, height = arch.size
    rgb, depth = torch.rand(batch, 3, height, width) * 255, torch.rand(batch, 1, height, width)
    label = torch.randint(0, CLASSES + 1, (batch, 1, height, width))
    param = _with_inputs(train_net(arch, Training("", "")), arch.size, batch)

    def engine(observed: bool) -> Callable[[], None]:
        solver = caffe.get_solver(
            pb.SolverParameter(
                net_param=param, base_lr=1e-3, lr_policy="fixed", momentum=0.9, weight_decay=5e-4
            )
        )
        solver.net.observed = observed
        for name, values in (("rgb", rgb), ("depth", depth), ("label", label)):
            solver.net.blobs[name].data[...] = values.numpy()
        return lambda: solver.step(1)

    model = PlainFuseNet(CLASSES, arch.width_multiplier)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9, weight_decay=5e-4)

    def plain() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(rgb, depth), label[:, 0], ignore_index=0).backward()
        optimizer.step()

    return {"plain PyTorch": plain, "caffe train": engine(False), "observed net": engine(True)}


def _prediction(arch: Architecture) -> dict[str, Callable[[], None]]:
    width, height = arch.size
    rgb, depth = torch.rand(1, 3, height, width) * 255, torch.rand(1, 1, height, width)

    def engine(observed: bool) -> Callable[[], None]:
        net = caffe.Net(deploy_net(arch), caffe.TEST)
        net.observed = observed
        net.blobs["rgb"].data[...], net.blobs["depth"].data[...] = rgb.numpy(), depth.numpy()
        return lambda: net.forward() and None

    model = PlainFuseNet(CLASSES, arch.width_multiplier).eval()

    def plain() -> None:
        with torch.inference_mode():
            model(rgb, depth).softmax(1)

    return {"plain PyTorch": plain, "plan": engine(False), "observed net": engine(True)}


if __name__ == "__main__":
    main()

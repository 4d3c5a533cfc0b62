"""Cases of the layers in caffe/layers/flow.py."""

from pathlib import Path
from random import Random

import numpy as np

from caffe.formats.arrays import array_to_blobproto
from cases import Case, row, shape


def image(rng: Random, least: int = 3, most: int = 6) -> list[int]:
    """The shape of a small batch of images."""
    sizes = [rng.randint(least, most) for _ in range(2)]
    return [rng.randint(1, 2), rng.randint(1, 3), *sizes]


@row("Correlation", "correlation_param { pad: 20 kernel_size: 1 max_displacement: 20 stride_2: 2 }")
@row("Correlation1D", "correlation_param { pad: 40 kernel_size: 1 max_displacement: 40 }")
def correlation(rng: Random, name: str) -> Case:
    kernel, far = rng.choice([1, 1, 3]), rng.randint(0, 2)
    bottom = image(rng)
    pad = rng.randint(far, 3)
    text = f"pad: {pad} kernel_size: {kernel} max_displacement: {far}"
    text += f" stride_1: {rng.randint(1, 2)} stride_2: {rng.randint(1, 2)}"
    if name == "Correlation1D":
        text += f" single_direction: {rng.randint(-1, 1)}"
    return Case(f"correlation_param {{ {text} }}", [bottom, bottom])


@row("FlowWarp", "flow_warp_param { fill_value: ZERO }")
def flow_warp(rng: Random, name: str) -> Case:
    bottom = image(rng)
    return Case("", [bottom, [bottom[0], 2, *bottom[2:]]])


@row("Warp")
def warp(rng: Random, name: str) -> Case:
    bottom = image(rng)
    return Case("", [bottom, [bottom[0], 2, *bottom[2:]]])


@row("Grid", gradient=(), learns=False)
def grid(rng: Random, name: str) -> Case:
    return Case("", [image(rng, 1)])


@row("ChannelNorm")
@row("NegSquare")
def pointwise(rng: Random, name: str) -> Case:
    return Case("", [image(rng, 1)])


# Its gradient takes the maximum for a constant.
@row("ExpMax", "expmax_param { scale: 0.5 }", gradient=(), learns=False)
def exp_max(rng: Random, name: str) -> Case:
    base = rng.choice([-1, 2, 0.5])
    scale = rng.uniform(0.2, 1)
    text = f"base: {base} scale: {scale} shift: {rng.uniform(-1, 1)}"
    return Case(f"expmax_param {{ {text} }}", [shape(rng, 2, 4)])


@row(
    "Mean",
    "mean_param { operation: SUBTRACT value: 104 value: 117 value: 123 }",
    gradient=(),
    learns=False,
)
def mean(rng: Random, name: str) -> Case:
    channels, size = rng.randint(1, 3), [rng.randint(1, 3) for _ in range(2)]
    text = f"input_scale: {rng.uniform(0.5, 2)} mean_scale: {rng.uniform(0.5, 2)}"
    text += f" output_scale: {rng.uniform(0.5, 2)} operation: {rng.choice(['ADD', 'SUBTRACT'])}"
    files = None
    if rng.random() < 0.5:
        text += ' file: "mean.binaryproto"'

        def files() -> None:
            values = np.arange(channels * size[0] * size[1], dtype=np.float32)
            blob = array_to_blobproto(values.reshape(1, channels, *size))
            Path("mean.binaryproto").write_bytes(blob.SerializeToString())

    else:
        text += "".join(f" value: {rng.uniform(-2, 2)}" for _ in range(channels))
    bottoms = [[rng.randint(1, 2), channels * rng.randint(1, 2), *size] for _ in range(2)]
    return Case(f'mean_param {{ {text} }} top: "a" top: "b"', bottoms, files=files)

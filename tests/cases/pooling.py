"""Pooling, SPP and Unpooling."""

from __future__ import annotations

from random import Random

import caffe
from cases import Case, row


def side(rng: Random, pads: bool) -> tuple[int, int, int]:
    """Kernel, padding and stride along one axis.

    The stride exceeds the kernel with padding only. Without, a window may lie beyond the image,
    which ONNX refuses.
    """
    kernel = rng.randint(1, 3)
    pad = rng.randint(0, kernel - 1) if pads else 0
    return kernel, pad, rng.randint(1, 3 if pad else kernel)


def window(rng: Random, pads: bool) -> str:
    """The fields of a window: one number for both axes, or one for each."""
    height = side(rng, pads)
    width = height if rng.random() < 0.5 else side(rng, pads)
    if height == width and rng.random() < 0.7:
        return "kernel_size: {} pad: {} stride: {}".format(*height)
    pairs = zip(("kernel", "pad", "stride"), height, width, strict=True)
    return " ".join(f"{name}_h: {h} {name}_w: {w}" for name, h, w in pairs)


@row("Pooling", example="pooling_param { pool: MAX kernel_size: 2 stride: 2 }")
def pooling(rng: Random, name: str) -> Case:
    method = rng.choice(["MAX", "MAX", "AVE", "STOCHASTIC"])
    whole = rng.random() < 0.15
    text = "global_pooling: true" if whole else window(rng, pads=method != "STOCHASTIC")
    text += f" pool: {method} round_mode: {rng.choice(['CEIL', 'FLOOR'])}"
    mask = ' top: "top" top: "mask"' if method == "MAX" and rng.random() < 0.5 else ""
    kind = "positive" if method == "STOCHASTIC" else "distinct"
    bottom = [rng.randint(1, 2), rng.randint(1, 2), rng.randint(3, 5), rng.randint(3, 5)]
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    return Case(f"pooling_param {{ {text} }}{mask}", [bottom], (kind,), phase)


@row("SPP", example="spp_param { pyramid_height: 3 }")
def pyramid(rng: Random, name: str) -> Case:
    method, height = rng.choice(["MAX", "AVE", "STOCHASTIC"]), rng.randint(1, 3)
    if method == "STOCHASTIC":  # takes no padding
        height, sizes = min(height, 2), [[1, 2, 3], [2, 4, 6]]
    else:
        sizes = [[1, 2, 3, 4], [2, 3, 4, 5], [4, 6, 7, 8]]
    bottom = [rng.randint(1, 2), rng.randint(1, 2), *rng.choices(sizes[height - 1], k=2)]
    kind = "positive" if method == "STOCHASTIC" else "distinct"
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    text = f"spp_param {{ pyramid_height: {height} pool: {method} }}"
    return Case(text, [bottom], (kind,), phase)


@row("Unpooling", example="unpooling_param { scale: 2 }", gradient=(0,))
def unpooling(rng: Random, name: str) -> Case:
    n, c, height, width = (rng.randint(1, 3) for _ in range(4))
    if rng.random() < 0.4:
        return deconvnet(rng, [n, c, height, width])
    if rng.random() < 0.5:
        scale = rng.randint(1, 3)
        text, places = f"scale: {scale}", height * width * scale**2
    else:
        high, wide = height + rng.randint(0, 3), width + rng.randint(0, 3)
        text, places = f"output_h: {high} output_w: {wide}", high * wide
        text += rng.choice(["", " scale: 2"])  # the size counts
    bottom = [n, c, height, width]
    return Case(f"unpooling_param {{ {text} }}", [bottom] * 2, ("real", f"places in {places}"))


def deconvnet(rng: Random, bottom: list[int]) -> Case:
    """DeconvNet's. TILE is left out: its gradient is not the derivative."""
    high, wide = (n * 2 + rng.randint(0, 2) for n in bottom[2:])
    text = f"unpool_h: {high} unpool_w: {wide} kernel_size: {rng.randint(1, 3)} stride: 2 "
    method = rng.choice(["mask", "MAX", "AVE"])
    if method == "mask":
        places = ("real", f"places in {high * wide}")
        return Case(f"unpooling_param {{ {text} unpool: MAX }}", [bottom] * 2, places)
    return Case(f"unpooling_param {{ {text} unpool: {method} }}", [bottom])

"""Pooling, SPP and Unpooling."""

from __future__ import annotations

from random import Random

import caffe
from cases import Case, row


def sides(name: str, pair: tuple[int, int], square: str = "") -> str:
    """kernel_h and kernel_w, say, or kernel_size if they are equal."""
    if square and pair[0] == pair[1]:
        return f"{square}: {pair[0]} "
    return f"{name}_h: {pair[0]} {name}_w: {pair[1]} "


def window(rng: Random, pads: bool) -> str:
    """Kernel, padding and stride. Without padding, a window may lie beyond the image if the stride
    is larger than the kernel, which ONNX refuses.
    """
    squares = ("kernel_size", "pad", "stride") if rng.random() < 0.6 else ("", "", "")
    same = rng.random() < 0.6
    height, width = rng.randint(1, 3), rng.randint(1, 3)
    kernel = (height, height) if same else (height, width)
    pad = tuple(rng.randint(0, k - 1) if pads else 0 for k in kernel)
    stride = tuple(rng.randint(1, 3 if any(pad) else k) for k in kernel)
    if same:
        pad, stride = (pad[0],) * 2, (stride[0] if any(pad[:1]) else min(stride),) * 2
    pairs = zip(("kernel", "pad", "stride"), (kernel, pad, stride), squares, strict=True)
    return "".join(sides(name, pair, square) for name, pair, square in pairs)


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
    if rng.random() < 0.5:
        scale = rng.randint(1, 3)
        text, places = f"scale: {scale}", height * width * scale**2
    else:
        high, wide = height + rng.randint(0, 3), width + rng.randint(0, 3)
        text, places = f"output_h: {high} output_w: {wide}", high * wide
        text += rng.choice(["", " scale: 2"])  # the size counts
    bottom = [n, c, height, width]
    return Case(f"unpooling_param {{ {text} }}", [bottom] * 2, ("real", f"places in {places}"))

"""Convolutions, Im2col and Crop."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from cases import Case, row, shape


def field(rng: Random, name: str, numbers: Sequence[int], one_sided: bool) -> str:
    """A repeated field: kernel_h and kernel_w, one number for all axes, or one for each."""
    if one_sided and name != "dilation":
        stem = name.removesuffix("_size")
        return f"{stem}_h: {numbers[0]} {stem}_w: {numbers[1]} "
    if len(set(numbers)) == 1 and rng.random() < 0.5:
        numbers = numbers[:1]
    return "".join(f"{name}: {n} " for n in numbers)


def kernels(rng: Random, axes: int, transposed: bool) -> tuple[str, list[int]]:
    """The fields of a convolution over this many spatial axes, and an image that it fits."""
    image, numbers = [], []
    same = rng.random() < 0.5
    for _ in range(axes):
        if not (same and numbers):
            kernel, stride = rng.randint(1, 3 if axes < 3 else 2), rng.randint(1, 3)
            dilation = rng.randint(1, 2)
            pad = rng.randint(0, 1)
            extent = dilation * (kernel - 1) + 1
        if transposed:
            size = rng.randint(1, 3 if axes < 3 else 2)
            while stride * (size - 1) + extent <= 2 * pad:
                size += 1
        else:  # the padded image may be smaller than the kernel by less than a stride
            size = max(extent - 2 * pad - stride + 1, 1) + rng.randint(0, 2 if axes < 3 else 1)
        image.append(size)
        numbers.append((kernel, stride, pad, dilation))
    names = ("kernel_size", "stride", "pad", "dilation")
    one_sided = axes == 2 and rng.random() < 0.3
    text = "".join(
        field(rng, name, [n[i] for n in numbers], one_sided) for i, name in enumerate(names)
    )
    return text if axes else rng.choice(["", "kernel_size: 2 "]), image


@row("Convolution", example="convolution_param { num_output: 64 kernel_size: 3 pad: 1 }")
@row("ConvolutionDepthwise", example="convolution_param { kernel_size: 3 pad: 1 }")
@row("DepthwiseConvolution", example="convolution_param { num_output: 64 kernel_size: 3 pad: 1 }")
@row("Deconvolution", example="convolution_param { num_output: 64 kernel_size: 2 stride: 2 }")
def convolution(rng: Random, name: str) -> Case:
    axes, before = rng.choice([0, 1, 2, 2, 2, 3, 4]), rng.choice([0, 1, 1, 1, 2])
    text, image = kernels(rng, axes, name == "Deconvolution")
    group = rng.choice([1, 1, 2])
    bottom = [*(rng.randint(1, 2) for _ in range(before)), group * rng.randint(1, 2), *image]
    axis = rng.choice([before, before - len(bottom)])
    outputs, groups = group * rng.randint(1, 2), f"group: {group} "
    if name == "DepthwiseConvolution" and rng.random() < 0.5:
        outputs, groups = bottom[before] * rng.randint(1, 2), ""
    text += f"num_output: {outputs} {groups} axis: {axis} "
    text += f"bias_term: {rng.choice(['true', 'false'])} "
    text += 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
    several = rng.random() < 0.3
    tops = ' top: "a" top: "b"' if several else ""
    return Case(f"convolution_param {{ {text} }}{tops}", [bottom] * (2 if several else 1))


@row("Im2col", example="convolution_param { kernel_size: 3 pad: 1 }")
def im2col(rng: Random, name: str) -> Case:
    axes, before = rng.choice([1, 2, 2, 2, 3, 4]), rng.choice([0, 1, 1, 1, 2])
    text, image = kernels(rng, axes, transposed=False)
    bottom = [*(rng.randint(1, 2) for _ in range(before)), rng.randint(1, 2), *image]
    axis = rng.choice([before, before - len(bottom)])
    return Case(f"convolution_param {{ {text} axis: {axis} }}", [bottom])


@row("Crop", example="crop_param { axis: 2 offset: 5 }", gradient=(0,))
@row("AutoCrop", gradient=(0,))
def crop(rng: Random, name: str) -> Case:
    image = shape(rng, 1, 5, largest=4)
    start = rng.randint(0, len(image) - 1)
    cut = len(image) - start
    form = rng.choice(["none", "one", "each"])
    if form == "each":
        offsets = [rng.randint(0, n - 1) for n in image[start:]]
    else:
        offsets = [rng.randint(0, min(image[start:]) - 1) if form == "one" else 0] * cut
    # The axes before `start`, and those beyond the image's, do not count.
    size = [rng.randint(1, 3) for _ in range(start)]
    size += [rng.randint(1, n - offset) for n, offset in zip(image[start:], offsets, strict=True)]
    size += shape(rng, 0, 1)
    given = {"none": [], "one": offsets[:1], "each": offsets}[form]
    text = f"axis: {rng.choice([start, start - len(image)])} "
    text += " ".join(f"offset: {offset}" for offset in given)
    return Case(f"crop_param {{ {text} }}", [image, size])

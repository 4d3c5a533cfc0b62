"""Deformable convolutions."""

from __future__ import annotations

from random import Random

from cases import Case, row


@row(
    "DeformableConvolution",
    example="deformable_convolution_param { num_output: 100 kernel_size: 3 pad: 2 dilation: 2 }",
)
def deformable(rng: Random, name: str) -> Case:
    group, groups = rng.choice([(1, 1), (2, 1), (1, 2), (2, 2)])
    kernel, dilation, stride = rng.randint(1, 2), rng.randint(1, 2), rng.randint(1, 2)
    pad, channels = rng.randint(0, 1), group * groups * rng.randint(1, 2)
    text = (
        f"num_output: {group * rng.randint(1, 2)} kernel_size: {kernel} pad: {pad} group: {group} "
    )
    text += f"stride: {stride} dilation: {dilation} deformable_group: {groups} "
    text += f"bias_term: {rng.choice(['true', 'false'])} "
    sides = [rng.randint(4, 6), rng.randint(4, 6)]
    size = [(n + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 for n in sides]
    images = rng.randint(1, 2)
    return Case(
        f"deformable_convolution_param {{ {text} }}",
        [[images, channels, *sides], [images, 2 * kernel**2 * groups, *size]],
        ("real", "real"),
    )

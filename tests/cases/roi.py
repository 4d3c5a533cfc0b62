"""Layers that look at regions of interest."""

from __future__ import annotations

from random import Random

from cases import Case, row


def bottoms(rng: Random, channels: int | None = None, numbers: int = 5) -> list[list[int]]:
    """The shapes of images and regions."""
    images = [
        rng.randint(1, 2),
        channels or rng.randint(1, 3),
        rng.randint(3, 7),
        rng.randint(3, 7),
    ]
    return [images, [rng.randint(1, 4), numbers]]


def sizes(rng: Random, most: int = 3) -> str:
    return f"pooled_h: {rng.randint(1, most)} pooled_w: {rng.randint(1, most)}"


@row(
    "ROIPooling",
    example="roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.0625 }",
    gradient=(0,),
)
@row(
    "ROIAlign",
    example="roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.0625 }",
    gradient=(0,),
)
def pooling(rng: Random, name: str) -> Case:
    scale = rng.choice([1, 0.5, 0.25])
    pad = rng.choice(["", "", f"pad_ratio: {rng.uniform(0, 0.5)}"])
    size = sizes(rng)
    if name == "ROIPooling" and rng.random() < 0.2:
        size = f"pooled_size: {rng.randint(1, 3)}"
    shapes = bottoms(rng)
    side = round(max(shapes[0][2:]) / scale)
    return Case(
        f"roi_pooling_param {{ {size} spatial_scale: {scale} {pad} }}",
        shapes,
        ("distinct", f"regions {shapes[0][0]} {side}"),
    )


@row(
    "PSROIPooling",
    example="psroi_pooling_param { spatial_scale: 0.0625 output_dim: 21 group_size: 7 }",
    gradient=(0,),
)
def position_sensitive(rng: Random, name: str) -> Case:
    group, outputs, scale = rng.randint(1, 3), rng.randint(1, 2), rng.choice([1, 0.5, 0.25])
    shapes = bottoms(rng, channels=outputs * group**2)
    side = round(max(shapes[0][2:]) / scale)
    return Case(
        f"psroi_pooling_param {{ spatial_scale: {scale} output_dim: {outputs} "
        f"group_size: {group} }}",
        shapes,
        ("real", f"regions {shapes[0][0]} {side}"),
    )


@row(
    "ROIWarping",
    example="roi_warping_param { pooled_h: 14 pooled_w: 14 spatial_scale: 0.0625 }",
    gradient=(0,),
)
def warping(rng: Random, name: str) -> Case:
    # MNC's gradient is the derivative where a region's sides are multiples of the points' number.
    shapes = bottoms(rng)
    return Case(
        f"roi_warping_param {{ {sizes(rng, 2)} }}",
        shapes,
        ("real", f"even regions {shapes[0][0]} {max(shapes[0][2:])}"),
    )


@row("MaskPooling")
def mask(rng: Random, name: str) -> Case:
    features = [rng.randint(1, 3) for _ in range(4)]
    return Case("", [features, [features[0], 1, *features[2:]]])


@row("MaskResize", example="mask_resize_param { output_height: 14 output_width: 14 }")
def resize(rng: Random, name: str) -> Case:
    # Upwards MNC's gradient is not the derivative.
    high, wide = rng.randint(1, 6), rng.randint(1, 6)
    text = f"output_height: {rng.randint(1, high)} output_width: {rng.randint(1, wide)}"
    if rng.random() < 0.3:
        text = f"factor_height: {rng.uniform(1 / high, 1)} factor_width: {rng.uniform(1 / wide, 1)}"
    return Case(f"mask_resize_param {{ {text} }}", [[rng.randint(1, 2), 2, high, wide]])

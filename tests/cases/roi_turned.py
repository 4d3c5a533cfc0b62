"""Pooling of regions that are turned."""

from __future__ import annotations

from random import Random

from cases import Case, row


@row(
    "RotateROIPooling",
    example="rotate_roi_pooling_param { pooled_h: 7 pooled_w: 7 spatial_scale: 0.0625 }",
    gradient=(0,),
)
def turned(rng: Random, name: str) -> Case:
    # Where a region is turned, crpn's gradient misses pixels that a rounding moves.
    images = [rng.randint(1, 2), 2, rng.randint(3, 7), rng.randint(3, 7)]
    text = f"pooled_h: {rng.randint(1, 3)} pooled_w: {rng.randint(1, 3)}"
    return Case(
        f"rotate_roi_pooling_param {{ {text} }}",
        [images, [rng.randint(1, 4), 6]],
        ("distinct", f"even regions {images[0]} {max(images[2:])}"),
    )

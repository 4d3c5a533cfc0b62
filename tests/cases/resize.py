"""Interp, Upsample and MergeCrop."""

from __future__ import annotations

from random import Random

from cases import Case, row


def image(rng: Random, least: int = 2) -> list[int]:
    return [rng.randint(1, 2), rng.randint(1, 2), rng.randint(least, 5), rng.randint(least, 5)]


@row("Interp", example="interp_param { zoom_factor: 8 }", gradient=(0,))
def interp(rng: Random, name: str) -> Case:
    bottom = image(rng, 3)
    size = f"height: {rng.randint(1, 7)} width: {rng.randint(1, 7)}"
    shrink, zoom = f"shrink_factor: {rng.randint(1, 3)}", f"zoom_factor: {rng.randint(1, 3)}"
    text = rng.choice([size, shrink, zoom, f"{shrink} {zoom}", f"{zoom} {size}", ""])
    bottoms = [bottom] if text else [bottom, [1, 1, *image(rng)[2:]]]
    if rng.random() < 0.5:
        text += f" pad_beg: {rng.randint(-1, 0)} pad_end: {rng.randint(-1, 0)}"
    return Case(f"interp_param {{ {text} }}", bottoms)


@row("Upsample", example="upsample_param { scale: 2 }", gradient=(0,))
def upsample(rng: Random, name: str) -> Case:
    bottom, kind = image(rng), rng.choice(["mask", "pixels", "size"])
    height, width = bottom[2:]
    if kind == "pixels":
        return Case(f"upsample_param {{ scale: {rng.randint(1, 3)} }}", [bottom])
    if kind == "size":
        size = rng.choice(["height: 7 width: 4", "height_scale: 2 width_scale: 3", ""])
        mode = f"mode: {rng.choice(['NEAREST', 'BILINEAR'])}"
        bottoms = [bottom] if size else [bottom, [1, 1, 4, 7]]
        return Case(f"upsample_param {{ {size} {mode} }}", bottoms)
    choice = rng.randrange(3)
    if choice == 0:
        text, places = (
            "scale: 2 pad_out_h: true pad_out_w: true",
            (2 * height - 1) * (2 * width - 1),
        )
    elif choice == 1:
        text, places = "scale_h: 2 scale_w: 3", 6 * height * width
    else:
        high, wide = height + rng.randint(1, 3), width + rng.randint(1, 3)
        text, places = f"scale: 2 upsample_h: {high} upsample_w: {wide}", high * wide
    return Case(f"upsample_param {{ {text} }}", [bottom] * 2, ("real", f"places in {places}"))


@row("MergeCrop", example="mergecrop_param { backward: true backward: true }")
def merge_crop(rng: Random, name: str) -> Case:
    a = image(rng, 1)[: rng.randint(2, 4)]
    adds = rng.random() < 0.5
    b = [a[0], a[1] if adds else rng.randint(1, 3), *(n + rng.randint(0, 3) for n in a[2:])]
    text = f"operation: {'ADD' if adds else 'STACK'} backward: true backward: true"
    return Case(f"mergecrop_param {{ {text} }}", [a, b])

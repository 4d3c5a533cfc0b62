"""Cases of the layers in caffe/layers/resample.py."""

from random import Random

from cases import Case, row


def sizes(rng: Random, least: int, most: int) -> list[int]:
    """A height and a width."""
    return [rng.randint(least, most) for _ in range(2)]


@row("Resample", "resample_param { type: LINEAR width: 64 height: 48 }", gradient=(), learns=False)
def resample(rng: Random, name: str) -> Case:
    kind = rng.choice(["NEAREST", "LINEAR", "CUBIC"])
    antialias = str(rng.random() < 0.5).lower()
    text = f"type: {kind} antialias: {antialias}"
    bottoms = [[rng.randint(1, 2), rng.randint(1, 2), *sizes(rng, 1, 7)]]
    h, w = sizes(rng, 1, 7)
    if rng.random() < 0.5:
        bottoms.append([1, 1, h, w])
    else:
        text += f" height: {h} width: {w}"
    return Case(f"resample_param {{ {text} }}", bottoms)


@row("Downsample", "downsample_param { top_height: 48 top_width: 64 }", gradient=(), learns=False)
def downsample(rng: Random, name: str) -> Case:
    bottoms = [[rng.randint(1, 2), rng.randint(1, 2), *sizes(rng, 4, 8)]]
    h, w = sizes(rng, 2, 4)
    if rng.random() < 0.5:
        return Case("", [*bottoms, [1, 1, h, w]])
    return Case(f"downsample_param {{ top_height: {h} top_width: {w} }}", bottoms)


@row("Accum", "accum_param { have_reference: true }")
def accum(rng: Random, name: str) -> Case:
    n = rng.randint(1, 2)
    bottoms = [[n, rng.randint(1, 2), *sizes(rng, 1, 5)] for _ in range(rng.randint(1, 3))]
    text = rng.choice(["", "size_divisible_by: 3", "top_height: 6 top_width: 6"])
    if rng.random() < 0.3:
        bottoms.append([1, 1, *sizes(rng, 1, 6)])
        text = "have_reference: true"
    return Case(f"accum_param {{ {text} }}", bottoms)

"""Prior boxes."""

import random

from cases import Case, row

BOTTOMS = [[1, 3, 4, 5], [1, 3, 40, 60]]


def common(rng: random.Random) -> str:
    """Fields that both types have."""
    text = rng.choice(["", "clip: true ", "offset: 0.3 "])
    text += rng.choice(["", "variance: 0.3 ", "variance: 0.1 " * 2 + "variance: 0.2 " * 2])
    text += rng.choice(["", "step: 8 ", "step_h: 9 step_w: 11 "])
    return text + rng.choice(["", "img_size: 300 ", "img_h: 50 img_w: 70 "])


@row("PriorBox", "prior_box_param { min_size: 30 aspect_ratio: 2 }", gradient=(), learns=False)
def prior_box(rng: random.Random, name: str) -> Case:
    text = rng.choice(["min_size: 10.5 ", "min_size: 10 min_size: 14 max_size: 20 max_size: 30 "])
    text += rng.choice(["", "aspect_ratio: 2 aspect_ratio: 3 ", "aspect_ratio: 2 flip: false "])
    text += rng.choice(["", "", "denser_prior_boxes: true ", "reduce_boxes: true "])
    return Case(f"prior_box_param {{ {text} {common(rng)} }}", BOTTOMS)


@row("PriorBoxClustered", "prior_box_param { width: 9 height: 7 }", gradient=(), learns=False)
def clustered(rng: random.Random, name: str) -> Case:
    text = rng.choice(["width: 9.5 height: 20 ", "width: 9 width: 30 height: 12.5 height: 7 "])
    return Case(f"prior_box_param {{ {text} {common(rng)} }}", BOTTOMS)

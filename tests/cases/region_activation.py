"""Cases of darknet's Region layer."""

from random import Random

from cases import Case, row, shape


@row("Region", "region_param { classes: 20 boxes_of_each_grid: 5 }", gradient=(), learns=False)
def region(rng: Random, name: str) -> Case:
    n, classes, h, w = shape(rng, 4, 4)
    boxes = rng.randint(1, 2)
    text = f"classes: {classes} softmax: {rng.choice(['true', 'false'])} "
    text += f"{rng.choice(['boxes_of_each_grid', 'num'])}: {boxes}"
    return Case(f"region_param {{ {text} }}", [[n, boxes * (5 + classes), h, w]])

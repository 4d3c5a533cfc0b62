"""DetectionOutput and DetectionOutputExtended."""

import random

from cases import Case, row

CODES = ("CORNER", "CENTER_SIZE", "CORNER_SIZE")
EXAMPLE = "num_classes: 21 code_type: CENTER_SIZE nms_param { nms_threshold: 0.45 top_k: 400 }"
KINDS = ("real", "distinct", "priors")


def fields(rng: random.Random, classes: int) -> str:
    """Fields that both types have."""
    text = f"num_classes: {classes} code_type: {rng.choice(CODES)} "
    text += rng.choice(["", "keep_top_k: 5 "]) + rng.choice(["", "confidence_threshold: 0.4 "])
    text += rng.choice(["", "variance_encoded_in_target: true "])
    nms = f"nms_threshold: {rng.uniform(0, 1)} {rng.choice(['', 'top_k: 3'])}"
    return f"{text} nms_param {{ {nms} }}"


@row("DetectionOutput", f"detection_output_param {{ {EXAMPLE} }}", gradient=(), learns=False)
def detection_output(rng: random.Random, name: str) -> Case:
    images, priors, classes = rng.randint(1, 3), rng.randint(1, 6), rng.randint(1, 4)
    shared = rng.random() < 0.8
    text = fields(rng, classes) + rng.choice(["", "background_label_id: -1 "])
    text += "" if shared else "share_location: false"
    places = priors * (1 if shared else classes)
    shapes = [[images, places * 4], [images, priors * classes], [1, 2, priors * 4]]
    return Case(f"detection_output_param {{ {text} }}", shapes, KINDS)


EXTENDED = "num_classes: 2 code_type: CENTER_SIZE nms_param { nms_threshold: 0.45 }"


@row("DetectionOutputExtended", f"detection_output_param {{ {EXTENDED} }}", (), False)
def extended(rng: random.Random, name: str) -> Case:
    images, height, width, anchors = (rng.randint(1, 3) for _ in range(4))
    places = [images, height, width]
    shapes = [[*places, anchors * 4], [*places, anchors * 2], [1, 2, height * width * anchors * 4]]
    return Case(f"detection_output_param {{ {fields(rng, 2)} }}", shapes, KINDS)

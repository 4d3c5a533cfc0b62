"""DetectionEvaluate."""

import random

from cases import Case, row

EXAMPLE = "num_classes: 21 overlap_threshold: 0.5 evaluate_difficult_gt: false"


@row("DetectionEvaluate", f"detection_evaluate_param {{ {EXAMPLE} }}", gradient=(), learns=False)
def detection_evaluate(rng: random.Random, name: str) -> Case:
    images, classes = rng.randint(1, 3), rng.randint(2, 4)
    text = f"num_classes: {classes} overlap_threshold: 0.2 "
    text += rng.choice(["", "evaluate_difficult_gt: false "])
    shapes = [[1, 1, rng.randint(1, 9), 7], [1, 1, rng.randint(1, 5), 8]]
    kinds = (f"detections {images} {classes}", f"truths {images} {classes}")
    return Case(f"detection_evaluate_param {{ {text} }}", shapes, kinds)

"""Masks beside a detector."""

from random import Random

from cases import Case, row


@row("YoloSeg", "yolo_seg_param { object_scale: 0.2 }", (), False)
def yolo_seg(rng: Random, name: str) -> Case:
    scores = [rng.randint(1, 2), rng.randint(1, 3), rng.randint(2, 3), rng.randint(2, 3)]
    bottoms = [scores, scores, [*scores[:2], 1, 1]][: rng.randint(2, 3)]
    return Case("yolo_seg_param { object_scale: 0.2 }", bottoms, ("real", "below 2", "below 3"))


@row("SegmentationEvaluate", "segmentation_evaluate_param { num_classes: 3 }", (), False)
def evaluate(rng: Random, name: str) -> Case:
    masks = [rng.randint(1, 2), rng.randint(1, 3), rng.randint(1, 4), rng.randint(1, 4)]
    truth = rng.choice([masks, [1, masks[1], 3, 5]])
    text = "segmentation_evaluate_param { num_classes: 3 threshold: 0.3 }"
    return Case(text, [masks, truth], ("distinct", "below 2"))

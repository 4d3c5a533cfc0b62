"""Cases of YOLO's outputs."""

from random import Random

from cases import Case, row
from cases.rearrange import fields


def anchors(rng: Random, count: int, largest: float) -> str:
    """The field `biases`, two numbers for each anchor."""
    return fields("biases", [rng.uniform(0.3, 1) * largest for _ in range(2 * count)])


@row(
    "YoloDetectionOutput",
    "yolo_detection_output_param { num_classes: 20 num_box: 1 biases: 0.73 biases: 0.87 }",
    gradient=(),
    learns=False,
)
def yolo_output(rng: Random, name: str) -> Case:
    boxes, classes, side = rng.randint(1, 3), rng.randint(1, 3), rng.randint(1, 3)
    text = f"num_classes: {classes} num_box: {boxes} {anchors(rng, boxes, 2)} "
    text += f"confidence_threshold: {rng.uniform(0.1, 0.9)} nms_threshold: {rng.uniform(0.1, 0.8)}"
    bottom = [rng.randint(1, 2), boxes * (5 + classes), side, side]
    return Case(f"yolo_detection_output_param {{ {text} }}", [bottom] * rng.randint(1, 2))


@row(
    "Yolov3DetectionOutput",
    "yolov3_detection_output_param { num_classes: 20 num_box: 1 mask_group_num: 1 mask: 0 "
    "anchors_scale: 32 biases: 100 biases: 90 }",
    gradient=(),
    learns=False,
)
def yolov3_output(rng: Random, name: str) -> Case:
    boxes, classes, groups = rng.randint(1, 2), rng.randint(1, 3), rng.randint(1, 2)
    gaussian = rng.random() < 0.4
    text = f"num_classes: {classes} num_box: {boxes} {anchors(rng, boxes * groups, 60)} "
    text += f"confidence_threshold: {rng.uniform(0.1, 0.9)} nms_threshold: {rng.uniform(0.1, 1.1)}"
    text += f" mask_group_num: {groups} {fields('mask', list(range(boxes * groups)))} "
    text += fields("anchors_scale", [32, 16][:groups])
    text += f" gaussian_box: {'true' if gaussian else 'false'}"
    channels = boxes * ((9 if gaussian else 5) + classes)
    bottoms = [[2, channels, rng.randint(1, 3), rng.randint(1, 3)] for _ in range(groups)]
    return Case(f"yolov3_detection_output_param {{ {text} }}", bottoms)

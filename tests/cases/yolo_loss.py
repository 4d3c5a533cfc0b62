"""Cases of YOLO's losses. The labels' values are whole numbers: the class is 0 or 1, as are the
coordinates, so that boxes are as large as the picture or nothing.
"""

from random import Random

from cases import Case, row
from cases.rearrange import fields
from cases.yolo import anchors


@row(
    "Yolov3",
    "yolov3_param { num_class: 20 num: 1 mask: 0 anchors_scale: 32 biases: 100 biases: 90 }",
    gradient=(),
    learns=False,
)
def yolov3(rng: Random, name: str) -> Case:
    boxes, classes = rng.randint(1, 3), rng.randint(2, 3)
    mask = rng.sample(range(4), boxes)
    text = f"num_class: {classes} num: {boxes} {anchors(rng, 4, 60)} {fields('mask', mask)} "
    text += f"anchors_scale: 16 thresh: {rng.uniform(0.1, 0.8)} "
    text += f"iou_loss: {rng.choice(['IOU', 'GIOU', 'MSE', 'DIOU', 'CIOU'])} "
    for name in ("use_focal_loss", "use_logic_gradient", "accumulate"):
        text += f"{name}: {rng.choice(['true', 'false'])} "
    n = rng.randint(1, 2)
    bottom = [n, boxes * (5 + classes), rng.randint(1, 3), rng.randint(1, 3)]
    return Case(
        f"yolov3_param {{ {text} }}", [bottom, [n, 5 * rng.randint(1, 3)]], ("real", "below 2")
    )


@row(
    "RegionLoss",
    "region_loss_param { num_class: 20 num: 1 biases: 0.73 biases: 0.87 }",
    gradient=(),
    learns=False,
)
def region_loss(rng: Random, name: str) -> Case:
    boxes, classes, side, n = (rng.randint(1, 3) for _ in range(4))
    text = f"num_class: {classes + 1} num: {boxes} {anchors(rng, boxes, 2)} "
    text += f"rescore: {rng.randint(0, 1)} bias_match: {rng.randint(0, 1)} thresh: 0.3"
    bottom = [n, boxes * (6 + classes), side, side]
    labels = [n, 1, 5 * rng.randint(1, 3)]
    return Case(f"region_loss_param {{ {text} }}", [bottom, labels], ("real", "below 2"))


def grid_loss(rng: Random) -> Case:
    """A case of DetectionLoss as caffe-yolo means it."""
    n, side, classes, objects = (rng.randint(1, 2) for _ in range(4))
    text = f"side: {side} num_class: {classes + 1} num_object: {objects} "
    text += f"sqrt: {rng.choice(['true', 'false'])} constriant: {rng.choice(['true', 'false'])}"
    bottoms = [[n, side**2 * (classes + 1 + 5 * objects)], [n, 7 * side**2]]
    return Case(f"detection_loss_param {{ {text} }}", bottoms, ("real", "below 2"))


@row("YoloSeg", "yolo_seg_param { object_scale: 5 }", gradient=(), learns=False)
def yolo_seg(rng: Random, name: str) -> Case:
    x = [rng.randint(1, 3) for _ in range(4)]
    text = f"yolo_seg_param {{ object_scale: {rng.uniform(0.1, 2)} }}"
    return Case(text, [x, x, x[:2]], ("real", "below 2", "distinct"))

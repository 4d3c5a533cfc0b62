"""Boxes that convolutions predict at each place."""

from __future__ import annotations

from random import Random

from cases import Case, row
from cases.yolo_loss import grid_loss

# Limits so wide that no code reaches them, as beyond them the gradient is not the derivative.
WIDE = "field_whr: 1e9 field_xyr: 1e-9"
SIZES = "field_w: 20 field_h: 24"


def truth(rng: Random, maps: int, classes: int, high: int, wide: int) -> str:
    """The kind of maps of labels, boxes and overlaps, (maps, 6, high, wide)."""
    places, numbers = high * wide, []
    for _ in range(maps):
        labels = [rng.choice([0, 0, rng.randint(1, classes - 1)]) for _ in range(places)]
        numbers += labels
        numbers += [rng.uniform(0, 8 * wide) for _ in range(2 * places)]
        numbers += [rng.uniform(8, 30) for _ in range(2 * places)]
        numbers += [rng.uniform(0.5, 1) if n else rng.uniform(0, 0.6) for n in labels]
    return "numbers " + " ".join(str(n) for n in numbers)


def normalized(rng: Random) -> str:
    mean = " ".join(f"bbox_mean: {rng.uniform(-0.1, 0.1)}" for _ in range(4))
    std = "bbox_std: 0.5 bbox_std: 0.5 bbox_std: 0.3 bbox_std: 0.3"
    return rng.choice(["", f"bbox_reg_param {{ {mean} {std} }}"])


@row(
    "BoxOutput",
    example="box_output_param { fg_thr: -5 iou_thr: 0.65 field_w: 40 field_h: 40 "
    "downsample_rate: 8 }",
    gradient=(),
    learns=False,
)
def output(rng: Random, name: str) -> Case:
    maps = rng.randint(1, 2)
    text = " ".join(f"{SIZES} downsample_rate: {8 << i}" for i in range(maps))
    text += f" fg_thr: {rng.uniform(-2, 1)} iou_thr: {rng.uniform(0.3, 0.7)} min_size: 3 "
    text += rng.choice(["", "max_nms_num: 9 max_post_nms_num: 3", 'nms_type: "IOMU"'])
    images, channels = rng.randint(1, 2), rng.randint(6, 8)
    return Case(
        f"box_output_param {{ {text} }} {normalized(rng)} "
        + rng.choice(["", 'top: "regions" top: "scores"']),
        [[images, channels, rng.randint(1, 3), rng.randint(1, 3)] for _ in range(maps)],
    )


@row(
    "BoxGroupOutput",
    example="box_group_output_param { iou_thr: 0.7 box_group_param { field_w: 32 field_h: 32 "
    "stride: 8 } }",
    gradient=(),
    learns=False,
)
def group_output(rng: Random, name: str) -> Case:
    images, shapes, text = rng.randint(1, 2), [], ""
    for i in range(rng.randint(1, 2)):
        kinds, plane = rng.randint(1, 2), [rng.randint(1, 3), rng.randint(1, 3)]
        shapes += [[images * kinds, 2, *plane], [images * kinds, 4, *plane]]
        text += f"box_group_param {{ {' '.join([SIZES] * kinds)} stride: {8 << i} }} "
    text += f"fg_thr: {rng.uniform(-1, 1)} iou_thr: {rng.uniform(0.3, 0.7)} min_size: 3"
    return Case(
        f"box_group_output_param {{ {text} }} {normalized(rng)} "
        + rng.choice(["", 'top: "regions" top: "scores"']),
        shapes,
    )


@row(
    "DetectionAccuracy",
    example=f"detection_accuracy_param {{ cls_num: 2 {SIZES} downsample_rate: 8 }}",
    gradient=(),
    learns=False,
)
@row(
    "DetectionLoss",
    example=f"detection_loss_param {{ cls_num: 2 {SIZES} downsample_rate: 8 }}",
    gradient=(),  # tests/caffe/layers/test_anchor_boxes.py checks it
    learns=False,
)
def joined(rng: Random, name: str) -> Case:
    if name == "DetectionLoss" and rng.random() < 0.3:
        return grid_loss(rng)
    classes = rng.randint(2, 4)
    text = f"cls_num: {classes} {SIZES} downsample_rate: 8 {WIDE} "
    text += rng.choice(["", f"bg_threshold: {rng.uniform(0.1, 0.6)} "])
    field = "detection_accuracy_param"
    if name == "DetectionLoss":
        field = "detection_loss_param"
        mode = rng.choice(["random", "bootstrap", "mixture", "all"])
        text += f'sample_mode: "{mode}" lambda: {rng.uniform(0.5, 2)} bg_multiple: 1 '
        text += rng.choice(["", "pos_neg_weighted: true ", "iou_weighted: true "])
        text += rng.choice(["", "bb_smooth: false"])
    elif rng.random() < 0.5:
        text += "top_k: 2"
    more = rng.choice(["", "loss_param { ignore_label: 1 }"])
    more += ' top: "top" top: "overlap"' if name == "DetectionAccuracy" else ""
    images, high, wide = rng.randint(1, 2), rng.randint(1, 3), rng.randint(1, 3)
    return Case(
        f"{field} {{ {text} }} {normalized(rng)} {more}",
        [[images, classes + 4, high, wide], [images, 6, high, wide]],
        ("distinct", truth(rng, images, classes, high, wide)),
    )


@row(
    "DetectionGroupAccuracy",
    example=f"detection_group_accuracy_param {{ cls_num: 2 {SIZES} stride: 8 }}",
    gradient=(),
    learns=False,
)
@row(
    "DetectionGroupLoss",
    example=f"detection_group_loss_param {{ cls_num: 2 {SIZES} stride: 8 }}",
    gradient=(),  # tests/caffe/layers/test_anchor_boxes.py checks it
    learns=False,
)
def groups(rng: Random, name: str) -> Case:
    classes, kinds = rng.randint(2, 4), rng.randint(1, 2)
    text = f"cls_num: {classes} stride: 8 {WIDE} " + f"{SIZES} " * kinds
    text += rng.choice(["", f"bg_threshold: {rng.uniform(0.1, 0.6)} "])
    field = "detection_group_accuracy_param"
    if name == "DetectionGroupLoss":
        field = "detection_group_loss_param"
        text += f'neg_mining_type: "{rng.choice(["random", "bootstrap", "mixture"])}" '
        text += f'neg_ranking_type: "{rng.choice(["conf_prob", "conf_loss"])}" bg_multiple: 1 '
        text += f'bbox_loss_type: "{rng.choice(["Smooth_L1", "Euclidean_L2"])}" '
        text += rng.choice(["", "batch_size: 3 ", "pos_neg_weighted: true "])
    more = rng.choice(["", "loss_param { ignore_label: 1 }"])
    more += ' top: "top" top: "overlap"' if name == "DetectionGroupAccuracy" else ""
    maps, high, wide = kinds * rng.randint(1, 2), rng.randint(1, 3), rng.randint(1, 3)
    plane = [high, wide]
    return Case(
        f"{field} {{ {text} }} {normalized(rng)} {more}",
        [[maps, classes, *plane], [maps, 4, *plane], [maps, 6, *plane]],
        ("distinct", "real", truth(rng, maps, classes, high, wide)),
    )

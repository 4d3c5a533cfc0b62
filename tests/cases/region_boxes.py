"""Boxes between the stages of MS-CNN and Cascade R-CNN."""

from __future__ import annotations

from random import Random

from cases import Case, row

NORMALIZED = "bbox_mean: 0 " * 4 + "bbox_std: 0.1 bbox_std: 0.1 bbox_std: 0.2 bbox_std: 0.2"


def box(rng: Random, side: int = 40) -> list[float]:
    """Corners of a box with sides of 10 or more."""
    x, y = rng.uniform(0, side), rng.uniform(0, side)
    return [x, y, x + rng.uniform(10, side), y + rng.uniform(10, side)]


def rows(values: list[list[float]]) -> str:
    """The kind of these values."""
    return "numbers " + " ".join(str(x) for line in values for x in line)


@row("DecodeBBox", example=f"bbox_reg_param {{ {NORMALIZED} }}", gradient=(), learns=False)
def decode(rng: Random, name: str) -> Case:
    count = rng.randint(1, 4)
    boxes = [[rng.randint(0, 1), *box(rng)] for _ in range(count)]
    shapes, kinds = [[count, 8], [count, 5]], ["real", rows(boxes)]
    phase = rng.randint(0, 1)
    if phase == 0 and rng.random() < 0.5:
        shapes.append([count, 6])
        kinds.append(rows([[1, *line[1:], 0.5] for line in boxes]))
    return Case(f"bbox_reg_param {{ {NORMALIZED} }}", shapes, tuple(kinds), phase)


@row(
    "BboxAccuracy",
    example=f"bbox_reg_param {{ {NORMALIZED} cls_aware: false }}",
    gradient=(),
    learns=False,
)
def accuracy(rng: Random, name: str) -> Case:
    count, classes = rng.randint(1, 4), rng.randint(2, 4)
    aware = rng.random() < 0.5
    truth = [[rng.randint(0, classes - 1), *box(rng), rng.random()] for _ in range(count)]
    regions = [[0, *box(rng)] for _ in range(count)]
    text = f"{NORMALIZED} cls_aware: {'true' if aware else 'false'}"
    return Case(
        f"bbox_reg_param {{ {text} }} " + rng.choice(["", 'top: "after" top: "before"']),
        [[count, 4 * classes if aware else 8], [count, 5], [count, 6]],
        ("real", rows(regions), rows(truth)),
    )


@row(
    "ProposalTarget",
    example="proposal_target_param { cls_num: 21 batch_size: 128 num_img_per_batch: 2 } "
    f"bbox_reg_param {{ {NORMALIZED} }} "
    + " ".join(f'top: "{n}"' for n in ("labels", "codes", "inside", "outside", "true_boxes")),
    gradient=(),
    learns=False,
)
def targets(rng: Random, name: str) -> Case:
    truth = [[rng.randint(-1, 1), *box(rng), rng.randint(1, 2), rng.randint(0, 1)] for _ in "123"]
    regions = [[rng.randint(0, 1), *box(rng)] for _ in range(rng.randint(1, 5))]
    text = f"cls_num: 3 num_img_per_batch: 2 batch_size: {rng.choice([-1, 2, 8])} "
    text += f"fg_fraction: {rng.random()} fg_thr: {rng.uniform(0.5, 0.9)} img_width: 99 "
    text += f"img_height: 80 iou_weighted: {rng.choice(['true', 'false'])}"
    tops = " ".join(f'top: "top{i}"' for i in range(rng.choice([6, 7])))
    aware = rng.choice(["true", "false"])
    return Case(
        f"proposal_target_param {{ {text} }} bbox_reg_param {{ cls_aware: {aware} }} {tops}",
        [[len(regions), 5], [3, 7]],
        (rows(regions), rows(truth)),
    )


@row(
    "ScaleRoute",
    example="scale_route_param { low_scale: 112 high_scale: 224 }",
    gradient=(),
    learns=False,
)
def route(rng: Random, name: str) -> Case:
    regions = [[0, *box(rng)] for _ in range(rng.randint(1, 5))]
    low = rng.uniform(10, 30)
    text = rng.choice(["", f"low_scale: {low}"]) + " "
    text += rng.choice(["", f"high_scale: {low + rng.uniform(0, 20)}"])
    return Case(
        f'scale_route_param {{ {text} }} top: "regions" top: "rows"',
        [[len(regions), 5], [len(regions), 2, 1, 3]],
        (rows(regions), "real"),
    )


@row(
    "HardMining",
    example="hard_mining_param { num_roi_per_image: 128 num_image: 2 }",
    gradient=(),
    learns=False,
)
def mining(rng: Random, name: str) -> Case:
    count = rng.randint(1, 6)
    regions = [[rng.randint(0, 1), *box(rng)] for _ in range(count)]
    text = f"num_roi_per_image: {rng.randint(1, 3)} num_image: 2"
    return Case(
        f'hard_mining_param {{ {text} }} top: "regions" top: "rows"',
        [[count], [count, 5], [count, 2, 1, 3]],
        ("distinct", rows(regions), "real"),
    )


@row(
    "FrcnnOutput",
    example="frcnn_output_param { conf_thr: 0.01 iou_thr: 0.5 max_det_num: 100 }",
    gradient=(),
    learns=False,
)
def output(rng: Random, name: str) -> Case:
    count, classes = rng.randint(1, 5), rng.randint(2, 4)
    aware = rng.random() < 0.5
    text = f"conf_thr: {rng.uniform(0, 0.5)} iou_thr: {rng.uniform(0.2, 0.7)} "
    text += rng.choice(["", "max_det_num: 3", 'nms_type: "IOMU"', 'nms_type: "IOFU"'])
    return Case(
        f"frcnn_output_param {{ {text} }} bbox_reg_param {{ {NORMALIZED} "
        f"cls_aware: {'true' if aware else 'false'} }}",
        [[count, classes], [count, 4 * classes if aware else 8], [count, 5], [1, 2]],
        ("distinct", "real", rows([[0, *box(rng)] for _ in range(count)]), "numbers 60 70"),
    )

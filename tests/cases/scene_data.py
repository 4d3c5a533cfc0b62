"""Pictures with boxes from window files."""

from __future__ import annotations

import random
from pathlib import Path

from cases import Case, row
from cases.data import more_tops
from cases.image_data import write_pictures

SIZE = (40, 50)


def write_windows(difficult: bool) -> None:
    """Pictures of 40 x 50 and their window file; the last one has no box."""
    lines = []
    names = write_pictures("", SIZE)
    for i, name in enumerate(names):
        word = " 0" if difficult else ""
        boxes = [f"1 0{word} {4 + i} 6 {30 + i} 28", f"2 1{word} 20 10 45 39"]
        boxes = boxes if i < len(names) - 1 else []
        lines += [f"# {i}", name, "3", "40", "50", str(len(boxes)), *boxes, "1", "0 0 9 9"]
    Path("windows.txt").write_text("\n".join(lines))


@row(
    "EvalData",
    'eval_data_param { source: "windows.txt" batch_size: 1 short_size: 600 long_size: 1000 }'
    ' top: "boxes"',
    (),
    False,
)
def evaluated(rng: random.Random, name: str) -> Case:
    size = rng.choice(["", "short_size: 64 long_size: 96", "resize_width: 64 resize_height: 32"])
    count = rng.randint(1, 2) if "resize" in size else 1
    text = f'source: "windows.txt" batch_size: {count} {size}'
    mean = rng.choice(["", "mean_value: 99", "mean_value: 104 mean_value: 117 mean_value: 123"])
    return Case(
        f"eval_data_param {{ {text} }} transform_param {{ {mean} }} "
        + more_tops(rng.choice([2, 3])),
        files=lambda: write_windows(True),
    )


@row(
    "ImageGtData",
    'image_gt_data_param { source: "windows.txt" batch_size: 4 field_w: 40 field_h: 40 '
    'downsample_rate: 8 } top: "truth"',
    (),
    False,
)
def truth(rng: random.Random, name: str) -> Case:
    fields = rng.randint(1, 2)
    text = f'source: "windows.txt" batch_size: {rng.randint(1, 3)} '
    text += " ".join(f"field_w: {16 << i} field_h: 20 downsample_rate: 8" for i in range(fields))
    text += f" shuffle: {rng.choice(['true', 'false'])} fg_img_multiple: {rng.randint(1, 2)} "
    text += rng.choice(
        ["", "resize_width: 64 resize_height: 72 ", "crop_width: 32 crop_height: 40 "]
    )
    text += rng.choice(["", "do_multiple_scale: true min_scale: 10 max_scale: 60 "])
    text += rng.choice(["", "min_whaspect: 0.5 max_whaspect: 2 min_gt_width: 12 "])
    boxes = rng.random() < 0.5
    text += "output_gt_boxes: true" if boxes else ""
    return Case(
        f"image_gt_data_param {{ {text} }} transform_param {{ mirror: true mean_value: 99 }} "
        + more_tops(1 + fields + boxes),
        files=lambda: write_windows(False),
    )

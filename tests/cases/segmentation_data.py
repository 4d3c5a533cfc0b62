"""Cases of the layers in caffe/layers/segmentation_data.py."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import cv2
import numpy as np

import caffe
from cases import Case, row
from cases.data import more_tops
from cases.image_data import PICTURES, write_pictures

SEGMENTED = (
    'transform_param { crop_size: 321 mirror: true } image_data_param { source: "list.txt" '
    "batch_size: 4 label_type: PIXEL }"
)


def write_scenes(size: tuple[int, int], words: str) -> None:
    """Pictures, their labels of classes 0 to 3, and the list list.txt of them with more words."""
    names = write_pictures("", size)
    rng = np.random.default_rng(1)
    for name in names:
        cv2.imwrite(f"l{name}", rng.integers(0, 4, size, np.uint8))
    Path("list.txt").write_text("".join(f"{name}\tl{name} {words}\n" for name in names))


def common(rng: random.Random) -> str:
    return (
        f'source: "list.txt" batch_size: {rng.randint(1, PICTURES + 2)} '
        f"shuffle: {rng.choice(['true', 'false'])} rand_skip: {rng.randint(0, PICTURES)} "
    )


@row("ImageSegData", SEGMENTED, (), False)
@row("WindowSegData", SEGMENTED, (), False)
@row("SelectSegBinary", f"{SEGMENTED} window_cls_data_param {{ label_dim: 20 }}", (), False)
def segmented(rng: random.Random, name: str) -> Case:
    color = rng.choice(["true", "false"])
    text = f"{common(rng)} is_color: {color} label_type: {rng.choice(['PIXEL', 'NONE'])} "
    resizes = rng.random() < 0.5
    if resizes:
        text += "new_height: 6 new_width: 7 "
    crop = rng.choice(["crop_size: 5", "crop_height: 9 crop_width: 4", ""])
    if name == "ImageSegData" and not crop and not resizes:
        crop = "crop_size: 8"
    transform = f"{crop} mirror: true scale: 0.5 mean_value: 99 "
    if crop and rng.random() < 0.5:
        transform += "scale_factors: 0.75 scale_factors: 1.5"
    window = "-1 2 5 4 0 1 0 1"
    more = more_tops(3) if name == "SelectSegBinary" else more_tops(rng.choice([2, 3]))
    more += " window_cls_data_param { label_dim: 3 }" if name == "SelectSegBinary" else ""
    text = f"{more} image_data_param {{ {text} }} transform_param {{ {transform} }}"
    words = "" if name == "ImageSegData" else window
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    lines = functools.partial(write_scenes, (8, 9), words)
    if "NONE" in text and words:  # then the list names no labels
        lines = functools.partial(write_unlabelled, (8, 9), words)
    return Case(text, phase=phase, files=lines)


def write_unlabelled(size: tuple[int, int], words: str) -> None:
    names = write_pictures("", size)
    Path("list.txt").write_text("".join(f"{name} {words}\n" for name in names))


@row(
    "DenseImageData",
    'dense_image_data_param { source: "list.txt" batch_size: 4 shuffle: true }',
    (),
    False,
)
def dense(rng: random.Random, name: str) -> Case:
    text = common(rng)
    how = rng.choice(["", "size", "crop"])
    if how == "size":
        text += f"new_height: 6 new_width: 8 label_divide_factor: {rng.choice([1, 2])} "
    elif how == "crop":
        text += "crop_height: 4 crop_width: 3 "
    text += f"mirror: {rng.choice(['true', 'false'])}"
    text = f"{more_tops(2)} dense_image_data_param {{ {text} }} transform_param {{ mean_value: 9 }}"
    return Case(text, files=functools.partial(write_scenes, (7, 6), ""))


@row(
    "ImageLabelmapData",
    'transform_param { mean_value: 104 } image_data_param { source: "list.txt" batch_size: 1 }',
    (),
    False,
)
def edges(rng: random.Random, name: str) -> Case:
    text = common(rng) + rng.choice(["", "new_height: 6 new_width: 5", "normalize: false"])
    transform = rng.choice(["", "crop_size: 4 mirror: true", "scale: 2"])
    text = f"{more_tops(2)} image_data_param {{ {text} }} transform_param {{ {transform} }}"
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    return Case(text, phase=phase, files=functools.partial(write_scenes, (7, 6), ""))

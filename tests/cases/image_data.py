"""Cases of the layers in caffe/layers/image_data.py."""

from __future__ import annotations

import functools
import random
from pathlib import Path

import cv2
import numpy as np

import caffe
from cases import Case, row
from cases.data import more_tops, transformation

PICTURES = 4


@row(
    "ImageData",
    'transform_param { crop_size: 224 mirror: true } image_data_param { source: "list.txt" '
    "batch_size: 32 shuffle: true new_height: 256 new_width: 256 }",
    (),
    False,
)
def listed(rng: random.Random, name: str) -> Case:
    height, width = rng.randint(3, 6), rng.randint(3, 6)
    color = rng.choice([True, False])
    read = [
        'source: "list.txt"',
        f"batch_size: {rng.randint(1, PICTURES + 2)}",
        f"shuffle: {rng.choice(['true', 'false'])}",
        f"rand_skip: {rng.randint(0, PICTURES)}",
        f"is_color: {str(color).lower()}",
    ]
    folder = rng.choice(["", "pictures/"])
    if folder:
        read.append(f'root_folder: "{folder}"')
    if rng.random() < 0.5:
        height, width = rng.randint(3, 6), rng.randint(3, 6)
        read.append(f"new_height: {height} new_width: {width}")
    transform = transformation(rng, 3 if color else 1, min(height, width))
    text = f"{more_tops(2)} image_data_param {{ {' '.join(read)} }} "
    text += f"transform_param {{ {transform} }} data_param {{ prefetch: {rng.randint(1, 4)} }}"
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    return Case(text, phase=phase, files=functools.partial(write_list, folder, (height, width)))


def write_pictures(folder: str, size: tuple[int, int]) -> list[str]:
    """PICTURES colour pictures below the working directory; returns their names in `folder`."""
    Path(folder or ".").mkdir(exist_ok=True)
    names = [f"{i}.png" for i in range(PICTURES)]
    rng = np.random.default_rng(0)
    for name in names:
        cv2.imwrite(folder + name, rng.integers(0, 256, (*size, 3), np.uint8))
    return names


def write_list(folder: str, size: tuple[int, int]) -> None:
    """Pictures, and the list list.txt of them."""
    names = write_pictures(folder, size)
    Path("list.txt").write_text("".join(f"{name} {i}\n" for i, name in enumerate(names)))


@row(
    "WindowData",
    'transform_param { crop_size: 227 mirror: true } window_data_param { source: "windows.txt" '
    "batch_size: 128 fg_fraction: 0.25 context_pad: 16 }",
    (),
    False,
)
def windows(rng: random.Random, name: str) -> Case:
    crop, pad = rng.randint(3, 6), rng.randint(0, 1)
    read = [
        'source: "windows.txt"',
        f"batch_size: {rng.randint(1, 6)}",
        f"fg_fraction: {rng.choice([0, 0.25, 0.5, 1])}",
        f"fg_threshold: {rng.choice([0.5, 0.7])}",
        f"bg_threshold: {rng.choice([0.3, 0.5])}",
        f"context_pad: {pad}",
        f'crop_mode: "{rng.choice(["warp", "square"])}"',
        f"cache_images: {rng.choice(['true', 'false'])}",
    ]
    folder = rng.choice(["", "pictures/"])
    if folder:
        read.append(f'root_folder: "{folder}"')
    transform = f"crop_size: {crop} mirror: {rng.choice(['true', 'false'])} "
    transform += " ".join(f"mean_value: {rng.randint(0, 99)}" for _ in range(rng.choice([0, 1, 3])))
    text = f"{more_tops(2)} window_data_param {{ {' '.join(read)} }} "
    text += f"transform_param {{ {transform} }}"
    return Case(text, files=functools.partial(write_windows, folder))


def write_windows(folder: str) -> None:
    """Pictures, and the window file windows.txt: in each two windows, on an object and beside."""
    height, width = 8, 9
    lines = []
    for i, name in enumerate(write_pictures(folder, (height, width))):
        lines += [f"# {i}", name, f"3 {height} {width}", "2"]
        lines += [f"{i + 1} 0.8 1 1 5 6", "0 0.1 2 0 8 7"]
    Path("windows.txt").write_text("\n".join(lines) + "\n")

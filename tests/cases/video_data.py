"""Cases of the layer in caffe/layers/video_data.py."""

from __future__ import annotations

import random
from pathlib import Path

import cv2
import numpy as np

import caffe
from cases import Case, row

FRAMES, CLIPS = 6, 3


def write_clips() -> None:
    """Folders of frames, named as C3D and as TSN have them, and the list clips.txt."""
    rng = np.random.default_rng(0)
    lines = []
    for clip in range(CLIPS):
        folder = Path(f"clip{clip}")
        folder.mkdir(exist_ok=True)
        for i in range(FRAMES + 1):
            picture = rng.integers(0, 256, (6, 7, 3), np.uint8)
            for name in (f"{i:06d}.jpg", f"img_{i:05d}.jpg", f"flow_x_{i:04d}.jpg"):
                cv2.imwrite(str(folder / name), picture)
            cv2.imwrite(str(folder / f"flow_y_{i:04d}.jpg"), 255 - picture)
        lines.append(f"clip{clip} {{}} {clip % 2}\n")
    Path("clips.txt").write_text("".join(lines).format(*[FRAMES] * CLIPS))
    Path("starts.txt").write_text("".join(lines).format(*range(CLIPS)))


@row(
    "VideoData",
    'video_data_param { source: "list.txt" batch_size: 32 new_length: 16 use_image: true }',
    (),
    False,
)
def video_data(rng: random.Random, name: str) -> Case:
    text = f"batch_size: {rng.randint(1, 4)} new_length: {rng.randint(1, 2)}"
    text += f" shuffle: {str(rng.random() < 0.5).lower()}"
    if rng.random() < 0.5:
        text += " new_height: 5 new_width: 6"
    kind, field = rng.randrange(3), "video_data_param"
    if kind == 0:
        text += f' source: "clips.txt" num_segments: {rng.randint(1, 2)}'
        modality = rng.choice(['RGB name_pattern: "img_%05d.jpg"', "FLOW"])
        text += f" modality: {modality}"
    else:
        jitter = rng.random() < 0.5
        text += f' source: "{"clips" if jitter else "starts"}.txt" use_image: true'
        text += f" sampling_rate: {rng.randint(1, 2)}"
        text += f" use_temporal_jitter: {str(jitter).lower()}"
        field = "image_data_param" if kind == 1 else field
    transform = f"crop_size: {rng.randint(2, 5)} mirror: {str(rng.random() < 0.5).lower()}"
    if kind == 1:
        text += f" mean_value: 90 scale: 0.5 {transform}"
    else:
        transform = f"transform_param {{ {transform} mean_value: 90 }}"
    more = 'top: "a" top: "b"' if rng.random() < 0.7 else ""
    return Case(
        f"{field} {{ {text} }} {transform if kind != 1 else ''} {more}",
        phase=rng.choice([caffe.TRAIN, caffe.TEST]),
        files=write_clips,
    )

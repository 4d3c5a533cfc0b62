"""The file format of ScanNet's 2D semantic label benchmark (Dai et al., CVPR 2017, its scripts).

A submission is one folder with a single-channel PNG per frame, named sceneNNNN_NN_NNNNNN.png, of
640x480 pixels (the benchmark resizes to that by nearest neighbour). The values are the 20 scored
labels of NYUv2's 40.
"""

from __future__ import annotations

import re

import numpy as np

from data_tools.cli import DataError
from eval_tools.labels import SCANNET_20, LabelSet

SIZE = (640, 480)


def classes(values: int) -> tuple[int, ...]:
    """The net's labels that are allowed in a submission.

    Raises:
        DataError: the net has neither 40 classes nor the benchmark's 20.
    """
    if values == 41:
        return SCANNET_20
    if values == 21:
        return tuple(range(1, 21))
    raise DataError(
        f"--submission scannet: the net scores {values} values, expected 41 (NYUv2's 40 classes "
        "and label 0) or 21 (the benchmark's 20)"
    )


def nyu40(label: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Converts labels of the net, uint8 (H, W), to NYUv2's 40."""
    if labels.values == 41:
        return label
    return np.array([0, *SCANNET_20], np.uint8)[label]


def file_name(name: str) -> str:
    """`scene0707_00/color/000000` or `scene0707_00_000000` -> `scene0707_00_000000.png`.

    Raises:
        DataError: the name has no scene or no frame number.
    """
    match = re.search(r"(scene\d{4}_\d{2})(?:[/_]color)?[/_](?:frame-?)?(\d{1,6})\b", name)
    if not match:
        raise DataError(
            f"{name}: --submission scannet needs names with scene and frame, such as "
            "scene0707_00/color/000000"
        )
    return f"{match[1]}_{int(match[2]):06d}.png"

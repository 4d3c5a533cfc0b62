"""Boxes of examples/faster_rcnn.py: anchors, overlaps, and the shifts from one box to another.

A box is its left, top, right and bottom pixel.
"""

from __future__ import annotations

import numpy as np

HEIGHT, WIDTH = 120, 160
STRIDE = 8
BASE, RATIOS, SCALES = 16, (0.5, 1, 2), (1, 2, 4, 6)
ANCHORS = len(RATIOS) * len(SCALES)


def anchors() -> np.ndarray:
    """The A boxes around one place, (A, 4): left, top, right, bottom, as Proposal's."""
    found = []
    for ratio in RATIOS:
        width = round(np.sqrt(BASE * BASE / ratio))
        height = round(width * ratio)
        for scale in SCALES:
            half = np.array([width * scale - 1, height * scale - 1]) / 2
            middle = (BASE - 1) / 2
            found.append([*(middle - half), *(middle + half)])
    return np.array(found, np.float32)


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each box (N, 4) with each other (M, 4), (N, M)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:4], others[None, :, 2:4])
    both = np.clip(high - low + 1, 0, None).prod(2)
    areas = [(b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1) for b in (boxes, others)]
    return both / (areas[0][:, None] + areas[1][None] - both)


def middles(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middles (N, 2) and sizes (N, 2) of boxes."""
    size = boxes[:, 2:4] - boxes[:, :2] + 1
    return boxes[:, :2] + size / 2, size


def shifts(boxes: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """What moves each box to its goal, (N, 4): of the middle, in sizes; logarithms of the sizes."""
    (middle, size), (goal, wanted) = middles(boxes), middles(goals)
    return np.hstack([(goal - middle) / size, np.log(wanted / size)]).astype(np.float32)


def shifted(boxes: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The boxes moved by shifts."""
    middle, size = middles(boxes)
    middle, size = middle + by[:, :2] * size, size * np.exp(np.clip(by[:, 2:], -4, 4))
    return np.hstack([middle - size / 2, middle + size / 2 - 1])


def objects(label: np.ndarray) -> np.ndarray:
    """AnnotatedData's rows of one picture as (n, 5): sides in pixels, and the label."""
    rows = label.reshape(-1, 8)
    rows = rows[rows[:, 0] >= 0]
    return np.hstack([rows[:, 3:7] * (WIDTH, HEIGHT, WIDTH, HEIGHT), rows[:, 1:2]])

"""A frame as the doctor sees it: some of its pixels, colour and depth on one grid."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from boundary.late import cv2
from data_tools.depth import DepthUnit

SIDE = 320  # pixels; the longer side of the grid has no more
# Fewer pixels say too little: chance makes a plane of them, or edges that seem to lie elsewhere.
LEAST_PIXELS = 1000
WITHIN = (1e-6, 1e6)  # metres


@dataclass(frozen=True)
class Sample:
    """color: H x W x 3 uint8, BGR. raw: H x W of depth as stored, in `unit`. beside: H x W, the
    right neighbours of raw's pixels in the full picture. scale: pixels of the colour picture in
    one of the grid."""

    color: np.ndarray
    raw: np.ndarray
    beside: np.ndarray
    unit: DepthUnit
    scale: float

    @cached_property
    def metres(self) -> np.ndarray:
        """H x W float64, 0 = no reading; 0..255 if the unit is 'scaled'."""
        return readings(self.raw, self.unit)

    @cached_property
    def sorted(self) -> np.ndarray:
        """A quarter of the readings in metres, sorted."""
        some = self.metres[::2, ::2]
        return np.sort(some[some > 0])

    @property
    def share(self) -> float:
        """The share of pixels that have a reading."""
        return float((self.metres > 0).mean())


def sample(color: np.ndarray, depth: np.ndarray, unit: DepthUnit) -> Sample | None:
    """The sample of a frame (colour H x W x 3 uint8, depth h x w as stored) that shows one field
    of view; None for pictures too small to judge."""
    height, width = color.shape[:2]
    longest = min(SIDE, max(height, width), max(depth.shape))
    factor = longest / max(height, width)
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if size[0] * size[1] < LEAST_PIXELS:
        return None
    small = cv2.resize(color, size, interpolation=cv2.INTER_AREA) if factor < 1 else color
    rows = (np.arange(size[1]) + 0.5) * depth.shape[0] / size[1]
    columns = (np.arange(size[0]) + 0.5) * depth.shape[1] / size[0]
    rows, columns = rows.astype(int), columns.astype(int)
    raw = depth[rows[:, None], columns]
    beside = depth[rows[:, None], np.minimum(columns + 1, depth.shape[1] - 1)]
    return Sample(small, raw, beside, unit, 1 / factor)


def readings(raw: np.ndarray, unit: DepthUnit) -> np.ndarray:
    """raw (any shape) in metres; what is no reading, negative or not finite, is 0.

    Readings are limited to WITHIN, so that sums, products and squares of them are finite.
    """
    metres = unit.metres(raw)
    return np.where(np.isfinite(metres) & (metres > 0), np.clip(metres, *WITHIN), 0.0)

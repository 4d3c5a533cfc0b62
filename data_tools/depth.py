"""Depth: the unit of stored values, and the mapping from metres to a network's 0..255."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from data_tools.cli import DataError

# The SUN RGB-D toolbox clips depth to this.
SUNRGBD_MAX_METRES = 8.0
# Steps per metre; beyond them, stored depth in metres would be beyond what floats hold.
FEWEST_STEPS, MOST_STEPS = 1e-6, 1e12


@dataclass(frozen=True)
class DepthUnit:
    """The unit of stored depth values.

    kind: 'steps' (`steps` per metre), 'sunrgbd' (uint16 millimetres with the bits rotated left by
    3), or 'scaled' (no unit: already 0..255).
    """

    kind: str
    steps: float = 1.0

    @classmethod
    def parse(cls, text: str) -> DepthUnit:
        """argparse type: mm, m, sunrgbd, scaled, or the number of steps in a metre."""
        if text in ("sunrgbd", "scaled"):
            return cls(text)
        named = {"mm": 1000.0, "m": 1.0}
        try:
            steps = named[text] if text in named else float(text)
        except ValueError:
            steps = 0.0
        if not FEWEST_STEPS <= steps <= MOST_STEPS:
            raise argparse.ArgumentTypeError(
                f"'{text}' is neither a number of steps per metre ({FEWEST_STEPS:g} to "
                f"{MOST_STEPS:g}) nor mm, m, sunrgbd or scaled"
            )
        return cls("steps", steps)

    def __str__(self) -> str:
        return f"{self.steps:g} steps per metre" if self.kind == "steps" else self.kind

    @property
    def option(self) -> str:
        """As `parse` takes it."""
        return f"{self.steps:.17g}" if self.kind == "steps" else self.kind

    def check(self, raw: np.ndarray) -> None:
        """Raises DataError if raw (H x W as stored) cannot be in this unit."""
        if raw.ndim != 2 or raw.dtype.kind not in "uif":
            raise DataError(
                f"depth is {raw.dtype} of shape {raw.shape}, expected numbers of shape (H, W)"
            )
        if self.kind == "scaled":
            low, high = np.fmin.reduce(raw, None), np.fmax.reduce(raw, None)  # NaN: no number
            if not (low >= 0 and high <= 255):
                raise DataError(f"scaled depth must lie in 0..255, found {low}..{high}")
        elif raw.dtype.itemsize == 1:
            raise DataError(
                "8-bit depth has no unit; if it is already scaled to 0..255 say --depth-unit scaled"
            )
        elif self.kind == "sunrgbd" and raw.dtype != np.uint16:
            raise DataError(f"SUN RGB-D depth is uint16, found {raw.dtype}")

    def metres(self, raw: np.ndarray) -> np.ndarray:
        """raw (any shape) in float64 metres, 0 = no reading; 'scaled' values are not changed.

        SUN RGB-D's bit rotation and its limit of 8 m are as in its toolbox.
        """
        if self.kind == "sunrgbd":
            raw = raw.astype(np.uint16)
            turned = (raw >> np.uint16(3)) | (raw << np.uint16(13))
            return np.minimum(turned / 1000.0, SUNRGBD_MAX_METRES)
        depth = raw.astype(np.float64)
        if self.kind == "steps":
            with np.errstate(over="ignore"):  # infinity is a hole
                depth /= self.steps
        if raw.dtype.kind != "u":
            depth[~(np.isfinite(depth) & (depth > 0))] = 0.0
        return depth


@dataclass(frozen=True)
class DepthRange:
    """The mapping of a frame's depth to 0..255.

    rule: 'authors' (from the frame's minimum to its maximum, including holes), 'valid' (holes 0,
    readings 1..255), 'fixed' (`near`..`far` metres; steady over a video) or 'none' (no change).
    """

    rule: str
    near: float = 0.0
    far: float = 0.0

    @classmethod
    def parse(cls, text: str) -> DepthRange:
        """argparse type: authors, valid or MIN:MAX in metres."""
        if text in ("authors", "valid"):
            return cls(text)
        try:
            near, far = (float(part) for part in text.split(":"))
        except ValueError:
            near, far = 0.0, 0.0
        if not 0 <= near < far < float("inf"):
            raise argparse.ArgumentTypeError(
                f"'{text}' is neither authors, valid nor MIN:MAX in metres with 0 <= MIN < MAX"
            )
        return cls("fixed", near, far)

    def __str__(self) -> str:
        return f"{self.near:g}:{self.far:g} m" if self.rule == "fixed" else self.rule

    def apply(self, metres: np.ndarray) -> np.ndarray:
        """metres (0 = no reading), any shape -> float64 0..255 of that shape.

        If all values are equal, 'authors' gives 0 everywhere and 'valid' gives 1 for readings.
        """
        if self.rule == "none":
            return metres
        if self.rule == "fixed":
            scaled = (np.clip(metres, self.near, self.far) - self.near) / (self.far - self.near)
            return scaled * 255
        if self.rule == "authors":
            low, high = metres.min(), metres.max()
            return (metres - low) / (high - low if high > low else 1.0) * 255
        seen = metres > 0
        if not seen.any():
            return np.zeros_like(metres)
        low, high = metres[seen].min(), metres[seen].max()
        return np.where(seen, 1 + (metres - low) / (high - low if high > low else 1.0) * 254, 0.0)

    def quantise(self, scaled: np.ndarray) -> np.ndarray:
        """float 0..255 -> uint8: truncated for 'authors', as in their code, else rounded."""
        return (scaled if self.rule == "authors" else np.rint(scaled)).astype(np.uint8)

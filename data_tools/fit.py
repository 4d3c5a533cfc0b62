"""Fits frames to a size of another aspect ratio: cropped, letter-boxed or squeezed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from boundary.dataset_json import FITS as FITS

# Up to here, two aspect ratios count as one, and pictures are squeezed to fit.
ASPECT_TOLERANCE = 0.01

Size = tuple[int, int]  # (width, height) in pixels
Window = tuple[float, float, float, float]  # left, top, width, height as parts of a picture
WHOLE: Window = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class Placement:
    """Where a frame is in a picture: its window `source` fills the picture's window `target`."""

    source: Window = WHOLE
    target: Window = WHOLE

    @property
    def whole(self) -> bool:
        """Whether all of the frame fills all of the picture."""
        return self.source == self.target == WHOLE

    def onto(self, resize: Callable, plane: np.ndarray, size: Size) -> np.ndarray:
        """plane (H x W[ x C]), one part of the frame, as the picture of `size` shows it.

        resize: takes an array and a size. What the frame leaves free is 0.
        """
        return _moved(resize, plane, self.source, size, self.target)

    def back(self, resize: Callable, plane: np.ndarray, size: Size) -> np.ndarray:
        """plane (H x W[ x C]), of the picture, at the frame's `size`; 0 where it shows nothing."""
        return _moved(resize, plane, self.target, size, self.source)


def placement(rule: str, frame: Size, size: Size) -> Placement:
    """The placement of a frame in a picture of `size`.

    rule: 'crop' takes the frame's middle, 'pad' centres all of it between borders, 'stretch'
    squeezes it. Aspect ratios within 1 % of each other are always squeezed.
    """
    (width, height), (wide, high) = frame, size
    ratio = width * high / (height * wide)  # over 1: the frame is the broader one
    if rule == "stretch" or abs(ratio - 1) <= ASPECT_TOLERANCE:
        return Placement()
    part = min(ratio, 1 / ratio)
    window = _middle(
        part, frame if rule == "crop" else size, across=(ratio > 1) == (rule == "crop")
    )
    return Placement(source=window) if rule == "crop" else Placement(target=window)


def describe(rule: str, frame: Size, size: Size) -> str | None:
    """What is done to a frame of another aspect ratio, in words; None if nothing is."""
    (width, height), (wide, high) = frame, size
    if abs(width * high / (height * wide) - 1) <= ASPECT_TOLERANCE:
        return None
    placed = placement(rule, frame, size)
    into = f"{width}x{height} {{}} for {wide}x{high}"
    if rule == "stretch":
        return into.format("is squeezed")
    if rule == "pad":
        inner = pixels(placed.target, size)
        return into.format(f"gets borders around {inner[2]}x{inner[3]}")
    kept = pixels(placed.source, frame)
    return into.format(f"is cropped to {kept[2]}x{kept[3]} in its middle")


def _middle(part: float, size: Size, across: bool) -> Window:
    """The middle `part` of a picture, across its width or its height, in whole pixels."""
    side = size[0] if across else size[1]
    kept = min(max(1, round(part * side)), side)
    start = (side - kept) // 2
    if across:
        return (start / side, 0.0, kept / side, 1.0)
    return (0.0, start / side, 1.0, kept / side)


def pixels(window: Window, size: Size) -> tuple[int, int, int, int]:
    """left, top, width, height of the window in a picture of `size`."""
    sides = [*size, *size]
    left, top, width, height = (
        round(part * side) for part, side in zip(window, sides, strict=True)
    )
    return left, top, max(1, width), max(1, height)


def _moved(
    resize: Callable, plane: np.ndarray, taken: Window, size: Size, filled: Window
) -> np.ndarray:
    """The window `taken` of a plane, in the window `filled` of a new one of `size`."""
    left, top, width, height = pixels(taken, plane.shape[1::-1])
    part = np.ascontiguousarray(plane[top : top + height, left : left + width])
    left, top, width, height = pixels(filled, size)
    found = resize(part, (width, height))
    if (width, height) == size:
        return found
    result = np.zeros((size[1], size[0], *found.shape[2:]), found.dtype)
    result[top : top + height, left : left + width] = found
    return result

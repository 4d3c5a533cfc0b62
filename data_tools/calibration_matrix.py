"""Calibrations that are matrices or rows of plain numbers.

Intrinsics are a matrix of 3 x 3, 3 x 4 or 4 x 4, as SUN RGB-D and ScanNet have them, or TUM's row
`fx fy cx cy [k1 k2 p1 p2 [k3]]`; extrinsics a matrix of 3 x 4 or 4 x 4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_tools.camera import COEFFICIENTS, Calibration, Camera, Extrinsics, Intrinsics
from data_tools.cli import DataError

_EXPECTED = (
    "a matrix of 3x3, 3x4 or 4x4, or fx fy cx cy and 0, 4, 5 or 8 coefficients of distortion"
)


def parse(values: Sequence[float]) -> Calibration:
    """The calibration in numbers, row by row. Raises DataError if they cannot be one."""
    count = len(values)
    if count in (12, 16) and max(map(abs, values)) < 10:
        return Calibration(motion=motion(values))
    if count in (9, 12, 16):
        side = 4 if count == 16 else count // 3
        square = [values[side * row + column] for row in range(3) for column in range(3)]
        if _is_camera(square):
            return Calibration(camera=Camera((intrinsics(square),)))
    if count - 4 not in COEFFICIENTS:
        raise DataError(f"{count} numbers; expected {_EXPECTED}")
    found = Intrinsics(*values[:4], lens(values[4:])).check()
    return Calibration(camera=Camera((found,)))


def _is_camera(square: Sequence[float]) -> bool:
    return tuple(square[6:]) == (0, 0, 1) and square[3] == 0


def intrinsics(
    values: Sequence[float],
    distortion: Sequence[float] = (),
    size: tuple[int, int] | None = None,
) -> Intrinsics:
    """Intrinsics from the nine numbers of their matrix, row by row or column by column."""
    if values[2] == values[5] == 0:
        values = np.reshape(values, (3, 3)).T.ravel().tolist()
    if not _is_camera(values):
        raise DataError("the matrix of the intrinsics is not fx 0 cx, 0 fy cy, 0 0 1")
    found = Intrinsics(values[0], values[4], values[2], values[5], lens(distortion), size)
    return found.check()


def lens(values: Sequence[float]) -> tuple[float, ...]:
    """Coefficients of distortion; none if all are 0."""
    return tuple(map(float, values)) if any(values) else ()


def motion(values: Sequence[float]) -> Extrinsics:
    """Extrinsics from the numbers of a 3 x 4 or 4 x 4 matrix, row by row."""
    if len(values) == 16 and tuple(values[12:]) != (0, 0, 0, 1):
        raise DataError("the last row of the extrinsics' matrix is not 0 0 0 1")
    rows = np.reshape(values[:12], (3, 4))
    return Extrinsics(tuple(rows[:, :3].ravel().tolist()), tuple(rows[:, 3].tolist())).check()

"""Cameras: pinhole, lens and place of a depth camera and a colour camera.

Coordinates are those of OpenCV: x to the right, y down, z forward, in metres. Pixels have their
centres at whole numbers: (0, 0) is the middle of the top left one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from data_tools.cli import DataError
from data_tools.fit import ASPECT_TOLERANCE, Size

COEFFICIENTS = (0, 4, 5, 8)  # numbers of distortion coefficients that OpenCV's model has
MOST_SIDE = 2**16  # pixels
MOST_APART = 2.0  # metres between the cameras of one device
ROTATION_TOLERANCE = 5e-3
_NEWTON_STEPS = 20
_BLOCK = 2**18  # pixels whose directions are sought together
_WIDEST = 8.0  # the tangent of the widest ray that is looked at


@dataclass(frozen=True)
class Intrinsics:
    """A camera at one size.

    fx, fy, cx, cy: focal lengths and principal point in pixels. distortion: k1, k2, p1, p2[, k3[,
    k4, k5, k6]], OpenCV's order: Brown's model, with k4 to k6 the rational one. size: (width,
    height); None if it is not known.
    """

    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] = ()
    size: Size | None = None

    def check(self) -> Intrinsics:
        """Itself. Raises DataError for values that no camera has."""
        values = (self.fx, self.fy, self.cx, self.cy, *self.distortion)
        if not np.isfinite(values).all():
            raise DataError("intrinsics hold a value that is not finite")
        if not (1 <= self.fx < 1e6 and 1 <= self.fy < 1e6):
            raise DataError(f"fx, fy are {self.fx:g}, {self.fy:g}; expected pixels, from 1 up")
        if len(self.distortion) not in COEFFICIENTS:
            raise DataError(
                f"{len(self.distortion)} distortion coefficients; expected 4, 5 or 8: k1, k2, p1, "
                "p2, k3, k4, k5, k6"
            )
        if self.size is not None:
            width, height = self.size
            if not (1 <= width <= MOST_SIDE and 1 <= height <= MOST_SIDE):
                raise DataError(f"size {width}x{height}: expected pixels, from 1x1 up")
            if not (-width < self.cx < 2 * width and -height < self.cy < 2 * height):
                raise DataError(
                    f"the principal point {self.cx:g}, {self.cy:g} is far outside {width}x{height}"
                )
        return self

    def scaled(self, size: Size) -> Intrinsics:
        """The same camera at another size, (width, height)."""
        if self.size is None or self.size == size:
            return Intrinsics(self.fx, self.fy, self.cx, self.cy, self.distortion, size)
        x, y = size[0] / self.size[0], size[1] / self.size[1]
        cx, cy = (self.cx + 0.5) * x - 0.5, (self.cy + 0.5) * y - 0.5
        return Intrinsics(self.fx * x, self.fy * y, cx, cy, self.distortion, size)

    def describe(self) -> dict[str, Any]:
        """As JSON, which data_tools.calibration reads."""
        sides = dict(zip(("width", "height"), self.size or (), strict=False))
        found = {**sides, "fx": self.fx, "fy": self.fy, "cx": self.cx, "cy": self.cy}
        return {**found, **({"distortion": list(self.distortion)} if self.distortion else {})}

    def distort(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the lens shows the directions (x, y, 1), as tangents."""
        if not any(self.distortion):
            return x, y
        k1, k2, p1, p2, k3, k4, k5, k6 = _padded(self.distortion)
        square = x * x + y * y
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        if k4 or k5 or k6:
            radial = radial / (1 + square * (k4 + square * (k5 + square * k6)))
        if not (p1 or p2):
            return x * radial, y * radial
        twice = 2 * x * y
        return (
            x * radial + (p1 * twice + p2 * (square + 2 * x * x)),
            y * radial + (p1 * (square + 2 * y * y) + p2 * twice),
        )

    def reach(self) -> float:
        """The square of the tangent up to which the lens's model goes outwards.

        Beyond, it turns back, and would show in the picture what the camera does not see.
        """
        return _reach(self.distortion)

    def rays(self) -> tuple[np.ndarray, np.ndarray]:
        """The direction (x, y, 1) of each pixel: x and y, H x W float64.

        Both are NaN where the lens's model has no direction.
        """
        assert self.size is not None
        width, height = self.size
        columns = np.arange(width, dtype=np.float64)
        found = np.empty((2, height, width))
        step = max(1, _BLOCK // width)
        for row in range(0, height, step):
            rows = np.arange(row, min(row + step, height), dtype=np.float64)
            found[:, row : row + step] = self.directions(*np.meshgrid(columns, rows))
        return found[0], found[1]

    def directions(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The directions (x, y, 1) of places in the picture, in pixels; NaN as in `rays`."""
        x, y = (x - self.cx) / self.fx, (y - self.cy) / self.fy
        return self._undistorted(x, y) if any(self.distortion) else (x, y)

    def view(self) -> tuple[np.ndarray, np.ndarray]:
        """The least and the greatest x and y of the directions that the picture shows."""
        assert self.size is not None
        width, height = self.size
        across, down = np.linspace(0, width - 1, 64), np.linspace(0, height - 1, 64)
        edges = [(across, 0 * across), (across, 0 * across + height - 1),
                 (0 * down, down), (0 * down + width - 1, down)]  # fmt: skip
        x, y = self.directions(*(np.concatenate(part) for part in zip(*edges, strict=True)))
        if not np.isfinite(x).all():  # the picture shows all that the lens does
            widest = min(self.reach() ** 0.5, _WIDEST)
            return np.full(2, -widest), np.full(2, widest)
        return np.array([x.min(), y.min()]), np.array([x.max(), y.max()])

    def _undistorted(self, seen_x: np.ndarray, seen_y: np.ndarray) -> tuple[np.ndarray, ...]:
        """Newton's method on `distort`, for each pixel until it is there."""
        shape, seen_x, seen_y = seen_x.shape, seen_x.ravel(), seen_y.ravel()
        found_x, found_y = np.full(seen_x.shape, np.nan), np.full(seen_x.shape, np.nan)
        x, y, left = seen_x.copy(), seen_y.copy(), np.arange(seen_x.size)
        with np.errstate(all="ignore"):
            for _ in range(_NEWTON_STEPS):
                at_x, at_y = self.distort(x, y)
                off_x, off_y = at_x - seen_x[left], at_y - seen_y[left]
                away = np.hypot(off_x, off_y) > 1e-9
                there = ~away & (x * x + y * y <= self.reach())
                found_x[left[there]], found_y[left[there]] = x[there], y[there]
                if not away.any():
                    break
                x, y, left, off_x, off_y = (part[away] for part in (x, y, left, off_x, off_y))
                xx, xy, yy = self._slopes(x, y)
                det = xx * yy - xy * xy
                x = x - (off_x * yy - off_y * xy) / det
                y = y - (off_y * xx - off_x * xy) / det
        return found_x.reshape(shape), found_y.reshape(shape)

    def _slopes(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, ...]:
        """The derivatives of `distort`: of x by x, of x by y (which is that of y by x), of y by
        y."""
        k1, k2, p1, p2, k3, k4, k5, k6 = _padded(self.distortion)
        square = x * x + y * y
        upper = 1 + square * (k1 + square * (k2 + square * k3))
        lower = 1 + square * (k4 + square * (k5 + square * k6))
        up = k1 + square * (2 * k2 + square * (3 * k3))
        down = k4 + square * (2 * k5 + square * (3 * k6))
        radial = upper / lower
        change = 2 * (up - radial * down) / lower
        return (
            radial + change * x * x + 2 * p1 * y + 6 * p2 * x,
            change * x * y + 2 * p1 * x + 2 * p2 * y,
            radial + change * y * y + 6 * p1 * y + 2 * p2 * x,
        )


def _padded(distortion: Sequence[float]) -> tuple[float, ...]:
    return (*distortion, *[0.0] * (8 - len(distortion)))


@lru_cache(maxsize=16)
def _reach(distortion: tuple[float, ...]) -> float:
    radius = np.linspace(0, _WIDEST, 8001)
    with np.errstate(all="ignore"):
        shown, _ = Intrinsics(1, 1, 0, 0, distortion).distort(radius, np.zeros_like(radius))
        # The tangential part is not the same all around; it does not turn the model back.
        shown = shown - 3 * _padded(distortion)[3] * radius * radius
    back = np.flatnonzero(~(np.diff(shown) > 0))
    return float(radius[back[0]] ** 2) if len(back) else float("inf")


@dataclass(frozen=True)
class Camera:
    """A camera in its modes: its intrinsics at one or several sizes."""

    modes: tuple[Intrinsics, ...]

    def at(self, size: Size, what: str) -> Intrinsics:
        """Its intrinsics for pictures of `size`, (width, height): those of that size, else those of
        another size with the same aspect ratio, scaled.

        Raises DataError, naming `what` ("depth"), if there are none, or several.
        """
        exact = {mode for mode in self.modes if mode.size == size}
        if len(exact) > 1:
            raise DataError(
                f"{what} is {size[0]}x{size[1]}, for which the calibration has {len(exact)} "
                "intrinsics; is it of several devices?"
            )
        if exact:
            return exact.pop()
        unknown = [mode for mode in self.modes if mode.size is None]
        if unknown:
            return _of_this_size(unknown[0], size, what)
        alike = [mode for mode in self.modes if _same_aspect(mode.size, size)]
        if alike:
            return max(alike, key=lambda mode: mode.size).scaled(size)
        sizes = sorted({mode.size for mode in self.modes})
        told = ", ".join(f"{width}x{height}" for width, height in sizes)
        raise DataError(f"{what} is {size[0]}x{size[1]}; its camera's intrinsics are of {told}")

    def describe(self) -> Any:
        """As JSON: one mode, or a list of them."""
        modes = [mode.describe() for mode in self.modes]
        return modes[0] if len(modes) == 1 else modes


def _same_aspect(one: Size, other: Size) -> bool:
    return abs(one[0] * other[1] / (one[1] * other[0]) - 1) <= ASPECT_TOLERANCE


def _of_this_size(mode: Intrinsics, size: Size, what: str) -> Intrinsics:
    """Intrinsics of no known size, which must have their principal point near the middle."""
    if not (0.3 < mode.cx / size[0] < 0.7 and 0.3 < mode.cy / size[1] < 0.7):
        raise DataError(
            f"{what} is {size[0]}x{size[1]}, and its camera's principal point is {mode.cx:g}, "
            f"{mode.cy:g}: the intrinsics are of another size; state their width and height in JSON"
        )
    return mode.scaled(size)


@dataclass(frozen=True)
class Extrinsics:
    """From one camera's coordinates to another's: p -> rotation p + translation.

    rotation: nine numbers, row by row. translation: metres.
    """

    rotation: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    translation: tuple[float, ...] = (0.0, 0.0, 0.0)

    @property
    def matrix(self) -> np.ndarray:
        """The rotation, 3 x 3."""
        return np.array(self.rotation, np.float64).reshape(3, 3)

    def check(self) -> Extrinsics:
        """Itself. Raises DataError unless it is a rotation and a distance within one device."""
        with np.errstate(all="ignore"):
            off = np.abs(self.matrix @ self.matrix.T - np.eye(3)).max()
        if not off < ROTATION_TOLERANCE or not np.linalg.det(self.matrix) > 0:
            raise DataError("the rotation of the extrinsics is no rotation matrix")
        apart = math.hypot(*self.translation)
        if not apart < MOST_APART:
            raise DataError(
                f"the cameras are {apart:g} m apart; expected the translation in metres, below "
                f"{MOST_APART:g}"
            )
        return self

    def inverse(self) -> Extrinsics:
        """The way back."""
        back = self.matrix.T
        moved = -back @ np.array(self.translation)
        return Extrinsics(tuple(map(float, back.ravel())), tuple(map(float, moved)))

    def then(self, other: Extrinsics) -> Extrinsics:
        """This way and `other` after it."""
        turn = other.matrix @ self.matrix
        moved = other.matrix @ np.array(self.translation) + np.array(other.translation)
        return Extrinsics(tuple(map(float, turn.ravel())), tuple(map(float, moved)))

    def describe(self) -> dict[str, Any]:
        """As JSON."""
        return {"rotation": self.matrix.tolist(), "translation": list(self.translation)}


@dataclass(frozen=True)
class Rig:
    """A depth camera and a colour camera. extrinsics: from depth to colour."""

    color: Camera
    depth: Camera
    extrinsics: Extrinsics

    def at(self, depth: Size, color: Size) -> tuple[Intrinsics, Intrinsics]:
        """The intrinsics of depth and colour for pictures of these sizes.

        Raises DataError if one does not fit.
        """
        return self.depth.at(depth, "depth"), self.color.at(color, "colour")

    def is_one(self, depth: Size, color: Size) -> bool:
        """Whether pictures of these sizes are aligned already. Raises as `at`."""
        one, other = self.at(depth, color)
        return one == other and self.extrinsics == Extrinsics()

    def describe(self) -> dict[str, Any]:
        """As JSON, which data_tools.calibration reads."""
        return {
            "color": self.color.describe(),
            "depth": self.depth.describe(),
            "extrinsics": self.extrinsics.describe(),
        }


@dataclass(frozen=True)
class Calibration:
    """What a file tells of a pair of cameras, as far as it does.

    camera: one of which it does not say whether it is for colour or depth. extrinsics: from depth
    to colour. motion: extrinsics of which it does not say the direction.
    """

    color: Camera | None = None
    depth: Camera | None = None
    camera: Camera | None = None
    extrinsics: Extrinsics | None = None
    motion: Extrinsics | None = None

"""Depth as the colour camera would measure it: projected, with a z-buffer; holes stay holes.

Each reading becomes a point. Its pixel's square becomes a quadrilateral in the colour picture: it
ends half-way to the neighbours' points where these are on the same surface, so that surfaces stay
closed, and where its own square ends at its own depth where they are not, so that nothing is filled
across an edge. In it, the inverse of depth is linear, which is exact for planes. The nearest
quadrilateral wins each colour pixel whose centre it covers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from data_tools.camera import Extrinsics, Intrinsics, Rig

NEAREST = 0.02  # metres in front of the colour camera
# Neighbours are on one surface if their inverse depths differ by little more than beside them: by
# SLOPE times as much and noise (per metre, and as a part of the inverse depth), as long as what is
# more tears them apart by no more than GAP colour pixels or half of their size.
SLOPE, NOISE, NOISE_PART, GAP = 2.0, 0.01, 0.02, 2
OVERLAP = 0.25  # colour pixels by which quadrilaterals of one surface overlap, against cracks
MOST_ACROSS = 64  # colour pixels that one reading may cover in width or height
SKEW = 0.1  # colour pixels of a quadrilateral's slant that its bounding box may swallow
CHUNK = 1 << 22  # colour pixels that are painted together


def align(depth: np.ndarray, rig: Rig, size: tuple[int, int]) -> np.ndarray:
    """depth (H x W, metres, 0 = no reading) -> float32 metres in the colour camera's picture.

    size: (width, height) of the colour picture. Raises DataError if depth or colour has a size that
    the rig's intrinsics do not fit.
    """
    if rig.is_one(depth.shape[1::-1], size):
        return np.asarray(depth, np.float32)
    return _projection(*rig.at(depth.shape[1::-1], size), rig.extrinsics).project(depth)


@lru_cache(maxsize=4)
def _projection(depth: Intrinsics, color: Intrinsics, extrinsics: Extrinsics) -> _Projection:
    return _Projection(depth, color, extrinsics)


@dataclass
class _Points:
    """The readings in the colour camera, each H x W: position x, y in its picture, inverse depth
    (0 where there is none), and how x and y change per column and row at constant depth."""

    x: np.ndarray
    y: np.ndarray
    inverse: np.ndarray
    columns: tuple[np.ndarray, np.ndarray]
    rows: tuple[np.ndarray, np.ndarray]


class _Projection:
    """Projects frames of one pair of cameras, with tables that are made once."""

    def __init__(self, depth: Intrinsics, color: Intrinsics, extrinsics: Extrinsics):
        self._color = color
        x, y = depth.rays()
        rays = extrinsics.matrix @ np.stack([x.ravel(), y.ravel(), np.ones(x.size)])
        # The rays in the colour camera's axes, and their differences from column to column and from
        # row to row.
        self._rays = [ray.reshape(x.shape).astype(np.float32) for ray in rays]
        self._columns = [_differences(ray, 1) for ray in self._rays]
        self._rows = [_differences(ray, 0) for ray in self._rays]
        self._place = np.array(extrinsics.translation, np.float32)
        self._reach = np.float32(color.reach())
        # What lies a tenth beside the picture may still reach into it.
        low, high = color.view()
        more = (high - low) / 10 + 1e-3
        self._limits = (low - more).astype(np.float32), (high + more).astype(np.float32)

    def project(self, depth: np.ndarray) -> np.ndarray:
        """depth (H x W, metres) -> the colour camera's depth, float32 metres, 0 = no reading."""
        assert self._color.size is not None
        width, height = self._color.size
        with np.errstate(all="ignore"):
            points = self._points(np.asarray(depth, np.float32))
            shapes = _quadrilaterals(points, width, height)
            nearest = _painted(shapes, width, height)
            if not len(shapes.left):
                return np.zeros((height, width), np.float32)
            inverse, b, c = (plane.take(nearest, mode="clip") for plane in shapes.planes[:3])
            inverse *= np.arange(width, dtype=np.float32)
            b *= np.arange(height, dtype=np.float32)[:, None]
            inverse += b
            inverse += c
            inverse[(nearest < 0) | ~(inverse > 0)] = np.inf
            return 1 / inverse

    def _points(self, depth: np.ndarray) -> _Points:
        x, y, z = (ray * depth + at for ray, at in zip(self._rays, self._place, strict=True))
        inverse = 1 / z
        x *= inverse
        y *= inverse
        good = (depth > 0) & (z > NEAREST)
        if np.isfinite(self._reach):
            good &= x * x + y * y <= self._reach
        inverse = np.where(good, inverse, np.float32(0))
        seen = self._seen(x, y, inverse)
        x, y, inverse, depth = (part[seen] for part in (x, y, inverse, depth))
        f_x, f_y = np.float32(self._color.fx), np.float32(self._color.fy)
        scale_x, scale_y = f_x * depth * inverse, f_y * depth * inverse
        ways = []
        for rays in (self._columns, self._rows):
            to_x, to_y, to_z = (ray[seen] for ray in rays)
            ways.append((scale_x * (to_x - x * to_z), scale_y * (to_y - y * to_z)))
        x, y = self._color.distort(x, y)
        x, y = x * f_x + np.float32(self._color.cx), y * f_y + np.float32(self._color.cy)
        return _Points(x, y, inverse, *ways)

    def _seen(self, x: np.ndarray, y: np.ndarray, inverse: np.ndarray) -> tuple[slice, slice]:
        """The rows and columns outside of which no reading is near the colour picture."""
        low, high = self._limits
        near = (x > low[0]) & (x < high[0]) & (y > low[1]) & (y < high[1]) & (inverse > 0)
        found = []
        for axis in (1, 0):
            some = np.flatnonzero(near.any(axis=axis))
            found.append(slice(max(some[0] - 2, 0), some[-1] + 3) if len(some) else slice(0, 1))
        return found[0], found[1]


def _differences(plane: np.ndarray, axis: int) -> np.ndarray:
    if plane.shape[axis] == 1:
        return np.zeros_like(plane)
    return np.gradient(plane, axis=axis).astype(np.float32)


@dataclass
class _Side:
    """How far quadrilaterals reach along columns or rows, each H x W.

    x, y: the way to the next pixel, in colour pixels. slope: the change of inverse depth on it.
    before, behind: where the quadrilateral begins and ends, in parts of the way.
    """

    x: np.ndarray
    y: np.ndarray
    slope: np.ndarray
    before: np.ndarray
    behind: np.ndarray


def _side(points: _Points, alone: tuple[np.ndarray, np.ndarray], axis: int) -> _Side:
    """alone: the way to the next pixel at constant depth."""
    change = np.diff(points.inverse, axis=axis)
    steps = [np.diff(part, axis=axis) for part in (points.x, points.y)]
    own_square = alone[0] * alone[0] + alone[1] * alone[1]
    gaps = sum((step - _first(own, axis)) ** 2 for step, own in zip(steps, alone, strict=True))
    gaps /= np.maximum(GAP * GAP, _first(own_square, axis) / 4)
    joined = _joined(points.inverse, change, gaps, axis)
    ahead, back = _ends(joined, axis)
    ways = []
    for step, own in zip(steps, alone, strict=True):
        to, since = _ends(step, axis)
        ways.append((np.where(ahead, to, own), np.where(back, since, own)))
    (ahead_x, back_x), (ahead_y, back_y) = ways
    x, y = (ahead_x + back_x) / 2, (ahead_y + back_y) / 2
    # Where noise folds the surface, a pixel is as wide as alone.
    folded = x * alone[0] + y * alone[1] < 0.25 * own_square
    x, y = np.where(folded, alone[0], x), np.where(folded, alone[1], y)
    square = x * x + y * y
    behind = np.clip((ahead_x * x + ahead_y * y) / (2 * square), 0, 1)
    behind[folded] = 0.5
    more = np.float32(OVERLAP) / np.sqrt(square)
    change = np.where(joined, change, np.float32(0))
    to, since = _ends(change, axis)
    slope = (to + since) / np.maximum(ahead.astype(np.float32) + back, 1)
    slope[folded] = 0
    before = 1 - behind + more * back
    return _Side(x, y, slope, before, behind + more * ahead)


def _ends(steps: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Values between pixels -> those behind each pixel and those before it; 0 at the borders."""
    shape = list(steps.shape)
    shape[axis] += 1
    ahead, back = np.zeros(shape, steps.dtype), np.zeros(shape, steps.dtype)
    _first(ahead, axis)[...] = steps
    (back[:, 1:] if axis else back[1:])[...] = steps
    return ahead, back


def _first(plane: np.ndarray, axis: int) -> np.ndarray:
    """All but the last column or row."""
    return plane[:, :-1] if axis else plane[:-1]


def _joined(inverse: np.ndarray, change: np.ndarray, gaps: np.ndarray, axis: int) -> np.ndarray:
    """Whether neighbours are on one surface.

    change: the differences of their inverse depths. gaps: the squares of what tears them apart, in
    parts of what may.
    """
    first = _first(inverse, axis)
    second = inverse[:, 1:] if axis else inverse[1:]
    size = np.abs(change)
    size[(first == 0) | (second == 0)] = np.inf
    # The step before and the step behind; at a border or a hole the one that there is.
    beside = np.full_like(size, np.inf)
    if axis:
        beside[:, :-1] = size[:, 1:]
        np.minimum(beside[:, 1:], size[:, :-1], out=beside[:, 1:])
    else:
        beside[:-1] = size[1:]
        np.minimum(beside[1:], size[:-1], out=beside[1:])
    beside[np.isinf(beside)] = 0
    noise = np.maximum(np.float32(NOISE), np.float32(NOISE_PART) * np.maximum(first, second))
    more = np.maximum(size - beside, 0)
    return (size <= noise + np.float32(SLOPE) * beside) & (gaps * more * more <= size * size)


@dataclass
class _Quadrilaterals:
    """N quadrilaterals in the colour picture, the farther ones first.

    left, top, wide, high: their bounding boxes, in whole pixels within the picture. skewed: whether
    the boxes are larger than the quadrilaterals. planes: a, b and c of linear functions a x + b y +
    c of pixels: the inverse depth and, if skewed, two that are in -1..1 inside.
    """

    left: np.ndarray
    top: np.ndarray
    wide: np.ndarray
    high: np.ndarray
    planes: list[np.ndarray]
    skewed: bool


def _quadrilaterals(points: _Points, width: int, height: int) -> _Quadrilaterals:
    u, v = _side(points, points.columns, 1), _side(points, points.rows, 0)
    boxes = []
    for at, along, down, end in (
        (points.x, u.x, v.x, width - 1),
        (points.y, u.y, v.y, height - 1),
    ):
        low, high = _reaches(u, along)
        lower, higher = _reaches(v, down)
        first = np.maximum(np.ceil(at + (low + lower)), 0)
        boxes += [first, np.minimum(np.floor(at + (high + higher)), end) - first + 1]
    left, wide, top, high = boxes
    keep = (points.inverse > 0) & (wide > 0) & (high > 0)
    keep &= (wide <= MOST_ACROSS) & (high <= MOST_ACROSS)
    index = np.flatnonzero(keep)
    # 8 bits of a float's fraction are enough to tell surfaces apart, and quick to sort by.
    order = points.inverse.ravel()[index].view(np.uint32) >> 15
    index = index[np.argsort(order.astype(np.uint16), kind="stable")]
    box = [part.ravel().take(index).astype(np.int32) for part in (left, top, wide, high)]
    slant = (np.abs(u.y) + np.abs(v.x)).ravel().take(index[::16])
    skewed = bool(len(slant)) and float(slant.mean()) > SKEW
    planes = [plane.ravel().take(index) for plane in _planes(u, v, points, skewed)]
    return _Quadrilaterals(*box, planes, skewed)


def _reaches(side: _Side, way: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most that a quadrilateral reaches along a way."""
    one, other = side.before * -way, side.behind * way
    return np.minimum(one, other), np.maximum(one, other)


def _planes(u: _Side, v: _Side, points: _Points, skewed: bool) -> list[np.ndarray]:
    """The planes of _Quadrilaterals, each H x W; only the first one if they fill their boxes."""
    x, y, det = points.x, points.y, u.x * v.y - v.x * u.y
    a = (u.slope * v.y - v.slope * u.y) / det
    b = (v.slope * u.x - u.slope * v.x) / det
    planes = [a, b, points.inverse - a * x - b * y]
    if not skewed:
        return planes
    for side, a, b in ((u, v.y / det, -v.x / det), (v, -u.y / det, u.x / det)):
        half, middle = (side.before + side.behind) / 2, (side.behind - side.before) / 2
        planes += [a / half, b / half, -(a * x + b * y + middle) / half]
    return planes


def _painted(shapes: _Quadrilaterals, width: int, height: int) -> np.ndarray:
    """The number of the nearest quadrilateral at each pixel's centre, or -1; height x width."""
    nearest = np.full(height * width, -1, np.intp)
    ends = np.cumsum(shapes.wide * shapes.high, dtype=np.int64)
    start = 0
    while start < len(ends):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + CHUNK)), start + 1)
        part = slice(start, stop)
        # Each quadrilateral's rows, and each row's pixels.
        high = shapes.high[part]
        number = np.repeat(np.arange(start, stop, dtype=np.int32), high)
        first = _spread(shapes.top[part], high) * width + shapes.left[number]
        wide = shapes.wide[number]
        place = _spread(first, wide)
        number = np.repeat(number, wide)
        if shapes.skewed:
            inside = _inside(shapes, number, place, width)
            place, number = place[inside], number[inside]
        nearest[place] = number  # where several meet, the last one stays: the nearest
        start = stop
    return nearest.reshape(height, width)


def _spread(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """first[0], first[0] + 1, ... count[0] times, then the same with first[1], and so on."""
    ends = np.cumsum(count, dtype=np.int32)
    found = np.repeat(first - (ends - count), count)
    found += np.arange(len(found), dtype=np.int32)
    return found


def _inside(
    shapes: _Quadrilaterals, number: np.ndarray, place: np.ndarray, width: int
) -> np.ndarray:
    y, x = np.divmod(place, np.int32(width))
    inside = np.ones(len(place), bool)
    for side in (shapes.planes[3:6], shapes.planes[6:]):
        a, b, c = (part[number] for part in side)
        inside &= np.abs(a * x + b * y + c) <= 1
    return np.flatnonzero(inside)

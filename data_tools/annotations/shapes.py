"""Masks of shapes, by the rules of the tools that drew them, so that they equal their exports.

Coordinates are pixels, x to the right and y down, from the picture's upper left corner. A patch is
a mask and its place in the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from boundary.late import cv2
from data_tools.annotations import rle
from data_tools.cli import DataError

Size = tuple[int, int]  # (width, height) in pixels
Point = tuple[float, float]

MAX_LENGTH = 2**22  # pixels along all sides of a polygon: pycocotools takes 40 bytes for each
MAX_STEPS = 2**30  # a polygon's points times its rows, which Pillow goes through


class Patch(NamedTuple):
    """mask: H x W bool. left, top: its place; all of it lies within the picture."""

    left: int
    top: int
    mask: np.ndarray


def polygons(parts: Sequence[Sequence[Point]], size: Size) -> Patch:
    """The union of polygons, by COCO's rule, which CVAT, COCO and Label Studio use.

    Raises DataError for one of fewer than three points, or far outside the picture, and if
    pycocotools is not installed.
    """
    coco = _pycocotools()
    checked = [_points(part, size) for part in parts]
    if not checked:
        raise DataError("has no points")
    for part in checked:
        if len(part) < 3:
            raise DataError(f"a polygon of {len(part)} points, expected at least 3")
        steps = np.abs(np.diff(part, axis=0, append=part[:1])).max(axis=1).sum()
        if steps > MAX_LENGTH:
            raise DataError(f"a polygon whose sides are {steps:.0f} pixels long together")
    flat = [part.ravel().tolist() for part in checked]
    found = coco.merge(coco.frPyObjects(flat, size[1], size[0]))
    return _cut(
        coco_mask(found["counts"].decode(), list(size[::-1]), size).mask, np.concatenate(checked)
    )


def box(left: float, top: float, right: float, bottom: float, angle: float, size: Size) -> Patch:
    """A rectangle as a polygon, by COCO's rule. angle: degrees, clockwise about its middle."""
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    middle = ((left + right) / 2, (top + bottom) / 2)
    return polygons([[turned(corner, middle, angle) for corner in corners]], size)


def turned(point: Point, about: Point, angle: float) -> Point:
    """The point after a turn by `angle` degrees, clockwise, about another one."""
    if not angle:
        return point
    sine, cosine = math.sin(math.radians(angle)), math.cos(math.radians(angle))
    x, y = point[0] - about[0], point[1] - about[1]
    return about[0] + x * cosine - y * sine, about[1] + x * sine + y * cosine


def ellipse(middle: Point, radii: Point, angle: float, size: Size) -> Patch:
    """An ellipse, by CVAT's rule: OpenCV's, of whole numbers. angle: degrees, clockwise."""
    reach = max(radii)
    corners = [(middle[0] - reach, middle[1] - reach), (middle[0] + reach, middle[1] + reach)]
    if min(radii) < 0:
        raise DataError(f"an ellipse of the radii {radii[0]:g} and {radii[1]:g}")
    checked = _points([*corners, middle], size)
    canvas = np.zeros((size[1], size[0]), np.uint8)
    place, axes = (tuple(map(round, pair)) for pair in (middle, radii))
    cv2.ellipse(canvas, place, axes, angle, 0, 360, 1, thickness=-1)
    return _cut(canvas, checked)


def pillow(kind: str, points: Sequence[Point], size: Size) -> Patch:
    """A 'polygon', 'rectangle' (two corners) or 'circle' (middle and a point), by LabelMe's rule.

    It is Pillow's: the outline belongs to the shape. Raises DataError as polygons.
    """
    from PIL import Image, ImageDraw

    expected = {"rectangle": 2, "circle": 2}.get(kind, 3)
    if len(points) < expected or (kind != "polygon" and len(points) > expected):
        more = "at least " if kind == "polygon" else ""
        raise DataError(f"a {kind} of {len(points)} points, expected {more}{expected}")
    corners = _points(points, size)
    if kind == "circle":
        reach = math.dist(corners[0], corners[1])
        corners = _points([corners[0] - reach, corners[0] + reach], size)
    if kind == "rectangle":
        corners = np.array([corners.min(axis=0), corners.max(axis=0)])
    if kind == "polygon" and len(corners) * size[1] > MAX_STEPS:
        raise DataError(f"a polygon of {len(corners)} points over {size[1]} rows")
    picture = Image.new("L", size)
    draw = ImageDraw.Draw(picture)
    method = {"polygon": draw.polygon, "rectangle": draw.rectangle, "circle": draw.ellipse}[kind]
    method([tuple(point) for point in corners.tolist()], fill=1, outline=1)
    return _cut(np.asarray(picture), corners)


def coco_mask(counts: str | Sequence[int], told: object, size: Size) -> Patch:
    """A COCO mask, compressed (a text) or not. told: its size, [height, width]."""
    if told != [size[1], size[0]]:
        raise DataError(f"a mask of the size {str(told)[:40]}, expected [{size[1]}, {size[0]}]")
    found = rle.coco_counts(counts) if isinstance(counts, str) else counts
    return Patch(0, 0, rle.runs(found, *size, by_columns=True))


def placed(left: int, top: int, mask: np.ndarray, size: Size) -> Patch:
    """The part of a mask (H x W bool) that lies within the picture."""
    skipped = (
        slice(max(-top, 0), max(size[1] - top, 0)),
        slice(max(-left, 0), max(size[0] - left, 0)),
    )
    return Patch(max(left, 0), max(top, 0), mask[skipped])


def _points(points: Sequence[Point], size: Size) -> np.ndarray:
    """N x 2 float64. Raises DataError for a point that lies far outside, or is none."""
    found = np.asarray(points, np.float64)
    if found.ndim != 2 or found.shape[1] != 2:
        raise DataError("its points are not pairs of x and y")
    reach = sum(size)  # beyond the picture; a circle about a corner may be as large
    far = ~((found >= -reach) & (found <= np.array(size) + reach)).all(axis=1)
    if far.any():
        x, y = found[far][0]
        raise DataError(f"({x:g}, {y:g}) is far outside the picture of {size[0]}x{size[1]} pixels")
    return found


def _cut(picture: np.ndarray, points: np.ndarray) -> Patch:
    """The part of a picture, not 0 where a shape is, that can hold a shape of these points.

    Shapes are drawn in the whole picture: their rounding depends on where they are in it.
    """
    size = np.array(picture.shape[::-1])
    left, top = np.clip(np.floor(points.min(axis=0)) - 2, 0, size).astype(int).tolist()
    right, bottom = np.clip(np.ceil(points.max(axis=0)) + 3, 0, size).astype(int).tolist()
    return Patch(left, top, picture[top:bottom, left:right] > 0)


def _pycocotools() -> Any:
    try:
        from pycocotools import mask
    except ImportError:
        raise DataError(
            "polygons are drawn by pycocotools, which is not installed: pip install "
            "'fusenet[labels]'"
        ) from None
    return mask

"""Masks of shapes, by the rules of the tools."""

import sys

import numpy as np
import pytest
from PIL import Image, ImageDraw

from data_tools.annotations import rle, shapes
from data_tools.cli import DataError

SIZE = (40, 30)


def whole(patch):
    found = np.zeros(SIZE[::-1], bool)
    height, width = patch.mask.shape
    found[patch.top : patch.top + height, patch.left : patch.left + width] = patch.mask
    return found


def drawn(kind, points):
    """What LabelMe's rule draws in the whole picture."""
    picture = Image.new("L", SIZE)
    draw = ImageDraw.Draw(picture)
    getattr(draw, kind)([tuple(map(float, point)) for point in points], fill=1, outline=1)
    return np.asarray(picture) > 0


def test_polygons_are_those_of_the_tools_wherever_they_lie():
    mask_api = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    rng = np.random.default_rng(4)
    for _ in range(300):
        middle = rng.uniform(-0.3, 1.2, 2) * SIZE
        points = np.round(
            middle + rng.uniform(-15, 15, (rng.integers(3, 8), 2)), rng.integers(0, 3)
        )
        codes = mask_api.frPyObjects([points.ravel().tolist()], SIZE[1], SIZE[0])
        (code,) = codes  # its decoder warns of NumPy 2
        counts = rle.coco_counts(code["counts"].decode())
        expected = rle.runs(counts, *SIZE, by_columns=True)
        assert (whole(shapes.polygons([points], SIZE)) == expected).all()
        assert (whole(shapes.pillow("polygon", points, SIZE)) == drawn("polygon", points)).all()


def test_parts_of_one_shape_are_joined():
    parts = [[(1, 1), (4, 1), (4, 4), (1, 4)], [(3, 3), (9, 3), (9, 5), (3, 5)]]
    assert whole(shapes.polygons(parts, SIZE)).sum() == 9 + 12 - 1


def test_a_circle_may_reach_beyond_the_picture():
    found = whole(shapes.pillow("circle", [(0, 0), (0, 45)], SIZE))
    assert (found == drawn("ellipse", [(-45, -45), (45, 45)])).all()
    assert found.sum() > 0.9 * SIZE[0] * SIZE[1]


def test_polygons_need_pycocotools(monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(DataError, match=r"pip install 'fusenet\[labels\]'"):
        shapes.polygons([[(1, 1), (4, 1), (4, 4)]], SIZE)


def test_endless_polygons_are_refused():
    """They would take gigabytes, or hours."""
    size = (8192, 8192)
    zigzag = np.tile([(0, 0), (8000, 8000)], (10**5, 1))
    with pytest.raises(DataError, match="a polygon whose sides are 1600000000 pixels long"):
        shapes.polygons([zigzag], size)
    with pytest.raises(DataError, match="a polygon of 200000 points over 8192 rows"):
        shapes.pillow("polygon", zigzag, size)

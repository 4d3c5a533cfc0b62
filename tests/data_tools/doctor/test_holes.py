"""Values that stand for "no reading"."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.depth import DepthUnit
from data_tools.doctor import holes

MM = DepthUnit.parse("mm")


def depth(value, share=0.05, dtype=np.uint16, far=4000):
    """Readings of 1000 to `far`, and `value` in a share of the pixels."""
    rng = np.random.default_rng(0)
    found = rng.integers(1000, far, (120, 160)).astype(dtype)
    found[rng.random(found.shape) < share] = value
    return found


@pytest.mark.parametrize("value", [65535, 4095, 8191, 8000, 10000, 20000, 31234])
def test_values_far_behind_the_readings(value):
    found = holes.find(depth(value, far=3500), MM)
    assert (found.value, found.sure) == (value, True)
    assert found.share == pytest.approx(0.05, abs=0.01)
    assert found.next < 3500


def test_one_pixel_of_the_highest_number_is_enough():
    one = depth(65535, share=0)
    one[40, 40] = 65535
    assert holes.find(one, MM).value == 65535
    one[40, 40] = 10000  # this may be a reading
    assert holes.find(one, MM) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats(dtype):
    metres = depth(100000, dtype=dtype) / 1000
    assert holes.find(metres, DepthUnit.parse("m")).value == 100
    metres[metres == 100] = np.finfo(dtype).max
    assert holes.find(metres, DepthUnit.parse("m")).value == np.finfo(dtype).max


@pytest.mark.parametrize(
    ("value", "share", "far"),
    [
        (10000, 0.05, 9900),  # readings reach up to it: a room that ends there
        (4000, 0.3, 3900),  # a wall
        (3000, 0.3, 2800),
        (10000, 0.0005, 4000),
        (65535, 0.7, 4000),  # saturated
    ],
)
def test_what_may_be_readings_is_none(value, share, far):
    assert holes.find(depth(value, share, far=far), MM) is None


def test_a_value_that_may_be_a_reading_is_asked_about():
    found = holes.find(depth(4321, 0.05, far=3000), MM)
    assert (found.value, found.sure) == (4321, False)
    (note,) = holes.examine(depth(4321, 0.05, far=3000), MM)
    assert note.remedy == "--no-reading 4321 takes them as holes"
    assert "(4.32 m)" in note.what


def test_frames_agree():
    frames = [depth(65535), depth(3000, 0), depth(65535, 0.2), depth(10000, far=3000)]
    found: dict[float, holes.Found] = {}
    for frame in frames:
        holes.take(found, frame, MM)
    assert set(found) == {65535, 10000}
    assert found[65535].share == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_values_become_holes(dtype):
    one = np.array([[0, 7, 10.1, 65535]]).astype(dtype)
    left = holes.without(one, (7, 65535, 10.1, -1, 1e300))
    assert left.dtype == dtype
    assert left.tolist() == [[0, 0, 10 if dtype in (np.uint16, np.int32) else 0, 0]]


def test_numbers_are_written_in_full():
    assert [holes.number(value) for value in (65535, 10.5, 2147483647.0)] == [
        "65535",
        "10.5",
        "2147483647",
    ]

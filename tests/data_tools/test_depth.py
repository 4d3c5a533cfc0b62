"""Depth units and ranges against arithmetic done by hand."""

import argparse

import numpy as np
import pytest

from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit


def test_units_give_metres():
    raw = np.array([[0, 2500, 5000]], np.uint16)
    assert DepthUnit.parse("5000").metres(raw).tolist() == [[0, 0.5, 1]]
    assert DepthUnit.parse("mm").metres(raw).tolist() == [[0, 2.5, 5]]
    assert DepthUnit.parse("m").metres(np.array([1.5, 0.25], np.float32)).tolist() == [1.5, 0.25]
    assert DepthUnit.parse("scaled").metres(np.array([0, 17, 255], np.uint8)).tolist() == [
        0,
        17,
        255,
    ]


def test_sunrgbd_bits_are_turned_back_and_clipped_at_8_metres():
    # 1234 mm rotated left by 3: 1234 * 8 = 9872 (nothing falls off the top);
    # 8192 + 5 mm: the top three bits come out at the bottom: (8197 << 3) & 0xffff | 8197 >> 13.
    raw = np.array([0, 9872, (8197 << 3) & 0xFFFF | 8197 >> 13], np.uint16)
    assert DepthUnit.parse("sunrgbd").metres(raw).tolist() == [0, 1.234, 8.0]


def test_what_is_no_distance_is_a_hole():
    raw = np.array([np.nan, np.inf, -np.inf, -1, 0, 2], np.float32)
    assert DepthUnit.parse("m").metres(raw).tolist() == [0, 0, 0, 0, 0, 2]


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "feet", "1e-320", "1e300"])
def test_units_that_mean_nothing_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="steps per metre"):
        DepthUnit.parse(text)


@pytest.mark.parametrize(
    ("unit", "raw", "message"),
    [
        ("mm", np.zeros((2, 2), np.uint8), "say --depth-unit scaled"),
        ("sunrgbd", np.zeros((2, 2), np.float32), "uint16, found float32"),
        ("scaled", np.full((2, 2), 256, np.uint16), r"0\.\.255, found 256\.\.256"),
        ("scaled", np.full((2, 2), np.nan), r"0\.\.255, found nan\.\.nan"),
        ("scaled", np.array([[np.nan, 3], [7, 300]]), r"0\.\.255, found 3\.0\.\.300\.0"),
        ("mm", np.zeros((2, 2, 3), np.uint16), r"\(2, 2, 3\), expected"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_depth_of_another_unit_is_refused(unit, raw, message):
    with pytest.raises(DataError, match=message):
        DepthUnit.parse(unit).check(raw)


METRES = np.array([0, 1, 2, 5], np.float64)


def test_authors_range_is_minimum_to_maximum_cut_off():
    rule = DepthRange.parse("authors")
    # 1/5 and 2/5 of 255 are 51 and 102; of a frame without holes, 2 of 1..5 is 63.75, cut to 63.
    assert rule.quantise(rule.apply(METRES)).tolist() == [0, 51, 102, 255]
    assert rule.quantise(rule.apply(METRES[1:])).tolist() == [0, 63, 255]
    assert rule.apply(METRES[1:]).tolist() == [0, 63.75, 255]
    assert rule.apply(np.full(3, 2.0)).tolist() == [0, 0, 0]


def test_valid_range_keeps_holes_apart():
    rule = DepthRange.parse("valid")
    # Readings 1..5 become 1..255: 2 is 1 + 254/4 = 64.5, rounded to even.
    assert rule.quantise(rule.apply(METRES)).tolist() == [0, 1, 64, 255]
    assert rule.apply(np.array([0.0, 3.0])).tolist() == [0, 1]
    assert rule.apply(np.zeros(2)).tolist() == [0, 0]


def test_fixed_range_is_the_same_for_every_frame():
    rule = DepthRange.parse("1:5")
    # (2 - 1) / 4 * 255 = 63.75, rounded.
    assert rule.quantise(rule.apply(METRES)).tolist() == [0, 0, 64, 255]
    assert rule.apply(np.array([0.0, 9.0])).tolist() == [0, 255]


@pytest.mark.parametrize("text", ["3:3", "5:1", "-1:2", "near", "1:2:3", "1:inf", ""])
def test_ranges_that_mean_nothing_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="MIN:MAX"):
        DepthRange.parse(text)

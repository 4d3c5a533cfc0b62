"""What is said of the labels of a whole data set."""

import cv2
import numpy as np
import pytest

from data_tools import classes
from data_tools.classes import ClassTable
from data_tools.label_check import concerns


def counted(**pixels):
    found = np.zeros(256, np.int64)
    for label, count in pixels.items():
        found[int(label[1:])] = count
    return found


FOUR = ClassTable(("none", "wall", "floor", "chair", "lamp"))


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (counted(_0=50, _1=9, _2=9, _3=9, _4=9), []),
        (counted(_0=5, _1=90, _2=90, _3=90), ["1 of 4 classes never occur: 4 (lamp)"]),
        (counted(_0=50, _1=9, _4=9), ["2 of 4 classes never occur: 2 (floor), 3 (chair)"]),
        (counted(_0=50, _1=9, _2=9), ["2 of 4 classes never occur: 3 (chair), 4 (lamp)"]),
        (counted(), []),
    ],
)
def test_sound_labels_are_not_called_shifted(pixels, said):
    assert concerns(pixels, FOUR, True) == said


def test_a_shift_is_not_looked_for_where_there_can_be_none():
    pixels = counted(_0=50, _1=9, _2=9, _3=9)
    assert "--zero-based" in concerns(pixels, FOUR, True)[0]
    assert len(concerns(pixels, FOUR, False)) == 1


def test_255_far_above_the_others():
    (said,) = concerns(counted(_0=10, _7=10, _255=20), None, True)
    assert said == (
        "label 255 has 50% of the pixels, and no other is above 7; if it stands for no class, pass "
        "--ignore-label 255"
    )
    assert concerns(counted(_7=10, _200=10, _255=20), None, True) == []


def test_nyuv2_is_sound(frames):
    """Labels of all classes, and many pixels without one."""
    files = sorted((frames.parent / "nyuv2" / "label40").glob("*.png"))[::3]
    if not files:
        pytest.skip("no NYUv2 at ../shared/nyuv2")
    pixels = np.zeros(256, np.int64)
    for file in files:
        pixels += np.bincount(cv2.imread(str(file), cv2.IMREAD_UNCHANGED).ravel(), minlength=256)
    table = classes.benchmark("nyuv2-40")
    assert concerns(pixels, table, True) == []

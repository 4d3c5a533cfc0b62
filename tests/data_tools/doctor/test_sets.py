"""Records that repeat each other."""

from __future__ import annotations

import numpy as np

from data_tools.doctor.sets import Repeats


def record(color, depth, label):
    """Planes of noise that depends on these three numbers."""
    planes = np.empty((5, 40, 50), np.uint8)
    planes[:3], planes[3], planes[4] = (
        np.random.default_rng(seed).integers(1, 200, (40, 50)) for seed in (color, depth, label)
    )
    return planes


def added(*records):
    repeats = Repeats()
    firsts = [repeats.add(f"r{i}", record(*one)) for i, one in enumerate(records)]
    return firsts, [one.what for one in repeats.findings()]


def test_depth_that_stands_still():
    firsts, found = added((1, 1, 1), (2, 1, 2), (3, 1, 3))
    assert firsts == [None, "r0", "r0"]
    assert found == ["all 3 frames have the same depth, though other colours (r1 has that of r0)"]


def test_some_depth_repeats():
    firsts, found = added((1, 1, 1), (2, 2, 2), (3, 2, 3), (4, 4, 4))
    assert firsts == [None, None, "r1", None]
    assert found == [
        "1 of 4 frames have the depth of an earlier one, though other colours (r2 has that of r1)"
    ]
    one_of_many = [(i, i, i) for i in range(30)] + [(99, 0, 99)]
    assert added(*one_of_many)[1] == []


def test_labels_that_are_all_alike():
    _, found = added((1, 1, 7), (2, 2, 7))
    assert found == ["all 2 frames have the same labels, though other colours"]
    repeats = Repeats()
    for i in range(3):  # nothing is labelled
        planes = record(i, i, i)
        planes[4] = 0
        repeats.add(f"r{i}", planes)
    assert repeats.findings() == []


def test_equal_frames_small_ones_and_others_say_nothing():
    assert added((1, 1, 1), (1, 1, 1)) == ([None, None], [])
    repeats = Repeats()
    for i in range(3):
        assert (
            repeats.add(
                f"r{i}", np.full((5, 20, 30), i, np.uint8) * (np.arange(5) < 3)[:, None, None]
            )
            is None
        )
        assert repeats.add(f"t{i}", np.zeros((3, 40, 50), np.uint8)) is None
    assert repeats.findings() == []

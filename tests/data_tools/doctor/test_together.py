"""What frames say together, where one alone says too little."""

from __future__ import annotations

import numpy as np
import pytest
from spoiling import WAYS

from data_tools.depth import DepthUnit
from data_tools.doctor.together import Together
from data_tools.synth import Synth

MM = DepthUnit.parse("mm")


@pytest.fixture(scope="module")
def rendered():
    source = Synth(8, (320, 240), 55)
    return [source.load(i) for i in range(8)]


def findings(frames, spoil=lambda color, depth: (color, depth), unit=MM):
    together = Together(unit)
    for one in frames:
        color, depth = spoil(one.color, one.depth)
        together.add(color, np.ascontiguousarray(depth))
    return [(one.kind, one.what) for one in together.findings()]


def in_8_bits(color, depth):
    return color, (depth / 40).astype(np.uint8)


def test_sound_frames_say_nothing(rendered):
    assert findings(rendered) == []
    assert (
        findings(rendered, lambda c, d: (c, (d / 40).astype(np.uint8)), DepthUnit("scaled")) == []
    )


def test_a_small_shift(rendered):
    ((kind, what),) = findings(rendered, lambda c, d: (c, np.roll(d, (-3, 6), (0, 1))))
    assert kind == "edges"
    assert what.startswith("depth lies 6 pixels right and 3 pixels up of its place in colour")
    assert what.endswith("(in 8 frames together)")


@pytest.mark.parametrize("name", ["disparity", "reversed"])
def test_depth_that_is_not_distance(rendered, name):
    ((kind, what),) = findings(rendered, WAYS[name].spoil)
    assert kind == "inverse"
    assert WAYS[name].words in what


def test_a_few_frames_or_frames_of_various_sizes_are_too_little(rendered):
    def shifted(color, depth):
        return color, np.roll(depth, 9, 1)

    assert findings(rendered[:3], shifted) == []
    cut = iter(range(0, 80, 10))

    def various(color, depth):
        rows = slice(next(cut), None)
        return color[rows], shifted(color, depth)[1][rows]

    assert [kind for kind, _ in findings(rendered, various)] == []


def test_pictures_that_do_not_belong_together(rendered):
    together = Together(MM)
    for one, other in zip(rendered, rendered[1:] + rendered[:1], strict=True):
        together.add(one.color, other.depth)
    (found,) = together.findings()
    assert found.what.startswith("the edges of depth and colour do not meet: score ")
    assert found.remedy == "see that the pictures belong together"

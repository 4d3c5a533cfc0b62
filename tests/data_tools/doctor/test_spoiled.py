"""Spoiled depth is found: every way of spoiling, on rendered frames and on a real one."""

from __future__ import annotations

import numpy as np
import pytest
from spoiling import WAYS, unit

from data_tools.doctor import frame
from data_tools.images import read_color, read_depth
from data_tools.synth import Synth


@pytest.fixture(scope="module")
def rendered():
    """Ten frames, 320x240."""
    source = Synth(10, (320, 240), 77)
    return [source.load(i) for i in range(10)]


@pytest.mark.parametrize("name", WAYS)
def test_spoiled_frames_are_found(rendered, name):
    way = WAYS[name]
    found = []
    for one in rendered:
        color, depth = way.spoil(one.color, one.depth)
        notes = frame.examine(color, np.ascontiguousarray(depth), unit(way))
        found.append(any(n.kind == way.kind and way.words in n.note.text for n in notes))
    assert np.mean(found) >= way.least


# It has few slanted planes, and weak edges: too weak for a shift to be clear.
NOT_THERE = {"disparity", "reversed", "shifted right", "shifted up"}


@pytest.mark.parametrize("name", sorted(WAYS.keys() - NOT_THERE))
def test_a_real_frame_is_found_too(frames, name):
    way = WAYS[name]
    here = frames / "nyuv2_000464"
    millimetres = np.rint(read_depth(here / "depth.png") / 5).astype(np.uint16)
    color, depth = way.spoil(read_color(here / "rgb.png"), millimetres)
    notes = frame.examine(color, np.ascontiguousarray(depth), unit(way))
    assert way.kind in [note.kind for note in notes]


def test_a_finding_says_what_with_a_figure_and_an_option(rendered):
    one = rendered[0]
    (note,) = frame.examine(one.color, one.depth // 1000 + 1, unit(WAYS["constant"]))
    assert note.kind == "few"
    assert note.note.text == f"{note.what}; --strict refuses such frames"
    (note,) = frame.examine(one.color, one.depth, unit(WAYS["too far"]))
    assert note.what.endswith("m with --depth-unit m, expected 0.2 to 15 m")
    assert note.note.text.startswith(f"{note.what}; --depth-unit mm makes it ")


def test_pictures_of_few_pixels_are_not_judged():
    color, depth = np.zeros((24, 32, 3), np.uint8), np.full((24, 32), 1000, np.uint16)
    assert frame.examine(color, depth, unit(WAYS["constant"])) == ()

"""Sound frames are not complained of: rendered ones, and real ones where they are at hand."""

from __future__ import annotations

import numpy as np
import pytest

from data_tools.depth import DepthRange, DepthUnit
from data_tools.doctor import frame, holes, records
from data_tools.images import read_color, read_depth
from data_tools.record import Frame, RecordFormat
from data_tools.synth import Synth

MM = DepthUnit.parse("mm")


def complaints(color, depth, unit, record=True):
    """What the doctor says of a frame (and of its record), and the value it takes as a hole."""
    found = [str(one) for one in frame.examine(color, depth, unit)]
    if (hole := holes.find(depth, unit)) is not None:
        found.append(str(hole))
    rule = DepthRange("none") if unit.kind == "scaled" else DepthRange.parse("0:10")
    if not record:
        return found
    planes = RecordFormat((320, 240), unit, rule).planes(Frame(color, depth))
    fixed = rule if rule.rule == "fixed" else None
    return found + [str(one) for one in records.examine(planes, fixed)]


@pytest.mark.parametrize("size", [(320, 240), (160, 120)])
def test_rendered_frames(size):
    source = Synth(100 if size[0] == 320 else 40, size, 91)
    found = {}
    for index in range(len(source.names)):
        one = source.load(index)
        found[index] = complaints(one.color, one.depth, MM, record=index % 4 == 0)
    assert {index: texts for index, texts in found.items() if texts} == {}


def test_frames_of_nyuv2(frames):
    folder = frames.parent / "nyuv2"
    if not folder.is_dir():
        pytest.skip("no frames at ../shared/nyuv2")
    found = {}
    for file in sorted((folder / "depth8").iterdir())[5::9]:
        color = read_color(folder / "rgb" / f"{file.stem}.jpg")
        found[file.stem] = complaints(color, read_depth(file), DepthUnit("scaled"))
    assert len(found) == 88
    assert {name: texts for name, texts in found.items() if texts} == {}


@pytest.mark.parametrize(
    ("color", "depth", "unit"),
    [
        ("nyuv2_000464/rgb.png", "nyuv2_000464/depth.png", "5000"),
        *(
            (f"{name}/image", f"{name}/{kind}", "sunrgbd")
            for name in ("sunrgbd_img_0063", "sunrgbd_2014-12-18_11-31-54_260595134347")
            for kind in ("depth", "depth_bfx")
        ),
    ],
)
def test_real_frames(frames, color, depth, unit):
    color, depth = frames / color, frames / depth
    if color.is_dir():
        (color,), (depth,) = color.iterdir(), depth.iterdir()
    assert complaints(read_color(color), read_depth(depth), DepthUnit.parse(unit)) == []


def test_a_frame_without_colour_is_judged_by_its_depth():
    """A floor, seen at a slant."""
    depth = np.repeat((48000 / np.arange(10, 58)).astype(np.uint16)[:, None], 64, 1)
    assert frame.examine(np.full((48, 64, 3), 128, np.uint8), depth, MM) == ()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("shape", [(40, 50), (1, 3000), (3000, 1)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64, np.float16, np.float64])
def test_any_numbers_are_judged_without_a_warning_of_numpys(shape, kind):
    """What a stranger's file may hold: extremes, holes, NaN and infinity."""
    rng = np.random.default_rng(0)
    if np.dtype(kind).kind == "f":
        most = np.finfo(kind).max
        choice = [np.nan, np.inf, -np.inf, 0, most, -most, 1, np.finfo(kind).tiny]
    else:
        choice = [0, 1, 200, np.iinfo(kind).max]
    color = np.zeros((*shape, 3), np.uint8)
    for count in range(1, len(choice) + 1):
        depth = rng.choice(choice[:count], shape).astype(kind)
        for unit in ("mm", "1e-6", "1e12"):
            frame.examine(color, depth, DepthUnit.parse(unit))
            holes.find(depth, DepthUnit.parse(unit))

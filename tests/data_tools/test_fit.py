"""Frames of another aspect ratio are cropped, letter-boxed or squeezed, and labels find back."""

import numpy as np
import pytest

from data_tools.depth import DepthRange, DepthUnit
from data_tools.fit import Placement, describe, placement
from data_tools.record import Frame, RecordFormat, nearest, to_datum
from data_tools.store import Reader, Writer, read_info


def test_a_broad_frame_loses_its_sides():
    placed = placement("crop", (1280, 720), (320, 240))
    columns = np.tile(np.arange(1280, dtype=np.uint16), (720, 1))
    found = placed.onto(nearest, columns, (320, 240))
    assert found.shape == (240, 320)
    assert (found[0, 0], found[0, -1]) == (160, 160 + 319 * 3)


def test_a_tall_frame_loses_top_and_bottom():
    placed = placement("crop", (480, 640), (320, 240))
    rows = np.tile(np.arange(640, dtype=np.uint16)[:, None], (1, 480))
    found = placed.onto(nearest, rows, (320, 240))
    assert (found[0, 0], found[-1, 0]) == (140, 140 + int(239 * 1.5))


def test_pad_shows_the_whole_frame_between_borders_of_0():
    placed = placement("pad", (1280, 720), (320, 240))
    found = placed.onto(nearest, np.full((720, 1280), 7, np.uint8), (320, 240))
    assert (found[30:210] == 7).all()
    assert not found[:30].any()
    assert not found[210:].any()


@pytest.mark.parametrize("rule", ["crop", "pad", "stretch"])
@pytest.mark.parametrize("frame", [(640, 480), (646, 480), (64, 48), (320, 240)])
def test_aspects_within_1_percent_are_squeezed(rule, frame):
    assert placement(rule, frame, (320, 240)) == Placement()
    assert describe(rule, frame, (320, 240)) is None


@pytest.mark.parametrize("frame", [(1280, 720), (480, 640), (333, 100), (31, 77)])
@pytest.mark.parametrize("rule", ["crop", "pad"])
def test_what_the_net_labels_is_found_back_in_the_frame(rule, frame):
    """A bright square is at the same place after the way to the net's input and back."""
    width, height = frame
    plane = np.zeros((height, width), np.uint8)
    y, x = height // 2, width // 2
    plane[y - height // 8 : y + height // 8, x - width // 8 : x + width // 8] = 1
    placed = placement(rule, frame, (320, 240))
    back = placed.back(nearest, placed.onto(nearest, plane, (320, 240)), frame)
    assert back.shape == plane.shape
    assert (back != plane).mean() < 0.02
    if rule == "crop":
        shown = placed.back(nearest, np.ones((240, 320), np.uint8), frame)
        assert 0.05 < shown.mean() < 1
        assert not shown[0, 0]


def test_what_is_done_is_said():
    assert describe("crop", (1280, 720), (320, 240)) == (
        "1280x720 is cropped to 960x720 in its middle for 320x240"
    )
    assert describe("pad", (1280, 720), (320, 240)) == (
        "1280x720 gets borders around 320x180 for 320x240"
    )
    assert describe("stretch", (480, 640), (320, 240)) == "480x640 is squeezed for 320x240"


def test_all_parts_of_a_frame_are_cropped_alike():
    """Also depth and labels of half the size, and of an aspect that differs by a little."""
    color = np.zeros((720, 1280, 3), np.uint8)
    color[:, 640:] = 200
    depth = np.full((360, 643), 1000, np.uint16)
    depth[:, 322:] = 3000
    label = np.full((720, 1280), 1, np.uint8)
    label[:, 640:] = 2
    form = RecordFormat(
        (320, 240), DepthUnit.parse("mm"), DepthRange.parse("0:8"), fit="crop", classes=2
    )
    planes = form.planes(Frame(color, depth, label))
    edges = [int(np.argmax(planes[c, 120] == planes[c, 120, -1])) for c in (0, 3, 4)]
    assert max(edges) - min(edges) <= 1
    assert abs(edges[2] - 160) <= 1


def test_folder_says_and_records_what_was_done(trio, command):
    for name in ("a", "b"):
        where = ["--rgb", "rgb", "--depth", "depth", "--label", "label"]
        trio(name, np.zeros((12, 32, 3)), np.full((12, 32), 900, np.uint16), np.ones((12, 32)))
    result = command("folder", *where, "crop", "--size", "16x12")
    assert result.stderr == (
        "a: 32x12 is cropped to 16x12 in its middle for 16x12 (--fit crop) (so with 2 frames)\n"
    )
    assert read_info("crop")["options"]["fit"] == "crop"
    assert next(Reader("crop").planes())[1][4].all()
    command("folder", *where, "pad", "--size", "16x12", "--fit", "pad")
    assert read_info("pad")["options"]["fit"] == "pad"
    label = next(Reader("pad").planes())[1][4]
    assert label[3:9].all()
    assert not label[:3].any()
    assert not label[9:].any()


def test_where_nothing_was_fitted_nothing_is_recorded(trio, command):
    """A net that saw only frames of its own aspect ratio says nothing about others."""
    trio("a", np.zeros((24, 32, 3)), np.full((24, 32), 900, np.uint16))
    command("folder", "--rgb", "rgb", "--depth", "depth", "db", "--size", "16x12")
    assert "fit" not in read_info("db")["options"]
    command("synth", "rendered", "--count", "2", "--size", "32x24")
    assert "fit" not in read_info("rendered")["options"]


def test_that_a_frame_was_fitted_outlives_a_kill(tmp_path):
    writer = Writer(tmp_path / "db", "plan")
    writer.put(b"a", to_datum(np.zeros((5, 2, 2), np.uint8)), fitted=True)
    writer.close()
    writer = Writer(tmp_path / "db", "plan")
    assert writer.fitted
    writer.close()

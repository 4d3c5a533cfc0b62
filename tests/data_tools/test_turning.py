"""Colour that EXIF data turn, and the depth and labels that go with it."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from boundary.pictures import orientation
from data_tools import turning
from data_tools.cli import DataError
from data_tools.images import read_color, read_frame
from data_tools.record import Frame
from data_tools.synth import Synth

BACK = {6: 8, 8: 6}  # what undoes a turn; the others undo themselves


@pytest.fixture(scope="module")
def rendered():
    return Synth(3, (160, 120), 5).load(1)


def stored(picture, way):
    """The picture as a camera stores it that says: turn it by `way`."""
    return turning.upright(picture, BACK.get(way, way))


def as_file(color, way, form="PNG", **how):
    file, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = way
    Image.fromarray(color[..., ::-1]).save(file, form, exif=exif, **how)
    return file.getvalue()


@pytest.mark.parametrize("way", range(1, 9))
def test_pictures_are_turned_as_pillow_and_opencv_turn_them(tmp_path, way):
    color = np.random.default_rng(0).integers(0, 255, (6, 9, 3), np.uint8)
    data = as_file(color, way)
    assert orientation(data) == way
    (tmp_path / "c.png").write_bytes(data)
    found = read_color(tmp_path / "c.png")
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(found, np.asarray(expected)[..., ::-1])
    assert np.array_equal(turning.upright(stored(color, way), way), color)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "TIFF"])
def test_every_format_is_turned(tmp_path, form):
    data = as_file(np.zeros((6, 9, 3), np.uint8), 6, form)
    (tmp_path / "c").write_bytes(data)
    assert read_color(tmp_path / "c").shape == (9, 6, 3)


@pytest.mark.parametrize(
    "data", [b"", b"Exif", b"\xff\xd8\xff\xe1\x00\x10Exif\0\0II*\0\xff\xff\xff\xff"]
)
def test_damaged_data_turn_nothing(data):
    assert orientation(data) == 1


def write(tmp_path, color, depth, way):
    (tmp_path / "c.jpg").write_bytes(as_file(color, way, "JPEG", quality=95))
    cv2.imwrite(str(tmp_path / "d.png"), depth)
    return {"color": tmp_path / "c.jpg", "depth": tmp_path / "d.png"}


@pytest.mark.parametrize("way", range(2, 9))
def test_depth_and_label_that_were_stored_unturned_are_turned(rendered, tmp_path, way):
    files = write(tmp_path, stored(rendered.color, way), stored(rendered.depth, way), way)
    frame = read_frame(files, lambda size: stored(rendered.label, way))
    assert np.array_equal(frame.depth, rendered.depth)
    assert np.array_equal(frame.label, rendered.label)
    assert frame.color.shape == rendered.color.shape
    assert frame.facts == {"turned": dict.fromkeys(("depth", "label"), turning.WAYS[way])}
    (note,) = frame.notes
    assert note.text == f"depth and label are {turning.WAYS[way]}, as EXIF data turn colour"


@pytest.mark.parametrize("way", range(2, 9))
def test_depth_that_is_upright_stays(rendered, tmp_path, way):
    files = write(tmp_path, stored(rendered.color, way), rendered.depth, way)
    frame = read_frame(files, lambda size: rendered.label)
    assert np.array_equal(frame.depth, rendered.depth)
    assert np.array_equal(frame.label, rendered.label)
    assert (frame.notes, frame.facts) == ((), {})


def test_each_part_is_turned_by_its_own_size(rendered, tmp_path):
    files = write(tmp_path, stored(rendered.color, 6), stored(rendered.depth, 6), 6)
    frame = read_frame(files, lambda size: rendered.label)  # drawn on the upright picture
    assert np.array_equal(frame.depth, rendered.depth)
    assert np.array_equal(frame.label, rendered.label)
    assert frame.facts == {"turned": {"depth": turning.WAYS[6]}}


@pytest.mark.parametrize("way", [2, 3, 6])
def test_what_nothing_tells_is_refused(way):
    flat = np.full((60, 60), 1000, np.uint16)
    frame = Frame(np.zeros((60, 60, 3), np.uint8), flat, files={"color": "c.jpg"})
    with pytest.raises(DataError, match=r"c\.jpg: colour is .* and nothing tells whether depth is"):
        turning.turned(frame, way)


def test_other_sizes_are_left_to_the_check_of_frames(rendered):
    frame = Frame(rendered.color, rendered.depth[:100, :40])
    assert turning.turned(frame, 6) is frame

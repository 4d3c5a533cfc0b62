"""Which frame an annotated picture belongs to."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from data_tools.cli import DataError
from data_tools.matching import match


@dataclass
class Picture:
    names: tuple
    empty: bool = False

    def __str__(self):
        return f"<{self.names[0]}>"

    def draw(self, number, size):
        raise AssertionError


def matched(files, *names):
    """Frame -> the picture's first name. files: colour files by frames' names."""
    pictures = [Picture(name if isinstance(name, tuple) else (name,)) for name in names]
    colors = {name: Path(file) for name, file in files.items()}
    return {name: picture.names[0] for name, picture in match(colors, pictures).items()}


FILES = {"a": "/d/rgb/a_rgb.png", "b": "/d/rgb/b_rgb.png"}


@pytest.mark.parametrize(
    "name",
    ["a_rgb.png", "rgb/a_rgb.png", "elsewhere/a_rgb.png", "..\\rgb\\a_rgb.png", "/d/rgb/a_rgb.png",
     "a_rgb.jpg", "a.png", "a_color.png", "x/a.jpeg"],
)  # fmt: skip
def test_names_that_belong_to_a_frame(name):
    assert matched(FILES, name) == {"a": name}


@pytest.mark.parametrize("name", ["A_rgb.png", "aa.png", "rgb.png", "c_rgb.png", ""])
def test_names_that_belong_to_none_stay(name):
    assert matched(FILES, name) == {name: name}


def test_the_frames_own_name_counts_last():
    files = {"12": "/d/img0012_left.png"}
    assert matched(files, "12.png") == {"12": "12.png"}


def test_other_names_of_a_picture_come_after_its_first():
    assert matched(FILES, ("0a1b2c3d-b.png", "b.png")) == {"b": "0a1b2c3d-b.png"}
    files = {**FILES, "c": "/d/rgb/0a1b2c3d-b.png"}
    assert matched(files, ("0a1b2c3d-b.png", "b.png")) == {"c": "0a1b2c3d-b.png"}


def test_folders_tell_equal_names_apart():
    files = {"s1/a": "/d/rgb/s1/a.png", "s2/a": "/d/rgb/s2/a.png"}
    assert matched(files, "s2/a.png", "s1/a.png") == {"s1/a": "s1/a.png", "s2/a": "s2/a.png"}
    # Another scene's picture of the same name does not take the frame.
    assert matched({"a": "/d/s2/a.png"}, "s1/a.png", "s2/a.png") == {
        "a": "s2/a.png",
        "s1/a.png": "s1/a.png",
    }


def test_names_that_leave_the_choice_open():
    files = {"s1/a": "/d/rgb/s1/a.png", "s2/a": "/d/rgb/s2/a.png"}
    with pytest.raises(
        DataError, match=r"<a.png>: belongs to /d/rgb/s1/a.png or to /d/rgb/s2/a.png"
    ):
        matched(files, "a.png")
    with pytest.raises(DataError, match=r"<x/a.png> and <y/a.png> both belong to /d/a.png"):
        matched({"a": "/d/a.png"}, "x/a.png", "y/a.png")


def test_pictures_of_no_frame_do_not_take_a_frames_name():
    assert matched({"a": "/d/b.png"}, "a.png", "x.png") == {"a": "a.png", "x.png": "x.png"}
    assert matched({"c.png": "/d/b.png"}, "./c.png", "c.png") == {
        "./c.png": "./c.png", "././c.png": "c.png"}  # fmt: skip

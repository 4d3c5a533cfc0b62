"""Reading pictures: the number types kept, palettes and colour codes as labels."""

import cv2
import numpy as np
import pytest
from PIL import Image

from data_tools.classes import ClassTable
from data_tools.cli import DataError
from data_tools.images import read_color, read_depth, read_label

TABLE = ClassTable(("(ignored)", "wall", "sofa"), ((0, 0, 0), (255, 0, 10), (255, 0, 9)))


def test_colour_is_bgr_and_grey_becomes_three_channels(tmp_path):
    Image.new("RGB", (3, 2), (250, 20, 1)).save(tmp_path / "c.png")
    assert (read_color(tmp_path / "c.png") == (1, 20, 250)).all()
    Image.new("L", (3, 2), 7).save(tmp_path / "g.png")
    assert read_color(tmp_path / "g.png").shape == (2, 3, 3)


def test_depth_keeps_its_numbers(tmp_path):
    depth = np.array([[0, 1, 65535]], np.uint16)
    cv2.imwrite(str(tmp_path / "d.png"), depth)
    assert (read_depth(tmp_path / "d.png") == depth).all()
    assert read_depth(tmp_path / "d.png").dtype == np.uint16
    np.save(tmp_path / "d.npy", depth[..., None] / 3)
    assert (read_depth(tmp_path / "d.npy") == depth / 3).all()
    cv2.imwrite(str(tmp_path / "rgb.png"), np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(DataError, match=r"rgb\.png: depth has shape \(2, 2, 3\)"):
        read_depth(tmp_path / "rgb.png")


def test_a_palette_gives_its_indices_or_its_colours(tmp_path):
    image = Image.fromarray(np.array([[0, 2, 5]], np.uint8))
    image.putpalette([0, 0, 0, 9, 9, 9, 255, 0, 10, 1, 1, 1, 1, 1, 2, 255, 0, 9])
    image.save(tmp_path / "p.png")
    assert read_label(tmp_path / "p.png").tolist() == [[0, 2, 5]]
    assert read_label(tmp_path / "p.png", TABLE).tolist() == [[0, 1, 2]]


def test_colours_become_labels(tmp_path):
    colors = np.array([[(255, 0, 9), (0, 0, 0), (255, 0, 10)]], np.uint8)
    Image.fromarray(colors).save(tmp_path / "l.png")
    assert read_label(tmp_path / "l.png", TABLE).tolist() == [[2, 0, 1]]
    with pytest.raises(DataError, match="give a table of classes"):
        read_label(tmp_path / "l.png")
    colors[0, 1] = (255, 0, 8)
    Image.fromarray(colors).save(tmp_path / "l.png")
    with pytest.raises(DataError, match=r"l\.png: colour \(255, 0, 8\) at x=1 y=0"):
        read_label(tmp_path / "l.png", TABLE)


@pytest.mark.parametrize("name", ["x.png", "x.npy", "x.exr"])
@pytest.mark.parametrize("content", [b"", b"something else that is long enough to look at"])
def test_files_that_are_no_pictures_are_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=name):
        read_depth(tmp_path / name)
    with pytest.raises(DataError, match="No such file"):
        read_depth(tmp_path / f"absent{name}")


def test_truncated_palette_pngs_are_named(tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 9, (50, 50), np.uint8))
    image.putpalette(bytes(range(27)))
    image.save(tmp_path / "p.png")
    data = (tmp_path / "p.png").read_bytes()
    (tmp_path / "p.png").write_bytes(data[: len(data) // 2])
    with pytest.raises((DataError, OSError)):
        read_label(tmp_path / "p.png")


@pytest.mark.parametrize("shape", [(0, 64), (4, 0), (0,)])
@pytest.mark.parametrize("read", [read_depth, read_label])
def test_arrays_without_values_are_refused(tmp_path, shape, read):
    np.save(tmp_path / "x.npy", np.zeros(shape, np.uint16))
    with pytest.raises(DataError, match=r"x\.npy: an array of shape \(.*\) holds no values"):
        read(tmp_path / "x.npy")

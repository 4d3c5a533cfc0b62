"""Pictures and files of results."""

import csv

import cv2
import numpy as np
import pytest

from data_tools.cli import DataError
from data_tools.images import read_label
from eval_tools import drawings
from eval_tools.metrics import ConfusionMatrix

COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [10, 20, 30]], np.uint8)


def test_label_pictures_read_back_as_labels_and_show_as_colours(tmp_path):
    label = np.random.default_rng(0).integers(0, 4, (7, 9), dtype=np.uint8)
    path = tmp_path / "x.png"
    path.write_bytes(drawings.label_png(label, COLORS))
    assert np.array_equal(read_label(path), label)
    assert np.array_equal(cv2.imread(str(path))[..., ::-1], COLORS[label])


def test_overlay_tints_labels_darkens_edges_and_leaves_label_0():
    color = np.full((4, 6, 3), 100, np.uint8)
    label = np.array([[0, 0, 0, 1, 1, 1]] * 4, np.uint8)
    found = drawings.overlay(color, label, COLORS, strength=0.5)
    assert found[0, 0].tolist() == [100, 100, 100]
    assert found[0, 5].tolist() == [50, 50, 178]  # half of red, in BGR: (100 + 255) / 2 = 177.5
    assert found[0, 3].sum() < found[0, 5].sum() / 2


def test_legend_has_every_colour():
    found = drawings.legend(["(ignored)", "red", "green", "dark"], COLORS)
    for color in COLORS[1:]:
        assert np.any(np.all(found == color[::-1], -1))


@pytest.fixture
def matrix():
    truth = [1, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0, 0]
    names = ["wall", "floor, tiled", "bed"]
    return ConfusionMatrix(3, names=names).update(truth, [1, 1, 1, 2, 2, 2, 3, 3, 3, 1, 1, 3])


def test_matrix_files(matrix, tmp_path):
    drawings.write_matrix(tmp_path / "m.npz", matrix)
    with np.load(tmp_path / "m.npz") as file:
        assert np.array_equal(file["counts"], matrix.counts)
        assert file["names"].tolist() == matrix.names
        assert file["mean_iou"] == matrix.mean_iou
    drawings.write_matrix(tmp_path / "m.csv", matrix)
    with open(tmp_path / "m.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["truth \\ prediction", "(ignored)", "wall", "floor, tiled", "bed"]
    assert rows[2] == ["floor, tiled", "0", "0", "2", "1"]


@pytest.mark.parametrize(
    ("suffix", "head"), [("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")]
)
def test_matrix_drawings(matrix, tmp_path, suffix, head):
    drawings.write_matrix(tmp_path / f"m.{suffix}", matrix)
    assert (tmp_path / f"m.{suffix}").read_bytes().startswith(head)


def test_the_drawn_matrix_has_each_row_in_per_cent(matrix):
    axes = drawings.matrix_figure(matrix).axes[0]
    share = axes.images[0].get_array()
    assert np.allclose(share, [[75, 25, 0], [0, 200 / 3, 100 / 3], [100 / 3, 0, 200 / 3]])
    texts = {tuple(map(int, t.get_position())): t.get_text() for t in axes.texts}
    assert texts[1, 0] == "25"
    assert (2, 0) not in texts


def test_other_matrix_files_are_refused(matrix, tmp_path):
    with pytest.raises(DataError, match=r"m\.txt: a confusion matrix is written as \.npz, \.csv"):
        drawings.write_matrix(tmp_path / "m.txt", matrix)

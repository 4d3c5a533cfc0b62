"""YOLO's outputs: what is found, in which order, and what is refused."""

import math

import numpy as np
import pytest
import torch
from cases import Case, make_layer

import caffe

OUTPUT = (
    "yolov3_detection_output_param { num_classes: 2 num_box: 1 mask_group_num: 1 mask: 1 "
    "biases: 8 biases: 8 biases: 16 biases: 32 anchors_scale: 32 %s }"
)


def found(text: str, x: np.ndarray) -> np.ndarray:
    """The rows that the layer finds in x."""
    layer = make_layer("Yolov3DetectionOutput", Case(OUTPUT % text, [x.shape]))
    return layer.forward([torch.from_numpy(x)], [])[0, 0].numpy()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_a_cell_gives_its_best_class_and_the_anchor_that_mask_names():
    """A picture of 64 x 32 pixels in cells of 32: an anchor of 16 x 32 is 0.25 x 1 of it."""
    x = np.full((1, 7, 1, 2), -9, np.float32)
    x[0, :, 0, 1] = 0, 0, math.log(2), math.log(0.5), 3, 1, 2
    (row,) = found("confidence_threshold: 0.5", x)
    # The centre is in the middle of the right cell; the box is 0.5 x 0.5.
    np.testing.assert_allclose(row[1:3], [2, sigmoid(3) * sigmoid(2)], rtol=1e-6)
    np.testing.assert_allclose(row[3:], [0.5, 0.25, 1, 0.75], rtol=1e-6)


def test_uncertainty_of_gaussian_boxes_lowers_the_score():
    x = np.full((1, 11, 1, 1), -9, np.float32)
    x[0, :, 0, 0] = 0, 1, 0, -1, 0, 2, 0, -2, 3, 2, -9
    (row,) = found("gaussian_box: true", x)
    unsure = 2 * sigmoid(1) + sigmoid(-1) + sigmoid(2) + sigmoid(-2)
    np.testing.assert_allclose(row[2], sigmoid(3) * sigmoid(2) * (4 - unsure) / 4, rtol=1e-5)


def test_pictures_without_a_box_have_a_row_each():
    x = np.full((2, 7, 1, 1), -9, np.float32)
    np.testing.assert_array_equal(found("", x), [[0] + [-1] * 6, [1] + [-1] * 6])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("biases: 3", "biases are 5 numbers"),
        ("mask: 2 mask: 3", "mask has the number 3, expected 0 to 1"),
        ("mask: 5", "mask has the number 5"),
    ],
)
def test_refused(text, reason):
    with pytest.raises(caffe.CaffeError, match=reason):
        make_layer("Yolov3DetectionOutput", Case(OUTPUT % text, [(1, 7, 1, 1)]))

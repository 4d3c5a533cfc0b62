"""YOLO's losses: which cells an object belongs to, and what is refused. The values are the forks'
(tests/golden/forks).
"""

import numpy as np
import pytest
import torch
from cases import Case, make_layer

import caffe

LOSS = (
    "yolov3_param { num_class: 2 num: 2 mask: 0 mask: 1 biases: 8 biases: 8 biases: 16 biases: 32 "
    "anchors_scale: 32 iou_thresh: 1 label_smooth_eps: 0 }"
)


def gradient(*truths: float) -> np.ndarray:
    """The gradient (2 anchors, 7 numbers, 1, 2 cells) for predictions of 0 and one object."""
    layer = make_layer("Yolov3", Case(LOSS, [(1, 14, 1, 2), (1, 10)]))
    x = torch.zeros(1, 14, 1, 2, requires_grad=True)
    labels = torch.zeros(1, 10)
    labels[0, : len(truths)] = torch.tensor(truths)
    (layer.forward([x, labels], [])).backward()
    return x.grad.numpy().reshape(2, 7, 1, 2)


def test_an_object_belongs_to_the_cell_of_its_centre_and_the_anchor_of_its_size():
    """A picture of 64 x 32 pixels: a box of 15 x 30 pixels is for anchor 1, in the right cell."""
    g = gradient(1, 0.75, 0.5, 15 / 64, 30 / 32)
    assert g[1, 4, 0, 1] == -0.5  # objectness should be 1 and is 0.5
    assert g[1, 5:, 0, 1].tolist() == [0.5, -0.5]
    assert g[0, 4, 0].tolist() == [0.5, 0.5]  # all others should be background
    assert not g[0, :4].any()
    assert not g[1, :4, 0, 0].any()


def test_an_object_on_the_right_edge_belongs_to_the_last_cell():
    assert gradient(0, 1, 1, 15 / 64, 30 / 32)[1, 5:, 0, 1].tolist() == [-0.5, 0.5]


@pytest.mark.parametrize(
    ("truth", "reason"),
    [((2, 0.5, 0.5, 1, 1), "label 2 is out of range"), ((0, 1.5, 0.5, 1, 1), "out of range")],
)
def test_refused(truth, reason):
    with pytest.raises(caffe.CaffeError, match=reason):
        gradient(*truth)


def test_softmax_tree_is_refused():
    text = 'region_loss_param { num: 1 num_class: 2 biases: 1 biases: 1 softmax_tree: "t" }'
    with pytest.raises(caffe.CaffeError, match="softmax_tree is not supported"):
        make_layer("RegionLoss", Case(text, [(1, 7, 2, 2), (1, 5)]))

"""Connectionist temporal classification: worked cases, and PyTorch's own loss."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import caffe
from caffe.layers.ctc import collapsed, ctc_cost, edit_distance

HALF = torch.zeros(2, 2)  # two steps, two classes, each as likely


def test_paths_by_hand():
    """Of the four outputs in two steps "aa", "a-" and "-a" stand for a, "--" for nothing."""
    assert ctc_cost(HALF, [1], 0) == pytest.approx(-math.log(3 / 4))
    assert ctc_cost(HALF, [], 0) == pytest.approx(-math.log(1 / 4))
    assert ctc_cost(HALF, [1, 1], 0) == math.inf  # "aa" is one a
    assert ctc_cost(HALF, [1, 1], 0, merge=False) == pytest.approx(-math.log(1 / 4))
    assert ctc_cost(HALF, [1], 0, merge=False) == pytest.approx(-math.log(2 / 4))


@pytest.mark.parametrize("labels", [[1], [2, 2], [1, 2, 3], [3, 1, 1, 2]])
def test_as_pytorchs_loss(labels):
    torch.manual_seed(1)
    x = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    expected = F.ctc_loss(
        x.log_softmax(1)[:, None], torch.tensor([labels]), [7], [len(labels)], reduction="sum"
    )
    cost = ctc_cost(x, labels, 0)
    torch.testing.assert_close(cost, expected)
    (found,) = torch.autograd.grad(cost, x)
    torch.testing.assert_close(found, torch.autograd.grad(expected, x)[0])


def test_the_gradient_is_of_the_sum_and_a_sample_that_cannot_be_costs_nothing(layer_of):
    """Two samples of one label in two steps, and one whose two equal labels need three."""
    param = "ctc_loss_param { alphabet_size: 2 time_step: 2 }"
    layer = layer_of(f'type: "CtcLoss" {param}', (2, 3, 2), (3, 2))
    x = torch.zeros(2, 3, 2, requires_grad=True)
    loss = layer.forward([x, torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])], [])
    assert loss.item() == pytest.approx(-2 * math.log(3 / 4) / 3)
    loss.backward()
    # Of the three paths two have an "a" in each step: 1/2 - 2/3.
    one = [[1 / 6, -1 / 6]] * 2
    np.testing.assert_allclose(x.grad[:, 0], one, rtol=1e-5)
    np.testing.assert_allclose(x.grad[:, 1], one, rtol=1e-5)
    assert not x.grad[:, 2].any()


def test_three_ways_to_give_the_labels(layer_of):
    """Bottoms: labels; indicators and labels, which count from 0 as the blank is 0; lengths."""
    torch.manual_seed(2)
    scores = torch.randn(4, 2, 3)
    rows = torch.tensor([[1.0, 2.0], [2.0, 0.0]])
    flags = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]])
    columns = torch.tensor([[0.0, 1.0], [1.0, -1.0], [-1.0, -1.0], [-1.0, -1.0]])
    ways = [
        [rows],
        [flags, columns],
        [torch.tensor([4.0, 4.0]), torch.tensor([2.0, 1.0]), rows.t()],
    ]
    found = []
    for others in ways:
        bottoms = [scores, *others]
        layer = layer_of('type: "WarpCTCLoss"', *(b.shape for b in bottoms))
        found.append(float(layer.forward(bottoms, [])))
    assert found == pytest.approx([found[0]] * 3)


def test_what_outputs_stand_for():
    assert collapsed([0, 1, 1, 0, 1, 2, 2], 0) == [1, 1, 2]
    assert collapsed([0, 1, 1, 0, 1, 2, 2], 0, merge=False) == [1, 1, 1, 2, 2]
    assert edit_distance([1, 2, 3], [2, 3, 3, 1]) == 3
    assert edit_distance([], [1, 2]) == 2


def test_accuracies_of_sequences(layer_of):
    """Outputs 1 - 1 and 2 2 -, labels "1 1" and "2 1": one of two is right."""
    best = torch.tensor([[1, 0, 1], [2, 2, 0]])
    scores = F.one_hot(best, 3).float()
    labels = torch.tensor([[1.0, 1.0], [2.0, 1.0]])
    for param in ("labelsequence", "Sequence"):
        name = "LabelsequenceAccuracy" if param == "labelsequence" else "SequenceAccuracy"
        text = f'type: "{name}" {param}_accuracy_param {{ blank_label: 0 }}'
        layer = layer_of(text, scores.shape, labels.shape)
        assert layer.forward([scores, labels], []) == 0.5
    decoder = layer_of('type: "CTCGreedyDecoder"', (3, 2, 3), (2, 2))
    top = decoder.forward([scores.transpose(0, 1), labels], [])[0]
    np.testing.assert_allclose(top.flatten(), [1 - 1 / 4, 0.5])


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("alphabet_size: 3 time_step: 2", "alphabet_size is 3, expected the 2 classes"),
        ("alphabet_size: 2 time_step: 9", "time_step is 9, expected 1 to the 4 steps"),
        ("alphabet_size: 2 time_step: 2 blank_label: 2", "blank_label is 2, expected a class"),
    ],
)
def test_losses_that_do_not_fit(layer_of, param, message):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{message}"):
        layer_of(f'type: "CtcLoss" ctc_loss_param {{ {param} }}', (4, 1, 2), (1, 2))


def test_a_label_beyond_the_classes(layer_of):
    layer = layer_of('type: "WarpCTCLoss"', (4, 1, 2), (1, 2))
    with pytest.raises(caffe.CaffeError, match="label 5 is out of range, expected 0 to 1"):
        layer.forward([torch.zeros(4, 1, 2), torch.tensor([[1.0, 5.0]])], [])


@pytest.mark.parametrize("label", [math.nan, math.inf])
def test_a_label_that_is_no_number_is_refused(layer_of, label):
    layer = layer_of('type: "CTCLoss"', (2, 1, 2), (2, 1), (2, 1))
    bottoms = [torch.zeros(2, 1, 2), torch.tensor([[0.0], [1.0]]), torch.full((2, 1), label)]
    with pytest.raises(caffe.CaffeError, match="a label is out of range: it is no number"):
        layer.forward(bottoms, [])

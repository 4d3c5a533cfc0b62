"""Losses for special ends: facts that their rows and recordings do not state."""

import pytest
import torch
from cases import Case, make_layer

import caffe


def test_the_gradient_of_mmd_is_the_derivative_over_the_number_of_draws():
    """Three source vectors against two targets: three draws."""
    layer = make_layer("MMDLoss", Case("mmd_param { kernel_num: 2 }", [(3, 2), (2, 2)]))
    torch.manual_seed(3)
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    y = torch.randn(2, 2, dtype=torch.float64)

    layer.layer_param.mmd_param.fix_gamma = True  # the width has no gradient

    def loss(x):
        torch.manual_seed(1)
        return layer.forward([x, y], [])

    (gradient,) = torch.autograd.grad(loss(x), x)
    step = torch.zeros_like(x)
    step[1, 0] = 1e-6
    slope = (loss(x + step) - loss(x - step)).item() / 2e-6
    assert gradient[1, 0].item() == pytest.approx(slope / 3, rel=1e-5)
    assert slope != 0


def test_landmarks_weigh_by_their_group():
    """All points miss by 1 in x: 17 of the contour weigh 2, 13 corners 3, the other 38 weigh 1."""
    text = "main_weight: 1 contour_weight: 2 coarse_weight: 3"
    case = Case(f"weight_euclidean_loss_param {{ {text} }}", [(1, 136), (1, 136)])
    layer = make_layer("WeightEuclideanLoss", case)
    truths, x = torch.zeros(1, 136), torch.zeros(1, 136)
    x[0, :68] = 1
    assert layer.forward([x, truths], []).item() == (17 * 2 + 13 * 3 + 38) / 2


def test_landmarks_are_measured_in_the_distance_of_the_eyes():
    text = "main_weight: 1 normalized: true"
    case = Case(f"weight_euclidean_loss_param {{ {text} }}", [(1, 136), (1, 136)])
    layer = make_layer("WeightEuclideanLoss", case)
    truths = torch.zeros(1, 136)
    truths[0, 42], truths[0, 68 + 45] = 3, 4  # 5 apart
    x = truths.clone()
    x[0, 20] = 1
    assert layer.forward([x, truths], []).item() == pytest.approx(1 / 5 / 2)


def test_mmd_needs_two_vectors_of_each():
    with pytest.raises(caffe.CaffeError, match="expected two or more each"):
        make_layer("MMDLoss", Case("", [(1, 2), (2, 2)]))

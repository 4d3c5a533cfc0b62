"""Losses of absolute values: what the recordings of FlowNet2's code do not show."""

import pytest
import torch

import caffe

X = torch.tensor([[1.0, -2.0], [0.0, 4.0]])
Y = torch.tensor([[1.0, 1.0], [1.0, 1.0]])


@pytest.mark.parametrize("name", ["L1Loss", "AbsLoss"])
def test_without_parameters_any_axes_fit(layer_of, name):
    """(0 + 3 + 1 + 3) / 2, and a gradient of 0 where nothing differs."""
    layer = layer_of(f'type: "{name}"', X.shape, Y.shape)
    x = X.clone().requires_grad_()
    loss = layer.forward([x, Y], [])
    assert loss == 3.5
    loss.backward()
    assert x.grad.tolist() == [[0, -0.5], [-0.5, 0.5]]


def test_flownets_loss_needs_images(layer_of):
    with pytest.raises(caffe.CaffeError, match=r"expected one shape \(N, C, H, W\)"):
        layer_of('type: "L1Loss" l1_loss_param { }', X.shape, Y.shape)


def test_a_schedule_goes_by_the_solvers_iteration(layer_of):
    """With p = 1 and q = 1 the sum, from iteration 2 on with q = 2 its square."""
    text = 'type: "LpqLoss" lpq_loss_param { q_epsilon: 0 p: 1 q: 1 p: 1 q: 2 '
    text += "pq_episode_starts_at_iter: 0 pq_episode_starts_at_iter: 2 }"
    layer = layer_of(text, (1, 1, 1, 1))
    x, losses = torch.full((1, 1, 1, 1), 3.0), []
    for iteration in (0, 1, 2, 7):
        layer.at_iteration(iteration)
        losses.append(float(layer.forward([x], [])))
    assert losses == [3, 3, 9, 9]


def test_a_schedule_begins_at_0(layer_of):
    with pytest.raises(caffe.CaffeError, match="expected 0 first, then growing numbers"):
        layer_of(
            'type: "LpqLoss" lpq_loss_param { p: 1 q: 1 pq_episode_starts_at_iter: 5 }', (1,) * 4
        )

"""Forks' layers that draw random numbers: how these are distributed."""

import pytest
import torch
from cases import Case, make_layer

import caffe


def test_selu_dropout_keeps_mean_and_variance():
    case = Case("selu_dropout_param { dropout_ratio: 0.3 }", [(100_000,)])
    torch.manual_seed(1)
    x = torch.randn(100_000)
    y = make_layer("SeLuDropout", case).forward([x], [])
    assert y.mean().item() == pytest.approx(0, abs=0.02)
    assert y.std().item() == pytest.approx(1, abs=0.02)
    assert (y == y.mode().values).float().mean().item() == pytest.approx(0.3, abs=0.01)


def test_noise_is_a_share_of_the_bottoms_size():
    torch.manual_seed(1)
    x = 5 * torch.randn(100_000)
    layer = make_layer("Noise", Case("noise_param { gaussian_std: 0.1 bias: 2 }", [x.shape]))
    added = layer.forward([x], []) - x
    assert added.mean().item() == pytest.approx(2, abs=0.02)
    assert added.std().item() == pytest.approx(0.5, abs=0.01)


def test_noise_in_a_range():
    torch.manual_seed(1)
    layer = make_layer("Noise", Case("noise_param { uniform_range: 0.5 bias: 2 }", [(10_000,)]))
    added = layer.forward([torch.zeros(10_000)], [])
    assert 1.5 <= added.min().item() < 1.51
    assert 2.49 < added.max().item() <= 2.5


def test_scale_filter_scales_each_channel_of_each_sample():
    text = "scale_filter_param { min_scale: 0.5 max_scale: 2 }"
    layer = make_layer("ScaleFilter", Case(text, [(2, 3, 4, 4)]))
    y = layer.forward([torch.ones(2, 3, 4, 4)], [])
    scales = y[:, :, 0, 0]
    assert torch.equal(y, scales[:, :, None, None].expand_as(y))
    assert scales.unique().numel() == 6
    assert 0.5 <= scales.min().item() <= scales.max().item() <= 2


@pytest.mark.parametrize("name", ["Noise", "ScaleFilter", "SeLuDropout"])
def test_prediction_leaves_values_alone(name):
    text = "noise_param { gaussian_std: 1 } scale_filter_param { min_scale: 1 max_scale: 2 }"
    x = torch.randn(2, 3, 4, 4)
    layer = make_layer(name, Case(text, [x.shape], phase=caffe.TEST))
    assert torch.equal(layer.forward([x], []), x)

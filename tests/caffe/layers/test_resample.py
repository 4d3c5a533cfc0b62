"""Images in another size: what the recordings of FlowNet2's code do not show."""

import numpy as np
import pytest
import torch

import caffe


def test_area_is_refused_as_in_flownet2(layer_of):
    with pytest.raises(caffe.CaffeError, match="AREA is not implemented, as in FlowNet2"):
        layer_of('type: "Resample" resample_param { type: AREA height: 2 width: 2 }', (1, 1, 4, 4))


def test_where_more_than_half_of_the_weight_is_unknown_the_result_is(layer_of):
    """Five pixels become three: the middle one sees weights 1/2, 1, 1/2 of its row."""
    param = "downsample_param { top_height: 2 top_width: 3 }"
    layer = layer_of(f'type: "Downsample" {param}', (1, 1, 2, 5))
    x = torch.arange(10.0).reshape(1, 1, 2, 5)
    x[..., 0, 1] = torch.nan  # of weight 1/2 beside 3/2: the rest counts
    x[..., 1, 2] = torch.nan  # of weight 1 beside 1
    (top,) = layer.forward([x], [])
    # (2 + 3 / 2) / (3 / 2) in the first row
    np.testing.assert_allclose(top[0], [[0, 7 / 3, 11 / 3], [16 / 3, np.nan, 26 / 3]], rtol=1e-6)


def test_a_size_that_is_there_already_stays(layer_of):
    layer = layer_of('type: "Downsample"', (1, 1, 1, 3), (1, 1, 1, 3))
    x = torch.tensor([[[[1.0, torch.nan, 2.0]]]])
    np.testing.assert_array_equal(layer.forward([x, x], []), x)


def test_accum_takes_the_asked_size_only_if_both_are_larger(layer_of):
    layer = layer_of('type: "Accum" accum_param { top_height: 9 top_width: 4 }', (1, 1, 4, 4))
    assert layer.infer_shapes([(1, 1, 4, 4)]) == [(1, 1, 4, 4)]
    assert layer.infer_shapes([(1, 1, 4, 3)]) == [(1, 1, 9, 4)]

"""Layers that hand on, join, cut and rearrange blobs, where Caffe has ways of its own."""

import numpy as np
import pytest
import torch

FILTER = 'layer { name: "l" type: "Filter" bottom: "x" bottom: "s" top: "y" }'


def test_slice_keeps_an_empty_rest_and_cuts_evenly(layer_of):
    layer = layer_of('type: "Slice" slice_param { slice_point: 4 } top: "a" top: "b"', (1, 4))
    assert [t.shape[1] for t in layer.forward([torch.zeros(1, 4)], [])] == [4, 0]
    layer = layer_of('type: "Slice" slice_param { slice_dim: 0 } top: "a" top: "b"', (6,))
    assert [t.tolist() for t in layer.forward([torch.arange(6)], [])] == [[0, 1, 2], [3, 4, 5]]


def test_slice_warns_once_of_records_without_a_label(layer_of, capfd):
    """FuseNet's cut of colour, depth and label."""
    text = 'type: "Slice" slice_param { slice_point: 3 slice_point: 4 } top: "a" top: "b" top: "c"'
    layer = layer_of(text, (1, 4, 2))
    layer.infer_shapes([(1, 4, 2)])
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert "slice_point [3, 4] leaves nothing of axis 1 of the bottom (1, 4, 2)" in told
    assert "for the last top, 'c': it would take at least 5" in told
    layer_of(text, (1, 5, 2)).infer_shapes([(1, 5, 2)])
    assert not capfd.readouterr().err


@pytest.mark.parametrize(
    ("param", "bottom", "top"),
    [
        ("shape { dim: 0 dim: -1 }", (2, 3, 4), (2, 12)),
        ("shape { dim: 0 dim: 0 dim: 2 dim: 2 }", (2, 3, 4), (2, 3, 2, 2)),
        ("axis: 1 num_axes: 1 shape { dim: -1 dim: 1 }", (2, 3, 4), (2, 3, 1, 4)),
        ("axis: -1 num_axes: 0 shape { dim: 1 }", (2, 3), (2, 3, 1)),
        ("axis: 1 num_axes: -1 shape { }", (2, 1, 1), (2,)),
    ],
)
def test_reshape(layer_of, param, bottom, top):
    layer = layer_of(f'type: "Reshape" reshape_param {{ {param} }}', bottom)
    assert layer.infer_shapes([bottom]) == [top]


def test_flatten_between_axes_in_the_wrong_order_makes_an_axis_of_one(layer_of):
    layer = layer_of('type: "Flatten" flatten_param { axis: 2 end_axis: 1 }', (2, 3, 4))
    assert layer.infer_shapes([(2, 3, 4)]) == [(2, 3, 1, 4)]


def test_filter_passes_the_chosen_samples_and_their_gradients(net_of):
    net = net_of(
        'layer { name: "l" type: "Filter" bottom: "x" bottom: "s" top: "y" }', x=(4, 2), s=(4,)
    )
    assert net.blobs["y"].data.shape == (4, 2)  # before anything is known
    net.blobs["x"].data[...] = np.arange(8).reshape(4, 2)
    net.blobs["s"].data[...] = [0, 1, 0, -2]
    net.forward()
    assert net.blobs["y"].data.tolist() == [[2, 3], [6, 7]]
    net.blobs["y"].diff[...] = [[1, 2], [3, 4]]
    net.backward()
    assert net.blobs["x"].diff.tolist() == [[0, 0], [1, 2], [0, 0], [3, 4]]


def test_filter_may_choose_nothing(net_of):
    net = net_of(
        'layer { name: "l" type: "Filter" bottom: "x" bottom: "s" top: "y" }', x=(2, 3), s=(2,)
    )
    net.forward()
    assert net.blobs["y"].data.shape == (0, 3)
    net.blobs["x"].diff[...] = 5
    net.backward()
    assert not net.blobs["x"].diff.any()


def test_silence_gives_a_gradient_of_zero(net_of):
    net = net_of('layer { name: "l" type: "Silence" bottom: "x" }', x=(2,))
    net.forward()
    net.blobs["x"].diff[...] = 7
    net.backward()
    assert net.blobs["x"].diff.tolist() == [0, 0]
    assert net.outputs == []

"""Mean field inference where no recording shows it."""

import numpy as np
import pytest
import torch

import caffe
from caffe.kernels.permutohedral import Lattice


def test_the_lattice_is_nearly_a_gaussian():
    """The weights of two points fall with their distance."""
    torch.manual_seed(0)
    points = torch.rand(400, 2) * 6
    matrix = Lattice(points).filter(torch.eye(400, dtype=torch.float64))
    gauss = torch.exp(-torch.cdist(points, points).square() / 2).double()
    scale = (matrix * gauss).sum() / gauss.square().sum()
    error = (matrix / scale - gauss).abs()
    assert error.mean() < 0.02
    assert error.max() < 0.4


def test_features_that_do_not_fit_are_named(net_of):
    text = 'layer { name: "l" type: "MultiStageMeanfield" bottom: "u" bottom: "u" bottom: "i" '
    text += 'top: "y" multi_stage_meanfield_param { num_iterations: 2 theta_beta: %s } }'
    net = net_of(text % "1e-30", u=(1, 2, 3, 3), i=(1, 3, 3, 3))
    net.blobs["i"].data[...] = np.arange(27).reshape(1, 3, 3, 3)
    with pytest.raises(caffe.CaffeError, match=r"layer 'l' .*features of the lattice"):
        net.forward()


def test_weights_of_the_filters_may_be_a_text(layer_of):
    shapes = [(1, 2, 3, 3)] * 2 + [(1, 3, 3, 3)]
    text = 'type: "MultiStageMeanfield" multi_stage_meanfield_param {{ {} }}'
    given = 'num_iterations: 2 spatial_filter_weights_str: "3 4" bilateral_filter_weight: 5'
    layer = layer_of(text.format(given), *shapes)
    assert [layer.array(i)[0, 0].tolist() for i in range(3)] == [
        [[3, 0], [0, 4]],
        [[5, 0], [0, 5]],
        [[-1, 0], [0, -1]],
    ]
    with pytest.raises(caffe.CaffeError, match="needs 2 numbers"):
        layer_of(text.format('spatial_filter_weights_str: "3"'), *shapes)


def test_every_sample_has_its_own_inference(net_of):
    text = 'layer { name: "l" type: "DenseCRF" bottom: "u" bottom: "s" bottom: "i" top: "y" '
    text += "dense_crf_param { pos_w: 1 pos_xy_std: 2 bi_w: 3 bi_xy_std: 3 bi_rgb_std: 1 } }"
    rng = np.random.default_rng(4)
    values = {"u": rng.normal(size=(2, 2, 3, 4)), "i": rng.normal(size=(2, 3, 3, 4))}
    tops = []
    for part in (slice(0, 2), slice(0, 1), slice(1, 2)):
        given = {name: v[part] for name, v in values.items()}
        count = len(given["u"])
        net = net_of(text, s=(count, 2), **{name: v.shape for name, v in given.items()})
        for name, v in given.items():
            net.blobs[name].data[...] = v
        net.blobs["s"].data[...] = 99
        tops.append(net.forward()["y"].copy())
    np.testing.assert_allclose(tops[0], np.concatenate(tops[1:]), rtol=1e-5)


def test_ccnns_smooths_labels(net_of):
    """A pixel that is a little against its neighbours, on one colour, becomes as they are."""
    text = (
        'layer { name: "l" type: "DenseCRF" bottom: "u" bottom: "i" top: "y" densecrf_param { } }'
    )
    net = net_of(text, u=(1, 2, 5, 5), i=(1, 3, 5, 5))
    scores = np.zeros((2, 5, 5))
    scores[1] = 1
    scores[:, 2, 2] = 1, 0
    net.blobs["u"].data[...] = scores
    net.blobs["i"].data[...] = 100
    assert net.forward()["y"].shape == (1, 1, 5, 5)
    assert net.blobs["y"].data.all()

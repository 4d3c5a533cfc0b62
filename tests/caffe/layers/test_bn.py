"""BN: which of its kinds a layer is, and what the recordings do not show."""

import numpy as np
import pytest

import caffe
from caffe.formats.files import write_weights_hdf5

BN = 'layer {{ name: "l" type: "BN" bottom: "x" top: "y" bn_param {{ {} }} }}'


@pytest.mark.parametrize(
    ("text", "blobs"),
    [
        ("", 4),
        ("slope_filler { value: 1 } frozen: true", 4),
        ("scale_filler { value: 1 }", 2),
        ("bn_mode: INFERENCE", 2),
        ("scale_filler { value: 1 } moving_average: true", 4),
    ],
)
def test_the_parameters_tell_the_kind(net_of, text, blobs):
    net = net_of(BN.format(text), x=(2, 3, 2, 2))
    assert [b.shape for b in net.params["l"]] == [(1, 3, 1, 1)] * blobs


def test_two_blobs_in_the_net_are_segnets(net_of):
    blobs = "blobs { shape { dim: 1 } data: 2 } blobs { shape { dim: 1 } data: 3 }"
    text = f'layer {{ name: "l" type: "BN" bottom: "x" top: "y" {blobs} }}'
    net = net_of(text, x=(2, 1))
    net.blobs["x"].data[...] = [[1], [5]]
    net.forward()
    np.testing.assert_allclose(net.blobs["y"].data, [[1], [5]], rtol=1e-5)


def test_weights_of_fewer_axes_load(net_of, tmp_path):
    """yjxiong's blobs are (1, C), PSPNet's (1, C, 1, 1)."""
    net = net_of(BN.format("bn_mode: INFERENCE"), x=(1, 3, 2, 2))
    arrays = [np.array([[1.0, 2, 3]]), np.array([[4.0, 5, 6]])]
    write_weights_hdf5(tmp_path / "a.caffemodel.h5", {"l": arrays}, None)
    net.copy_from(tmp_path / "a.caffemodel.h5")
    assert net.params["l"][0].data.ravel().tolist() == [1, 2, 3]
    write_weights_hdf5(tmp_path / "b.caffemodel.h5", {"l": [np.ones((1, 4))] * 2}, None)
    with pytest.raises(caffe.CaffeError, match="shape mismatch"):
        net.copy_from(tmp_path / "b.caffemodel.h5")


def test_statistics_do_not_learn_and_frozen_layers_neither(net_of):
    rates = lambda text: [  # noqa: E731
        p.lr_mult for p in net_of(BN.format(text), x=(2, 3)).layers[1].layer_param.param
    ]
    assert rates("momentum: 0.9") == [1, 1, 0, 0]
    assert rates("frozen: true") == [0, 0, 0, 0]
    assert rates("bn_mode: LEARN") == []


def test_the_first_caffe_windows_takes_the_batch_unless_told(net_of):
    x = np.random.default_rng(0).normal(size=(4, 2, 3)) + 5
    tops = []
    for averaged in ("false", "true"):
        text = f"moving_average: {averaged} decay: 0.9 scale_filler {{ value: 1 }}"
        net = net_of(BN.format(text), caffe.TEST, x=x.shape)
        net.params["l"][3].data[...] = 1
        net.blobs["x"].data[...] = x
        tops.append(net.forward()["y"].copy())
    np.testing.assert_allclose(tops[0].mean((0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(tops[1], x, rtol=1e-5)


def test_only_segnets_has_more_tops(net_of):
    text = BN.format("momentum: 0.9").replace('top: "y"', 'top: "y" top: "mean"')
    with pytest.raises(caffe.CaffeError, match=r"layer 'l' .*further tops"):
        net_of(text, x=(2, 3))


def test_a_plan_gathers_the_statistics(net_of):
    nets = [net_of(BN.format("slope_filler { value: 1 }"), x=(4, 2, 3)) for _ in range(2)]
    nets[1].observed = False
    for net in nets:
        net.blobs["x"].data[...] = np.random.default_rng(3).normal(size=(4, 2, 3))
        net.forward()
    np.testing.assert_allclose(nets[1].params["l"][2].data, nets[0].params["l"][2].data, rtol=1e-5)

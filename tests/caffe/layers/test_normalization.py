"""Normalising layers where Caffe has its own way."""

import numpy as np
import pytest
import torch

import caffe


def test_batch_norm_gathers_sums_and_an_unbiased_variance(net_of):
    net = net_of(
        'layer { name: "l" type: "BatchNorm" bottom: "x" top: "y" '
        "batch_norm_param { moving_average_fraction: 0.5 eps: 0 } }",
        x=(4, 1),
    )
    mean, variance, factor = (b.data for b in net.params["l"])
    net.blobs["x"].data[...] = [[1], [3], [1], [3]]
    net.forward()
    np.testing.assert_allclose(net.blobs["y"].data, [[-1], [1], [-1], [1]], rtol=1e-6)
    # mean 2; variance 1, times m / (m - 1) = 4 / 3 in the statistics alone
    np.testing.assert_allclose([mean[0], variance[0], factor[0]], [2, 4 / 3, 1], rtol=1e-6)
    net.forward()
    np.testing.assert_allclose([mean[0], variance[0], factor[0]], [3, 2, 1.5], rtol=1e-6)


def test_batch_norm_uses_the_phase_unless_told(layer_of):
    for fixed, phase, expected in (
        ("", caffe.TRAIN, False),
        ("", caffe.TEST, True),
        ("use_global_stats: false", caffe.TEST, False),
        ("use_global_stats: true", caffe.TRAIN, True),
    ):
        layer = layer_of(
            f'type: "BatchNorm" batch_norm_param {{ eps: 0 {fixed} }}', (2, 1), phase=phase
        )
        blobs = [torch.tensor([v]) for v in (6.0, 8.0, 2.0)]  # mean 3, variance 4
        top = layer.forward([torch.tensor([[5.0], [9.0]])], blobs)
        expected_top = [[1.0], [3.0]] if expected else [[-1.0], [1.0]]
        torch.testing.assert_close(top, torch.tensor(expected_top))


def test_batch_norm_without_statistics_divides_by_eps_alone(layer_of):
    layer = layer_of('type: "BatchNorm"', (1, 1), phase=caffe.TEST)
    top = layer.forward([torch.ones(1, 1)], [torch.zeros(1)] * 3)
    assert float(top) == pytest.approx(1 / np.sqrt(1e-5))  # 316


@pytest.mark.parametrize("shape", [(1, 3), (3,), (1, 2, 1, 1)])
def test_batch_norm_of_one_value_a_channel_is_zero(net_of, shape):
    net = net_of('layer { name: "l" type: "BatchNorm" bottom: "x" top: "y" }', x=shape)
    net.blobs["x"].data[...] = 5
    net.forward()
    mean, variance, factor = (b.data for b in net.params["l"])
    if shape != (3,):  # three values of one channel there
        assert not net.blobs["y"].data.any()
    assert set(mean) == {5}
    assert set(variance) == {0}
    assert factor == 1


def test_batch_norm_statistics_cannot_learn(layer_of):
    text = 'type: "BatchNorm" param { lr_mult: 0 } param { lr_mult: 1 }'
    with pytest.raises(caffe.CaffeError, match=r"layer 'l' .*param 1 has 1"):
        layer_of(text, (2, 3))


def test_mvn_makes_four_axes_and_adds_eps_to_the_deviation(layer_of):
    layer = layer_of('type: "MVN" mvn_param { across_channels: true eps: 1 }', (1, 4))
    top = layer.forward([torch.tensor([[0.0, 2, 0, 2]])], [])
    assert top.shape == (1, 4, 1, 1)
    torch.testing.assert_close(top.ravel(), torch.tensor([-1.0, 1, -1, 1]) / (1 + 1))


def test_mvn_of_equal_values_has_a_finite_gradient(layer_of):
    layer = layer_of('type: "MVN"', (1, 1, 2, 2))
    x = torch.full((1, 1, 2, 2), 3.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer.forward([x], [])[0, 0, 0, 0], x)
    # (g - mean g) / eps
    np.testing.assert_allclose(gradient.ravel(), np.array([0.75, -0.25, -0.25, -0.25]) / 1e-9)


def test_lrn_across_divides_alpha_by_the_size_and_within_by_its_square(layer_of):
    x = torch.ones(1, 1, 1, 1) * 3
    setting = "local_size: 3 alpha: 2 beta: 1 k: 5"
    across = layer_of(f'type: "LRN" lrn_param {{ {setting} }}', (1, 1, 1, 1))
    assert float(across.forward([x], [])) == pytest.approx(3 / (5 + 2 / 3 * 9))
    within = layer_of(
        f'type: "LRN" lrn_param {{ {setting} norm_region: WITHIN_CHANNEL }}', (1, 1, 1, 1)
    )
    assert float(within.forward([x], [])) == pytest.approx(3 / (1 + 2 / 9 * 9))  # k ignored


@pytest.mark.parametrize(
    ("param", "shapes", "blobs"),
    [
        ("axis: 1", [(2, 3, 4)], [(3,)]),
        ("axis: -2 num_axes: -1", [(2, 3, 4)], [(3, 4)]),
        ("num_axes: 0", [(2, 3, 4)], [()]),
        ("axis: 0 num_axes: 2 bias_term: true", [(2, 3, 4)], [(2, 3), (2, 3)]),
        ("axis: 1 bias_term: true", [(2, 3, 4), (3, 4)], [(3, 4)]),
        ("axis: 2", [(2, 3, 4), ()], []),
    ],
)
def test_scale_takes_its_shape_from_the_axes(layer_of, param, shapes, blobs):
    layer = layer_of(f'type: "Scale" scale_param {{ {param} }}', *shapes)
    assert [b.shape for b in layer.blobs] == blobs


def test_scale_starts_as_the_identity_and_bias_as_nothing(net_of):
    net = net_of(
        'layer { name: "s" type: "Scale" bottom: "x" top: "x" scale_param { bias_term: true } }'
        'layer { name: "b" type: "Bias" bottom: "x" top: "y" }',
        x=(2, 3),
    )
    net.blobs["x"].data[...] = [[1, 2, 3], [4, 5, 6]]
    net.forward()
    assert net.blobs["y"].data.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_a_bias_in_place_of_the_bottoms_whole_shape_gets_the_tops_gradient(net_of):
    net = net_of(
        'layer { name: "p" type: "Power" bottom: "x" top: "h" }'
        'layer { name: "l" type: "Scale" bottom: "h" bottom: "s" top: "h" '
        "scale_param { axis: 0 bias_term: true } }",
        x=(2,),
        s=(2,),
    )
    net.blobs["s"].data[...] = [3, 5]
    net.forward()
    net.blobs["h"].diff[...] = [1, 10]
    net.backward()
    assert net.params["l"][0].diff.tolist() == [1, 10]
    assert net.blobs["x"].diff.tolist() == [3, 50]


@pytest.mark.parametrize(
    ("text", "shapes", "cause"),
    [
        ('type: "Scale" scale_param { axis: 1 num_axes: 2 }', [(2, 3)], "reach beyond"),
        ('type: "Scale" scale_param { num_axes: -2 }', [(2, 3)], "num_axes is -2"),
        ('type: "Bias"', [(2, 3), (2,)], "does not fit"),
        ('type: "Bias"', [(2, 3), (3, 1)], "does not fit"),
        ('type: "LRN" lrn_param { local_size: 4 }', [(1, 1, 1, 1)], "expected an odd number"),
        ('type: "LRN"', [(1, 1, 1)], "expected 4 axes"),
        ('type: "LRN"', [(1, 1, 0, 2)], "its samples have no values"),
        ('type: "BatchNorm"', [()], "bottom has no axes"),
        ('type: "MVN"', [(1, 1, 1, 1, 1)], "at most 4 axes"),
    ],
)
def test_what_does_not_fit_is_refused(layer_of, text, shapes, cause):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer_of(text, *shapes)


@pytest.mark.parametrize(
    ("text", "shapes", "later", "cause"),
    [
        ('type: "BatchNorm"', [(2, 3)], [(2, 4)], "4 channels on axis 1, expected 3"),
        ('type: "BatchNorm"', [(2, 3)], [(3,)], "1 channels on axis 1, expected 3"),
        ('type: "Scale"', [(2, 3)], [(2, 4)], "does not fit"),
        ('type: "Scale" scale_param { bias_term: true }', [(2, 3), (3,)], [(2, 4), (4,)], "fit"),
    ],
)
def test_bottoms_that_no_longer_fit_the_parameters_are_refused(
    layer_of, text, shapes, later, cause
):
    layer = layer_of(text, *shapes)
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer.infer_shapes(later)
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer.forward([torch.zeros(shape) for shape in later], [b.tensor() for b in layer.blobs])


def test_a_single_value_may_be_added_to_a_single_value(layer_of):
    layer = layer_of('type: "Bias"', (), ())
    assert layer.forward([torch.tensor(1.0), torch.tensor(2.0)], []) == 3


NVCAFFE = (
    'layer { name: "l" type: "BatchNorm" bottom: "x" top: "y" batch_norm_param { '
    "moving_average_fraction: 0.5 scale_bias: true } }"
)


def test_batch_norm_of_nvcaffe_keeps_averages_and_learns_gain_and_offset(net_of):
    net = net_of(NVCAFFE, x=(4, 1))
    mean, variance, factor, gain, offset = (b.data for b in net.params["l"])
    assert (gain[0], offset[0]) == (1, 0)
    gain[...], offset[...] = 2, 3
    net.blobs["x"].data[...] = [[1], [3], [1], [3]]
    net.forward()
    # eps is at least 1e-5
    np.testing.assert_allclose(net.blobs["y"].data, [[1], [5], [1], [5]], rtol=1e-4)
    np.testing.assert_allclose([mean[0], variance[0], factor[0]], [2, 4 / 3, 1], rtol=1e-6)
    net.blobs["x"].data[...] += 2  # mean 4; half of the old one stays
    net.forward()
    np.testing.assert_allclose([mean[0], variance[0], factor[0]], [3, 4 / 3, 1], rtol=1e-6)
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert net.params["l"][4].diff[0] == 4
    assert [p.lr_mult for p in net.layers[1].layer_param.param] == [0, 0, 0, 1, 1]


def test_five_blobs_of_nvcaffe_load(net_of, tmp_path):
    net = net_of(NVCAFFE, x=(2, 3))
    for i, blob in enumerate(net.params["l"]):
        blob.data[...] = i + 1
    net.save(tmp_path / "a.caffemodel")
    test = net_of(NVCAFFE, caffe.TEST, x=(2, 3))
    test.copy_from(tmp_path / "a.caffemodel")
    test.blobs["x"].data[...] = 7
    test.forward()
    # mean 1/3, variance 2/3, gain 4, offset 5
    expected = (7 - 1 / 3) / np.sqrt(2 / 3 + 1e-5) * 4 + 5
    np.testing.assert_allclose(test.blobs["y"].data, expected, rtol=1e-5)


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_a_plan_keeps_the_gain_of_nvcaffe(net_of, phase):
    conv = 'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { '
    conv += 'num_output: 2 kernel_size: 3 weight_filler { type: "xavier" } } }'
    layer = NVCAFFE.replace('bottom: "x"', 'bottom: "c"')
    scale = 'layer { name: "s" type: "Scale" bottom: "y" top: "z" scale_param { bias_term: true } }'
    nets = [net_of(conv + layer + scale, phase, x=(2, 3, 6, 5)) for _ in range(2)]
    rng = np.random.default_rng(1)
    for name, blobs in nets[0].params.items():
        for i, blob in enumerate(blobs):
            blob.data[...] = rng.uniform(0.5, 1.5, blob.shape)
            nets[1].params[name][i].data[...] = blob.data
    nets[1].observed = False
    x = rng.normal(size=(2, 3, 6, 5))
    for net in nets:
        net.blobs["x"].data[...] = x
        net.forward()
    np.testing.assert_allclose(nets[1].blobs["z"].data, nets[0].blobs["z"].data, atol=1e-5)


def test_a_learned_scale_has_no_limits_of_another_bottom(layer_of):
    with pytest.raises(caffe.CaffeError, match="for a learned scale"):
        layer_of('type: "Scale" scale_param { min_value: 0 }', (2, 3), (2, 3))

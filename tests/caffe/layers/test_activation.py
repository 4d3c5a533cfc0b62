"""Activations where Caffe has its own way."""

import numpy as np
import pytest
import torch

import caffe


def run(net, x, diff=None):
    net.blobs["x"].data[...] = x
    net.forward()
    if diff is not None:
        net.blobs["y"].diff[...] = diff
        net.backward()
    return net.blobs["y"].data.copy(), net.blobs["x"].diff.copy()


def neuron(net_of, kind, param="", shape=(3,), phase=caffe.TRAIN):
    text = f'layer {{ name: "l" type: "{kind}" bottom: "x" top: "y" {param} }}'
    return net_of(text, phase, x=shape)


@pytest.mark.parametrize(
    ("kind", "param", "x", "y", "slope"),
    [
        # x = 0 lies on the kink: Caffe's side of it.
        ("ReLU", "relu_param { negative_slope: 0.5 }", 0, 0, 0.5),
        ("ELU", "elu_param { alpha: 2 }", 0, 0, 2),
        ("AbsVal", "", 0, 0, 0),
        ("Clip", "clip_param { min: -1 max: 1 }", 1, 1, 1),
        ("Clip", "clip_param { min: -1 max: 1 }", -1, -1, 1),
        ("Clip", "clip_param { min: 2 max: 1 }", 5, 2, 0),  # min wins
        ("BNLL", "", 100, 100, 1),
        ("BNLL", "", -100, 0, 0),
        ("Exp", "exp_param { base: 2 scale: 3 shift: 1 }", 1, 16, 16 * 3 * np.log(2)),
        ("Log", "log_param { base: 10 scale: 9 shift: 1 }", 11, 2, 9 / (100 * np.log(10))),
        ("Power", "power_param { power: 0 }", 0, 1, 0),
        ("Power", "power_param { power: 2 scale: 0 shift: 3 }", np.nan, 9, 0),
        ("Power", "power_param { power: -1 scale: 0 }", 7, np.inf, 0),
        ("Power", "power_param { power: 300 scale: 0 shift: 30 }", 7, np.inf, 0),
        ("Power", "power_param { power: 0.5 scale: 0 shift: -1 }", 7, np.nan, 0),
    ],
)
def test_values_and_slopes_at_the_edges(net_of, kind, param, x, y, slope):
    top, gradient = run(neuron(net_of, kind, param, (1,)), x, diff=1)
    np.testing.assert_allclose(top, [y], rtol=1e-6, atol=1e-40)
    np.testing.assert_allclose(gradient, [slope], rtol=1e-6, atol=1e-40)


def test_prelu_starts_at_a_quarter_and_learns_a_slope_a_channel(net_of):
    net = neuron(net_of, "PReLU", shape=(2, 2, 1))
    (slopes,) = net.params["l"]
    assert slopes.data.tolist() == [0.25, 0.25]
    top, gradient = run(net, [[[-4], [2]], [[-8], [-1]]], diff=[[[1], [1]], [[1], [3]]])
    assert top.ravel().tolist() == [-1, 2, -2, -0.25]
    assert gradient.ravel().tolist() == [0.25, 1, 0.25, 0.75]
    assert slopes.diff.tolist() == [-4 - 8, -1 * 3]


def test_prelu_shares_one_slope(net_of):
    net = neuron(net_of, "PReLU", "prelu_param { channel_shared: true }", (1, 2))
    (slope,) = net.params["l"]
    assert slope.data.shape == ()
    run(net, [[-4, -2]], diff=[[1, 1]])
    assert slope.diff == -6


def test_threshold_is_strict_and_has_no_gradient(net_of):
    net = neuron(net_of, "Threshold", "threshold_param { threshold: 1 }")
    assert run(net, [1, 2, 0])[0].tolist() == [0, 1, 0]
    blocked = net_of(
        'layer { name: "ip" type: "InnerProduct" bottom: "x" top: "h" '
        "inner_product_param { num_output: 1 } }"
        'layer { name: "t" type: "Threshold" bottom: "h" top: "y" }'
        'layer { name: "r" type: "Reduction" bottom: "y" top: "l" loss_weight: 1 }',
        x=(2, 2),
    )
    blocked.forward()
    with pytest.raises(caffe.CaffeError, match=r"layer 't' \(Threshold\): has no gradient"):
        blocked.backward()


def test_dropout_scales_what_it_keeps_and_only_in_train(net_of):
    param, ones = "dropout_param { dropout_ratio: 0.75 }", np.ones(20000, np.float32)
    top, gradient = run(neuron(net_of, "Dropout", param, (20000,)), ones, diff=ones)
    assert set(top) == {0, 4}
    np.testing.assert_array_equal(top, gradient)
    # standard deviation of the share kept: sqrt(0.25 * 0.75 / 20000) = 0.003
    assert abs((top > 0).mean() - 0.25) < 0.015
    top, _ = run(neuron(net_of, "Dropout", param, (20000,), caffe.TEST), ones)
    np.testing.assert_array_equal(top, ones)


def dropped(net_of, ratio, shape, seed):
    """Dropout of ones: 0 where a value is dropped, else the factor. The gradient is the same."""
    net = neuron(net_of, "Dropout", f"dropout_param {{ dropout_ratio: {ratio} }}", shape)
    caffe.set_random_seed(seed)
    top, gradient = run(net, np.ones(shape), diff=np.ones(shape))
    np.testing.assert_array_equal(top, gradient)
    return top


@pytest.mark.parametrize("ratio", [1 / 256, 0.25, 0.5, 255 / 256, 0.3, 0])
def test_dropout_drops_its_share(net_of, ratio):
    """Multiples of 1/256 are drawn from bytes, others by PyTorch: both are fair."""
    count = 2**20
    top = dropped(net_of, ratio, (count,), seed=3)
    np.testing.assert_allclose(np.unique(top[top > 0]), [1 / (1 - ratio)], rtol=1e-6)
    deviation = np.sqrt(ratio * (1 - ratio) / count)
    assert abs((top == 0).mean() - ratio) <= 4.5 * deviation


def test_dropout_is_drawn_for_each_value_by_itself(net_of):
    """Neighbours, values eight apart (one draw makes eight) and passes have nothing in common."""
    first, second = (dropped(net_of, 0.5, (2**20,), seed) > 0 for seed in (3, 4))
    deviation = 0.5 / 2**10
    for step in (1, 2, 7, 8, 64):
        assert abs((first[step:] == first[:-step]).mean() - 0.5) < 4.5 * deviation, step
    assert abs((first == second).mean() - 0.5) < 4.5 * deviation
    for place in range(8):
        assert abs(first[place::8].mean() - 0.5) < 4.5 * deviation * np.sqrt(8), place


@pytest.mark.parametrize("ratio", [0.5, 0.3])
def test_dropout_repeats_with_its_seed_alone(net_of, ratio):
    masks = [dropped(net_of, ratio, (5, 7, 3, 3), seed) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(masks[0], masks[1])
    assert (masks[0] != masks[2]).any()
    net = neuron(net_of, "Dropout", f"dropout_param {{ dropout_ratio: {ratio} }}", (1000,))
    passes = [run(net, np.ones(1000))[0] for _ in range(2)]
    assert (passes[0] != passes[1]).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (2, 1, 5, 7), (1, 8, 1, 1), (3, 5), ()])
def test_dropout_in_any_layout(layer_of, shape, dtype):
    """The gradient is what the values were multiplied by, place by place."""
    layer = layer_of('type: "Dropout"', shape)
    x = torch.rand(shape, dtype=dtype) + 1
    layouts = [x, x.new_ones(()).expand(shape)]
    if shape:
        layouts.append(torch.stack([x, x], -1)[..., 0])  # a part of something larger
    if len(shape) == 4:
        layouts += [x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT]
    for values in layouts:
        values = values.detach().requires_grad_()
        y = layer.forward([values], [])
        (gradient,) = torch.autograd.grad(y.sum(), values)
        assert (y.shape, y.dtype) == (x.shape, dtype)
        assert set(gradient.flatten().tolist()) <= {0, 2}
        assert torch.equal(y.detach(), values.detach() * gradient)


def test_in_place_gradients_are_those_of_two_blobs(net_of):
    text = (
        'layer {{ name: "p" type: "Power" bottom: "x" top: "h" power_param {{ shift: 2 }} }}'
        'layer {{ name: "l" type: "Log" bottom: "h" top: "{top}" }}'
        'layer {{ name: "r" type: "Reduction" bottom: "{top}" top: "y" loss_weight: 1 }}'
    )
    gradients = []
    for top in ("h", "other"):
        net = net_of(text.format(top=top), x=(3,))
        gradients.append(run(net, [0, 1, 2])[1])
        net.backward()
        gradients[-1] = net.blobs["x"].diff.copy()
    np.testing.assert_allclose(gradients[0], [1 / 2, 1 / 3, 1 / 4], rtol=1e-6)
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ('type: "AbsVal" bottom: "x" top: "x"', "cannot work in place"),
        ('type: "PReLU"', "at least 2 axes"),
        ('type: "Exp" exp_param { base: 0 }', "base is 0, expected a positive number"),
        ('type: "Log" log_param { base: 1 }', "base is 1"),
        ('type: "Dropout" dropout_param { dropout_ratio: 1 }', "expected 0 <= ratio < 1"),
    ],
)
def test_what_cannot_be_is_refused(layer_of, text, cause):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l'.*{cause}"):
        layer_of(text, (3,))


def test_dropout_as_forks_have_it(net_of):
    """scale_train, sample_weights_test and sqrt_scale."""
    ones = np.ones(2000)
    for text, phase, values in (
        ("scale_train: false", caffe.TRAIN, {0, 1}),
        ("sqrt_scale: true", caffe.TRAIN, {0, 2}),
        ("sqrt_scale: true", caffe.TEST, {1}),
        ("sample_weights_test: true", caffe.TEST, {0, 4}),
        ("scale_train: false", caffe.TEST, {0.25}),
    ):
        param = f"dropout_param {{ dropout_ratio: 0.75 {text} }}"
        top, _ = run(neuron(net_of, "Dropout", param, (2000,), phase), ones)
        assert set(np.unique(top)) == values, text
        if len(values) == 2:
            assert 0.2 < (top > 0).mean() < 0.3


def test_elu_of_nvcaffe(net_of):
    """lambda multiplies; below 0 the gradient is lambda (alpha + top)."""
    param = "elu_param { alpha: 2 lambda: 3 }"
    x = np.array([1.0, -1.0])
    top, gradient = run(neuron(net_of, "ELU", param, (2,)), x, diff=np.ones(2))
    low = 6 * (np.exp(-1) - 1)
    np.testing.assert_allclose(top, [3, low], rtol=1e-6)
    np.testing.assert_allclose(gradient, [3, 3 * (2 + low)], rtol=1e-6)


def test_mish_and_brelu_by_hand(net_of):
    """Mish(1) = tanh(log(1 + e)) = 0.8650984."""
    x = np.array([[1, 0, -2, 3]], np.float32)
    mish = net_of('layer { name: "l" type: "Mish" bottom: "x" top: "y" }', x=x.shape)
    mish.blobs["x"].data[...] = x
    np.testing.assert_allclose(
        mish.forward()["y"], [[0.8650984, 0, -0.2525015, 2.9865350]], rtol=1e-5
    )
    brelu = net_of('layer { name: "l" type: "BReLU" bottom: "x" top: "y" }', x=x.shape)
    brelu.blobs["x"].data[...] = x
    np.testing.assert_array_equal(brelu.forward()["y"], [[1, 0, 0, 1]])

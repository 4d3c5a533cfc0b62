"""RNN and LSTM: parameters, state from batch to batch, exposed states."""

import numpy as np
import pytest
import torch

import caffe


def recurrent(net_of, kind, param="", extra=(), tops='top: "y"', phase=caffe.TRAIN, **shapes):
    bottoms = " ".join(f'bottom: "{name}"' for name in ("x", "cont", *extra))
    fillers = 'weight_filler { type: "uniform" min: -1 } bias_filler { type: "uniform" min: -1 }'
    return net_of(
        f'layer {{ name: "r" type: "{kind}" {bottoms} {tops} '
        f"recurrent_param {{ num_output: 2 {fillers} {param} }} }}",
        phase,
        **shapes,
    )


@pytest.mark.parametrize(
    ("kind", "static", "blobs"),
    [
        ("LSTM", None, [(8, 3), (8,), (8, 2)]),
        ("LSTM", (4, 5), [(8, 3), (8,), (8, 5), (8, 2)]),
        ("RNN", None, [(2, 3), (2,), (2, 2), (2, 2), (2,)]),
        ("RNN", (4, 5, 2), [(2, 3), (2,), (2, 10), (2, 2), (2, 2), (2,)]),
    ],
)
def test_blobs_are_those_of_the_unrolled_net(net_of, kind, static, blobs):
    shapes = {"x": (6, 4, 3), "cont": (6, 4)}
    if static:
        shapes["s"] = static
    net = recurrent(net_of, kind, extra=tuple(shapes)[2:], **shapes)
    assert [b.data.shape for b in net.params["r"]] == blobs
    assert net.blobs["y"].data.shape == (6, 4, 2)


def feed(net, x, cont):
    net.blobs["x"].data[...] = x
    net.blobs["cont"].data[...] = cont
    net.forward()
    return net.blobs["y"].data.copy()


@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
def test_the_state_goes_on_in_the_next_batch(net_of, kind):
    x = np.random.default_rng(0).standard_normal((6, 1, 3)).astype(np.float32)
    whole = recurrent(net_of, kind, x=(6, 1, 3), cont=(6, 1))
    parts = recurrent(net_of, kind, x=(3, 1, 3), cont=(3, 1))
    for mine, other in zip(parts.params["r"], whole.params["r"], strict=True):
        mine.data[...] = other.data
    cont = np.array([0, 1, 1, 1, 1, 1], np.float32)[:, None]
    expected = feed(whole, x, cont)
    first, second = (feed(parts, x[i : i + 3], cont[i : i + 3]) for i in (0, 3))
    np.testing.assert_allclose(np.concatenate([first, second]), expected, rtol=1e-5, atol=1e-6)
    # An indicator of 0 begins anew, whatever came before.
    np.testing.assert_allclose(feed(parts, x[:3], cont[:3]), first, rtol=1e-5, atol=1e-6)


def test_looking_for_gradients_later_does_not_advance_the_state(net_of):
    x = np.random.default_rng(1).standard_normal((2, 1, 3)).astype(np.float32)
    nets = [
        caffe.Net(recurrent(net_of, "LSTM", x=(2, 1, 3), cont=(2, 1)).to_proto(), phase=caffe.TEST)
        for _ in range(2)
    ]
    for mine, other in zip(*(net.params["r"] for net in nets), strict=True):
        mine.data[...] = other.data
    for net in nets:
        feed(net, x, np.ones((2, 1)))
    nets[0].blobs["y"].diff[...] = 1
    nets[0].backward()
    np.testing.assert_array_equal(*(feed(net, x, np.ones((2, 1))) for net in nets))


def test_exposed_states_come_in_and_go_out(net_of):
    shapes = {"x": (2, 1, 3), "cont": (2, 1), "h": (1, 1, 2), "c": (1, 1, 2)}
    tops = 'top: "y" top: "hT" top: "cT"'
    net = recurrent(net_of, "LSTM", "expose_hidden: true", ("h", "c"), tops, **shapes)
    rng = np.random.default_rng(2)
    for name, shape in shapes.items():
        net.blobs[name].data[...] = rng.standard_normal(shape) if name != "cont" else 1
    net.forward()
    np.testing.assert_array_equal(net.blobs["hT"].data[0], net.blobs["y"].data[-1])
    before = net.blobs["y"].data.copy()
    net.forward()  # nothing is kept
    np.testing.assert_array_equal(net.blobs["y"].data, before)
    net.blobs["h"].data[...] += 1
    net.forward()
    assert not np.array_equal(net.blobs["y"].data, before)
    # Caffe carries no gradient across the exposed states.
    net.blobs["y"].diff[...] = 0
    net.blobs["cT"].diff[...] = 1
    net.backward()
    assert not any(net.blobs[name].diff.any() for name in ("x", "h", "c"))


def test_unit_follows_its_equations(layer_of):
    layer = layer_of('type: "LSTMUnit" top: "c" top: "h"', (1, 1, 1), (1, 1, 4), (1, 1))
    gates = torch.tensor([[[0.5, -1.0, 2.0, 0.3]]])
    i, f, o, g = 1 / (1 + np.exp([-0.5, 1, -2, 0])) * [1, 1, 1, 0] + [0, 0, 0, np.tanh(0.3)]
    for cont in (1.0, 0.0):
        state, hidden = layer.forward(
            [torch.full((1, 1, 1), 2.0), gates, torch.tensor([[cont]])], []
        )
        expected = cont * f * 2 + i * g
        assert float(state) == pytest.approx(expected)
        assert float(hidden) == pytest.approx(o * np.tanh(expected))


def test_units_gradient_takes_a_share_of_the_indicator_for_the_gate(layer_of):
    layer = layer_of('type: "LSTMUnit" top: "c" top: "h"', (1, 1, 1), (1, 1, 4), (1, 1))
    gates = torch.zeros(1, 1, 4, requires_grad=True)
    state, _ = layer.forward([torch.full((1, 1, 1), 2.0), gates, torch.tensor([[0.5]])], [])
    (gradient,) = torch.autograd.grad(state.sum(), gates)
    # f = 0.5 sigmoid(0) = 0.25; Caffe: c f (1 - f), not c 0.5 sigmoid (1 - sigmoid) = 0.25
    assert float(gradient[0, 0, 1]) == pytest.approx(2 * 0.25 * 0.75)


@pytest.mark.parametrize(
    ("text", "shapes", "cause"),
    [
        ('type: "LSTM"', [(2, 1, 3), (2, 1)], "num_output must be positive"),
        ('type: "LSTM" recurrent_param { num_output: 1 }', [(2, 1), (2, 1)], "expected .steps"),
        ('type: "RNN" recurrent_param { num_output: 1 }', [(0, 1, 3), (0, 1)], "at least one step"),
        ('type: "RNN" recurrent_param { num_output: 1 }', [(2, 1, 3), (2, 2)], "indicators"),
        ('type: "RNN" recurrent_param { num_output: 1 }', [(2, 1, 3), (2, 1), (2, 4)], "static"),
        (
            'type: "RNN" recurrent_param { num_output: 1 expose_hidden: true } top: ["a", "b"]',
            [(2, 1, 3), (2, 1), (1, 1, 2)],
            "initial state .bottom 2.",
        ),
        (
            'type: "RNN" recurrent_param { num_output: 1 expose_hidden: true }',
            [(2, 1, 3), (2, 1)],
            "at least 3",
        ),
        ('type: "LSTMUnit" top: ["a", "b"]', [(1, 1, 2), (1, 1, 4), (1, 1)], "expected .1, N, D."),
    ],
)
def test_what_does_not_fit_is_refused(layer_of, text, shapes, cause):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer_of(text, *shapes)


def test_the_number_of_steps_stays(net_of):
    net = recurrent(net_of, "LSTM", x=(3, 1, 2), cont=(3, 1))
    net.blobs["x"].reshape(4, 1, 2)
    net.blobs["cont"].reshape(4, 1)
    with pytest.raises(caffe.CaffeError, match="expected 3 steps as at the start"):
        net.forward()


def test_the_number_of_values_stays(net_of):
    net = recurrent(net_of, "RNN", extra=("s",), x=(3, 1, 2), cont=(3, 1), s=(1, 4))
    for name, shape, expected in (("x", (3, 1, 5), 2), ("s", (1, 5), 4)):
        before = net.blobs[name].shape
        net.blobs[name].reshape(*shape)
        with pytest.raises(caffe.CaffeError, match=f"expected {expected} values a stream"):
            net.forward()
        net.blobs[name].reshape(*before)
    net.forward()


@pytest.mark.parametrize(
    ("kind", "rows", "outputs"), [("LSTM", 8, 0), ("RNN", 2, 2 * 2)], ids=["LSTM", "RNN"]
)
def test_multiply_adds(net_of, kind, rows, outputs):
    shapes = {"x": (6, 4, 3), "cont": (6, 4), "s": (4, 5)}
    layer = recurrent(net_of, kind, extra=("s",), **shapes).layers[-1]
    steps = 6 * 4 * (rows * 3 + rows * 2 + outputs)
    assert layer.macs(list(shapes.values())) == steps + 4 * rows * 5  # the static input once

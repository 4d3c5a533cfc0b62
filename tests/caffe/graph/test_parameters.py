"""Parameters that several layers share by name."""

from __future__ import annotations

import numpy as np
import pytest
from nets import INPUT, ip, shared

import caffe

pytestmark = pytest.mark.usefixtures("fresh")


def test_one_name_is_one_parameter(make_net) -> None:
    net = make_net(shared("", ""))
    a, b = net.params["a"][0], net.params["b"][0]
    a.data[...] = np.eye(3)
    assert np.array_equal(b.data, np.eye(3))
    b.data[0, 0] = 4
    assert a.data[0, 0] == 4
    assert [(p.layer.name, p.index) for p in net.learnable] == [("a", 0), ("a", 1), ("b", 1)]
    net.blobs["x"].data[...] = 1
    net.forward()
    net.backward()
    # loss = sum (w w x)^2 with both w's gradients in one place; by central differences
    analytic, step = float(a.diff[0, 0]), 1e-3
    losses = []
    for sign in (1, -1):
        a.data[0, 0] = 4 + sign * step
        losses.append(net._forward(0, len(net.layers) - 1))
    assert analytic == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=1e-2)


def test_strict_sharing_wants_equal_shapes(make_net) -> None:
    with pytest.raises(caffe.CaffeError, match=r"layer 'b': cannot share param 'w' of layer 'a'"):
        make_net(shared("", "", outputs=1))


def test_permissive_sharing_wants_equal_counts(make_net) -> None:
    shape = 'layer { name: "r" type: "Reshape" bottom: "a" top: "r" '
    shape += "reshape_param { shape { dim: 1 dim: 6 } } }"
    text = INPUT + ip("a", "x", outputs=3, more='param { name: "w" }') + shape
    wide = ip("b", "r", outputs=1, more='param { name: "w" share_mode: PERMISSIVE }')
    with pytest.raises(caffe.CaffeError, match=r"its shape is 3 3 \(9\), this layer's 1 6 \(6\)"):
        make_net(text + wide)
    text = INPUT.replace("dim: 2 dim: 3", "dim: 3 dim: 2") + ip(
        "a", "x", outputs=3, more='param { name: "w" }'
    )
    net = make_net(text + shape.replace("dim: 1 dim: 6", "dim: 3 dim: 3") + ip(
        "b", "r", outputs=2, more='param { name: "w" share_mode: PERMISSIVE }'))  # fmt: skip
    net.params["a"][0].data[...] = np.arange(6).reshape(3, 2)
    assert net.params["b"][0].data.tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("field", ["lr_mult", "decay_mult"])
def test_sharers_may_not_differ_in_multipliers(make_net, field: str) -> None:
    with pytest.raises(caffe.CaffeError, match=f"shared param 'w' has another {field}"):
        make_net(shared(f"{field}: 1", f"{field}: 2"))
    # one of them may be silent; the other's word counts
    for first, second in ((f"{field}: 2", ""), ("", f"{field}: 2")):
        assert getattr(make_net(shared(first, second)).learnable[0], field) == 2


@pytest.mark.parametrize("text", ["lr_mult: nan", "decay_mult: inf", "lr_mult: -inf"])
def test_multipliers_are_finite(make_net, text: str) -> None:
    field, value = text.split(": ")
    message = f"layer 'ip': {field} of param 0 is {value}, expected a finite number"
    with pytest.raises(caffe.CaffeError, match=message):
        make_net(INPUT + ip("ip", "x", more=f"param {{ {text} }}"))

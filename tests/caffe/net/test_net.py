"""Nets: how they are built, run in part and whole, and what gradients they compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from nets import CHAIN, INPUT, IP, LOSS, ip

import caffe
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")


# -- building -------------------------------------------------------------------------------------


def test_what_a_net_shows(make_net) -> None:
    net = make_net(
        'name: "small"' + INPUT + ip("b", "x") + ip("a", "x") + ip("c", "x", more="loss_weight: 2")
    )
    assert net.name == "small"
    assert net.inputs == ["x"]
    assert net.outputs == ["a", "b", "c"]  # in alphabetical order
    split = [f"x_in_0_split_{i}" for i in range(3)]
    assert list(net.blobs) == ["x", *split, "b", "a", "c"]
    assert list(net.layer_dict) == ["in", "x_in_0_split", "b", "a", "c"]
    assert [layer.type for layer in net.layers] == ["Input", "Split"] + ["InnerProduct"] * 3
    assert list(net.params) == ["b", "a", "c"]
    assert [b.shape for b in net.params["a"]] == [(2, 3), (2,)]
    assert net.top_names["x_in_0_split"] == split
    assert net.bottom_names["a"] == ["x_in_0_split_1"]
    assert net.blob_loss_weights == {**dict.fromkeys(net.blobs, 0.0), "c": 2.0}


def test_a_null_character_in_a_message_is_refused() -> None:
    param = pb.NetParameter(name="n")
    param.layer.add(name="d", type="HDF5Data", top=["x"]).hdf5_data_param.source = "a\0b"
    with pytest.raises(caffe.CaffeError, match=r"^net 'n': layer.hdf5_data_param.source holds a"):
        caffe.Net(param, caffe.TRAIN)


PHASED = (
    INPUT
    + """
layer { name: "a" type: "Power" bottom: "x" top: "y" include { phase: TRAIN } }
layer { name: "b" type: "Power" bottom: "x" top: "y" include { phase: TEST min_level: 2 } }
layer { name: "c" type: "Power" bottom: "x" top: "y" include { phase: TEST stage: "s" } }
"""
)


@pytest.mark.parametrize(
    ("phase", "state", "layers"),
    [
        (caffe.TRAIN, {}, ["in", "a"]),
        (caffe.TEST, {}, ["in"]),
        (caffe.TEST, {"level": 2}, ["in", "b"]),
        (caffe.TEST, {"stages": ["s"]}, ["in", "c"]),
        (caffe.TEST, {"stages": "s"}, ["in", "c"]),
    ],
)
def test_phase_level_and_stages(make_net, phase, state, layers) -> None:
    assert list(make_net(PHASED, phase, **state).layer_dict) == layers


def test_constructor_forms(tmp_path, make_net) -> None:
    prototxt, weights = tmp_path / "net.prototxt", tmp_path / "net.caffemodel"
    prototxt.write_text(INPUT + IP)
    first = make_net(INPUT + IP)
    first.save(weights)
    nets = [
        caffe.Net(str(prototxt), caffe.TEST, weights=str(weights)),
        caffe.Net(prototxt, caffe.TEST, 0, None, weights),
        caffe.Net(network_file=str(prototxt), phase=caffe.TEST, weights=str(weights)),
        caffe.Net(str(prototxt), str(weights), caffe.TEST),
    ]
    for net in nets:
        assert net.phase == caffe.TEST
        assert np.array_equal(net.params["ip"][0].data, first.params["ip"][0].data)


def test_the_old_form_is_warned_of(tmp_path, make_net, capsys) -> None:
    (tmp_path / "net").write_text(INPUT + IP)
    make_net(INPUT + IP).save(tmp_path / "w")
    capsys.readouterr()
    caffe.Net(str(tmp_path / "net"), str(tmp_path / "w"), caffe.TEST)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("W")]
    assert len(lines) == 3
    assert "DEPRECATION WARNING" in lines[0]
    assert lines[2].endswith(f"Net('{tmp_path}/net', 1, weights='{tmp_path}/w')")


def test_a_message_is_not_changed() -> None:
    param = text_format.Parse(INPUT + IP, pb.NetParameter())
    before = param.SerializeToString()
    caffe.Net(param, caffe.TEST, stages=["s"])
    assert param.SerializeToString() == before


@pytest.mark.parametrize("phase", [None, 2, "TEST"])
def test_a_phase_is_needed(phase) -> None:
    with pytest.raises(caffe.CaffeError, match=r"phase is .*expected caffe.TRAIN or caffe.TEST"):
        caffe.Net(pb.NetParameter(), phase=phase)


def test_too_many_arguments() -> None:
    with pytest.raises(TypeError, match="at most 5"):
        caffe.Net(pb.NetParameter(), 0, 0, None, None, 1)


def test_a_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(caffe.CaffeError, match=r"nix.prototxt: No such file"):
        caffe.Net(str(tmp_path / "nix.prototxt"), caffe.TEST)


def test_weights_within_the_net(make_net) -> None:
    blobs = """blobs { shape { dim: 2 dim: 3 } data: 1 data: 2 data: 3 data: 4 data: 5 data: 6 }
      blobs { num: 1 channels: 1 height: 1 width: 2 data: 7 data: 8 }"""
    net = make_net(INPUT + ip("ip", "x", more=blobs))
    assert net.params["ip"][0].data.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert net.params["ip"][1].data.tolist() == [7, 8]


# -- running --------------------------------------------------------------------------------------


def test_forward_takes_inputs_and_returns_outputs(make_net) -> None:
    net = make_net(CHAIN)
    x = np.arange(6).reshape(2, 3)
    out = net.forward(["a"], x=x)
    assert sorted(out) == ["a", "c"]
    assert np.array_equal(out["c"], 30 * x)
    assert np.array_equal(out["a"], 2 * x)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"y": np.zeros((2, 3))}, r"input arrays \['y'\] do not match the net's inputs \['x'\]"),
        ({"x": np.zeros((3, 3))}, r"input 'x' has the shape \(2, 3\), the array given \(3, 3\)"),
        ({"x": np.zeros((2, 4))}, r"input 'x' has the shape \(2, 3\), the array given \(2, 4\)"),
    ],
)
def test_inputs_that_do_not_fit(make_net, inputs, message) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        make_net(CHAIN).forward(**inputs)


def test_partial_forward(make_net) -> None:
    net = make_net(CHAIN)
    net.blobs["x"].data[...] = 1
    assert list(net.forward(end="b")) == ["b"]
    assert (net.blobs["b"].data == 6).all()
    assert (net.blobs["c"].data == 0).all()
    net.blobs["b"].data[...] = 10
    assert (net.forward(start="c")["c"] == 50).all()
    out = net.forward(None, "b", "b")  # pycaffe's order: blobs, start, end
    assert (out["b"] == 6).all()


def test_partial_backward(make_net) -> None:
    net = make_net("force_backward: true " + CHAIN)
    net.forward()
    net.blobs["b"].diff[...] = 1
    assert (net.backward(start="b", end="b")["a"] == 3).all()
    assert (net.blobs["x"].diff == 0).all()
    net.blobs["c"].diff[...] = 1
    out = net.backward(["a"], None, "b")  # pycaffe's order: diffs, start, end
    assert sorted(out) == ["a"]
    assert (out["a"] == 15).all()
    assert (net.backward(c=np.full((2, 3), 2))["x"] == 60).all()


@pytest.mark.parametrize(
    "call", [lambda n: n.forward(end="nix"), lambda n: n.backward(["a"], "nix")]
)
def test_unknown_layers_are_named(make_net, call) -> None:
    with pytest.raises(caffe.CaffeError, match="has no layer 'nix'"):
        call(make_net(CHAIN))


def test_unknown_blobs_are_named(make_net) -> None:
    with pytest.raises(caffe.CaffeError, match="has no blob 'nix'"):
        make_net(CHAIN).forward(["nix"])


def test_views_taken_before_a_pass_see_what_it_makes(make_net) -> None:
    net = make_net("force_backward: true " + CHAIN)
    data = {name: blob.data for name, blob in net.blobs.items()}
    diff = {name: blob.diff for name, blob in net.blobs.items()}
    data["x"][...] = 1
    net.forward()
    assert [float(data[k].mean()) for k in "xabc"] == [1, 2, 6, 30]
    diff["c"][...] = 1
    net.backward()
    assert [float(diff[k].mean()) for k in "xabc"] == [30, 15, 5, 1]


@pytest.mark.parametrize("look", [False, True])
def test_in_place_layers_keep_what_their_gradients_need(make_net, look: bool) -> None:
    net = make_net(
        "force_backward: true "
        + INPUT
        + """layer { name: "a" type: "Power" bottom: "x" top: "y" }
        layer { name: "bnll" type: "BNLL" bottom: "y" top: "y" }
        layer { name: "e" type: "Exp" bottom: "y" top: "y" }"""
    )
    if look:
        _ = net.blobs["y"].data
    for x in (0.5, -0.25):  # exp(log(1 + exp(x))) = 1 + exp(x)
        net.blobs["x"].data[...] = x
        net.forward()
        net.blobs["y"].diff[...] = 1
        net.backward()
        assert np.allclose(net.blobs["y"].data, 1 + np.exp(x))
        assert np.allclose(net.blobs["x"].diff, np.exp(x))


def test_parameter_gradients_add_up_and_blob_gradients_do_not(make_net) -> None:
    net = make_net("force_backward: true " + INPUT + IP + LOSS)
    net.blobs["x"].data[...] = np.arange(6).reshape(2, 3)
    net.forward()
    net.backward()
    weight, blob = net.params["ip"][0].diff.copy(), net.blobs["x"].diff.copy()
    net.forward()
    net.backward()
    assert np.allclose(net.params["ip"][0].diff, 2 * weight)
    assert np.array_equal(net.blobs["x"].diff, blob)
    net.clear_param_diffs()
    assert not net.params["ip"][0].diff.any()
    assert np.array_equal(net.blobs["x"].diff, blob)


def test_gradients_of_two_takers_are_no_shared_memory(make_net) -> None:
    net = make_net(
        "force_backward: true "
        + INPUT.replace('top: "x"', 'top: "x" top: "z"')
        + 'layer { name: "s" type: "Eltwise" bottom: "x" bottom: "z" top: "y" }'
    )
    net.forward()
    net.backward(y=np.ones((2, 3)))
    net.blobs["x"].diff[...] = 7
    assert (net.blobs["z"].diff == 1).all()
    assert (net.blobs["y"].diff == 1).all()


def test_a_loss_weight_on_any_top(make_net) -> None:
    # loss = 2 sum(ip) + 3 sum(ip^2); ip = w x, so d/dw = (2 + 6 ip) x
    text = INPUT + ip("ip", "x", outputs=1, more="loss_weight: 2")
    net = make_net(text + LOSS.replace("loss_weight: 1", "loss_weight: 3"))
    net.params["ip"][0].data[...] = [[1, 2, 0]]
    net.blobs["x"].data[...] = [[1, 1, 0], [0, 0, 1]]
    assert net._forward(0, len(net.layers) - 1) == pytest.approx(2 * 3 + 3 * 9)
    net.backward()
    assert net.params["ip"][0].diff.tolist() == [[2 + 6 * 3, 2 + 6 * 3, 2 + 6 * 0]]


def test_a_loss_weight_stands_when_the_batch_grows(make_net) -> None:
    net = make_net(INPUT + ip("ip", "x", more="loss_weight: 0.5"))
    net.blobs["x"].reshape(4, 3)
    net.blobs["x"].data[...] = 1
    net.forward()
    net.backward()
    assert net.params["ip"][1].diff.tolist() == [2, 2]  # 4 samples of 0.5 each


def test_reshape(make_net) -> None:
    net = make_net(CHAIN)
    net.blobs["x"].reshape(5, 3)
    net.reshape()
    assert net.blobs["c"].shape == (5, 3)
    net.blobs["x"].reshape(1, 7)  # forward carries a new shape through as well
    net.blobs["x"].data[...] = 1
    assert net.forward()["c"].shape == (1, 7)


def test_reshape_leaves_a_source_as_it_is(make_net) -> None:
    text = """layer { name: "d" type: "DummyData" top: "x"
      dummy_data_param { shape { dim: 2 } data_filler { value: 3 } } }"""
    net = make_net(text)
    net.forward()
    net.blobs["x"].reshape(1)
    net.blobs["x"].data[...] = 4
    net.reshape()
    assert net.blobs["x"].data.tolist() == [4]


def test_a_new_shape_that_does_not_fit_names_the_layer(make_net) -> None:
    net = make_net(INPUT + IP)
    net.blobs["x"].reshape(2, 4)
    with pytest.raises(caffe.CaffeError, match=r"layer 'ip' \(InnerProduct\): .*expected 3"):
        net.reshape()
    with pytest.raises(caffe.CaffeError, match=r"layer 'ip' \(InnerProduct\): .*expected 3"):
        net.forward()


# -- gradients in TEST ----------------------------------------------------------------------------

TESTED = (
    INPUT
    + """
layer { name: "conv" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 4 weight_filler { type: "gaussian" } } }
layer { name: "bn" type: "BatchNorm" bottom: "y" top: "y"
  batch_norm_param { use_global_stats: false } }
layer { name: "sigmoid" type: "Sigmoid" bottom: "y" top: "y" }
layer { name: "sum" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1
  reduction_param { operation: SUMSQ } }
"""
)


@pytest.fixture
def tested(make_net):
    """The net in TEST, run once; and the gradient that it should have."""
    x = np.random.default_rng(1).normal(size=(2, 3)).astype(np.float32)
    torch.manual_seed(0)
    reference = make_net("force_backward: true " + TESTED)
    reference.forward(x=x)
    reference.backward()
    torch.manual_seed(0)
    net = make_net(TESTED, caffe.TEST)
    net.forward(x=x)
    return net, x, reference.params["conv"][0].diff.copy()


def test_backward_in_test(tested) -> None:
    net, x, expected = tested
    for _ in range(2):  # the first has to repeat the forward pass, the second not
        net.clear_param_diffs()
        net.backward()
        assert np.allclose(net.params["conv"][0].diff, expected, atol=1e-6)
        net.forward(x=x)


def test_backward_in_test_changes_nothing_else(tested) -> None:
    net, _, _ = tested
    blobs = {name: blob.data.copy() for name, blob in net.blobs.items()}
    statistics = [b.data.copy() for b in net.params["bn"]]
    net.backward()
    for name, values in blobs.items():
        assert np.array_equal(net.blobs[name].data, values), name
    for blob, values in zip(net.params["bn"], statistics, strict=True):
        assert np.array_equal(blob.data, values)


def test_backward_in_test_after_a_pass_in_pieces(make_net) -> None:
    text = INPUT + ip("ip", "x") + LOSS
    text = text.replace('bottom: "ip" top: "loss"', 'bottom: "y" top: "loss"')
    text += 'layer { name: "sig" type: "Sigmoid" bottom: "ip" top: "ip" }'
    layers = text_format.Parse(text, pb.NetParameter()).layer
    order = [layers[0], layers[1], layers[3], layers[2]]
    order[3].bottom[0] = "ip"
    net = caffe.Net(pb.NetParameter(layer=order), caffe.TEST)
    x = np.float32([[1, 2, 0], [0, 1, 1]])
    net.forward(end="ip", x=x)
    net.blobs["ip"].data[...] = 0.5  # what a user writes between the pieces is what counts
    net.forward(start="sig")
    net.backward()
    s = 1 / (1 + np.exp(-0.5))
    expected = 2 * s * s * (1 - s) * x.sum(0)  # of s^2, by way of ds/dip = s (1 - s) and dip/dw = x
    assert np.allclose(net.params["ip"][0].diff, [expected, expected])


def test_backward_in_test_takes_what_a_user_wrote(make_net) -> None:
    net = make_net("force_backward: true " + CHAIN + ip("ip", "c"), caffe.TEST)
    net.forward()
    net.blobs["c"].data[...] = 3
    net.backward(ip=np.ones((2, 2)))
    assert (net.params["ip"][0].diff == 6).all()


# -- callbacks -------------------------------------------------------------------------------------


def test_callbacks(make_net) -> None:
    net = make_net("force_backward: true " + CHAIN)
    calls: list[tuple[str, int]] = []
    for name in ("before_forward", "after_forward", "before_backward", "after_backward"):
        getattr(net, name)(lambda i, name=name: calls.append((name, i)))
    net.forward(start="b")
    assert calls == [(f"{w}_forward", i) for i in (2, 3) for w in ("before", "after")]
    calls.clear()
    net.backward(end="c")
    assert calls == [("before_backward", 3), ("after_backward", 3)]


@pytest.mark.parametrize(
    ("arguments", "named", "twice"),
    [
        ((caffe.TEST,), {"phase": caffe.TRAIN}, "phase"),
        ((caffe.TEST, 1), {"level": 2}, "level"),
        ((caffe.TEST, 0, ["a"]), {"stages": ["b"]}, "stages"),
        (("w.caffemodel", caffe.TEST), {"weights": "v.caffemodel"}, "weights"),
        (("w.caffemodel", caffe.TEST), {"phase": caffe.TEST}, "phase"),
    ],
)
def test_nothing_is_given_twice(arguments, named, twice: str) -> None:
    """The second value would be ignored silently."""
    net = text_format.Parse(INPUT, pb.NetParameter())
    with pytest.raises(TypeError, match=f"Net got {twice} twice"):
        caffe.Net(net, *arguments, **named)

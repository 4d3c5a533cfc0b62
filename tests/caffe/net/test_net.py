"""Nets: how they are built, run in part and whole, what gradients reach, and their weights."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.formats import files
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }'
IP = """layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 2 weight_filler { type: "gaussian" } } }"""
LOSS = """layer { name: "sum" type: "Reduction" bottom: "ip" top: "loss" loss_weight: 1
  reduction_param { operation: SUMSQ } }"""


def ip(name: str, bottom: str, top: str = "", more: str = "", outputs: int = 2) -> str:
    """An InnerProduct layer's text."""
    return f"""layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top or name}"
      inner_product_param {{ num_output: {outputs} weight_filler {{ type: "gaussian" }} }}
      {more} }}"""


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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (INPUT + 'layer { name: "a" type: "Powr" bottom: "x" top: "y" }',
         r"layer 'a': unknown layer type 'Powr' \(did you mean Power\?\)"),
        (INPUT + 'layer { name: "a" type: "Power" bottom: "nix" top: "y" }',
         r"layer 'a': unknown bottom blob 'nix' \(bottom 0\)"),
        # a blob that somebody else makes already
        (INPUT + 'layer { name: "a" type: "Power" top: "x" bottom: "x" }' + INPUT,
         r"layer 'in': top blob 'x' is made by several layers"),
        # in place means: the same position; elsewhere it is a second maker
        (INPUT + 'layer { name: "s" type: "Slice" bottom: "x" top: "a" top: "x" }',
         r"layer 's': top blob 'x' is made by several layers; in place means"),
        # x belongs to a by then, and relu would change it behind a's back
        (INPUT + 'layer { name: "a" type: "Power" bottom: "x" top: "y" }'
         'layer { name: "relu" type: "ReLU" bottom: "x" top: "x" }',
         r"layer 'relu': top blob 'x' is made by several layers"),
        # a loop: b takes what only a later layer makes
        (INPUT + 'layer { name: "b" type: "Eltwise" bottom: "x" bottom: "z" top: "y" }'
         'layer { name: "a" type: "Power" bottom: "y" top: "z" }',
         r"layer 'b': unknown bottom blob 'z' \(bottom 1\)"),
        (INPUT + 'layer { name: "a" type: "Power" bottom: "x" top: "y" propagate_down: true'
         ' propagate_down: true }', r"layer 'a': propagate_down must be given never or once for"),
        (INPUT + 'layer { name: "a" type: "Power" bottom: "x" top: "y" loss_weight: 1'
         ' loss_weight: 1 }', r"layer 'a' \(Power\): loss_weight is given 2 time"),
        (INPUT + ip("a", "x", more="param { } param { } param { }"),
         r"layer 'a': 3 param entries are given, it has 2 parameter blob"),
        (INPUT + 'layer { name: "s" type: "Split" bottom: "x" top: "x" }',
         r"layer 's' \(Split\): cannot work in place"),
        (INPUT + 'layer { name: "a" type: "Power" bottom: "x" top: "y" top: "z" }',
         r"layer 'a' \(Power\): takes exactly 1 top blob\(s\), got 2"),
    ],
)  # fmt: skip
def test_nets_that_cannot_be(make_net, text: str, message: str) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        make_net(text)


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

CHAIN = INPUT + "".join(
    f"""layer {{ name: "{name}" type: "Power" bottom: "{bottom}" top: "{name}"
      power_param {{ scale: {scale} }} }}"""
    for name, bottom, scale in (("a", "x", 2), ("b", "a", 3), ("c", "b", 5))
)


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


def test_inputs_get_no_gradient_unless_it_is_forced(make_net) -> None:
    for forced in (False, True):
        net = make_net(f"force_backward: {str(forced).lower()} " + INPUT + IP + LOSS)
        net.blobs["x"].data[...] = 1
        net.forward()
        net.backward()
        assert net.blobs["x"].diff.any() == forced
        assert net.params["ip"][0].diff.any()


def test_propagate_down_false_stops_the_gradient(make_net) -> None:
    text = INPUT + ip("a", "x") + ip("b", "a", more="propagate_down: false")
    net = make_net(text + LOSS.replace('"ip"', '"b"'))
    net.blobs["x"].data[...] = 1
    net.forward()
    net.backward()
    assert net.params["b"][0].diff.any()
    assert not net.params["a"][0].diff.any()
    assert not net.blobs["a"].diff.any()


def test_propagate_down_true_lets_it_through_to_an_input(make_net) -> None:
    net = make_net(INPUT + ip("a", "x", more="propagate_down: true") + LOSS.replace("ip", "a"))
    net.blobs["x"].data[...] = 1
    net.forward()
    net.backward()
    assert net.blobs["x"].diff.any()


def test_layers_that_bear_on_no_loss_get_no_gradient(make_net) -> None:
    net = make_net(INPUT + IP + ip("aside", "ip") + LOSS)
    net.blobs["x"].data[...] = 1
    net.forward()
    net.blobs["aside"].diff[...] = 1
    net.backward()
    assert not net.params["aside"][0].diff.any()
    assert net.params["ip"][0].diff.any()


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


def test_anonymous_tops(make_net) -> None:
    net = make_net(
        INPUT.replace('top: "x"', 'top: "x" top: "l"')
        + 'layer { name: "loss" type: "EuclideanLoss" bottom: "x" bottom: "l" }'
    )
    net.blobs["x"].data[...] = 2
    net.blobs["l"].data[...] = 0
    assert net._forward(0, 1) == pytest.approx(6 * 4 / 2 / 2)
    assert net.outputs == []
    assert list(net.blobs) == ["x", "l", "(automatic)"]


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


def test_forward_all_pads_the_last_batch_and_cuts_it_off(make_net) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    net = make_net("force_backward: true " + CHAIN)
    outs = net.forward_all(["a"], x=x)
    assert np.allclose(outs["c"], 30 * x)
    assert np.allclose(outs["a"], 2 * x)
    outs, diffs = net.forward_backward_all(x=x, c=np.ones((5, 3)), diffs=["b"])
    assert np.allclose(outs["c"], 30 * x)
    assert diffs["x"].shape == (5, 3)
    assert (diffs["x"] == 30).all()
    assert (diffs["b"] == 5).all()


def test_forward_all_wants_arrays_of_one_length(make_net) -> None:
    with pytest.raises(caffe.CaffeError, match=r"arrays of one length were expected.*\[4, 5\]"):
        make_net(CHAIN).forward_backward_all(x=np.zeros((4, 3)), c=np.zeros((5, 3)))


def test_batch_norm_counts_as_a_layer_that_learns_unless_it_says_no(make_net, capsys) -> None:
    # Caffe looks at the prototxt before the layer forbids its blobs to learn
    for given, says in (("", "needs"), ("param { lr_mult: 0 } " * 3, "does not need")):
        bn = f'layer {{ name: "bn" type: "BatchNorm" bottom: "x" top: "y" {given} }}'
        net = make_net(INPUT + bn + LOSS.replace('"ip"', '"y"'))
        assert f"] bn {says} backward computation." in capsys.readouterr().err
        assert [p.lr_mult for p in net.learnable] == [0, 0, 0]
        net.blobs["x"].data[...] = [[1, 2, 3], [3, 2, 1]]
        net.forward()
        net.backward()
        assert not any(p.blob.diff.any() for p in net.learnable)


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


# -- shared parameters ----------------------------------------------------------------------------


def _shared(first: str, second: str, bottom: str = "a", outputs: int = 3) -> str:
    return INPUT + "".join(
        (
            ip("a", "x", more=f'param {{ name: "w" {first} }}', outputs=3),
            ip("b", bottom, more=f'param {{ name: "w" {second} }}', outputs=outputs),
            LOSS.replace('"ip"', '"b"'),
        )
    )


def test_one_name_is_one_parameter(make_net) -> None:
    net = make_net(_shared("", ""))
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
        make_net(_shared("", "", outputs=1))


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
        make_net(_shared(f"{field}: 1", f"{field}: 2"))
    # one of them may be silent; the other's word counts
    for first, second in ((f"{field}: 2", ""), ("", f"{field}: 2")):
        assert getattr(make_net(_shared(first, second)).learnable[0], field) == 2


def test_shared_parameters_are_saved_once_in_hdf5(make_net, tmp_path) -> None:
    net = make_net(_shared("", ""))
    net.save_hdf5(tmp_path / "w.h5")
    with h5py.File(tmp_path / "w.h5") as file:
        assert sorted(file["data/a"]) == ["0", "1"]
        assert sorted(file["data/b"]) == ["1"]
    other = make_net(_shared("", ""))
    other.load_hdf5(tmp_path / "w.h5")
    assert np.array_equal(other.params["b"][0].data, net.params["a"][0].data)


# -- weights --------------------------------------------------------------------------------------


def test_save_and_copy_from(make_net, tmp_path) -> None:
    first, second = make_net(CHAIN + IP), make_net(CHAIN + IP)
    for name in ("w.caffemodel", "w.caffemodel.h5"):
        (first.save_hdf5 if name.endswith("h5") else first.save)(tmp_path / name)
        for blob in second.params["ip"]:
            blob.data[...] = 0
        second.copy_from(str(tmp_path / name))
        for mine, theirs in zip(second.params["ip"], first.params["ip"], strict=True):
            assert np.array_equal(mine.data, theirs.data)


def test_a_saved_net_keeps_its_structure(make_net, tmp_path) -> None:
    make_net('name: "n"' + INPUT + ip("a", "x") + ip("b", "x")).save(tmp_path / "w")
    saved = pb.NetParameter.FromString((tmp_path / "w").read_bytes())
    assert saved.name == "n"
    assert [layer.name for layer in saved.layer] == ["in", "x_in_0_split", "a", "b"]
    assert list(saved.layer[2].blobs[0].shape.dim) == [2, 3]


@pytest.mark.parametrize("name", ["w.caffemodel", "w.caffemodel.h5"])
def test_two_layers_of_one_name(make_net, tmp_path, name: str) -> None:
    text = INPUT + IP + 'layer { name: "ip" type: "ReLU" bottom: "ip" top: "ip" }'
    first, second = make_net(text), make_net(text)
    assert list(first.params) == ["ip"]
    (first.save_hdf5 if name.endswith("h5") else first.save)(tmp_path / name)
    second.copy_from(tmp_path / name)
    assert np.array_equal(second.params["ip"][0].data, first.params["ip"][0].data)


def test_gradients_are_saved_on_demand(make_net, tmp_path) -> None:
    net = make_net(INPUT + IP)
    net.params["ip"][0].diff[...] = 5
    net.save(tmp_path / "w")
    assert not files.read_weights(tmp_path / "w").diffs
    net.save(tmp_path / "w", write_diff=True)
    assert (files.read_weights(tmp_path / "w").diffs["ip"][0] == 5).all()


def test_layers_that_only_one_side_has(make_net, tmp_path, capsys) -> None:
    make_net(INPUT + ip("a", "x") + ip("b", "a")).save(tmp_path / "w")
    net = make_net(INPUT + ip("a", "x") + ip("c", "a"))
    before = net.params["c"][0].data.copy()
    net.copy_from(tmp_path / "w")
    assert np.array_equal(net.params["c"][0].data, before)
    assert capsys.readouterr().err.splitlines()[-1].endswith("] Ignoring source layer b")


def _write(path, arrays: dict[str, list[np.ndarray]]) -> None:
    param = pb.NetParameter()
    for name in arrays:
        param.layer.add(name=name, type="InnerProduct")
    files.write_weights(path, param, arrays)


def test_shapes_of_four_axes_from_old_models(make_net, tmp_path) -> None:
    weight = np.arange(6, dtype=np.float32)
    _write(tmp_path / "w", {"ip": [weight.reshape(1, 1, 2, 3), weight[:2].reshape(1, 1, 1, 2)]})
    net = make_net(INPUT + IP)
    net.copy_from(tmp_path / "w")
    assert net.params["ip"][0].data.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert net.params["ip"][1].data.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([np.ones((2, 4)), np.ones(2)],
         r"w: layer 'b', parameter blob 0: shape mismatch: the file has 2 4 \(8\), the net 2 2"),
        ([np.ones((1, 1, 4, 1)), np.ones(2)], r"layer 'b', parameter blob 0: shape mismatch"),
        ([np.ones((2, 2)), np.ones(3)], r"layer 'b', parameter blob 1: .*has 3 \(3\), the net 2"),
        ([np.ones((2, 2))], r"layer 'b': the file has 1 parameter blob\(s\), the net 2"),
        ([], r"layer 'b': the file has 0 parameter blob\(s\), the net 2"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_change_nothing(make_net, tmp_path, arrays, message) -> None:
    _write(tmp_path / "w", {"a": [np.ones((2, 3), np.float32), np.ones(2, np.float32)],
                            "b": [a.astype(np.float32) for a in arrays]})  # fmt: skip
    net = make_net(INPUT + ip("a", "x") + ip("b", "a"))
    before = net.params["a"][0].data.copy()
    with pytest.raises(caffe.CaffeError, match=message):
        net.copy_from(tmp_path / "w")
    assert np.array_equal(net.params["a"][0].data, before)


def test_reading_weights_warns_of_nothing(make_net, tmp_path, recwarn) -> None:
    net = make_net(INPUT + IP)
    net.save(tmp_path / "w")
    net.copy_from(tmp_path / "w")
    assert not recwarn.list


def test_share_with(make_net) -> None:
    first = make_net(INPUT + ip("a", "x") + ip("b", "a"))
    second = make_net(INPUT + ip("a", "x"), caffe.TEST)
    second.share_with(first)
    first.params["a"][0].data[...] = 3
    assert (second.params["a"][0].data == 3).all()
    second.params["a"][0].diff[...] = 1  # gradients stay apart
    assert not first.params["a"][0].diff.any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (ip("a", "x", outputs=3), r"layer 'a', parameter blob 0: cannot share 2 3 \(6\) with 3 3"),
        (ip("a", "x").replace("num_output", "bias_term: false num_output"),
         r"layer 'a': cannot share 2 parameter blob\(s\) with 1"),
    ],
)  # fmt: skip
def test_share_with_another_shape(make_net, text: str, message: str) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        make_net(INPUT + text).share_with(make_net(INPUT + ip("a", "x")))


# -- callbacks and debug lines --------------------------------------------------------------------


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


def test_debug_info(make_net, capsys) -> None:
    text = INPUT + ip("ip", "x", more='param { name: "w" }') + ip("b", "ip")
    net = make_net("debug_info: true " + text + LOSS.replace('"ip"', '"b"'))
    net.blobs["x"].data[...] = 1
    for name in ("ip", "b"):
        net.params[name][0].data[...] = 1
    capsys.readouterr()
    net.forward()
    net.backward()
    lines = [line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines()]
    # ip = 3, b = 6, loss = 4 * 36; d/db = 2 b = 12, d/dip = 24, weights: 12 * 3 * 2 = 72, ...
    assert lines == [
        "    [Forward] Layer in, top blob x data: 1",
        "    [Forward] Layer ip, top blob ip data: 3",
        "    [Forward] Layer ip, param blob w data: 1",
        "    [Forward] Layer ip, param blob 1 data: 0",
        "    [Forward] Layer b, top blob b data: 6",
        "    [Forward] Layer b, param blob 0 data: 1",
        "    [Forward] Layer b, param blob 1 data: 0",
        "    [Forward] Layer sum, top blob loss data: 144",
        "    [Backward] Layer sum, bottom blob b diff: 12",
        "    [Backward] Layer b, bottom blob ip diff: 24",
        "    [Backward] Layer b, param blob 0 diff: 72",
        "    [Backward] Layer b, param blob 1 diff: 24",
        "    [Backward] Layer ip, param blob 0 diff: 48",
        "    [Backward] Layer ip, param blob 1 diff: 48",
        # 4 + 6 weights of 1; gradients: 4 * 72 + 2 * 24 + 6 * 48 + 2 * 48 = 720, and their squares
        # 4 * 72^2 + 2 * 24^2 + 6 * 48^2 + 2 * 48^2 = 40320 = 200.798^2
        "    [Backward] All net params (data, diff): L1 norm = (10, 720); L2 norm = (3.16228, "
        "200.798)",
    ]

"""Int8 models by onnxruntime's quantiser: what is quantised, and what stays in float32."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from google.protobuf import text_format
from nets import image

import caffe
from caffe.proto import caffe_pb2 as pb

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from caffe.export import int8  # noqa: E402
from caffe.export.onnx import write_graph  # noqa: E402
from caffe.formats.onnx import TARGETS  # noqa: E402


def conv(name: str, bottom: str, top: str, more: str = "", kind: str = "Convolution") -> str:
    return f"""layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top}"
      convolution_param {{ num_output: 4 kernel_size: 3 {more}
        weight_filler {{ type: "gaussian" std: 0.3 }} }} }}"""


def relu(blob: str) -> str:
    return f'layer {{ name: "relu_{blob}" type: "ReLU" bottom: "{blob}" top: "{blob}" }}'


def build(text: str, *shape: int) -> caffe.Net:
    caffe.set_random_seed(1)
    param = text_format.Parse(image(*shape) + text, pb.NetParameter())
    return caffe.Net(param, caffe.TEST)


def feeds(net: caffe.Net, count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"x": rng.normal(size=net.blobs["x"].shape).astype(np.float32)} for _ in range(count)]


def integers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The constants of whole numbers that take the place of weights, by the weights' names."""
    found = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    ending = "_quantized"
    return {name.removesuffix(ending): v for name, v in found.items() if name.endswith(ending)}


def scales(model: onnx.ModelProto, weight: str) -> np.ndarray:
    found = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    return found[f"{weight}_scale"]


@pytest.mark.parametrize("method", int8.METHODS)
def test_weights_have_a_scale_for_each_channel(method: str) -> None:
    net = build(conv("a", "x", "a") + relu("a") + conv("b", "a", "y"), 1, 3, 9, 9)
    weight = net.params["a"][0].data
    weight[2] *= 50  # with one scale for all, the others would be 0 in int8
    model = write_graph(net, ["y"])
    nodes = int8.weighted_nodes(model, net.params)
    assert nodes == {"a": "a", "b": "b"}
    made = int8.Quantiser(model, feeds(net), method).quantised(nodes)
    onnx.checker.check_model(made, full_check=True)
    found = integers(made)
    assert found["a.0"].dtype == np.int8
    expected = np.abs(weight).reshape(4, -1).max(1) / 127
    np.testing.assert_allclose(scales(made, "a.0"), expected, rtol=1e-2)
    assert (np.abs(found["a.0"].reshape(4, -1)).max(1) >= 126).all()
    # The ReLU is a part of the range: no node computes it.
    assert "Relu" not in {node.op_type for node in made.graph.node}
    (x,) = feeds(net, 1)
    exact, noisy = (int8.Model(m).answers(x) for m in (model, made))
    assert 0 < int8.noise(exact, noisy).energy < 0.01


def parameters(model: onnx.ModelProto, value: str) -> set[tuple[float, ...]]:
    """The scales and zero points by which a value is quantised, also once more."""
    found = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    nodes = [n for n in model.graph.node if n.op_type == "QuantizeLinear"]
    named = [n for n in nodes if n.input[0] in (value, f"{value}_DequantizeLinear_Output")]
    return {tuple(float(found[name]) for name in node.input[1:]) for node in named}


def kind_of(model: onnx.ModelProto, value: str) -> int:
    """The number type of a value."""
    plain = onnx.ModelProto()
    plain.CopyFrom(model)
    del plain.graph.value_info[:]
    known = onnx.shape_inference.infer_shapes(plain, strict_mode=True).graph.value_info
    return next(item.type.tensor_type.elem_type for item in known if item.name == value)


POOL = """layer {{ name: "{top}" type: "Pooling" bottom: "{bottom}" top: "{top}" {mask}
  pooling_param {{ pool: MAX kernel_size: 2 stride: 2 }} }}"""
UNPOOL = """layer { name: "u" type: "Unpooling" bottom: "b" bottom: "mask" top: "u"
  unpooling_param { scale: 2 } }"""


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_pooling_and_unpooling_keep_whole_numbers(name: str) -> None:
    """What they give has the scale of what they take, though it has other percentiles; but for
    MaxUnpool, they move bytes.
    """
    text = (
        conv("a", "x", "a", "pad: 1")
        + relu("a")
        + POOL.format(bottom="a", top="p", mask="")
        + POOL.format(bottom="x", top="m", mask='top: "mask"')
        + conv("b", "p", "b", "pad: 1")
        + relu("b")
        + UNPOOL
        + conv("c", "u", "y")
    )
    net = build(text, 1, 4, 64, 64)
    model = write_graph(net, ["y"], target=TARGETS[name])
    made = int8.Quantiser(model, feeds(net)).quantised(int8.weighted_nodes(model, net.params))
    (before,), (behind,) = parameters(made, "a"), parameters(made, "b")
    assert before != behind
    assert not parameters(made, "p")
    assert parameters(made, "u") == ({behind} if name == "onnxruntime" else set())
    moved = [n for n in made.graph.node if n.name == "p" or n.op_type == "Transpose"]
    assert {kind_of(made, n.output[0]) for n in moved} == {onnx.TensorProto.UINT8}


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_the_places_of_maxima_do_not_depend_on_what_pooling_gives(name: str) -> None:
    """A convolution takes the pooled values, which are rounded for it; the mask knows the rest."""
    text = (
        POOL.format(bottom="x", top="p", mask='top: "mask"')
        + conv("b", "p", "b", "pad: 1")
        + UNPOOL
        + conv("c", "u", "y")
    )
    net = build(text, 1, 4, 8, 8)
    model = write_graph(net, ["y"], target=TARGETS[name])
    made = int8.Quantiser(model, feeds(net)).quantised(int8.weighted_nodes(model, net.params))
    (x,) = feeds(net, 1)
    exact, noisy = (int8.Model(m).answers(x) for m in (model, made))
    assert 0 < int8.noise(exact, noisy).energy < 0.01


def test_outputs_that_no_node_in_int8_takes() -> None:
    """They are rounded for onnxruntime, and not for OpenVINO."""
    text = (
        conv("a", "x", "a")
        + relu("a")
        + conv("b", "a", "b", "pad: 1")
        + 'layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "s" }'
        + conv("c", "s", "y")
    )
    net = build(text, 1, 3, 12, 12)
    model = write_graph(net, ["y"])
    errors = []
    for outputs, rounded in ((True, {"x", "a", "b", "s", "y"}), (False, {"x", "a", "s"})):
        quantiser = int8.Quantiser(model, feeds(net), outputs=outputs)
        made = quantiser.quantised(["a", "b", "c"])
        kinds = {n.name: n.op_type for n in made.graph.node}
        found = {n.removesuffix("_QuantizeLinear") for n in kinds if kinds[n] == "QuantizeLinear"}
        assert found == rounded
        pairs = zip(*(int8.Model(m).answers(feeds(net, 1)[0]) for m in (model, made)), strict=True)
        errors += [int8.noise([a], [b]).energy for a, b in pairs]
    assert 0 < errors[1] < errors[0]


def test_others_stay_in_float32() -> None:
    net = build(conv("a", "x", "a") + conv("b", "a", "y"), 1, 3, 9, 9)
    made = int8.Quantiser(write_graph(net, ["y"]), feeds(net)).quantised(["a"])
    assert set(integers(made)) == {"a.0", "a.1"}
    by_name = {node.name: node for node in made.graph.node}
    assert list(by_name["b"].input[1:]) == ["b.0", "b.1"]


def test_short_weights_have_7_bits() -> None:
    net = build(conv("a", "x", "y"), 1, 3, 9, 9)
    made = int8.Quantiser(write_graph(net, ["y"]), feeds(net), short=True).quantised(["a"])
    assert 60 <= np.abs(integers(made)["a.0"]).max() <= 64


def test_a_blob_of_the_name_of_anothers_scale() -> None:
    """Outputs keep their names."""
    text = conv("a", "x", "v") + relu("v") + conv("b", "v", "v_scale") + conv("c", "v_scale", "y")
    net = build(text, 1, 3, 9, 9)
    for outputs in (["y"], ["y", "v_scale"], ["y", "v"]):
        model = write_graph(net, outputs)
        nodes = int8.weighted_nodes(model, net.params)
        made = int8.Quantiser(model, feeds(net, 1)).quantised(nodes)
        assert [item.name for item in made.graph.output] == outputs
        (x,) = feeds(net, 1)
        for exact, noisy in zip(*(int8.Model(m).answers(x) for m in (model, made)), strict=True):
            assert int8.noise([exact], [noisy]).energy < 0.01
    with pytest.raises(caffe.CaffeError, match=r"blobs 'v' and 'v_scale'"):
        int8.Quantiser(write_graph(net, ["v", "v_scale"]), feeds(net, 1))


def test_what_can_be_in_int8() -> None:
    """Inner products and deconvolutions, too; not those of several groups, nor what has no
    weights of its own.
    """
    text = (
        conv("d", "x", "d", "stride: 2", "Deconvolution")
        + conv("g", "d", "g", "stride: 2 group: 2", "Deconvolution")
        + 'layer { name: "p" type: "Im2col" bottom: "g" top: "p" convolution_param '
        "{ kernel_size: 2 stride: 9 } }"
        'layer { name: "fc" type: "InnerProduct" bottom: "p" top: "y" inner_product_param '
        '{ num_output: 3 weight_filler { type: "xavier" } } }'
    )
    net = build(text, 2, 4, 4, 4)
    model = write_graph(net, ["y"])
    nodes = int8.weighted_nodes(model, net.params)
    assert [*nodes.values()] == ["d", "fc"]
    made = int8.Quantiser(model, feeds(net)).quantised(nodes)
    assert set(integers(made)) == {"d.0", "d.1", "fc.0", "fc.1"}
    (x,) = feeds(net, 1)
    exact, noisy = (int8.Model(m).answers(x) for m in (model, made))
    assert 0 < int8.noise(exact, noisy).energy < 0.01


def test_the_noisiest_for_their_work_stay_in_float32() -> None:
    work = {"a": 10, "b": 50, "c": 20, "d": 20}
    noise = {"a": 1.0, "b": 4.0, "c": 1.0, "d": 0.01}
    # By noise for work: a (0.1), b (0.08), c (0.05), d (0.0005).
    assert int8.left_in_float(noise, work, 0.1) == {"a"}
    assert int8.left_in_float(noise, work, 0.3) == {"a", "c"}  # b does not fit beside a
    assert int8.left_in_float(noise, work, 0.6) == {"a", "b"}
    assert int8.left_in_float(noise, work, 1) == {"a", "b", "c"}  # d's noise is negligible
    assert int8.left_in_float(noise, work, 0) == set()


def test_noise_is_measured_in_shares_of_the_answers_energy() -> None:
    exact = [np.array([[3.0, 4.0]]), np.array([[0.0, 5.0]])]
    found = int8.noise(exact, [np.array([[3.0, 4.0]]), np.array([[3.0, 1.0]])])
    assert found.energy == pytest.approx((9 + 16) / (9 + 16 + 25))
    assert found.same == 0.5
    assert str(found) == "3.0 dB, the same highest channel at 50.0% of the places"
    assert str(int8.noise([np.ones(2)], [np.ones(2)])) == "no noise"


@pytest.mark.parametrize("method", int8.METHODS)
def test_calibration_that_gives_nan(method: str) -> None:
    net = build(conv("a", "x", "y"), 1, 3, 9, 9)

    def spoiled() -> Iterator[dict[str, np.ndarray]]:
        for one in feeds(net, 2):
            one["x"][:] = np.inf
            yield one

    with pytest.raises(caffe.CaffeError, match=r"^(a blob|blob '[xy]') holds NaN or infi"):
        int8.Quantiser(write_graph(net, ["y"]), spoiled(), method)

"""What scales and shifts channels becomes a part of the convolution before it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from google.protobuf import text_format
from nets import GEOMETRIES, image

import caffe
from caffe.proto import caffe_pb2 as pb

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from caffe.export.onnx import write_graph  # noqa: E402


def conv(more: str, kind: str = "Convolution", outputs: int = 4, top: str = "c") -> str:
    filler = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "gaussian" std: 1 }'
    return (
        f'layer {{ name: "conv" type: "{kind}" bottom: "x" top: "{top}" convolution_param '
        f"{{ num_output: {outputs} {more} {filler} }} }}"
    )


def layer(kind: str, bottom: str, top: str, more: str = "", name: str = "") -> str:
    head = f'name: "{name or kind.lower()}" type: "{kind}" bottom: "{bottom}" top: "{top}"'
    return f"layer {{ {head} {more} }}"


BIASED = "scale_param { bias_term: true }"
NORM = layer("BatchNorm", "c", "n") + layer("Scale", "n", "s", BIASED)


def build(text: str, *shape: int) -> caffe.Net:
    """A net on x of this shape, whose parameters are all drawn, variances above zero."""
    param = text_format.Parse(image(*shape) + text, pb.NetParameter())
    net = caffe.Net(param, caffe.TEST)
    rng = np.random.default_rng(3)
    for name, blobs in net.params.items():
        for blob in blobs:
            low = 0.5 if "batchnorm" in name or "bn" in name else -2
            blob.data[...] = rng.uniform(low, 2, blob.shape)
    return net


def answers(net: caffe.Net, outputs: Sequence[str], **options: bool) -> list[str]:
    """The file's operators, once its answers are the net's."""
    model = write_graph(net, outputs, **options)
    onnx.checker.check_model(model, full_check=True)
    x = np.random.default_rng(4).normal(size=net.blobs["x"].shape).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": x})
    net.forward(x=x)
    for name, values in zip(outputs, found, strict=True):
        expected = net.blobs[name].data
        scale = np.abs(expected).max()
        np.testing.assert_allclose(values / scale, expected / scale, atol=2e-6)
    return [node.op_type for node in model.graph.node]


@pytest.mark.parametrize("geometry", sorted(set(GEOMETRIES) - {"winograd", "transposed, winograd"}))
@pytest.mark.parametrize("bias", [True, False])
def test_batch_norm_and_scale_behind_a_convolution(geometry: str, bias: bool) -> None:
    kind, how, inputs, outputs = GEOMETRIES[geometry]
    how += "" if bias else " bias_term: false"
    text = conv(how, kind, outputs) + NORM + layer("ReLU", "s", "y")
    net = build(text, 2, inputs, 8, 9)
    transposed = kind == "Deconvolution" and ("stride" in how or "cut" in geometry)
    op = "ConvTranspose" if transposed else "Conv"
    assert answers(net, ["y"]) == [op, "Relu"]
    assert answers(net, ["y"], fold=False) == [op, "BatchNormalization", "Relu"]


def test_inner_product() -> None:
    for transpose in ("false", "true"):
        how = f"inner_product_param {{ num_output: 5 transpose: {transpose} }}"
        ip = layer("InnerProduct", "x", "c", how)
        assert answers(build(ip + NORM, 3, 4), ["s"]) == ["Gemm"]
        assert answers(build(ip + NORM, 3, 2, 2), ["s"]) == ["Flatten", "Gemm"]


@pytest.mark.parametrize(
    "behind",
    [
        layer("Scale", "c", "y", BIASED),
        layer("Scale", "c", "y", "scale_param { axis: 0 num_axes: 0 }"),  # one number for all
        layer("Bias", "c", "y"),
        layer("Power", "c", "y", "power_param { scale: 3 shift: -1 }"),
        layer("BN", "c", "y", "bn_param { moving_average: true }"),  # PSPNet's
        layer("BN", "c", "y", "bn_param { bn_mode: INFERENCE }"),  # SegNet's
        layer("BatchNorm", "c", "c") + layer("Scale", "c", "c", BIASED) + layer("Bias", "c", "y"),
    ],
)
def test_other_layers_that_scale_and_shift(behind: str) -> None:
    assert answers(build(conv("kernel_size: 3") + behind, 2, 3, 6, 7), ["y"]) == ["Conv"]


@pytest.mark.parametrize(
    ("behind", "kept"),
    [
        # what is between is given out, or taken by another layer, too
        (NORM, {"BatchNormalization"}),
        (NORM + layer("Eltwise", "s", "y", 'bottom: "c"'), {"BatchNormalization"}),
        # numbers for rows, or for samples
        (layer("Scale", "c", "s", "scale_param { axis: 2 num_axes: 1 }"), {"Mul"}),
        (layer("Scale", "c", "s", "scale_param { axis: 0 num_axes: 1 }"), {"Mul"}),
        # the batch's own statistics
        (layer("BatchNorm", "c", "s", "batch_norm_param { use_global_stats: false }"), {"Div"}),
        (layer("ReLU", "c", "r") + layer("Scale", "r", "s"), {"Relu", "Mul"}),
    ],
)
def test_what_stays(behind: str, kept: set[str]) -> None:
    net = build(conv("kernel_size: 3 pad: 1") + behind, 2, 3, 4, 4)
    outputs = [*dict.fromkeys([*net.outputs, *(["c"] if behind == NORM else [])])]
    assert kept <= set(answers(net, outputs))


def test_names_are_those_of_the_convolution_and_of_the_last_blob() -> None:
    net = build(conv("kernel_size: 3") + NORM + layer("ReLU", "s", "y"), 1, 3, 5, 5)
    graph = write_graph(net, ["y"]).graph
    assert [node.name for node in graph.node] == ["conv", "relu"]
    assert [list(node.output) for node in graph.node] == [["s"], ["y"]]
    assert sorted(c.name for c in graph.initializer) == ["conv.0", "conv.1"]


def test_weights_that_several_convolutions_share_are_folded_for_each() -> None:
    two = (
        'layer { name: "conv" type: "Convolution" bottom: "x" bottom: "z" top: "c" top: "d" '
        "convolution_param { num_output: 4 kernel_size: 3 } }"
    )
    text = layer("Power", "x", "z", "power_param { scale: 0.5 }") + two + NORM
    assert answers(build(text, 2, 3, 6, 6), ["s", "d"]) == ["Mul", "Conv", "Conv"]


def test_weights_are_rounded_once() -> None:
    """They are those of double precision; three steps in single precision differ in the end."""
    net = build(conv("kernel_size: 3", outputs=64) + NORM, 1, 3, 5, 5)
    graph = write_graph(net, ["s"]).graph
    found = {c.name: onnx.numpy_helper.to_array(c) for c in graph.initializer}
    blobs = {name: [b.data.astype(np.float64) for b in group] for name, group in net.params.items()}
    (weight, bias), (mean, variance, factor) = blobs["conv"], blobs["batchnorm"]
    share = np.float32(1 / factor[0])  # of the file's mean and variance, which are float32
    mean, variance = (np.float32(v * share).astype(np.float64) for v in (mean, variance))
    epsilon = float(np.float32(1e-5))
    gain = blobs["scale"][0] / np.sqrt(variance + epsilon)
    exact = weight * gain.reshape(-1, 1, 1, 1)
    np.testing.assert_allclose(found["conv.0"], exact, rtol=2**-23)
    shift = (bias - mean) * gain + blobs["scale"][1]
    np.testing.assert_allclose(found["conv.1"], shift, rtol=2**-20)


def test_a_step_beyond_single_precision_stays() -> None:
    net = build(conv("kernel_size: 1") + layer("Scale", "c", "s"), 1, 3, 2, 2)
    net.params["scale"][0].data[...] = 3e38
    model = write_graph(net, ["s"])
    assert [node.op_type for node in model.graph.node] == ["Conv", "Mul"]


@pytest.mark.parametrize(
    ("geometry", "op"),
    [
        ("pad: 1 kernel_size: 3 group: 2", "Conv"),
        ("kernel_h: 3 kernel_w: 2 pad_h: 2 dilation: 2", "Conv"),
        ("kernel_size: 1", "Conv"),
        ("pad: 3 kernel_size: 3", "ConvTranspose"),  # as a convolution it had to cut the image
        ("kernel_size: 2 stride: 2", "ConvTranspose"),
    ],
)
def test_deconvolution_of_stride_1_is_a_convolution(geometry: str, op: str) -> None:
    assert answers(build(conv(geometry, "Deconvolution"), 2, 6, 7, 8), ["c"]) == [op]

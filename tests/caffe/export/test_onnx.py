"""Every layer type in ONNX, by onnxruntime, against what Caffe recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.formats.onnx import TARGETS
from caffe.layers.base import REGISTRY, Layer
from caffe.proto import caffe_pb2 as pb

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from caffe.export.onnx import write_graph  # noqa: E402

ROOT = Path(__file__).parents[2] / "golden" / "layers"

# Types that serve training, bring data in or out, or run Python.
WITHOUT = {
    *("Accuracy", "SegmentationAccuracy", "ContrastiveLoss", "EuclideanLoss", "HingeLoss"),
    "InfogainLoss",
    *("MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "SoftmaxWithLoss"),
    *("Data", "HDF5Data", "HDF5Output", "ImageData", "Input", "MemoryData", "WindowData"),
    *("Python", "Silence"),
}

IN_TRAINING = {"bn_train", "bn_train_frac", "bn_scale_relu"}


def cases():
    """The recorded cases whose layers have a form, in both forms of Unpooling."""
    for path in sorted(ROOT.glob("*.npz")):
        net = text_format.Parse(str(np.load(path)["prototxt"]), pb.NetParameter())
        types = {layer.type for layer in net.layer} - {"Input"}
        if types & WITHOUT or path.stem in IN_TRAINING:
            continue
        for max_unpool in (True, False):
            yield path.stem, max_unpool


def recorded(name):
    """The net of a case in TEST phase, filled, and its arrays."""
    case = dict(np.load(ROOT / f"{name}.npz"))
    net = caffe.Net(text_format.Parse(str(case["prototxt"]), pb.NetParameter()), caffe.TEST)
    for key, values in case.items():
        kind, _, rest = key.partition("/")
        if kind == "in":
            net.blobs[rest].reshape(*values.shape)
        elif kind == "param":
            layer, _, index = rest.rpartition("/")
            net.params[layer][int(index)].data[...] = values
    net.reshape()
    return net, case


def run(model, **feeds):
    """The outputs by name, after the checker's full word on the model."""
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    given = {i.name: feeds[i.name].astype(np.float32) for i in session.get_inputs()}
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, given), strict=True))


@pytest.mark.parametrize(("name", "max_unpool"), list(cases()))
def test_recorded_layer(name, max_unpool):
    net, case = recorded(name)
    inputs = {key[3:]: values for key, values in case.items() if key.startswith("in/")}
    outputs = [key[4:] for key in case if key.startswith("out/")]
    for blob, values in run(write_graph(net, outputs, max_unpool), **inputs).items():
        expected = case[f"out/{blob}"]
        assert values.shape == expected.shape
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_an_input_that_is_overwritten():
    net, feeds = build('layer { name: "r" type: "ReLU" bottom: "x" top: "x" }', x=(2, 3))
    answers = run(write_graph(net, ["x"]), **feeds)
    assert list(answers) == ["x_out"]
    np.testing.assert_array_equal(answers["x_out"], np.maximum(feeds["x"], 0))


def test_types_without_a_form_are_known():
    without = {name for name, c in REGISTRY.items() if c.onnx is Layer.onnx and not c.fork}
    assert without == WITHOUT
    text = (
        'layer { name: "i" type: "Input" top: "a" top: "b" input_param { shape { dim: 2 } } }'
        'layer { name: "l" type: "EuclideanLoss" bottom: "a" bottom: "b" top: "loss" }'
    )
    net = caffe.Net(text_format.Parse(text, pb.NetParameter()), caffe.TEST)
    with pytest.raises(caffe.CaffeError, match=r"layer 'l': type EuclideanLoss has no ONNX form"):
        write_graph(net, ["loss"])


def build(text, **inputs):
    """A net on inputs of these shapes, and drawn values for them."""
    param = text_format.Parse(text, pb.NetParameter())
    for i, (name, shape) in enumerate(inputs.items()):
        layer = pb.LayerParameter(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=shape)
        param.layer.insert(i, layer)
    rng = np.random.default_rng(0)
    return caffe.Net(param, caffe.TEST), {
        name: rng.normal(size=shape).astype(np.float32) for name, shape in inputs.items()
    }


def check(text, outputs=("y",), more=None, **inputs):
    """onnxruntime's answers are the net's, also for another batch size."""
    net, feeds = build(text, **inputs)
    feeds.update(more or {})
    for dynamic in (False, True):
        if dynamic:
            feeds = {k: np.concatenate([v, v[:1] * 2]) for k, v in feeds.items()}
        answers = run(write_graph(net, list(outputs), dynamic_batch=dynamic), **feeds)
        for name, values in feeds.items():
            net.blobs[name].reshape(*values.shape)
        expected = net.forward(**feeds)
        for name in outputs:
            np.testing.assert_allclose(answers[name], expected[name], rtol=1e-5, atol=1e-6)


GEOMETRIES = [
    "kernel_size: 3 stride: 2",  # rounds up: the last window hangs over
    "kernel_size: 3 stride: 2 pad: 1",
    "kernel_size: 2 stride: 2 pad: 1",  # a window that would start in the padding is dropped
    "kernel_h: 2 kernel_w: 3 stride_h: 3 stride_w: 1 pad_h: 0 pad_w: 2",
    "kernel_size: 3 stride: 2 round_mode: FLOOR",
    "kernel_size: 5 stride: 3 pad: 2",
    "global_pooling: true",
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_pooling(geometry, method):
    text = f'layer {{ name: "p" type: "Pooling" bottom: "x" top: "y" pooling_param {{ {geometry} '
    check(text + f"pool: {method} }} }}", x=(2, 3, 8, 9))


@pytest.mark.parametrize("geometry", [g for g in GEOMETRIES if "global" not in g])
def test_masks_are_caffes(geometry):
    text = (
        'layer { name: "p" type: "Pooling" bottom: "x" top: "y" top: "mask" pooling_param { '
        + geometry
        + " } }"
    )
    check(text, ("y", "mask"), x=(2, 3, 8, 9))


def test_window_beyond_the_image_is_refused():
    text = (
        'layer { name: "p" type: "Pooling" bottom: "x" top: "y" '
        "pooling_param { kernel_size: 1 stride: 2 } }"
    )
    net, _ = build(text, x=(1, 1, 4, 4))  # (4 - 1) / 2 up, + 1: 3 windows, at 0, 2 and 4
    with pytest.raises(caffe.CaffeError, match=r"layer 'p'.*wholly beyond"):
        write_graph(net, ["y"])


UNPOOL = (
    'layer {{ name: "pool" type: "Pooling" bottom: "x" top: "pool" top: "mask" '
    "pooling_param {{ {pool} }} }}"
    'layer {{ name: "un" type: "Unpooling" bottom: "{values}" bottom: "mask" top: "y" '
    "unpooling_param {{ {size} }} }}"
)


@pytest.mark.parametrize("max_unpool", [True, False])
@pytest.mark.parametrize(
    ("pool", "size", "shape"),
    [
        ("kernel_size: 2 stride: 2", "scale: 2", (2, 3, 8, 6)),
        ("kernel_size: 2 stride: 2", "output_h: 7 output_w: 9", (2, 3, 7, 9)),
        (
            "kernel_h: 3 kernel_w: 2 stride_h: 3 stride_w: 2",
            "output_h: 7 output_w: 9",
            (2, 3, 7, 9),
        ),
        # Into another plane than the one that was pooled:
        ("kernel_size: 2 stride: 2", "output_h: 8 output_w: 10", (2, 3, 7, 9)),
    ],
)
def test_unpooling(pool, size, shape, max_unpool):
    net, feeds = build(UNPOOL.format(pool=pool, size=size, values="pool"), x=shape)
    # Many windows of nothing but equals: the first one is the mask.
    feeds["x"] = np.maximum(np.round(feeds["x"]), 0)
    assert (net.forward(**feeds)["y"] == 0).mean() > 0.7
    answers = run(write_graph(net, ["y"], max_unpool), **feeds)
    np.testing.assert_array_equal(answers["y"], net.blobs["y"].data)
    ops = {node.op_type for node in write_graph(net, ["y"], max_unpool).graph.node}
    if not max_unpool:
        assert "MaxUnpool" not in ops
        # Squares side by side are put together; OpenVINO is slow at reductions and at scattering.
        assert ("ScatterElements" in ops) == ("kernel_h" in pool or "10" in size)
        assert not any(op.startswith("Reduce") for op in ops)
    elif "10" not in size:
        assert "MaxUnpool" in ops


def test_places_of_equals_do_not_change_with_the_form():
    """Unpooling takes other values than pooling gave, so that a wrong place changes the result."""
    net, feeds = build(
        UNPOOL.format(pool="kernel_size: 2 stride: 2", size="scale: 2", values="v"),
        x=(1, 2, 6, 6),
        v=(1, 2, 3, 3),
    )
    feeds["x"][:] = 0
    expected = net.forward(**feeds)["y"].copy()
    assert (expected[:, :, ::2, ::2] == feeds["v"]).all()
    for form in (True, False):
        np.testing.assert_array_equal(run(write_graph(net, ["y"], form), **feeds)["y"], expected)


@pytest.mark.parametrize(
    "pool", ["kernel_size: 3 stride: 2", "kernel_size: 3 stride: 2 pad: 1", "kernel_size: 2"]
)
def test_windows_that_overlap_have_a_form_without_indices(pool):
    """Equal values, too: the first place of a window counts."""
    text = UNPOOL.format(pool=pool, size="output_h: 7 output_w: 6", values="pool")
    net, feeds = build(text, x=(2, 3, 7, 6))
    feeds["x"] = np.round(feeds["x"])
    expected = net.forward(**feeds)["y"]
    model = write_graph(net, ["y", "mask"], max_unpool=False)
    assert not {"MaxUnpool"} & {node.op_type for node in model.graph.node}
    answers = run(model, **feeds)
    np.testing.assert_array_equal(answers["mask"], net.blobs["mask"].data)
    np.testing.assert_array_equal(answers["y"], expected)


NORM = (
    'layer { name: "bn" type: "BatchNorm" bottom: "x" top: "n" } '
    'layer { name: "sc" type: "Scale" bottom: "n" top: "y" %s }'
)


@pytest.mark.parametrize("bias", ["", "scale_param { bias_term: true }"])
def test_batch_norm_and_scale_become_one(bias):
    net, feeds = build(NORM % bias, x=(2, 3, 4, 5))
    rng = np.random.default_rng(1)
    for blobs in net.params.values():
        for blob in blobs:
            blob.data[...] = rng.uniform(0.5, 2, blob.shape)
    model = write_graph(net, ["y"])
    assert [node.op_type for node in model.graph.node] == ["BatchNormalization"]
    expected = net.forward(**feeds)["y"]
    np.testing.assert_allclose(run(model, **feeds)["y"], expected, rtol=1e-5, atol=1e-6)
    # Asked for, what lies between them is there, too.
    between = run(write_graph(net, ["n", "y"]), **feeds)
    np.testing.assert_allclose(between["n"], net.blobs["n"].data, rtol=1e-5, atol=1e-6)


TWO = 'layer { name: "l" type: "%s" bottom: "x" bottom: "z" top: "y" %s }'


@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        (TWO % ("Scale", "scale_param { axis: 0 }"), {"x": (2, 3, 4), "z": (2, 3)}),
        (TWO % ("Bias", "bias_param { axis: 0 }"), {"x": (2, 3, 4), "z": (2,)}),
        (TWO % ("Concat", "concat_param { axis: -1 }"), {"x": (2, 3, 4), "z": (2, 3, 2)}),
        (
            TWO % ("Crop", "crop_param { axis: 2 offset: 1 }"),
            {"x": (2, 3, 8, 9), "z": (2, 1, 4, 5)},
        ),
        (
            TWO % ("Eltwise", "eltwise_param { coeff: 2 coeff: -0.5 }"),
            {"x": (2, 3, 4), "z": (2, 3, 4)},
        ),
        (  # a maximum takes no notice of coeff
            TWO % ("Eltwise", "eltwise_param { operation: MAX coeff: 2 coeff: -0.5 }"),
            {"x": (2, 3, 4), "z": (2, 3, 4)},
        ),
        (
            'layer { name: "l" type: "InnerProduct" bottom: "x" top: "y" inner_product_param '
            '{ num_output: 5 axis: 2 weight_filler { type: "xavier" } } }',
            {"x": (2, 3, 4)},
        ),
        (
            'layer { name: "l" type: "Reshape" bottom: "x" top: "y" '
            "reshape_param { shape { dim: 0 dim: -1 dim: 2 } } }",
            {"x": (2, 3, 4)},
        ),
        (
            'layer { name: "l" type: "ArgMax" bottom: "x" top: "y" argmax_param '
            "{ top_k: 2 out_max_val: true } }",
            {"x": (2, 3, 4, 5)},
        ),
        (
            'layer { name: "l" type: "Convolution" bottom: "x" top: "y" convolution_param '
            '{ num_output: 2 kernel_size: 2 axis: 2 weight_filler { type: "xavier" } } }',
            {"x": (2, 3, 4, 5, 5)},
        ),
        (
            'layer { name: "l" type: "Deconvolution" bottom: "x" top: "y" convolution_param '
            '{ num_output: 2 kernel_size: 1 weight_filler { type: "xavier" } } }',
            {"x": (2, 3)},
        ),
        (
            'layer { name: "l" type: "Tile" bottom: "x" top: "y" tile_param { tiles: 3 axis: 2 } }',
            {"x": (2, 3, 4)},
        ),
    ],
    ids=lambda value: value.split('"')[3] if isinstance(value, str) else "",
)
def test_any_batch_size(text, shapes):
    check(text, **shapes)


@pytest.mark.parametrize(
    "layer",
    [
        'type: "Reduction" reduction_param { coeff: 0.5 }',
        'type: "Reduction" reduction_param { operation: MEAN coeff: 2 }',
    ],
)
def test_a_scalar_has_no_axes(layer):
    net, feeds = build(f'layer {{ name: "l" bottom: "x" top: "y" {layer} }}', x=(2, 3))
    answer = run(write_graph(net, ["y"]), **feeds)["y"]
    assert answer.shape == ()
    np.testing.assert_allclose(answer, net.forward(**feeds)["y"], rtol=1e-5)


def test_layers_that_mix_samples_need_a_fixed_batch():
    text = (
        'layer { name: "l" type: "Reshape" bottom: "x" top: "y" '
        "reshape_param { shape { dim: -1 dim: 2 } } }"
    )
    net, _ = build(text, x=(2, 3, 4))
    with pytest.raises(caffe.CaffeError, match=r"layer 'l'.*mixes the samples"):
        write_graph(net, ["y"], dynamic_batch=True)


def test_static_input_and_given_states_of_an_lstm():
    text = (
        'layer { name: "l" type: "LSTM" bottom: "x" bottom: "c" bottom: "s" bottom: "h" '
        'bottom: "k" top: "y" top: "h2" top: "k2" recurrent_param { num_output: 4 '
        'expose_hidden: true weight_filler { type: "xavier" } } }'
    )
    shapes = {"x": (3, 2, 5), "c": (3, 2), "s": (2, 3), "h": (1, 2, 4), "k": (1, 2, 4)}
    net, feeds = build(text, **shapes)
    feeds["c"] = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    expected = net.forward(**feeds)
    answers = run(write_graph(net, ["y", "h2", "k2"]), **feeds)
    for name, values in answers.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)


def test_two_layers_of_one_name():
    scale = (
        'layer { name: "s" type: "Scale" bottom: "%s" top: "%s" '
        'scale_param { filler { type: "gaussian" std: 1 } } }'
    )
    net, feeds = build(scale % ("x", "z") + scale % ("z", "y"), x=(2, 3))
    expected = net.forward(**feeds)["y"]
    np.testing.assert_allclose(run(write_graph(net, ["y"]), **feeds)["y"], expected, rtol=1e-5)


def test_names_are_the_nets():
    text = (
        'layer { name: "conv" type: "Convolution" bottom: "x" top: "c" convolution_param '
        "{ num_output: 2 kernel_size: 3 } }"
        'layer { name: "relu" type: "ReLU" bottom: "c" top: "c" }'
        'layer { name: "pool" type: "Pooling" bottom: "c" top: "y" '
        "pooling_param { kernel_size: 2 stride: 2 } }"
    )
    net, _ = build(text, x=(1, 3, 8, 8))
    graph = write_graph(net, ["y"]).graph
    assert [node.name for node in graph.node] == ["conv", "relu", "pool"]
    assert [list(node.output) for node in graph.node] == [["conv:1"], ["c"], ["y"]]
    assert [c.name for c in graph.initializer] == ["conv.0", "conv.1"]
    assert [(i.name, [d.dim_value for d in i.type.tensor_type.shape.dim]) for i in graph.input] == [
        ("x", [1, 3, 8, 8])
    ]


# -- forms for other programs ---------------------------------------------------------------------

OPENCV, TENSORRT = TARGETS["opencv"], TARGETS["tensorrt"]


def ops(model):
    return [node.op_type for node in model.graph.node]


def opencv(model, engine, **feeds):
    """The outputs by name, as one of OpenCV's engines computes them."""
    cv2 = pytest.importorskip("cv2", minversion="5", reason="OpenCV 5 is not installed")
    path = Path("net.onnx")  # from memory, OpenCV 5.0 takes no notice of the engine
    path.write_bytes(model.SerializeToString())
    cv2.utils.logging.setLogLevel(0)
    net = cv2.dnn.readNetFromONNX(str(path), getattr(cv2.dnn, engine))
    for item in model.graph.input:
        net.setInput(feeds[item.name].astype(np.float32), item.name)
    names = [item.name for item in model.graph.output]
    return dict(zip(names, net.forward(names), strict=True))


@pytest.mark.parametrize("engine", ["ENGINE_NEW", "ENGINE_CLASSIC"])
def test_recorded_layers_in_opencv(engine, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    apart = {"filter"}  # it has no form for OpenCV
    if engine == "ENGINE_CLASSIC":
        apart.add("parameter")  # a net without inputs
    names = sorted({name for name, _ in cases()} - apart)
    assert len(names) > 70
    for name in names:
        net, case = recorded(name)
        inputs = {key[3:]: values for key, values in case.items() if key.startswith("in/")}
        outputs = [key[4:] for key in case if key.startswith("out/")]
        model = write_graph(net, outputs, target=OPENCV)
        for blob, values in opencv(model, engine, **inputs).items():
            expected = case[f"out/{blob}"]
            assert values.shape == expected.shape, name
            largest = np.abs(expected).max()
            np.testing.assert_allclose(values, expected, 1e-4, 1e-5 * largest + 1e-5, err_msg=name)


def test_padding_that_counts_is_explicit_for_opencv():
    pool = "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: %d }"
    text = f'layer {{ name: "l" type: "Pooling" bottom: "x" top: "y" {pool} }}'
    for pad, expected in ((1, ["Pad", "AveragePool", "Div"]), (0, ["AveragePool"])):
        net, feeds = build(text % pad, x=(1, 2, 8, 7))
        model = write_graph(net, ["y"], target=OPENCV)
        assert ops(model) == expected
        np.testing.assert_allclose(run(model, **feeds)["y"], net.forward(**feeds)["y"], 1e-5, 1e-6)
    assert "Pad" not in ops(write_graph(net, ["y"]))


@pytest.mark.parametrize(
    "conv", ["kernel_size: 1 pad: 1", "kernel_size: 3 pad: 1 dilation: 2 group: 4"]
)
def test_padding_that_opencv_ignores_is_explicit(conv, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    filler = 'weight_filler { type: "gaussian" std: 1 } bias_filler { type: "constant" value: 3 }'
    text = (
        'layer { name: "l" type: "Convolution" bottom: "x" top: "y" '
        f"convolution_param {{ num_output: 4 {conv} {filler} }} }}"
    )
    net, feeds = build(text, x=(1, 4, 7, 8))
    expected = net.forward(**feeds)["y"]
    model = write_graph(net, ["y"], target=OPENCV)
    assert ops(model) == ["Pad", "Conv"]
    assert ops(write_graph(net, ["y"])) == ["Conv"]
    np.testing.assert_allclose(run(model, **feeds)["y"], expected, rtol=1e-5, atol=1e-5)
    for engine in ("ENGINE_NEW", "ENGINE_CLASSIC"):
        answer = opencv(model, engine, **feeds)["y"]
        np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["TanH", "BNLL"])
def test_large_values_in_opencv(kind, tmp_path, monkeypatch):
    """OpenCV's own operators give NaN and infinity."""
    monkeypatch.chdir(tmp_path)
    net, _ = build(f'layer {{ name: "l" type: "{kind}" bottom: "x" top: "y" }}', x=(1, 8))
    x = np.array([[-1000, -50, -1, 0, 1, 50, 100, 1000]], np.float32)
    expected = net.forward(x=x)["y"]
    model = write_graph(net, ["y"], target=OPENCV)
    np.testing.assert_allclose(run(model, x=x)["y"], expected, rtol=1e-6, atol=1e-7)
    answer = opencv(model, "ENGINE_NEW", x=x)["y"]
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_only_onnxruntime_gets_max_unpool(name):
    text = UNPOOL.format(pool="kernel_size: 2 stride: 2", size="scale: 2", values="pool")
    net, _ = build(text, x=(1, 1, 6, 6))
    model = write_graph(net, ["y"], target=TARGETS[name])
    assert ("MaxUnpool" in ops(model)) == (name == "onnxruntime")


def test_softmax_of_a_large_image_in_openvino():
    """OpenVINO is slow to bring 16 to 64 channels of a large image to the front."""
    for name, channels, side, axis, last in (
        ("openvino", 21, 160, 1, True),
        ("openvino", 21, 160, -3, True),
        ("openvino", 21, 160, 2, False),
        ("openvino", 21, 9, 1, False),
        ("openvino", 10, 240, 1, False),
        ("onnxruntime", 21, 160, 1, False),
    ):
        text = f'type: "Softmax" bottom: "x" top: "y" softmax_param {{ axis: {axis} }}'
        net, feeds = build(f'layer {{ name: "s" {text} }}', x=(1, channels, side, side))
        model = write_graph(net, ["y"], target=TARGETS[name])
        wanted = ["Transpose", "Softmax", "Transpose"] if last else ["Softmax"]
        assert [node.op_type for node in model.graph.node] == wanted
        expected = net.forward(**feeds)["y"]
        np.testing.assert_allclose(run(model, **feeds)["y"], expected, rtol=1e-5, atol=1e-7)


def test_what_a_program_cannot_take_is_told():
    net, _ = build('layer { name: "l" type: "ReLU" bottom: "x" top: "y" }', x=(1, 1, 2, 2, 2, 2))
    for target in (OPENCV, TENSORRT):
        said = rf"^layer 'x' \(Input\): has a blob of 6 axes; {target.title} takes at most 5$"
        with pytest.raises(caffe.CaffeError, match=said):
            write_graph(net, ["y"], target=target)
    net, _ = build(
        'layer { name: "l" type: "Filter" bottom: "x" bottom: "s" top: "y" }', x=(3, 2), s=(3,)
    )
    with pytest.raises(
        caffe.CaffeError, match=r"^layer 'l' \(Filter\): .* files for OpenCV cannot"
    ):
        write_graph(net, ["y"], target=OPENCV)
    pool = 'type: "ROIPooling" roi_pooling_param { pooled_h: 2 pooled_w: 2 }'
    text = f'layer {{ name: "l" {pool} bottom: "x" bottom: "r" top: "y" }}'
    net, _ = build(text, x=(1, 2, 8, 8), r=(3, 5))
    for target in (OPENCV, TENSORRT):
        said = f"^layer 'l': files for {target.title} cannot hold MaxRoiPool$"
        with pytest.raises(caffe.CaffeError, match=said):
            write_graph(net, ["y"], target=target)
    with pytest.raises(caffe.CaffeError, match="files for TensorRT have a fixed batch size"):
        write_graph(net, ["y"], dynamic_batch=True, target=TENSORRT)


def test_an_input_as_it_is_may_be_an_output():
    net, feeds = build('layer { name: "r" type: "ReLU" bottom: "x" top: "y" }', x=(2, 3))
    answers = run(write_graph(net, ["x", "y"]), **feeds)
    np.testing.assert_array_equal(answers["x_out"], feeds["x"])
    np.testing.assert_array_equal(answers["y"], np.maximum(feeds["x"], 0))

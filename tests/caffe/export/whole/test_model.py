"""Files that take whole frames: what they compute is what data_tools and eval_tools make of one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.export import programs
from caffe.export.onnx import write_graph
from caffe.export.whole.facts import DepthRule
from caffe.export.whole.model import framed
from caffe.export.whole.taken import Framing, taken
from caffe.formats.onnx import TARGETS
from caffe.proto import caffe_pb2 as pb
from data_tools.depth import DepthRange, DepthUnit
from data_tools.record import Frame, RecordFormat
from eval_tools.frames import record
from eval_tools.inference import Options, segment
from eval_tools.network import Network

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

WIDTH, HEIGHT = SIZE = (32, 24)
INPUT = """
layer {{ name: "{0}" type: "Input" top: "{0}"
  input_param {{ shape {{ dim: 1 dim: {1} dim: 24 dim: 32 }} }} }}
"""
SCORE = """
layer { name: "both" type: "Concat" bottom: "rgb" bottom: "depth" top: "labels" }
layer { name: "score" type: "Convolution" bottom: "labels" top: "score"
  convolution_param { num_output: 5 kernel_size: 3 pad: 1
    weight_filler { type: "gaussian" std: 1 } } }
layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }
"""
BOTH = INPUT.format("rgb", 3) + INPUT.format("depth", 1) + SCORE
ONE = SCORE.replace('bottom: "rgb" bottom: "depth"', 'bottom: "x"')
NETS = {
    "both": BOTH,
    "colour": INPUT.format("x", 3) + ONE,
    "depth": INPUT.format("x", 1) + ONE,
    "stacked": INPUT.format("x", 4) + ONE,
}
EXACT = ("onnxruntime", "opencv")  # they compute in float64, as NumPy does


def net_of(text: str) -> caffe.Net:
    caffe.set_random_seed(4)
    return caffe.Net(text_format.Parse(text, pb.NetParameter()), caffe.TEST)


def frame_of(size: tuple[int, int], depth_size: tuple[int, int] | None = None) -> Frame:
    """A frame with slopes, noise, and holes in depth, which has 5000 steps in a metre."""
    rng = np.random.default_rng(size[0])
    rough = rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    colour = cv2.resize(rough, size, interpolation=cv2.INTER_CUBIC)
    colour = cv2.add(colour, rng.integers(0, 20, colour.shape).astype(np.uint8))
    far = cv2.resize(rng.uniform(2000, 45000, (4, 4)), depth_size or size)
    depth = far.astype(np.uint16)
    depth[rng.random(depth.shape) < 0.05] = 0
    return Frame(colour, depth)


def feeds_of(frame: Frame) -> dict[str, np.ndarray]:
    return {"color": frame.color, "depth": frame.depth, "unit": np.array(5000, np.float32)}


def answers(net, framing, program, frame, planes=False):
    """The file's outputs by name; planes: only the net's inputs, by their names there."""
    target, found = TARGETS[program], taken(net)
    model = write_graph(net, [found.score], True, False, target)
    model = framed(model, found, framing, target, {})
    onnx.checker.check_model(model, full_check=True)
    names = [item.name for item in model.graph.output]
    if planes:
        names = [name if name != "depth" else "net/depth" for name in found.inputs]
        shapes = [net.blobs[name].shape for name in found.inputs]
        infos = [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in zip(names, shapes, strict=True)
        ]
        del model.graph.output[:]
        model.graph.output.extend(infos)
    taken_names = {item.name for item in model.graph.input}
    feeds = {name: value for name, value in feeds_of(frame).items() if name in taken_names}
    values = programs.answers(target, model.SerializeToString(), feeds, names)
    return dict(zip(names, values, strict=True))


def record_format(rule: str, fit: str, floats: bool = False) -> RecordFormat:
    unit = DepthUnit.parse("5000")
    return RecordFormat(SIZE, unit, DepthRange.parse(rule), floats, fit=fit)


def predicted(net, form: RecordFormat, frame: Frame):
    """What eval_tools.predict --size original makes of the frame."""
    found = record(frame.color, frame.depth, "f", form)
    options = Options(frame.color.shape[1::-1])
    return segment(Network(net, "net"), [found], options, confidence=True)[0]


def installed(program: str) -> None:
    if not programs.is_installed(TARGETS[program]):
        pytest.skip(f"{program} is not installed")


# Aspect ratios: the net's, one within 1 % of it, broader, narrower; enlarged, too. In the last one
# OpenCV's nearest pixels follow from the rounding of a quotient's inverse: a row of 68 / 24.
SIZES = [(64, 48), (321, 243), (100, 47), (45, 90), (20, 15), (33, 17), (94, 68)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_net_gets_what_a_record_would_hold(size, fit) -> None:
    net, frame = net_of(BOTH), frame_of(size)
    for rule, floats in (("authors", False), ("valid", False), ("1:6.5", False), ("valid", True)):
        framing = Framing(DepthRule.parse(rule), floats, fit)
        found = answers(net, framing, "onnxruntime", frame, planes=True)
        expected = record_format(rule, fit, floats).planes(frame)
        np.testing.assert_array_equal(found["rgb"][0], expected[:3])
        np.testing.assert_array_equal(found["net/depth"][0, 0], expected[3])


@pytest.mark.parametrize("program", ["opencv", "openvino"])
@pytest.mark.parametrize(
    ("size", "fit", "rule"),
    [
        (SIZES[1], "stretch", "1:6.5"),
        (SIZES[2], "crop", "authors"),
        (SIZES[3], "pad", "valid"),
    ],
)
def test_other_programs_get_it_too(program, size, fit, rule) -> None:
    """Where there is no float64, a few values of colour differ by 1."""
    installed(program)
    net, frame = net_of(BOTH), frame_of(size)
    found = answers(net, Framing(DepthRule.parse(rule), False, fit), program, frame, True)
    expected = record_format(rule, fit).planes(frame)
    np.testing.assert_array_equal(found["net/depth"][0, 0], expected[3])
    away = np.abs(found["rgb"][0] - expected[:3])
    assert away.max() <= (0 if program in EXACT else 1)
    assert (away > 0).mean() < 0.005


def test_depth_of_another_size_than_colour() -> None:
    net, frame = net_of(BOTH), frame_of((100, 47), depth_size=(200, 94))
    for fit in ("crop", "pad", "stretch"):
        found = answers(net, Framing(DepthRule("valid"), False, fit), "onnxruntime", frame, True)
        expected = record_format("valid", fit).planes(frame)
        np.testing.assert_array_equal(found["net/depth"][0, 0], expected[3])


@pytest.mark.parametrize("program", ["onnxruntime", "opencv", "openvino"])
@pytest.mark.parametrize(("size", "fit"), [(SIZES[2], "crop"), (SIZES[3], "pad")])
def test_labels_and_probabilities_at_the_frames_size(program, size, fit) -> None:
    installed(program)
    net, frame = net_of(BOTH), frame_of(size)
    expected = predicted(net, record_format("valid", fit), frame)
    framing = Framing(DepthRule("valid"), False, fit, probabilities=True)
    found = answers(net, framing, program, frame)
    labels, shares = found["labels"], found["probabilities"]
    assert labels.dtype == np.uint8
    assert labels.shape == frame.color.shape[:2]
    assert shares.shape == (5, *labels.shape)
    assert (labels == expected.label).mean() > (0.9999 if program in EXACT else 0.995)
    agree = labels == expected.label
    away = np.abs(shares.max(0) - expected.confidence)[agree]
    assert np.quantile(away, 0.99) < 1e-3
    if fit == "crop":  # 63 columns in the middle are seen
        assert not labels[:, 0].any()
        assert not shares[:, :, 0].any()


@pytest.mark.parametrize("name", ["colour", "depth", "stacked"])
def test_nets_of_other_inputs(name) -> None:
    net, frame = net_of(NETS[name]), frame_of((100, 47))
    form = record_format("valid", "crop")
    found = answers(net, Framing(DepthRule("valid")), "onnxruntime", frame)
    planes = {"colour": (0, 3), "depth": (3, 4), "stacked": (0, 4)}[name]
    got = answers(net, Framing(DepthRule("valid")), "onnxruntime", frame, planes=True)["x"][0]
    np.testing.assert_array_equal(got, form.planes(frame)[slice(*planes)])
    np.testing.assert_array_equal(found["labels"], predicted(net, form, frame).label)


def test_scores_that_are_probabilities_are_only_made_to_add_up() -> None:
    text = BOTH.replace('"score"', '"s"').replace('top: "prob"', 'top: "p"')
    net, frame = net_of(text), frame_of((64, 48))
    assert taken(net).softmax
    framing = Framing(DepthRule("valid"), probabilities=True)
    shares = answers(net, framing, "onnxruntime", frame)["probabilities"]
    expected = predicted(net, record_format("valid", "crop"), frame)
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(shares.max(0), expected.confidence, atol=1e-4)


def test_depth_that_is_0_to_255_needs_no_unit() -> None:
    net = net_of(BOTH)
    frame = Frame(frame_of((64, 48)).color, np.arange(64 * 48, dtype=np.uint16).reshape(48, 64))
    found = answers(net, Framing(DepthRule("none")), "onnxruntime", frame, planes=True)
    expected = np.minimum(frame.depth[::2, ::2], 255)
    np.testing.assert_array_equal(found["net/depth"][0, 0], expected)


def test_a_frame_without_a_reading_is_0() -> None:
    frame = Frame(frame_of((64, 48)).color, np.zeros((48, 64), np.uint16))
    for rule in ("authors", "valid", "1:6.5"):
        framing = Framing(DepthRule.parse(rule))
        found = answers(net_of(BOTH), framing, "onnxruntime", frame, planes=True)
        assert not found["net/depth"].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            NETS["colour"].replace("dim: 1 dim: 3", "dim: 2 dim: 3"),
            "'x' has the shape 2x3x24x32; expected",
        ),
        (INPUT.format("x", 2) + ONE, "'x' has the shape 1x2x24x32; expected 1x3xHxW"),
        (SCORE.replace("rgb", "x").replace("depth", "y"), "unknown bottom"),
        (NETS["colour"].replace("kernel_size: 3 pad: 1", "kernel_size: 3"), "1x5x22x30; expected"),
        (
            NETS["colour"].replace('"score"', '"a"').replace("Softmax", "Split")
            + 'layer { name: "q" type: "Power" bottom: "a" top: "q" }',
            "no blob 'score', and the outputs are",
        ),
        (
            BOTH.replace("dim: 1 dim: 1 dim: 24", "dim: 1 dim: 3 dim: 24"),
            "inputs are .*expected one of colour",
        ),
    ],
)
def test_other_nets_are_refused(text, message) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        taken(net_of(text))


def test_tensorrt_takes_fixed_sizes_only() -> None:
    with pytest.raises(caffe.CaffeError, match="files for TensorRT take one size only"):
        answers(net_of(BOTH), Framing(DepthRule("valid")), "tensorrt", frame_of((64, 48)))

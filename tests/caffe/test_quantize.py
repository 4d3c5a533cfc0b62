"""caffe.quantize: from a deploy net and records to an int8 file."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from records import make_lmdb

import caffe
from caffe import quantize
from caffe.kernels import processor

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

NET = """
layer { name: "rgb" type: "Input" top: "rgb"
  input_param { shape { dim: 1 dim: 3 dim: 12 dim: 16 } } }
layer { name: "depth" type: "Input" top: "depth"
  input_param { shape { dim: 1 dim: 1 dim: 12 dim: 16 } } }
layer { name: "color" type: "Convolution" bottom: "rgb" top: "color"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "color_bn" type: "BatchNorm" bottom: "color" top: "color" }
layer { name: "range" type: "Convolution" bottom: "depth" top: "range"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "sum" type: "Eltwise" bottom: "color" bottom: "range" top: "sum" }
layer { name: "relu" type: "ReLU" bottom: "sum" top: "sum" }
layer { name: "middle" type: "Convolution" bottom: "sum" top: "middle"
  convolution_param { num_output: 24 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
layer { name: "score" type: "Deconvolution" bottom: "middle" top: "score"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "xavier" } } }
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with net.prototxt, net.caffemodel and lmdb, as the working directory; the log is as
    quiet as the command's.
    """
    monkeypatch.chdir(tmp_path)
    caffe.set_logging(False)
    caffe.set_random_seed(3)
    Path("net.prototxt").write_text(NET)
    net = caffe.Net("net.prototxt", caffe.TEST)
    for blob in net.params["color_bn"]:
        blob.data[...] = np.random.default_rng(1).uniform(0.5, 2, blob.shape)
    net.save("net.caffemodel")
    rng = np.random.default_rng(2)
    make_lmdb(tmp_path / "lmdb", [rng.integers(0, 255, (5, 12, 16), np.uint8) for _ in range(6)])
    yield tmp_path
    caffe.set_logging(True)


MODEL = ["--for", "onnxruntime", "net.prototxt", "net.caffemodel", "lmdb"]


def feeds() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    shapes = {"rgb": (1, 3, 12, 16), "depth": (1, 1, 12, 16)}
    return {n: rng.integers(0, 255, s).astype(np.float32) for n, s in shapes.items()}


def answers(path: str) -> np.ndarray:
    (found,) = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds())
    return found


def in_int8(path: str) -> set[str]:
    """The layers with weights in int8."""
    names = {item.name for item in onnx.load(path).graph.initializer}
    return {name.removesuffix(".0_quantized") for name in names if name.endswith(".0_quantized")}


def test_the_command(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quantize.main([*MODEL, "net.onnx", "--frames", "4"])
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0] == "lmdb: ranges from 4 of 6 records"
    assert lines[1] == "noise of 4 layers, each measured by itself"
    assert re.match(r"net.onnx: written, \d of 4 layers in int8 \(\d+% of their mult", lines[2])
    assert re.match(r"score against float32: \d\d\.\d dB, the same highest channel", lines[-1])
    graph = onnx.load("net.onnx").graph
    assert [item.name for item in graph.input] == ["rgb", "depth"]
    assert [item.name for item in graph.output] == ["score"]
    net = caffe.Net("net.prototxt", "net.caffemodel", caffe.TEST)
    expected = net.forward(**feeds())["score"]
    error = np.square(answers("net.onnx") - expected).sum() / np.square(expected).sum()
    assert 0 < error < 0.005  # 23 dB


@pytest.mark.parametrize("saturates", [False, True])
def test_weights_are_short_where_sums_saturate(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch, saturates: bool
) -> None:
    monkeypatch.setattr(processor, "saturates", lambda: saturates)

    def largest() -> int:
        arrays = map(onnx.numpy_helper.to_array, onnx.load("net.onnx").graph.initializer)
        return max(np.abs(a.astype(int)).max() for a in arrays if a.dtype == np.int8)

    cases = ((), saturates), (("--short-weights",), True), (("--no-short-weights",), False)
    for option, short in cases:
        quantize.main([*MODEL, "net.onnx", "--float", "none", *option])
        assert (largest() <= 64) == short
        assert ("weights of 7 bits" in capsys.readouterr().err) == short


def test_layers_that_stay_in_float32(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`color` and `range` do few of the multiplications; `--keep` asks for layers by name."""
    quantize.main([*MODEL, "auto.onnx"])
    assert {"middle", "score"} <= in_int8("auto.onnx") < {"color", "range", "middle", "score"}
    quantize.main([*MODEL, "none.onnx", "--float", "none"])
    assert in_int8("none.onnx") == {"color", "range", "middle", "score"}
    capsys.readouterr()
    quantize.main([*MODEL, "kept.onnx", "--float", "none", "--keep", "s*", "--keep", "color"])
    assert in_int8("kept.onnx") == {"range", "middle"}
    assert "in float32: color, score" in capsys.readouterr().err.splitlines()


def test_in_openvino(files: Path) -> None:
    openvino = pytest.importorskip("openvino", reason="OpenVINO is not installed")
    quantize.main([*MODEL[2:], "net.onnx", "--float", "none"])
    compiled = openvino.Core().compile_model("net.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(feeds())["score"]
    expected = caffe.Net("net.prototxt", "net.caffemodel", caffe.TEST).forward(**feeds())["score"]
    assert np.square(found - expected).sum() / np.square(expected).sum() < 0.005


@pytest.mark.parametrize("target", quantize.READERS)
def test_unpooling_is_plain_arithmetic(files: Path, target: str) -> None:
    """onnxruntime would look for the places of maxima among values rounded to 8 bits."""
    text = NET.replace('bottom: "sum" top: "middle"', 'bottom: "un" top: "middle"')
    pooled = (
        'layer { name: "pool" type: "Pooling" bottom: "sum" top: "pool" top: "mask" pooling_param '
        "{ pool: MAX kernel_size: 2 stride: 2 } }"
        'layer { name: "un" type: "Unpooling" bottom: "pool" bottom: "mask" top: "un" '
        "unpooling_param { scale: 2 } }"
    )
    Path("net.prototxt").write_text(
        text.replace('layer { name: "middle"', f'{pooled}layer {{ name: "middle"')
    )
    quantize.main(["--for", target, *MODEL[2:], "net.onnx", "--float", "none"])
    kinds = {node.op_type for node in onnx.load("net.onnx").graph.node}
    assert "Where" in kinds
    assert "MaxUnpool" not in kinds


LARGER = ["--input", "rgb=1x3x24x32", "--input", "depth=1x1x24x32"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*MODEL, "none/net.onnx"], "none/net.onnx: the folder none does not exist"),
        ([*MODEL[:-1], "none", "net.onnx"], "none: No such file"),
        ([*MODEL, "net.onnx", "--keep", "fc*"], "--keep fc.: no layer that could be in int8 has"),
        ([*MODEL, "net.onnx", "--keep", "*"], "--keep: all layers would stay in float32"),
        ([*MODEL, "net.onnx", *LARGER], "gives input 'rgb' 3x12x16 values, the net takes 3x24x32"),
        ([*MODEL, "net.onnx", "--outputs", "fc"], "fc"),
        ([*MODEL, "net.onnx", "--data", "none"], "none: No such file"),
    ],
)  # fmt: skip
def test_bad_input(files: Path, arguments: list[str], message: str) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        quantize.main(arguments)
    assert not Path("net.onnx").exists()


def test_weights_that_are_not_finite(files: Path) -> None:
    net = caffe.Net("net.prototxt", "net.caffemodel", caffe.TEST)
    net.params["middle"][1].data[2] = np.nan
    net.save("nan.caffemodel")
    said = r"nan\.caffemodel: blob 1 of layer 'middle' holds NaN or infinity"
    with pytest.raises(caffe.CaffeError, match=said):
        quantize.main(["net.prototxt", "nan.caffemodel", "lmdb", "net.onnx"])


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quantize.main(["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "up to 10% of the multiplications" in said
    assert "99.99 % of them (percentile, the default)" in said


def test_bad_usage(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in (
        ([*MODEL], "expected NET WEIGHTS LMDB OUT"),
        (["a.fusenet", *MODEL[2:]], "expected PACKED LMDB OUT"),
        ([*MODEL, "net.pt"], "net.pt: expected a name that ends in .onnx"),
        ([*MODEL, "net.onnx", "--frames", "0"], "'0': expected a whole number above 0"),
    ):
        with pytest.raises(SystemExit) as end:
            quantize.main(arguments)
        assert end.value.code == 2
        assert message in capsys.readouterr().err


def test_programs_that_do_not_read_such_files(files: Path) -> None:
    net = caffe.Net("net.prototxt", "net.caffemodel", caffe.TEST)
    with pytest.raises(caffe.CaffeError, match="for openvino or onnxruntime, not for 'opencv'"):
        quantize.quantize(net, "lmdb", "net.onnx", target="opencv")


def test_without_the_packages(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(caffe.CaffeError, match=r"pip install 'fusenet\[onnx\]'"):
        quantize.main([*MODEL, "net.onnx"])


def test_onnxruntimes_own_quantiser_takes_a_fusenet(tmp_path: Path) -> None:
    """It stopped at blobs such as conv5_3_D_scale while BatchNorm stood apart."""
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    from caffe.convert import to_onnx

    netgen = [sys.executable, "-m", "netgen", "sf5", "--deploy", "--size", "64x48"]
    text = subprocess.run(
        [*netgen, "--width-multiplier", "0.125"], check=True, capture_output=True, text=True
    ).stdout
    (tmp_path / "deploy.prototxt").write_text(text)
    net = caffe.Net(str(tmp_path / "deploy.prototxt"), caffe.TEST)
    for layer in net.layers:
        if layer.type == "BatchNorm":
            layer.blobs[1].data[...] = layer.blobs[2].data[...] = 1  # else it multiplies by 316
    to_onnx(net, tmp_path / "net.onnx", target="openvino", check=False)
    rng = np.random.default_rng(0)
    frames = iter(
        {n: rng.uniform(0, 255, net.blobs[n].shape).astype(np.float32) for n in net.inputs}
        for _ in range(2)
    )

    class Reader:
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(frames, None)

    quantize_static(
        tmp_path / "net.onnx",
        tmp_path / "int8.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "ConvTranspose"],
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    convolutions = sum(layer.type in ("Convolution", "Deconvolution") for layer in net.layers)
    assert len(in_int8(str(tmp_path / "int8.onnx"))) == convolutions == 39
    session = ort.InferenceSession(tmp_path / "int8.onnx", providers=["CPUExecutionProvider"])
    found = session.run(None, {n: np.ones(net.blobs[n].shape, np.float32) for n in net.inputs})
    assert found[0].shape == (1, 41, 48, 64)

"""caffe.convert --with-preprocessing: its options, what it says, and what its file says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from boundary import packed
from caffe import convert
from caffe.export import programs
from caffe.export.whole import command
from caffe.proto import caffe_pb2 as pb

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

NET = """
layer { name: "in" type: "Input" top: "rgb" top: "depth"
  input_param { shape { dim: 1 dim: 3 dim: 12 dim: 16 } shape { dim: 1 dim: 1 dim: 12 dim: 16 } } }
layer { name: "both" type: "Concat" bottom: "rgb" bottom: "depth" top: "both" }
layer { name: "score" type: "Convolution" bottom: "both" top: "score"
  convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "gaussian" std: 1 } } }
layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }
"""
INFO = {
    "classes": ["(ignored)", "near", "far"],
    "palette": [[0, 0, 0], [1, 2, 3], [4, 5, 6]],
    "options": {"depth_range": "0.5:8 m", "float_depth": True, "fit": "pad"},
}
FRAME = {
    "color": np.arange(30 * 20 * 3, dtype=np.uint16).reshape(20, 30, 3).astype(np.uint8),
    "depth": np.arange(600, 1200, dtype=np.uint16).reshape(20, 30),
    "unit": np.array(1000, np.float32),
}


@pytest.fixture
def files(tmp_path, monkeypatch) -> None:
    """net.prototxt and net.caffemodel in the current folder."""
    monkeypatch.chdir(tmp_path)
    caffe.set_random_seed(1)
    (tmp_path / "net.prototxt").write_text(NET)
    caffe.Net(text_format.Parse(NET, pb.NetParameter()), caffe.TEST).save("net.caffemodel")


def run(line: str) -> None:
    convert.main(f"--with-preprocessing {line}".split())


def properties(path: str) -> dict[str, str]:
    return {item.key: item.value for item in onnx.load(path).metadata_props}


@pytest.mark.usefixtures("files")
def test_a_rule_that_contradicts_the_training_is_warned_of(capsys) -> None:
    Path("data.json").write_text('{"options": {"depth_range": "0:8 m"}}')
    files = "net.prototxt net.caffemodel x.onnx --no-check --dataset data.json"
    for given, warned in (("0:8", False), ("0.5:8", True), ("valid", True)):
        run(f"{files} --depth-range {given}")
        said = capsys.readouterr().err
        assert ("warning: --depth-range is" in said) == warned
        assert ("but the net was trained with 0:8 m" in said) == warned


@pytest.mark.usefixtures("files")
def test_what_is_assumed_is_said(capsys) -> None:
    run("net.prototxt net.caffemodel net.onnx")
    said = capsys.readouterr().err
    assert "depth range: authors (each frame's minimum to maximum), as nothing says" in said
    assert "net.onnx: written, as onnxruntime" in said
    assert "; onnxruntime labels a drawn frame\n" in said
    found = properties("net.onnx")
    source = json.loads(found.pop("source"))
    assert found == {
        "palette": "[[0, 0, 0], [128, 0, 0], [0, 128, 0]]",
        "depth_range": "authors",
        "float_depth": "false",
        "fit": "crop",
        "input_size": "16x12",
    }
    for part, name in (("net", "net.prototxt"), ("weights", "net.caffemodel")):
        digest = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        assert source[part] == {"file": name, "sha256": digest}


@pytest.mark.usefixtures("files")
def test_a_packed_model_says_it_all(capsys) -> None:
    parts = {"net": "net.prototxt", "weights": "net.caffemodel"}
    packed.write("m.fusenet", INFO, parts, caffe.CaffeError)
    run("--no-check m.fusenet net.onnx")
    said = capsys.readouterr().err
    assert said.endswith("net.onnx: written, not compared\n")
    assert "depth range" not in said
    found = properties("net.onnx")
    assert json.loads(found["classes"]) == INFO["classes"]
    assert json.loads(found["palette"]) == INFO["palette"]
    said = [found[key] for key in ("depth_range", "float_depth", "fit")]
    assert said == ["0.5:8 m", "true", "pad"]
    content, target = Path("net.onnx").read_bytes(), convert.target_of("onnxruntime")
    assert programs.answers(target, content, FRAME, ["labels"])[0].shape == (20, 30)


@pytest.mark.usefixtures("files")
def test_options_go_before_what_is_known() -> None:
    Path("dataset.json").write_text(json.dumps(INFO))
    line = "--dataset dataset.json --depth-range 1:5 --fit stretch --with-probabilities --no-check"
    run(f"{line} net.prototxt net.caffemodel net.onnx")
    found = properties("net.onnx")
    assert [found[key] for key in ("depth_range", "fit")] == ["1:5 m", "stretch"]
    assert [item.name for item in onnx.load("net.onnx").graph.output] == ["labels", "probabilities"]


@pytest.mark.usefixtures("files")
def test_programs_are_compared(capsys) -> None:
    if not programs.is_installed(convert.target_of("opencv")):
        pytest.skip("OpenCV is not installed")
    run("--for opencv --depth-range valid net.prototxt net.caffemodel net.onnx")
    said = "OpenCV and onnxruntime agree on the labels of 100.00% of a drawn frame's pixels"
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("files")
def test_nothing_is_left_where_programs_differ(monkeypatch, tmp_path) -> None:
    answers = programs.answers

    def wrong(target, model, feeds, outputs):
        found = answers(target, model, feeds, outputs)
        turn = target.name == "opencv" and "labels" in outputs
        return [(value == 0).astype(np.uint8) for value in found] if turn else found

    monkeypatch.setattr(command.programs, "answers", wrong)
    with pytest.raises(caffe.CaffeError, match="OpenCV and onnxruntime differ on the labels of"):
        run("--for opencv --depth-range valid net.prototxt net.caffemodel net.onnx")
    assert not (tmp_path / "net.onnx").exists()


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--fit crop", "--fit is for --with-preprocessing"),
        ("--depth-range valid", "--depth-range is for --with-preprocessing"),
        ("--with-probabilities", "--with-probabilities is for --with-preprocessing"),
        ("--with-preprocessing --dynamic-batch", "gives labels of one frame: no --dynamic-batch"),
        ("--with-preprocessing --outputs score,prob", "--outputs names the scores alone"),
        ("--with-preprocessing --depth-range 8:1", "'8:1': expected authors, valid or MIN:MAX"),
    ],
)
def test_bad_usage(line, message, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        convert.main([*line.split(), "net.prototxt", "net.caffemodel", "net.onnx"])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("net.prototxt net.caffemodel net.pt", "net.pt: --with-preprocessing is for ONNX files"),
        ("--outputs none net.prototxt net.caffemodel net.onnx", "output 'none' has the shape none"),
        ("--for tensorrt net.prototxt net.caffemodel net.onnx", "files for TensorRT take one size"),
        ("--dataset no net.prototxt net.caffemodel net.onnx", "no: No such file"),
    ],
)
def test_bad_input_leaves_no_file(line, message, tmp_path) -> None:
    with pytest.raises(caffe.CaffeError, match=message):
        run(line)
    assert not list(tmp_path.glob("*.onnx"))
    assert not list(tmp_path.glob("*.pt"))

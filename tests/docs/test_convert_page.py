"""docs/convert.md: its programs run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

import caffe
from caffe import convert
from caffe.export import programs
from caffe.formats.onnx import TARGETS
from eval_tools import predict
from netgen.cli import main as netgen

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "convert.md").read_text(encoding="utf-8")


def program(start: str) -> str:
    """The Python block of the page that begins with `start`."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(start)]
    return found


@pytest.fixture
def model(tmp_path, monkeypatch, capsys) -> Path:
    """A folder, the current one, with deploy.prototxt and net.caffemodel of a narrow SF1."""
    monkeypatch.chdir(tmp_path)
    arguments = [
        "sf1",
        "--deploy",
        "--size",
        "160x120",
        "--classes",
        "5",
        "--width-multiplier",
        "0.05",
    ]
    assert netgen(arguments) == 0
    Path("deploy.prototxt").write_text(capsys.readouterr().out)
    caffe.set_random_seed(3)
    net = caffe.Net("deploy.prototxt", caffe.TEST)
    for layer in net.layers:
        if layer.type == "BatchNorm":
            for blob, value in zip(layer.blobs, (0, 1, 1), strict=True):
                blob.data[...] = value
    net.save("net.caffemodel")
    return tmp_path


# Of each kind of layer that a FuseNet has, one.
SMALL = """
layer { name: "rgb" type: "Input" top: "rgb"
  input_param { shape { dim: 1 dim: 3 dim: 15 dim: 20 } } }
layer { name: "depth" type: "Input" top: "depth"
  input_param { shape { dim: 1 dim: 1 dim: 15 dim: 20 } } }
layer { name: "both" type: "Concat" bottom: "rgb" bottom: "depth" top: "both" }
layer { name: "pool" type: "Pooling" bottom: "both" top: "pool" top: "mask"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "drop" type: "Dropout" bottom: "pool" top: "pool" }
layer { name: "unpool" type: "Unpooling" bottom: "pool" bottom: "mask" top: "unpool"
  unpooling_param { output_h: 15 output_w: 20 } }
layer { name: "score" type: "Convolution" bottom: "unpool" top: "score"
  convolution_param { num_output: 6 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "score" top: "score" }
layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }
"""


def test_a_net_as_a_module(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("deploy.prototxt").write_text(SMALL)
    caffe.Net("deploy.prototxt", caffe.TEST).save("net.caffemodel")
    names: dict = {}
    exec(program("import torch\nimport caffe"), names)
    assert names["prob"].shape == (1, 6, 240, 320)
    assert names["module"].training


@pytest.fixture
def frame(model) -> tuple[Path, np.ndarray]:
    """The folder with color.png and depth.png, too, 1000 steps in a metre, and the labels that
    eval_tools.predict gives. The frame is a real one where there is one.
    """
    real = ROOT.parent / "shared" / "rgbd" / "nyuv2_000464"
    if real.exists():
        color = cv2.imread(str(real / "rgb.png"))
        depth = cv2.imread(str(real / "depth.png"), cv2.IMREAD_UNCHANGED) // 5
    else:
        rng = np.random.default_rng(0)
        color = cv2.resize(rng.integers(0, 256, (9, 12, 3)).astype(np.uint8), (640, 480))
        depth = cv2.resize(rng.uniform(500, 6000, (6, 8)), (640, 480)).astype(np.uint16)
        depth[100:140, 200:260] = 0
    assert cv2.imwrite("color.png", color)
    assert cv2.imwrite("depth.png", depth)
    files = "deploy.prototxt net.caffemodel --rgb color.png --depth depth.png -o expected.png"
    predict.main([*files.split(), "--depth-range", "valid", "--size", "original"])
    return model, np.array(Image.open("expected.png"))


@pytest.mark.parametrize("name", ["onnxruntime", "opencv", "openvino"])
def test_a_program_of_ten_lines(name, frame, capsys) -> None:
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    if not programs.is_installed(TARGETS[name]):
        pytest.skip(f"{name} is not installed")
    command = f"--for {name} --with-preprocessing --depth-range valid deploy.prototxt"
    convert.main([*command.split(), "net.caffemodel", "labels.onnx"])
    assert "labels.onnx: written" in capsys.readouterr().err
    text = program(f"# {name}\n")
    assert len(text.splitlines()) <= 11
    names: dict = {}
    exec(text, names)
    labels, expected = names["labels"], frame[1]
    assert labels.dtype == np.uint8
    assert labels.shape == expected.shape
    assert (labels == expected).mean() >= 0.995
    assert len(np.unique(labels)) > 1

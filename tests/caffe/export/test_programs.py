"""ONNX files in the programs that they are for."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.export import programs
from caffe.formats.onnx import TARGETS
from caffe.proto import caffe_pb2 as pb

pytest.importorskip("onnx", reason="the package onnx is not installed")

from caffe.export.onnx import write_graph

MODULE = {"opencv": "cv2", "openvino": "openvino", "onnxruntime": "onnxruntime"}
NET = (
    'layer { name: "data" type: "Input" top: "da/ta:0" input_param { shape { dim: 1 dim: 2 dim: 5 '
    'dim: 5 } } } layer { name: "p" type: "Pooling" bottom: "da/ta:0" top: "y" '
    "pooling_param { pool: AVE kernel_size: 3 stride: 2 pad: 1 } }"
    'layer { name: "e" type: "Exp" bottom: "y" top: "z" exp_param { scale: 0.1 } }'
)


@pytest.mark.parametrize("name", sorted(MODULE))
def test_a_programs_answers(name):
    pytest.importorskip(MODULE[name], reason=f"{name} is not installed")
    target = TARGETS[name]
    assert programs.is_installed(target)
    assert programs.title(target).startswith(f"{target.title} ")
    net = caffe.Net(text_format.Parse(NET, pb.NetParameter()), caffe.TEST)
    model = write_graph(net, ["y", "z"], target=target).SerializeToString()
    assert programs.signature(model) == (["da/ta:0"], ["y", "z"])
    feeds = {"da/ta:0": np.random.default_rng(0).normal(size=(1, 2, 5, 5)).astype(np.float32)}
    y, z = programs.answers(target, model, feeds, ["y", "z"])
    net.forward(**feeds)
    np.testing.assert_allclose(y, net.blobs["y"].data, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(z, net.blobs["z"].data, rtol=1e-5, atol=1e-6)


def test_what_a_program_does_not_take_is_one_line():
    net = caffe.Net(text_format.Parse(NET, pb.NetParameter()), caffe.TEST)
    model = write_graph(net, ["y"])
    model.graph.node[0].op_type = "Nonsense"
    for name in ("opencv", "onnxruntime"):
        target = TARGETS[name]
        if programs.is_installed(target):
            said = rf"^{target.title} [\d.]+ does not take the file: .*Nonsense"
            with pytest.raises(caffe.CaffeError, match=said) as info:
                programs.answers(target, model.SerializeToString(), {}, ["y"])
            assert "\n" not in str(info.value)


def test_a_program_that_ends_its_process(monkeypatch):
    net = caffe.Net(text_format.Parse(NET, pb.NetParameter()), caffe.TEST)
    model = write_graph(net, ["y"]).SerializeToString()
    dead = SimpleNamespace(returncode=-11, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: dead)
    with pytest.raises(
        caffe.CaffeError, match=r"OpenCV [\d.]+ does not take the file: .* \(signal 11\)"
    ):
        programs.answers(TARGETS["opencv"], model, {}, ["y"])


def test_what_is_not_installed(monkeypatch):
    assert not programs.is_installed(TARGETS["tensorrt"])
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert not programs.is_installed(TARGETS["openvino"])

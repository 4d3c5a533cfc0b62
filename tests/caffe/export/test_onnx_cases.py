"""Every layer type in ONNX, by onnxruntime, over the cases of its row."""

from __future__ import annotations

import random
import re
import zlib

import numpy as np
import pytest
from cases import TABLE, Case, draws, layer_param, values

import caffe
from caffe.layers.base import REGISTRY, Layer
from caffe.proto import caffe_pb2 as pb

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from caffe.export.onnx import write_graph  # noqa: E402

DRAWS = 6
WITH_FORM = sorted(name for name in TABLE if REGISTRY[name].onnx is not Layer.onnx)


def net_of(name: str, case: Case, seed: int) -> tuple[caffe.Net, dict[str, np.ndarray]]:
    """The case's layer in TEST phase on inputs, and values for these."""
    if case.files is not None:
        case.files()
    param = pb.NetParameter()
    feeds = {}
    kinds = [*(case.kinds or ("real",) * len(case.shapes))]
    for i, (shape, kind) in enumerate(zip(case.shapes, kinds, strict=False)):
        layer = param.layer.add(name=f"bottom{i}", type="Input", top=[f"bottom{i}"])
        layer.input_param.shape.add(dim=shape)
        feeds[f"bottom{i}"] = values(kind, shape, seed + i).float().numpy()
    param.layer.append(layer_param(name, case.param, len(case.shapes), caffe.TEST))
    net = caffe.Net(param, caffe.TEST)
    for blob in net.params.get("l", []):  # variances, too, which are positive
        blob.data[...] = values("positive", blob.shape, seed).numpy()
    return net, feeds


@pytest.mark.parametrize("name", WITH_FORM)
def test_drawn_layers(name: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    compared = 0
    for draw in draws(name, DRAWS):
        seed = zlib.crc32(f"{name} onnx {draw}".encode())
        net, feeds = net_of(name, TABLE[name].draw(random.Random(seed)), seed)
        outputs = [top for top in net.top_names["l"] if top in net.outputs]
        model = _model(net, outputs)
        if isinstance(model, str):
            assert re.search("layer 'l'.* ONNX", model)
            continue
        onnx.checker.check_model(model, full_check=True)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        given = {item.name: feeds[item.name] for item in session.get_inputs()}
        expected = net.forward(**feeds)
        for output, found in zip(outputs, session.run(None, given), strict=True):
            assert found.shape == expected[output].shape
            np.testing.assert_allclose(found, expected[output], rtol=1e-4, atol=1e-5)
        compared += 1
    assert compared >= len(draws(name, DRAWS)) // 2, "most cases of a row have an ONNX form"


def _model(net: caffe.Net, outputs: list[str]) -> onnx.ModelProto | str:
    """The model; or why there is none."""
    try:
        return write_graph(net, outputs)
    except caffe.CaffeError as error:
        return str(error)


def test_only_types_for_training_or_from_outside_have_no_form() -> None:
    """Of BVLC's; docs/layers.md tells which of the forks' have one."""
    for name in set(TABLE) - set(WITH_FORM):
        c = REGISTRY[name]
        assert c.fork or c.loss or c.source or c.tops == (0, 0) or c.measures, name

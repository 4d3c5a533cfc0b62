"""The layers that read or write files, or run the user's code: every row of the table works."""

from __future__ import annotations

import random
import zlib

import numpy as np
import pytest
from cases import TABLE, Case, draws, from_outside, make_layer

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.formats.onnx import Graph
from caffe.layers import Layer
from caffe.layers.data import MemoryData

DRAWS = 8
NAMES = sorted(filter(from_outside, TABLE))


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """drawn(name, draw): the case of a row in a folder of its own, and its layer."""

    def make(name: str, draw: int) -> tuple[Case, Layer]:
        monkeypatch.chdir(tmp_path)
        case = TABLE[name].draw(random.Random(zlib.crc32(f"{name} {draw}".encode())))
        layer = make_layer(name, case)
        if isinstance(layer, MemoryData):
            shape = layer.shape
            layer.set_arrays(np.zeros(shape, np.float32), np.zeros(shape[0], np.float32))
        return case, layer

    return make


@pytest.mark.parametrize(
    ("name", "draw"),
    [pytest.param(name, i, id=f"{name}-{i}") for name in NAMES for i in draws(name, DRAWS)],
)
def test_tops_have_the_inferred_shapes(drawn, name, draw):
    case, layer = drawn(name, draw)
    expected = layer.infer_shapes([tuple(s) for s in case.shapes])
    bottom, top = [Blob(s) for s in case.shapes], [Blob(s) for s in expected]
    for _ in range(2):
        layer.forward_blobs(bottom, top, record=False)
        assert all(np.isfinite(blob.data).all() for blob in top)
    if name == "MemoryData":  # as in Caffe, its labels have four axes in passes
        expected[1] = (*expected[1], 1, 1, 1)
    if name == "AnnotatedData" and len(top) == 2:  # each batch has its own number of boxes
        assert top[1].shape[:2] == (1, 1)
        expected[1] = top[1].shape
    if name == "EvalData":  # pictures keep sizes of their own
        assert top[0].shape[2] % 32 == top[0].shape[3] % 32 == 0
        expected[0] = top[0].shape
    if name == "EvalData" or (
        top and top[-1].shape[1:] == (7, 1, 1)
    ):  # boxes, ImageGtData's or EvalData's
        at = 1 if name == "EvalData" else -1
        assert top[at].shape[1:] == expected[at][1:]
        expected[at] = top[at].shape
    assert [blob.shape for blob in top] == expected


@pytest.mark.parametrize("draw", range(DRAWS))
def test_dummy_data_is_constant_in_onnx_or_has_no_form(drawn, draw):
    _, layer = drawn("DummyData", draw)
    graph = Graph()
    if any(filler.type != "constant" for filler in layer.fillers_of_tops()):
        with pytest.raises(CaffeError, match="only constant fillers have an ONNX form"):
            layer.onnx(graph)
        return
    names, top = layer.onnx(graph), [Blob(shape) for shape in layer.infer_shapes([])]
    layer.forward_blobs([], top, record=False)
    for name, blob in zip(names, top, strict=True):
        np.testing.assert_array_equal(graph.constants[name], blob.data)


def test_a_python_layer_infers_shapes_beside_the_nets_blobs(drawn):
    _, layer = next(found for found in (drawn("Python", i) for i in range(9)) if found[0].shapes)
    count = layer.num_bottoms
    assert layer.infer_shapes([(4, 5)] * count) == [(4, 5)] * layer.num_tops

"""Rounding that stands before nodes which only hand values on: where it may, and where not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from onnx import helper, numpy_helper  # noqa: E402

from caffe.export.int8 import Model  # noqa: E402
from caffe.export.passing import round_early  # noqa: E402

node = helper.make_node
ROUND = [
    node("QuantizeLinear", ["v", "scale", "point"], ["q"]),
    node("DequantizeLinear", ["q", "scale", "point"], ["y"]),
]
POOL = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
CONSTANTS = {
    "scale": np.float32(0.02),
    "point": np.uint8(37),
    "zero": np.float32(0),
    "one": np.float32(1),
    "here": np.arange(64).reshape(1, 1, 8, 8) % 3 == 0,
    "there": np.arange(64).reshape(1, 1, 8, 8) % 5 == 0,
    "starts": np.array([1, 0], np.int64),
    "ends": np.array([7, 8], np.int64),
    "axes": np.array([2, 3], np.int64),
}


def model(nodes: Sequence[onnx.NodeProto], outputs: Sequence[str] = ("y",)) -> onnx.ModelProto:
    """A graph of these nodes that takes x, 1 x 4 x 8 x 8, and gives "y" by ROUND from "v"."""
    constants = [numpy_helper.from_array(np.asarray(v), name) for name, v in CONSTANTS.items()]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [node("Relu", ["x"], ["r"]), *nodes, *ROUND],
        "g",
        [helper.make_tensor_value_info("x", kind, [1, 4, 8, 8])],
        [helper.make_tensor_value_info(name, kind, [None] * 4) for name in outputs],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(made)


def rounded_early(made: onnx.ModelProto) -> list[str]:
    """The values that are rounded after round_early, which must not change what is computed."""
    x = np.random.default_rng(0).normal(1, 2, (1, 4, 8, 8)).astype(np.float32)
    expected = Model(made).answers({"x": x})
    round_early(made.graph)
    ordered = helper.make_graph([], "g", made.graph.input, made.graph.output)
    ordered.initializer.extend(made.graph.initializer)
    known, left = {"x", *(item.name for item in made.graph.initializer)}, [*made.graph.node]
    while left:
        ready = next(item for item in left if known.issuperset(item.input))
        left.remove(ready)
        known.update(ready.output)
        ordered.node.append(ready)
    made.graph.CopyFrom(ordered)
    onnx.checker.check_model(made, full_check=True)
    for a, b in zip(expected, Model(made).answers({"x": x}), strict=True):
        np.testing.assert_array_equal(a, b)
    taken = {name for item in made.graph.node for name in item.input}
    assert taken.issuperset(item.name for item in made.graph.initializer)
    return sorted(n.input[0] for n in made.graph.node if n.op_type == "QuantizeLinear")


MOVED = {
    "a pooling": [node("MaxPool", ["r"], ["v"], **POOL)],
    "what keeps values": [
        node("Transpose", ["r"], ["t"], perm=[0, 1, 3, 2]),
        node("Slice", ["t", "starts", "ends", "axes"], ["s"]),
        node("Identity", ["s"], ["v"]),
    ],
    "an unpooling": [
        node("Where", ["here", "r", "zero"], ["a"]),
        node("Where", ["here", "zero", "r"], ["rest"]),
        node("Where", ["there", "rest", "zero"], ["b"]),
        node("Where", ["there", "zero", "rest"], ["c"]),
        node("Concat", ["a", "b", "c", "c"], ["all"], axis=1),
        node("DepthToSpace", ["all"], ["v"], "v", blocksize=2),
    ],
    "blocks of the other order": [node("DepthToSpace", ["r"], ["v"], blocksize=2, mode="CRD")],
}


@pytest.mark.parametrize("name", MOVED)
def test_values_are_rounded_before_they_are_moved(name: str) -> None:
    assert rounded_early(model(MOVED[name])) == ["r"]


STAYS = {
    "arithmetic": ([node("Add", ["r", "one"], ["v"])], ["v"]),
    "a choice with another value": ([node("Where", ["here", "r", "one"], ["v"])], ["v"]),
    "a choice between zeros": ([node("Where", ["here", "zero", "zero"], ["v"])], ["v"]),
    "several values": (
        [node("Sqrt", ["r"], ["s"]), node("Concat", ["r", "s"], ["v"], axis=1)],
        ["v"],
    ),
    "places": ([node("MaxPool", ["r"], ["v", "where"], **POOL)], ["v"]),
    "up to a value that is taken": (
        [
            node("MaxPool", ["r"], ["p"], **POOL),
            node("Identity", ["p"], ["v"]),
            node("Sqrt", ["p"], ["z"]),
        ],
        ["p"],
    ),
}


@pytest.mark.parametrize("name", STAYS)
def test_where_rounding_stays(name: str) -> None:
    nodes, expected = STAYS[name]
    outputs = ["y", *(["z"] if name.startswith("up to") else [])]
    assert rounded_early(model(nodes, outputs)) == expected


def test_a_value_that_is_given_out_is_not_rounded() -> None:
    made = model([node("MaxPool", ["r"], ["v"], **POOL)], ["y", "v"])
    assert rounded_early(made) == ["v"]


def test_a_name_that_is_taken() -> None:
    nodes = [node("Sqrt", ["r"], ["r_rounded"]), node("Identity", ["r"], ["v"])]
    assert rounded_early(model(nodes, ["y", "r_rounded"])) == ["r"]

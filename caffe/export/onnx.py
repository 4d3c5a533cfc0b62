"""A net as an ONNX graph: the walk over its layers, and the graph that they write into.

What each layer type becomes is in caffe.onnx_layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe.errors import CaffeError
from caffe.export.module import needed_layers
from caffe.layers.base import Layer
from caffe.layers.data import SourceLayer
from caffe.net import Net

if TYPE_CHECKING:
    import onnx

OPSET = 17  # what TensorRT 8.6 and newer, OpenVINO and onnxruntime all read
IR_VERSION = 8


@dataclass(frozen=True)
class Value:
    """A tensor of the graph. `shape` is of the batch size that the net has."""

    name: str
    shape: tuple[int, ...]


LayerFunction = Callable[..., "str | Sequence[str]"]
LAYERS: dict[str, LayerFunction] = {}


def onnx_layer(*types: str) -> Callable[[LayerFunction], LayerFunction]:
    """Make a function known as the one that writes layers of these types.

    It takes the graph, the layer and its bottoms, and returns the names of its tops.
    """

    def add(function: LayerFunction) -> LayerFunction:
        LAYERS.update(dict.fromkeys(types, function))
        return function

    return add


@dataclass
class Graph:
    """The nodes and constants of an ONNX graph that is being written.

    max_unpool: Unpooling may become MaxUnpool. dynamic_batch: the first axis may have any size.
    """

    max_unpool: bool = True
    dynamic_batch: bool = False
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    masks: dict[str, Any] = field(default_factory=dict)  # of Pooling, for Unpooling
    layer: str = ""  # the layer at work, after which its nodes are named
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, op: str, *inputs: Value | str, outputs: int = 1, **attributes: Any) -> Any:
        """One more node; returns the name of its output, or a list of the names of several."""
        from onnx import helper

        names = [self.fresh() for _ in range(outputs)]
        given = [item.name if isinstance(item, Value) else item for item in inputs]
        title = names[0].removesuffix(":1")  # a layer's first node bears its name
        self.nodes.append(helper.make_node(op, given, names, title, **attributes))
        return names[0] if outputs == 1 else names

    def fresh(self) -> str:
        """A name that nothing has so far."""
        count = self._counts[self.layer] = self._counts.get(self.layer, 0) + 1
        return f"{self.layer}:{count}"

    def constant(self, values: Any, dtype: Any = np.float32, name: str | None = None) -> str:
        """A constant; returns its name."""
        name = name or self.fresh()
        while name in self.constants:  # layers may share a name
            name += "_"
        self.constants[name] = np.asarray(values, dtype)
        return name

    def blob(self, layer: Layer, index: int) -> str:
        """A parameter of a layer."""
        return self.constant(array(layer, index), name=f"{layer.name}.{index}")

    def reshape(self, x: Value | str, shape: Sequence[int], keeps_batch: bool = True) -> str:
        """Reshape to `shape`; keeps_batch: the first axis stays what it is, whatever its size."""
        shape = list(shape)
        if self.dynamic_batch and keeps_batch and shape:
            shape[0] = 0  # ONNX's word for "as it was"
        return self.add("Reshape", x, self.constant(shape, np.int64))


def array(layer: Layer, index: int) -> np.ndarray:
    """A layer's parameter as an array of its own."""
    return layer.blobs[index].data.copy()


def write_graph(
    net: Net, outputs: Sequence[str], max_unpool: bool = True, dynamic_batch: bool = False
) -> onnx.ModelProto:
    """The ONNX model of a net in TEST phase, with its weights.

    Raises CaffeError for a layer that has no ONNX form, and where the package onnx is missing.
    """
    import caffe.export.onnx_layers  # noqa: F401 - fills LAYERS

    graph = Graph(max_unpool, dynamic_batch)
    values: dict[str, Value] = {}
    inputs: list[str] = []
    for i, _ in needed_layers(net, outputs):
        layer = net._layers[i]
        bottoms = [values[name] for name in net._names(net._bottom_id_vecs[i])]
        tops = net._names(net._top_id_vecs[i])
        graph.layer = layer.name
        if isinstance(layer, SourceLayer) and layer.type != "DummyData":
            made = [name for name in tops if name in net.blobs]
            inputs += made
        else:
            made = _write_layer(graph, layer, bottoms)
        for top, name in zip(tops, made, strict=False):
            values[top] = Value(name, net.blobs[top].shape)
    return _Finish(net, graph, values, inputs, outputs).model()


def _write_layer(graph: Graph, layer: Layer, bottoms: Sequence[Value]) -> Sequence[str]:
    function = LAYERS.get(layer.type)
    if function is None:
        hint = "choose outputs before it" if layer.loss or layer.type == "Accuracy" else ""
        raise CaffeError(
            f"{layer.where}: type {layer.type} has no ONNX form" + (f"; {hint}" if hint else "")
        )
    tops = function(graph, layer, *bottoms)
    return [tops] if isinstance(tops, str) else tops


@dataclass
class _Finish:
    """From what the layers wrote to a model: names of blobs, no dead nodes, inputs and outputs."""

    net: Net
    graph: Graph
    values: Mapping[str, Value]
    inputs: Sequence[str]
    outputs: Sequence[str]

    def model(self) -> onnx.ModelProto:
        from onnx import helper, numpy_helper

        self._name_blobs()
        self._drop_dead_nodes()
        used = {name for node in self.graph.nodes for name in node.input}
        inputs = [name for name in self.inputs if name in used]
        constants = [
            numpy_helper.from_array(np.ascontiguousarray(values), name)
            for name, values in self.graph.constants.items()
            if name in used
        ]
        made = helper.make_graph(
            self.graph.nodes,
            self.net.name or "net",
            [self._info(blob, self.net.blobs[blob].shape) for blob in inputs],
            [self._info(self._name(blob), self._shape(blob)) for blob in self.outputs],
            constants,
        )
        return helper.make_model(
            made,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="fusenet",
        )

    def _name_blobs(self) -> None:
        """Values that are some blob's last take the blob's name; outputs always get theirs."""
        made = {name for node in self.graph.nodes for name in node.output}
        renamed: dict[str, str] = {}
        for blob in dict.fromkeys([*self.outputs, *self.values]):
            value, name = self.values[blob].name, self._name(blob)
            if value in made and value not in renamed:
                renamed[value] = name
            elif value != name and blob in self.outputs:
                self.graph.layer = blob
                renamed[self.graph.add("Identity", value)] = name
        for node in self.graph.nodes:
            node.input[:] = [renamed.get(name, name) for name in node.input]
            node.output[:] = [renamed.get(name, name) for name in node.output]

    def _name(self, blob: str) -> str:
        """A blob's name in the graph: its own, unless an input that is overwritten has that."""
        overwritten = blob in self.inputs and self.values[blob].name != blob
        return f"{blob}_out" if overwritten else blob

    def _drop_dead_nodes(self) -> None:
        wanted, alive = {self._name(blob) for blob in self.outputs}, []
        for node in reversed(self.graph.nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                alive.append(node)
        self.graph.nodes[:] = alive[::-1]

    def _shape(self, output: str) -> Sequence[Any]:
        shape = self.net.blobs[output].shape
        filtered = any(node.op_type == "Compress" for node in self.graph.nodes)
        return ("selected", *shape[1:]) if filtered else shape

    def _info(self, name: str, shape: Sequence[Any]) -> onnx.ValueInfoProto:
        from onnx import TensorProto, helper

        if self.graph.dynamic_batch and shape:
            shape = ("N", *shape[1:])
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

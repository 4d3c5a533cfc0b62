"""A net as an ONNX model: walks over the layers, each of which writes its nodes (Layer.onnx)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.export.folding import fold as fold_into_weights
from caffe.formats.onnx import TARGETS, Graph, Target, Value
from caffe.layers.base import Layer
from caffe.net import Net

if TYPE_CHECKING:
    import onnx

OPSET = 17  # TensorRT 8.6 and newer, OpenVINO and onnxruntime all read it
IR_VERSION = 8


def write_graph(
    net: Net,
    outputs: Sequence[str],
    max_unpool: bool = True,
    dynamic_batch: bool = False,
    target: Target = TARGETS["onnxruntime"],
    fold: bool = True,
) -> onnx.ModelProto:
    """The ONNX model of a net in TEST phase, with its weights.

    outputs: names of blobs. max_unpool, dynamic_batch, fold: as caffe.convert.to_onnx's. target:
    the program that is to read it.
    Raises CaffeError for a layer that has no ONNX form, or none for the target, and if the package
    onnx is missing.
    """
    if dynamic_batch and not target.free_batch:
        raise CaffeError(f"files for {target.title} have a fixed batch size")
    graph = Graph(max_unpool and target.max_unpool, dynamic_batch, target)
    values: dict[str, Value] = {}
    inputs: list[str] = []
    wiring = net.wiring
    for i, _ in wiring.needed_for(outputs):
        layer = wiring.layers[i]
        bottoms = [values[name] for name in wiring.names(wiring.bottoms[i])]
        tops = wiring.names(wiring.tops[i])
        made_blobs = [net.blobs[top] for top in tops if top in net.blobs]
        _check_axes(layer, [*bottoms, *made_blobs], target)
        graph.layer = layer.name
        if layer.source and layer.shown is layer and not layer.fillers_of_tops():
            made = [name for name in tops if name in net.blobs]
            inputs += made
        else:
            made = layer.onnx(graph, *bottoms)
            made = [made] if isinstance(made, str) else made
        for top, name in zip(tops, made, strict=False):
            values[top] = Value(name, net.blobs[top].shape)
    return _Finish(net, graph, values, inputs, outputs, fold).model()


def _check_axes(layer: Layer, blobs: Sequence[Value | Blob], target: Target) -> None:
    """Raise CaffeError for a blob of more axes than the target takes."""
    most = max((len(blob.shape) for blob in blobs), default=0)
    layer.check(
        not target.most_axes or most <= target.most_axes,
        f"has a blob of {most} axes; {target.title} takes at most {target.most_axes}",
    )


@dataclass
class _Finish:
    """Makes a model from the nodes: names blobs, drops dead nodes, folds, declares inputs and
    outputs.
    """

    net: Net
    graph: Graph
    values: Mapping[str, Value]
    inputs: Sequence[str]
    outputs: Sequence[str]
    fold: bool

    def model(self) -> onnx.ModelProto:
        from onnx import helper, numpy_helper

        self._name_blobs()
        self._drop_dead_nodes()
        if self.fold:
            fold_into_weights(self.graph, {self._name(blob) for blob in self.outputs})
        used = {name for node in self.graph.nodes for name in node.input}
        inputs = [name for name in self.inputs if name in used]
        constants = [
            numpy_helper.from_array(np.asarray(values, order="C"), name)
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
        """Rename each value that a blob holds last to the blob; outputs always get their names."""
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
        """A blob's name in the graph: its own, or BLOB_out for an input that a layer overwrites, or
        that is an output as it is.
        """
        other = self.values[blob].name != blob or blob in self.outputs
        return f"{blob}_out" if blob in self.inputs and other else blob

    def _drop_dead_nodes(self) -> None:
        wanted, alive = {self._name(blob) for blob in self.outputs}, []
        for node in reversed(self.graph.nodes):
            if wanted & set(node.output):
                wanted |= set(node.input)
                alive.append(node)
        self.graph.nodes[:] = alive[::-1]

    def _shape(self, output: str) -> Sequence[Any]:
        """The shape of an output; an extent that a layer before it leaves open is a name."""
        wiring = self.net.wiring
        layers = (wiring.layers[i] for i, _ in wiring.needed_for(self.outputs))
        open_axes = {layer.varying for layer in layers}
        shape = self.net.blobs[output].shape
        return ["selected" if axis in open_axes else n for axis, n in enumerate(shape)]

    def _info(self, name: str, shape: Sequence[Any]) -> onnx.ValueInfoProto:
        from onnx import TensorProto, helper

        if self.graph.dynamic_batch and shape:
            shape = ("N", *shape[1:])
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

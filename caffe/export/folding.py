"""Folds what scales and shifts the channels of a convolution's output into its weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

import numpy as np

from caffe.formats.onnx import Graph

if TYPE_CHECKING:
    import onnx

FOLDS_INTO = ("Conv", "ConvTranspose", "Gemm")
Affine = tuple[np.ndarray, np.ndarray]  # gain and shift of each channel, float64


def fold(graph: Graph, outputs: Collection[str]) -> None:
    """Fold BatchNormalization, Mul and Add by constants of the channels into the Conv,
    ConvTranspose or Gemm whose output only they take.

    What is between them has no name any more: the node's output gets the name of the last that was
    folded. outputs: names of values that stay, because the graph gives them out.

    Weights are computed in double precision and rounded once. A step by which they would no longer
    be finite in single precision stays as it is.
    """
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.nodes:
        for name in node.input:
            users.setdefault(name, []).append(node)
    folded: set[int] = set()
    for node in graph.nodes:
        if node.op_type in FOLDS_INTO and all(n in graph.constants for n in node.input[1:]):
            chain = _Chain(graph, node)
            for after in _sole_users(node, users, outputs):
                if not chain.takes(after):
                    break
                folded.add(id(after))
            chain.write(users)
    graph.nodes[:] = [node for node in graph.nodes if id(node) not in folded]


def _sole_users(
    node: onnx.NodeProto, users: dict[str, list[onnx.NodeProto]], outputs: Collection[str]
) -> Iterator[onnx.NodeProto]:
    """The nodes behind a node, each of which alone takes what the one before it gives."""
    while len(node.output) == 1 and node.output[0] not in outputs:
        takers = users.get(node.output[0], [])
        if len(takers) != 1:
            return
        (node,) = takers
        yield node


class _Chain:
    """A node with weights, and the steps behind it that are folded into these so far."""

    def __init__(self, graph: Graph, node: onnx.NodeProto) -> None:
        self._graph, self._node = graph, node
        attributes = {item.name: item for item in node.attribute}
        self._weight = graph.constants[node.input[1]]
        self._group = attributes["group"].i if "group" in attributes else 1
        rows = "transB" in attributes and attributes["transB"].i == 1
        self._axis = 0 if node.op_type == "Conv" or rows else 1  # of the weight's outputs
        self._rank = 2 if node.op_type == "Gemm" else self._weight.ndim
        transposed = node.op_type == "ConvTranspose"
        self._channels = self._weight.shape[self._axis] * (self._group if transposed else 1)
        self._folded = False
        self._gain = np.ones(self._channels)
        self._shift = np.zeros(self._channels)
        if len(node.input) > 2:
            self._shift = self._shift + graph.constants[node.input[2]]
        self._output = node.output[0]

    def takes(self, node: onnx.NodeProto) -> bool:
        """Fold the node's work, if it can be; returns whether it was."""
        step = self._step(node)
        if step is None:
            return False
        with np.errstate(over="ignore", invalid="ignore"):
            gain, shift = self._gain * step[0], self._shift * step[0] + step[1]
            finite = np.isfinite(self._times(gain).astype(np.float32)).all()
            if not (finite and np.isfinite(shift.astype(np.float32)).all()):
                return False
        self._gain, self._shift, self._output = gain, shift, node.output[0]
        self._folded = True
        return True

    def write(self, users: dict[str, list[onnx.NodeProto]]) -> None:
        """Give the node its new weights, if something was folded."""
        if not self._folded:
            return
        node, weight = self._node, self._node.input[1]
        bias = node.input[2] if len(node.input) > 2 else f"{weight.removesuffix('.0')}.1"
        names = [
            self._placed(weight, self._times(self._gain), users),
            self._placed(bias, self._shift, users),
        ]
        node.input[:] = [node.input[0], *names]
        node.output[:] = [self._output]

    def _placed(self, name: str, values: np.ndarray, users: dict[str, list]) -> str:
        """The name of a constant of these values: this one, unless another node takes that."""
        if len(users.get(name, [])) == 1:
            del self._graph.constants[name]
        return self._graph.constant(values, name=name)

    def _times(self, gain: np.ndarray) -> np.ndarray:
        """The weight, float64, whose outputs are multiplied by `gain`."""
        weight = self._weight.astype(np.float64)
        if self._node.op_type == "ConvTranspose":  # (inputs, outputs / group, ...)
            parts = weight.reshape(self._group, -1, *weight.shape[1:])
            gains = gain.reshape(self._group, 1, -1, *[1] * (weight.ndim - 2))
            return (parts * gains).reshape(weight.shape)
        wide = [1] * weight.ndim
        wide[self._axis] = -1
        return weight * gain.reshape(wide)

    def _step(self, node: onnx.NodeProto) -> Affine | None:
        """What a node does to each channel; None if it does anything else."""
        constants = self._graph.constants
        if node.op_type == "BatchNormalization":
            if not all(name in constants for name in node.input[1:]):
                return None
            found = (constants[name].astype(np.float64) for name in node.input[1:])
            gain, offset, mean, variance = found
            epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
            with np.errstate(divide="ignore", invalid="ignore"):
                gain = gain / np.sqrt(variance + epsilon)
            return gain, offset - mean * gain
        if node.op_type not in ("Mul", "Add"):
            return None
        values = self._of_channels([name for name in node.input if name in constants])
        if values is None:
            return None
        if node.op_type == "Mul":
            return values, np.zeros(self._channels)
        return np.ones(self._channels), values

    def _of_channels(self, names: list[str]) -> np.ndarray | None:
        """The values of a constant for each channel; None if it differs within one."""
        if len(names) != 1:
            return None
        values = self._graph.constants[names[0]]
        shape = (*[1] * (self._rank - values.ndim), *values.shape)
        along = shape[1] if len(shape) == self._rank else 0
        if along not in (1, self._channels) or values.size != along:
            return None
        return np.broadcast_to(values.reshape(-1), self._channels).astype(np.float64)

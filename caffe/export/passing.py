"""Nodes of an ONNX graph that only hand values on: what rounds values may as well stand before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx

# They give values of their first input as they are; 0, perhaps, in other places.
MOVING = ("MaxPool", "Slice", "Reshape", "Transpose", "Identity")
PASSING = (*MOVING, "DepthToSpace", "MaxUnpool")  # onnxruntime has no MaxUnpool of bytes


def zeros_of(graph: onnx.GraphProto) -> set[str]:
    """The constants that are 0."""
    return {item.name for item in graph.initializer if not any(item.raw_data)}


def source_of(name: str, made: Mapping[str, onnx.NodeProto], zeros: Set[str]) -> str:
    """The value whose values another one holds, besides 0, in other places.

    made: the nodes by the names of their outputs. zeros: as zeros_of gives them.
    """
    while (node := made.get(name)) is not None:
        if node.op_type in PASSING:
            name = node.input[0]
        elif node.op_type == "Where" and len(chosen := _chosen(node, zeros)) == 1:
            name = node.input[chosen[0]]
        elif node.op_type == "Concat":
            sources = {source_of(each, made, zeros) for each in node.input}
            if len(sources) > 1:
                break
            (name,) = sources
        else:
            break
    return name


def _chosen(where: onnx.NodeProto, zeros: Set[str]) -> list[int]:
    """The inputs that a Where chooses among, but for zeros."""
    return [i for i in (1, 2) if where.input[i] not in zeros]


def round_early(graph: onnx.GraphProto) -> None:
    """Move QuantizeLinear before the nodes that only hand on values, if no other node takes these.

    Such nodes then move bytes in place of floats, and a layer before them may write bytes. What the
    graph computes stays the same: rounding keeps the order of values, and has a number for 0. The
    nodes are no longer in their order.

    graph: with the shapes of its values (value_info), as far as they are known.
    """
    _Rounding(graph).move_all()


class _Rounding:
    """The QuantizeLinear nodes of a graph, on their way to its inputs."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._made = {name: node for node in graph.node for name in node.output}
        self._takers = Counter(name for node in graph.node for name in node.input)
        self._takers.update(item.name for item in graph.output)
        self._zeros = zeros_of(graph)
        self._names = {*self._made, *self._takers}
        self._rounded: dict[tuple[str, ...], onnx.NodeProto] = {}
        self._shapes = {
            item.name: tuple(axis.dim_value for axis in item.type.tensor_type.shape.dim)
            for item in graph.value_info
        }

    def move_all(self) -> None:
        waiting = [node for node in self._graph.node if node.op_type == "QuantizeLinear"]
        while waiting:
            last = waiting.pop()
            if self._made[last.output[0]] is last:
                waiting += self._move(last)
        # onnxruntime warns of constants that no node takes.
        dead = [item for item in self._graph.initializer if not self._takers[item.name]]
        for item in dead:
            self._graph.initializer.remove(item)

    def _move(self, last: onnx.NodeProto) -> list[onnx.NodeProto]:
        """Move a node by one; returns those that are in its place, none if it has to stay."""
        value, *scale = last.input
        node = self._made.get(value)
        passed = self._passed(node) if node is not None and self._takers[value] == 1 else []
        if not passed:
            return []
        if node.op_type == "DepthToSpace":
            node = self._turned(node)
        before = [self._before(node.input[i], scale) for i in passed]
        for i, rounded in zip(passed, before, strict=True):
            self._takers[node.input[i]] -= 1
            self._takers[rounded.output[0]] += 1
            node.input[i] = rounded.output[0]
        if node.op_type == "Where":
            zero = 3 - passed[0]
            self._takers[node.input[zero]] -= 1
            self._takers[scale[1]] += 1
            node.input[zero] = scale[1]  # the zero point stands for 0
        node.output[0] = last.output[0]
        self._made[node.output[0]] = node
        self._takers.subtract(last.input)
        self._graph.node.remove(last)
        return before

    def _passed(self, node: onnx.NodeProto) -> list[int]:
        """The inputs whose values are all that a node gives, besides 0; none if it gives others."""
        if node.op_type in MOVING:
            return [0] if len(node.output) == 1 else []
        if node.op_type == "DepthToSpace":
            return [0] if all(self._shapes.get(node.input[0], (0,))) else []
        if node.op_type == "Where":
            chosen = _chosen(node, self._zeros)
            return chosen if len(chosen) == 1 else []
        if node.op_type == "Concat":  # other layers' values may have been rounded by other scales
            sources = {source_of(name, self._made, self._zeros) for name in node.input}
            return [*range(len(node.input))] if len(sources) == 1 else []
        return []

    def _turned(self, node: onnx.NodeProto) -> onnx.NodeProto:
        """Write a DepthToSpace as Reshape, Transpose and Reshape; returns the last one.

        onnxruntime 1.20 has no DepthToSpace of bytes. OpenVINO makes one of these nodes.
        """
        from onnx import helper

        side, mode = 0, b"DCR"
        for attribute in node.attribute:
            if attribute.name == "blocksize":
                side = attribute.i
            elif attribute.name == "mode":
                mode = attribute.s
        n, c, h, w = self._shapes[node.input[0]]
        c //= side**2
        depth, order = ((side, side, c), (0, 3, 4, 1, 5, 2))
        if mode == b"CRD":
            depth, order = ((c, side, side), (0, 1, 4, 2, 5, 3))
        apart, together = (
            self._constant(f"{node.name}_{title}", shape)
            for title, shape in (("apart", (n, *depth, h, w)), ("size", (n, c, h * side, w * side)))
        )
        names = [self._free(f"{node.name}_{title}") for title in ("blocks", "turned")]
        nodes = [
            helper.make_node("Reshape", [node.input[0], apart], names[:1], names[0]),
            helper.make_node("Transpose", names[:1], names[1:], names[1], perm=order),
            helper.make_node("Reshape", [names[1], together], node.output, node.name),
        ]
        self._graph.node.remove(node)
        for made in nodes:
            self._graph.node.append(made)
            self._made[made.output[0]] = self._graph.node[-1]
            self._takers.update(made.input)
        self._takers[node.input[0]] -= 1
        return self._graph.node[-1]

    def _constant(self, name: str, values: Sequence[int]) -> str:
        """A constant of whole numbers; returns its name."""
        from onnx import numpy_helper

        name = self._free(name)
        self._graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def _free(self, name: str) -> str:
        """A name like this one that nothing has so far."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name

    def _before(self, name: str, scale: Sequence[str]) -> onnx.NodeProto:
        """The node that rounds this value by this scale, for all that take it so."""
        from onnx import helper

        key = (name, *scale)
        if key not in self._rounded:
            title = self._free(f"{name}_rounded")
            self._graph.node.append(helper.make_node("QuantizeLinear", key, [title], title))
            self._rounded[key] = self._made[title] = self._graph.node[-1]
            self._takers.update(key)
        return self._rounded[key]

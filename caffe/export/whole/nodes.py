"""Nodes that the parts around a net need: arithmetic on the sizes of frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe.formats.onnx import Graph

if TYPE_CHECKING:
    import onnx


class Nodes:
    """Short names for nodes of a graph. Values are names of vectors (height, width) in float64,
    unless something else is said.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._known: dict[tuple[str, bytes], str] = {}

    def constants(self) -> list[onnx.TensorProto]:
        """The constants that are used, as the file holds them."""
        from onnx import numpy_helper

        used = {name for node in self.graph.nodes for name in node.input}
        constants = self.graph.constants.items()
        return [numpy_helper.from_array(v, name) for name, v in constants if name in used]

    def number(self, value: Any, dtype: Any = np.float64) -> str:
        """A constant; equal ones are one."""
        array = np.asarray(value, dtype)
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if key not in self._known:
            self._known[key] = self.graph.constant(array, dtype)
        return self._known[key]

    def add(self, op: str, *inputs: Any, **attributes: Any) -> str:
        """A node; numbers among the inputs become constants of float64."""
        names = [x if isinstance(x, str) else self.number(x) for x in inputs]
        return self.graph.add(op, *names, **attributes)

    def cast(self, x: str, dtype: Any) -> str:
        """x as numbers of this type."""
        from onnx import helper

        return self.graph.add("Cast", x, to=helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def clip(self, x: str, low: Any, high: Any) -> str:
        """x, but at least `low` and at most `high`."""
        return self.add("Min", self.add("Max", x, low), high)

    def name_it(self, value: str, name: str) -> None:
        """Give the value that the last node makes a name of its own."""
        assert self.graph.nodes[-1].output[:] == [value]
        self.graph.nodes[-1].output[0] = name

    def reshape(self, x: str, *shape: int) -> str:
        return self.graph.add("Reshape", x, self.number(shape, np.int64))

    def axis(self, pair: str, axis: int) -> str:
        """One number of a pair, as a vector of one."""
        ends = (self.number([n], np.int64) for n in (axis, axis + 1))
        return self.graph.add("Slice", pair, *ends)

    def whole(self, pair: str) -> str:
        """x as integers (int64)."""
        return self.cast(pair, np.int64)


@dataclass
class Window:
    """Where something lies: start and extent, pairs of whole numbers."""

    start: str
    extent: str

"""An ONNX graph in the making: what layers write themselves into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import onnx


class HasArrays(Protocol):
    """A layer, as far as a graph needs to know it."""

    name: str

    def array(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Value:
    """A tensor of the graph. `shape` is of the batch size that the net has."""

    name: str
    shape: tuple[int, ...]


Names = str | Sequence[str]  # of a layer's tops


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

    def blob(self, layer: HasArrays, index: int) -> str:
        """A parameter of a layer."""
        return self.constant(layer.array(index), name=f"{layer.name}.{index}")

    def reshape(self, x: Value | str, shape: Sequence[int], keeps_batch: bool = True) -> str:
        """Reshape to `shape`; keeps_batch: the first axis stays what it is, whatever its size."""
        shape = list(shape)
        if self.dynamic_batch and keeps_batch and shape:
            shape[0] = 0  # ONNX's word for "as it was"
        return self.add("Reshape", x, self.constant(shape, np.int64))

    def affine(self, x: Value | str, scale: float, shift: float) -> str:
        """scale x + shift, in no more nodes than it takes."""
        y = x.name if isinstance(x, Value) else x
        if scale != 1:
            y = self.add("Mul", y, self.constant(scale))
        return self.add("Add", y, self.constant(shift)) if shift else y

    def to_float(self, x: str) -> str:
        """x as float32."""
        from onnx import TensorProto

        return self.add("Cast", x, to=TensorProto.FLOAT)

    def to_int(self, x: Value | str) -> str:
        """x as int64."""
        from onnx import TensorProto

        return self.add("Cast", x, to=TensorProto.INT64)

    def to_bool(self, x: Value | str) -> str:
        """Whether x is not 0."""
        from onnx import TensorProto

        return self.add("Cast", x, to=TensorProto.BOOL)

    def slice(
        self, x: Value | str, axes: Sequence[int], starts: Sequence[int], ends: Sequence[int]
    ) -> str:
        """x from `starts` to before `ends` on these axes."""
        return self.add("Slice", x, *(self.constant(v, np.int64) for v in (starts, ends, axes)))

    def shape_like(self, x: Value, shape: Sequence[int]) -> str:
        """A shape as a tensor, of x's batch size, whatever that is."""
        if not self.dynamic_batch:
            return self.constant(shape, np.int64)
        batch = self.add("Shape", x, start=0, end=1)
        return self.add("Concat", batch, self.constant(shape[1:], np.int64), axis=0)

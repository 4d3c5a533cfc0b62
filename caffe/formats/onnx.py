"""An ONNX graph under construction, to which layers add their nodes and constants."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from caffe.errors import CaffeError

if TYPE_CHECKING:
    import onnx


class HasArrays(Protocol):
    """The part of a layer that a graph uses: its name and its parameter arrays."""

    name: str

    def array(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Value:
    """A tensor of the graph. `shape` has the net's own batch size, also with dynamic_batch."""

    name: str
    shape: tuple[int, ...]


Names = str | Sequence[str]  # the names of a layer's tops


@dataclass(frozen=True)
class Target:
    """A program that reads ONNX files, and what it takes where a layer has several forms.

    name: as --for has it. title: as people write it. hint: how to check a file in it where it is
    not installed. lacks: operators that layers have no other form for.
    max_unpool: it has MaxUnpool and the places that MaxPool chose. counts_padding: all its engines
    count the padding of AveragePool where they are told to. pads_convolutions: also those of one
    place, and dilated ones of single channels. selects: the size of a tensor may
    depend on values (Compress). saturates: Tanh and Softplus are right for large values, too.
    most_axes: of a blob. free_batch: the batch size may be left open. doubles: float64 is computed
    as such, not in float32. free_size: images of the file's inputs may have any size. slow_turns:
    numbers of channels with which it is slow to turn large images from channels last, as its
    convolutions give them, to channels first.
    """

    name: str
    title: str
    hint: str
    lacks: frozenset[str] = frozenset()
    max_unpool: bool = False
    counts_padding: bool = True
    pads_convolutions: bool = True
    selects: bool = True
    saturates: bool = True
    most_axes: int = 0  # 0: no limit
    free_batch: bool = True
    doubles: bool = True
    free_size: bool = True
    slow_turns: range = range(0)


LARGE = 1 << 19  # values of an image whose turns are worth avoiding

# OpenCV 5.0: its new engine lacks MaxUnpool and Compress, and counts a maximum's place in its own
# plane; it ignores the padding of 1x1 convolutions, its classic engine (OpenCV 4's, too) that of
# dilated depthwise ones, and count_include_pad. Tanh is NaN from 45 on in both, Softplus infinity
# from 89 on. Both convolve over three axes of space at most.
# OpenVINO 2026.4 lacks MaxUnpool, and its CPU plugin computes float64 in float32. It turns images
# of 16 to 64 channels by a plain loop (Reorder, isNspc2NcspCase), much slower than Transpose.
# TensorRT 10: docs/operators.md of onnx-tensorrt.
TARGETS = {
    target.name: target
    for target in (
        Target("onnxruntime", "onnxruntime", "pip install onnxruntime", max_unpool=True),
        Target(
            "opencv",
            "OpenCV",
            "pip install 'opencv-python-headless>=5'",
            frozenset({"MaxRoiPool", "ReverseSequence"}),
            counts_padding=False,
            pads_convolutions=False,
            selects=False,
            saturates=False,
            most_axes=5,
        ),
        Target(
            "openvino",
            "OpenVINO",
            "pip install openvino",
            doubles=False,
            slow_turns=range(16, 65),
        ),
        Target(
            "tensorrt",
            "TensorRT",
            "run trtexec --onnx=FILE where the GPU is",
            frozenset({"MaxRoiPool"}),
            selects=False,
            most_axes=5,
            free_batch=False,
            free_size=False,
        ),
    )
}


@dataclass
class Graph:
    """The nodes and constants of an ONNX graph under construction.

    max_unpool: Unpooling may become MaxUnpool. dynamic_batch: the batch size is left open. target:
    the program that is to read the file.
    """

    max_unpool: bool = True
    dynamic_batch: bool = False
    target: Target = TARGETS["onnxruntime"]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    masks: dict[str, Any] = field(default_factory=dict)  # Pooling's masks, for Unpooling
    layer: str = ""  # the current layer, whose name its nodes get
    _counts: dict[str, int] = field(default_factory=dict)

    def add(self, op: str, *inputs: Value | str, outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; returns the name of its output, or a list of names if there are several.

        Raises CaffeError if the target lacks the operator.
        """
        from onnx import helper

        if op in self.target.lacks:
            raise CaffeError(
                f"layer {self.layer!r}: files for {self.target.title} cannot hold {op}"
            )
        if op == "Conv" and not self.target.pads_convolutions:
            inputs = self._with_border(inputs, attributes)
        names = [self.fresh() for _ in range(outputs)]
        given = [item.name if isinstance(item, Value) else item for item in inputs]
        title = names[0].removesuffix(":1")  # a layer's first node gets the layer's name
        self.nodes.append(helper.make_node(op, given, names, title, **attributes))
        return names[0] if outputs == 1 else names

    def _with_border(self, inputs: Sequence[Value | str], attributes: dict[str, Any]) -> list[Any]:
        """A convolution's inputs, with its padding explicit where the target would ignore it."""
        pads, weight = attributes.get("pads", [0]), inputs[1]
        shape = self.constants[weight.name if isinstance(weight, Value) else weight].shape
        dilated = shape[1] == 1 and max(attributes.get("dilations", [1])) > 1
        if not any(pads) or not (max(shape[2:]) == 1 or dilated):
            return [*inputs]
        attributes["pads"] = [0] * len(pads)
        return [self.padded(inputs[0], pads, 0), *inputs[1:]]

    def fresh(self) -> str:
        """A name not used so far: the layer's name and a running number."""
        count = self._counts[self.layer] = self._counts.get(self.layer, 0) + 1
        return f"{self.layer}:{count}"

    def constant(self, values: Any, dtype: Any = np.float32, name: str | None = None) -> str:
        """Add a constant; returns its name."""
        name = name or self.fresh()
        while name in self.constants:  # layers may share a name
            name += "_"
        self.constants[name] = np.asarray(values, dtype)
        return name

    def blob(self, layer: HasArrays, index: int) -> str:
        """Add parameter `index` of a layer as a constant; returns its name."""
        return self.constant(layer.array(index), name=f"{layer.name}.{index}")

    def reshape(self, x: Value | str, shape: Sequence[int], keeps_batch: bool = True) -> str:
        """Reshape to `shape`; keeps_batch: the first axis is the batch, whose size may be open."""
        shape = list(shape)
        if self.dynamic_batch and keeps_batch and shape:
            shape[0] = 0  # in ONNX 0 means "unchanged"
        return self.add("Reshape", x, self.constant(shape, np.int64))

    def affine(self, x: Value | str, scale: float, shift: float) -> str:
        """scale * x + shift, without nodes for a scale of 1 or a shift of 0."""
        y = x.name if isinstance(x, Value) else x
        if scale != 1:
            y = self.add("Mul", y, self.constant(scale))
        return self.add("Add", y, self.constant(shift)) if shift else y

    def to_float(self, x: str) -> str:
        """x cast to float32."""
        from onnx import TensorProto

        return self.add("Cast", x, to=TensorProto.FLOAT)

    def to_int(self, x: Value | str) -> str:
        """x cast to int64."""
        from onnx import TensorProto

        return self.add("Cast", x, to=TensorProto.INT64)

    def to_bool(self, x: Value | str) -> str:
        """x cast to bool: whether it is not 0."""
        from onnx import TensorProto

        return self.add("Cast", x, to=TensorProto.BOOL)

    def slice(
        self, x: Value | str, axes: Sequence[int], starts: Sequence[int], ends: Sequence[int]
    ) -> str:
        """x from `starts` up to, not including, `ends` on these axes."""
        return self.add("Slice", x, *(self.constant(v, np.int64) for v in (starts, ends, axes)))

    def padded(self, x: Value | str, pads: Sequence[int], value: float) -> str:
        """An image (N, C, ...) with a border of `value`; pads: before each axis of space, then
        behind each.
        """
        half = len(pads) // 2
        edges = self.constant([0, 0, *pads[:half], 0, 0, *pads[half:]], np.int64)
        return self.add("Pad", x, edges, self.constant(value))

    def average(self, x: Value | str, pads: Sequence[int], **attributes: Any) -> str:
        """AveragePool over an image with a border of zeros, which count; pads: as padded's."""
        if self.target.counts_padding:
            return self.add("AveragePool", x, count_include_pad=1, pads=pads, **attributes)
        return self.add("AveragePool", self.padded(x, pads, 0), **attributes)

    def softmax(self, x: Value, axis: int) -> str:
        """Softmax, over the channels of a large image with the channels last where the target would
        else be slow to bring them to the front.
        """
        image = len(x.shape) == 4 and axis in (1, -3) and math.prod(x.shape) >= LARGE
        if not image or x.shape[1] not in self.target.slow_turns:
            return self.add("Softmax", x, axis=axis)
        turned = self.add("Softmax", self.add("Transpose", x, perm=[0, 2, 3, 1]), axis=3)
        return self.add("Transpose", turned, perm=[0, 3, 1, 2])

    def tanh(self, x: Value | str) -> str:
        """The hyperbolic tangent, which is 1 in float32 from 10 on."""
        if not self.target.saturates:
            x = self.add("Min", x, self.constant(20))
        return self.add("Tanh", x)

    def softplus(self, x: Value | str) -> str:
        """log(1 + e^x)."""
        if self.target.saturates:
            return self.add("Softplus", x)
        small = self.add("Exp", self.add("Neg", self.add("Abs", x)))
        rest = self.add("Log", self.affine(small, 1, 1))
        return self.add("Add", self.add("Relu", x), rest)

    def shape_like(self, x: Value, shape: Sequence[int]) -> str:
        """`shape` as an int64 tensor; with dynamic_batch its first number is read from x."""
        if not self.dynamic_batch:
            return self.constant(shape, np.int64)
        batch = self.add("Shape", x, start=0, end=1)
        return self.add("Concat", batch, self.constant(shape[1:], np.int64), axis=0)

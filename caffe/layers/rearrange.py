"""Layers that hand on, join, cut and rearrange blobs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, register, resized
from caffe.layers.coordinates import IDENTITY, Map
from caffe.layers.look import Look
from caffe.process.log import WARNING, emit
from caffe.proto import caffe_pb2 as pb


@register("Split")
class Split(Layer):
    """Hands the bottom to several layers, one top for each; the gradients of the tops add up."""

    tops = (1, None)
    in_place = False
    shares_memory = True
    concurrent = True
    look = Look(open=True)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [tuple(shapes[0])] * self.num_tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        return [bottom[0]] * self.num_tops

    def copies(self) -> bool:
        return True

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return [bottoms[0].name] * self.num_tops

    @classmethod
    def coordinates(cls, params: Mapping[str, Any]) -> Map:
        return IDENTITY


@register("Silence")
class Silence(Layer):
    """Takes blobs that no other layer needs, so that they are not outputs of the net. Their
    gradient is zero.
    """

    bottoms = (1, None)
    tops = (0, 0)
    look = Look(open=True)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return []

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        return []


@register("Concat")
class Concat(Layer):
    """Joins bottoms along an axis; their other axes are equal."""

    bottoms = (1, None)
    bounded = True
    concurrent = True
    reads = ("concat_param",)
    look = Look("Fusion")

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.concat_param
        old = p.HasField("concat_dim")
        self.check(not (old and p.HasField("axis")), "give either axis or concat_dim, not both")
        self.joined_axis = p.concat_dim if old else p.axis

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        first = tuple(shapes[0])
        axis = self.axis(self.joined_axis, first)
        for i, shape in enumerate(shapes):
            self.check(
                len(shape) == len(first) and resized(shape, axis, 0) == resized(first, axis, 0),
                f"bottom {i} has the shape {tuple(shape)}; all but axis {axis} must be as in "
                f"bottom 0, {first}",
            )
        return [resized(first, axis, sum(shape[axis] for shape in shapes))]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        return torch.cat(list(bottom), self.joined_axis) if len(bottom) > 1 else bottom[0]

    def copies(self) -> bool:
        return self.num_bottoms == 1

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        if self.copies():
            return bottoms[0].name
        axis = self.axis(self.joined_axis, bottoms[0].shape)
        return graph.add("Concat", *bottoms, axis=axis)

    @classmethod
    def alignment(cls, params: Mapping[str, Any]) -> Map:
        return IDENTITY

    @classmethod
    def symbol(cls, param: pb.LayerParameter) -> str:
        return "C"


@register("Slice")
class Slice(Layer):
    """Cuts the bottom along an axis, at slice_point or into equal parts."""

    tops = (1, None)
    bounded = True
    reads = ("slice_param",)
    look = Look(open=True)
    _warned = False

    def setup(self, shapes: Sequence[Shape]) -> None:
        p, tops = self.layer_param.slice_param, self.num_tops
        old = p.HasField("slice_dim")
        self.check(not (old and p.HasField("axis")), "give either axis or slice_dim, not both")
        self.cut_axis = p.slice_dim if old else p.axis
        self.points = list(p.slice_point)
        self.check(
            not self.points or len(self.points) == tops - 1,
            f"{tops} tops need {tops - 1} slice_point(s), got {len(self.points)}",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        axis, sizes = self._sizes(shapes[0])
        if shapes[0][axis] and not sizes[-1] and not self._warned:
            self._warned = True
            emit(
                "slice_layer.cpp:1",
                f"{self.where} (Slice): slice_point {self.points} leaves nothing of axis {axis} of "
                f"the bottom {tuple(shapes[0])} for the last top, {self.layer_param.top[-1]!r}: it "
                f"would take at least {self.points[-1] + 1}",
                WARNING,
            )
        return [resized(shapes[0], axis, size) for size in sizes]

    def _sizes(self, shape: Shape) -> tuple[int, list[int]]:
        """The axis that is cut, not negative, and the extents of the parts."""
        axis = self.axis(self.cut_axis, shape)
        extent, tops, points = shape[axis], self.num_tops, self.points
        if not points:
            self.check(
                extent % tops == 0, f"axis {axis} of {extent} cannot be cut into {tops} equal parts"
            )
            return axis, [extent // tops] * tops
        sizes = [b - a for a, b in itertools.pairwise([0, *points, extent])]
        self.check(
            min(sizes[:-1]) > 0 and sizes[-1] >= 0 and tops <= extent,
            f"slice_point {points} must rise within the {extent} of axis {axis}",
        )
        return axis, sizes

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        axis, sizes = self._sizes(tuple(bottom[0].shape))
        return torch.split(bottom[0], sizes, axis)

    def copies(self) -> bool:
        return self.num_tops == 1

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        axis, sizes = self._sizes(x.shape)
        sizes = graph.constant(sizes, np.int64)
        parts = graph.add("Split", x, sizes, outputs=self.num_tops, axis=axis)
        return [parts] if isinstance(parts, str) else parts

    @classmethod
    def alignment(cls, params: Mapping[str, Any]) -> Map:
        return IDENTITY


class _View(Layer):
    """A layer that gives the bottom's values another shape, in the same memory."""

    in_place = False
    shares_memory = True

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (shape,) = self.top_shapes(bottom)
        return bottom[0].reshape(shape)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        (shape,) = self.infer_shapes([x.shape])
        keeps_batch = bool(shape) and shape[:1] == x.shape[:1]
        self.check(
            keeps_batch or not graph.dynamic_batch, "mixes the samples, whose number is to be free"
        )
        return graph.reshape(x, shape, keeps_batch)


@register("Flatten")
class Flatten(_View):
    """Axes axis .. end_axis become one."""

    reads = ("flatten_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p, shape = self.layer_param.flatten_param, tuple(shapes[0])
        start, end = self.axis(p.axis, shape), self.axis(p.end_axis, shape)
        self.check(start <= end + 1, f"axis {p.axis} lies behind end_axis {p.end_axis} of {shape}")
        return [(*shape[:start], math.prod(shape[start : end + 1]), *shape[end + 1 :])]


@register("Reshape")
class Reshape(_View):
    """A new shape for the same values: 0 keeps an axis, -1 is inferred.

    Only num_axes axes from `axis` on are replaced; a negative `axis` counts from behind the last.
    """

    reads = ("reshape_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        dims = list(self.layer_param.reshape_param.shape.dim)
        self.check(
            dims.count(-1) <= 1 and min(dims, default=0) >= -1,
            f"shape {dims} may hold one -1, and no other negative number",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = tuple(shapes[0])
        new = self._inferred(self._replaced(shape), shape)
        self.check(
            math.prod(new) == math.prod(shape),
            f"bottom {shape} has {math.prod(shape)} values, the new shape {new} {math.prod(new)}",
        )
        return [new]

    def _replaced(self, shape: Shape) -> Shape:
        """The new shape, in which -1 may stand for an axis that is to be inferred."""
        p = self.layer_param.reshape_param
        axes, dims = len(shape), list(p.shape.dim)
        start = p.axis if p.axis >= 0 else axes + p.axis + 1
        end = axes if p.num_axes == -1 else start + p.num_axes
        self.check(0 <= start <= axes, f"axis {p.axis} is out of range for the bottom's {shape}")
        self.check(
            p.num_axes >= -1 and end <= axes,
            f"num_axes {p.num_axes} from axis {start} on is out of range for the bottom's {shape}",
        )
        for i, dim in enumerate(dims):
            if dim == 0:
                self.check(start + i < axes, f"shape {dims}: there is no axis {start + i} to keep")
                dims[i] = shape[start + i]
        return (*shape[:start], *dims, *shape[end:])

    def _inferred(self, new: Shape, shape: Shape) -> Shape:
        """The new shape without -1."""
        if -1 not in new:
            return new
        open_axis = new.index(-1)
        before, behind = new[:open_axis], new[open_axis + 1 :]
        known, count = math.prod(before) * math.prod(behind), math.prod(shape)
        self.check(
            known > 0 and count % known == 0,
            f"the {count} values of {shape} cannot be divided among the {known} of shape {new}",
        )
        return (*before, count // known, *behind)


@register("Permute")
class Permute(Layer):
    """The bottom with its axes in the order `order`; axes that it leaves out follow in their order.

    Source: SSD's fork of Caffe (Liu et al., 2016), permute_layer.cpp.
    """

    in_place = False
    reads = ("permute_param",)
    fork = "SSD"
    judge = "recorded"

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.order = self._order(len(shapes[0]))

    def _order(self, axes: int) -> list[int]:
        """The bottom's axes in the top's order."""
        given = list(self.layer_param.permute_param.order)
        self.check(
            len(set(given)) == len(given) and max(given, default=-1) < axes,
            f"order {given} must name different axes of the bottom's {axes}",
        )
        return [*given, *(axis for axis in range(axes) if axis not in given)]

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        (shape,) = shapes
        self.check(
            len(shape) == len(self.order),
            f"bottom has the shape {tuple(shape)}, expected {len(self.order)} axes as at the start",
        )
        return [tuple(shape[axis] for axis in self.order)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        return bottom[0].permute(self.order).contiguous()

    def copies(self) -> bool:
        return self.order == sorted(self.order)

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        fixed = self.order[:1] in ([], [0])
        self.check(
            fixed or not graph.dynamic_batch, "moves the samples, whose number is to be free"
        )
        if self.copies():
            return bottoms[0].name
        return graph.add("Transpose", bottoms[0], perm=self.order)


@register("ShuffleChannel")
class ShuffleChannel(Layer):
    """Mixes the channels (axis 1) of `group` groups: channel i of group g becomes channel
    i group + g.

    Bottom and top: (N, C, ...), where group divides C (Zhang et al., 2018;
    shuffle_channel_layer.cpp).
    """

    fork = "mini-caffe, farmingyard/ShuffleNet"
    judge = "recorded"
    reads = ("shuffle_channel_param",)
    in_place = False
    bounded = True

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape, group = tuple(shapes[0]), self.layer_param.shuffle_channel_param.group
        self.check(len(shape) >= 2, f"bottom has the shape {shape}, expected at least 2 axes")
        self.check(
            group > 0 and shape[1] % group == 0,
            f"group is {group}, expected a divisor of the {shape[1]} channels of bottom {shape}",
        )
        return [shape]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (shape,) = self.top_shapes(bottom)
        return bottom[0].reshape(self._grouped(shape)).transpose(1, 2).reshape(shape)

    def _grouped(self, shape: Shape) -> Shape:
        """`shape` with its channels as two axes, groups and channels in each."""
        group = self.layer_param.shuffle_channel_param.group
        return (shape[0], group, shape[1] // group, *shape[2:])

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        grouped = graph.reshape(x, self._grouped(x.shape))
        order = [0, 2, 1, *range(3, len(x.shape) + 1)]
        return graph.reshape(graph.add("Transpose", grouped, perm=order), x.shape)

    @classmethod
    def coordinates(cls, params: Mapping[str, Any]) -> Map:
        return IDENTITY


@register("Reorg")
class Reorg(Layer):
    """Moves `stride` x `stride` pixels into channels, or back with `reverse`, as darknet does.

    Bottom (N, C, H, W), top (N, C stride^2, H / stride, W / stride); with `reverse` the top is
    (N, C / stride^2, H stride, W stride). The pixels are not those of a square in the bottom:
    darknet sees the bottom's memory as (N, C / stride^2, H stride, W stride), takes the pixels of
    its squares apart and lays them down as (N, stride^2, C / stride^2, H, W)
    (Redmon and Farhadi, 2017; reorg_layer.cpp).
    """

    fork = "MobileNet-YOLO, Intel Caffe"
    judge = "recorded"
    reads = ("reorg_param",)
    in_place = False
    bounded = True
    differs = "The forks' backward pass gives zeros: it reads a buffer that nothing fills."

    def setup(self, shapes: Sequence[Shape]) -> None:
        stride = self.layer_param.reorg_param.stride
        self.check(stride > 0, f"stride is {stride}, expected at least 1")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p, shape = self.layer_param.reorg_param, tuple(shapes[0])
        self.check(len(shape) == 4, f"bottom has the shape {shape}, expected 4 axes")
        n, c, h, w = shape
        s, square = p.stride, p.stride**2
        if p.reverse:
            self.check(
                c % square == 0, f"bottom {shape} has {c} channels, expected a multiple of {square}"
            )
            return [(n, c // square, h * s, w * s)]
        self.check(
            h % s == 0 and w % s == 0 and c * h % square == 0,
            f"bottom has the shape {shape}, expected rows and columns that are multiples of "
            f"stride {s}, and channels times rows a multiple of {square}",
        )
        return [(n, c * square, h // s, w // s)]

    def _steps(self, shape: Shape) -> tuple[Shape, Sequence[int]]:
        """The shape in which the bottom's memory is seen, and the order of its axes then.

        The rows and columns of darknet's squares are axes of their own.
        """
        n, c, h, w = shape
        s = self.layer_param.reorg_param.stride
        rows = c * h // s**2
        if self.layer_param.reorg_param.reverse:
            return (n, s, s, rows, w), (0, 3, 1, 4, 2)
        return (n, rows, s, w, s), (0, 2, 4, 1, 3)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        view, order = self._steps(tuple(bottom[0].shape))
        return bottom[0].reshape(view).permute(order).reshape(top)

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        view, order = self._steps(x.shape)
        moved = graph.add("Transpose", graph.reshape(x, view), perm=order)
        return graph.reshape(moved, *self.infer_shapes([x.shape]))


@register("Flip")
class Flip(Layer):
    """Turns images round: columns with flip_width, rows with flip_height.

    Bottom and top: (N, C, H, W), or fewer axes, of which the missing ones are 1 (caffe-windows'
    flip_layer.cpp).
    """

    fork = "caffe-windows"
    judge = "recorded"
    reads = ("flip_param",)
    in_place = False
    bounded = True

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = tuple(shapes[0])
        self.check(len(shape) <= 4, f"bottom has the shape {shape}, expected at most 4 axes")
        return [shape]

    def _axes(self, axes: int) -> list[int]:
        """The axes that are turned round, of so many."""
        p = self.layer_param.flip_param
        wanted = [(2, p.flip_height), (3, p.flip_width)]
        return [axis for axis, turned in wanted if turned and axis < axes]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        return bottom[0].flip(self._axes(bottom[0].dim()))

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        axes = self._axes(len(x.shape))
        ends = [-x.shape[axis] - 1 for axis in axes]
        if not axes:
            return graph.add("Identity", x)
        given = ([-1] * len(axes), ends, axes, [-1] * len(axes))
        return graph.add("Slice", x, *(graph.constant(v, np.int64) for v in given))


@register("Gather")
class Gather(Layer):
    """Hands each bottom to its top (TSN's gather_layer.cpp without MPI)."""

    fork = "TSN"
    judge = "worked cases"
    bottoms = (1, None)
    tops = (1, None)
    one_top_each = True
    shares_memory = True
    differs = "Processes do not exchange samples; with MPI the fork's tops hold those of all."
    look = Look(open=True)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [tuple(shape) for shape in shapes]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        return list(bottom)

    def copies(self) -> bool:
        return self.num_bottoms == 1

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return [x.name for x in bottoms]


@register("Tile")
class Tile(Layer):
    """Repeats the bottom along an axis."""

    reads = ("tile_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        tiles = self.layer_param.tile_param.tiles
        self.check(tiles > 0, f"tiles is {tiles}, expected a positive number")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = tuple(shapes[0])
        return [tuple(n * times for n, times in zip(shape, self._repeats(shape), strict=True))]

    def _repeats(self, shape: Shape) -> list[int]:
        """How often each axis is repeated."""
        p = self.layer_param.tile_param
        return list(resized((1,) * len(shape), self.axis(p.axis, shape), p.tiles))

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return bottom[0].repeat(self._repeats(tuple(bottom[0].shape)))

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        return graph.add("Tile", x, graph.constant(self._repeats(x.shape), np.int64))


@register("BatchReindex")
class BatchReindex(Layer):
    """Picks samples of bottom 0, one for each index in bottom 1, which has one axis."""

    bottoms = (2, 2)
    labels = (1,)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape, index = (tuple(s) for s in shapes)
        self.check(
            len(index) == 1, f"the indices (bottom 1) have the shape {index}, expected one axis"
        )
        self.check(len(shape) > 0, f"bottom 0 has the shape {shape}, expected at least 1 axis")
        return [(*index, *shape[1:])]

    def choices(self, index: int, shapes: Sequence[Shape]) -> int:
        return shapes[0][0] if index == 1 else 0

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        x, index = bottom[0], bottom[1].detach().long()
        self.check_range(index, x.shape[0], "index", ", the samples of bottom 0")
        return x.index_select(0, index)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        x, index = bottoms
        return graph.add("Gather", x, graph.to_int(index), axis=0)


@register("Filter")
class Filter(Layer):
    """Keeps the samples for which the last bottom, the selector, is not zero; the other bottoms
    have one top each.

    The selector has one value a sample: (N), or (N, 1, ...). The number of samples kept is known
    after the forward pass; until then the tops have the shapes of all samples, as in Caffe.
    """

    bottoms = (2, None)
    tops = (1, None)
    in_place = False
    varying = 0
    differs = "If nothing is selected, backward gives zeros, where Caffe divides by zero."

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.labels = (self.num_bottoms - 1,)
        self.check(
            self.num_tops == self.num_bottoms - 1,
            f"makes one top for each bottom but the selector, got {self.num_bottoms} bottoms "
            f"and {self.num_tops} top(s)",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        *items, selector = (tuple(shape) for shape in shapes)
        count = math.prod(selector)
        self.check(
            selector[:1] == (count,),
            f"the selector has the shape {selector}; all axes but the first must be 1",
        )
        for i, shape in enumerate(items):
            self.check(
                shape[:1] == (count,),
                f"bottom {i} has the shape {shape}, expected the {count} samples of the selector",
            )
        return items

    def choices(self, index: int, shapes: Sequence[Shape]) -> int:
        return 2 if index == len(shapes) - 1 else 0

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        *items, selector = bottom
        index = selector.detach().reshape(-1).nonzero()[:, 0]
        return [x.index_select(0, index) for x in items]

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        *items, selector = bottoms
        self.check(
            graph.target.selects,
            "how many samples it keeps depends on values, which files for "
            f"{graph.target.title} cannot say",
        )
        flat = graph.add("Reshape", selector, graph.constant([-1], np.int64))
        chosen = graph.to_bool(flat)
        return [graph.add("Compress", x, chosen, axis=0) for x in items]

"""Layers that pool windows of an image, or undo it: Pooling, SPP, and Unpooling."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from caffe.errors import CaffeError
from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import ENGINE, Layer, Shape, Tensors, can_look, register, with_gradient_of
from caffe.layers.coordinates import Map, windowed
from caffe.layers.look import Look
from caffe.proto import caffe_pb2 as pb

LOWEST = torch.finfo(torch.float32).min
NOWHERE = -1  # in a mask: the window has no maximum
Pair = tuple[int, int]
_METHODS = pb.UnpoolingParameter


@dataclass(frozen=True)
class Windows:
    """Where the windows of a pooling layer lie; pairs are (height, width)."""

    kernel: Pair
    stride: Pair
    pad: Pair
    floor: bool = False

    def count(self, size: Sequence[int]) -> Pair:
        """How many windows fit an image of this size (pooling_layer.cpp's Reshape)."""
        rows, columns = (self._along(axis, n) for axis, n in enumerate(size))
        return rows, columns

    def _along(self, axis: int, size: int) -> int:
        pad, stride = self.pad[axis], self.stride[axis]
        steps = (size + 2 * pad - self.kernel[axis]) / stride
        count = (math.floor(steps) if self.floor else math.ceil(steps)) + 1
        # Only with padding is a last window dropped that would start beyond the image.
        if any(self.pad) and (count - 1) * stride >= size + pad:
            count -= 1
        return count

    def padded(self, x: torch.Tensor, value: float) -> torch.Tensor:
        """x with its padding made explicit, just large enough for all windows."""
        edges = [n for pair in reversed(self._edges(x.shape[2:])) for n in pair]
        return F.pad(x, edges, value=value) if any(edges) else x  # it counts from the last axis

    def padding(self, size: Sequence[int]) -> int:
        """How many values a plane of this size has once it is padded; 0 if it stays as it is."""
        edges = self._edges(size)
        padded = (n + before + behind for n, (before, behind) in zip(size, edges, strict=True))
        return math.prod(padded) if any(map(any, edges)) else 0

    def _edges(self, size: Sequence[int]) -> list[Pair]:
        """What padding puts before and behind each axis."""
        edges = []
        for axis, count in enumerate(self.count(size)):
            need = (count - 1) * self.stride[axis] + self.kernel[axis]
            edges.append((self.pad[axis], max(need - size[axis] - self.pad[axis], 0)))
        return edges

    def maximum(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first of the largest values, and its place in the plane; -1 in an empty window."""
        lowest = max(LOWEST, torch.finfo(x.dtype).min)
        padded, count = self.padded(x, lowest), self.count(x.shape[2:])
        y, index = F.max_pool2d(padded, self.kernel, self.stride, return_indices=True)
        empty = any(
            (n - 1) * stride - pad >= size
            for n, stride, pad, size in zip(count, self.stride, self.pad, x.shape[2:], strict=True)
        )
        # In Caffe's own code (not in cuDNN) NaN never wins, nor does what is below all floats.
        if x.device.type == "cpu" and can_look(y) and not bool((y > lowest).all()):
            padded, empty = torch.where(padded > lowest, padded, lowest), True
            y, index = F.max_pool2d(padded, self.kernel, self.stride, return_indices=True)
        y, index = y[:, :, : count[0], : count[1]], index[:, :, : count[0], : count[1]]
        if padded.shape != x.shape:
            width = padded.shape[3]
            rows, columns = index // width - self.pad[0], index % width - self.pad[1]
            index = rows * x.shape[3] + columns
        if empty:
            index = torch.where(y > lowest, index, NOWHERE)
        return y, index.to(x.dtype)

    def average(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of each window, clipped to the padded image: padding counts, overhang does
        not.
        """
        padded, count = self.padded(x, 0.0), self.count(x.shape[2:])
        total = F.avg_pool2d(padded, self.kernel, self.stride, divisor_override=1)
        lengths = []
        for axis in (0, 1):
            start = torch.arange(count[axis], device=x.device, dtype=x.dtype)
            start = start * self.stride[axis] - self.pad[axis]
            end = (start + self.kernel[axis]).clamp(max=x.shape[2 + axis] + self.pad[axis])
            lengths.append(end - start)
        return total[:, :, : count[0], : count[1]] / torch.outer(*lengths)

    def stochastic(self, x: torch.Tensor, train: bool) -> torch.Tensor:
        """In TRAIN a value of each window, drawn by its share of the window's sum; in TEST the
        mean weighted by these shares (Zeiler and Fergus, 2013). Values must not be negative.
        """
        values = self._gathered(self.padded(x, 0.0), x.shape[2:])
        if not train:
            total = values.sum(-1)
            some = total > 0
            return torch.where(some, values.square().sum(-1) / torch.where(some, total, 1), 0)
        inside = self._gathered(self.padded(torch.ones_like(x[:1, :1]), 0.0), x.shape[2:]) > 0
        reached = values.detach().cumsum(-1)
        draw = 1 - torch.rand(reached.shape[:-1], device=x.device)  # in (0, 1], as Caffe's
        threshold = draw.to(x.dtype) * values.detach().sum(-1)
        chosen = ((reached >= threshold[..., None]) & inside).byte().argmax(-1, keepdim=True)
        return values.gather(-1, chosen)[..., 0]

    def _gathered(self, padded: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
        """The values of each window along a new last axis."""
        rows, columns = self.count(size)
        windows = padded.unfold(2, self.kernel[0], self.stride[0])
        windows = windows.unfold(3, self.kernel[1], self.stride[1])
        return windows[:, :, :rows, :columns].flatten(4)


class _PoolingLayer(Layer):
    """What Pooling and SPP share: one of Caffe's three methods over windows."""

    def check_image(self, shape: Shape) -> None:
        """Raise CaffeError unless there are planes to pool."""
        self.check(
            len(shape) == 4,
            f"bottom has the shape {shape}, expected 4 axes: samples, channels, height, width",
        )
        self.check(shape[1] > 0, f"bottom {shape} has no channels")

    def check_padding(self, method: int, pad: Pair) -> None:
        """Raise CaffeError if the method does not take padding."""
        padded = method == pb.PoolingParameter.STOCHASTIC and any(pad)
        self.check(not padded, "padding is for MAX and AVE only")

    def pooled_shape(self, shape: Shape, windows: Windows) -> Shape:
        """The shape with one value for each window. Raises CaffeError for too small an image."""
        count = windows.count(shape[2:])
        self.check(
            min(*windows.kernel, *count) > 0,
            f"bottom {shape} is too small for kernel {windows.kernel} and pad {windows.pad}",
        )
        return (*shape[:2], *count)

    def pool_scratch(self, shape: Shape, windows: Windows, method: int) -> int:
        """How many values pooling needs besides bottom and top."""
        values = windows.padding(shape[2:])
        if method == pb.PoolingParameter.STOCHASTIC:  # each window's values lie by themselves
            values += math.prod(windows.count(shape[2:])) * math.prod(windows.kernel)
        return math.prod(shape[:2]) * values

    def pool(self, x: torch.Tensor, windows: Windows, method: int) -> torch.Tensor | Tensors:
        """The top; MAX also gives the mask."""
        methods = pb.PoolingParameter
        if method == methods.AVE:
            return windows.average(x)
        if method == methods.STOCHASTIC:
            return windows.stochastic(x, self.phase == pb.TRAIN)
        return windows.maximum(x)

    def onnx_pool(self, graph: Graph, x: Value, windows: Windows, method: int) -> str:
        """Pooling in ONNX, in TEST phase, without a mask."""
        attributes = _onnx_attributes(self, x, windows)
        if method == pb.PoolingParameter.MAX:
            return graph.add("MaxPool", x, **attributes)
        if method == pb.PoolingParameter.AVE:
            return _onnx_average(graph, x, windows, attributes)
        # STOCHASTIC: the mean of the values, weighted by the values themselves.
        total = _onnx_average(graph, x, windows, attributes)
        squares = Value(graph.add("Mul", x, x), x.shape)
        weighted = _onnx_average(graph, squares, windows, attributes)
        some = graph.add("Greater", total, graph.constant(0))
        divisor = graph.add("Where", some, total, graph.constant(1))
        return graph.add("Where", some, graph.add("Div", weighted, divisor), graph.constant(0))


def _first(tops: torch.Tensor | Tensors) -> torch.Tensor:
    return tops if isinstance(tops, torch.Tensor) else tops[0]


def _onnx_attributes(layer: Layer, x: Value, windows: Windows) -> dict[str, list[int]]:
    """Attributes of ONNX's pooling: padding behind the image reaches as far as Caffe's windows."""
    sides = zip(
        windows.count(x.shape[2:]), windows.stride, windows.kernel, windows.pad, strict=True
    )
    reach = [(n - 1) * stride + kernel - pad for n, stride, kernel, pad in sides]
    behind = [max(end - size, 0) for end, size in zip(reach, x.shape[2:], strict=True)]
    layer.check(
        all(pad < kernel for pad, kernel in zip(behind, windows.kernel, strict=True)),
        f"a window lies wholly beyond the image {x.shape[2:]}, which ONNX does not have",
    )
    return {
        "kernel_shape": list(windows.kernel),
        "strides": list(windows.stride),
        "pads": [*windows.pad, *behind],
    }


def _onnx_average(
    graph: Graph, x: Value, windows: Windows, attributes: dict[str, list[int]]
) -> str:
    """The mean of each window, clipped to the padded image."""
    if not any(windows.pad):  # what hangs over the image does not count
        return graph.add("AveragePool", x, count_include_pad=0, **attributes)
    y = graph.average(x, **attributes)
    image, lengths = x.shape[2:], []
    for axis, n in enumerate(windows.count(image)):
        start = np.arange(n) * windows.stride[axis] - windows.pad[axis]
        end = np.minimum(start + windows.kernel[axis], image[axis] + windows.pad[axis])
        lengths.append(end - start)
    share = np.outer(*lengths) / math.prod(windows.kernel)
    return y if (share == 1).all() else graph.add("Div", y, graph.constant(share))


@dataclass
class Mask:
    """Where a pooling mask in an ONNX graph comes from: the image, its windows, and one of:

    - `places`: the chosen places in the whole tensor, as MaxPool counts them;
    - `equal`, where max_unpool is off and the windows are square tiles: for each place of a
      window, row by row, a bool of the pooled shape, which tells whether the maximum is there. The
      first place of these was chosen.
    """

    image: Value
    windows: Windows
    places: str = ""
    equal: Sequence[str] = ()


@register("Pooling")
class Pooling(_PoolingLayer):
    """Maximum, average or random choice over windows; MAX has a second top, the places chosen.

    The bottom (N, C, H, W) gives tops (N, C, rows, columns). The mask's places are flat indices
    into one channel's plane, as Unpooling takes them. Source: Caffe's pooling_layer.cpp.
    """

    tops = (1, 2)
    bounded = True
    reads = ("pooling_param",)
    takes = ("pooling_param.ceil_mode",)
    differs = (
        "STOCHASTIC also runs on the CPU, and has a gradient in TEST. A MAX window off the image, "
        "or of NaN alone, passes no gradient; Caffe writes it to stray memory. "
        f"On a GPU, as with cuDNN, a NaN wins in MAX. {ENGINE}"
    )
    look = Look("Pooling", color="#FF9900")
    image: Sequence[int] = (0, 0)  # height and width of the bottom that it pooled last

    @property
    def concurrent(self) -> bool:
        return self.layer_param.pooling_param.pool != pb.PoolingParameter.STOCHASTIC

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.pooling_param
        self.check_image(shapes[0])
        has_hw = p.HasField("kernel_h") and p.HasField("kernel_w")
        if p.global_pooling:
            given = p.HasField("kernel_size") or p.HasField("kernel_h") or p.HasField("kernel_w")
            self.check(not given, "global_pooling excludes a kernel size")
        else:
            self.check(
                p.HasField("kernel_size") != has_hw,
                "give either kernel_size, or kernel_h and kernel_w",
            )
        self.kernel = (p.kernel_h, p.kernel_w) if has_hw else (p.kernel_size,) * 2
        # Forks say `ceil_mode: false` for what is FLOOR in BVLC's last master.
        floor = p.round_mode == pb.PoolingParameter.FLOOR
        self.floor = floor if p.HasField("round_mode") else not p.ceil_mode
        self.pad, self.stride = self._pair("pad", p.pad), self._pair("stride", p.stride)
        self._check_geometry()
        self.check(
            self.num_tops == 1 or p.pool == pb.PoolingParameter.MAX,
            "only MAX pooling has a second top, the mask",
        )
        self.check_padding(p.pool, self.pad)

    def _check_geometry(self) -> None:
        if self.layer_param.pooling_param.global_pooling:
            self.check(
                self.pad == (0, 0) and self.stride == (1, 1),
                "global_pooling allows only pad 0 and stride 1",
            )
            return
        self.check(min(self.kernel) > 0, f"kernel dimensions must not be zero: {self.kernel}")
        self.check(min(self.stride) > 0, f"stride must not be zero: {self.stride}")
        self.check(
            self.pad[0] < self.kernel[0] and self.pad[1] < self.kernel[1],
            f"pad {self.pad} must be smaller than the kernel {self.kernel}",
        )

    def _pair(self, name: str, value: int) -> Pair:
        p = self.layer_param.pooling_param
        has_h, has_w = p.HasField(f"{name}_h"), p.HasField(f"{name}_w")
        self.check(
            has_h == has_w and not (has_h and p.HasField(name)),
            f"give either {name}, or {name}_h and {name}_w",
        )
        return (getattr(p, f"{name}_h"), getattr(p, f"{name}_w")) if has_h else (value, value)

    def windows(self, shape: Shape) -> Windows:
        """The windows over a bottom of this shape."""
        p = self.layer_param.pooling_param
        kernel = (shape[2], shape[3]) if p.global_pooling else self.kernel
        return Windows(kernel, self.stride, self.pad, self.floor)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = shapes[0]
        self.check_image(shape)
        tops = [self.pooled_shape(shape, self.windows(shape))] * self.num_tops
        if self.num_tops == 2:
            self.image = shape[2:]  # for the Unpooling that takes the mask
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.top_shapes(bottom)
        x = bottom[0]
        pooled = self.pool(x, self.windows(tuple(x.shape)), self.layer_param.pooling_param.pool)
        return pooled if self.num_tops == 2 else _first(pooled)

    def scratch(self, shapes: Sequence[Shape]) -> int:
        method = self.layer_param.pooling_param.pool
        return self.pool_scratch(shapes[0], self.windows(shapes[0]), method)

    def takes_bfloat16(self) -> bool:
        # A mask holds places and the other methods divide by sums: bfloat16 counts to 256 only.
        maximum = self.layer_param.pooling_param.pool == pb.PoolingParameter.MAX
        return maximum and self.num_tops == 1

    def onnx(self, graph: Graph, x: Value) -> Names:
        if self.num_tops == 1:
            method = self.layer_param.pooling_param.pool
            return self.onnx_pool(graph, x, self.windows(x.shape), method)
        windows = self.windows(x.shape)
        if not graph.max_unpool:
            return self._onnx_compared(graph, x, windows)
        y, places = graph.add("MaxPool", x, outputs=2, **_onnx_attributes(self, x, windows))
        plane = graph.constant(math.prod(x.shape[2:]), np.int64)
        mask = graph.to_float(graph.add("Mod", places, plane))
        graph.masks[mask] = Mask(x, windows, places=places)
        return y, mask

    def _onnx_compared(self, graph: Graph, x: Value, windows: Windows) -> Names:
        """Maxima and mask without MaxPool's indices: each place of the windows is compared with the
        maximum, from the last to the first, which wins.

        That is the largest of these values, not what is given out: a quantiser rounds the latter.
        """
        pads = _onnx_attributes(self, x, windows)["pads"]
        padded = graph.padded(x, pads, LOWEST) if any(pads) else x.name
        kernel, stride, count = windows.kernel, windows.stride, windows.count(x.shape[2:])
        maximum = graph.add("MaxPool", padded, kernel_shape=kernel, strides=stride)
        plane = [np.arange(n) * s - pad for n, s, pad in zip(count, stride, pads, strict=False)]
        steps = graph.constant(stride, np.int64)
        axes = graph.constant([2, 3], np.int64)
        places, values = [], []
        for offset in np.ndindex(*kernel):
            ends = [o + (n - 1) * s + 1 for o, n, s in zip(offset, count, stride, strict=True)]
            bounds = (graph.constant(values, np.int64) for values in (offset, ends))
            values.append(graph.add("Slice", padded, *bounds, axes, steps))
            rows, columns = (where + o for where, o in zip(plane, offset, strict=True))
            places.append((rows[:, None] * x.shape[3] + columns)[None, None])
        largest = graph.add("Max", *values)
        equal = [graph.add("Equal", here, largest) for here in values]
        mask = graph.constant(np.zeros((1, 1, *count)))
        for place, here in zip(reversed(places), reversed(equal), strict=True):
            mask = graph.add("Where", here, graph.constant(place), mask)
        if kernel == stride and kernel[0] == kernel[1] and not any(windows.pad):
            graph.masks[mask] = Mask(x, windows, equal=equal)
        return maximum, mask

    @classmethod
    def coordinates(cls, params: Mapping[str, Any]) -> Map:
        return windowed(cls.type, params)

    @classmethod
    def title(cls, param: pb.LayerParameter) -> str:
        return f"{param.type} {pb.PoolingParameter.PoolMethod.Name(param.pooling_param.pool)}"

    @classmethod
    def geometry(cls, param: pb.LayerParameter) -> list[str]:
        p = param.pooling_param
        kernel = p.kernel_size or f"{p.kernel_h}x{p.kernel_w}"
        return [f"kernel size: {kernel}", f"stride: {p.stride}", f"pad: {p.pad}"]


@register("SPP")
class SPP(_PoolingLayer):
    """Spatial pyramid pooling: 1, 4, 16, ... windows over the image, joined (He et al., 2014).

    The bottom (N, C, H, W) gives the top (N, 21 C), say, with a pyramid_height of 3. A pyramid of
    one level gives (N, C, 1, 1), as in Caffe. Source: Caffe's spp_layer.cpp.
    """

    reads = ("spp_param",)
    differs = f"STOCHASTIC also runs on the CPU, and knows the phase. {ENGINE}"

    def setup(self, shapes: Sequence[Shape]) -> None:
        height = self.layer_param.spp_param.pyramid_height
        self.check(height > 0, "pyramid_height must be positive")

    def levels(self, shape: Shape) -> list[Windows]:
        """The windows of each level over a bottom of this shape."""
        p, levels = self.layer_param.spp_param, []
        most = min(shape[2:]).bit_length()  # a level has at most as many windows as the image rows
        self.check(
            p.pyramid_height <= most,
            f"pyramid_height is {p.pyramid_height}: bottom {shape} is too small for more than "
            f"{most} levels",
        )
        for level in range(p.pyramid_height):
            bins = 2**level
            height, width = ((-(-n // bins), (-n % bins + 1) // 2) for n in shape[2:])
            kernel, pad = tuple(zip(height, width, strict=True))
            self.check(
                pad[0] < kernel[0] and pad[1] < kernel[1],
                f"bottom {shape} is too small for level {level} of the pyramid, "
                f"{bins} x {bins} windows",
            )
            self.check_padding(p.pool, pad)
            levels.append(Windows(kernel, kernel, pad))
        return levels

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = shapes[0]
        self.check_image(shape)
        self.check(min(shape[2:]) > 0, f"bottom {shape} is empty")
        pooled = [self.pooled_shape(shape, windows) for windows in self.levels(shape)]
        return pooled if len(pooled) == 1 else [(shape[0], sum(math.prod(s[1:]) for s in pooled))]

    def scratch(self, shapes: Sequence[Shape]) -> int:
        method = self.layer_param.spp_param.pool
        levels = self.levels(shapes[0])
        return max(self.pool_scratch(shapes[0], windows, method) for windows in levels)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        x, method = bottom[0], self.layer_param.spp_param.pool
        levels = [_first(self.pool(x, windows, method)) for windows in self.levels(tuple(x.shape))]
        return levels[0] if len(levels) == 1 else torch.cat([y.flatten(1) for y in levels], 1)

    def onnx(self, graph: Graph, x: Value) -> str:
        method = self.layer_param.spp_param.pool
        levels = [self.onnx_pool(graph, x, windows, method) for windows in self.levels(x.shape)]
        if len(levels) == 1:
            return levels[0]
        return graph.add("Concat", *(graph.add("Flatten", y, axis=1) for y in levels), axis=1)


def _last_writer(out: torch.Tensor, planes: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Scatter the values; where several go to one place the last stays, found by a maximum."""
    order = torch.arange(planes.shape[2], device=out.device).expand_as(planes)
    last = torch.full(out.shape, -1, dtype=torch.int64, device=out.device)
    last.scatter_reduce_(2, planes, order, "amax")
    return torch.where(last >= 0, values.gather(2, last.clamp(min=0)), torch.zeros_like(out))


class _Unpool(torch.autograd.Function):
    """Scatter by mask; where places repeat, the last value stays, and all of them get its
    gradient.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, place: torch.Tensor, height: int, width: int):
        ctx.save_for_backward(place)
        n, c = x.shape[:2]
        planes, values = place.flatten(2), x.flatten(2)
        out = x.new_zeros(n, c, height * width).scatter_(2, planes, values)
        # PyTorch does not define which value stays where places repeat; reading back shows if any
        # do.
        if can_look(x) and not torch.equal(out.gather(2, planes), values):
            out = _last_writer(out, planes, values)
        return out.view(n, c, height, width)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        (place,) = ctx.saved_tensors
        return grad.flatten(2).gather(2, place.flatten(2)).view(place.shape), None, None, None


def unpool(
    layer: Layer, x: torch.Tensor, mask: torch.Tensor, size: Sequence[int], fields: str
) -> torch.Tensor:
    """The values x (N, C, H, W) at the places of a pooling mask, in images of this size.

    fields: the layer's fields that say the size, for the message. Raises CaffeError for a place
    outside.
    """
    height, width = size
    place = mask.detach().long()
    try:
        layer.check_range(
            place,
            height * width,
            "mask value",
            f", the plane of {height} x {width}; {fields} do not fit the pooling layer",
        )
    except CaffeError:
        nowhere = int(place.min()) == NOWHERE
        layer.check(
            not nowhere,
            "mask value -1: a pooling window holds NaN alone, or nothing; a training whose "
            "learning rate is too high comes to NaN",
        )
        raise
    return _Unpool.apply(x, place, height, width)


def unpooled_onnx(layer: Layer, graph: Graph, x: Value, mask: Value, shape: Shape) -> str:
    """What `unpool` does, in ONNX; shape: the top's."""
    origin = graph.masks.get(mask.name)
    if origin is not None and tuple(origin.image.shape[2:]) == shape[2:]:
        if origin.equal:
            return _onnx_untile(graph, x, origin, shape)
        size = graph.shape_like(x, shape)
        attributes = _onnx_attributes(layer, origin.image, origin.windows)
        return graph.add("MaxUnpool", x, origin.places, size, **attributes)
    plane = (*shape[:2], shape[2] * shape[3])
    zeros = graph.add("Expand", graph.constant(0), graph.shape_like(x, plane))
    flat = (*x.shape[:2], math.prod(x.shape[2:]))
    places = graph.to_int(graph.reshape(mask, flat))
    filled = graph.add("ScatterElements", zeros, places, graph.reshape(x, flat), axis=2)
    return graph.reshape(filled, shape)


def _onnx_untile(graph: Graph, x: Value, origin: Mask, shape: Shape) -> str:
    """Unpooling without MaxUnpool: the first place of each window where the maximum is takes the
    value and leaves 0 to those behind it; DepthToSpace puts the places side by side.
    """
    zero, side = graph.constant(0), origin.windows.kernel[0]
    places, left = [], x.name
    for here in origin.equal:
        places.append(graph.add("Where", here, left, zero))
        if here != origin.equal[-1]:
            left = graph.add("Where", here, zero, left)
    together = graph.add("Concat", *places, axis=1) if len(places) > 1 else places[0]
    image = graph.add("DepthToSpace", together, blocksize=side)
    if all(n * side == size for n, size in zip(x.shape[2:], shape[2:], strict=True)):
        return image
    return graph.slice(image, [2, 3], [0, 0], shape[2:])


@dataclass(frozen=True)
class _Spreading:
    """How DeconvNet's Unpooling lays windows over the image it makes; pairs: (height, width)."""

    kernel: Pair
    stride: Pair
    size: Pair

    def spread(self, x: torch.Tensor, kernel: Pair) -> torch.Tensor:
        """Each value in all of its window; where windows overlap, the sum."""
        n, c = x.shape[:2]
        ones = x.new_ones(1, 1, *kernel)
        image = F.conv_transpose2d(x.reshape(n * c, 1, *x.shape[2:]), ones, stride=self.stride)
        (_, bottom), (_, right) = self.edges(x.shape[2:], kernel)
        return F.pad(image, (0, right, 0, bottom)).reshape(n, c, *self.size)

    def edges(self, image: Sequence[int], kernel: Pair) -> list[tuple[int, int]]:
        """(size before, what to add behind) of each axis; windows may reach beyond the image."""
        full = [
            (n - 1) * stride + k for n, stride, k in zip(image, self.stride, kernel, strict=True)
        ]
        return [(have, want - have) for have, want in zip(full, self.size, strict=True)]

    def sizes(self, image: Sequence[int]) -> np.ndarray:
        """How many pixels of each window lie in the image (at least 1)."""
        sides = []
        for axis, n in enumerate(image):
            start = np.arange(n) * self.stride[axis]
            end = np.minimum(start + self.kernel[axis], self.size[axis])
            sides.append(np.maximum(end - start, 0))
        return np.maximum(np.outer(*sides), 1)

    def corners(self, image: Sequence[int]) -> np.ndarray:
        """The place of each window's first pixel, moved into the image."""
        rows, columns = (
            np.minimum(np.arange(n) * stride, size - 1)
            for n, stride, size in zip(image, self.stride, self.size, strict=True)
        )
        return rows[:, None] * self.size[1] + columns

    def onnx(self, graph: Graph, x: Value, kernel: Pair) -> str:
        """What `spread` does, in ONNX."""
        channels = x.shape[1]
        ones = graph.constant(np.ones((channels, 1, *kernel)))
        image = graph.add(
            "ConvTranspose", x, ones, group=channels, strides=self.stride, kernel_shape=kernel
        )
        edges = self.edges(x.shape[2:], kernel)
        behind = [0, 0, *(max(more, 0) for _, more in edges)]
        if any(behind):
            image = graph.add("Pad", image, graph.constant([0] * 4 + behind, np.int64))
        if any(more < 0 for _, more in edges):
            image = graph.slice(image, [2, 3], [0, 0], self.size)
        return image


@register("Unpooling")
class Unpooling(Layer):
    """The way back from pooling, as FuseNet or as DeconvNet has it.

    - FuseNet (Hazirbas et al., ACCV 2016): values (bottom 0) go to the places of a pooling mask
      (bottom 1). Both are (N, C, rows, columns), the top is (N, C, output_h, output_w), or the
      bottom's height and width times `scale`. If that is the size of the image from which a Pooling
      layer made the mask, or if no size is given, the top has the image's size also when the net
      gets images of another size.
    - DeconvNet (Noh et al., ICCV 2015), with `kernel_size` or `unpool`: the top is unpool_size x
      unpool_size, or unpool_h x unpool_w. MAX puts values to the places of the mask, or without one
      to the first pixel of each window; TILE fills windows with the value, AVE with the value
      divided by the window's pixels; what overlaps is added.
    Source: the unpooling_layer.cpp of the FuseNet authors and of HyeonwooNoh/caffe.
    """

    bottoms = (1, 2)
    concurrent = True
    reads = ("unpooling_param",)
    takes = (
        *("unpooling_param.unpool", "unpooling_param.kernel_size", "unpooling_param.kernel_h"),
        *("unpooling_param.kernel_w", "unpooling_param.stride", "unpooling_param.stride_h"),
        *("unpooling_param.stride_w", "unpooling_param.unpool_size", "unpooling_param.unpool_h"),
        *("unpooling_param.unpool_w", "unpooling_param.pad", "unpooling_param.pad_h"),
        "unpooling_param.pad_w",
    )
    differs = (
        "FuseNet's and DeconvNet's, not BVLC's. FuseNet's size follows the bottom's and the pooled "
        "image's; the fork's is fixed at set-up. AVE and TILE start from 0; DeconvNet's CPU code "
        "adds to the last pass's."
    )
    look = Look("Unpooling", mask=1)
    pooling: Pooling | None = None  # the layer that makes the mask
    follows = False  # whether the top has the size of the image that this one pooled

    def meet(self, index: int, maker: Layer, top: int) -> None:
        if index == 1 and top == 1 and isinstance(maker, Pooling):
            self.pooling = maker

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.unpooling_param
        names = ("unpool", "kernel_size", "kernel_h", "kernel_w")
        self.spreading = self._spreading() if any(p.HasField(n) for n in names) else None
        if self.spreading is not None:
            return
        self.check(len(shapes) == 2, "takes exactly 2 bottom blob(s), values and mask, got 1")
        self.size = (p.output_h, p.output_w)
        self.scale = 0
        if p.HasField("output_h") and p.HasField("output_w"):
            self.check(min(self.size) > 0, f"output_h, output_w must be positive: {self.size}")
        elif p.HasField("scale"):
            self.scale = p.scale
            self.check(self.scale > 0, "scale must be positive")
        else:
            self.check(
                self.pooling is not None,
                "unpooling_param needs output_h and output_w, or scale: no Pooling layer makes the "
                "mask, whose image would tell the size",
            )
            self.follows = True
        if self.pooling is not None and len(shapes[0]) == 4:
            self.follows = self.follows or self.plane(shapes[0]) == tuple(self.pooling.image)

    def plane(self, shape: Shape) -> Sequence[int]:
        """The height and width of FuseNet's top, for a bottom of this shape."""
        if self.follows:
            assert self.pooling is not None
            return self.pooling.image
        return (shape[2] * self.scale, shape[3] * self.scale) if self.scale else self.size

    def _spreading(self) -> _Spreading:
        p = self.layer_param.unpooling_param
        kernel = self._pair("kernel", "kernel_size")
        stride, size = self._pair("stride", "stride", 1), self._pair("unpool", "unpool_size")
        for name, pair in (("kernel", kernel), ("stride", stride), ("unpool size", size)):
            self.check(min(pair) > 0, f"{name} must be positive: {pair}")
        self.check(not (p.pad or p.pad_h or p.pad_w), "DeconvNet's takes no padding")
        average = p.unpool != pb.UnpoolingParameter.MAX
        self.check(not average or self.num_bottoms == 1, "a mask (bottom 1) is for MAX only")
        return _Spreading(kernel, stride, size)

    def _pair(self, sides: str, both: str, default: int | None = None) -> Pair:
        """`both`, or <sides>_h and <sides>_w."""
        p = self.layer_param.unpooling_param
        given = [p.HasField(f"{sides}_{side}") for side in "hw"]
        self.check(
            all(given) if any(given) else p.HasField(both) or default is not None,
            f"give either {both}, or {sides}_h and {sides}_w",
        )
        self.check(
            not (any(given) and p.HasField(both)),
            f"give either {both}, or {sides}_h and {sides}_w, not both",
        )
        if any(given):
            return getattr(p, f"{sides}_h"), getattr(p, f"{sides}_w")
        value = getattr(p, both) if p.HasField(both) else default
        return (value, value)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape, mask = shapes[0], shapes[-1]
        self.check(
            len(shape) == 4 and shape == mask,
            f"the mask's shape {mask} must be the bottom's, {shape}, with 4 axes",
        )
        if self.spreading is not None:
            self.check(min(shape[1:]) > 0, f"bottom {shape} has no pixels")
            return [(*shape[:2], *self.spreading.size)]
        return [(*shape[:2], *self.plane(shape))]

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The image with all of its windows, some of which reach beyond it."""
        if self.spreading is None:
            return 0
        edges = self.spreading.edges(shapes[0][2:], self.spreading.kernel)
        return math.prod(shapes[0][:2]) * math.prod(size for size, _ in edges)

    def choices(self, index: int, shapes: Sequence[Shape]) -> int:
        return math.prod(self.infer_shapes(shapes)[0][2:]) if index == 1 else 0

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        if len(bottom) == 2:
            fields = "unpool_size" if self.spreading else "output_h, output_w or scale"
            return unpool(self, *bottom, top[2:], fields)
        assert self.spreading is not None
        x, method, methods = bottom[0], self.layer_param.unpooling_param.unpool, _METHODS
        if method == methods.MAX:
            corners = torch.from_numpy(self.spreading.corners(x.shape[2:])).to(x.device)
            return _Unpool.apply(x, corners.expand(x.shape), *top[2:])
        share = 1 / torch.from_numpy(self.spreading.sizes(x.shape[2:])).to(x)
        average = self.spreading.spread(x * share, self.spreading.kernel)
        if method == methods.AVE:
            return average
        # The fork's gradient of TILE is that of AVE.
        return with_gradient_of(self.spreading.spread(x, self.spreading.kernel), average)

    def onnx(self, graph: Graph, x: Value, mask: Value | None = None) -> str:
        if mask is not None:
            (shape,) = self.infer_shapes([x.shape, mask.shape])
            return unpooled_onnx(self, graph, x, mask, shape)
        assert self.spreading is not None
        method = self.layer_param.unpooling_param.unpool
        if method == _METHODS.MAX:
            fits = all(more >= 0 for _, more in self.spreading.edges(x.shape[2:], (1, 1)))
            self.check(fits, "windows begin beyond the image, for which there is no ONNX form")
            return self.spreading.onnx(graph, x, (1, 1))
        if method == _METHODS.AVE:
            share = graph.constant(1 / self.spreading.sizes(x.shape[2:]))
            x = Value(graph.add("Mul", x, share), x.shape)
        return self.spreading.onnx(graph, x, self.spreading.kernel)

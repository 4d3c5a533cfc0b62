"""Layers of optical flow nets: correlations of two images, warps, and their helpers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from caffe.formats.files import read_blob
from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.look import ACTIVATION
from caffe.proto import caffe_pb2 as pb

FLOWNET = "FlowNet2"
Pair = tuple[int, int]  # of rows and columns


class _Windows:
    """Windows of images (..., H, W): one at `origin`, and others displaced from it.

    extent: rows and columns of a window, of which every `step`-th is taken.
    """

    def __init__(self, origin: Pair, extent: Pair, step: int) -> None:
        self.origin, self.extent, self.step = origin, extent, step

    def at(self, x: torch.Tensor, displacement: Pair) -> torch.Tensor:
        """The window of x that is displaced so far, as a view."""
        y0, x0 = (a + b for a, b in zip(self.origin, displacement, strict=True))
        h, w = self.extent
        return x[..., y0 : y0 + h : self.step, x0 : x0 + w : self.step]


class _Correlate(torch.autograd.Function):
    """For each displacement: the products of a's points and b's displaced points, or the sizes of
    their differences, summed over the channels.

    a, b: (N, C, H, W). Result: (N, displacements, rows, columns). The loops add into one gradient;
    autograd would make one as large as the image for each displacement.
    """

    @staticmethod
    def forward(
        ctx: Any,
        a: torch.Tensor,
        b: torch.Tensor,
        windows: _Windows,
        displacements: Sequence[Pair],
        subtract: bool,
    ) -> torch.Tensor:
        ctx.save_for_backward(a, b)
        ctx.windows, ctx.displacements, ctx.subtract = windows, displacements, subtract
        centre = windows.at(a, (0, 0))
        sums = []
        for displacement in displacements:
            other = windows.at(b, displacement)
            each = (centre - other).abs_() if subtract else centre * other
            sums.append(each.sum(1))
        return torch.stack(sums, 1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        a, b = ctx.saved_tensors
        windows, to_a, to_b = ctx.windows, torch.zeros_like(a), torch.zeros_like(b)
        signs = torch.where(a >= b, 1.0, -1.0).to(a.dtype) if ctx.subtract else None
        for i, (y, x) in enumerate(ctx.displacements):
            each = grad[:, i : i + 1]
            here, there = windows.at(to_a, (0, 0)), windows.at(to_b, (y, x))
            if signs is None:
                here.addcmul_(each, windows.at(b, (y, x)))
                there.addcmul_(each, windows.at(a, (0, 0)))
            else:
                # FlowNet2 compares both images in one place: the point that the gradient is not
                # for (correlation_layer.cu).
                here.addcmul_(each, windows.at(signs, (y, x)))
                there.addcmul_(each, windows.at(signs, (0, 0)), value=-1)
        return to_a, to_b, None, None, None


class _Correlating(Layer):
    """The correlation of two images at a range of displacements."""

    bottoms = (2, 2)
    fork = FLOWNET
    judge = "recorded"
    reads = ("correlation_param",)
    differs = (
        "Points beyond the padded image are zero; FlowNet2 reads whatever lies there. `do_abs` is "
        "without effect, as in FlowNet2."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.correlation_param
        for name in ("kernel_size", "max_displacement"):
            self.check(p.HasField(name), f"correlation_param.{name} is missing")
        self.check(p.kernel_size % 2 == 1, f"kernel_size is {p.kernel_size}, expected an odd one")
        self.check(
            p.stride_1 > 0 and p.stride_2 > 0,
            f"stride_1 and stride_2 are {p.stride_1} and {p.stride_2}, expected at least 1",
        )
        self.check(
            p.single_direction in (-1, 0, 1),
            f"single_direction is {p.single_direction}, expected -1 (left), 0 (both) or 1 (right)",
        )
        self.subtracts = p.correlation_type == pb.CorrelationParameter.SUBTRACT

    def pads(self) -> Pair:
        """The zeros above and below the image, and on its left and right."""
        raise AssertionError("set by the subclass")

    def origin(self) -> Pair:
        """Where in the padded image the first window without displacement begins."""
        raise AssertionError("set by the subclass")

    def displacements(self) -> tuple[range, range]:
        """The displacements of rows and of columns, in points."""
        raise AssertionError("set by the subclass")

    def both_ways(self) -> range:
        """The displacements along an axis, up to max_displacement in both directions."""
        p = self.layer_param.correlation_param
        far = p.max_displacement // p.stride_2 * p.stride_2
        return range(-far, far + 1, p.stride_2)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        a, b = shapes
        self.check(
            a == b and len(a) == 4 and a[1] > 0,
            f"bottoms have the shapes {a} and {b}, expected two images of one shape (N, C, H, W)",
        )
        p = self.layer_param.correlation_param
        size = []
        for extent, pad, origin in zip(a[2:], self.pads(), self.origin(), strict=True):
            rest = extent + 2 * pad - 2 * origin - (p.kernel_size - 1)
            self.check(
                rest > 0,
                f"bottoms {a}: kernel and displacements do not fit into an image padded by {pad}",
            )
            size.append(-(-rest // p.stride_1))
        ys, xs = self.displacements()
        return [(a[0], len(ys) * len(xs), *size)]

    def macs(self, shapes: Sequence[Shape]) -> int:
        (top,) = self.infer_shapes(shapes)
        return math.prod(top) * shapes[0][1] * self.layer_param.correlation_param.kernel_size**2

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The padded images, and the comparisons before the kernel's sums."""
        (top,) = self.infer_shapes(shapes)
        n, c, *image = shapes[0]
        padded = [size + 2 * pad for size, pad in zip(image, self.pads(), strict=True)]
        return 2 * n * c * math.prod(padded) + n * top[1] * math.prod(self._extent(top))

    def _extent(self, top: Shape) -> Pair:
        """The rows and columns that all kernels cover together."""
        p = self.layer_param.correlation_param
        h, w = ((n - 1) * p.stride_1 + p.kernel_size for n in top[2:])
        return h, w

    def _edges(self, shape: Shape, extent: Pair) -> list[int]:
        """The zeros around an image, as F.pad takes them: the layer's own, and as many more as the
        windows need.
        """
        edges: list[int] = []
        axes = zip(shape[2:], self.pads(), self.origin(), extent, self.displacements(), strict=True)
        for size, pad, origin, window, reach in axes:
            before = max(0, -(origin + reach[0]))
            after = max(0, origin + reach[-1] + window - size - 2 * pad)
            edges = [pad + before, pad + after, *edges]
        return edges

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        p = self.layer_param.correlation_param
        extent = self._extent(top)
        edges = self._edges(tuple(bottom[0].shape), extent)
        (up, side), (y, x) = self.pads(), self.origin()
        step = p.stride_1 if p.kernel_size == 1 else 1
        windows = _Windows((y + edges[2] - up, x + edges[0] - side), extent, step)
        pairs = [(dy, dx) for dy in self.displacements()[0] for dx in self.displacements()[1]]
        a, b = (F.pad(each, edges) for each in bottom)
        sums = _Correlate.apply(a, b, windows, pairs, self.subtracts)
        if p.kernel_size > 1:
            sums = F.avg_pool2d(sums, p.kernel_size, p.stride_1, divisor_override=1)
        return sums / (p.kernel_size**2 * bottom[0].shape[1])

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        """A slice, a product or difference and a mean for each displacement."""
        (top,) = self.infer_shapes([x.shape for x in bottoms])
        p = self.layer_param.correlation_param
        (h, w), step = self._extent(top), p.stride_1 if p.kernel_size == 1 else 1
        left, right, above, below = self._edges(bottoms[0].shape, (h, w))
        (up, side), (y0, x0) = self.pads(), self.origin()
        y0, x0 = y0 + above - up, x0 + left - side
        edges = graph.constant([0, 0, above, left, 0, 0, below, right], np.int64)
        a, b = (graph.add("Pad", each, edges) for each in bottoms)
        axes, steps = (graph.constant(values, np.int64) for values in ((2, 3), (step, step)))

        def window(image: str, y: int, x: int) -> str:
            start = graph.constant((y, x), np.int64)
            end = graph.constant((y + h, x + w), np.int64)
            return graph.add("Slice", image, start, end, axes, steps)

        centre, means = window(a, y0, x0), []
        for dy in self.displacements()[0]:
            for dx in self.displacements()[1]:
                other = window(b, y0 + dy, x0 + dx)
                if self.subtracts:
                    each = graph.add("Abs", graph.add("Sub", centre, other))
                else:
                    each = graph.add("Mul", centre, other)
                means.append(graph.add("ReduceMean", each, axes=[1], keepdims=1))
        top_name = graph.add("Concat", *means, axis=1)
        if p.kernel_size == 1:
            return top_name
        kernel, stride = [p.kernel_size] * 2, [p.stride_1] * 2
        return graph.add("AveragePool", top_name, kernel_shape=kernel, strides=stride)


@register("Correlation")
class Correlation(_Correlating):
    """The mean product of patches of two images, for each place and each displacement between them
    (Dosovitskiy et al., 2015, FlowNet; FlowNet2's correlation_layer.cu).

    Bottoms: two of (N, C, H, W), padded by `pad`. Top: (N, D D, h, w), a channel for each of the
    displacements -d to d by stride_2, rows before columns, d being max_displacement; a place for
    each stride_1 points of the first image. With correlation_type SUBTRACT the mean absolute
    difference, with FlowNet2's gradient.
    """

    def pads(self) -> Pair:
        return (self.layer_param.correlation_param.pad,) * 2

    def origin(self) -> Pair:
        return (self.layer_param.correlation_param.max_displacement,) * 2

    def displacements(self) -> tuple[range, range]:
        return self.both_ways(), self.both_ways()


@register("Correlation1D")
class Correlation1D(_Correlating):
    """Correlation along the rows alone, for stereo pairs (Mayer et al., 2016, DispNet;
    FlowNet2's correlation_layer1d.cu).

    Bottoms: two of (N, C, H, W), padded by `pad` on the left and right. Top: (N, D, h, w). With
    single_direction 1 the displacements are 0 to d by stride_2, with -1 they are as many and end
    one step left of 0.
    """

    def pads(self) -> Pair:
        return 0, self.layer_param.correlation_param.pad

    def origin(self) -> Pair:
        return 0, self.layer_param.correlation_param.max_displacement

    def displacements(self) -> tuple[range, range]:
        p = self.layer_param.correlation_param
        ways = self.both_ways()
        if p.single_direction:
            count = len(ways) // 2 + 1
            first = 0 if p.single_direction > 0 else -count * p.stride_2
            ways = range(first, first + count * p.stride_2, p.stride_2)
        return range(1), ways


class _Warping(Layer):
    """Samples of an image (N, C, H, W) at the points that a field (N, 2, H, W) gives, x before y.
    Top: (N, C, H, W).
    """

    bottoms = (2, 2)
    judge = "recorded"

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        image, field = shapes
        self.check(
            len(image) == 4 and field == (image[0], 2, *image[2:]),
            f"bottoms have the shapes {image} and {field}, expected an image (N, C, H, W) and "
            "(N, 2, H, W), a point for each of its pixels",
        )
        return [tuple(image)]

    def displaced(self, flow: torch.Tensor) -> torch.Tensor:
        """The points (N, 2, H, W) at which a flow takes its pixels' values."""
        return flow + pixels(flow)

    def onnx_points(self, graph: Graph, flow: Value) -> str:
        """`displaced` in ONNX."""
        return graph.add("Add", flow, graph.constant(pixels(torch.empty(1, *flow.shape[1:]))))

    def onnx_sample(self, graph: Graph, image: Value, points: str, padding: str) -> str:
        """Bilinear samples of an image, by ONNX's GridSample, which counts from -1 to 1."""
        scale = [2 / max(n - 1, 1) for n in (image.shape[3], image.shape[2])]
        grid = graph.add("Transpose", points, perm=[0, 2, 3, 1])
        grid = graph.add("Mul", grid, graph.constant(scale))
        grid = graph.add("Sub", grid, graph.constant(1.0))
        return graph.add(
            "GridSample", image, grid, mode="bilinear", padding_mode=padding, align_corners=1
        )


def pixels(like: torch.Tensor) -> torch.Tensor:
    """The coordinates of the pixels of an image (N, ..., H, W): (N, 2, H, W), x before y."""
    n, (h, w) = like.shape[0], like.shape[-2:]
    x = torch.arange(w, dtype=like.dtype, device=like.device).expand(h, w)
    y = torch.arange(h, dtype=like.dtype, device=like.device)[:, None].expand(h, w)
    return torch.stack([x, y]).expand(n, 2, h, w)


def pick(image: torch.Tensor, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The values of an image (N, C, H, W) at rows y and columns x, (N, 1, h, w) of int64."""
    place = (y * image.shape[3] + x).flatten(2)
    values = image.flatten(2).gather(2, place.expand(-1, image.shape[1], -1))
    return values.reshape(*image.shape[:2], *y.shape[2:])


def corners(
    image: torch.Tensor, y: torch.Tensor, x: torch.Tensor, y2: torch.Tensor, x2: torch.Tensor
) -> Tensors:
    """pick for the four corners (y, x), (y, x2), (y2, x), (y2, x2)."""
    return [pick(image, a, b) for a in (y, y2) for b in (x, x2)]


def bilinear(values: Tensors, down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """The mean of four corners at the parts `down` and `right` of the way between them."""
    top_left, top_right, bottom_left, bottom_right = values
    top = (1 - right) * top_left + right * top_right
    return (1 - down) * top + down * ((1 - right) * bottom_left + right * bottom_right)


@register("FlowWarp")
class FlowWarp(_Warping):
    """An image drawn back along a flow: the pixel at (x, y) gets the image's value at
    (x + u, y + v), between four pixels (FlowNet2's flow_warp_layer.cu).

    Bottoms: image (N, C, H, W); flow (N, 2, H, W), u before v. Beyond the image fill_value:
    zero, or NaN. Top: (N, C, H, W).
    """

    fork = FLOWNET
    reads = ("flow_warp_param",)

    def _fill(self) -> float:
        zero = self.layer_param.flow_warp_param.fill_value == pb.FlowWarpParameter.ZERO
        return 0.0 if zero else math.nan

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        image, points = bottom[0], self.displaced(bottom[1])
        h, w = image.shape[2:]
        x, y = points.split(1, 1)
        inside = (x >= 0) & (y >= 0) & (x < w) & (y < h)
        x, y = torch.where(inside, x, 0), torch.where(inside, y, 0)
        left, top = x.detach().long(), y.detach().long()
        right, below = (left + 1).clamp(max=w - 1), (top + 1).clamp(max=h - 1)
        values = corners(image, top, left, below, right)
        return torch.where(inside, bilinear(values, y - top, x - left), self._fill())

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        image, flow = bottoms
        points = self.onnx_points(graph, flow)
        values = self.onnx_sample(graph, image, points, "border")
        size = graph.constant(np.float32(image.shape[:1:-1]).reshape(1, 2, 1, 1))
        good = graph.add("GreaterOrEqual", points, graph.constant(0.0))
        good = graph.add("And", good, graph.add("Less", points, size))
        good = graph.add("ReduceMin", graph.to_float(good), axes=[1], keepdims=1)
        return graph.add("Where", graph.to_bool(good), values, graph.constant(self._fill()))


@register("Warp")
class Warp(_Warping):
    """An image drawn back along a flow, or sampled at given coordinates: two layers of one name.

    PWC-Net's (Sun et al., 2018; warp_layer.cu): bottom 1 is a flow, the pixel at (x, y) gets the
    image's value at (x + u, y + v), and zero where that is beyond the image. On whole coordinates
    the gradient of the flow is the mean of the slopes on both sides. LiteFlowNet's (Hui et al.,
    2018; warp_layer.cu): bottom 1 holds the coordinates themselves, and the pixels beyond the image
    are zero, one by one.
    Nothing but the name of bottom 1 tells which is meant: names that begin with "coord", as in
    LiteFlowNet's nets, are coordinates; all others are a flow.
    Bottoms: image (N, C, H, W), flow or coordinates (N, 2, H, W). Top: (N, C, H, W).
    """

    fork = "PWC-Net, LiteFlowNet"

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.absolute = self.layer_param.bottom[1].startswith("coord")

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        if self.absolute:
            return _sample_in_zeros(*bottom)
        return _sample_between(bottom[0], self.displaced(bottom[1]))

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        image, field = bottoms
        if self.absolute:
            return self.onnx_sample(graph, image, field.name, "zeros")
        points = self.onnx_points(graph, field)
        values = self.onnx_sample(graph, image, points, "border")
        end = graph.constant(np.float32(image.shape[:1:-1]).reshape(1, 2, 1, 1) - 1)
        good = graph.add("GreaterOrEqual", points, graph.constant(0.0))
        good = graph.add("And", good, graph.add("LessOrEqual", points, end))
        good = graph.add("ReduceMin", graph.to_float(good), axes=[1], keepdims=1)
        return graph.add("Where", graph.to_bool(good), values, graph.constant(0.0))


def _sample_in_zeros(image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear samples of an image with zeros around it."""
    h, w = image.shape[2:]
    ring = F.pad(image, (1, 1, 1, 1))
    x, y = points.split(1, 1)
    good = (x >= -1) & (y >= -1) & (x < w) & (y < h)
    x, y = torch.where(good, x, -1), torch.where(good, y, -1)
    left, top = x.detach().floor(), y.detach().floor()
    column, row = left.long() + 1, top.long() + 1
    values = corners(ring, row, column, (row + 1), (column + 1))
    return bilinear(values, y - top, x - left)


def _sample_between(image: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear samples of an image, zero beyond its outermost pixels, with PWC-Net's gradient."""
    h, w = image.shape[2:]
    x, y = points.split(1, 1)
    inside = (x >= 0) & (y >= 0) & (x <= w - 1) & (y <= h - 1)
    x, y = torch.where(inside, x, 0), torch.where(inside, y, 0)
    left, top, right, below = (v.detach().long() for v in (x, y, x.ceil(), y.ceil()))
    down, along = (y - top).detach(), (x - left).detach()
    value = bilinear(corners(image, top, left, below, right), down, along)
    # On a whole coordinate the slope is the mean of those on both sides, where there are pixels.
    whole_x, whole_y = left == right, top == below
    fixed = image.detach()
    x1 = torch.where(whole_x, (left - 1).clamp(min=0), left)
    x2 = torch.where(whole_x, (right + 1).clamp(max=w - 1), right)
    a, b, c, d = corners(fixed, top, x1, below, x2)
    slope_x = ((1 - down) * (b - a) + down * (d - c)) * torch.where(whole_x, 0.5, 1.0)
    y1 = torch.where(whole_y, (top - 1).clamp(min=0), top)
    y2 = torch.where(whole_y, (below + 1).clamp(max=h - 1), below)
    a, b, c, d = corners(fixed, y1, left, y2, right)
    slope_y = ((1 - along) * (c - a) + along * (d - b)) * torch.where(whole_y, 0.5, 1.0)
    stand_in = value + slope_x.to(x.dtype) * x + slope_y.to(y.dtype) * y
    return torch.where(inside, with_gradient_of(value, stand_in), 0)


@register("Grid")
class Grid(Layer):
    """The coordinates of the pixels of its bottom, which has no gradient (LiteFlowNet's
    grid_layer.cpp).

    Bottom: (N, C, H, W). Top: (N, 2, H, W), x before y.
    """

    labels = (0,)
    in_place = False
    fork = "LiteFlowNet"
    judge = "recorded"

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        (shape,) = shapes
        self.check(len(shape) == 4, f"bottom has the shape {shape}, expected (N, C, H, W)")
        return [(shape[0], 2, *shape[2:])]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        return pixels(bottom[0].detach()).clone()

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        grid = graph.constant(pixels(torch.empty(1, *x.shape[1:])))
        shape = graph.shape_like(x, [x.shape[0], 2, *x.shape[2:]])
        return graph.add("Expand", grid, shape)


@register("ChannelNorm")
class ChannelNorm(Layer):
    """The Euclidean norm over the channels of each pixel (FlowNet2's channel_norm_layer.cu).

    Bottom: (N, C, H, W). Top: (N, 1, H, W).
    """

    fork = FLOWNET
    judge = "recorded"

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        (shape,) = shapes
        self.check(len(shape) == 4, f"bottom has the shape {shape}, expected (N, C, H, W)")
        return [(shape[0], 1, *shape[2:])]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        (x,) = bottom
        norm = x.detach().square().sum(1, keepdim=True).sqrt()
        # FlowNet2 divides by the norm and 1e-9, so the gradient of a zero is zero.
        return with_gradient_of(norm, (x * (x.detach() / (norm + 1e-9))).sum(1, keepdim=True))

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        square = graph.add("Mul", bottoms[0], bottoms[0])
        total = graph.add("ReduceSum", square, graph.constant([1], np.int64), keepdims=1)
        return graph.add("Sqrt", total)


@register("NegSquare")
class NegSquare(Layer):
    """-x^2 (LiteFlowNet's negsquare_layer.cu)."""

    fork = "LiteFlowNet"
    judge = "worked cases"
    look = ACTIVATION
    differs = (
        "The gradient is -2 x. LiteFlowNet's code multiplies by what lies in the bottom's gradient "
        "instead of by the bottom."
    )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [tuple(shapes[0])]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return -bottom[0].square()

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.add("Neg", graph.add("Mul", bottoms[0], bottoms[0]))


@register("ExpMax")
class ExpMax(Layer):
    """base^(scale (x - m) + shift), m being the largest value over the channels, which counts as a
    constant for the gradient (LiteFlowNet's expmax_layer.cu); base -1 is e.

    Bottom: (N, C, ...).
    """

    fork = "LiteFlowNet"
    judge = "recorded"
    reads = ("expmax_param",)
    look = ACTIVATION
    differs = "Each sample's own maximum; LiteFlowNet subtracts none from the second sample on."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.expmax_param
        self.check(p.base == -1 or p.base > 0, f"base is {p.base:g}, expected -1 or a positive one")
        log_base = 1 if p.base == -1 else math.log(p.base)
        self.scale, self.shift = log_base * p.scale, log_base * p.shift

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        (shape,) = shapes
        self.check(
            len(shape) >= 2 and shape[1] > 0,
            f"bottom has the shape {shape}, expected at least one channel on axis 1",
        )
        return [tuple(shape)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        (x,) = bottom
        return (self.scale * (x - x.detach().amax(1, keepdim=True)) + self.shift).exp()

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        below = graph.add("Sub", x, graph.add("ReduceMax", x, axes=[1], keepdims=1))
        return graph.add("Exp", graph.affine(below, self.scale, self.shift))


@register("Mean")
class Mean(Layer):
    """output_scale (input_scale x + mean_scale mean), or minus the mean with operation SUBTRACT;
    the mean is a value for each channel or a blob from a file (FlowNet2's mean_layer.cpp).

    Bottoms: any number of (N, C, H, W). The means are repeated where there are more channels.
    Tops: as the bottoms, which have no gradient.
    """

    bottoms = (1, None)
    tops = (1, None)
    one_top_each = True
    fork = FLOWNET
    judge = "recorded"
    reads = ("mean_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.labels = tuple(range(len(shapes)))
        p = self.layer_param.mean_param
        if p.HasField("file"):
            with self.named():
                mean = read_blob(p.file)
            self.check(
                mean.ndim == 4 and mean.shape[0] == 1,
                f"mean_param.file {p.file!r} has the shape {mean.shape}, expected (1, C, H, W)",
            )
            self.mean = torch.from_numpy(np.ascontiguousarray(mean[0], np.float32))
        else:
            self.check(len(p.value) > 0, "mean_param has neither value nor file")
            self.mean = torch.tensor(list(p.value)).reshape(-1, 1, 1)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        c, *image = self.mean.shape
        for i, shape in enumerate(shapes):
            self.check(
                len(shape) == 4
                and shape[1] % c == 0
                and (image == [1, 1] or tuple(image) == shape[2:]),
                f"bottom {i} has the shape {shape}, expected 4 axes, a multiple of {c} channels"
                + ("" if image == [1, 1] else f", and images of {image[0]} x {image[1]}"),
            )
        return [tuple(shape) for shape in shapes]

    def _scales(self) -> tuple[float, float]:
        """The factors of bottom and mean."""
        p = self.layer_param.mean_param
        sign = -1 if p.operation == pb.MeanParameter.SUBTRACT else 1
        return p.output_scale * p.input_scale, p.output_scale * sign * p.mean_scale

    def _means(self, channels: int) -> torch.Tensor:
        return self.mean.repeat(channels // self.mean.shape[0], 1, 1)

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        scale, mean_scale = self._scales()
        return [scale * x + mean_scale * self._means(x.shape[1]).to(x) for x in bottom]

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        scale, mean_scale = self._scales()
        tops = []
        for x in bottoms:
            shift = graph.constant(mean_scale * self._means(x.shape[1]).numpy())
            tops.append(graph.add("Add", graph.affine(x, scale, 0), shift))
        return tops

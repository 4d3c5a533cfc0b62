"""Layers for videos and volumes (N, C, L, H, W): C3D's, and pooling over any axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from caffe.formats.onnx import Graph, Names, Value
from caffe.kernels.geometry import Geometry, convolve
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.look import OUTPUT
from caffe.proto import caffe_pb2 as pb

LOWEST = torch.finfo(torch.float32).min
LOG_FLT_MIN = math.log(torch.finfo(torch.float32).tiny)
FIELDS = ("kernel_depth", "temporal_stride", "temporal_pad", "filter_group")


class _Kernel3D(Layer):
    """A cubic kernel with a size, stride and padding of its own along the time.

    C3D 1.1 has the parameters in convolution3d_param, 1.0 in convolution_param.
    """

    fork = "C3D"
    judge = "recorded"
    multiplies = True
    reads = ("convolution3d_param", "convolution_param")
    takes = tuple(f"convolution_param.{name}" for name in FIELDS)
    differs = (
        "`group` is without effect, as in C3D; so is `filter_group`, which saves memory there."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        old = not self.layer_param.HasField("convolution3d_param")
        p = self.layer_param.convolution_param if old else self.layer_param.convolution3d_param
        self.check(p.num_output > 0, "num_output must be positive")
        self.check(
            p.filter_group > 0 and p.num_output % p.filter_group == 0,
            f"num_output is {p.num_output}, expected a multiple of filter_group, {p.filter_group}",
        )
        self.kernel = self._axes(p, "kernel_depth", "kernel_size", 0)
        self.stride = self._axes(p, "temporal_stride", "stride", 1)
        self.pad = self._axes(p, "temporal_pad", "pad", 0)
        self.check(
            min(*self.kernel, *self.stride) > 0,
            f"kernel {self.kernel} and stride {self.stride} must be positive",
        )
        self.check(
            len(shapes[0]) == 5 and shapes[0][1] > 0,
            f"bottom has the shape {shapes[0]}, expected (N, C, L, H, W)",
        )
        self.channels, self.outputs = shapes[0][1], p.num_output
        self.bias = self.has_bias(p)
        self.add_blob((*self.weight_ends(), *self.kernel), p.weight_filler)
        if self.bias:
            self.add_blob((1, 1, 1, 1, self.outputs), p.bias_filler)

    def _axes(self, p: Any, first: str, others: str, default: int) -> tuple[int, int, int]:
        """A number along the time, and one along rows and columns."""
        values = getattr(p, others)
        if not isinstance(values, int):  # given any number of times in convolution_param
            self.check(len(values) <= 1, f"{others} is given {len(values)} times, expected once")
            values = values[0] if values else default
        return getattr(p, first), values, values

    def has_bias(self, p: Any) -> bool:
        return p.bias_term

    def weight_ends(self) -> Shape:
        """The first two axes of the weight."""
        raise AssertionError("set by the subclass")

    def extent(self, size: int, kernel: int, stride: int, pad: int) -> int:
        """The top's size along one axis."""
        raise AssertionError("set by the subclass")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        (shape,) = shapes
        self.check(
            len(shape) == 5 and shape[1] == self.channels and min(shape[2:]) > 0,
            f"bottom has the shape {shape}, expected (N, {self.channels}, L, H, W)",
        )
        axes = zip(shape[2:], self.kernel, self.stride, self.pad, strict=True)
        size = tuple(self.extent(*axis) for axis in axes)
        self.check(
            min(size) > 0, f"bottom {shape} is too small for kernel {self.kernel}, pad {self.pad}"
        )
        return [(shape[0], self.outputs, *size)]

    def onnx_kernel(self, graph: Graph, op: str, x: Value) -> str:
        """The layer as ONNX's operator `op`."""
        weights = [graph.blob(self, 0)]
        if self.bias:
            weights.append(graph.constant(self.array(1).ravel(), name=f"{self.name}.1"))
        return graph.add(op, x, *weights, strides=self.stride, pads=[*self.pad, *self.pad])


@register("Convolution3D")
class Convolution3D(_Kernel3D):
    """Convolution of a video over time and image (Tran et al., 2015; convolution3d_layer.cpp).

    Bottom: (N, C, L, H, W). Top: (N, num_output, l, h, w). Blobs: (num_output, C, kernel_depth,
    kernel_size, kernel_size), (1, 1, 1, 1, num_output).
    """

    def weight_ends(self) -> Shape:
        return self.outputs, self.channels

    def extent(self, size: int, kernel: int, stride: int, pad: int) -> int:
        return (size + 2 * pad - kernel) // stride + 1

    def macs(self, shapes: Sequence[Shape]) -> int:
        (top,) = self.infer_shapes(shapes)
        return math.prod(top) * self.channels * math.prod(self.kernel)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        bias = blobs[1].flatten() if self.bias else None
        return F.conv3d(bottom[0], blobs[0], bias, self.stride, self.pad)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return self.onnx_kernel(graph, "Conv", bottoms[0])


@register("Deconvolution3D")
class Deconvolution3D(_Kernel3D):
    """The transpose of Convolution3D (deconvolution3d_layer.cpp).

    Bottom: (N, C, L, H, W). Top: (N, num_output, l, h, w). Blobs: (C, num_output, kernel_depth,
    kernel_size, kernel_size), (1, 1, 1, 1, num_output). As in C3D 1.1, bias_term is that of
    convolution_param.
    """

    def has_bias(self, p: Any) -> bool:
        return self.layer_param.convolution_param.bias_term

    def weight_ends(self) -> Shape:
        return self.channels, self.outputs

    def extent(self, size: int, kernel: int, stride: int, pad: int) -> int:
        return (size - 1) * stride - 2 * pad + kernel

    def macs(self, shapes: Sequence[Shape]) -> int:
        return math.prod(shapes[0]) * self.outputs * math.prod(self.kernel)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        bias = blobs[1].flatten() if self.bias else None
        return F.conv_transpose3d(bottom[0], blobs[0], bias, self.stride, self.pad)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return self.onnx_kernel(graph, "ConvTranspose", bottoms[0])


class _MaxOfAll(torch.autograd.Function):
    """Max pooling whose gradient goes to every value that equals the maximum."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int]
    ) -> torch.Tensor:
        top = F.max_pool3d(x, kernel, stride)
        ctx.save_for_backward(x, top)
        ctx.kernel, ctx.stride = kernel, stride
        return top

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, top = ctx.saved_tensors
        to_x = torch.zeros_like(x)
        for place in np.ndindex(*ctx.kernel):
            there = (
                ...,
                *(
                    slice(start, start + (count - 1) * step + 1, step)
                    for start, count, step in zip(place, top.shape[2:], ctx.stride, strict=True)
                ),
            )
            to_x[there] += torch.where(x[there] == top, grad, 0)
        return to_x, None, None


class _Windows(Layer):
    """Pooling over windows of one to three spatial axes; subclasses set kernel, stride and pad."""

    judge = "recorded"
    ties = False  # whether the gradient of a maximum goes to all that equal it
    first = 2  # the first spatial axis
    kernel: Shape
    stride: Shape
    pad: Shape

    def check_windows(self) -> None:
        self.check(
            min(*self.kernel, *self.stride) > 0,
            f"kernel {self.kernel} and stride {self.stride} must be positive",
        )

    def averages(self) -> bool:
        """Whether windows are averaged; else their maximum is taken."""
        raise AssertionError("set by the subclass")

    def pooled(self, size: int, kernel: int, stride: int, pad: int) -> int:
        """The number of windows along one axis."""
        return -((kernel - size - 2 * pad) // stride) + 1

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        (shape,) = shapes
        spatial = shape[self.first :]
        self.check(
            len(spatial) == len(self.kernel) and min(spatial) > 0,
            f"bottom has the shape {shape}, expected {len(self.kernel)} spatial axes from axis "
            f"{self.first} on, of at least one value",
        )
        axes = zip(spatial, self.kernel, self.stride, self.pad, strict=True)
        size = tuple(self.pooled(*axis) for axis in axes)
        self.check(
            min(size) > 0, f"bottom {shape} is too small for kernel {self.kernel}, pad {self.pad}"
        )
        return [(*shape[: self.first], *size)]

    def _edges(self, spatial: Shape, size: Shape) -> tuple[list[int], list[int], list[int]]:
        """What is put around the bottom for all windows to fit, for F.pad; and the kernel and
        stride, no larger than they need to be.
        """
        edges, kernels, strides = [], [], []
        for n, count, kernel, stride, pad in zip(
            spatial, size, self.kernel, self.stride, self.pad, strict=True
        ):
            stride = min(stride, n + 2 * pad)
            kernel = min(kernel, n + 2 * pad)
            behind = max((count - 1) * stride + kernel - n - pad, 0)
            edges = [pad, behind, *edges]
            kernels.append(kernel)
            strides.append(stride)
        return edges, kernels, strides

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The bottom with what is put around it."""
        (top,) = self.infer_shapes(shapes)
        spatial = shapes[0][self.first :]
        edges, _, _ = self._edges(spatial, top[self.first :])
        around = zip(spatial, edges[-2::-2], edges[::-2], strict=True)
        return math.prod(shapes[0][: self.first]) * math.prod(sum(axis) for axis in around)

    def _counts(self, spatial: Shape, size: Shape) -> np.ndarray:
        """By how many values each window's sum is divided: padding counts, but not what lies
        behind it.
        """
        counts = np.ones(())
        axes = zip(spatial, size, self.kernel, self.stride, self.pad, strict=True)
        for n, count, kernel, stride, pad in axes:
            start = np.arange(count) * stride - pad
            counts = np.multiply.outer(counts, np.minimum(start + kernel, n + pad) - start)
        return counts

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        x, axes = bottom[0], len(self.kernel)
        spatial, size = tuple(x.shape[self.first :]), top[self.first :]
        edges, kernel, stride = self._edges(spatial, size)
        more = [1] * (3 - axes)
        filler = 0.0 if self.averages() else LOWEST
        x = F.pad(x.reshape(-1, 1, *spatial), edges, value=filler)
        x = x.reshape(x.shape[0], 1, *more, *x.shape[2:])
        kernel, stride = [*more, *kernel], [*more, *stride]
        if self.averages():
            sums = F.avg_pool3d(x, kernel, stride, divisor_override=1).reshape(top)
            return sums / torch.from_numpy(self._counts(spatial, size)).to(x)
        pool = _MaxOfAll.apply if self.ties else F.max_pool3d
        return pool(x, kernel, stride).clamp(min=LOWEST).reshape(top)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        (top,) = self.infer_shapes([x.shape])
        spatial, size = x.shape[self.first :], top[self.first :]
        self.check(self.first == 2, "has an ONNX form for channels on axis 1 only")
        edges, kernel, stride = self._edges(spatial, size)
        begin, end = edges[-2::-2], edges[::-2]
        pads = graph.constant([0, 0, *begin, 0, 0, *end], np.int64)
        if not self.averages():
            y = graph.add("Pad", x, pads, graph.constant(LOWEST)) if any(edges) else x
            return graph.add("MaxPool", y, kernel_shape=kernel, strides=stride)
        y = graph.add("Pad", x, pads) if any(edges) else x
        y = graph.add("AveragePool", y, kernel_shape=kernel, strides=stride)
        share = math.prod(kernel) / self._counts(spatial, size)
        return y if (share == 1).all() else graph.add("Mul", y, graph.constant(share))


@register("Pooling3D")
class Pooling3D(_Windows):
    """Pooling of a video over time and image: MAX or AVE (Tran et al., 2015; pool3d_layer.cpp).

    Bottom: (N, C, L, H, W). Top: (N, C, l, h, w), windows rounded up. C3D 1.1 has the parameters in
    pooling3d_param, 1.0 in pooling_param. The gradient of a maximum goes to all values that equal
    it. `pad` is of the image alone, and for AVE, where it counts as zeros. STOCHASTIC is not there,
    as in C3D.
    """

    fork = "C3D"
    ties = True
    reads = ("pooling3d_param", "pooling_param")
    takes = ("pooling_param.kernel_depth", "pooling_param.temporal_stride")

    def setup(self, shapes: Sequence[Shape]) -> None:
        old = not self.layer_param.HasField("pooling3d_param")
        p = self.layer_param.pooling_param if old else self.layer_param.pooling3d_param
        self.kernel = (p.kernel_depth, p.kernel_size, p.kernel_size)
        self.stride = (p.temporal_stride, p.stride, p.stride)
        self.pad = (0, p.pad, p.pad)
        self.method = p.pool
        self.check_windows()
        methods = pb.Pooling3DParameter
        self.check(p.pool in (methods.MAX, methods.AVE), "pool is STOCHASTIC, expected MAX or AVE")
        self.check(not p.pad or self.averages(), "pad is for AVE only")

    def averages(self) -> bool:
        return self.method == pb.Pooling3DParameter.AVE


@register("PoolingND")
class PoolingND(_Windows):
    """Pooling over one to three spatial axes: MAX or AVE (pooling_nd_layer.cu).

    Bottom: (N, C, ...), the channels on `axis`. Top: with one value for each window, rounded up; a
    last window that would begin in the padding is left out. Padding counts as zeros for AVE.
    global_pooling takes the whole image.
    """

    fork = "MouseCTSegmentation"
    reads = ("pooling_nd_param",)
    takes = tuple(
        f"pooling_nd_param.{name}"
        for name in (
            *("pool", "pad", "kernel_size", "stride", "pad_h", "pad_w", "kernel_h", "kernel_w"),
            *("stride_h", "stride_w", "global_pooling", "axis"),
        )
    )
    differs = (
        "STOCHASTIC is not there. The gradient of AVE over three axes is the derivative; the fork "
        "takes a wrong size of the window on the last one."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p, shape = self.layer_param.pooling_nd_param, shapes[0]
        self.first = self.axis(p.axis, shape) + 1
        spatial = shape[self.first :]
        self.check(
            1 <= len(spatial) <= 3,
            f"bottom has the shape {shape}, expected one to three axes behind axis {p.axis}",
        )
        self.check(p.pool in (p.MAX, p.AVE), "pool is STOCHASTIC, expected MAX or AVE")
        if p.global_pooling:
            self.check(not p.kernel_size, "give either kernel_size or global_pooling, not both")
            self.kernel = spatial
        else:
            self.kernel = self._each("kernel_size", "kernel", spatial, None)
        self.stride = self._each("stride", "stride", spatial, 1)
        self.pad = self._each("pad", "pad", spatial, 0)
        self.check_windows()
        self.check(
            all(pad < kernel for pad, kernel in zip(self.pad, self.kernel, strict=True)),
            f"pad {self.pad} must be smaller than the kernel {self.kernel}",
        )

    def _each(self, name: str, short: str, spatial: Shape, default: int | None) -> Shape:
        """One number for each spatial axis, from `name` (once or for each), or for h and w."""
        p = self.layer_param.pooling_nd_param
        values = list(getattr(p, name))
        if p.HasField(f"{short}_h") or p.HasField(f"{short}_w"):
            self.check(
                len(spatial) == 2 and not values,
                f"{short}_h and {short}_w are for two spatial axes, and without {name}",
            )
            return getattr(p, f"{short}_h"), getattr(p, f"{short}_w")
        if not values and default is not None:
            values = [default]
        self.check(
            len(values) in (1, len(spatial)),
            f"{name} is given {len(values)} times, expected once, or once for each of "
            f"{len(spatial)} spatial axes",
        )
        return tuple(values) * (len(spatial) if len(values) == 1 else 1)

    def averages(self) -> bool:
        return self.layer_param.pooling_nd_param.pool == pb.PoolingNDParameter.AVE

    def pooled(self, size: int, kernel: int, stride: int, pad: int) -> int:
        count = super().pooled(size, kernel, stride, pad)
        if any(self.pad) and (count - 1) * stride >= size + pad:
            count -= 1
        return count


def _dims(given: pb.BlobShape, count: int, default: int) -> Shape:
    """The numbers of a kernel, stride or padding, or the default for each axis."""
    return tuple(given.dim) or (default,) * count


@register("NdConvolution")
class NdConvolution(Layer):
    """Convolution over the axes that kernel_shape names (video-caffe's cudnn_ndconv_layer.cpp).

    Bottom: (N, C, ...). Top: (N, num_output, ...). Blobs: (num_output, C / group, kernel ...),
    (num_output).
    """

    fork = "video-caffe"
    judge = "worked cases"
    multiplies = True
    reads = ("convolution_param",)
    takes = tuple(f"convolution_param.{n}_shape" for n in ("kernel", "stride", "pad"))

    def setup(self, shapes: Sequence[Shape]) -> None:
        p, shape = self.layer_param.convolution_param, shapes[0]
        self.kernel = tuple(p.kernel_shape.dim)
        axes = len(self.kernel)
        stride, pad = _dims(p.stride_shape, axes, 1), _dims(p.pad_shape, axes, 0)
        self.check(
            0 < axes == len(stride) == len(pad) and min(*self.kernel, *stride) > 0 <= min(pad),
            f"kernel_shape {self.kernel}, stride_shape {stride} and pad_shape {pad} do not fit "
            "together",
        )
        self.check(
            len(shape) == axes + 2 and shape[1] > 0,
            f"bottom has the shape {shape}, expected channels and {axes} further axes",
        )
        self.check(
            p.num_output > 0 < p.group and p.num_output % p.group == 0 and shape[1] % p.group == 0,
            f"num_output {p.num_output} and {shape[1]} channels, expected multiples of group, "
            f"{p.group}, and not 0",
        )
        self.geometry = Geometry(stride, pad, (1,) * axes, p.group)
        self.channels = shape[1]
        self.add_blob((p.num_output, self.channels // p.group, *self.kernel), p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        (shape,) = shapes
        self.check(
            len(shape) == len(self.kernel) + 2 and shape[1] == self.channels,
            f"bottom has the shape {shape}, expected {self.channels} channels and "
            f"{len(self.kernel)} further axes",
        )
        axes = zip(shape[2:], self.kernel, *self.geometry[:2], strict=True)
        size = tuple((n + 2 * pad - kernel) // stride + 1 for n, kernel, stride, pad in axes)
        self.check(min(size) > 0, f"bottom {shape} is too small for the kernel {self.kernel}")
        return [(shape[0], self.blobs[0].shape[0], *size)]

    def macs(self, shapes: Sequence[Shape]) -> int:
        (top,) = self.infer_shapes(shapes)
        return math.prod(top) * math.prod(self.blobs[0].shape[1:])

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        bias = blobs[1] if len(blobs) > 1 else None
        return convolve(bottom[0], blobs[0], bias, self.geometry)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        weights = [graph.blob(self, i) for i in range(len(self.blobs))]
        stride, pad, _, group = self.geometry
        return graph.add("Conv", *bottoms, *weights, strides=stride, pads=[*pad, *pad], group=group)


@register("NdPooling")
class NdPooling(_Windows):
    """Pooling over the axes behind the channels: MAX or AVE (video-caffe's
    cudnn_ndpooling_layer.cpp).

    Bottom: (N, C, ...). Top: with one value for each window, rounded up; a last window that would
    begin in the padding is left out. AVE divides by the whole kernel.
    """

    fork = "video-caffe"
    judge = "worked cases"
    reads = ("pooling_param",)
    takes = tuple(f"pooling_param.{n}_shape" for n in ("kernel", "stride", "pad"))
    differs = "STOCHASTIC is not there, as it is not in cuDNN."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p, spatial = self.layer_param.pooling_param, tuple(shapes[0][2:])
        self.kernel = spatial if p.global_pooling else tuple(p.kernel_shape.dim)
        axes = len(self.kernel)
        self.stride, self.pad = _dims(p.stride_shape, axes, 1), _dims(p.pad_shape, axes, 0)
        self.check(
            1 <= axes <= 3 and axes == len(self.stride) == len(self.pad) and min(self.pad) >= 0,
            f"kernel_shape {self.kernel}, stride_shape {self.stride} and pad_shape {self.pad} do "
            "not fit together, for one to three axes",
        )
        self.check_windows()
        self.check(p.pool in (p.MAX, p.AVE), "pool is STOCHASTIC, expected MAX or AVE")

    def averages(self) -> bool:
        return self.layer_param.pooling_param.pool == pb.PoolingParameter.AVE

    def pooled(self, size: int, kernel: int, stride: int, pad: int) -> int:
        count = super().pooled(size, kernel, stride, pad)
        if pad and (count - 1) * stride >= size + pad:
            count -= 1
        return count

    def _counts(self, spatial: Shape, size: Shape) -> np.ndarray:
        return np.full(size, math.prod(self.kernel), float)


@register("VoxelSoftmax")
class VoxelSoftmax(Layer):
    """Softmax over the channels of each voxel (C3D's voxel_wise_softmax_layer.cpp).

    Bottom: (N, C, L, H, W).
    """

    fork = "C3D"
    judge = "worked cases"

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        (shape,) = shapes
        self.check(
            len(shape) == 5 and shape[1] > 0,
            f"bottom has the shape {shape}, expected (N, C, L, H, W)",
        )
        return [tuple(shape)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        return bottom[0].softmax(1)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.add("Softmax", bottoms[0], axis=1)


@register("VoxelSoftmaxLoss")
class VoxelSoftmaxLoss(Layer):
    """Softmax over the channels, then the mean over all voxels of -log p of the label (C3D's
    voxel_wise_softmax_loss_layer.cpp).

    Bottoms: scores (N, C, L, H, W); labels (N, 1, L, H, W). Labels from C on cost nothing, but
    count for the mean, and their gradient is that of a label which no class has.
    """

    bottoms = (2, 2)
    auto_tops = True
    loss = True
    labels = (1,)
    look = OUTPUT
    fork = "C3D"
    judge = "worked cases"

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        scores, labels = shapes
        self.check(
            len(scores) == 5 and min(scores) > 0 and labels == (scores[0], 1, *scores[2:]),
            f"bottoms have the shapes {scores} and {labels}, expected (N, C, L, H, W) and "
            "(N, 1, L, H, W)",
        )
        return [()]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        scores, labels = bottom[0], bottom[1].detach().long()
        classes = scores.shape[1]
        self.check_range(labels.clamp(max=0), 1, "label", ", or a class that does not count")
        known = labels < classes
        chosen = scores.gather(1, torch.where(known, labels, 0))
        whole = scores.logsumexp(1, keepdim=True)
        log_p = (chosen - whole).clamp(min=LOG_FLT_MIN)
        cost = torch.where(known, -log_p, 0)
        stand_in = whole - torch.where(known, chosen, 0)
        return with_gradient_of(cost.sum(), stand_in.sum()) / labels.numel()

"""Layers that see an image as a grid: convolutions, Im2col, Crop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from caffe.formats.onnx import Graph, Names, Value
from caffe.kernels.geometry import Geometry, convolve, deconvolve
from caffe.layers.base import ENGINE, Layer, Shape, Tensors, register
from caffe.layers.coordinates import Map, crop_of, transposed, windowed
from caffe.layers.look import Look
from caffe.proto import caffe_pb2 as pb


class _Kernels(Layer):
    """Kernels over the spatial axes behind the channels, as ConvolutionParameter describes them."""

    reads = ("convolution_param",)
    takes = (
        *("convolution_param.hole", "convolution_param.hole_h", "convolution_param.hole_w"),
        *("convolution_param.dilation_h", "convolution_param.dilation_w"),
    )

    def read_geometry(self, shape: Shape) -> None:
        """Read kernel, stride, pad and dilation, one number for each spatial axis of `shape`."""
        p = self.layer_param.convolution_param
        self.channel_axis = self.axis(p.axis, shape)
        self.spatial = len(shape) - self.channel_axis - 1
        self.kernel = self._each_axis("kernel_size", p.kernel_size, None, "kernel_h", "kernel_w")
        self.stride = self._each_axis("stride", p.stride, 1, "stride_h", "stride_w")
        self.pad = self._each_axis("pad", p.pad, 0, "pad_h", "pad_w")
        self.dilation = self._dilation()
        for what in ("kernel", "stride", "dilation"):
            values = getattr(self, what)
            self.check(min(values, default=1) > 0, f"{what} dimensions must not be zero: {values}")
        self.channels = shape[self.channel_axis]

    def _dilation(self) -> tuple[int, ...]:
        """One number for each spatial axis; forks call it hole, too, or give height and width."""
        p = self.layer_param.convolution_param
        names = ("dilation", "dilation_h", "dilation_w", "hole", "hole_h", "hole_w")
        fields = {field.name for field, _ in p.ListFields()}
        given = [name for name in names if name in fields]
        sides = [name for name in given if name.endswith(("_h", "_w"))]
        if sides:
            self.check(self.spatial == 2, f"{sides[0]} is for 2-D convolution only")
            both = {name[:-2] for name in sides}
            fits = len(both) == 1 and len(given) == len(sides)
            self.check(fits, f"give dilation or hole, or one for each side: {', '.join(given)}")
            found = {name[-1]: getattr(p, name) for name in sides}
            return found.get("h", 1), found.get("w", 1)
        self.check(len(given) < 2, "give either dilation or hole, not both")
        values = [p.hole] if given == ["hole"] else p.dilation
        return self._each_axis("dilation", values, 1)

    def _each_axis(
        self,
        name: str,
        values: Sequence[int],
        default: int | None,
        name_h: str | None = None,
        name_w: str | None = None,
    ) -> tuple[int, ...]:
        """One number for each spatial axis, from `name` (once or for each) or name_h and name_w."""
        p = self.layer_param.convolution_param
        if name_h and name_w and (p.HasField(name_h) or p.HasField(name_w)):
            self.check(self.spatial == 2, f"{name_h} and {name_w} are for 2-D convolution only")
            self.check(not values, f"give either {name} or {name_h} and {name_w}, not both")
            return getattr(p, name_h), getattr(p, name_w)
        if not values and default is not None:
            return (default,) * self.spatial
        self.check(
            len(values) in (1, self.spatial),
            f"{name} must be given once, or once for each of {self.spatial} spatial axes; "
            f"it is given {len(values)} times",
        )
        return tuple(values) if len(values) == self.spatial else (values[0],) * self.spatial

    def check_axes(self, shape: Shape) -> None:
        """Raise CaffeError unless a bottom has the axes and channels of the one at set-up."""
        self.check(
            len(shape) == self.channel_axis + 1 + self.spatial
            and shape[self.channel_axis] == self.channels,
            f"bottom has the shape {shape}, expected {self.channels} channels on axis "
            f"{self.channel_axis} and {self.spatial} spatial axes",
        )

    def extents(self, shape: Shape) -> Shape:
        """The top's spatial axes."""
        size = tuple(self.extent(*axis) for axis in self._along_axes(shape))
        self.check(
            all(n > 0 for n in size),
            f"bottom {shape} is too small for kernel {self.kernel} and pad {self.pad}",
        )
        return size

    def _along_axes(self, shape: Shape) -> Iterable[tuple[int, ...]]:
        """(size, kernel, stride, pad, dilation) of each spatial axis."""
        sizes = shape[self.channel_axis + 1 :]
        return zip(sizes, self.kernel, self.stride, self.pad, self.dilation, strict=True)

    def extent(self, size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        """How many places the kernel has along one axis: the top's size there."""
        return int((size + 2 * pad - dilation * (kernel - 1) - 1) / stride) + 1

    def filling(self, image: Shape) -> list[int]:
        """How many zeros each spatial axis of the image gets at its end.

        It gets some where the kernel is larger than the padded image by less than a stride:
        Caffe's division rounds to zero, so the kernel still has one place there.
        """
        axes = zip(image, self.kernel, self.pad, self.dilation, strict=True)
        return [
            max(dilation * (kernel - 1) + 1 - size - 2 * pad, 0)
            for size, kernel, pad, dilation in axes
        ]

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The values of a filled image, where `filling` makes one."""
        shape = shapes[0]
        image = shape[self.channel_axis + 1 :]
        more = self.filling(image)
        if not any(more):
            return 0
        lead = math.prod(shape[: self.channel_axis + 1])
        return lead * math.prod(n + end for n, end in zip(image, more, strict=True))

    def filled(self, x: torch.Tensor) -> torch.Tensor:
        """x (samples, channels, image) with the zeros of `filling`."""
        edges = [n for more in reversed(self.filling(x.shape[2:])) for n in (0, more)]
        return F.pad(x, edges) if any(edges) else x

    def samples(self, x: torch.Tensor) -> torch.Tensor:
        """x with all axes before the channels as one."""
        if self.channel_axis == 1:
            return x
        lead = x.shape[: self.channel_axis]
        return x.reshape(math.prod(lead), *x.shape[self.channel_axis :])

    def onnx_convolve(
        self, graph: Graph, op: str, x: Value, weights: Sequence[str], group: int, pad: Shape
    ) -> str:
        """A convolution in ONNX, which has one axis of samples and at least one spatial axis."""
        image = x.shape[self.channel_axis + 1 :]
        attributes = self._onnx_attributes(image, pad)
        if self.channel_axis == 1 and image:
            return graph.add(op, x, *weights, group=group, **attributes)
        self.check(
            self.channel_axis > 0 or not graph.dynamic_batch,
            "the first axis holds the channels, whose number cannot be free",
        )
        (top,) = self.infer_shapes([x.shape])
        flat = graph.reshape(x, (-1, self.channels, *(image or [1])), keeps_batch=False)
        y = graph.add(op, flat, *weights, group=group, **attributes)
        return graph.reshape(y, (-1, *top[1:]), keeps_batch=False)

    def _onnx_attributes(self, image: Shape, pad: Shape) -> dict[str, list[int]]:
        behind = [edge + more for edge, more in zip(pad, self.filling(image), strict=True)]
        return {
            "kernel_shape": list(self.kernel) or [1],
            "strides": list(self.stride) or [1],
            "dilations": list(self.dilation) or [1],
            "pads": [*pad, *behind] or [0, 0],
        }


class _ConvolutionBase(_Kernels):
    """What Convolution and Deconvolution share: the parameters (base_conv_layer.cpp)."""

    bottoms = (1, None)
    tops = (1, None)
    one_top_each = True
    multiplies = True
    channels_last = True
    fresh = True
    differs = f"{ENGINE} So is `force_nd_im2col`."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.convolution_param
        self.read_geometry(shapes[0])
        self.num_output, self.group = self.counts()
        self.kernel_geometry = Geometry(self.stride, self.pad, self.dilation, self.group)
        self.check(self.num_output > 0, "num_output must be positive")
        self.check(self.channels > 0, f"bottom {shapes[0]} has no channels")
        self.check(
            self.group > 0
            and self.channels % self.group == 0
            and self.num_output % self.group == 0,
            f"group {self.group} does not divide the {self.channels} input channels "
            f"and the {self.num_output} outputs",
        )
        self.add_blob((*self.filter_shape(), *self.kernel), p.weight_filler)
        if p.bias_term:
            self.add_blob((self.num_output,), p.bias_filler)

    def counts(self) -> tuple[int, int]:
        """The numbers of outputs and groups."""
        p = self.layer_param.convolution_param
        return p.num_output, p.group

    def filter_shape(self) -> Shape:
        """The first two axes of the weight."""
        raise AssertionError("set by the subclass")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        first = shapes[0]
        for i, shape in enumerate(shapes):
            self.check(
                shape == first,
                f"bottom {i} has the shape {shape}, bottom 0 {first}; they must be equal",
            )
        self.check_axes(first)
        lead, image = first[: self.channel_axis], first[self.channel_axis + 1 :]
        top = (*lead, self.num_output, *self.extents(first))
        if 0 in image and 0 not in lead:  # PyTorch convolves images of nothing in no sample only
            filled = [size + more for size, more in zip(image, self.filling(image), strict=True)]
            self.check(min(filled) > 0, f"bottom {first} has an empty spatial axis")
        return [top] * len(shapes)

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        tops = []
        for x in bottom:
            y = self.convolve(self.samples(x), blobs[0], blobs[1] if len(blobs) > 1 else None)
            if self.channel_axis != 1:
                y = y.reshape(*x.shape[: self.channel_axis], *y.shape[1:])
            tops.append(y)
        return tops

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """The top of x (samples, channels, image)."""
        raise AssertionError("set by the subclass")

    def macs(self, shapes: Sequence[Shape]) -> int:
        samples = math.prod(shapes[0][: self.channel_axis])
        uses = samples * math.prod(self.places(shapes[0]))  # of each weight, for each bottom
        return len(shapes) * uses * math.prod(self.blobs[0].shape)

    def places(self, shape: Shape) -> Shape:
        """How many places the kernel has along each spatial axis."""
        raise AssertionError("set by the subclass")

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        op, weight, pad = self.onnx_form()
        weight = weight if self.spatial else weight[..., None]
        blobs = [graph.constant(weight, name=f"{self.name}.0")]
        blobs += [graph.blob(self, i) for i in range(1, len(self.blobs))]
        return [self.onnx_convolve(graph, op, x, blobs, self.group, pad) for x in bottoms]

    def onnx_form(self) -> tuple[str, np.ndarray, Shape]:
        """The operator in ONNX, its weight and the padding of each spatial axis."""
        return "Conv", self.array(0), self.pad

    @classmethod
    def detail(cls, param: pb.LayerParameter) -> str:
        p = param.convolution_param
        kernel = [*p.kernel_size] or [p.kernel_h, p.kernel_w]
        kernel = kernel * 2 if len(kernel) == 1 else kernel
        return "\u00d7".join(map(str, kernel)) + f", {p.num_output}"

    @classmethod
    def edge(cls, param: pb.LayerParameter) -> str:
        return str(param.convolution_param.num_output)

    @classmethod
    def geometry(cls, param: pb.LayerParameter) -> list[str]:
        p = param.convolution_param
        one_sided = p.HasField("kernel_h")
        kernel = f"{p.kernel_h}x{p.kernel_w}" if one_sided else _joined(p.kernel_size, 1)
        stride, pad = _joined(p.stride, 1), _joined(p.pad, 0)
        return [f"kernel size: {kernel}", f"stride: {stride}", f"pad: {pad}"]


def _joined(values: Sequence[int], default: int) -> str:
    return "x".join(map(str, values)) or str(default)


@register("Convolution")
class Convolution(_ConvolutionBase):
    """Convolution (cross-correlation) with groups, dilation, any number of spatial axes.

    Each bottom (..., C, image) gives a top (..., num_output, image'). The channels are on `axis`;
    all axes before it count samples. The weight has the shape (num_output, C / group, kernel), the
    bias (num_output). Source: Caffe's conv_layer.cpp.
    """

    concurrent = True
    look = Look("Convolution", color="#FF5050")

    def filter_shape(self) -> Shape:
        return (self.num_output, self.channels // self.group)

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        return convolve(self.filled(x), weight, bias, self.kernel_geometry)

    def places(self, shape: Shape) -> Shape:
        return self.extents(shape)

    @classmethod
    def coordinates(cls, params: Mapping[str, Any]) -> Map:
        return windowed(cls.type, params)


@register("DepthwiseConvolution")
class DepthwiseConvolution(Convolution):
    """A Convolution that has a group for each channel, unless `group` says otherwise.

    Each bottom (..., C, image) gives a top (..., num_output, image'). The weight has the shape
    (num_output, C / group, kernel), the bias (num_output) (Howard et al., 2017;
    depthwise_conv_layer.cpp of yonghenglh6/DepthwiseConvolution).
    """

    fork = "yonghenglh6/DepthwiseConvolution, MobileNet-YOLO"
    judge = "recorded"
    differs = (
        "Without `group` each channel is a group; there the forks' CPU and GPU code differ. "
        f"{ENGINE}"
    )

    def counts(self) -> tuple[int, int]:
        p = self.layer_param.convolution_param
        return p.num_output, p.group if p.HasField("group") else self.channels


@register("ConvolutionDepthwise")
class ConvolutionDepthwise(Convolution):
    """A Convolution of each channel by itself; num_output and group do not count.

    Each bottom (N, C, H, W) gives a top (N, C, H', W'). The weight has the shape (C, 1, kernel),
    the bias (C) (Howard et al., 2017; conv_dw_layer.cpp).
    """

    fork = "OpenCV training toolbox, mini-caffe"
    judge = "recorded"

    def counts(self) -> tuple[int, int]:
        return self.channels, self.channels


@register("Deconvolution")
class Deconvolution(_ConvolutionBase):
    """Transposed convolution; the weight's first two axes are (inputs, outputs / group).

    Each bottom (..., C, image) gives a top (..., num_output, image'); a spatial axis of n becomes
    stride (n - 1) + dilation (kernel - 1) + 1 - 2 pad. Source: Caffe's deconv_layer.cpp.
    """

    concurrent = True
    look = Look("Deconvolution", color="#FF5050")

    def filter_shape(self) -> Shape:
        return (self.channels, self.num_output // self.group)

    def extent(self, size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        return stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad

    def filling(self, image: Shape) -> list[int]:
        return [0] * len(image)

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        return deconvolve(x, weight, bias, self.kernel_geometry)

    def places(self, shape: Shape) -> Shape:
        return shape[self.channel_axis + 1 :]

    def onnx_form(self) -> tuple[str, np.ndarray, Shape]:
        """With stride 1 it is a convolution by the kernel turned around, for which programs and
        their quantisers have faster code than for ConvTranspose.
        """
        weight = self.array(0)
        axes = zip(self.kernel, self.dilation, self.pad, strict=True)
        pad = tuple(dilation * (size - 1) - edge for size, dilation, edge in axes)
        if max(self.stride, default=1) > 1 or min(pad, default=0) < 0:
            return "ConvTranspose", weight, self.pad
        parts = weight.reshape(self.group, -1, *weight.shape[1:])  # (group, inputs, outputs, ...)
        turned = np.flip(parts.swapaxes(1, 2), tuple(range(3, parts.ndim)))
        return "Conv", turned.reshape(self.num_output, -1, *weight.shape[2:]), pad

    @classmethod
    def coordinates(cls, params: Mapping[str, Any]) -> Map:
        return transposed(cls.type, params)


@register("Im2col")
class Im2col(_Kernels):
    """The patches that a convolution would see, along the channels: (N, C kernel, positions).

    Source: Caffe's im2col_layer.cpp.
    """

    differs = "`force_nd_im2col` and the fields of the filters are accepted and without effect."

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.read_geometry(shapes[0])
        self.check(self.spatial >= 1, f"bottom {shapes[0]} has no axis behind the channels")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = shapes[0]
        self.check_axes(shape)
        patches = self.channels * math.prod(self.kernel)
        return [(*shape[: self.channel_axis], patches, *self.extents(shape))]

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The values of the padded image."""
        shape, start = shapes[0], self.channel_axis + 1
        axes = zip(shape[start:], self.pad, self.filling(shape[start:]), strict=True)
        return math.prod(shape[:start]) * math.prod(n + 2 * pad + more for n, pad, more in axes)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        x = self.filled(self.samples(bottom[0]))
        x = F.pad(x, [p for pad in reversed(self.pad) for p in (pad, pad)])
        for axis, dilation in enumerate(self.dilation):
            # A new last axis holds each window; of it every dilation-th place counts.
            extent = dilation * (self.kernel[axis] - 1) + 1
            x = x.unfold(2 + axis, extent, self.stride[axis])[..., ::dilation]
        behind = 2 + self.spatial
        return x.permute(0, 1, *range(behind, x.dim()), *range(2, behind)).reshape(top)

    def onnx(self, graph: Graph, x: Value) -> str:
        size = math.prod(self.kernel)
        one_hot = np.eye(size).reshape(size, 1, *self.kernel)  # each filter picks one place
        picks = np.tile(one_hot, (self.channels, *[1] * (self.spatial + 1)))
        weights = [graph.constant(picks)]
        return self.onnx_convolve(graph, "Conv", x, weights, self.channels, self.pad)

    @classmethod
    def coordinates(cls, params: Mapping[str, Any]) -> Map:
        return windowed(cls.type, params)


@register("Crop")
class Crop(Layer):
    """Cuts bottom 0 to the size of bottom 1 on all axes from `axis` on, starting at `offset`.

    Bottom 1 may have further axes, which do not count. Source: Caffe's crop_layer.cpp. Without
    crop_param it starts at 0, or as in forks (caffe.set_crop_alignment).
    """

    bottoms = (2, 2)
    reads = ("crop_param",)
    differs = (
        "Without `crop_param` a warning says where forks would begin: those of HED, CRF-RNN and "
        "DeconvNet align both bottoms by coordinates. `caffe.set_crop_alignment(True)` or "
        "`caffe -align_crops` does so, too."
    )

    @property
    def unplaced(self) -> bool:
        return not self.layer_param.HasField("crop_param")

    def put(self, axis: int, offset: Sequence[int]) -> None:
        p = self.layer_param.crop_param
        p.SetInParent()
        if offset:
            p.axis = axis
            p.offset.extend(offset)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape, size = shapes
        start = self.axis(self.layer_param.crop_param.axis, shape)
        offsets = self._offsets(len(shape) - start, start)
        self.check(
            len(size) >= len(shape),
            f"the size (bottom 1) has the shape {size}, expected {len(shape)} axes as bottom 0",
        )
        for axis, offset in enumerate(offsets, start):
            self.check(
                offset + size[axis] <= shape[axis],
                f"axis {axis}: {size[axis]} from {offset} on exceed the {shape[axis]} of bottom 0",
            )
        return [(*shape[:start], *size[start : len(shape)])]

    def _offsets(self, axes: int, start: int) -> list[int]:
        """Where to start on each of the last `axes` axes."""
        offsets = list(self.layer_param.crop_param.offset)
        self.check(
            len(offsets) in (0, 1, axes),
            f"offset is given {len(offsets)} times, expected none, one, or one for each of {axes} "
            f"axes from axis {start} on",
        )
        return offsets if len(offsets) == axes else (offsets or [0]) * axes

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        x = bottom[0]
        start = self.axis(self.layer_param.crop_param.axis, tuple(x.shape))
        for axis, offset in enumerate(self._offsets(x.dim() - start, start), start):
            x = x.narrow(axis, offset, top[axis])
        return x

    def onnx(self, graph: Graph, x: Value, size: Value) -> str:
        start = self.axis(self.layer_param.crop_param.axis, x.shape)
        axes = range(start, len(x.shape))
        offsets = self._offsets(len(axes), start)
        ends = [offset + size.shape[axis] for axis, offset in zip(axes, offsets, strict=True)]
        return graph.slice(x, axes, offsets, ends)

    @classmethod
    def coordinates(cls, params: Mapping[str, Any]) -> Map:
        axis, offset = crop_of(params)
        return axis - 1, 1, -offset


@register("AutoCrop")
class AutoCrop(Crop):
    """Cuts bottom 0 to the height and width of bottom 1, where the coordinates of both agree.

    Bottoms: (N, C, H, W) and a smaller one that is made of the same blob. The net finds the place,
    as it does for Crop layers with caffe.set_crop_alignment (RCF's auto_crop_layer.cpp).
    """

    fork = "RCF"
    judge = "worked cases"
    differs = "Outside a net, where nothing says how the bottoms were made, it cuts at 0."

    @property
    def aligned(self) -> bool:
        return True

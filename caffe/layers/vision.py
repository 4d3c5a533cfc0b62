"""Layers that see an image as a grid: convolutions, Im2col, Crop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from caffe.layers.base import ENGINE, Layer, Shape, Tensors, register


class _Kernels(Layer):
    """Kernels over the spatial axes behind the channels, as ConvolutionParameter describes them."""

    reads = ("convolution_param",)

    def read_geometry(self, shape: Shape) -> None:
        p = self.layer_param.convolution_param
        self.channel_axis = self.axis(p.axis, shape)
        self.spatial = len(shape) - self.channel_axis - 1
        self.kernel = self._each_axis("kernel_size", p.kernel_size, None, "kernel_h", "kernel_w")
        self.stride = self._each_axis("stride", p.stride, 1, "stride_h", "stride_w")
        self.pad = self._each_axis("pad", p.pad, 0, "pad_h", "pad_w")
        self.dilation = self._each_axis("dilation", p.dilation, 1)
        for what in ("kernel", "stride", "dilation"):
            values = getattr(self, what)
            self.check(min(values, default=1) > 0, f"{what} dimensions must not be zero: {values}")
        self.channels = shape[self.channel_axis]

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

    def samples(self, x: torch.Tensor) -> torch.Tensor:
        """x with all axes before the channels as one."""
        self.check(
            x.dim() == self.channel_axis + 1 + self.spatial
            and x.shape[self.channel_axis] == self.channels,
            f"bottom has the shape {tuple(x.shape)}, expected {self.channels} channels on axis "
            f"{self.channel_axis} and {self.spatial} spatial axes",
        )
        lead = x.shape[: self.channel_axis]
        return x.reshape(math.prod(lead), *x.shape[self.channel_axis :])

    def filled(self, x: torch.Tensor) -> torch.Tensor:
        """x with zeros behind, where the kernel is larger than the padded image by less than a
        stride: Caffe's division rounds to zero, and so sees one position there.
        """
        edges = []
        for axis in reversed(range(self.spatial)):
            extent = self.dilation[axis] * (self.kernel[axis] - 1) + 1
            edges += [0, max(extent - x.shape[2 + axis] - 2 * self.pad[axis], 0)]
        return F.pad(x, edges) if any(edges) else x

    def positions(self, size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        """How many places the kernel has along one axis."""
        return int((size + 2 * pad - dilation * (kernel - 1) - 1) / stride) + 1

    def along_axes(self, x: torch.Tensor) -> Iterable[tuple[int, ...]]:
        """(size, kernel, stride, pad, dilation) of each spatial axis."""
        sizes = x.shape[self.channel_axis + 1 :]
        return zip(sizes, self.kernel, self.stride, self.pad, self.dilation, strict=True)

    def check_size(self, x: torch.Tensor, size: Sequence[int]) -> None:
        self.check(
            min(size, default=1) > 0,
            f"bottom {tuple(x.shape)} is too small for kernel {self.kernel} and pad {self.pad}",
        )


class _ConvolutionBase(_Kernels):
    """What Convolution and Deconvolution share: the parameters (base_conv_layer.cpp)."""

    bottoms = (1, None)
    tops = (1, None)
    one_top_each = True
    multiplies = True
    channels_last = True
    differs = f"{ENGINE} So is `force_nd_im2col`."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.convolution_param
        self.read_geometry(shapes[0])
        self.group = p.group
        self.geometry = Geometry(self.stride, self.pad, self.dilation, self.group)
        self.check(p.num_output > 0, "num_output must be positive")
        self.check(
            self.group > 0 and self.channels % self.group == 0 and p.num_output % self.group == 0,
            f"group {self.group} does not divide the {self.channels} input channels "
            f"and the {p.num_output} outputs",
        )
        self.add_blob(
            (*self.filter_shape(self.channels, p.num_output), *self.kernel), p.weight_filler
        )
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)

    def filter_shape(self, channels: int, num_output: int) -> Shape:
        return (num_output, channels // self.group)

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        tops = []
        for i, x in enumerate(bottom):
            self.check(
                x.shape == bottom[0].shape,
                f"bottom {i} has the shape {tuple(x.shape)}, bottom 0 {tuple(bottom[0].shape)}; "
                "they must be equal",
            )
            self.check_image(x)
            if x.is_meta:
                tops.append(x.new_empty(self.top_shape(x)))
                continue
            y = self.convolve(self.samples(x), blobs[0], blobs[1] if len(blobs) > 1 else None)
            tops.append(y.reshape(*x.shape[: self.channel_axis], *y.shape[1:]))
        return tops

    def check_image(self, x: torch.Tensor) -> None:
        """Raise CaffeError unless `x` has the axes and channels that the filters take."""
        self.samples(x)
        self.check_size(x, self.extents(x))

    def top_shape(self, x: torch.Tensor) -> Shape:
        outputs = self.layer_param.convolution_param.num_output
        return (*x.shape[: self.channel_axis], outputs, *self.extents(x))

    def extents(self, x: torch.Tensor) -> Shape:
        """The top's spatial axes."""
        return tuple(self.extent(*axis) for axis in self.along_axes(x))

    def extent(self, size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        """The top's size along one axis."""
        raise AssertionError("set by the subclass")

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        raise AssertionError("set by the subclass")


@register("Convolution")
class Convolution(_ConvolutionBase):
    """Convolution (cross-correlation) with groups, dilation, any number of spatial axes."""

    def extent(self, *axis: int) -> int:
        return self.positions(*axis)

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        return _convolve(self.filled(x), weight, bias, self.geometry)


@register("Deconvolution")
class Deconvolution(_ConvolutionBase):
    """Transposed convolution; the weight's first two axes are (inputs, outputs / group)."""

    def filter_shape(self, channels: int, num_output: int) -> Shape:
        return (channels, num_output // self.group)

    def extent(self, size: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
        return stride * (size - 1) + dilation * (kernel - 1) + 1 - 2 * pad

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        return _deconvolve(x, weight, bias, self.geometry)


_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_DECONV = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Geometry(NamedTuple):
    """How a kernel steps over the spatial axes."""

    stride: Sequence[int]
    pad: Sequence[int]
    dilation: Sequence[int]
    group: int

    @property
    def behind(self) -> Geometry:
        """The same without the first spatial axis."""
        return Geometry(self.stride[1:], self.pad[1:], self.dilation[1:], self.group)


def _convolve(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, g: Geometry
) -> torch.Tensor:
    """Convolution over any number of spatial axes; torch has it for one to three."""
    spatial = weight.dim() - 2
    if spatial in _CONV:
        return _CONV[spatial](x, weight, bias, g.stride, g.pad, g.dilation, g.group)
    if spatial == 0:
        point = Geometry((1,), (0,), (1,), g.group)
        return _convolve(x[..., None], weight[..., None], bias, point)[..., 0]
    # Sum over the first kernel axis, that axis of the image moved to the samples.
    stride, dilation = g.stride[0], g.dilation[0]
    x = F.pad(x, [0, 0] * (spatial - 1) + [g.pad[0], g.pad[0]])
    size = (x.shape[2] - dilation * (weight.shape[2] - 1) - 1) // stride + 1
    total: torch.Tensor | float = 0.0
    for k in range(weight.shape[2]):
        start = k * dilation
        rows = x[:, :, start : start + (size - 1) * stride + 1 : stride].transpose(1, 2)
        y = _convolve(rows.flatten(0, 1), weight[:, :, k], bias if k == 0 else None, g.behind)
        total = total + y.unflatten(0, (x.shape[0], size)).transpose(1, 2)
    return total


def _deconvolve(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, g: Geometry
) -> torch.Tensor:
    """The transpose of _convolve."""
    spatial = weight.dim() - 2
    if spatial in _DECONV:
        return _DECONV[spatial](x, weight, bias, g.stride, g.pad, 0, g.group, g.dilation)
    if spatial == 0:
        point = Geometry((1,), (0,), (1,), g.group)
        return _deconvolve(x[..., None], weight[..., None], bias, point)[..., 0]
    # Step k of the first kernel axis makes the row k dilation, and every stride-th from there.
    stride, dilation, count = g.stride[0], g.dilation[0], x.shape[2]
    size = stride * (count - 1) + dilation * (weight.shape[2] - 1) + 1
    rows = x.transpose(1, 2).flatten(0, 1)
    total: torch.Tensor | None = None
    for k in range(weight.shape[2]):
        y = _deconvolve(rows, weight[:, :, k], None, g.behind)
        y = y.unflatten(0, (x.shape[0], count)).transpose(1, 2)
        if total is None:
            total = y.new_zeros(*y.shape[:2], size, *y.shape[3:])
        places = torch.arange(count, device=x.device) * stride + k * dilation
        total = total.index_add(2, places, y)
    assert total is not None
    total = total.narrow(2, g.pad[0], size - 2 * g.pad[0])
    return total if bias is None else total + bias.view(-1, *[1] * spatial)


@register("Im2col")
class Im2col(_Kernels):
    """The patches that a convolution would see, along the channels: (N, C kernel, positions)."""

    differs = "`force_nd_im2col` and the fields of the filters are accepted and without effect."

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.read_geometry(shapes[0])
        self.check(self.spatial >= 1, f"bottom {shapes[0]} has no axis behind the channels")

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        lead = bottom[0].shape[: self.channel_axis]
        x = self.samples(bottom[0])
        self.check_size(bottom[0], [self.positions(*axis) for axis in self.along_axes(bottom[0])])
        x = F.pad(self.filled(x), [p for pad in reversed(self.pad) for p in (pad, pad)])
        for axis, dilation in enumerate(self.dilation):
            # A new last axis holds each window; of it every dilation-th place counts.
            extent = dilation * (self.kernel[axis] - 1) + 1
            x = x.unfold(2 + axis, extent, self.stride[axis])[..., ::dilation]
        behind = 2 + self.spatial
        x = x.permute(0, 1, *range(behind, x.dim()), *range(2, behind))
        return x.reshape(*lead, self.channels * math.prod(self.kernel), *x.shape[-self.spatial :])


@register("Crop")
class Crop(Layer):
    """Cuts bottom 0 to the size of bottom 1 on all axes from `axis` on, starting at `offset`."""

    bottoms = (2, 2)
    reads = ("crop_param",)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.crop_param
        x, shape, size = bottom[0], tuple(bottom[0].shape), tuple(bottom[1].shape)
        start = self.axis(p.axis, shape)
        axes = len(shape) - start
        offsets = list(p.offset)
        self.check(
            len(offsets) in (0, 1, axes),
            f"offset is given {len(offsets)} times, expected none, one, or one for each of {axes} "
            f"axes from axis {start} on",
        )
        self.check(
            len(size) >= len(shape),
            f"the size (bottom 1) has the shape {size}, expected {len(shape)} axes as bottom 0",
        )
        if len(offsets) < axes:
            offsets = (offsets or [0]) * axes
        for axis, offset in enumerate(offsets, start):
            self.check(
                offset + size[axis] <= shape[axis],
                f"axis {axis}: {size[axis]} from {offset} on exceed the {shape[axis]} of bottom 0",
            )
            x = x.narrow(axis, offset, size[axis])
        return x

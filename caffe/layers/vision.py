"""Layers that see an image as a grid: convolution, pooling, and Unpooling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.proto import caffe_pb2 as pb

LOWEST = torch.finfo(torch.float32).min


class _ConvolutionBase(Layer):
    """What Convolution and Deconvolution share: geometry and parameters (base_conv_layer.cpp)."""

    bottoms = (1, None)
    tops = (1, None)
    one_top_each = True

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.convolution_param
        self.channel_axis = self.axis(p.axis, shapes[0])
        self.spatial = len(shapes[0]) - self.channel_axis - 1
        self.kernel = self._geometry("kernel_size", p.kernel_size, p, "kernel_h", "kernel_w", None)
        self.stride = self._geometry("stride", p.stride, p, "stride_h", "stride_w", 1)
        self.pad = self._geometry("pad", p.pad, p, "pad_h", "pad_w", 0)
        self.dilation = self._geometry("dilation", p.dilation, p, None, None, 1)
        for what, values in (("kernel", self.kernel), ("stride", self.stride)):
            self.check(min(values, default=1) > 0, f"{what} dimensions must not be zero: {values}")
        channels, self.group = shapes[0][self.channel_axis], p.group
        self.check(p.num_output > 0, "num_output must be positive")
        self.check(
            self.group > 0 and channels % self.group == 0 and p.num_output % self.group == 0,
            f"group {self.group} does not divide the {channels} input channels "
            f"and the {p.num_output} outputs",
        )
        self.add_blob(self.weight_shape(channels, p.num_output), p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)
        self.channels = channels

    def weight_shape(self, channels: int, num_output: int) -> Shape:
        return (num_output, channels // self.group, *self.kernel)

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        weight, bias = blobs[0], blobs[1] if len(blobs) > 1 else None
        return [self._convolve_any(x, weight, bias) for x in bottom]

    def _convolve_any(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """All axes before the channels count as samples."""
        lead = x.shape[: self.channel_axis]
        self.check(
            x.dim() == self.channel_axis + 1 + self.spatial
            and x.shape[self.channel_axis] == self.channels,
            f"bottom has the shape {tuple(x.shape)}, expected {self.channels} channels on axis "
            f"{self.channel_axis} and {self.spatial} spatial axes",
        )
        y = self.convolve(x.reshape(math.prod(lead), *x.shape[self.channel_axis :]), weight, bias)
        self.check(
            min(y.shape[2:], default=1) > 0,
            f"bottom {tuple(x.shape)} is smaller than the kernel {self.kernel}",
        )
        return y.reshape(*lead, *y.shape[1:])

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        raise AssertionError("set by the subclass")

    def _geometry(
        self,
        name: str,
        values: Sequence[int],
        p: pb.ConvolutionParameter,
        name_h: str | None,
        name_w: str | None,
        default: int | None,
    ) -> tuple[int, ...]:
        """One number for each spatial axis, from `name` (once or for each) or name_h and name_w."""
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


@register("Convolution")
class Convolution(_ConvolutionBase):
    """Convolution (cross-correlation) with groups, dilation, any number of spatial axes."""

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        y = _convolve(x, weight, self.stride, self.pad, self.dilation, self.group)
        return y if bias is None else y + bias.view(-1, *[1] * self.spatial)


_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def _convolve(
    x: torch.Tensor,
    weight: torch.Tensor,
    stride: Sequence[int],
    pad: Sequence[int],
    dilation: Sequence[int],
    group: int,
) -> torch.Tensor:
    """Convolution over any number of spatial axes; torch has it for one to three."""
    spatial = weight.dim() - 2
    if spatial in _CONV:
        return _CONV[spatial](x, weight, None, stride, pad, dilation, group)
    if spatial == 0:
        return _convolve(x[..., None], weight[..., None], (1,), (0,), (1,), group)[..., 0]
    # Sum over the first kernel axis, that axis of the image moved to the samples.
    x = F.pad(x, [0, 0] * (spatial - 1) + [pad[0], pad[0]])
    size = (x.shape[2] - dilation[0] * (weight.shape[2] - 1) - 1) // stride[0] + 1
    total: torch.Tensor | None = None
    for k in range(weight.shape[2]):
        start = k * dilation[0]
        rows = x[:, :, start : start + (size - 1) * stride[0] + 1 : stride[0]].transpose(1, 2)
        y = _convolve(rows.flatten(0, 1), weight[:, :, k], stride[1:], pad[1:], dilation[1:], group)
        y = y.unflatten(0, (x.shape[0], size)).transpose(1, 2)
        total = y if total is None else total + y
    assert total is not None
    return total


@register("Deconvolution")
class Deconvolution(_ConvolutionBase):
    """Transposed convolution; the weight's first two axes are (inputs, outputs / group)."""

    def weight_shape(self, channels: int, num_output: int) -> Shape:
        self.check(1 <= self.spatial <= 3, f"has {self.spatial} spatial axes, expected 1 to 3")
        return (channels, num_output // self.group, *self.kernel)

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[self.spatial - 1]
        return function(x, weight, bias, self.stride, self.pad, 0, self.group, self.dilation)


@register("Pooling")
class Pooling(Layer):
    """MAX or AVE over windows; a second top of MAX is the mask: flat places in one plane."""

    tops = (1, 2)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.pooling_param
        self.check(len(shapes[0]) == 4, f"bottom must have 4 axes, got {shapes[0]}")
        self.method = p.pool
        self.is_global = p.global_pooling
        has_hw = p.HasField("kernel_h") and p.HasField("kernel_w")
        if self.is_global:
            given = p.HasField("kernel_size") or p.HasField("kernel_h") or p.HasField("kernel_w")
            self.check(not given, "global_pooling excludes a kernel size")
        else:
            self.check(
                p.HasField("kernel_size") != has_hw,
                "give either kernel_size, or kernel_h and kernel_w",
            )
        self.kernel = (p.kernel_h, p.kernel_w) if has_hw else (p.kernel_size,) * 2
        self.pad = self._pair("pad", p.pad)
        self.stride = self._pair("stride", p.stride)
        if self.is_global:
            self.check(
                self.pad == (0, 0) and self.stride == (1, 1),
                "global_pooling allows only pad 0 and stride 1",
            )
        else:
            self.check(min(self.kernel) > 0, f"kernel dimensions must not be zero: {self.kernel}")
            self.check(
                self.pad[0] < self.kernel[0] and self.pad[1] < self.kernel[1],
                f"pad {self.pad} must be smaller than the kernel {self.kernel}",
            )
        self.check(min(self.stride) > 0, f"stride must not be zero: {self.stride}")
        self.check(
            self.num_tops == 1 or self.method == pb.PoolingParameter.MAX,
            "only MAX pooling has a second top, the mask",
        )

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        x = bottom[0]
        kernel = tuple(x.shape[2:]) if self.is_global else self.kernel
        size = [
            self._pooled(n, k, i) for i, (n, k) in enumerate(zip(x.shape[2:], kernel, strict=True))
        ]
        self.check(
            min(size) > 0,
            f"bottom {tuple(x.shape)} is too small for kernel {kernel} and pad {self.pad}",
        )
        if self.method == pb.PoolingParameter.AVE:
            return self._average(x, kernel, size)
        y, mask = self._maximum(x, kernel, size)
        return (y, mask) if self.num_tops == 2 else y

    def _pooled(self, size: int, kernel: int, axis: int) -> int:
        """The number of windows along one axis (Caffe's Reshape)."""
        pad, stride = self.pad[axis], self.stride[axis]
        steps = (size + 2 * pad - kernel) / stride
        floor = self.layer_param.pooling_param.round_mode == pb.PoolingParameter.FLOOR
        pooled = (math.floor(steps) if floor else math.ceil(steps)) + 1
        # Only with padding is a last window dropped that would start beyond the image.
        if any(self.pad) and (pooled - 1) * stride >= size + pad:
            pooled -= 1
        return pooled

    def _padded(self, x: torch.Tensor, kernel: Sequence[int], size: Sequence[int], value: float):
        """x with its padding made explicit, just large enough for all windows."""
        edges: list[int] = []
        for axis in (1, 0):  # F.pad counts from the last axis
            need = (size[axis] - 1) * self.stride[axis] + kernel[axis]
            extra = need - x.shape[2 + axis] - self.pad[axis]
            edges += [self.pad[axis], max(extra, 0)]
        return F.pad(x, edges, value=value) if any(edges) else x

    def _maximum(
        self, x: torch.Tensor, kernel: Sequence[int], size: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        padded = self._padded(x, kernel, size, LOWEST)
        y, index = F.max_pool2d(padded, kernel, self.stride, return_indices=True)
        if not y.is_meta and y.isnan().any():  # torch lets NaN win; in Caffe it never does
            padded = torch.where(padded.isnan(), LOWEST, padded)
            y, index = F.max_pool2d(padded, kernel, self.stride, return_indices=True)
        y, index = y[:, :, : size[0], : size[1]], index[:, :, : size[0], : size[1]]
        if padded is not x:
            width = padded.shape[3]
            rows, columns = index // width - self.pad[0], index % width - self.pad[1]
            index = rows * x.shape[3] + columns
        return y, index.to(x.dtype)

    def _average(self, x: torch.Tensor, kernel: Sequence[int], size: Sequence[int]) -> torch.Tensor:
        padded = self._padded(x, kernel, size, 0.0)
        total = F.avg_pool2d(padded, kernel, self.stride, divisor_override=1)
        total = total[:, :, : size[0], : size[1]]
        # The window is clipped to the padded image: padding counts, overhang does not.
        lengths = []
        for axis in (0, 1):
            start = torch.arange(size[axis]) * self.stride[axis] - self.pad[axis]
            end = (start + kernel[axis]).clamp(max=x.shape[2 + axis] + self.pad[axis])
            lengths.append((end - start).to(x.device, x.dtype))
        return total / torch.outer(*lengths)

    def _pair(self, name: str, value: int) -> tuple[int, int]:
        p = self.layer_param.pooling_param
        has_h, has_w = p.HasField(f"{name}_h"), p.HasField(f"{name}_w")
        self.check(
            has_h == has_w and not (has_h and p.HasField(name)),
            f"give either {name}, or {name}_h and {name}_w",
        )
        return (getattr(p, f"{name}_h"), getattr(p, f"{name}_w")) if has_h else (value, value)


def _last_writer(out: torch.Tensor, planes: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Scatter in which the last value written to a place stays, found by a maximum."""
    order = torch.arange(planes.shape[2], device=out.device).expand_as(planes)
    last = torch.full(out.shape, -1, dtype=torch.int64, device=out.device)
    last.scatter_reduce_(2, planes, order, "amax")
    return torch.where(last >= 0, values.gather(2, last.clamp(min=0)), torch.zeros_like(out))


class _Unpool(torch.autograd.Function):
    """Scatter by mask; where places repeat the last value stays, and every one reads it back."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, place: torch.Tensor, height: int, width: int):
        ctx.save_for_backward(place)
        n, c = x.shape[:2]
        planes, values = place.flatten(2), x.flatten(2)
        if x.is_meta:
            return x.new_empty(n, c, height, width)
        out = x.new_zeros(n, c, height * width).scatter_(2, planes, values)
        # torch leaves the winner undefined where places repeat; reading back shows if any do.
        if not torch.equal(out.gather(2, planes), values):
            out = _last_writer(out, planes, values)
        return out.view(n, c, height, width)

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        (place,) = ctx.saved_tensors
        return grad.flatten(2).gather(2, place.flatten(2)).view(place.shape), None, None, None


@register("Unpooling")
class Unpooling(Layer):
    """FuseNet's unpooling: values (bottom 0) go to the places of a pooling mask (bottom 1).

    The plane is output_h x output_w, else the bottom's height and width times `scale`.
    Source: the FuseNet authors' fork of Caffe (Hazirbas et al., ACCV 2016).
    """

    bottoms = (2, 2)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.unpooling_param
        self.size = (p.output_h, p.output_w)
        self.scale = 0
        if p.HasField("output_h") and p.HasField("output_w"):
            self.check(min(self.size) > 0, f"output_h, output_w must be positive: {self.size}")
        elif p.HasField("scale"):
            self.scale = p.scale
            self.check(self.scale > 0, "scale must be positive")
        else:
            self.check(False, "unpooling_param needs output_h and output_w, or scale")

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        x, mask = bottom
        self.check(
            x.dim() == 4 and x.shape == mask.shape,
            f"the mask's shape {tuple(mask.shape)} must be the bottom's, {tuple(x.shape)}, "
            "with 4 axes",
        )
        height, width = self.size
        if self.scale:
            height, width = x.shape[2] * self.scale, x.shape[3] * self.scale
        place = mask.detach().long()
        if not x.is_meta and place.numel():
            low, high = (int(v) for v in torch.aminmax(place))
            self.check(
                low >= 0 and high < height * width,
                f"mask value {high if low >= 0 else low} is outside the plane of "
                f"{height} x {width}; output_h, output_w or scale do not fit the pooling layer",
            )
        return _Unpool.apply(x, place, height, width)

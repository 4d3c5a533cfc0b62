"""Layers that pool windows of an image, or undo it: Pooling, SPP, and Unpooling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from caffe.layers.base import ENGINE, Layer, Shape, Tensors, can_look, register
from caffe.proto import caffe_pb2 as pb

LOWEST = torch.finfo(torch.float32).min
Pair = tuple[int, int]


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
        count = self.count(x.shape[2:])
        edges: list[int] = []
        for axis in (1, 0):  # F.pad counts from the last axis
            need = (count[axis] - 1) * self.stride[axis] + self.kernel[axis]
            edges += [self.pad[axis], max(need - x.shape[2 + axis] - self.pad[axis], 0)]
        return F.pad(x, edges, value=value) if any(edges) else x

    def maximum(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The first of the largest values, and its place in the plane; -1 where there is none."""
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
            index = torch.where(y > lowest, index, -1)
        return y, index.to(x.dtype)

    def average(self, x: torch.Tensor) -> torch.Tensor:
        """The mean of each window, clipped to the padded image: padding counts, overhang not."""
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
        """In TRAIN a value of each window drawn by its share of the sum (Zeiler and Fergus, 2013);
        in TEST the mean weighted by these shares. For values that are not negative.
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

    def pool(self, x: torch.Tensor, windows: Windows, method: int) -> torch.Tensor | Tensors:
        methods = pb.PoolingParameter
        self.check(
            min(windows.count(x.shape[2:])) > 0,
            f"bottom {tuple(x.shape)} is too small for kernel {windows.kernel} and pad "
            f"{windows.pad}",
        )
        padded = method == methods.STOCHASTIC and any(windows.pad)
        self.check(not padded, "padding is for MAX and AVE only")
        if x.is_meta:
            return (x.new_empty(*x.shape[:2], *windows.count(x.shape[2:])),) * 2
        if method == methods.AVE:
            return windows.average(x)
        if method == methods.STOCHASTIC:
            return windows.stochastic(x, self.phase == pb.TRAIN)
        return windows.maximum(x)

    def check_image(self, shape: Shape) -> None:
        self.check(
            len(shape) == 4,
            f"bottom has the shape {shape}, expected 4 axes: samples, channels, height, width",
        )


def _first(tops: torch.Tensor | Tensors) -> torch.Tensor:
    return tops if isinstance(tops, torch.Tensor) else tops[0]


@register("Pooling")
class Pooling(_PoolingLayer):
    """Maximum, average or random choice over windows; MAX has a second top, the places chosen.

    The mask's places are flat indices into one channel's plane, as Unpooling takes them.
    """

    tops = (1, 2)
    reads = ("pooling_param",)
    differs = (
        "STOCHASTIC also runs on the CPU, and has a gradient in TEST. A MAX window off the image, "
        "or of NaN alone, passes no gradient; Caffe writes it to stray memory. "
        f"On a GPU, as with cuDNN, and in nets that run by a plan a NaN wins in MAX. {ENGINE}"
    )

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
        self.pad, self.stride = self._pair("pad", p.pad), self._pair("stride", p.stride)
        self._check_geometry()
        self.check(
            self.num_tops == 1 or p.pool == pb.PoolingParameter.MAX,
            "only MAX pooling has a second top, the mask",
        )

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

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        p, x = self.layer_param.pooling_param, bottom[0]
        self.check_image(tuple(x.shape))
        kernel = tuple(x.shape[2:]) if p.global_pooling else self.kernel
        floor = p.round_mode == pb.PoolingParameter.FLOOR
        pooled = self.pool(x, Windows(kernel, self.stride, self.pad, floor), p.pool)
        return pooled if self.num_tops == 2 else _first(pooled)


@register("SPP")
class SPP(_PoolingLayer):
    """Spatial pyramid pooling: 1, 4, 16, ... windows over the image, joined (He et al., 2014)."""

    reads = ("spp_param",)
    differs = f"STOCHASTIC also runs on the CPU, and knows the phase. {ENGINE}"

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p, x = self.layer_param.spp_param, bottom[0]
        self.check_image(tuple(x.shape))
        self.check(min(x.shape[2:]) > 0, f"bottom {tuple(x.shape)} is empty")
        self.check(p.pyramid_height > 0, "pyramid_height must be positive")
        levels = [self._level(x, k) for k in range(p.pyramid_height)]
        # As in Caffe, a pyramid of one level keeps the form of Pooling.
        return levels[0] if len(levels) == 1 else torch.cat([y.flatten(1) for y in levels], 1)

    def _level(self, x: torch.Tensor, level: int) -> torch.Tensor:
        bins = 2**level
        height, width = ((-(-n // bins), (-n % bins + 1) // 2) for n in x.shape[2:])
        kernel, pad = tuple(zip(height, width, strict=True))
        self.check(
            pad[0] < kernel[0] and pad[1] < kernel[1],
            f"bottom {tuple(x.shape)} is too small for level {level} of the pyramid, "
            f"{bins} x {bins} windows",
        )
        return _first(self.pool(x, Windows(kernel, kernel, pad), self.layer_param.spp_param.pool))


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
        if can_look(x) and not torch.equal(out.gather(2, planes), values):
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
    reads = ("unpooling_param",)
    differs = "FuseNet's, not BVLC's. Its size follows the bottom's; the fork's is fixed at set-up."

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
        self.check_range(
            place,
            height * width,
            "mask value",
            f", the plane of {height} x {width}; output_h, output_w or scale do not fit the "
            "pooling layer",
        )
        return _Unpool.apply(x, place, height, width)

"""Convolutions whose kernels look at places that another bottom moves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.kernels.regions import as_rows, between, blend, corners
from caffe.layers.base import ENGINE, Layer, Shape, Tensors, register


@register("DeformableConvolution")
class DeformableConvolution(Layer):
    """A convolution of images whose kernel's places are moved.

    Bottoms: images (N, C, H, W); moves (N, 2 K G, H', W'), down and right for each of the K places
    of the kernel, in pixels, for each of G = deformable_group groups of channels. Top: (N,
    num_output, H', W'). Values between pixels are blended; places outside the image give 0 (Dai et
    al., 2017; the sampling of unsky/FPN's deformable_im2col.cu).
    """

    fork = "unsky/FPN"
    judge = "worked cases"
    bottoms = (2, 2)
    in_place = False
    reads = ("deformable_convolution_param",)
    differs = (
        "unsky/FPN's layer multiplies the images' memory, and what lies behind it, in place of the "
        f"values at the moved places; here these count. {ENGINE} So is `force_nd_im2col`."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.deformable_convolution_param
        self.kernel = self._pair("kernel_size", p.kernel_size, 0, "kernel")
        self.stride = self._pair("stride", p.stride, 1, "stride")
        self.pad = self._pair("pad", p.pad, 0, "pad")
        self.dilation = self._pair("dilation", p.dilation, 1, "")
        for name in ("kernel", "stride", "dilation"):
            self.check(min(getattr(self, name)) > 0, f"{name} dimensions must not be zero")
        images = shapes[0]
        self.check(
            len(images) == 4 and math.prod(images[1:]) > 0 and p.axis in (1, -3),
            f"images (bottom 0) have the shape {images}, expected (N, C, H, W), channels on axis 1",
        )
        self.channels, self.groups = images[1], p.deformable_group
        for name, count in (("group", p.group), ("deformable_group", self.groups)):
            self.check(
                count > 0 and self.channels % count == 0,
                f"{name} {count} does not divide the {self.channels} channels",
            )
        self.check(
            p.num_output > 0 and p.num_output % p.group == 0,
            f"num_output {p.num_output} must be positive and a multiple of group {p.group}",
        )
        self.add_blob((p.num_output, self.channels // p.group, *self.kernel), p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)

    def _pair(self, name: str, values: Sequence[int], default: int, short: str) -> tuple[int, int]:
        """Height and width, from `name` (once or twice) or from its _h and _w."""
        p = self.layer_param.deformable_convolution_param
        if short and (p.HasField(f"{short}_h") or p.HasField(f"{short}_w")):
            self.check(not values, f"give either {name} or {short}_h and {short}_w, not both")
            return getattr(p, f"{short}_h"), getattr(p, f"{short}_w")
        self.check(len(values) <= 2, f"{name} is given {len(values)} times, expected 1 or 2")
        return (values[0], values[-1]) if values else (default, default)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        images, moves = shapes
        self.check(
            len(images) == 4 and images[1] == self.channels and math.prod(images[1:]) > 0,
            f"images (bottom 0) have the shape {images}, expected (N, {self.channels}, H, W)",
        )
        axes = zip(images[2:], self.kernel, self.stride, self.pad, self.dilation, strict=True)
        size = [(n + 2 * pad - dilation * (k - 1) - 1) // s + 1 for n, k, s, pad, dilation in axes]
        self.check(min(size) > 0, f"images {images} are too small for kernel {self.kernel}")
        expected = (images[0], 2 * math.prod(self.kernel) * self.groups, *size)
        self.check(
            moves == expected, f"moves (bottom 1) have the shape {moves}, expected {expected}"
        )
        return [(images[0], self.layer_param.deformable_convolution_param.num_output, *size)]

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The values at all places of the kernel."""
        [(count, _, high, wide)] = self.infer_shapes(shapes)
        return count * self.channels * math.prod(self.kernel) * high * wide

    def macs(self, shapes: Sequence[Shape]) -> int:
        [(count, _, high, wide)] = self.infer_shapes(shapes)
        return count * high * wide * math.prod(self.blobs[0].shape)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        [shape] = self.top_shapes(bottom)
        group = self.layer_param.deformable_convolution_param.group
        count, outputs, high, wide = shape
        values = self._moved(*bottom)  # (N, C, K, H' W')
        taps = self.channels // group * math.prod(self.kernel)
        values = values.reshape(count, group, taps, high * wide)
        weight = blobs[0].reshape(group, outputs // group, -1)
        top = torch.matmul(weight, values).reshape(shape)
        return top + blobs[1].view(-1, 1, 1) if len(blobs) > 1 else top

    def _moved(self, images: torch.Tensor, moves: torch.Tensor) -> torch.Tensor:
        """The images' values at the moved places: (N, C, K, H' W')."""
        count, _, high, wide = images.shape
        parts = images.reshape(count * self.groups, self.channels // self.groups, high, wide)
        moves = moves.reshape(len(parts), math.prod(self.kernel), 2, *moves.shape[2:])
        y, x = self._grid(moves[:, :, 0]), self._grid(moves[:, :, 1], 1)
        inside = (y >= 0) & (x >= 0) & (y < high) & (x < wide)
        shape = (len(parts), y.shape[1], y.shape[2] * y.shape[3])
        # Each point is a grid of one row and one column.
        at = [between(v.reshape(-1, 1), extent) for v, extent in ((y, high), (x, wide))]
        rows, columns, weights = (v.view(*shape, 4) for v in corners(*at))
        image = torch.arange(len(parts), device=y.device).view(-1, 1, 1, 1)
        weights = torch.where(inside.reshape(*shape, 1), weights, 0.0)
        found = blend(as_rows(parts), (image * high + rows) * wide + columns, weights)
        return found.reshape(count, self.channels, *shape[1:])

    def _grid(self, moves: torch.Tensor, axis: int = 0) -> torch.Tensor:
        """Moved places (N G, K, H', W') along the height, or along the width."""
        steps = torch.arange(moves.shape[2 + axis], device=moves.device) * self.stride[axis]
        kernel = torch.arange(self.kernel[axis], device=moves.device) * self.dilation[axis]
        other = self.kernel[1 - axis]
        taps = kernel.repeat_interleave(other) if axis == 0 else kernel.repeat(other)
        steps = steps[:, None] if axis == 0 else steps
        return moves + (taps.view(-1, 1, 1) + steps - self.pad[axis])

"""Layers that shift and scale: by statistics (BatchNorm, MVN, LRN), or by blobs (Scale, Bias)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.kernels.sync_bn import sync_batch_norm
from caffe.layers.base import ENGINE, Layer, Shape, Tensors, register, with_gradient_of
from caffe.process import ranks
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb


@register("BatchNorm")
class BatchNorm(Layer):
    """Normalisation per channel (axis 1), without gain and bias: those are Scale's.

    Blobs: sums of means and of variances, and the factor that both are to be divided by
    (batch_norm_layer.cpp). The running variance is unbiased, m / (m - 1); the batch's is not.
    """

    gathers = True
    reads = ("batch_norm_param",)
    differs = "Also takes a bottom of one axis, as one channel."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.batch_norm_param
        self.fraction, self.eps = p.moving_average_fraction, p.eps
        self.channels = shapes[0][1] if len(shapes[0]) > 1 else 1
        for shape in ((self.channels,), (self.channels,), (1,)):
            self.add_blob(shape, pb.FillerParameter())
        self._fix_learning_rates()

    @property
    def use_global(self) -> bool:
        """Whether the statistics that were gathered serve, and not the batch's."""
        p = self.layer_param.batch_norm_param
        given = p.HasField("use_global_stats")
        return p.use_global_stats if given else self.phase == pb.TEST

    def _fix_learning_rates(self) -> None:
        """The statistics are no parameters: the solver must leave them alone."""
        specs = self.layer_param.param
        for i in range(3):
            if i == len(specs):
                specs.add(lr_mult=0)
            self.check(
                specs[i].lr_mult == 0,
                f"its blobs are statistics and cannot learn: set lr_mult 0 (param {i} has "
                f"{specs[i].lr_mult:g})",
            )

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        x = bottom[0]
        flat = x.dim() == 1
        x = x[:, None] if flat else x
        self.check(
            x.shape[1] == self.channels,
            f"bottom has {x.shape[1]} channels on axis 1, expected {self.channels}",
        )
        if x.is_meta:
            return bottom[0]
        y = self._by_global(x, blobs) if self.use_global else self._by_batch(x, blobs)
        return y[:, 0] if flat else y

    def _by_global(self, x: torch.Tensor, blobs: Tensors) -> torch.Tensor:
        mean, variance, factor = (b.detach() for b in blobs)
        # A factor of 0 means that nothing was gathered yet.
        scale = torch.where(factor == 0, torch.zeros_like(factor), 1 / factor)
        return torch.batch_norm(
            x, None, None, mean * scale, variance * scale, False, 0.0, self.eps, True
        )

    @property
    def synchronous(self) -> bool:
        """Whether the batches of all processes count as one; tests run on one process alone."""
        return ranks.sync_bn() and self.phase == pb.TRAIN

    def _by_batch(self, x: torch.Tensor, blobs: Tensors) -> torch.Tensor:
        mean, variance = x.new_zeros(self.channels), x.new_zeros(self.channels)
        if self.synchronous:
            y, mean, variance = sync_batch_norm(x, eps=self.eps)
        elif x.numel() == self.channels:  # one value a channel: torch has no unbiased variance
            y, mean = x - x, x.detach().reshape(self.channels)
        else:  # momentum 1: torch leaves this batch's mean and unbiased variance in these two
            y = torch.batch_norm(x, None, None, mean, variance, True, 1.0, self.eps, True)
        with torch.no_grad():
            for blob, new in zip(blobs, (mean, variance, torch.ones_like(blobs[2])), strict=True):
                blob.mul_(self.fraction).add_(new)
        return y


@register("MVN")
class MVN(Layer):
    """Each sample's channel (or whole sample) to a mean of 0 and, on demand, a variance of 1.

    The top has 4 axes. eps is added to the standard deviation (mvn_layer.cpp).
    """

    reads = ("mvn_param",)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p, x = self.layer_param.mvn_param, bottom[0]
        self.check(x.dim() <= 4, f"bottom has the shape {tuple(x.shape)}, expected at most 4 axes")
        x = x.reshape(*x.shape, *[1] * (4 - x.dim()))
        axes = (1, 2, 3) if p.across_channels else (2, 3)
        centred = x - x.mean(axes, keepdim=True)
        if not p.normalize_variance:
            return centred
        deviation = centred.detach().square().mean(axes, keepdim=True).sqrt() + p.eps
        y = centred / deviation
        # Caffe's gradient, (g - mean g - y mean(g y)) / deviation, does not mind where eps stands,
        # and so is finite where all values are equal. With respect to y it is that of:
        half = y.square().mean(axes, keepdim=True) / 2
        return with_gradient_of(y, y * (1 - half + half.detach()))


@register("LRN")
class LRN(Layer):
    """x / (k + alpha s)^beta, s the mean of squares over local_size neighbouring channels, or over
    a local_size x local_size window of the own channel, where k is always 1 (Krizhevsky, 2012).
    """

    reads = ("lrn_param",)
    differs = ENGINE

    def setup(self, shapes: Sequence[Shape]) -> None:
        size = self.layer_param.lrn_param.local_size
        self.check(size % 2 == 1, f"local_size is {size}, expected an odd number")

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p, x = self.layer_param.lrn_param, bottom[0]
        self.check(
            x.dim() == 4,
            f"bottom has the shape {tuple(x.shape)}, expected 4 axes: samples, channels, height, "
            "width",
        )
        size, pad = p.local_size, p.local_size // 2
        if p.norm_region == pb.LRNParameter.WITHIN_CHANNEL:
            return x * (1 + p.alpha * F.avg_pool2d(x.square(), size, 1, pad)).pow(-p.beta)
        n, c, h, w = x.shape
        planes = x.square().reshape(n, 1, c, h * w)  # channels as rows
        squares = F.avg_pool2d(planes, (size, 1), 1, (pad, 0)).reshape(x.shape)
        return x * (p.k + p.alpha * squares).pow(-p.beta)


class _Broadcast(Layer):
    """A blob, learned or the second bottom, that is broadcast over the first from an axis on."""

    bottoms = (1, 2)

    def make_blob(self, shape: Shape, axis: int, num_axes: int, filler: pb.FillerParameter) -> None:
        start = self.axis(axis, shape)
        self.check(num_axes >= -1, f"num_axes is {num_axes}, expected at least -1")
        self.check(
            num_axes == -1 or start + num_axes <= len(shape),
            f"axis {start} and num_axes {num_axes} reach beyond the bottom's shape {shape}",
        )
        self.add_blob(shape[start:] if num_axes == -1 else shape[start : start + num_axes], filler)

    def spread(self, values: torch.Tensor, x: torch.Tensor, axis: int) -> torch.Tensor:
        """`values` with axes of one around, so that they broadcast over x."""
        start = 0 if values.dim() == 0 else self.axis(axis, tuple(x.shape))
        end = start + values.dim()
        self.check(
            tuple(x.shape[start:end]) == tuple(values.shape),
            f"shape {tuple(values.shape)} does not fit the bottom's {tuple(x.shape)} "
            f"from axis {start} on",
        )
        return values.view(*values.shape, *[1] * (x.dim() - end))


@register("Scale")
class Scale(_Broadcast):
    """bottom * scale (+ bias); scale is learned, or the second bottom."""

    reads = ("scale_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.scale_param
        learned = len(shapes) == 1
        if learned:
            unit = pb.FillerParameter(type="constant", value=1)
            filler = p.filler if p.HasField("filler") else unit
            self.make_blob(shapes[0], p.axis, p.num_axes, filler)
        if p.bias_term:
            emit("layer_factory.hpp:77", f"Creating layer {self.name}")  # Caffe's inner Bias
            num_axes = p.num_axes if learned else len(shapes[1])
            self.make_blob(shapes[0], p.axis, num_axes, p.bias_filler)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.scale_param
        x = bottom[0]
        scale = bottom[1] if len(bottom) == 2 else blobs[0]
        gain = self.spread(scale, x, p.axis)
        bias = self.spread(blobs[-1], x, p.axis) if p.bias_term else None
        if x.is_meta:
            return x
        return x * gain if bias is None else x * gain + bias


@register("Bias")
class Bias(_Broadcast):
    """bottom + bias; the bias is learned, or the second bottom."""

    reads = ("bias_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.bias_param
        if len(shapes) == 1:
            self.make_blob(shapes[0], p.axis, p.num_axes, p.filler)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        x = bottom[0]
        bias = bottom[1] if len(bottom) == 2 else blobs[0]
        return x + self.spread(bias, x, self.layer_param.bias_param.axis)

"""Layers that work on each value by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.layers.base import ENGINE, Layer, Shape, Tensors, register
from caffe.proto import caffe_pb2 as pb

IN_PLACE = "In place, too, it has its derivative; Caffe takes it at the values written over."


class _Unchecked(Layer):
    """A layer that takes any shape, and keeps it."""

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [tuple(shapes[0])]


@register("ReLU")
class ReLU(_Unchecked):
    """max(x, 0) + negative_slope min(x, 0)."""

    reads = ("relu_param",)
    differs = ENGINE

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        slope = self.layer_param.relu_param.negative_slope
        return F.leaky_relu(bottom[0], slope) if slope else F.relu(bottom[0])


@register("PReLU")
class PReLU(Layer):
    """max(x, 0) + slope min(x, 0), with a learned slope for each channel (axis 1) or for all."""

    reads = ("prelu_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.prelu_param
        self._check_axes(shapes[0])
        quarter = pb.FillerParameter(type="constant", value=0.25)
        filler = p.filler if p.HasField("filler") else quarter
        self.add_blob(() if p.channel_shared else shapes[0][1:2], filler)

    def _check_axes(self, shape: Shape) -> None:
        self.check(len(shape) >= 2, f"bottom has the shape {shape}, expected at least 2 axes")

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        x, slope = bottom[0], blobs[0]
        self._check_axes(tuple(x.shape))
        if slope.dim():
            self.check(
                x.shape[1] == slope.shape[0],
                f"bottom has {x.shape[1]} channels on axis 1, expected {slope.shape[0]}",
            )
        return F.prelu(x, slope)


@register("ELU")
class ELU(_Unchecked):
    """x where it is positive, else alpha (e^x - 1) (Clevert et al., 2015)."""

    reads = ("elu_param",)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return F.elu(bottom[0], self.layer_param.elu_param.alpha)


@register("Sigmoid")
class Sigmoid(_Unchecked):
    """1 / (1 + e^-x)."""

    reads = ("sigmoid_param",)
    differs = ENGINE

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return bottom[0].sigmoid()


@register("TanH")
class TanH(_Unchecked):
    """The hyperbolic tangent."""

    reads = ("tanh_param",)
    differs = ENGINE

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return bottom[0].tanh()


@register("Swish")
class Swish(_Unchecked):
    """x sigmoid(beta x) (Ramachandran et al., 2017)."""

    reads = ("swish_param",)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        x = bottom[0]
        return x * (x * self.layer_param.swish_param.beta).sigmoid()


@register("BNLL")
class BNLL(_Unchecked):
    """log(1 + e^x), the binomial normal log likelihood."""

    differs = IN_PLACE

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return F.softplus(bottom[0], threshold=50)


@register("AbsVal")
class AbsVal(_Unchecked):
    """|x|."""

    in_place = False

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return bottom[0].abs()


@register("Clip")
class Clip(_Unchecked):
    """x limited to [min, max]."""

    reads = ("clip_param",)
    differs = IN_PLACE

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.clip_param
        # One after the other: if min exceeds max, min is what comes out.
        return bottom[0].clamp(max=p.max).clamp(min=p.min)


@register("Threshold")
class Threshold(_Unchecked):
    """1 where x exceeds the threshold, else 0. It has no gradient."""

    reads = ("threshold_param",)
    labels = (0,)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        x = bottom[0]
        return (x > self.layer_param.threshold_param.threshold).to(x.dtype)


@register("Dropout")
class Dropout(Layer):
    """In TRAIN: zero a share of the values and scale the rest by 1 / (1 - ratio)."""

    reads = ("dropout_param",)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        ratio = self.layer_param.dropout_param.dropout_ratio
        self.check(0 <= ratio < 1, f"dropout_ratio is {ratio:g}, expected 0 <= ratio < 1")
        x = bottom[0]
        if x.is_meta:
            return x
        if self.phase == pb.TRAIN and x.device.type == "cpu" and (256 * ratio).is_integer():
            return x * _byte_mask(x, ratio)
        return F.dropout(x, ratio, training=self.phase == pb.TRAIN)


def _byte_mask(x: torch.Tensor, ratio: float) -> torch.Tensor:
    """0 for a share `ratio` of the values, else 1 / (1 - ratio); a random byte each, an eighth of
    the draws that PyTorch's own mask takes. Exact for multiples of 1/256.
    """
    draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.uint8)[: x.numel()] >= round(256 * ratio)
    mask = keep.to(x.dtype).mul_(1 / (1 - ratio))
    dense = x.is_contiguous(memory_format=torch.channels_last) if x.dim() == 4 else False
    return mask.as_strided(x.shape, x.stride()) if dense else mask.view(x.shape)


@register("Power")
class Power(_Unchecked):
    """(shift + scale x) ^ power."""

    reads = ("power_param",)
    differs = IN_PLACE

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.power_param
        if p.power * p.scale == 0:  # constant, with a gradient of zero, whatever x holds
            return bottom[0].new_full(bottom[0].shape, self._constant())
        y = bottom[0] * p.scale + p.shift
        return y if p.power == 1 else y.pow(p.power)

    def _constant(self) -> float:
        p = self.layer_param.power_param
        try:
            return math.pow(p.shift, p.power)
        except (ValueError, ZeroDivisionError):  # a root of a negative number, or 1 / 0
            return math.inf if p.shift == 0 else math.nan


class _Logarithmic(Layer):
    """What Exp and Log share: a base, of which -1 stands for e."""

    def log_base(self, base: float) -> float:
        self.check(base == -1 or base > 0, f"base is {base:g}, expected a positive number, or -1")
        return 1.0 if base == -1 else math.log(base)


@register("Exp")
class Exp(_Logarithmic):
    """base ^ (shift + scale x)."""

    reads = ("exp_param",)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.exp_param
        log_base = self.log_base(p.base)
        return (bottom[0] * (log_base * p.scale) + log_base * p.shift).exp()


@register("Log")
class Log(_Logarithmic):
    """log_base(shift + scale x)."""

    reads = ("log_param",)
    differs = IN_PLACE

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.log_param
        log_base = self.log_base(p.base)
        self.check(log_base != 0, "base is 1, of which there are no logarithms")
        return (bottom[0] * p.scale + p.shift).log() / log_base

"""Layers that work on each value by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import ENGINE, Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.coordinates import IDENTITY, Map
from caffe.layers.look import ACTIVATION, Look
from caffe.proto import caffe_pb2 as pb

IN_PLACE = "In place, too, the gradient is the derivative; Caffe's is taken at the values written."


class _Elementwise(Layer):
    """A layer that takes a bottom of any shape and keeps it."""

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [tuple(shapes[0])]

    @classmethod
    def coordinates(cls, params: Mapping[str, Any]) -> Map:
        return IDENTITY


@register("ReLU")
class ReLU(_Elementwise):
    """max(x, 0) + negative_slope min(x, 0)."""

    reads = ("relu_param",)
    differs = (
        "Without a slope, minus infinity gives 0, as with cuDNN; Caffe's own code gives NaN. "
        f"Where the bottom is NaN the gradient passes. {ENGINE}"
    )
    concurrent = True
    look = ACTIVATION

    @property
    def bounded(self) -> bool:
        return abs(self.layer_param.relu_param.negative_slope) <= 1

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        slope = self.layer_param.relu_param.negative_slope
        return F.leaky_relu(bottom[0], slope) if slope else F.relu(bottom[0])

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        slope = self.layer_param.relu_param.negative_slope
        (x,) = bottoms
        return graph.add("LeakyRelu", x, alpha=slope) if slope else graph.add("Relu", x)


@register("ReLU6")
class ReLU6(_Elementwise):
    """min(6, max(x, 0) + negative_slope min(x, 0)) (Howard et al., 2017; relu6_layer.cpp)."""

    fork = "MobileNet-YOLO, chuanqi305/ssd"
    judge = "recorded"
    reads = ("relu6_param",)
    differs = f"Where the bottom is NaN the gradient passes. {ENGINE}"
    look = ACTIVATION

    @property
    def bounded(self) -> bool:
        return abs(self.layer_param.relu6_param.negative_slope) <= 1

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return _clipped(bottom[0], self.layer_param.relu6_param.negative_slope)

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        slope = self.layer_param.relu6_param.negative_slope
        if not slope:
            return graph.add("Clip", *bottoms, graph.constant(0), graph.constant(6))
        return graph.add("Min", graph.add("LeakyRelu", *bottoms, alpha=slope), graph.constant(6))


def _clipped(x: torch.Tensor, slope: float) -> torch.Tensor:
    """ReLU6; hardtanh's gradient is zero at both ends, as the fork's is."""
    if not slope:
        return F.relu6(x)
    y = F.leaky_relu(x, slope)
    return torch.where(y < 6, y, y.new_tensor(6.0))


@register("PReLU")
class PReLU(_Elementwise):
    """max(x, 0) + slope min(x, 0), with a learned slope for each channel (axis 1) or for all
    (He et al., 2015).
    """

    reads = ("prelu_param",)
    look = ACTIVATION

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.prelu_param
        quarter = pb.FillerParameter(type="constant", value=0.25)
        filler = p.filler if p.HasField("filler") else quarter
        self.add_blob(() if p.channel_shared else shapes[0][1:2], filler)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = tuple(shapes[0])
        self.check(len(shape) >= 2, f"bottom has the shape {shape}, expected at least 2 axes")
        slopes = self.blobs[0].shape
        self.check(
            not slopes or slopes == (shape[1],),
            f"bottom has {shape[1]} channels on axis 1, expected {math.prod(slopes)}",
        )
        return [shape]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        return F.prelu(bottom[0], blobs[0])

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        slope = self.array(0).reshape(-1, *[1] * (len(x.shape) - 2))
        return graph.add("PRelu", x, graph.constant(slope, name=f"{self.name}.0"))


@register("ELU")
class ELU(_Elementwise):
    """x where it is positive, else alpha (e^x - 1) (Clevert et al., 2015), times `lambda`.

    Where x is negative, NVCaffe's gradient is lambda (alpha + top), which is not the derivative
    unless lambda is 1.
    """

    reads = ("elu_param",)
    takes = ("elu_param.lambda",)
    look = ACTIVATION

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.elu_param
        factor, x = getattr(p, "lambda"), bottom[0]
        y = F.elu(x, p.alpha)
        if factor == 1:
            return y
        top = factor * y.detach()
        return with_gradient_of(top, factor * torch.where(x > 0, x, (p.alpha + top) * x))

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p = self.layer_param.elu_param
        return graph.affine(graph.add("Elu", *bottoms, alpha=p.alpha), getattr(p, "lambda"), 0)


@register("Sigmoid")
class Sigmoid(_Elementwise):
    """1 / (1 + e^-x)."""

    reads = ("sigmoid_param",)
    differs = ENGINE
    look = ACTIVATION

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return bottom[0].sigmoid()

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.add("Sigmoid", *bottoms)


@register("TanH")
class TanH(_Elementwise):
    """The hyperbolic tangent."""

    reads = ("tanh_param",)
    differs = ENGINE
    look = ACTIVATION

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return bottom[0].tanh()

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.tanh(bottoms[0])


@register("Swish")
class Swish(_Elementwise):
    """x sigmoid(beta x) (Ramachandran et al., 2017)."""

    reads = ("swish_param",)
    look = ACTIVATION

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        x = bottom[0]
        return x * (x * self.layer_param.swish_param.beta).sigmoid()

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        scaled = graph.affine(x, self.layer_param.swish_param.beta, 0)
        return graph.add("Mul", x, graph.add("Sigmoid", scaled))


@register("BNLL")
class BNLL(_Elementwise):
    """log(1 + e^x), the binomial normal log likelihood."""

    differs = IN_PLACE
    look = ACTIVATION

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return F.softplus(bottom[0], threshold=50)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.softplus(bottoms[0])


@register("AbsVal")
class AbsVal(_Elementwise):
    """|x|."""

    in_place = False

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return bottom[0].abs()

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.add("Abs", *bottoms)


@register("Clip")
class Clip(_Elementwise):
    """x limited to [min, max]."""

    reads = ("clip_param",)
    differs = f"NaN stays NaN; Caffe makes it min, on a GPU max. {IN_PLACE}"
    look = ACTIVATION

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.clip_param
        # Two steps, because clamp(min, max) gives max if min exceeds it, where Caffe gives min.
        return bottom[0].clamp(max=p.max).clamp(min=p.min)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p = self.layer_param.clip_param
        limited = graph.add("Min", *bottoms, graph.constant(p.max))
        return graph.add("Max", limited, graph.constant(p.min))


@register("Threshold")
class Threshold(_Elementwise):
    """1 where x exceeds the threshold, else 0. It has no gradient."""

    reads = ("threshold_param",)
    labels = (0,)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        x = bottom[0]
        return (x > self.layer_param.threshold_param.threshold).to(x.dtype)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        limit = graph.constant(self.layer_param.threshold_param.threshold)
        return graph.to_float(graph.add("Greater", *bottoms, limit))


@register("Dropout")
class Dropout(_Elementwise):
    """In TRAIN: zeros a share dropout_ratio of the values and scales the rest by 1 / (1 - ratio)
    (Srivastava et al., 2014). In TEST: the bottom.

    Forks add three choices. With `scale_train: false` (Fast R-CNN, R-FCN) TRAIN does not scale, but
    TEST scales by 1 - ratio. With `sample_weights_test` (Bayesian SegNet) TEST draws as TRAIN does.
    With `sqrt_scale` (caffe-windows) TRAIN scales by the root.
    """

    reads = ("dropout_param",)
    takes = (
        *("dropout_param.scale_train", "dropout_param.sample_weights_test"),
        "dropout_param.sqrt_scale",
    )
    look = Look(stripe="dropout")

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.dropout_param
        self.ratio = p.dropout_ratio
        self.check(0 <= self.ratio < 1, f"dropout_ratio is {self.ratio:g}, expected 0 <= ratio < 1")

    @property
    def draws(self) -> bool:
        """Whether values are dropped; a module's train() and eval() change the phase."""
        p = self.layer_param.dropout_param
        return self.phase == pb.TRAIN or p.sample_weights_test

    @property
    def gain(self) -> float:
        """What the values are multiplied by that stay; in TEST, what all of them are."""
        p = self.layer_param.dropout_param
        if not p.scale_train:
            return 1.0 if self.draws else 1 - self.ratio
        gain = 1 / (1 - self.ratio) if self.draws else 1.0
        return math.sqrt(gain) if p.sqrt_scale else gain

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        x, ratio, gain = bottom[0], self.ratio, self.gain
        if not self.draws:
            return F.dropout(x, training=False) if gain == 1 else x * gain
        # Traced, the draws of bytes would be a call that torch.export writes with a keyword of
        # Python's as a name: random_.from.
        traced = torch.compiler.is_compiling()
        if x.device.type == "cpu" and (256 * ratio).is_integer() and not traced:
            return x * _byte_mask(x, ratio, gain)
        y, usual = F.dropout(x, ratio), 1 / (1 - ratio)
        return y if gain == usual else y * (gain / usual)

    def copies(self) -> bool:
        return not self.draws and self.gain == 1

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        self.check(
            not self.draws, "sample_weights_test draws at random, for which there is no ONNX form"
        )
        return graph.affine(bottoms[0], self.gain, 0)


def _byte_mask(x: torch.Tensor, ratio: float, gain: float) -> torch.Tensor:
    """A mask like x: 0 for a share `ratio` of the values, else `gain`.

    ratio is a multiple of 1/256, because each value takes one random byte. That is an eighth of
    the draws that PyTorch's own mask takes.
    """
    draws = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    keep = draws.view(torch.uint8)[: x.numel()] >= round(256 * ratio)
    mask = keep.to(x.dtype).mul_(gain)
    dense = x.is_contiguous(memory_format=torch.channels_last) if x.dim() == 4 else False
    return mask.as_strided(x.shape, x.stride()) if dense else mask.view(x.shape)


@register("Power")
class Power(_Elementwise):
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
        with np.errstate(all="ignore"):  # roots of negative numbers, 1 / 0, too large for float32
            return float(np.float32(np.float64(p.shift) ** p.power))

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p = self.layer_param.power_param
        y = graph.affine(bottoms[0], p.scale, p.shift)
        return y if p.power == 1 else graph.add("Pow", y, graph.constant(p.power))


class _Logarithmic(_Elementwise):
    """Exp and Log have a base; -1 stands for e."""

    log_base: float

    def set_base(self, base: float) -> None:
        """Read the base. Raises CaffeError unless it has a logarithm."""
        self.check(base == -1 or base > 0, f"base is {base:g}, expected a positive number, or -1")
        self.log_base = 1.0 if base == -1 else math.log(base)


@register("Exp")
class Exp(_Logarithmic):
    """base ^ (shift + scale x)."""

    reads = ("exp_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.set_base(self.layer_param.exp_param.base)

    def _exponent(self) -> tuple[float, float]:
        """The scale and shift that x has as an exponent of e."""
        p = self.layer_param.exp_param
        return self.log_base * p.scale, self.log_base * p.shift

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        scale, shift = self._exponent()
        return (bottom[0] * scale + shift).exp()

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.add("Exp", graph.affine(bottoms[0], *self._exponent()))


@register("Log")
class Log(_Logarithmic):
    """log_base(shift + scale x)."""

    reads = ("log_param",)
    differs = IN_PLACE

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.set_base(self.layer_param.log_param.base)
        self.check(self.log_base != 0, "base is 1, of which there are no logarithms")

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.log_param
        return (bottom[0] * p.scale + p.shift).log() / self.log_base

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p = self.layer_param.log_param
        logarithm = graph.add("Log", graph.affine(bottoms[0], p.scale, p.shift))
        return graph.affine(logarithm, 1 / self.log_base, 0)

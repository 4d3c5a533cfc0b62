"""Forks' layers that work on each value by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.activation import _Elementwise
from caffe.layers.base import Shape, Tensors, register, with_gradient_of
from caffe.layers.look import ACTIVATION, Look
from caffe.proto import caffe_pb2 as pb


@register("SeLu")
class SeLu(_Elementwise):
    """lambda x where x is positive, else lambda alpha (e^x - 1), with lambda 1.0507 and alpha
    1.6733 (Klambauer et al., 2017; soeaver's selu_layer.cpp).
    """

    fork = "caffe-model"
    judge = "worked cases"
    look = ACTIVATION

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return F.selu(bottom[0])

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.add("Selu", *bottoms)


@register("SeLuDropout")
class SeLuDropout(_Elementwise):
    """In TRAIN: sets a share dropout_ratio of the values to what SeLu gives for minus infinity, and
    scales and shifts all so that mean and variance stay. In TEST: the bottom (Klambauer et al.,
    2017; soeaver's selu_dropout_layer.cpp).
    """

    fork = "caffe-model"
    judge = "worked cases"
    reads = ("selu_dropout_param",)
    look = Look(stripe="dropout")

    def setup(self, shapes: Sequence[Shape]) -> None:
        ratio = self.layer_param.selu_dropout_param.dropout_ratio
        self.check(0 <= ratio < 1, f"dropout_ratio is {ratio:g}, expected 0 <= ratio < 1")

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p, x = self.layer_param.selu_dropout_param, bottom[0]
        if self.phase == pb.TEST:
            return x.clone()
        keep = 1 - p.dropout_ratio
        scale = (keep * (1 + p.alpha**2 * p.dropout_ratio)) ** -0.5
        kept = torch.rand_like(x) >= p.dropout_ratio
        return scale * torch.where(kept, x, p.alpha) - scale * p.dropout_ratio * p.alpha

    def copies(self) -> bool:
        return self.phase == pb.TEST

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return bottoms[0].name


@register("SoftTruncation")
class SoftTruncation(_Elementwise):
    """1 - e^(-x / c) (caffe-windows' soft_truncation_layer.cpp)."""

    fork = "caffe-windows"
    judge = "recorded"
    reads = ("soft_truncation_param",)
    look = ACTIVATION

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.check(self.layer_param.soft_truncation_param.c != 0, "c must not be 0")

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return 1 - (bottom[0] / -self.layer_param.soft_truncation_param.c).exp()

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        c = self.layer_param.soft_truncation_param.c
        return graph.affine(graph.add("Exp", graph.affine(bottoms[0], -1 / c, 0)), -1, 1)


@register("Truncation")
class Truncation(_Elementwise):
    """x limited to [lower_bound, upper_bound] (caffe-windows' truncation_layer.cpp)."""

    fork = "caffe-windows"
    judge = "recorded"
    reads = ("truncation_param",)
    differs = "NaN stays NaN."
    look = ACTIVATION

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.truncation_param
        self.check(
            p.lower_bound <= p.upper_bound,
            f"lower_bound is {p.lower_bound:g}, expected at most upper_bound, {p.upper_bound:g}",
        )

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.truncation_param
        return F.hardtanh(bottom[0], p.lower_bound, p.upper_bound)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p = self.layer_param.truncation_param
        limited = graph.add("Min", *bottoms, graph.constant(p.upper_bound))
        return graph.add("Max", limited, graph.constant(p.lower_bound))


class _Sparse(torch.autograd.Function):
    """The values; their gradient grows by coef in their direction, and passes where they are not 0
    (everywhere with `open`).
    """

    @staticmethod
    def forward(ctx, y: torch.Tensor, coef: float, is_open: bool) -> torch.Tensor:
        ctx.save_for_backward(y)
        ctx.coef, ctx.open = coef, is_open
        return y.clone()

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        (y,) = ctx.saved_tensors
        grad = grad + ctx.coef * y.sign()
        return grad if ctx.open else torch.where(y != 0, grad, 0), None, None


@register("Sparsify")
class Sparsify(_Elementwise):
    """sign(x) max(|x| - thre, 0); the gradient has that of coef |y|, whatever the loss (Wen et al.,
    2016; SkimCaffe's sparsify_layer.cpp).
    """

    fork = "SkimCaffe, wenwei202/caffe"
    judge = "recorded"
    reads = ("sparsify_param",)
    differs = "The gradient is not the derivative, but that of a penalty as well; it is the fork's."
    look = ACTIVATION

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.sparsify_param
        self.check(
            0 <= p.thre < math.inf and p.coef >= 0,
            f"thre is {p.thre:g} and coef {p.coef:g}, expected numbers that are not negative",
        )

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.sparsify_param
        y = F.softshrink(bottom[0].detach(), p.thre) if p.thre else bottom[0].detach()
        return with_gradient_of(
            y, _Sparse.apply(bottom[0] - bottom[0].detach() + y, p.coef, not p.thre)
        )

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        limit = self.layer_param.sparsify_param.thre
        if not limit:
            return bottoms[0].name
        return graph.add("Shrink", bottoms[0], lambd=limit, bias=limit)


@register("Noise")
class Noise(_Elementwise):
    """In TRAIN: adds random numbers around `bias`. In TEST: the bottom.

    With gaussian_std they are normal, with this share of the bottom's root mean square as their
    deviation; with uniform_range they lie within this of `bias` (caffe-windows' noise_layer.cpp).
    """

    fork = "caffe-windows"
    judge = "worked cases"
    reads = ("noise_param",)
    takes = ("noise_param.gaussian_std", "noise_param.uniform_range", "noise_param.bias")
    differs = "Without gaussian_std and uniform_range it adds nothing; the fork adds stray memory."

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p, x = self.layer_param.noise_param, bottom[0]
        if self.phase == pb.TEST or not (p.HasField("gaussian_std") or p.HasField("uniform_range")):
            return x.clone()
        if p.HasField("gaussian_std"):
            size = x.detach().square().mean().sqrt()
            return x + torch.randn_like(x) * size * p.gaussian_std + p.bias
        return x + (2 * torch.rand_like(x) - 1) * p.uniform_range + p.bias

    def copies(self) -> bool:
        return self.phase == pb.TEST

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return bottoms[0].name


@register("ScaleFilter")
class ScaleFilter(_Elementwise):
    """In TRAIN: multiplies each channel of each sample by a random number of min_scale to
    max_scale. In TEST: the bottom.

    Bottom and top: (N, C, H, W) (OpenCV's training toolbox, scale_filter_layer.cpp).
    """

    fork = "OpenCV training toolbox"
    judge = "worked cases"
    reads = ("scale_filter_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.scale_filter_param
        self.check(
            0 < p.min_scale < p.max_scale < math.inf,
            f"min_scale is {p.min_scale:g} and max_scale {p.max_scale:g}, expected 0 < min_scale < "
            "max_scale",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = tuple(shapes[0])
        self.check(len(shape) == 4, f"bottom has the shape {shape}, expected 4 axes")
        return [shape]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, x = self.layer_param.scale_filter_param, bottom[0]
        if self.phase == pb.TEST:
            return x.clone()
        factors = torch.empty(*x.shape[:2], 1, 1, device=x.device, dtype=x.dtype)
        return x * factors.uniform_(p.min_scale, p.max_scale)

    def copies(self) -> bool:
        return self.phase == pb.TEST

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return bottoms[0].name


@register("Quantize")
class Quantize(_Elementwise):
    """The class of a skeleton's scale: 1 from 1 on, 2 from 12, 3 from 36, 4 from 80, and 0 below 1
    and from 200 on. It has no gradient (Shen et al., 2017; DeepSkeleton's quantize_layer.cpp).
    """

    fork = "zeakey/DeepSkeleton"
    judge = "recorded"
    labels = (0,)
    differs = "NaN gives 0; the fork ends the program."

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        x = bottom[0].detach()
        steps = sum((x >= least).to(x.dtype) for least in (1, 12, 36, 80))
        return torch.where(x < 200, steps, 0)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        total = ""
        for least in (1, 12, 36, 80):
            step = graph.to_float(graph.add("GreaterOrEqual", x, graph.constant(least)))
            total = graph.add("Add", total, step) if total else step
        return graph.add("Mul", total, graph.to_float(graph.add("Less", x, graph.constant(200))))


@register("Rescale")
class Rescale(_Elementwise):
    """2 x / rf - 1 where x is below rf and not 0, else 0; a second top is 1 there, else 0. It has
    no gradient (Shen et al., 2017; DeepSkeleton's rescale_layer.cpp).
    """

    fork = "zeakey/DeepSkeleton"
    judge = "recorded"
    tops = (1, 2)
    labels = (0,)
    in_place = False
    reads = ("rescale_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.check(self.layer_param.rescale_param.rf > 0, "rf must be positive")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [tuple(shapes[0])] * self.num_tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        x, rf = bottom[0].detach(), self.layer_param.rescale_param.rf
        inside = ~((x >= rf) | (x.abs() <= 1e-4))
        return [torch.where(inside, 2 * x / rf - 1, 0), inside.to(x.dtype)][: self.num_tops]


@register("Mish")
class Mish(_Elementwise):
    """x tanh(log(1 + e^x)) (Misra, 2019), as darknet2caffe writes it for YOLOv4's nets."""

    fork = "darknet2caffe"
    judge = "worked cases"
    look = ACTIVATION

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return F.mish(bottom[0])

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.add("Mul", bottoms[0], graph.tanh(graph.softplus(bottoms[0])))


@register("BReLU")
class BReLU(_Elementwise):
    """The bottom, brought to at least minval and at most maxval (Cai et al., 2016)."""

    fork = "DehazeNet, chaimi2013/FPCNet"
    judge = "worked cases"
    reads = ("brelu_param",)
    look = ACTIVATION

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.brelu_param
        self.check(
            p.minval <= p.maxval,
            f"minval is {p.minval:g}, expected at most maxval, {p.maxval:g}",
        )

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.brelu_param
        return bottom[0].clamp(p.minval, p.maxval)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p = self.layer_param.brelu_param
        return graph.add("Clip", *bottoms, graph.constant(p.minval), graph.constant(p.maxval))


@register("GuidedDropout")
class GuidedDropout(_Elementwise):
    """Drops the channels that do not help a domain.

    Bottoms: values (N, C, ...); guidance (N, C), which is positive where a channel helps. Top: the
    values' shape. `deterministic` (the default) keeps the channels above guidance_threshold in both
    phases and scales by C / their count; if there are none, all is 0. `stochastic` keeps each with
    the probability sigmoid(sigmoid_scaler guidance) in TRAIN and scales by C / the sum of these; in
    TEST it gives the values (Xiao et al., 2016; guided_dropout_layer.cpp).
    """

    fork = "Cysu/dgd_person_reid"
    judge = "recorded"
    bottoms = (2, 2)
    labels = (1,)
    reads = ("guided_dropout_param",)
    differs = "The gradient is that of the fork's CPU code; its GPU code scales images wrongly."
    look = Look(stripe="dropout")

    def setup(self, shapes: Sequence[Shape]) -> None:
        kind = self.layer_param.guided_dropout_param.type
        self.check(
            kind in ("deterministic", "stochastic"),
            f"type is {kind!r}, expected 'deterministic' or 'stochastic'",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        values, guidance = shapes
        self.check(
            len(values) >= 2 and guidance[:2] == values[:2] and math.prod(guidance[2:]) == 1,
            f"bottoms of shapes {values} and {guidance}, expected (N, C, ...) and (N, C)",
        )
        return [values]

    def copies(self) -> bool:
        return False

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, x, guidance = self.layer_param.guided_dropout_param, bottom[0], bottom[1].detach()
        if p.type == "stochastic" and self.phase == pb.TEST:
            return x.clone()
        guidance = guidance.reshape(x.shape[:2])
        if p.type == "stochastic":
            chance = torch.sigmoid(guidance * p.sigmoid_scaler)
            kept = (torch.rand_like(chance) <= chance).to(x)
        else:
            kept = chance = (guidance > p.guidance_threshold).to(x)
        whole = chance.sum(1, keepdim=True)
        factors = kept * torch.where(whole > 0, x.shape[1] / whole, torch.ones_like(whole))
        return x * factors.reshape(*x.shape[:2], *[1] * (x.dim() - 2))

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p, (x, guidance) = self.layer_param.guided_dropout_param, bottoms
        if p.type == "stochastic":
            return x.name
        shape = (*x.shape[:2], *[1] * (len(x.shape) - 2))
        level = graph.constant(p.guidance_threshold)
        kept = graph.to_float(graph.add("Greater", graph.reshape(guidance, shape), level))
        count = graph.add("ReduceSum", kept, graph.constant([1], "int64"), keepdims=1)
        scale = graph.add(
            "Div", graph.constant(x.shape[1]), graph.add("Max", count, graph.constant(1))
        )
        return graph.add("Mul", x, graph.add("Mul", kept, scale))

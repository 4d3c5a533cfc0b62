"""Losses that forks made for special ends."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.layers.base import ENGINE, Shape, Tensors, register, with_gradient_of
from caffe.layers.loss import (
    LOG_FLT_MIN,
    NO_WEIGHTS,
    _Loss,
    _PerPosition,
    loss_settings,
    normalizer,
    rows,
)
from caffe.proto import caffe_pb2 as pb


class _Pairs(_Loss):
    """A loss of two bottoms with equally many values a sample, of which both have a gradient."""

    judge = "recorded"
    labels = ()

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        tops = super().infer_shapes(shapes)
        a, b = shapes[:2]
        self.check(
            math.prod(a[1:]) == math.prod(b[1:]),
            f"bottoms of shapes {a} and {b} must have equally many values a sample",
        )
        return tops


@register("FocalLoss")
class FocalLoss(_Loss, _PerPosition):
    """Softmax, then the mean of -alpha (1 - p)^gamma log p, with p the label's probability.

    Bottoms: scores (N, ...), with the classes on softmax_param.axis; labels, one for each other
    position. Tops: the loss; perhaps the probabilities in the scores' shape. alpha is 0.25 unless
    given. With `type` it is caffe-windows' loss: -(alpha - p)^gamma log p, ONEADDP:
    -(alpha + p)^gamma log p, where alpha is 1 unless given (Lin et al., 2017;
    focal_loss_layer.cpp).
    """

    fork = "BOBrown/JADF-caffe, caffe-windows"
    judge = "recorded"
    tops = (1, 2)
    reads = ("focal_loss_param", "loss_param", "softmax_param")
    takes = tuple(
        f"focal_loss_param.{name}" for name in ("type", "gamma", "alpha", "engine", "axis")
    )
    differs = (
        "A label out of range is an error. `beta` is without effect, as in caffe-windows. "
        f"{ENGINE} {NO_WEIGHTS}"
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.focal_loss_param
        self.mode, self.ignore = loss_settings(self.layer_param.loss_param, pb.LossParameter.VALID)
        self.check(p.gamma >= 0, f"gamma is {p.gamma:g}, expected at least 0")
        self.check(p.alpha > 0, f"alpha is {p.alpha:g}, expected more than 0")

    def class_axis(self, scores: Shape) -> int:
        p = self.layer_param
        own = p.focal_loss_param.HasField("axis")
        return self.axis((p.focal_loss_param if own else p.softmax_param).axis, scores)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        super().infer_shapes(shapes)
        self.count_classes(shapes)
        return [(), shapes[0]][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.top_shapes(bottom)
        scores, labels = self.split_axes(bottom)
        valid, labels = self.valid_labels(labels, scores.shape[1], self.ignore)
        logs = scores.log_softmax(1)
        log = logs.gather(1, labels[:, None])[:, 0]
        share, limited = log.detach().exp(), log.detach().clamp(min=LOG_FLT_MIN)
        weight, growth = self._weight(share, limited)
        # The gradient by the scores is growth (p_k - [k = label]).
        each = with_gradient_of(-weight * limited, -growth * log)
        if valid is not None:
            each = torch.where(valid, each, torch.zeros_like(each))
        loss = each.sum() / normalizer(self.mode, *labels.shape, valid)
        probabilities = logs.detach().exp().reshape(bottom[0].shape)
        return [loss, probabilities][: self.num_tops]

    def _weight(self, p: torch.Tensor, log: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The factors of -log p in the loss and in its gradient by log p."""
        f = self.layer_param.focal_loss_param
        if f.HasField("type"):
            side = 1 if f.type == pb.FocalLossParameter.ONEADDP else -1
            weight = (f.alpha + side * p) ** f.gamma
            less = f.gamma * weight / (1 + side * p).clamp(min=1e-10)
            return weight, weight + side * less * log * p
        alpha = f.alpha if f.HasField("alpha") else 0.25
        weight = alpha * (1 - p) ** f.gamma
        less = alpha * f.gamma * (1 - p) ** (f.gamma - 1) if f.gamma else 0
        return weight, weight - less * log * p


class _HalfwayLoss(_Loss):
    """How far values are from a half; both bottoms get bottom 0's gradient."""

    fork = "kevinlin311tw/Caffe-DeepBinaryCode"
    judge = "recorded"
    labels = ()
    sign = 1

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        first, second = (tuple(shape) for shape in shapes)
        self.check(
            first == second and len(first) > 0,
            f"bottoms of shapes {first} and {second} must be equal",
        )
        return super().infer_shapes(shapes)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        x, other = bottom
        gap, count = x.detach() - 0.5, max(1, x.numel())
        loss = self.sign * gap.square().sum() / (2 * count)
        return with_gradient_of(loss, self.sign * (gap * (x + other)).sum() / count)


@register("K1_EuclideanLoss")
class K1EuclideanLoss(_HalfwayLoss):
    """Minus half the mean of (x - 0.5)^2, which drives values to 0 and 1.

    Bottoms: two of one shape, of which the second has no effect and gets the first one's gradient,
    too (Lin et al., 2016; K1_euclidean_loss_layer.cpp).
    """

    sign = -1


@register("K2_EuclideanLoss")
class K2EuclideanLoss(_HalfwayLoss):
    """Half the mean of (x - 0.5)^2, which drives means of values to a half.

    Bottoms: two of one shape, of which the second has no effect and gets the first one's gradient,
    too (Lin et al., 2016; K2_euclidean_loss_layer.cpp).
    """


@register("DiceCoefLoss")
class DiceCoefLoss(_Pairs):
    """1 minus the mean over the samples of (2 a b + smooth) / (a a + b b + smooth), products summed
    over a sample.

    Bottoms: two of (N, ...), with equally many values a sample. The gradient is not divided by N
    (Milletari et al., 2016; dice_coef_loss_layer.cpp of ZhiwenShao/JAANet).
    """

    fork = "SURFZJY/EAST-caffe, ZhiwenShao/JAANet"
    reads = ("dice_coef_loss_param",)
    differs = "The gradient is the forks', N times the derivative."

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        smooth = self.layer_param.dice_coef_loss_param.smooth
        a, b = (rows(x) for x in bottom)
        below = a.square().sum(1) + b.square().sum(1) + smooth
        share = (2 * (a * b).sum(1) + smooth) / below
        return with_gradient_of(1 - share.abs().sum() / max(1, a.shape[0]), -share.sum())


@register("WeightEuclideanLoss")
class WeightEuclideanLoss(_Pairs):
    """Half the mean over the samples of the weighted squares of what 68 landmarks miss.

    Bottoms: predictions and truths (N, 136), the 68 x before the 68 y; perhaps factors (N, 136).
    Points 1 to 17 weigh contour_weight, the rest main_weight, and 13 points at corners of eyes,
    brows, nose and mouth coarse_weight; a weight of 0 does not set any. With `normalized` a sample
    is divided by the distance of the eyes, or with normalized_type: 1 by the diagonal of the box
    around its points (goodluckcwl's weight_euclidean_loss_layer.cpp).
    """

    fork = "goodluckcwl/Face-alignment-mobilenet-v2"
    judge = "worked cases"
    bottoms = (2, 3)
    reads = ("weight_euclidean_loss_param",)
    labels = (2,)
    differs = "The gradient leaves the factors out, as in the fork."

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        tops = super().infer_shapes(shapes)
        for i, shape in enumerate(shapes):
            self.check(
                tuple(shape[:1]) == tuple(shapes[0][:1]) and math.prod(shape[1:]) == 136,
                f"bottom {i} has the shape {tuple(shape)}, expected 136 values a sample, the x and "
                "y of 68 landmarks",
            )
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        a, b = (rows(x) for x in bottom[:2])
        weights = self._weights().to(a) * self._scale(b.detach())
        gap, samples = a - b, max(1, a.shape[0])
        loss = gap * gap.detach() * weights
        factors = rows(bottom[2]).detach() if len(bottom) > 2 else 1
        return with_gradient_of((loss * factors).sum() / (2 * samples), loss.sum() / samples)

    def _weights(self) -> torch.Tensor:
        """The weights of the 136 values."""
        p = self.layer_param.weight_euclidean_loss_param
        weights = torch.zeros(68)
        weights[:17], weights[17:] = p.contour_weight, p.main_weight
        if p.coarse_weight:
            corners = [18, 22, 23, 27, 37, 40, 43, 46, 28, 32, 36, 49, 55]
            weights[[n - 1 for n in corners]] = p.coarse_weight
        return weights.repeat(2)

    def _scale(self, truths: torch.Tensor) -> torch.Tensor:
        """What a sample's squares are multiplied with, (N, 1)."""
        p = self.layer_param.weight_euclidean_loss_param
        if not p.normalized:
            return torch.ones_like(truths[:, :1])
        points = truths.reshape(-1, 2, 68)
        if p.normalized_type == 0:  # the fork takes x of the outer and y of the inner corner
            gap = torch.stack(
                [points[:, 0, 36] - points[:, 0, 42], points[:, 1, 39] - points[:, 1, 45]], 1
            )
        else:
            gap = points.amax(2).clamp(min=0) - points.amin(2).clamp(max=1)
        tiny = torch.finfo(torch.float32).tiny
        return 1 / gap.square().sum(1, keepdim=True).sqrt().clamp(min=tiny)


@register("MMDLoss")
class MMDLoss(_Loss):
    """The maximum mean discrepancy of two samples under kernel_num Gaussian kernels, estimated with
    as many random quadruples as the larger sample has vectors, and summed over these.

    Bottoms: source (N, ...) and target (M, ...), with equally many values a vector. The kernels'
    widths are kernel_mul apart, around the mean squared distance of all vectors; with fix_gamma
    that of the first batch. The gradient is divided by the number of quadruples (Long et al., 2015;
    transfer-caffe's mmd_layer.cu).
    """

    fork = "transfer-caffe"
    judge = "worked cases"
    labels = ()
    reads = ("mmd_param",)
    differs = (
        "The gradient is that of the quadruples drawn for the loss, over their number; the fork "
        "draws others for it."
    )
    _gamma: torch.Tensor | None = None

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.mmd_param
        self.check(1 <= p.kernel_num <= 64, f"kernel_num is {p.kernel_num}, expected 1 to 64")
        self.check(p.kernel_mul > 0, f"kernel_mul is {p.kernel_mul:g}, expected more than 0")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        a, b = (tuple(shape) for shape in shapes)
        self.check(
            len(a) > 0 and len(b) > 0 and math.prod(a[1:]) == math.prod(b[1:]),
            f"bottoms of shapes {a} and {b} must have equally many values a vector",
        )
        self.check(
            a[0] > 1 and b[0] > 1,
            f"bottoms have {a[0]} and {b[0]} vectors, expected two or more each",
        )
        return [()]

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The distances of all vectors."""
        return (shapes[0][0] + shapes[1][0]) ** 2

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        source, target = (rows(x) for x in bottom)
        gamma = self._width(torch.cat([source, target]).detach())
        draws = max(len(source), len(target))
        s1, s2 = (source[i] for i in _pairs(len(source), draws, source.device))
        t1, t2 = (target[i] for i in _pairs(len(target), draws, target.device))
        terms = self._kernel(s1, s2, gamma) + self._kernel(t1, t2, gamma)
        terms = terms - self._kernel(s1, t2, gamma) - self._kernel(s2, t1, gamma)
        return with_gradient_of(terms.sum(), terms.sum() / draws)

    def _kernel(self, a: torch.Tensor, b: torch.Tensor, gamma: torch.Tensor) -> torch.Tensor:
        """The sum of the kernels for each pair of rows."""
        p = self.layer_param.mmd_param
        first = -(p.kernel_num // 2)
        squared = (a - b).square().sum(1)
        exponents = range(first, first + p.kernel_num)
        return sum((-gamma * p.kernel_mul**i * squared).exp() for i in exponents)

    def _width(self, x: torch.Tensor) -> torch.Tensor:
        """One over the mean squared distance of different vectors."""
        fixed = self.layer_param.mmd_param.fix_gamma
        if fixed and self._gamma is not None:
            return self._gamma.to(x)
        total = torch.cdist(x, x).square().sum()
        gamma = len(x) * (len(x) - 1) / total
        if fixed and not x.is_meta:
            self._gamma = gamma
        return gamma

    def reset(self) -> None:
        self._gamma = None


def _pairs(count: int, draws: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pairs of different numbers below `count`; equal ones drawn become neighbours."""
    first = torch.randint(count, (draws,), device=device)
    second = torch.randint(count, (draws,), device=device)
    return first, torch.where(first == second, (second + 1) % count, second)

"""Losses of detectors that classify and move regions, and the choice of hard regions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.look import OUTPUT
from caffe.layers.loss import SoftmaxWithLoss, loss_settings, normalizer
from caffe.proto import caffe_pb2 as pb


def four(shape: Shape) -> Shape:
    """A shape of at most four axes with axes of 1 behind, as Caffe's old accessors see it."""
    return (*shape, *(1,) * (4 - len(shape)))


def smooth_l1(x: torch.Tensor, squared: float = 1) -> torch.Tensor:
    """s x^2 / 2 where |x| < 1 / s, elsewhere |x| - 1 / (2 s); s is sigma squared."""
    size = x.abs()
    return torch.where(size < 1 / squared, 0.5 * squared * x * x, size - 0.5 / squared)


class _SmoothL1(Layer):
    """Bottoms: predictions and targets (N, ...), which both have a gradient; perhaps weights like
    them, without one. Tops: the loss; the losses of each sample and position, (N, 1, H, W), without
    a gradient.
    """

    judge = "recorded"
    tops = (1, 2)
    auto_tops = True
    loss = True
    in_place = False
    look = OUTPUT
    squared = 1.0  # sigma squared
    by_param = True  # the divisor follows loss_param

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.mode, _ = loss_settings(self.layer_param.loss_param, pb.LossParameter.VALID)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        first = shapes[0]
        self.check(
            1 <= len(first) <= 4 and math.prod(first) > 0,
            f"predictions (bottom 0) have the shape {first}, expected (N, ...), at most 4 axes",
        )
        for i, shape in enumerate(shapes[1:], 1):
            self.check(
                len(shape) <= 4 and four(shape) == four(first),
                f"bottom {i} has the shape {shape}, expected the predictions' {first}",
            )
        count, _, *plane = four(first)
        return [(), (count, 1, *plane)][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.top_shapes(bottom)
        shape = four(tuple(bottom[0].shape))
        a, b, *weights = (x.reshape(shape) for x in bottom)
        weights = [w.detach() for w in weights]
        difference = a - b
        scaled = difference * weights[0] if weights else difference
        each = smooth_l1(scaled, self.squared)
        if len(weights) == 2:
            each = each * weights[1]
        elif weights:
            slope = torch.where(
                scaled.abs() < 1 / self.squared, self.squared * scaled, scaled.sign()
            )
            each = with_gradient_of(each, difference * slope.detach())
        loss = each.sum() / self._divisor(shape)
        return (loss, each.detach().sum(1, keepdim=True)) if self.num_tops == 2 else loss

    def _divisor(self, shape: Shape) -> torch.Tensor | float:
        if not self.by_param:
            return shape[0]
        fixed = self.layer_param.loss_param.pre_fixed_normalizer
        return normalizer(self.mode, shape[0], math.prod(shape[2:]), None, fixed)


@register("SmoothL1Loss")
class SmoothL1Loss(_SmoothL1):
    """The smooth L1 distance of predictions and targets, summed, over the number of samples.

    Bottoms: predictions and targets (N, ...), both with a gradient; perhaps weights. Tops: the
    loss; the losses of each sample and position, (N, 1, H, W). It is s d^2 / 2 where
    |d| < 1 / s = 1 / sigma^2, and |d| - 1 / (2 s) elsewhere.
    With four bottoms d is bottom 2 times the difference, and bottom 3 weights the loss (Fast
    R-CNN's smooth_L1_loss_layer.cu; Girshick, 2015). With three, as in SSD and R-FCN, d is bottom 2
    times the difference, too, but the gradient is not multiplied by it. R-FCN's divisor follows
    loss_param: it counts where this is given or there is a second top, with up to three bottoms.
    """

    fork = "Fast R-CNN, SSD, R-FCN"
    bottoms = (2, 4)
    reads = ("smooth_l1_loss_param", "loss_param")
    takes = ("smooth_l1_loss_param.sigma", "loss_param.pre_fixed_normalizer")

    def setup(self, shapes: Sequence[Shape]) -> None:
        sigma = self.layer_param.smooth_l1_loss_param.sigma
        self.check(sigma > 0, f"sigma is {sigma:g}, expected more than 0")
        self.squared = sigma**2
        p = self.layer_param.loss_param
        given = p.HasField("normalization") or p.HasField("normalize")
        self.by_param = len(shapes) < 4 and (given or self.num_tops == 2)
        super().setup(shapes)


@register("SmoothL1LossOHEM")
class SmoothL1LossOHEM(_SmoothL1):
    """R-FCN's SmoothL1Loss under the name that its nets use: two or three bottoms, no sigma.

    Bottoms: predictions and targets (N, ...); perhaps weights like them. Tops: the loss; the losses
    of each sample and position, (N, 1, H, W) (R-FCN's smooth_L1_loss_ohem_layer.cu; Dai et al.,
    2016). The divisor is loss_param's, N * H * W by default.
    """

    fork = "R-FCN"
    bottoms = (2, 3)
    reads = ("loss_param",)
    takes = ("loss_param.pre_fixed_normalizer",)


@register("SoftmaxWithLossOHEM")
class SoftmaxWithLossOHEM(SoftmaxWithLoss):
    """SoftmaxWithLoss under the name that R-FCN's nets use for it (softmax_loss_ohem_layer.cu).

    Bottoms: scores (N, ...), with the classes on softmax_param.axis; labels. Tops: the loss; the
    probabilities; the loss of each label, in the labels' shape.
    """

    fork = "R-FCN"
    judge = "recorded"


@register("BalancedSoftmaxWithLoss")
class BalancedSoftmaxWithLoss(SoftmaxWithLoss):
    """SoftmaxWithLoss in which the labels 0 weigh as much as all others together.

    Bottoms and tops: SoftmaxWithLoss's. The losses of labels 0 are multiplied by the share of the
    other labels, and theirs by the share of labels 0; ignored labels are not counted (crpn's
    balanced_softmax_loss_layer.cpp; Xie and Tu, 2015).
    """

    fork = "crpn"
    judge = "recorded"
    tops = (1, 2)

    def weigh(
        self, each: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None
    ) -> torch.Tensor:
        counted = torch.ones_like(labels, dtype=torch.bool) if valid is None else valid
        positive = (labels > 0) & counted
        share = positive.sum() / counted.sum().clamp(min=1).to(each.dtype)
        return each * torch.where(positive, 1 - share, share)


@register("BoxAnnotatorOHEM")
class BoxAnnotatorOHEM(Layer):
    """Keeps the labels and weights of the roi_per_img regions of largest loss in each image.

    Bottoms: regions (N, 5), the first number being the image's; their losses (N), labels (N), and
    weights (N, C); all may have axes (H, W) behind, as convolutions give them. Tops: labels
    (N, 1, H, W), ignore_label for regions that are not kept; weights (N, C, H, W), 0 there. It
    has no gradient (R-FCN's box_annotator_ohem_layer.cu; Shrivastava et al., 2016).
    """

    fork = "R-FCN"
    judge = "recorded"
    bottoms = (4, 4)
    tops = (2, 2)
    in_place = False
    reads = ("box_annotator_ohem_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.most = self.layer_param.box_annotator_ohem_param.roi_per_img
        self.check(self.most > 0, f"roi_per_img is {self.most}, expected at least 1")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        for i, (shape, name) in enumerate(
            zip(shapes, ("regions", "losses", "labels", "weights"), strict=True)
        ):
            self.check(
                1 <= len(shape) <= 4,
                f"{name} (bottom {i}) have the shape {shape}, expected (N, ...)",
            )
        regions, losses, labels, weights = (four(shape) for shape in shapes)
        plane = (regions[0], 1, *regions[2:])
        self.check(
            regions[1] == 5, f"regions (bottom 0) have the shape {shapes[0]}, expected (N, 5)"
        )
        for i, (shape, expected) in enumerate(
            ((losses, plane), (labels, plane), (weights, (plane[0], weights[1], *plane[2:]))), 1
        ):
            self.check(
                shape == expected, f"bottom {i} has the shape {shapes[i]}, expected {expected}"
            )
        return [plane, weights]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        plane, shape = self.top_shapes(bottom)
        regions, losses, labels, weights = (
            x.detach().reshape(four(tuple(x.shape))) for x in bottom
        )
        image = regions[:, 0].flatten().long()
        order = losses.flatten().argsort(descending=True, stable=True)
        kept = torch.zeros_like(image, dtype=torch.bool)
        for number in image.unique().tolist():
            kept[order[image[order] == number][: self.most]] = True
        kept = kept.view(plane)
        ignored = self.layer_param.box_annotator_ohem_param.ignore_label
        return (
            torch.where(kept, labels, torch.full_like(labels, ignored)),
            torch.where(kept, weights, torch.zeros_like(weights)).view(shape),
        )

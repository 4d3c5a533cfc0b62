"""Losses and accuracies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.formats.files import read_blob
from caffe.layers.base import ENGINE, Layer, Shape, Tensors, register, with_gradient_of
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb

# Caffe takes the logarithm of no probability below these: SoftmaxWithLoss, and the older losses.
LOG_FLT_MIN = math.log(torch.finfo(torch.float32).tiny)
LEAST_PROBABILITY = 1e-20
NO_WEIGHTS = "`use_weights` and `label_weights` count for SoftmaxWithLoss alone, as in FuseNet."


class _Loss(Layer):
    """A loss of weight 1 by default, whose top need not be named; bottom 1 is the labels."""

    bottoms = (2, 2)
    auto_tops = True
    loss = True
    labels = (1,)

    def check_samples(self, bottom: Tensors) -> None:
        first = [tuple(x.shape[:1]) for x in bottom[:2]]
        self.check(
            first[0] == first[1] != (),
            f"bottoms of shapes {tuple(bottom[0].shape)} and {tuple(bottom[1].shape)}: their first "
            "axes must be equal, one entry for each sample",
        )

    def per_sample(self, bottom: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores as (samples, classes) and one label for each, as (samples, 1), in range."""
        self.check_samples(bottom)
        scores, labels = rows(bottom[0]), bottom[1].detach().long()
        self.check(
            labels.numel() == labels.shape[0],
            f"labels (bottom 1) have the shape {tuple(labels.shape)}, expected one a sample",
        )
        self.check_range(labels, scores.shape[1], "label")
        return scores, labels.reshape(-1, 1)


class _PerPosition(Layer):
    """Scores (bottom 0) along a class axis, and one label (bottom 1) for each of the others."""

    def class_axis(self) -> int:
        raise AssertionError("set by the subclass")

    def split_axes(self, bottom: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores as (outer, classes, inner) and labels as (outer, inner), int64."""
        scores, labels = bottom[:2]
        axis = self.axis(self.class_axis(), tuple(scores.shape))
        outer, inner = math.prod(scores.shape[:axis]), math.prod(scores.shape[axis + 1 :])
        self.check(
            outer * inner == labels.numel(),
            f"there must be one label for each prediction: scores {tuple(scores.shape)} with "
            f"classes on axis {axis} need {outer * inner}, labels {tuple(labels.shape)} are "
            f"{labels.numel()}",
        )
        flat = scores.reshape(outer, scores.shape[axis], inner)
        return flat, labels.detach().long().reshape(outer, inner)

    def valid_labels(
        self, labels: torch.Tensor, classes: int, ignore: int | None
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """A mask of those that count (None: all), and labels with the ignored ones made 0."""
        valid = None if ignore is None else labels != ignore
        if valid is not None:
            labels = torch.where(valid, labels, 0)
        hint = f", the {classes} classes of the scores"
        hint += "" if ignore is None else f", or the ignored label {ignore}"
        self.check_range(labels, classes, "label", hint)
        return valid, labels


def rows(x: torch.Tensor) -> torch.Tensor:
    """x as (samples, values)."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def normalizer(
    mode: int, outer: int, inner: int, valid: torch.Tensor | None
) -> torch.Tensor | float:
    """What a loss is divided by (LossParameter.normalization); never less than 1."""
    modes = pb.LossParameter
    if mode == modes.VALID and valid is not None:
        return valid.sum().clamp(min=1)
    if mode in (modes.FULL, modes.VALID):
        return max(1, outer * inner)
    return max(1, outer) if mode == modes.BATCH_SIZE else 1


def loss_settings(param: pb.LossParameter, default: int) -> tuple[int, int | None]:
    """(normalization mode, ignored label or None) of a loss layer."""
    modes = pb.LossParameter
    if param.HasField("normalization"):
        mode = param.normalization
    elif param.HasField("normalize"):
        mode = modes.VALID if param.normalize else modes.BATCH_SIZE
    else:
        mode = default
    return mode, param.ignore_label if param.HasField("ignore_label") else None


class _LogSoftmaxAt(torch.autograd.Function):
    """The log of the softmax at the labels (N, S), and all of them (N, C, S), without gradient.

    PyTorch's own chain fills, scatters and adds three arrays of the scores' size on its way back.
    """

    @staticmethod
    def forward(ctx, scores: torch.Tensor, labels: torch.Tensor):
        # Where the classes lie side by side in memory, they stay so.
        ctx.turned = scores.stride(1) == 1 and scores.shape[2] > 1
        rows, places = (scores.mT, labels[..., None]) if ctx.turned else (scores, labels[:, None])
        ctx.axis = 2 if ctx.turned else 1
        logs = rows.log_softmax(ctx.axis)
        ctx.save_for_backward(logs, places)
        chosen = logs.gather(ctx.axis, places).squeeze(ctx.axis)
        logs = logs.mT if ctx.turned else logs
        ctx.mark_non_differentiable(logs)
        return chosen, logs

    @staticmethod
    def backward(ctx, grad: torch.Tensor, _):
        logs, places = ctx.saved_tensors
        grad = grad.unsqueeze(ctx.axis)
        down = logs.exp().mul_(-grad).scatter_add_(ctx.axis, places, grad)
        return down.mT if ctx.turned else down, None


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(_Loss, _PerPosition):
    """Softmax and multinomial logistic loss; a second top is the probabilities.

    FuseNet: with `use_weights`, each label's loss and gradient are multiplied by its
    `label_weights`; the divisor stays the count that `normalization` says.
    """

    tops = (1, 2)
    reads = ("loss_param", "softmax_param")
    differs = (
        "`use_weights` and `label_weights` are FuseNet's. A label out of range is an error; Caffe "
        f"reads stray memory. Two tops work, which Caffe's last master refuses. {ENGINE}"
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        emit("layer_factory.hpp:77", f"Creating layer {self.name}")  # Caffe's inner Softmax
        p = self.layer_param.loss_param
        self.mode, self.ignore = loss_settings(p, pb.LossParameter.VALID)
        classes = shapes[0][self.axis(self.class_axis(), shapes[0])]
        self.weights: torch.Tensor | None = None
        if p.use_weights:
            self.check(
                len(p.label_weights) == classes,
                f"{len(p.label_weights)} label_weights are given, the scores have {classes} "
                "classes",
            )
            self.weights = torch.tensor(list(p.label_weights))

    def class_axis(self) -> int:
        return self.layer_param.softmax_param.axis

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.check_samples(bottom)
        scores, labels = self.split_axes(bottom)
        if scores.is_meta:
            return [scores.new_empty(()), bottom[0]][: self.num_tops]
        valid, labels = self.valid_labels(labels, scores.shape[1], self.ignore)
        chosen, logs = _LogSoftmaxAt.apply(scores, labels)
        # Clamped in the value alone: the gradient is the softmax's everywhere.
        each = -with_gradient_of(chosen.clamp(min=LOG_FLT_MIN), chosen)
        if self.weights is not None:
            each = each * self.weights.to(each.device, each.dtype)[labels]
        if valid is not None:
            each = torch.where(valid, each, torch.zeros_like(each))
        loss = each.sum() / normalizer(self.mode, *labels.shape, valid)
        if self.num_tops == 1:
            return loss
        # Caffe's backward takes nothing from this top's gradient.
        return loss, logs.exp().reshape(bottom[0].shape)


@register("Accuracy")
class Accuracy(_PerPosition):
    """Share of labels among the top_k scores; a second top holds it for each class.

    A score equal to the label's counts as better, so that ties are wrong.
    """

    bottoms = (2, 2)
    tops = (1, 2)
    reads = ("accuracy_param",)
    labels = (0, 1)

    def class_axis(self) -> int:
        return self.layer_param.accuracy_param.axis

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        p = self.layer_param.accuracy_param
        scores, labels = self.split_axes(bottom)
        classes = scores.shape[1]
        self.check(
            p.top_k <= classes, f"top_k is {p.top_k}, expected at most the {classes} classes"
        )
        if scores.is_meta:
            return [scores.new_empty(()), scores.new_empty(classes)][: self.num_tops]
        ignore = p.ignore_label if p.HasField("ignore_label") else None
        valid, labels = self.valid_labels(labels, classes, ignore)
        better = (scores >= scores.gather(1, labels[:, None])).sum(1) - 1
        right = better < p.top_k
        counted = torch.ones_like(right) if valid is None else valid
        right = (right & counted).to(scores.dtype)
        counted = counted.to(scores.dtype)
        share = right.sum() / counted.sum().clamp(min=1)
        if self.num_tops == 1:
            return share
        flat = labels.flatten()
        total = scores.new_zeros(classes).scatter_add_(0, flat, counted.flatten())
        hits = scores.new_zeros(classes).scatter_add_(0, flat, right.flatten())
        return share, hits / total.clamp(min=1)


@register("MultinomialLogisticLoss")
class MultinomialLogisticLoss(_Loss):
    """Mean of -log p over the samples, with p the label's entry in bottom 0, probabilities."""

    differs = "A label out of range is an error; Caffe reads stray memory."

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        scores, labels = self.per_sample(bottom)
        p = scores.gather(1, labels)
        least = p.detach().clamp(min=LEAST_PROBABILITY)
        # 1 / p, clamped likewise, is the gradient also where p is below the least.
        return -with_gradient_of(least.log(), p / least).sum() / scores.shape[0]


@register("InfogainLoss")
class InfogainLoss(_Loss, _PerPosition):
    """Softmax, then the mean of -sum_k H[label, k] log p_k; a second top is the probabilities.

    H, classes x classes, is bottom 2 or the blob in the file `source`.
    """

    bottoms = (2, 3)
    tops = (1, 2)
    labels = (1, 2)
    reads = ("infogain_loss_param", "loss_param")
    differs = f"A label out of range is an error; Caffe reads stray memory. {NO_WEIGHTS}"

    def setup(self, shapes: Sequence[Shape]) -> None:
        emit("layer_factory.hpp:77", f"Creating layer {self.name}")  # Caffe's inner Softmax
        p = self.layer_param
        self.check(
            not p.loss_param.HasField("normalize"), "normalize is too old: use normalization"
        )
        self.mode, self.ignore = loss_settings(p.loss_param, pb.LossParameter.VALID)
        self.gains: torch.Tensor | None = None
        if len(shapes) == 2:
            self.check(
                p.infogain_loss_param.HasField("source"),
                "the matrix H must be bottom 2 or the file of infogain_loss_param.source",
            )
            with self.named():
                gains = read_blob(p.infogain_loss_param.source)
            self.gains = torch.from_numpy(gains.astype("float32"))

    def class_axis(self) -> int:
        return self.layer_param.infogain_loss_param.axis

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.check_samples(bottom)
        scores, labels = self.split_axes(bottom)
        classes = scores.shape[1]
        valid, labels = self.valid_labels(labels, classes, self.ignore)
        gains = (self.gains if len(bottom) == 2 else bottom[2]).detach().to(scores)
        self.check(
            gains.numel() == classes**2,
            f"the matrix H has the shape {tuple(gains.shape)}, expected {classes} x {classes}",
        )
        logs = scores.log_softmax(1)
        clamped = with_gradient_of(logs.clamp(min=math.log(LEAST_PROBABILITY)), logs)
        rows = gains.reshape(classes, classes)[labels].movedim(2, 1)  # (outer, classes, inner)
        each = -(rows * clamped).sum(1)
        if valid is not None:
            each = torch.where(valid, each, torch.zeros_like(each))
        loss = each.sum() / normalizer(self.mode, *labels.shape, valid)
        return loss if self.num_tops == 1 else (loss, logs.detach().exp().reshape(bottom[0].shape))


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(_Loss):
    """Logistic loss of each score against its target in [0, 1] (bottom 1)."""

    reads = ("loss_param",)
    differs = NO_WEIGHTS

    def setup(self, shapes: Sequence[Shape]) -> None:
        modes = pb.LossParameter
        self.mode, self.ignore = loss_settings(self.layer_param.loss_param, modes.BATCH_SIZE)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.check_samples(bottom)
        scores, targets = bottom[0], bottom[1].detach()
        self.check(
            scores.numel() == targets.numel(),
            f"bottoms of shapes {tuple(scores.shape)} and {tuple(targets.shape)} must have equally "
            "many values",
        )
        targets = targets.reshape(scores.shape)
        each = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        valid = None
        if self.ignore is not None:
            valid = targets.trunc() != self.ignore
            each = torch.where(valid, each, torch.zeros_like(each))
        outer, inner = scores.shape[0], math.prod(scores.shape[1:])
        return each.sum() / normalizer(self.mode, outer, inner, valid)


@register("EuclideanLoss")
class EuclideanLoss(_Loss):
    """Half the mean over the samples of the squared distance between the bottoms."""

    labels = ()

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.check_samples(bottom)
        a, b = (rows(x) for x in bottom)
        self.check(
            a.shape == b.shape,
            f"bottoms of shapes {tuple(bottom[0].shape)} and {tuple(bottom[1].shape)} must have "
            "equally many values a sample",
        )
        return (a - b).square().sum() / (2 * a.shape[0])


@register("HingeLoss")
class HingeLoss(_Loss):
    """One against all: the mean over the samples of sum_k max(0, 1 -+ score_k), or its square."""

    reads = ("hinge_loss_param",)
    differs = "A label out of range is an error; Caffe writes to stray memory."

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        scores, labels = self.per_sample(bottom)
        signs = torch.ones_like(scores).scatter(1, labels, -1)
        margins = F.relu(1 + signs * scores)
        if self.layer_param.hinge_loss_param.norm == pb.HingeLossParameter.L2:
            margins = margins.square()
        return margins.sum() / scores.shape[0]


@register("ContrastiveLoss")
class ContrastiveLoss(_Loss):
    """Pulls the pairs of bottoms 0 and 1 together where bottom 2 is not 0, else a margin apart.

    Hadsell et al., 2006; `legacy_version` compares the margin with the squared distance.
    """

    bottoms = (3, 3)
    labels = (2,)
    reads = ("contrastive_loss_param",)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.check_samples(bottom)
        a, b, similar = bottom
        samples = a.shape[0]
        self.check(
            a.numel() == b.numel() == samples * math.prod(a.shape[1:2])
            and a.shape[1:2] == b.shape[1:2],
            f"bottoms of shapes {tuple(a.shape)} and {tuple(b.shape)} must be equal, with axes of "
            "1 behind samples and channels",
        )
        self.check(
            similar.numel() == samples == math.prod(similar.shape[:1]),
            f"bottom 2 has the shape {tuple(similar.shape)}, expected one entry for each of "
            f"{samples} samples",
        )
        squared = (rows(a) - rows(b)).square().sum(1)
        similar = similar.detach().reshape(-1).long() != 0
        return self._loss(squared, similar).sum() / (2 * samples)

    def _loss(self, squared: torch.Tensor, similar: torch.Tensor) -> torch.Tensor:
        p = self.layer_param.contrastive_loss_param
        if p.legacy_version:
            return torch.where(similar, squared, F.relu(p.margin - squared))
        distance = squared.detach().sqrt()
        missing = F.relu(p.margin - distance)
        # Caffe divides by the distance plus 1e-4, and so has a gradient where the distance is 0.
        push = with_gradient_of(missing.square(), -squared * (missing / (distance + 1e-4)))
        return torch.where(similar, squared, push)

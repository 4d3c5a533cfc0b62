"""Losses and accuracies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.formats.files import read_blob
from caffe.layers.base import ENGINE, Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.look import OUTPUT
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb

# Caffe raises smaller probabilities to these before it takes the logarithm: SoftmaxWithLoss to the
# first (this is its logarithm), older losses to the second.
LOG_FLT_MIN = math.log(torch.finfo(torch.float32).tiny)
LEAST_PROBABILITY = 1e-20
NO_WEIGHTS = "`use_weights` and `label_weights` count for SoftmaxWithLoss alone, as in FuseNet."


class _Loss(Layer):
    """A loss: one value, of weight 1 by default, whose top need not be named.

    Bottoms: predictions (N, ...) and labels (N, ...), which have no gradient.
    """

    bottoms = (2, 2)
    auto_tops = True
    loss = True
    labels = (1,)
    look = OUTPUT

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        first, second = (shape[:1] for shape in shapes[:2])
        self.check(
            first == second != (),
            f"bottoms of shapes {shapes[0]} and {shapes[1]}: their first axes must be equal, one "
            "entry for each sample",
        )
        return [()]


class _PerSample(_Loss):
    """A loss of scores (N, ...), one value for each class, and one label for each sample."""

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        tops = super().infer_shapes(shapes)
        scores, labels = shapes
        self.check(
            math.prod(labels) == labels[0],
            f"labels (bottom 1) have the shape {labels}, expected one a sample",
        )
        self.check(
            labels[0] == 0 or math.prod(scores[1:]) > 0,
            f"scores (bottom 0) have the shape {scores}: there is no class to choose from",
        )
        return tops

    def per_sample(self, bottom: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores as (samples, classes) and one label for each, as (samples, 1), in range."""
        self.top_shapes(bottom)
        scores, labels = rows(bottom[0]), bottom[1].detach().long()
        self.check_range(labels, scores.shape[1], "label")
        return scores, labels.reshape(-1, 1)


class _PerPosition(Layer):
    """Scores (bottom 0) along a class axis, and one label (bottom 1) for each other position."""

    def class_axis(self, scores: Shape) -> int:
        """The axis of the scores along which the classes lie."""
        raise AssertionError("set by the subclass")

    def count_classes(self, shapes: Sequence[Shape]) -> int:
        """How many classes the scores have. Raises CaffeError unless there is a label for each
        position.
        """
        scores, labels = shapes[:2]
        axis = self.class_axis(scores)
        classes, positions = scores[axis], math.prod(scores[:axis] + scores[axis + 1 :])
        self.check(
            positions == math.prod(labels),
            f"there must be one label for each prediction: scores {scores} with classes on axis "
            f"{axis} need {positions}, labels {labels} are {math.prod(labels)}",
        )
        self.check(
            positions == 0 or classes > 0,
            f"scores {scores} have no class on axis {axis} to choose from",
        )
        return classes

    def split_axes(self, bottom: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores as (outer, classes, inner) and labels as (outer, inner), int64."""
        scores, labels = bottom[:2]
        axis = self.class_axis(tuple(scores.shape))
        outer, inner = math.prod(scores.shape[:axis]), math.prod(scores.shape[axis + 1 :])
        flat = scores.reshape(outer, scores.shape[axis], inner)
        return flat, labels.detach().long().reshape(outer, inner)

    def valid_labels(
        self, labels: torch.Tensor, classes: int, ignore: int | None
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Which labels count (None: all), and the labels, the ignored ones replaced by 0."""
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
    mode: int, outer: int, inner: int, valid: torch.Tensor | None, fixed: float = 1
) -> torch.Tensor | float:
    """The divisor of a loss (LossParameter.normalization), at least 1.

    outer, inner: samples, and positions in each. valid: which of them count; None: all. fixed: the
    pre_fixed_normalizer, for R-FCN's PRE_FIXED.
    """
    modes = pb.LossParameter
    if mode == modes.PRE_FIXED:
        return max(1, fixed)
    if mode == modes.VALID and valid is not None:
        return valid.sum().clamp(min=1)
    if mode in (modes.FULL, modes.VALID):
        return max(1, outer * inner)
    return max(1, outer) if mode == modes.BATCH_SIZE else 1


def loss_settings(param: pb.LossParameter, default: int) -> tuple[int, int | None]:
    """(normalization mode, ignored label or None) of a loss layer; default: the mode that counts
    where the parameters name none.
    """
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
        # Classes that lie side by side in memory (channels-last) stay so: that is faster.
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

    Bottoms: scores (N, ...), with the classes on softmax_param.axis; labels, one for each other
    position. Tops: the loss; the probabilities in the scores' shape (softmax_loss_layer.cpp);
    R-FCN's: the loss of each label, in the labels' shape, without a gradient.
    FuseNet: with `use_weights`, each label's loss and gradient are multiplied by its
    `label_weights`; the divisor stays the count that `normalization` says. SegNet and ENet call
    these `weight_by_label_freqs` and `class_weighting`.
    """

    tops = (1, 3)
    reads = ("loss_param", "softmax_param")
    takes = (
        *("loss_param.weight_by_label_freqs", "loss_param.class_weighting"),
        "loss_param.pre_fixed_normalizer",
    )
    differs = (
        "`use_weights` and `label_weights` are FuseNet's. A label out of range is an error; Caffe "
        f"reads stray memory. Two tops work, which Caffe's last master refuses. {ENGINE}"
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        emit("layer_factory.hpp:77", f"Creating layer {self.name}")  # Caffe's inner Softmax
        p = self.layer_param.loss_param
        self.mode, self.ignore = loss_settings(p, pb.LossParameter.VALID)
        self.weights = torch.tensor(list(p.label_weights)) if p.use_weights else None
        if p.weight_by_label_freqs:
            self.check(not p.use_weights, "give either use_weights or weight_by_label_freqs")
            self.weights = torch.tensor(list(p.class_weighting))

    def class_axis(self, scores: Shape) -> int:
        return self.axis(self.layer_param.softmax_param.axis, scores)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        super().infer_shapes(shapes)
        classes = self.count_classes(shapes)
        given = classes if self.weights is None else len(self.weights)
        names = "label_weights" if self.layer_param.loss_param.use_weights else "class_weighting"
        self.check(
            given == classes,
            f"{given} {names} are given, the scores have {classes} classes",
        )
        return [(), *shapes][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.top_shapes(bottom)
        scores, labels = self.split_axes(bottom)
        valid, labels = self.valid_labels(labels, scores.shape[1], self.ignore)
        chosen, logs = _LogSoftmaxAt.apply(scores, labels)
        # The clamp does not touch the gradient, which is the softmax's everywhere.
        each = -with_gradient_of(chosen.clamp(min=LOG_FLT_MIN), chosen)
        each = self.weigh(each, labels, valid)
        if valid is not None:
            each = torch.where(valid, each, torch.zeros_like(each))
        fixed = self.layer_param.loss_param.pre_fixed_normalizer
        loss = each.sum() / normalizer(self.mode, *labels.shape, valid, fixed)
        if self.num_tops == 1:
            return loss
        # Caffe's backward pass ignores the gradients of the other tops.
        tops = loss, logs.exp().reshape(bottom[0].shape), each.detach().reshape(bottom[1].shape)
        return tops[: self.num_tops]

    def weigh(
        self, each: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor | None
    ) -> torch.Tensor:
        """The losses of the labels, (outer, inner) all, by weights; valid: which count."""
        if self.weights is None:
            return each
        return each * self.weights.to(each.device, each.dtype)[labels]


@register("Accuracy")
class Accuracy(_PerPosition):
    """Share of labels among the top_k scores; a second top holds it for each class.

    Bottoms: scores, with the classes on `axis`; labels, one for each other position. Tops: the
    share; the shares of the C classes, (C) (accuracy_layer.cpp). A score equal to the label's
    counts as better, so that ties are wrong.
    """

    bottoms = (2, 2)
    tops = (1, 2)
    measures = True
    reads = ("accuracy_param",)
    labels = (0, 1)
    look = OUTPUT

    def class_axis(self, scores: Shape) -> int:
        return self.axis(self.layer_param.accuracy_param.axis, scores)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        classes, top_k = self.count_classes(shapes), self.layer_param.accuracy_param.top_k
        self.check(top_k <= classes, f"top_k is {top_k}, expected at most the {classes} classes")
        return [(), (classes,)][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.top_shapes(bottom)
        p = self.layer_param.accuracy_param
        scores, labels = self.split_axes(bottom)
        classes = scores.shape[1]
        ignore = p.ignore_label if p.HasField("ignore_label") else None
        valid, labels = self.valid_labels(labels, classes, ignore)
        at_least = scores >= scores.gather(1, labels[:, None])
        better = at_least.sum(1, dtype=torch.int32) - 1  # in int64 the sum takes four times as long
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
class MultinomialLogisticLoss(_PerSample):
    """Mean of -log p over the samples, with p the label's entry in bottom 0, probabilities.

    Bottoms: (N, ...), the values of a sample being its classes; labels, N of them
    (multinomial_logistic_loss_layer.cpp).
    """

    differs = "A label out of range is an error; Caffe reads stray memory."

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        scores, labels = self.per_sample(bottom)
        p = scores.gather(1, labels)
        least = p.detach().clamp(min=LEAST_PROBABILITY)
        # The gradient is 1 / least, also where p itself is smaller.
        return -with_gradient_of(least.log(), p / least).sum() / scores.shape[0]


@register("InfogainLoss")
class InfogainLoss(_Loss, _PerPosition):
    """Softmax, then the mean of -sum_k H[label, k] log p_k; a second top is the probabilities.

    Bottoms: scores (N, ...), with the classes on `axis`; labels, one for each other position;
    perhaps H. H has C x C values for C classes; it is bottom 2 or the blob in the file `source`.
    Tops: the loss; the probabilities in the scores' shape (infogain_loss_layer.cpp).
    """

    bottoms = (2, 3)
    tops = (1, 2)
    labels = (1, 2)
    reads = ("infogain_loss_param", "loss_param")
    takes = ("loss_param.pre_fixed_normalizer",)
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

    def class_axis(self, scores: Shape) -> int:
        return self.axis(self.layer_param.infogain_loss_param.axis, scores)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        super().infer_shapes(shapes)
        classes = self.count_classes(shapes)
        gains = shapes[2] if self.gains is None else tuple(self.gains.shape)
        self.check(
            math.prod(gains) == classes**2,
            f"the matrix H has the shape {gains}, expected {classes} x {classes}",
        )
        return [(), shapes[0]][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.top_shapes(bottom)
        scores, labels = self.split_axes(bottom)
        classes = scores.shape[1]
        valid, labels = self.valid_labels(labels, classes, self.ignore)
        gains = (bottom[2] if self.gains is None else self.gains).detach().to(scores)
        logs = scores.log_softmax(1)
        clamped = with_gradient_of(logs.clamp(min=math.log(LEAST_PROBABILITY)), logs)
        rows = gains.reshape(classes, classes)[labels].movedim(2, 1)  # (outer, classes, inner)
        each = -(rows * clamped).sum(1)
        if valid is not None:
            each = torch.where(valid, each, torch.zeros_like(each))
        fixed = self.layer_param.loss_param.pre_fixed_normalizer
        loss = each.sum() / normalizer(self.mode, *labels.shape, valid, fixed)
        return loss if self.num_tops == 1 else (loss, logs.detach().exp().reshape(bottom[0].shape))


@register("SigmoidCrossEntropyLoss")
class SigmoidCrossEntropyLoss(_Loss):
    """Logistic loss of each score against its target in [0, 1] (bottom 1).

    Bottoms: scores (N, ...); as many targets, (N, ...) (sigmoid_cross_entropy_loss_layer.cpp).
    """

    reads = ("loss_param",)
    takes = ("loss_param.pre_fixed_normalizer",)
    differs = NO_WEIGHTS

    def setup(self, shapes: Sequence[Shape]) -> None:
        modes = pb.LossParameter
        self.mode, self.ignore = loss_settings(self.layer_param.loss_param, modes.BATCH_SIZE)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        scores, targets = shapes
        tops = super().infer_shapes(shapes)
        self.check(
            math.prod(scores) == math.prod(targets),
            f"bottoms of shapes {scores} and {targets} must have equally many values",
        )
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        scores = bottom[0]
        targets = bottom[1].detach().reshape(scores.shape)
        each = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        valid = None
        if self.ignore is not None:
            valid = targets.trunc() != self.ignore
            each = torch.where(valid, each, torch.zeros_like(each))
        outer, inner = scores.shape[0], math.prod(scores.shape[1:])
        fixed = self.layer_param.loss_param.pre_fixed_normalizer
        return each.sum() / normalizer(self.mode, outer, inner, valid, fixed)


class Distance(_Loss):
    """A loss of two bottoms (N, ...) with equally many values a sample; both have a gradient."""

    labels = ()

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        tops = super().infer_shapes(shapes)
        a, b = shapes
        self.check(
            math.prod(a[1:]) == math.prod(b[1:]),
            f"bottoms of shapes {a} and {b} must have equally many values a sample",
        )
        return tops


@register("EuclideanLoss")
class EuclideanLoss(Distance):
    """Half the mean over the samples of the squared distance between the bottoms.

    Bottoms: two of (N, ...), with equally many values a sample (euclidean_loss_layer.cpp).
    """

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        a, b = (rows(x) for x in bottom)
        return (a - b).square().sum() / (2 * a.shape[0])


@register("HingeLoss")
class HingeLoss(_PerSample):
    """One against all: the mean over the samples of sum_k max(0, 1 -+ score_k), or its square.

    The sign is - for the label's score. Bottoms: (N, ...), the values of a sample being the scores
    of its classes; labels, N of them (hinge_loss_layer.cpp).
    """

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

    Bottoms: two of (N, C), perhaps with axes of 1 behind; N similarities. `legacy_version` compares
    the margin with the squared distance (contrastive_loss_layer.cpp; Hadsell et al., 2006).
    """

    bottoms = (3, 3)
    labels = (2,)
    reads = ("contrastive_loss_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        tops = super().infer_shapes(shapes)
        a, b, similar = shapes
        self.check(
            math.prod(a) == math.prod(a[:2])
            and math.prod(a[1:]) == math.prod(b[1:])
            and a[1:2] == b[1:2],
            f"bottoms of shapes {a} and {b} must be equal, with axes of 1 behind samples and "
            "channels",
        )
        self.check(
            math.prod(similar) == a[0] == math.prod(similar[:1]),
            f"bottom 2 has the shape {similar}, expected one entry for each of {a[0]} samples",
        )
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        a, b, similar = bottom
        squared = (rows(a) - rows(b)).square().sum(1)
        similar = similar.detach().reshape(-1).long() != 0
        return self._loss(squared, similar).sum() / (2 * a.shape[0])

    def _loss(self, squared: torch.Tensor, similar: torch.Tensor) -> torch.Tensor:
        p = self.layer_param.contrastive_loss_param
        if p.legacy_version:
            return torch.where(similar, squared, F.relu(p.margin - squared))
        distance = squared.detach().sqrt()
        missing = F.relu(p.margin - distance)
        # Caffe divides by the distance plus 1e-4, so that a distance of 0 has a gradient, too.
        push = with_gradient_of(missing.square(), -squared * (missing / (distance + 1e-4)))
        return torch.where(similar, squared, push)

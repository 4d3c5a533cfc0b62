"""Losses and accuracies."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.log import emit
from caffe.proto import caffe_pb2 as pb

# Caffe takes the logarithm of no probability below the smallest normal float.
LOG_FLT_MIN = math.log(torch.finfo(torch.float32).tiny)


class LabelledLayer(Layer):
    """Scores (bottom 0) along a class axis, and one label (bottom 1) for each of the others."""

    bottoms = (2, 2)
    labels = (1,)

    def class_axis(self) -> int:
        raise AssertionError("set by the subclass")

    def split_axes(self, bottom: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores as (outer, classes, inner) and labels as (outer, inner), int64."""
        scores, labels = bottom
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
        if not labels.is_meta and labels.numel():
            low, high = (int(v) for v in torch.aminmax(labels))
            self.check(
                low >= 0 and high < classes,
                f"label {high if low >= 0 else low} is out of range: the scores have {classes} "
                f"classes, so labels must be 0 to {classes - 1}"
                + ("" if ignore is None else f" or the ignored label {ignore}"),
            )
        return valid, labels


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


class _ClampValue(torch.autograd.Function):
    """Clamp the logarithm in the value alone: the gradient is the softmax's everywhere."""

    @staticmethod
    def forward(ctx, logs: torch.Tensor) -> torch.Tensor:
        return logs.clamp(min=LOG_FLT_MIN)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:
        return grad


@register("SoftmaxWithLoss")
class SoftmaxWithLoss(LabelledLayer):
    """Softmax and multinomial logistic loss; a second top is the probabilities.

    FuseNet: with `use_weights`, each label's loss and gradient are multiplied by its
    `label_weights`; the divisor stays the count that `normalization` says.
    """

    tops = (1, 2)
    loss = True

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
        scores, labels = self.split_axes(bottom)
        valid, labels = self.valid_labels(labels, scores.shape[1], self.ignore)
        logs = scores.log_softmax(1)
        each = -_ClampValue.apply(logs.gather(1, labels[:, None])[:, 0])
        if self.weights is not None:
            each = each * self.weights.to(each.device, each.dtype)[labels]
        if valid is not None:
            each = torch.where(valid, each, torch.zeros_like(each))
        loss = each.sum() / normalizer(self.mode, *labels.shape, valid)
        if self.num_tops == 1:
            return loss
        # Caffe's backward takes nothing from this top's gradient.
        return loss, logs.detach().exp().reshape(bottom[0].shape)


@register("Accuracy")
class Accuracy(LabelledLayer):
    """Share of labels among the top_k scores; a second top holds it for each class.

    A score equal to the label's counts as better, so that ties are wrong.
    """

    tops = (1, 2)
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

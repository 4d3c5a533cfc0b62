"""Layers for a label at each pixel: accuracies, balanced losses, edge-aware smoothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from boundary.late import cv2
from caffe.formats.onnx import Graph, Value
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.look import NORM, OUTPUT, Look
from caffe.layers.loss import rows
from caffe.proto import caffe_pb2 as pb


class _PixelLabels(Layer):
    """A layer of scores (N, C, H, W) and one label for each pixel, (N, 1, H, W)."""

    bottoms = (2, 2)
    look = OUTPUT

    def check_labels(self, shapes: Sequence[Shape]) -> None:
        """Raise CaffeError unless there is one label for each pixel."""
        scores, labels = shapes[:2]
        self.check(
            len(scores) == 4 and scores[1] > 0,
            f"scores (bottom 0) have the shape {scores}, expected (N, C, H, W)",
        )
        expected = (scores[0], 1, *scores[2:])
        self.check(
            labels in (expected, (scores[0], *scores[2:]) if scores[2:] == (1, 1) else expected),
            f"labels (bottom 1) have the shape {labels}, expected {expected}",
        )


class _Confusion(_PixelLabels):
    """A layer whose tops follow from the counts of each pair of label and highest score.

    In a test (`begin_test` to `end_test`) `counts` are those of all its passes. Outside of one they
    are the last pass's, or with `reset: false` those of all passes since the layer was made.
    """

    measures = True
    labels = (0, 1)

    def __init__(self, param: pb.LayerParameter) -> None:
        super().__init__(param)
        self.counts: torch.Tensor | None = None  # int64 (C, C): [label, highest score]
        self._in_test = False

    @property
    def settings(self) -> Any:
        """The message with `ignore_label` and `reset`."""
        raise AssertionError("set by the subclass")

    def highest(self, scores: torch.Tensor) -> torch.Tensor:
        """The class of the highest score of each pixel, (N, H, W)."""
        raise AssertionError("set by the subclass")

    def begin_test(self) -> None:
        self.counts, self._in_test = None, True

    def end_test(self) -> None:
        self.counts, self._in_test = None, False

    def reset(self) -> None:
        self.counts = None

    def record(self, inputs: Tensors) -> Tensors:
        # A pass that is only repeated for its graph does not count again.
        counts = self.counts
        tops = super().record(inputs)
        self.counts = counts
        return tops

    def scratch(self, shapes: Sequence[Shape]) -> int:
        return shapes[0][1] ** 2

    def count(self, bottom: Tensors) -> torch.Tensor:
        """`counts`, with those of these bottoms."""
        self.top_shapes(bottom)
        scores, labels = bottom[0].detach(), bottom[1].detach().long().flatten()
        classes = scores.shape[1]
        valid = torch.ones_like(labels, dtype=torch.bool)
        for ignored in self.settings.ignore_label:
            valid &= labels != ignored
        labels = torch.where(valid, labels, 0)
        hint = f", the {classes} classes of the scores, or an ignore_label"
        self.check_range(labels, classes, "label", hint)
        pairs = labels * classes + self.highest(scores).flatten()
        pairs = torch.where(valid, pairs, classes**2)  # one place more, for those that do not count
        counts = torch.zeros(classes**2 + 1, dtype=torch.int64, device=scores.device)
        counts.scatter_add_(0, pairs, torch.ones_like(pairs))
        counts = counts[:-1].reshape(classes, classes)
        earlier = self.counts if self._in_test or not self.settings.reset else None
        if earlier is not None and earlier.shape == counts.shape:
            counts = counts + earlier.to(counts.device)
        self.counts = counts
        return counts


def _parts(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of each class the right pixels, those with its label, and these with those predicted as it;
    float64, (C).
    """
    counts = counts.double()
    right, actual = counts.diagonal(), counts.sum(1)
    return right, actual, actual + counts.sum(0) - right


@register("SegmentationAccuracy")
class SegmentationAccuracy(_Confusion):
    """Accuracy of pixels, mean accuracy of classes, and mean intersection over union, of a whole
    test.

    Bottoms: scores (N, C, H, W); labels (N, 1, H, W) below C, or in `ignore_label`, whose pixels do
    not count. Tops, one number each: the share of right pixels; the mean over the classes of the
    share of right pixels; the mean of the intersection over union. Of equal scores the first
    counts. A class without pixels is left out of the means, also where it is predicted. A number is
    NaN if no pixel counts. These are the figures of `eval_tools.evaluate` (Long, Shelhamer and
    Darrell, 2015). In a solver's test and in `caffe test` they are those of all batches so far, in
    TRAIN and in a net's own passes those of the batch; with `reset: false` these count on, too.
    """

    tops = (1, 3)
    accumulates = True
    reads = ("segmentation_accuracy_param",)

    @property
    def settings(self) -> pb.SegmentationAccuracyParameter:
        return self.layer_param.segmentation_accuracy_param

    def highest(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.max(1).indices  # the first of equal ones, and twice as fast as argmax

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        self.check_labels(shapes)
        return [()] * self.num_tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        right, actual, union = _parts(self.count(bottom))
        # 0 / 0 is NaN, of classes without pixels; a predicted one has a union all the same.
        overlap = torch.where(actual > 0, right / union, math.nan)
        figures = (right.sum() / actual.sum(), (right / actual).nanmean(), overlap.nanmean())
        return [figure.to(bottom[0].dtype) for figure in figures[: self.num_tops]]


@register("SegAccuracy")
class SegAccuracy(_Confusion):
    """Accuracy of pixels, mean accuracy of classes, and mean intersection over union.

    Bottoms: scores (N, C, H, W); labels (N, 1, H, W) below C, or in `ignore_label`. Top: the three
    numbers, (1, 1, 1, 3). Of equal scores the last counts. A class that neither occurs nor is
    predicted has an intersection over union of 1, and no accuracy. With `reset: false` all passes
    since the start count, in a test those of the test (DeepLab's seg_accuracy_layer.cpp,
    confusion_matrix.cpp).
    """

    fork = "DeepLab, PSPNet"
    judge = "recorded"
    reads = ("seg_accuracy_param",)
    takes = ("seg_accuracy_param.ignore_label", "seg_accuracy_param.reset")
    differs = (
        "With `reset: false` a test of a solver or of `caffe test` begins to count anew, and tells "
        "what it has at its end; the forks count on from test to test, and tell the mean of what "
        "they have after each batch."
    )

    @property
    def settings(self) -> pb.SegAccuracyParameter:
        return self.layer_param.seg_accuracy_param

    @property
    def accumulates(self) -> bool:
        return not self.settings.reset

    def highest(self, scores: torch.Tensor) -> torch.Tensor:
        return scores.shape[1] - 1 - scores.flip(1).argmax(1)  # the last of equal ones

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        self.check_labels(shapes)
        return [(1, 1, 1, 3)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        right, actual, union = _parts(self.count(bottom))
        accuracy = right.sum() / actual.sum().clamp(min=1)
        recall = (right / actual.clamp(min=1)).sum() / (actual > 0).sum().clamp(min=1)
        overlap = torch.where(union > 0, right / union.clamp(min=1), 1.0).mean()
        figures = torch.stack([accuracy, recall, overlap])
        return figures.to(bottom[0].dtype).reshape(1, 1, 1, 3)


@register("EltwiseAccuracy")
class EltwiseAccuracy(_PixelLabels):
    """Share of pixels whose label is among the top_k scores; of equal scores the last is first.

    Bottoms: scores (N, C, H, W); labels (N, 1, H, W). Pixels of `ignore_label` do not count, labels
    beyond the classes are wrong. Top: (1, 1, 1, 1), NaN if no pixel counts (DeconvNet's
    eltwise_accuracy_layer.cpp; its nets say ELTWISE_ACCURACY).
    """

    fork = "DeconvNet"
    judge = "recorded"
    measures = True
    labels = (0, 1)
    reads = ("eltwise_accuracy_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        self.check_labels(shapes)
        classes, top_k = shapes[0][1], self.layer_param.eltwise_accuracy_param.top_k
        self.check(top_k <= classes, f"top_k is {top_k}, expected at most the {classes} classes")
        return [(1, 1, 1, 1)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p = self.layer_param.eltwise_accuracy_param
        scores = bottom[0]
        labels = bottom[1].detach().long().reshape(scores.shape[0], 1, *scores.shape[2:])
        classes = scores.shape[1]
        inside = (labels >= 0) & (labels < classes)
        own = labels.clamp(0, classes - 1)
        mine = scores.gather(1, own)
        index = torch.arange(classes, device=scores.device).view(1, -1, 1, 1)
        better = ((scores > mine) | ((scores == mine) & (index > own))).sum(1, keepdim=True)
        right = inside & (better < p.top_k)
        counted = labels != p.ignore_label if p.HasField("ignore_label") else labels == labels
        share = (right & counted).sum() / counted.sum()
        return share.to(scores.dtype).reshape(1, 1, 1, 1)


@register("SigmoidCrossEntropyBalanceLoss")
class SigmoidCrossEntropyBalanceLoss(Layer):
    """Logistic loss in which positive and negative values of a sample weigh the same.

    Bottoms: scores (N, ...); as many targets. A target of 1 weighs the share of zeros in its
    sample, a target of 0 the share of ones; others do not count in the loss, but have a gradient of
    weight 1. The loss is divided by N (HED: Xie and Tu, 2015; the layer of OSVOS,
    sigmoid_cross_entropy_balance_loss_layer.cpp).
    """

    fork = "OSVOS, DAVSOD, HED"
    judge = "recorded"
    bottoms = (2, 2)
    auto_tops = True
    loss = True
    labels = (1,)
    look = OUTPUT
    differs = (
        "HED and RCF give this loss the name SigmoidCrossEntropyLoss: write this type instead. A "
        "sample with targets of neither kind counts 0; the forks' loss is NaN then."
    )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        scores, targets = shapes
        self.check(
            scores[:1] == targets[:1] != () and math.prod(scores) == math.prod(targets),
            f"bottoms of shapes {scores} and {targets} must have equally many samples and values",
        )
        return [()]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        scores, targets = rows(bottom[0]), rows(bottom[1].detach())
        ones, zeros = targets == 1, targets == 0
        count = (ones | zeros).sum(1, keepdim=True).clamp(min=1).to(scores.dtype)
        weights = torch.where(ones, zeros.sum(1, keepdim=True) / count, 0.0)
        weights = torch.where(zeros, ones.sum(1, keepdim=True) / count, weights).to(scores.dtype)
        each = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        value = (each.detach() * weights).sum() / scores.shape[0]
        stand_in = (each * torch.where(ones | zeros, weights, 1.0)).sum() / scores.shape[0]
        return with_gradient_of(value, stand_in)


@register("BiasChannel")
class BiasChannel(_PixelLabels):
    """Raises the scores of labels that are known to be there (weakly supervised DeepLab).

    Bottoms: scores (N, C, H, W); labels. Top: the scores, plus bg_bias or fg_bias. With
    `label_type` IMAGE, the labels are those of each image, (N, L, 1, 1): channel 0 gains bg_bias,
    the others fg_bias. With PIXEL they are (N, 1, H, W): the label's channel gains fg_bias, and
    everywhere the background's bg_bias, if a background is told (`background_label` or `bg_bias`).
    -1 and `ignore_label` do nothing (Papandreou et al., 2015; bias_channel_layer.cpp).
    """

    fork = "DeepLab"
    judge = "recorded"
    labels = (1,)
    reads = ("bias_channel_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.bias_channel_param
        for name in ("bg_bias", "fg_bias"):
            value = getattr(p, name)
            self.check(value >= 0, f"{name} is {value:g}, expected at least 0")
        self.ignored = {-1, *p.ignore_label}
        self.background = p.HasField("background_label") or p.HasField("bg_bias")

    @property
    def by_image(self) -> bool:
        """Whether the labels are those of whole images."""
        return self.layer_param.bias_channel_param.label_type == pb.BiasChannelParameter.IMAGE

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        scores, labels = shapes
        if not self.by_image:
            self.check_labels(shapes)
            background = self.layer_param.bias_channel_param.background_label
            self.check(
                not self.background or 0 <= background < scores[1],
                f"background_label is {background}, expected 0 to {scores[1] - 1}",
            )
            return [scores]
        self.check(
            len(scores) == 4 and scores[1] > 0,
            f"scores (bottom 0) have the shape {scores}, expected (N, C, H, W)",
        )
        few = len(labels) >= 2 and labels[0] == scores[0] and labels[1] > 0
        self.check(
            few and math.prod(labels[2:]) == 1,
            f"labels (bottom 1) have the shape {labels}, expected ({scores[0]}, L, 1, 1)",
        )
        return [scores]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, scores = self.layer_param.bias_channel_param, bottom[0]
        n, classes = scores.shape[:2]
        labels = bottom[1].detach().long().flatten(1)
        known = torch.ones_like(labels, dtype=torch.bool)
        for ignored in self.ignored:
            known &= labels != ignored
        hint = f", the {classes} channels of the scores"
        self.check_range(labels[known], classes, "label", hint)
        own = torch.where(known, labels, 0)
        if self.by_image:
            bias = torch.where(own == 0, p.bg_bias, p.fg_bias) * known
            total = scores.new_zeros(n, classes).scatter_add_(1, own, bias.to(scores.dtype))
            return scores + total[..., None, None]
        more = scores.new_zeros(n, classes, labels.shape[1])
        front = known & (labels != p.background_label) if self.background else known
        more.scatter_add_(1, own[:, None], (front[:, None] * p.fg_bias).to(scores.dtype))
        if self.background:
            more[:, p.background_label] += known * p.bg_bias
        return scores + more.reshape(scores.shape)


@register("UniqueLabel")
class UniqueLabel(Layer):
    """The labels that occur in each image, in rising order.

    Bottom: labels (N, 1, H, W). Top: (N, max_labels, 1, 1), -1 behind the last. `ignore_label` are
    left out, `force_label` are always there (DeepLab's unique_label_layer.cpp).
    """

    fork = "DeepLab"
    judge = "recorded"
    labels = (0,)
    reads = ("unique_label_param",)
    look = OUTPUT

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.unique_label_param
        forced = len(set(p.force_label))
        self.check(
            p.max_labels > forced,
            f"max_labels is {p.max_labels}, expected more than the {forced} of force_label",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = shapes[0]
        self.check(
            len(shape) >= 2 and shape[1] == 1,
            f"bottom has the shape {shape}, expected one channel, (N, 1, H, W)",
        )
        return [(shape[0], self.layer_param.unique_label_param.max_labels, 1, 1)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        p, x = self.layer_param.unique_label_param, bottom[0].detach()
        out = x.new_full(top, -1)
        ignored = x.new_tensor(list(p.ignore_label))
        for i, labels in enumerate(x.flatten(1)):
            labels = labels[~torch.isin(labels, ignored)]
            found = torch.unique(torch.cat([labels, x.new_tensor(list(p.force_label))]))
            self.check(
                len(found) <= p.max_labels,
                f"image {i} has {len(found)} labels; max_labels {p.max_labels} is out of range",
            )
            out[i, : len(found), 0, 0] = found
        return out


@register("DomainTransform")
class DomainTransform(Layer):
    """Smoothing that stops at edges: a recursive filter along rows and columns, num_iter times.

    Bottoms: values (N, C, H, W); the strength of an edge at each pixel (N, 1, H, W); the height and
    width of each image (N, 2, ...), outside of which values stay as they are. Each pass mixes a
    pixel with the neighbour before it, by exp(-sqrt(2) / sigma_i (1 + edge spatial_sigma /
    range_sigma)), but at least min_weight. The gradient of the edges does not see min_weight
    (Gastal and Oliveira, 2011; Chen et al., 2016; DeepLab's domain_transform_layer.cpp).
    """

    fork = "DeepLab"
    judge = "recorded"
    bottoms = (3, 3)
    labels = (2,)
    reads = ("domain_transform_param",)
    look = Look("Other")

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.domain_transform_param
        for name in ("spatial_sigma", "range_sigma", "num_iter"):
            value = getattr(p, name)
            self.check(value > 0, f"{name} is {value:g}, expected a positive number")
        self.check(p.min_weight >= 0, f"min_weight is {p.min_weight:g}, expected at least 0")
        self.check(p.num_iter <= 32, f"num_iter is {p.num_iter}, expected at most 32")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        values, edges, sizes = shapes
        self.check(
            len(values) == 4 and min(values[1:]) > 0,
            f"bottom 0 has the shape {values}, expected (N, C, H, W)",
        )
        expected = (values[0], 1, *values[2:])
        self.check(edges == expected, f"bottom 1 has the shape {edges}, expected {expected}")
        self.check(
            sizes[:1] == values[:1] and math.prod(sizes[1:]) >= 2,
            f"bottom 2 has the shape {sizes}, expected a height and a width for each image",
        )
        return [values]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        values, edges, sizes = bottom
        images = []
        for x, edge, size in zip(values, edges, sizes.detach().flatten(1).tolist(), strict=True):
            height, width = size[:2]
            self.check(
                0 <= height <= x.shape[1] and 0 <= width <= x.shape[2],
                f"an image's size {height:g} x {width:g} is out of range, {tuple(x.shape[1:])}",
            )
            height, width = int(height), int(width)
            inside = self._filter(x[:, :height, :width], edge[:, :height, :width])
            lower = torch.cat([inside, x[:, :height, width:]], 2)
            images.append(torch.cat([lower, x[:, height:]], 1))
        return torch.stack(images) if images else values.clone()

    def _filter(self, x: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
        p = self.layer_param.domain_transform_param
        for i in range(p.num_iter):
            sigma = p.spatial_sigma * math.sqrt(3) * 2.0 ** (p.num_iter - i - 1)
            factor = -math.sqrt(2) * math.sqrt(4.0**p.num_iter - 1) / sigma
            slope = factor * p.spatial_sigma / p.range_sigma
            weight = (factor + slope * edge.detach()).exp().clamp(p.min_weight, 1)
            weight = with_gradient_of(weight, weight * slope * edge)
            x = _both_ways(x, weight, 2)
            x = _both_ways(x, weight, 1)
        return x


def _both_ways(x: torch.Tensor, weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Mix each value with the one before it, then with the one behind it; weight i is for the pair
    i - 1, i.
    """
    values, weights = list(x.unbind(axis)), weight.unbind(axis)
    for i in range(1, len(values)):
        values[i] = torch.lerp(values[i], values[i - 1], weights[i].expand_as(values[i]))
    for i in reversed(range(len(values) - 1)):
        values[i] = torch.lerp(values[i], values[i + 1], weights[i + 1].expand_as(values[i]))
    return torch.stack(values, axis) if values else x


@register("GRN")
class GRN(Layer):
    """Each position's channels divided by their length: x / sqrt(sum of x^2 over channels + bias).

    Bottom and top: (N, C, ...), at most 4 axes. With `dummy_backward` the gradient passes as it is
    (grn_layer.cpp of OpenCV's training toolbox).
    """

    fork = "OpenCV training toolbox"
    judge = "recorded"
    reads = ("grn_param",)
    look = NORM

    def setup(self, shapes: Sequence[Shape]) -> None:
        bias = self.layer_param.grn_param.bias
        self.check(bias >= 0, f"bias is {bias:g}, expected at least 0")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = shapes[0]
        self.check(
            2 <= len(shape) <= 4, f"bottom has the shape {shape}, expected 2 to 4 axes, (N, C, ...)"
        )
        return [shape]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, x = self.layer_param.grn_param, bottom[0]
        y = x / (x.square().sum(1, keepdim=True) + p.bias).sqrt()
        return with_gradient_of(y, x) if p.dummy_backward else y

    def onnx(self, graph: Graph, x: Value) -> str:
        axes = graph.constant([1], "int64")
        square = graph.add("ReduceSum", graph.add("Mul", x, x), axes, keepdims=1)
        shifted = graph.affine(square, 1, self.layer_param.grn_param.bias)
        return graph.add("Div", x, graph.add("Sqrt", shifted))


@register("SegmentationEvaluate")
class SegmentationEvaluate(Layer):
    """Intersection over union of each mask of the first sample, at a threshold.

    Bottoms: masks and true masks, both (N, C, ...) of values 0 to 1. Top: (1, 1, 1, C). Masks of
    another size are resized to the true ones' as pictures of bytes, and then a class without true
    pixels is -1 (segmentation_evaluate_layer.cpp of eric612/MobileNet-YOLO).
    """

    fork = "MobileNet-YOLO"
    judge = "worked cases"
    bottoms = (2, 2)
    labels = (0, 1)
    reads = ("segmentation_evaluate_param",)
    look = OUTPUT

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        masks, truth = shapes
        self.check(
            len(masks) == len(truth) == 4 and masks[1] == truth[1] and min(*masks, *truth) > 0,
            f"bottoms of shapes {masks} and {truth} must be (N, C, H, W) of the same classes",
        )
        return [(1, 1, 1, truth[1])]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        threshold = self.layer_param.segmentation_evaluate_param.threshold
        masks, truth = (x[0].detach() for x in bottom)
        true, resized = truth > threshold, masks.shape != truth.shape
        if resized:
            found = _resized(masks, truth.shape[1:]) > int(threshold * 255)
        else:
            found = masks > threshold
        both = (true & found).sum((1, 2)).to(masks.dtype)
        union = (true | found).sum((1, 2)).to(masks.dtype)
        scores = torch.where(both > 0, both / union.clamp(min=1), 0.0)
        if resized:
            scores = torch.where(true.any(2).any(1), scores, -1.0)
        return scores.reshape(1, 1, 1, -1)


def _resized(masks: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Masks (C, H, W) of 0 to 1 as bytes in another size."""
    planes = (masks.nan_to_num().clamp(0, 1) * 255).to(torch.uint8).cpu().numpy()
    changed = [cv2.resize(plane, (int(size[1]), int(size[0]))) for plane in planes]
    return torch.from_numpy(np.stack(changed)).to(masks.device)

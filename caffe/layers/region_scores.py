"""Scores of regions and of their surroundings (R*CNN)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.loss import _Loss, rows

NOT_KNOWN = -1  # a target that does not count


@register("MIL")
class MIL(Layer):
    """The largest of the scores of each region's context_per_roi surroundings.

    Bottom: (R context_per_roi, C). Top: (R, C, 1, 1). Equal largest scores all get the gradient
    (R*CNN's mil_layer.cpp; Gkioxari et al., 2015).
    """

    fork = "R*CNN"
    judge = "recorded"
    in_place = False
    reads = ("mil_param",)
    takes = ("mil_param.context_per_roi",)
    differs = "caffe-windows' MIL, whose mil_param has a `type`, is not here."

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.count = self.layer_param.mil_param.context_per_roi
        self.check(self.count > 0, f"context_per_roi is {self.count}, expected at least 1")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        [shape] = shapes
        self.check(
            len(shape) >= 2 and shape[0] % self.count == 0 and math.prod(shape[2:]) == 1,
            f"the bottom has the shape {shape}, expected (R * {self.count}, C)",
        )
        return [(shape[0] // self.count, shape[1], 1, 1)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        [shape] = self.top_shapes(bottom)
        scores = bottom[0].reshape(shape[0], self.count, shape[1])
        best = scores.detach().amax(1, keepdim=True)
        # All of the equal largest scores get the whole gradient.
        same = scores.detach() == best
        top = best + torch.where(same, scores - scores.detach(), 0).sum(1, keepdim=True)
        return top.view(shape)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        [shape] = self.infer_shapes([bottoms[0].shape])
        scores = graph.reshape(bottoms[0], [-1, self.count, shape[1]], keeps_batch=False)
        best = graph.add("ReduceMax", scores, axes=[1], keepdims=0)
        return graph.reshape(best, [-1, *shape[1:]], keeps_batch=False)


@register("Sum")
class Sum(Layer):
    """The sum of the bottoms, which have one count and the same channels (R*CNN's sum_layer.cpp).

    Bottoms: of any shape. Top: the shape of the first.
    """

    fork = "R*CNN"
    judge = "recorded"
    bottoms = (1, None)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        for i, shape in enumerate(shapes):
            self.check(
                math.prod(shape) == math.prod(shapes[0]) and shape[1:2] == shapes[0][1:2],
                f"bottom {i} has the shape {shape}, expected as many values as {shapes[0]}",
            )
        return shapes[:1]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        [shape] = self.top_shapes(bottom)
        total = bottom[0]
        for x in bottom[1:]:
            total = total + x.reshape(shape)
        return total

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        same = [
            x.name if x.shape == bottoms[0].shape else graph.reshape(x, bottoms[0].shape)
            for x in bottoms
        ]
        return graph.add("Sum", *same)


@register("SigmoidCrossEntropyWeightedLoss")
class SigmoidCrossEntropyWeightedLoss(_Loss):
    """SigmoidCrossEntropyLoss in which targets of -1 do not count, over the number of samples.

    Bottoms: scores (N, ...); as many targets, (N, ...) (R*CNN's
    sigmoid_cross_entropy_weighted_loss_layer.cpp).
    """

    fork = "R*CNN"
    judge = "recorded"

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        tops = super().infer_shapes(shapes)
        self.check(
            math.prod(shapes[0]) == math.prod(shapes[1]),
            f"bottoms of shapes {shapes[0]} and {shapes[1]} must have equally many values",
        )
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        scores, targets = rows(bottom[0]), bottom[1].detach()
        targets = targets.reshape(scores.shape)
        each = F.binary_cross_entropy_with_logits(scores, targets, reduction="none")
        each = torch.where(targets == NOT_KNOWN, torch.zeros_like(each), each)
        return each.sum() / max(1, len(scores))

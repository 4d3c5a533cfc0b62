"""GradientScaler: the reversed gradient of domain adaptation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of


@register("GradientScaler")
class GradientScaler(Layer):
    """The bottom as it is; its gradient is the top's times -c (Ganin and Lempitsky, 2015;
    gradient_scaler_layer.cpp).

    c is 1 without a solver. In iteration i of a solver it is 2 h / (1 + exp(-alpha i / max_iter)) -
    h + lower_bound, with h = upper_bound - lower_bound, and stays from max_iter on.
    """

    fork = "ddtm/caffe"
    judge = "recorded"
    reads = ("gradient_scaler_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.gradient_scaler_param
        self.check(
            p.lower_bound <= p.upper_bound and p.alpha >= 0 and p.max_iter >= 1,
            f"lower_bound {p.lower_bound:g}, upper_bound {p.upper_bound:g}, alpha {p.alpha:g} and "
            f"max_iter {p.max_iter:g} do not make a schedule",
        )
        self.factor = 1.0

    def at_iteration(self, number: int) -> None:
        p = self.layer_param.gradient_scaler_param
        height, progress = p.upper_bound - p.lower_bound, min(1.0, number / p.max_iter)
        self.factor = 2 * height / (1 + math.exp(-p.alpha * progress)) - height + p.lower_bound

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [tuple(shapes[0])]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return with_gradient_of(bottom[0], -self.factor * bottom[0])

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.add("Identity", bottoms[0])

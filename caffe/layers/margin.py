"""Layers that widen the margin between classes while a net for recognition is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, can_look, register
from caffe.proto import caffe_pb2 as pb


def _scores(layer: Layer, shapes: Sequence[Shape]) -> Shape:
    """The shape of the scores, bottom 0, for which bottom 1 has one label a sample."""
    scores, labels = (tuple(shape) for shape in shapes)
    layer.check(
        scores[:1] == (math.prod(labels),) and (not scores[0] or math.prod(scores[1:]) > 0),
        f"bottoms have the shapes {scores} and {labels}, expected scores and one label for each "
        "sample",
    )
    return scores


class _Annealed(Layer):
    """A layer in which some number depends on how many forward passes it has made."""

    passes = start = 0

    def start_at(self, passes: int) -> None:
        """The number of passes that count as made before the first."""
        self.passes = self.start = passes

    def count(self, x: torch.Tensor) -> int:
        """How many passes there were before this one, which is counted."""
        before = self.passes
        if can_look(x):
            self.passes += 1
        return before

    def reset(self) -> None:
        self.passes = self.start

    def record(self, inputs: Tensors) -> Tensors:
        """Run the last batch again: with the number that it had."""
        self.passes = max(self.start, self.passes - 1)
        return super().record(inputs)

    def position(self) -> dict[str, Any] | None:
        return {"passes": self.passes}

    def go_on(self, position: dict[str, Any]) -> None:
        self.passes = int(position["passes"])


def labels_of(layer: Layer, labels: torch.Tensor, rows: int, classes: int) -> torch.Tensor:
    """One label for each row, (rows, 1). Raises CaffeError unless all are 0 to `classes` - 1."""
    labels = labels.detach().long().reshape(rows, 1)
    layer.check_range(labels, classes, "label")
    return labels


@register("LabelSpecificAdd")
class LabelSpecificAdd(_Annealed):
    """Lowers the score of each sample's label by a margin, where it exceeds the margin.

    Bottoms: scores (N, ...); N labels. Tops: the scores; perhaps the number added, (1). In TEST the
    scores stay. The margin is |bias|. With bias_base it is -b for pass i from `iteration` on, where
    b = bias_base + (1 + bias_gamma i)^bias_power - 1, limited to bias_min .. bias_max; the score is
    raised where b is positive (Wang et al., 2018; label_specific_add.cpp).
    """

    fork = "caffe-windows, OpenCV training toolbox"
    judge = "recorded"
    bottoms = (2, 2)
    tops = (1, 2)
    labels = (1,)
    reads = ("label_specific_add_param",)
    differs = (
        "A positive `bias` without bias_base is a margin, as in OpenCV's toolbox; caffe-windows "
        "adds it. `transform_test` is without effect, as in the forks."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.start_at(self.layer_param.label_specific_add_param.iteration)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        scores = _scores(self, shapes)
        return [scores, (1,)][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.top_shapes(bottom)
        x = bottom[0]
        if self.phase == pb.TEST:
            return [x.clone(), x.new_zeros(1)][: self.num_tops]
        bias = self._bias(x)
        rows = x.reshape(x.shape[0], math.prod(x.shape[1:]))
        labels = labels_of(self, bottom[1], *rows.shape)
        chosen = rows.detach().gather(1, labels)
        added = torch.where(chosen > -bias, bias, 0.0).to(rows)
        top = rows.scatter_add(1, labels, added).reshape(x.shape)
        return [top, x.new_full((1,), bias)][: self.num_tops]

    def _bias(self, x: torch.Tensor) -> float:
        """The number that is added to the labels' scores."""
        p = self.layer_param.label_specific_add_param
        if not p.HasField("bias_base"):
            return -abs(p.bias)
        bias = p.bias_base + (1 + p.bias_gamma * self.count(x)) ** p.bias_power - 1
        return min(max(bias, p.bias_min), p.bias_max)

    def position(self) -> dict[str, Any] | None:
        annealed = self.layer_param.label_specific_add_param.HasField("bias_base")
        return super().position() if annealed else None

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return [bottoms[0].name, graph.constant([0])][: self.num_tops]


@register("LabelSpecificRescale")
class LabelSpecificRescale(Layer):
    """Multiplies the score of each sample's label by positive_weight, and the others by
    negative_weight.

    Bottoms: scores (N, ...); N labels. Top: the scores. In TEST the scores stay, unless
    rescale_test (Wang et al., 2017; caffe-windows' label_specific_rescale_layer.cpp).
    """

    fork = "caffe-windows"
    judge = "worked cases"
    bottoms = (2, 2)
    labels = (1,)
    reads = ("label_specific_rescale_param",)
    takes = tuple(
        f"label_specific_rescale_param.{name}"
        for name in ("positive_weight", "negative_weight", "rescale_test")
    )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        scores = _scores(self, shapes)
        return [scores]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, x = self.layer_param.label_specific_rescale_param, bottom[0]
        if self.phase == pb.TEST and not p.rescale_test:
            return x.clone()
        labels = labels_of(self, bottom[1], x.shape[0], math.prod(x.shape[1:]))
        factors = torch.full((x.shape[0], math.prod(x.shape[1:])), p.negative_weight).to(x)
        return x * factors.scatter(1, labels, p.positive_weight).reshape(x.shape)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p = self.layer_param.label_specific_rescale_param
        self.check(not p.rescale_test, "rescale_test has no ONNX form")
        return bottoms[0].name


# For each type of margin m = 1 to 4: the coefficients of c^0, c^1, ... in cos(m arccos c).
_CHEBYSHEV = ((0, 1), (-1, 0, 2), (0, -3, 0, 4), (1, 0, -8, 0, 8))


def _turned(cosine: torch.Tensor, kind: int) -> tuple[torch.Tensor, torch.Tensor]:
    """cos(m theta) continued to fall over 0 to pi, as sign * polynomial + step: sign and step."""
    zero = cosine.sign()
    if kind == 1:  # DOUBLE: 2 sign c^2 - 1; the step takes the polynomial's own -1 out
        return zero, zero - 1
    if kind == 2:
        sign = (cosine.abs() - 0.5).sign()
        return sign, zero * (1 + sign) - 2
    sign = zero * (2 * cosine.square() - 1).sign()
    return sign, 2 * zero + sign - 3


def _terms(kind: int) -> list[tuple[int, int]]:
    """The powers of the cosine and their coefficients."""
    return list(enumerate(_CHEBYSHEV[kind]))


class _SphereFace(torch.autograd.Function):
    """The scores of MarginInnerProduct, and the gradients of its code: the weight's is that of
    plain products; the bottom's has a vector of unit length of coefficients for the label's class.
    """

    @staticmethod
    def forward(ctx, x, weight, labels, kind: int, relax: float):
        products, norm = x @ weight.t(), x.norm(dim=1, keepdim=True)
        chosen = products.gather(1, labels)
        cosine = chosen / norm
        ctx.kind, ctx.relax = kind, relax
        ctx.save_for_backward(x, weight, labels, cosine, norm)
        if kind == 0:
            return products
        return products.scatter(1, labels, _widened(chosen, cosine, norm, kind, relax))

    @staticmethod
    def backward(ctx, grad):
        x, weight, labels, cosine, norm = ctx.saved_tensors
        down = grad @ weight
        if ctx.kind:
            sign, step = _turned(cosine, ctx.kind)
            terms = _terms(ctx.kind)
            by_weight = sign * sum(i * c * cosine ** (i - 1) for i, c in terms if i)
            by_bottom = sign * sum((1 - i) * c * cosine**i for i, c in terms) + step
            by_bottom = by_bottom / norm
            length = torch.sqrt(by_weight**2 + by_bottom**2)
            own = weight[labels[:, 0]]
            unit = (by_weight * own + by_bottom * x) / length
            down = down + grad.gather(1, labels) * (unit - own) / (1 + ctx.relax)
        return down, grad.t() @ x, None, None, None


def _widened(
    chosen: torch.Tensor, cosine: torch.Tensor, norm: torch.Tensor, kind: int, relax: float
) -> torch.Tensor:
    """The labels' scores: `relax` parts of the product, one of the turned angle's."""
    sign, step = _turned(cosine, kind)
    turned = norm * (sign * sum(c * cosine**i for i, c in _terms(kind)) + step)
    return (turned + relax * chosen) / (1 + relax)


class _MarginProduct(_Annealed):
    """A fully connected layer that asks the class of each sample's label for more.

    With x the sample, w the label's weight and t the angle between them, the label's score is the
    mean of |x| |w| cos t, weighted by lambda, and |x| |w| cos(m t), continued to fall over all
    angles, for type SINGLE, DOUBLE, TRIPLE or QUADRUPLE, m = 1 to 4. lambda falls: it is base
    (1 + gamma i)^-power for pass i, at least lambda_min.
    """

    judge = "recorded"
    bottoms = (2, 2)
    tops = (1, 2)
    labels = (1,)

    def settings(self) -> Any:
        """The message with the layer's parameters."""
        raise AssertionError("set by the subclass")

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.settings()
        self.start_at(p.iteration)
        self.features = math.prod(shapes[0][self.axis(p.axis, shapes[0]) :])
        if self.num_bottoms == 2:
            self.check(p.num_output > 0, "num_output must be positive")
            self.add_blob((p.num_output, self.features), p.weight_filler)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        x, labels, p = tuple(shapes[0]), shapes[1], self.settings()
        start = self.axis(p.axis, x)
        rows, features = math.prod(x[:start]), math.prod(x[start:])
        self.check(
            features == self.features,
            f"bottom {x} has {features} values from axis {start} on, expected {self.features}",
        )
        self.check(
            rows == math.prod(labels),
            f"labels (bottom 1) have the shape {tuple(labels)}, expected {rows} of them",
        )
        classes = self.blobs[0].shape[0] if self.num_bottoms == 2 else shapes[2][0]
        return [(*x[:start], classes), (1,)][: self.num_tops]

    def relax(self, x: torch.Tensor) -> float:
        """This pass's lambda."""
        p = self.settings()
        return max(p.base * (1 + p.gamma * (self.count(x) + 1)) ** -p.power, p.lambda_min)


@register("MarginInnerProduct")
class MarginInnerProduct(_MarginProduct):
    """A-Softmax: a fully connected layer with weights of unit length, in which the label's score
    is for a multiple of the angle.

    Bottoms: (..., values from `axis` on), one label for each vector. Tops: (..., num_output);
    perhaps lambda, (1). With x the sample and t its angle to the label's weight, the label's score
    is the mean of |x| cos t, weighted by lambda, and |x| cos(m t), continued to fall over all
    angles, for type SINGLE, DOUBLE, TRIPLE or QUADRUPLE, m = 1 to 4. lambda is
    base (1 + gamma i)^-power for pass i = iteration + 1, ..., at least lambda_min. Each pass scales
    the weights to unit length
    (Liu et al., 2017; SphereFace's margin_inner_product_layer.cpp).
    """

    fork = "SphereFace, caffe-windows"
    gathers = True
    reads = ("margin_inner_product_param",)
    differs = (
        "The gradient is SphereFace's, which is not the derivative: that of the weights is of "
        "plain products, and in that of the bottoms the label's part has unit coefficients."
    )

    def settings(self) -> Any:
        return self.layer_param.margin_inner_product_param

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        shapes, (x, weight) = self.top_shapes(bottom), (bottom[0], blobs[0])
        relax = self.relax(x)
        with torch.no_grad():
            weight.div_(weight.norm(dim=1, keepdim=True))
        rows = x.reshape(math.prod(shapes[0][:-1]), self.features)
        labels = labels_of(self, bottom[1], rows.shape[0], weight.shape[0])
        top = _SphereFace.apply(rows, weight, labels, self.settings().type, relax)
        return [top.reshape(shapes[0]), x.new_full((1,), relax)][: self.num_tops]


@register("LargeMarginInnerProduct")
class LargeMarginInnerProduct(_MarginProduct):
    """L-Softmax: a fully connected layer in which the label's score is for a multiple of the angle.

    Bottoms: (..., values from `axis` on), one label for each vector; perhaps the weights (classes,
    values). Tops: (..., num_output or classes); perhaps lambda, (1). With x the sample, w the
    label's weight and t their angle, the label's score is the mean of |x| |w| cos t, weighted by
    lambda, and |x| |w| cos(m t), continued to fall over all angles, for type SINGLE, DOUBLE, TRIPLE
    or QUADRUPLE, m = 1 to 4. lambda is base (1 + gamma i)^-power for pass i = iteration + 1, ...,
    at least lambda_min (Liu et al., 2016; caffe-windows' largemargin_inner_product_layer.cpp).
    """

    fork = "caffe-windows"
    bottoms = (2, 3)
    reads = ("largemargin_inner_product_param",)

    def settings(self) -> Any:
        return self.layer_param.largemargin_inner_product_param

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        self.check(
            len(shapes) == 2 or (len(shapes[2]) > 0 and self._fits(shapes[2])),
            f"weights (bottom 2) have the shape {tuple(shapes[-1])}, expected (classes, "
            f"{self.features})",
        )
        return super().infer_shapes(shapes)

    def _fits(self, weight: Shape) -> bool:
        return math.prod(weight[1:]) == self.features

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        shapes, x = self.top_shapes(bottom), bottom[0]
        weight = blobs[0] if self.num_bottoms == 2 else bottom[2].reshape(-1, self.features)
        relax, kind = self.relax(x), self.settings().type
        rows = x.reshape(math.prod(shapes[0][:-1]), self.features)
        labels = labels_of(self, bottom[1], rows.shape[0], weight.shape[0])
        top = rows @ weight.t()
        if kind:
            chosen = top.gather(1, labels)
            norm = (rows.norm(dim=1) * weight.norm(dim=1)[labels[:, 0]])[:, None] + 1e-9
            top = top.scatter(1, labels, _widened(chosen, chosen / norm, norm, kind, relax))
        return [top.reshape(shapes[0]), x.new_full((1,), relax)][: self.num_tops]

"""Layers that learn distances: centres of classes, distances to them, losses of pairs and triplets.

Their sources are caffe-windows (branch ms; Wang et al., 2017, NormFace), caffe-face, and others.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.loss import _Loss, rows
from caffe.layers.margin import labels_of
from caffe.proto import caffe_pb2 as pb


class _CentersPull(torch.autograd.Function):
    """A loss, and a gradient of the centres that does not depend on its weight."""

    @staticmethod
    def forward(ctx, loss: torch.Tensor, centers: torch.Tensor, gradient: torch.Tensor):
        ctx.save_for_backward(gradient)
        return loss.clone()

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        return grad, ctx.saved_tensors[0], None


@register("CenterLoss")
class CenterLoss(_Loss):
    """Half the mean over the samples of the squared distance to the centre of the sample's class;
    distance_type "L1": the mean of the sum of magnitudes.

    Bottoms: (N, ...), the values from `axis` on; N labels. The centres (num_output, values) are
    learned: their gradient is the sum of what they miss of their samples, over the number of these
    plus one, whatever the weight of the loss (Wen et al., 2016; caffe-face's
    center_loss_layer.cpp).
    """

    fork = "caffe-face, caffe-windows, hsmyy/CenterLoss_Caffe_Mnist"
    judge = "recorded"
    reads = ("center_loss_param",)
    takes = tuple(
        f"center_loss_param.{name}"
        for name in ("num_output", "center_filler", "axis", "distance_type")
    )
    differs = (
        "The gradient of the centres is caffe-face's, which is not the derivative; caffe-windows' "
        "is that times the number of samples. hsmyy's form (`cluster_num`) is refused: its centres "
        "are not saved."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.center_loss_param
        self.check(
            not p.HasField("cluster_num"),
            "cluster_num, alpha and loss_weight are another fork's, whose centres are not saved; "
            "give num_output, center_filler and the layer's loss_weight",
        )
        self.check(p.num_output > 0, "num_output must be positive")
        self.check(
            p.distance_type in ("L1", "L2"),
            f"distance_type is {p.distance_type!r}, expected 'L1' or 'L2'",
        )
        axis = self.axis(p.axis, shapes[0])
        self.check(axis == 1, f"axis is {p.axis}, expected 1: the values of a sample")
        self.add_blob((p.num_output, math.prod(shapes[0][axis:])), p.center_filler)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        tops = super().infer_shapes(shapes)
        x, labels = shapes
        self.check(
            math.prod(labels) == labels[0] and math.prod(x[1:]) == self.blobs[0].shape[1],
            f"bottoms have the shapes {tuple(x)} and {tuple(labels)}, expected "
            f"{self.blobs[0].shape[1]} values and one label a sample",
        )
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        x, centers = rows(bottom[0]), blobs[0]
        labels = labels_of(self, bottom[1], x.shape[0], centers.shape[0])[:, 0]
        missed = x - centers.detach()[labels]
        if self.layer_param.center_loss_param.distance_type == "L1":
            loss, missed = missed.abs().sum(), missed.sign()
        else:
            loss = missed.square().sum() / 2
        pull = torch.zeros_like(centers).index_add(0, labels, -missed.detach())
        count = torch.bincount(labels, minlength=centers.shape[0])[:, None]
        return _CentersPull.apply(loss / max(1, x.shape[0]), centers, pull / (count + 1))


@register("InnerDistance")
class InnerDistance(Layer):
    """The squared distance of each vector to each row of the weights; distance_type "L1": the sum
    of magnitudes.

    Bottoms: (..., values from `axis` on); perhaps the weights (classes, ...); perhaps one label for
    each vector. Top: (..., classes). Without weights as a bottom there are learned ones
    (num_output, values), which `normalize` scales to unit length in each pass. With
    update_center_only, which needs labels, the weights get the gradient of their own samples only
    (caffe-windows' inner_distance_layer.cpp).
    """

    fork = "caffe-windows"
    judge = "recorded"
    bottoms = (1, 3)
    labels = (2,)
    reads = ("inner_distance_param",)
    differs = (
        "`bias_term` and `bias_filler` are without effect, as in the fork. The gradient of L1 is "
        "the derivative; the fork's has a slip in its sign."
    )
    multiplies = True

    @property
    def gathers(self) -> bool:
        return self.layer_param.inner_distance_param.normalize

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.inner_distance_param
        self.features = math.prod(shapes[0][self.axis(p.axis, shapes[0]) :])
        self.check(
            p.distance_type in ("L1", "L2"),
            f"distance_type is {p.distance_type!r}, expected 'L1' or 'L2'",
        )
        self.check(not p.transpose, "transpose is not supported; the fork does not use it, either")
        self.check(
            p.update_center_only == (len(shapes) == 3),
            f"update_center_only is {p.update_center_only} with {len(shapes)} bottom(s); it needs "
            "weights as bottom 1 and labels as bottom 2",
        )
        if len(shapes) == 1:
            self.check(p.num_output > 0, "num_output must be positive")
            self.add_blob((p.num_output, self.features), p.weight_filler)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        x, p = tuple(shapes[0]), self.layer_param.inner_distance_param
        start = self.axis(p.axis, x)
        features = math.prod(x[start:])
        self.check(
            features == self.features,
            f"bottom {x} has {features} values from axis {start} on, expected {self.features}",
        )
        if len(shapes) == 1:
            return [(*x[:start], self.blobs[0].shape[0])]
        weight = tuple(shapes[1])
        self.check(
            len(weight) > 1 and math.prod(weight[1:]) == features,
            f"weights (bottom 1) have the shape {weight}, expected (classes, {features})",
        )
        self.check(
            len(shapes) == 2 or math.prod(shapes[2]) == math.prod(x[:start]),
            f"labels (bottom 2) have the shape {tuple(shapes[-1])}, expected "
            f"{math.prod(x[:start])} of them",
        )
        return [(*x[:start], weight[0])]

    def macs(self, shapes: Sequence[Shape]) -> int:
        return math.prod(self.infer_shapes(shapes)[0]) * self.features

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (shape,) = self.top_shapes(bottom)
        p = self.layer_param.inner_distance_param
        x = bottom[0].reshape(math.prod(shape[:-1]), self.features)
        if len(bottom) > 1:
            weight = rows(bottom[1])
        else:
            weight = blobs[0]
            if p.normalize:
                with torch.no_grad():
                    weight.div_((weight.square().sum(1, keepdim=True) + 1e-6).sqrt())
        if len(bottom) < 3:
            return self._distances(x, weight).reshape(shape)
        labels = labels_of(self, bottom[2], x.shape[0], weight.shape[0])
        own = torch.zeros(shape[-1], device=x.device).expand(x.shape[0], -1).scatter(1, labels, 1)
        free = self._distances(x, weight.detach())
        held = self._distances(x.detach(), weight)
        held = torch.where(own.bool(), held, held.detach())
        return (free + held - held.detach()).reshape(shape)

    def onnx(self, graph: Graph, *bottoms: Value) -> str:
        p, shape = self.layer_param.inner_distance_param, bottoms[0].shape
        shape = shape[: self.axis(p.axis, shape)]
        x = graph.reshape(bottoms[0], (*shape, self.features))
        if len(bottoms) == 1:
            values = self.array(0)
            if p.normalize:
                values = values / np.sqrt(np.square(values).sum(1, keepdims=True) + 1e-6)
            weight, classes = graph.constant(values), len(values)
        else:
            classes = bottoms[1].shape[0]
            weight = graph.reshape(bottoms[1], (classes, self.features), keeps_batch=False)
        if p.distance_type == "L1":
            wide = graph.reshape(x, (*shape, 1, self.features))
            apart = graph.add("Abs", graph.add("Sub", wide, weight))
            return graph.add("ReduceSum", apart, graph.constant([-1], np.int64), keepdims=0)
        lengths = [
            graph.add("ReduceSumSquare", y, axes=[-1], keepdims=keep)
            for y, keep in ((x, 1), (weight, 0))
        ]
        products = graph.add("MatMul", x, graph.add("Transpose", weight, perm=[1, 0]))
        return graph.add("Add", graph.add("Add", *lengths), graph.affine(products, -2, 0))

    def _distances(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """The distances (vectors, classes)."""
        if self.layer_param.inner_distance_param.distance_type == "L1":
            return torch.cdist(x, weight, p=1)
        lengths = x.square().sum(1, keepdim=True) + weight.square().sum(1)
        return torch.addmm(lengths, x, weight.t(), alpha=-2)


class _ClassDistances(_Loss):
    """A loss of the distances (N, classes) of samples to their classes' centres.

    A second top holds the mean distance to the own class, that to the others, and perhaps more.
    """

    fork = "caffe-windows"
    judge = "recorded"
    bottoms = (2, 3)
    tops = (1, 2)
    labels = (1, 2)
    means = 2

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        super().infer_shapes(shapes)
        distances, labels = shapes[:2]
        self.check(
            math.prod(labels) == labels[0] and math.prod(distances[1:]) > 0,
            f"bottoms have the shapes {tuple(distances)} and {tuple(labels)}, expected distances "
            "to the classes and one label a sample",
        )
        return [(), (self.means,)][: self.num_tops]

    def parts(self, bottom: Tensors, data: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Distances (N, classes) without gradient, the own one (N, 1), and which is the own."""
        self.top_shapes(bottom)
        distances = rows(data.detach())
        labels = labels_of(self, bottom[1], *distances.shape)
        own = torch.zeros_like(distances).scatter(1, labels, 1).bool()
        return distances, distances.gather(1, labels), own

    def result(
        self,
        x: torch.Tensor,
        each: torch.Tensor,
        gradient: torch.Tensor,
        means: Sequence[torch.Tensor | float],
    ) -> Tensors:
        """The tops: the sum of |each| over N, with this gradient times N; the means."""
        samples = max(1, x.shape[0])
        loss = each.abs().sum() / samples
        loss = with_gradient_of(loss, (rows(x) * gradient).sum() / samples)
        return [loss, torch.tensor([float(m) for m in means]).to(x)][: self.num_tops]

    def mean_others(self, total: torch.Tensor, distances: torch.Tensor) -> torch.Tensor:
        """A sum over all samples and their other classes as a mean."""
        samples, classes = distances.shape
        return total / max(1, samples * (classes - 1))


@register("GeneralContrastiveLoss")
class GeneralContrastiveLoss(_ClassDistances):
    """Pulls samples to the centre of their class, and pushes them from the others' up to a margin.

    Bottoms: distances (N, classes); N labels; perhaps distances to take in place of bottom 0's,
    which gets the gradient all the same. Tops: the loss; the means of the own distance and of what
    the others miss of the margin (2), with add_intra_mae and of the running mean of the own (3).
    The own distance counts from positive_margin to positive_outlier_thresh, times positive_weight;
    of the others what they miss of negative_margin, or e^-distance with exp_negative_weight, times
    negative_weight. max_negative_only: only the largest of these. max_positive_only: only the
    batch's smallest own one. positive_first: no others while the own distance exceeds
    positive_upper_bound. normalize_negative limits the others' gradient. add_intra_mae adds the
    running mean to the margin (general_constrastive_loss_layer.cpp).
    """

    reads = ("general_contrastive_loss_param",)
    differs = "`square` is without effect, as in the fork."
    _mean = _mean_before = 0.0

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.means = 3 if self.layer_param.general_contrastive_loss_param.add_intra_mae else 2

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        p = self.layer_param.general_contrastive_loss_param
        distances, own, is_own = self.parts(bottom, bottom[2] if len(bottom) > 2 else bottom[0])
        margin = p.negative_margin + (self._mean if p.add_intra_mae else 0)
        pulls = (own - p.positive_margin).clamp(0, None).clamp(max=p.positive_outlier_thresh)
        near = (distances < margin) & ~is_own
        missed = torch.where(near, margin - distances, 0)
        push = distances.neg().exp() if p.exp_negative_weight else missed
        push = torch.where(near, push, 0) * p.negative_weight
        each = torch.where(is_own, pulls * p.positive_weight, push)
        kept = self._kept(each, is_own, near)
        far = own > p.positive_upper_bound if p.positive_first else torch.zeros_like(own).bool()
        each = torch.where(kept & ~(far & ~is_own), each, 0)
        gradient = self._gradient(distances, is_own, near & kept, kept, far)
        self._update(pulls)
        means = [pulls.mean(), self.mean_others(missed.sum(), distances), self._mean]
        return self.result(bottom[0], each, gradient, means[: self.means])

    def _kept(self, each: torch.Tensor, is_own: torch.Tensor, near: torch.Tensor) -> torch.Tensor:
        """Which of the distances count under max_positive_only and max_negative_only."""
        p = self.layer_param.general_contrastive_loss_param
        kept = torch.ones_like(is_own)
        columns = torch.arange(each.shape[1], device=each.device)
        if p.max_negative_only:
            # The fork starts with class 0, also where that is the sample's own.
            candidates = torch.where(near | (columns == 0), each, -math.inf)
            kept = is_own | (columns == candidates.argmax(1, keepdim=True))
        if p.max_positive_only and len(each):  # the smallest, in the fork
            smallest = each[is_own].argmin()
            chosen = torch.arange(len(each), device=each.device)[:, None] == smallest
            kept = kept & (chosen | ~is_own)
        return kept

    def _gradient(
        self,
        distances: torch.Tensor,
        is_own: torch.Tensor,
        pushed: torch.Tensor,
        kept: torch.Tensor,
        far: torch.Tensor,
    ) -> torch.Tensor:
        """The fork's gradient, times the number of samples."""
        p = self.layer_param.general_contrastive_loss_param
        inside = (distances > p.positive_margin) & (distances < p.positive_outlier_thresh)
        pull = torch.where((inside & kept) | far, p.positive_weight, 0.0)
        push = distances.neg().exp() if p.exp_negative_weight else torch.ones_like(distances)
        push = torch.where(pushed & ~far, push * p.negative_weight, 0)
        if p.HasField("normalize_negative"):
            size = push.sum().abs() / p.normalize_negative / max(1, len(distances))
            push = torch.where(size > p.positive_weight, push / size, push)
        return torch.where(is_own, pull.to(distances), -push)

    def _update(self, pulls: torch.Tensor) -> None:
        """Move the running mean of the own distances."""
        self._mean_before = self._mean
        if self.layer_param.general_contrastive_loss_param.add_intra_mae and not pulls.is_meta:
            mean = 0.99 * self._mean + 0.01 * float(pulls.mean())
            limit = self.layer_param.general_contrastive_loss_param.max_negative_margin
            self._mean = min(mean, limit)

    def reset(self) -> None:
        self._mean = 0.0

    def record(self, inputs: Tensors) -> Tensors:
        """Run the last batch again: with the running mean that it had."""
        self._mean = self._mean_before
        return super().record(inputs)

    def position(self) -> dict[str, Any] | None:
        return {"mean": self._mean} if self.means == 3 else None

    def go_on(self, position: dict[str, Any]) -> None:
        self._mean = float(position["mean"])


@register("GeneralTripletLoss")
class GeneralTripletLoss(_ClassDistances):
    """Asks that each sample is nearer to the centre of its class than to all others, by a margin.

    Bottoms: distances (N, classes); N labels; perhaps a factor of each sample's gradient, N of
    them. Tops: the loss; the mean own distance and the mean of the others (2). The loss is the mean
    over the samples of the sum of max(0, own + margin - other) negative_weight; hardest_only: of
    its largest term. The gradient is -negative_weight for each such class, and positive_weight for
    the own, if there is any, or add_center_loss. positive_first: only the own while its distance
    exceeds positive_upper_bound (general_triplet_loss_layer.cpp).
    """

    reads = ("general_triplet_loss_param",)
    differs = "The gradient is the fork's, which is not the derivative."

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        tops = super().infer_shapes(shapes)
        self.check(
            len(shapes) == 2 or math.prod(shapes[2]) == shapes[0][0],
            f"factors (bottom 2) have the shape {tuple(shapes[-1])}, expected one a sample",
        )
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        p = self.layer_param.general_triplet_loss_param
        distances, own, is_own = self.parts(bottom, bottom[0])
        each = (own + p.margin - distances).clamp(min=0) * p.negative_weight
        each = torch.where(is_own, 0, each)
        active = (own + p.margin > distances) & ~is_own
        if p.hardest_only:
            columns = torch.arange(each.shape[1], device=each.device)
            hardest = (columns == each.argmax(1, keepdim=True)) & (each > 0)
            each, active = torch.where(hardest, each, 0), hardest & (distances != 0)
        far = own > p.positive_upper_bound if p.positive_first else torch.zeros_like(own).bool()
        each = torch.where(far, 0, each)
        some = active.any(1, keepdim=True) | p.add_center_loss
        pull = torch.where(far | some, p.positive_weight, 0.0)
        push = torch.where(active & ~far, -p.negative_weight, 0.0)
        gradient = torch.where(is_own, pull, push).to(distances)
        if len(bottom) > 2:
            gradient = gradient * bottom[2].detach().reshape(-1, 1)
        others = torch.where(is_own, 0, distances).sum()
        means = [own.mean(), self.mean_others(others, distances)]
        return self.result(bottom[0], each, gradient, means)


@register("TripletLoss")
class TripletLoss(_Loss):
    """Half the mean over the samples of max(0, margin + |a - p|^2 - |a - n|^2).

    Bottoms: anchors a, positives p and negatives n, (N, C) or (N, C, 1, 1) each; perhaps weights,
    which do not count (Schroff et al., 2015; caffe-windows' triplet_loss_layer.cpp).
    """

    fork = "caffe-windows"
    judge = "recorded"
    bottoms = (3, 4)
    labels = (3,)
    reads = ("triplet_loss_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        first = tuple(shapes[0])
        for i, shape in enumerate(shapes[:3]):
            self.check(
                tuple(shape) == first and len(first) >= 2 and math.prod(first[2:]) == 1,
                f"bottom {i} has the shape {tuple(shape)}, bottom 0 {first}; they must be equal, "
                "with axes of 1 behind samples and channels",
            )
        return [()]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        a, p, n = (rows(x) for x in bottom[:3])
        near, far = (a - p).square().sum(1), (a - n).square().sum(1)
        missed = (self.layer_param.triplet_loss_param.margin + near - far).relu()
        return missed.sum() / (2 * max(1, a.shape[0]))


@register("ChannelScale")
class ChannelScale(Layer):
    """Multiplies all channels by a number for each sample and place.

    Bottoms: x (N, C, ...); numbers, one for each sample and place. Tops: (N, C, ...); perhaps the
    one number used, (1). do_forward: false leaves x as it is; do_backward_feature: false gives x
    the top's own gradient, do_backward_scale: false the numbers none. With global_scale all of x is
    multiplied by a running mean of the numbers' magnitudes, min_global_scale to max_global_scale,
    which is a parameter blob (1) and not learned; the gradients are as without
    (channel_scale_layer.cpp).
    """

    fork = "caffe-windows"
    judge = "recorded"
    bottoms = (2, 2)
    tops = (1, 2)
    in_place = False
    reads = ("channel_scale_param",)
    differs = (
        "With global_scale it computes what the fork's GPU code does; its CPU code is at fault."
    )

    @property
    def gathers(self) -> bool:
        return self.layer_param.channel_scale_param.global_scale

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.channel_scale_param
        self.check(
            self.num_tops == 1 or p.global_scale, "the second top is for global_scale: true only"
        )
        self.check(p.do_forward or not p.global_scale, "global_scale needs do_forward: true")
        if p.global_scale:
            given = self.layer_param.param
            self.check(
                not given or given[0].lr_mult == 0, "the running mean is not learned: lr_mult: 0"
            )
            if not given:
                given.add(lr_mult=0, decay_mult=0)
            self.add_blob((1,), pb.FillerParameter(type="constant", value=-1))

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        x, factors = (tuple(shape) for shape in shapes)
        self.check(
            len(x) >= 2 and factors[:1] == x[:1] and math.prod(factors) == x[0] * math.prod(x[2:]),
            f"bottoms have the shapes {x} and {factors}, expected a number for each sample and "
            "place",
        )
        return [x, (1,)][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.top_shapes(bottom)
        p, x = self.layer_param.channel_scale_param, bottom[0]
        factors = bottom[1].reshape(x.shape[0], 1, *x.shape[2:])
        if p.do_forward and not p.global_scale and p.do_backward_feature and p.do_backward_scale:
            return x * factors
        mean = self._running_mean(factors.detach(), blobs[0]) if p.global_scale else None
        with torch.no_grad():
            top = x * (factors if mean is None else mean) if p.do_forward else x
        stand_in = x * factors.detach() if p.do_backward_feature else x
        if p.do_backward_scale:
            stand_in = stand_in + x.detach() * factors
        return [with_gradient_of(top, stand_in), *([] if self.num_tops == 1 else [mean])]

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p, x = self.layer_param.channel_scale_param, bottoms[0]
        if p.global_scale:
            mean = graph.blob(self, 0)
            return [graph.add("Mul", x, mean), mean][: self.num_tops]
        if not p.do_forward:
            return x.name
        return graph.add("Mul", x, graph.reshape(bottoms[1], (x.shape[0], 1, *x.shape[2:])))

    def _running_mean(self, factors: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        """The running mean, moved in TRAIN."""
        p = self.layer_param.channel_scale_param
        if self.phase == pb.TRAIN:
            with torch.no_grad():
                now = factors.abs().mean()
                moved = torch.where(mean < 0, now, 0.99 * mean + 0.01 * now)
                mean.copy_(moved.clamp(max=p.max_global_scale).clamp(min=p.min_global_scale))
        return mean.detach().clone()


@register("Norm")
class Norm(Layer):
    """Scales the channels of each sample and place to unit length: x / (|x| + 1e-6).

    Bottom and top: (N, C, ...), at most 4 axes (Wang and Gupta, 2015; video_triplet's
    norm_layer.cpp).
    """

    fork = "video_triplet"
    judge = "recorded"
    differs = "The gradient is the fork's, which has 1e-6 at another place."

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = tuple(shapes[0])
        self.check(2 <= len(shape) <= 4, f"bottom has the shape {shape}, expected 2 to 4 axes")
        return [shape]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        x = bottom[0]
        squared = x.detach().square().sum(1, keepdim=True)
        length = squared.sqrt()
        y = x.detach() / (length + 1e-6)
        cubed = squared * length + 1e-6
        # With g the top's gradient: (squared g - x (x . g)) / cubed.
        direction = x.detach()
        along = (x * direction).sum(1, keepdim=True)
        return with_gradient_of(y, (squared * x - direction * along) / cubed)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        length = graph.affine(graph.add("ReduceL2", x, axes=[1], keepdims=1), 1, 1e-6)
        return graph.add("Div", x, length)


@register("RankHardLoss")
class RankHardLoss(_Loss):
    """Asks that two views of one object are nearer to each other than to others, by a margin.

    Bottoms: vectors (N, ...), of which each pair_size neighbours are one object's, the first two of
    these its views; N labels. Of the vectors of other labels that come too near, hard_ratio neg_num
    of the neg_num nearest and rand_ratio neg_num of the rest are drawn, or all if there are no more
    than neg_num. The loss is the sum of max(0, margin + d(a, p) - d(a, n)) and of that with a and p
    exchanged, over 2 neg_num N / pair_size; d is minus the product (Wang and Gupta, 2015;
    video_triplet's rank_hard_loss_layer.cpp).
    """

    fork = "video_triplet"
    judge = "recorded"
    reads = ("rank_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.rank_param
        self.check(p.neg_num > 0, "neg_num must be positive")
        self.check(p.pair_size > 1, f"pair_size is {p.pair_size}, expected 2 or more")
        shares = (p.hard_ratio, p.rand_ratio)
        self.check(
            all(0 <= share < math.inf for share in shares),
            f"hard_ratio and rand_ratio are {shares}, expected numbers that are not negative",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        tops = super().infer_shapes(shapes)
        x, labels = shapes
        pair_size = self.layer_param.rank_param.pair_size
        self.check(
            math.prod(labels) == labels[0] and x[0] % pair_size == 0,
            f"bottoms have the shapes {tuple(x)} and {tuple(labels)}, expected one label a vector, "
            f"and a multiple of pair_size {pair_size} vectors",
        )
        return tops

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The distances of all vectors."""
        return shapes[0][0] ** 2

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, x = self.layer_param.rank_param, rows(bottom[0])
        near = -(x @ x.t())
        first = torch.arange(0, len(x), p.pair_size, device=x.device)
        own = near[first, first + 1][:, None]
        misses = (own - near[first] + p.margin).relu()
        turned = (own - near[first + 1] + p.margin).relu()
        labels = bottom[1].detach().reshape(-1)
        other = labels[first][:, None] != labels
        chosen = self._chosen(near[first].detach(), other & (misses.detach() > 0))
        count = p.neg_num * len(x) // p.pair_size * 2
        return torch.where(chosen, misses + turned, 0).sum() / max(1, count)

    def _chosen(self, near: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        """Which vectors are drawn for each object."""
        p = self.layer_param.rank_param
        hard, rest = int(p.neg_num * p.hard_ratio), int(p.neg_num * p.rand_ratio)
        chosen = torch.zeros_like(candidates)
        for i, allowed in enumerate(candidates):
            places = allowed.nonzero()[:, 0]
            if len(places) > p.neg_num:
                places = places[near[i, places].argsort(stable=True)]
                nearest = places[: p.neg_num][torch.randperm(p.neg_num, device=near.device)]
                others = torch.cat([places[p.neg_num :], nearest[hard:]])
                others = others[torch.randperm(len(others), device=near.device)]
                places = torch.cat([nearest[:hard], others[:rest]])
            chosen[i, places] = True
        return chosen

"""Losses of sums of absolute values: L1Loss, LpqLoss, AbsLoss."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import torch

from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.look import OUTPUT


class _Difference(Layer):
    """A loss of the difference of two bottoms of one shape, or of the only bottom."""

    bottoms = (1, 2)
    auto_tops = True
    loss = True
    look = OUTPUT
    judge = "recorded"

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        a, b = shapes[0], shapes[-1]
        self.check(
            len(a) > 0 and a[:1] == b[:1] and math.prod(a[1:]) == math.prod(b[1:]),
            f"bottoms have the shapes {a} and {b}, expected equally many samples, and equally many "
            "values in each",
        )
        return [()]


def _sign(x: torch.Tensor, zero: float) -> torch.Tensor:
    """The signs of x, `zero` where it is zero."""
    return torch.where(x > 0, 1.0, torch.where(x < 0, -1.0, zero)).to(x.dtype)


def _per_sample_sum(bottom: Tensors) -> torch.Tensor:
    """The sum of absolute differences, divided by the number of samples."""
    difference = bottom[0].flatten() - bottom[1].flatten()
    # abs() has the gradient 0 at 0, as Caffe's sign.
    return difference.abs().sum() / bottom[0].shape[0]


class _OverPlaces(_Difference):
    """FlowNet2's losses: a sum over the channels at each place, a root of it, and their sum.

    Bottoms: (N, C, H, W). Values that are not a number do not count.
    """

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        super().infer_shapes(shapes)
        a, b = shapes[0], shapes[-1]
        self.check(
            a == b and len(a) == 4,
            f"bottoms have the shapes {a} and {b}, expected one shape (N, C, H, W)",
        )
        return [()]

    def known_difference(self, bottom: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """The difference, zero where it is not a number, and where it is one."""
        difference = bottom[0] - bottom[1] if len(bottom) > 1 else bottom[0]
        known = ~difference.detach().isnan()
        return torch.where(known, difference, 0), known

    def divisor(self, known: torch.Tensor, by_entries: bool) -> torch.Tensor | int:
        """The number of samples, or that of known values in a channel."""
        return known.sum() / known.shape[1] if by_entries else known.shape[0]


@register("L1Loss")
class L1Loss(_OverPlaces):
    """The sum of absolute differences, divided by the number of samples: two layers of one name.

    NVCaffe's (l1_loss_layer.cpp) has no parameter: two bottoms with equally many values a sample.
    FlowNet2's (l1loss_layer.cu), meant where `l1_loss_param` is set or there is one bottom (N, C,
    H, W), the difference itself: values that are no number do not count; normalize_by_num_entries
    divides by the number of places that count; l2_per_location takes the square root of the sum of
    squares over the channels and of epsilon; what is smaller than the plateau counts as nothing.
    """

    fork = "FlowNet2, NVCaffe"
    reads = ("l1_loss_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.flow = len(shapes) == 1 or self.layer_param.HasField("l1_loss_param")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        if self.flow:
            return super().infer_shapes(shapes)
        return _Difference.infer_shapes(self, shapes)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        if not self.flow:
            return _per_sample_sum(bottom)
        p = self.layer_param.l1_loss_param
        difference, known = self.known_difference(bottom)
        divisor = self.divisor(known, p.normalize_by_num_entries)
        if p.l2_per_location:
            return self._roots(difference).sum() / divisor
        if p.plateau > 0:
            known = known & ~(difference.detach().abs() < p.plateau)
            difference = torch.where(known, difference, 0)
        # FlowNet2's sign of zero is -1.
        signs = _sign(difference.detach(), -1.0)
        return (difference * signs).sum() / divisor

    def _roots(self, difference: torch.Tensor) -> torch.Tensor:
        """The distance at each place."""
        p = self.layer_param.l1_loss_param
        total = difference.square().sum(1)
        if p.l2_prescale_by_channels:
            total = total / difference.shape[1]
        if p.plateau > 0:
            total = torch.where(total.detach() < p.plateau**2, 0, total)
        return (total + p.epsilon).sqrt()


@register("LpqLoss")
class LpqLoss(_OverPlaces):
    """The sum over places of (sum over channels of (|x| + p_epsilon)^p + q_epsilon)^q, divided by
    the number of samples (FlowNet2's lpq_loss_layer.cu).

    Bottoms: one difference or two images, (N, C, H, W). Values that are not a number count as zero
    and have no gradient; normalize_by_num_entries divides by the number of those known in a
    channel. A schedule of p and q (pq_episode_starts_at_iter) goes by the solver's iteration.
    """

    fork = "FlowNet2"
    reads = ("lpq_loss_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.lpq_loss_param
        starts = list(p.pq_episode_starts_at_iter)
        if not starts and len(p.p) == len(p.q) == 1:
            starts = [0]
        self.check(
            len(starts) == len(p.p) == len(p.q) > 0,
            f"pq_episode_starts_at_iter, p and q are given {len(starts)}, {len(p.p)} and "
            f"{len(p.q)} times, expected equally often, at least once",
        )
        self.check(
            starts[0] == 0 and all(a < b for a, b in pairwise(starts)),
            f"pq_episode_starts_at_iter is {starts}, expected 0 first, then growing numbers",
        )
        self.starts, self.step = starts, 0

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        param = self.layer_param.lpq_loss_param
        p, q = param.p[self.step], param.q[self.step]
        difference, known = self.known_difference(bottom)
        size = difference * _sign(difference.detach(), -1.0)
        total = (size + param.p_epsilon).pow(p).sum(1)
        if param.l2_prescale_by_channels:
            total = total / difference.shape[1]
        roots = (total + param.q_epsilon).pow(q)
        return roots.sum() / self.divisor(known, param.normalize_by_num_entries)

    def at_iteration(self, number: int) -> None:
        self.step = bisect_right(self.starts, number) - 1


@register("AbsLoss")
class AbsLoss(_Difference):
    """The sum of absolute differences, divided by the number of samples.

    Bottoms: two with equally many values a sample. The nets that use it
    (JunhyeongBak/Caffe_Light_Field) come without its source; this is how others with the name
    compute.
    """

    bottoms = (2, 2)
    fork = "JunhyeongBak/Caffe_Light_Field"
    judge = "worked cases"

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        return _per_sample_sum(bottom)

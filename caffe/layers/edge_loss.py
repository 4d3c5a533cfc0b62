"""Losses over maps of edges and masks, and the sum of absolute differences."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.layers.base import Shape, Tensors, register
from caffe.layers.loss import Distance, _Loss, rows

BITS = 32  # of a label
IGNORED = 31  # the bit of the last channel that says a pixel does not count


@register("MultiChannelReweightedSigmoidCrossEntropyLoss")
class MultiChannelReweightedSigmoidCrossEntropyLoss(_Loss):
    """Logistic loss of the edges of several classes; both sides weigh as the other is frequent.

    Bottoms: scores (N, K, H, W); labels (N, L, H, W), whose float32 values are taken as 32 bits
    each: bit k % 32 of channel k // 32 says whether a pixel is an edge of class k. Bit 31 of the
    last channel says that the pixel does not count. In each sample, edges weigh by the share of
    pixels without any, and the others by the share of pixels with one. Over N (Yu et al., 2017;
    multichannel_reweighted_sigmoid_cross_entropy_loss_layer.cpp).
    """

    fork = "CASENet"
    judge = "recorded"

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        tops = super().infer_shapes(shapes)
        scores, labels = shapes
        self.check(
            len(scores) == len(labels) == 4
            and scores[2:] == labels[2:]
            and scores[1] < labels[1] * BITS,
            f"bottoms of shapes {scores} and {labels}, expected scores (N, K, H, W) and labels "
            f"(N, L, H, W) with K below {BITS} L",
        )
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        scores = bottom[0]
        words = bottom[1].detach().float().contiguous().view(torch.int32)
        counts = (words[:, -1:] >> IGNORED & 1) == 0
        used = words[:, : scores.shape[1] // BITS + 1]
        edge = (used != 0).any(1, keepdim=True) & counts
        number = torch.arange(scores.shape[1], device=scores.device)
        bits = used[:, number // BITS] >> (number % BITS).view(1, -1, 1, 1).int() & 1
        share = edge.sum((1, 2, 3)) / counts.sum((1, 2, 3)).clamp(min=1)
        share = share.to(scores).view(-1, 1, 1, 1)
        each = F.binary_cross_entropy_with_logits(scores, bits.to(scores), reduction="none")
        weight = torch.where(bits == 1, 1 - share, share) * counts
        return (each * weight).sum() / max(1, len(scores))


@register("NormalizedSigmoidCrossEntropyLoss")
class NormalizedSigmoidCrossEntropyLoss(_Loss):
    """SigmoidCrossEntropyLoss over the number of samples, rows and columns.

    Bottoms: scores (N, C, H, W); as many targets, (N, ...) (Hu et al., 2017;
    normalized_sigmoid_cross_entropy_loss_layer.cpp).
    """

    fork = "FastMask, AttentionMask"
    judge = "recorded"

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        tops = super().infer_shapes(shapes)
        scores, targets = shapes
        self.check(
            len(scores) == 4 and math.prod(scores) == math.prod(targets),
            f"bottoms of shapes {scores} and {targets}, expected scores (N, C, H, W) and as many "
            "targets",
        )
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        scores, targets = bottom[0], bottom[1].detach().reshape(bottom[0].shape)
        n, _, h, w = scores.shape
        total = F.binary_cross_entropy_with_logits(scores, targets, reduction="sum")
        return total / max(1, n * h * w)


@register("ManhattanLoss")
class ManhattanLoss(Distance):
    """The sum of the absolute differences of two bottoms, over the number of samples.

    Bottoms: (N, ...), with equally many values a sample; both have a gradient (qxcv/caffe's
    manhattan_loss_layer.cpp).
    """

    fork = "qxcv/joint-regressor"
    judge = "recorded"

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        a, b = (rows(x) for x in bottom)
        return (a - b).abs().sum() / max(1, len(a))

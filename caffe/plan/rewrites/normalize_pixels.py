"""normalize_pixels: LRN across channels in the convolutions' layout, pixel by pixel.

The layer sums over rows of whole channels, for which channels-last images are copied twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.kernels import finite
from caffe.layers.base import Tensors
from caffe.layers.normalization import LRN
from caffe.plan.ir import Node, Operation, Program
from caffe.plan.operations import channels_last
from caffe.plan.rewrites.rewrite import Match, Rewrite
from caffe.proto import caffe_pb2 as pb


def _pattern(program: Program, node: Node) -> Match | None:
    return [node] if node.is_a(LRN) else None


def _check(program: Program, match: Match) -> str:
    if match[0].layer.layer_param.lrn_param.norm_region != pb.LRNParameter.ACROSS_CHANNELS:
        return "normalizes within channels"
    if not program.circumstances.channels_last:
        return "has its channels outermost in memory"
    return ""


def _action(program: Program, match: Match) -> None:
    (node,) = match
    node.run = _normalize(node.layer)


def _normalize(layer: LRN) -> Operation:
    p = layer.layer_param.lrn_param
    size, bounded = p.local_size, p.k >= 1 and p.alpha >= 0 and p.beta >= 0

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        layer.top_shapes(bottom)  # raises CaffeError if the bottom does not fit
        x = channels_last(bottom[0]).permute(0, 2, 3, 1)
        channels = x.shape[3]
        squares = F.pad(x.square(), (size // 2, size // 2))
        total = squares[..., :channels].clone()
        for k in range(1, size):
            total += squares[..., k : k + channels]
        total.mul_(p.alpha / size).add_(p.k)
        y = (x * _power(total, p.beta)).permute(0, 3, 1, 2)
        return [finite.carry(y, finite.bound(bottom[0]) if bounded else None)]

    return run


def _power(total: torch.Tensor, beta: float) -> torch.Tensor:
    """total^-beta, which overwrites total; roots are several times as fast as a power."""
    if beta != 0.75:
        return total.pow_(-beta)
    root = total.rsqrt_()
    return root.sqrt().mul_(root)


NORMALIZE_PIXELS = Rewrite("normalize_pixels", _pattern, _check, _action, train=False)

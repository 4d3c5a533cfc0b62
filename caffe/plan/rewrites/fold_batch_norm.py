"""fold_batch_norm: BatchNorm on gathered statistics that no convolution took in, with the Scale and
ReLU behind it: one multiply-add with a gain and a shift for each channel, which are computed once.

Behind prepare_convolutions. DenseNet has them before its convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.kernels import finite
from caffe.layers.base import Layer, Tensors
from caffe.layers.normalization import BatchNorm
from caffe.plan.ir import Circumstances, Node, Program, always
from caffe.plan.operations import by_layer
from caffe.plan.prepared import Growth, Watch, channel_steps
from caffe.plan.rewrites.patterns import memory_misfit, plain_relu, scales_channels
from caffe.plan.rewrites.rewrite import Match, Rewrite


def _pattern(program: Program, node: Node) -> Match | None:
    """A BatchNorm on gathered statistics, and the Scale and ReLU that are its tops' only takers."""
    if not node.is_a(BatchNorm) or not node.layer.use_global:
        return None
    match = [node]
    scale = program.only_taker(node.top[0])
    if scales_channels(scale):
        match.append(scale)
    relu = program.only_taker(match[-1].top[0])
    return [*match, relu] if plain_relu(relu) else match


def _check(program: Program, match: Match) -> str:
    return ""


def _action(program: Program, match: Match) -> None:
    overwrites = not memory_misfit(program, match[0].bottom[0])
    layers = [node.layer for node in match]
    relu = plain_relu(match[-1])
    folded = FoldedBatchNorm(layers, program.circumstances, relu, overwrites)
    program.join(match, folded, always(torch.float32, 1))


class FoldedBatchNorm:
    """An operation of a plan: BatchNorm, then optionally Scale, and ReLU.

    It runs layer by layer where parameters or values are not finite, or may overflow. overwrites:
    the bottom's memory becomes the top's.
    """

    def __init__(
        self, layers: Sequence[Layer], made_for: Circumstances, relu: bool, overwrites: bool
    ) -> None:
        self.layers, self.relu, self.overwrites = layers, relu, overwrites
        self._plain = [by_layer(layer, made_for) for layer in layers]
        self._watch = Watch([blob for layer in layers for blob in layer.blobs])
        self._for: tuple[torch.Size, torch.device] | None = None  # the bottom's
        self._gain = self._shift = torch.empty(0)
        self._growth: Growth | None = None

    def __call__(self, bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x = bottom[0].float()
        if self._watch.changed() or (x.shape, x.device) != self._for:
            self._for = None
            for layer in self.layers:
                layer.top_shapes([x])  # raises CaffeError if the bottom does not fit
            self._prepare(x, blobs)
            self._for = x.shape, x.device
        assert self._growth is not None
        limit = self._growth.top(bottom[0])
        if limit == math.inf:
            return self._layer_by_layer(x, blobs)
        out = x if self.overwrites else None
        y = torch.addcmul(self._shift, x, self._gain, out=out)
        return [finite.carry(y.relu_() if self.relu else y, limit)]

    def _prepare(self, x: torch.Tensor, blobs: Tensors) -> None:
        gain, shift = torch.ones_like(blobs[0]), torch.zeros_like(blobs[0])
        self._growth = Growth(gain)
        for factor, term in channel_steps(self.layers, blobs):
            gain, shift = gain * factor, shift * factor + term
            self._growth.multiply(factor)
            self._growth.add(term)
        wide = [-1 if axis == min(1, x.dim() - 1) else 1 for axis in range(x.dim())]
        self._gain, self._shift = gain.view(wide), shift.view(wide)

    def _layer_by_layer(self, x: torch.Tensor, blobs: Tensors) -> Sequence[torch.Tensor]:
        rest = list(blobs)
        for layer, run in zip(self.layers, self._plain, strict=True):
            mine, rest = rest[: len(layer.blobs)], rest[len(layer.blobs) :]
            (x,) = run([x], mine)
        return [x]


FOLD_BATCH_NORM = Rewrite("fold_batch_norm", _pattern, _check, _action, train=False)

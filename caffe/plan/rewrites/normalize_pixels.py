"""normalize_pixels: LRN across channels in the convolutions' layout, pixel by pixel.

The layer sums over rows of whole channels, for which channels-last images are copied twice.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.kernels import finite
from caffe.layers.base import Tensors
from caffe.layers.normalization import LRN
from caffe.plan.ir import Node, Operation, Program
from caffe.plan.operations import channels_last
from caffe.plan.rewrites.patterns import memory_misfit
from caffe.plan.rewrites.rewrite import Match, Rewrite
from caffe.proto import caffe_pb2 as pb

PIECE = 1 << 18  # values at once: the few arrays of that size stay in the processor's cache


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
    node.run = _normalize(node.layer, not memory_misfit(program, node.bottom[0]))


def _normalize(layer: LRN, overwrites: bool) -> Operation:
    p = layer.layer_param.lrn_param
    bounded = p.k >= 1 and p.alpha >= 0 and p.beta >= 0

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        layer.top_shapes(bottom)  # raises CaffeError if the bottom does not fit
        known = finite.bound(bottom[0])
        x = channels_last(bottom[0]).permute(0, 2, 3, 1)
        pixels = x.reshape(-1, x.shape[3])
        y = pixels if overwrites else torch.empty_like(pixels)
        finite_sums = bounded and known is not None and p.k + p.alpha * known**2 < finite.LIMIT
        most = PIECE // x.shape[3] if x.device.type == "cpu" else len(pixels)
        step = max(1, min(most, len(pixels)))
        pieces = _Pieces(layer, pixels[:step], finite_sums)
        for values, top in zip(pixels.split(step), y.split(step), strict=True):
            torch.mul(values, pieces.factors(values), out=top)
        y = y.view(x.shape).permute(0, 3, 1, 2)
        return [finite.carry(y, known if bounded else None)]

    return run


class _Pieces:
    """(k + alpha s)^-beta for pixels, a piece at a time, in memory that stays in the cache.

    The pixels' squares lie in a row, zeros before and behind each, so that all windows are summed
    by a few sums of whole rows with shifted ones. What windows over two pixels give is not read.
    """

    def __init__(self, layer: LRN, largest: torch.Tensor, finite_sums: bool) -> None:
        """largest: a piece of the largest size. finite_sums: k is at least 1, and no sum, times
        alpha, is infinite.
        """
        p = layer.layer_param.lrn_param
        self._size, self._alpha, self._beta = p.local_size, p.alpha / p.local_size, p.beta
        self._finite = finite_sums
        self._pitch = largest.shape[1] + p.local_size - 1
        count = len(largest) * self._pitch + p.local_size - 1
        self._squares = largest.new_zeros(count)
        self._parts = largest.new_empty(2, count)
        self._total = largest.new_empty(count)
        self._k = torch.tensor(p.k)

    def factors(self, values: torch.Tensor) -> torch.Tensor:
        """What the values (pixels, channels) are multiplied by."""
        pixels, channels = values.shape
        count = pixels * self._pitch
        rows, before = self._squares[:count].view(pixels, self._pitch), self._size // 2
        torch.square(values, out=rows[:, before : before + channels])
        total = torch.add(self._k, self._sums(count), alpha=self._alpha, out=self._total[:count])
        self._power(total, self._parts[0, :count])
        return total.view(pixels, self._pitch)[:, :channels]

    def _sums(self, count: int) -> torch.Tensor:
        """The sums of windows that begin at each of the first places."""
        part, length = self._squares, 1  # sums of so many
        total, covered = part[:count], 1  # the size is odd
        for k in range(1, self._size.bit_length()):
            ends, spare = count + self._size - 2 * length, self._parts[k % 2]
            torch.add(part[:ends], part[length : length + ends], out=spare[:ends])
            part, length = spare, 2 * length
            if self._size & length:
                shifted = part[covered : covered + count]
                total = torch.add(total, shifted, out=self._total[:count])
                covered += length
        return total

    def _power(self, total: torch.Tensor, spare: torch.Tensor) -> None:
        """Raise total to the power of -beta; roots take a part of a power's time."""
        if self._beta != 0.75:
            total.pow_(-self._beta)
        elif self._finite:  # a root by its reciprocal, half its time: 0 times infinity is NaN
            root = torch.pow(total, -0.5, out=spare)
            total.mul_(root).pow_(-0.5).mul_(root)
        else:
            root = total.rsqrt_()
            total.mul_(torch.sqrt(root, out=spare))


NORMALIZE_PIXELS = Rewrite("normalize_pixels", _pattern, _check, _action, train=False)

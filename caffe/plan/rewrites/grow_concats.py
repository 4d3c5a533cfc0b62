"""grow_concats: Concats of which each takes what the one before joined, and a little more.

DenseNet's blocks are such chains: each link would copy all channels so far. In their place the
first one takes memory for all, and each writes what is new behind the channels that are there. In
between, only a BatchNorm that is folded may look: it reads rows of pixels with gaps between them,
which others would copy first. Behind fold_batch_norm.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.kernels import finite
from caffe.layers.base import Layer, Tensors
from caffe.layers.rearrange import Concat
from caffe.plan.ir import Node, Operation, Program
from caffe.plan.rewrites.fold_batch_norm import FoldedBatchNorm
from caffe.plan.rewrites.rewrite import Match, Rewrite


def _pattern(program: Program, node: Node) -> Match | None:
    """The first Concat of a chain, and the others."""
    if not _joins_channels(node):
        return None
    before = program.maker(node.bottom[0])
    if before is not None and _joins_channels(before) and _next(program, before) is node:
        return None
    chain = [node]
    while (link := _next(program, chain[-1])) is not None:
        chain.append(link)
    return chain if len(chain) > 1 else None


def _joins_channels(node: Node) -> bool:
    return node.is_a(Concat) and node.layer.joined_axis == 1


def _next(program: Program, node: Node) -> Node | None:
    """The Concat that adds to what a Concat joined, if all others that take it may look at it."""
    (value,) = node.top
    if value in program.outputs or value in program.losses:
        return None
    takers = program.takers_of(value)
    links = [taker for taker in takers if _joins_channels(taker)]
    if len(links) != 1 or links[0].bottom.index(value) > 0 or links[0].bottom.count(value) > 1:
        return None
    others = (taker for taker in takers if taker is not links[0])
    return links[0] if all(isinstance(taker.run, FoldedBatchNorm) for taker in others) else None


def _check(program: Program, match: Match) -> str:
    circumstances = program.circumstances
    if not (circumstances.channels_last and circumstances.device.type == "cpu"):
        return "has its channels outermost in memory, or is not computed on the CPU"
    return ""


def _action(program: Program, match: Match) -> None:
    chain, (first, *_, last) = _Chain(), match
    for node in match:
        node.run = _append(node.layer, node.run, chain, node is first, node is last)


class _Chain:
    """channels: how many the last link had in the pass before; 0 before the first one."""

    channels = 0


def _append(layer: Layer, plain: Operation, chain: _Chain, first: bool, last: bool) -> Operation:
    shapes: list[torch.Size] = []

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        nonlocal shapes
        if [x.shape for x in bottom] != shapes:
            layer.top_shapes(bottom)  # raises CaffeError if the bottoms do not fit
            shapes = [x.shape for x in bottom]
        channels = sum(shape[1] for shape in shapes)
        memory = _begin(bottom, chain.channels) if first else getattr(bottom[0], "grows_in", None)
        if last:
            chain.channels = channels
        if memory is None or not _fits(memory, bottom, channels, last):
            return plain(bottom, blobs)
        end = shapes[0][1]
        for x in bottom[1:]:
            begin, end = end, end + x.shape[1]
            memory[:, begin:end].copy_(x)
        top = memory[:, :channels]
        top.grows_in = memory
        bounds = [finite.bound(x) for x in bottom]
        return [finite.carry(top, None if None in bounds else max(bounds))]

    return run


def _begin(bottom: Tensors, room: int) -> torch.Tensor | None:
    """Memory for `room` channels with the first bottom in it; None in the first pass."""
    x = bottom[0]
    if x.dim() != 4 or x.shape[1] > room:
        return None
    shape = (x.shape[0], room, *x.shape[2:])
    memory = torch.empty(shape, dtype=x.dtype, memory_format=torch.channels_last)
    memory[:, : x.shape[1]].copy_(x)
    return memory


def _fits(memory: torch.Tensor, bottom: Tensors, channels: int, last: bool) -> bool:
    """Whether there is room for so many channels; behind the last link there must be no gaps."""
    room = memory.shape[1]
    same = all(x.dtype == memory.dtype for x in bottom)
    return same and (channels == room if last else channels <= room)


GROW_CONCATS = Rewrite("grow_concats", _pattern, _check, _action, train=False)

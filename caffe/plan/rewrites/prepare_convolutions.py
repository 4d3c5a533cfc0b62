"""prepare_convolutions: make BatchNorm, Scale, the sum with another blob and ReLU part of the
(de)convolution before them.

BatchNorm uses gathered statistics. The weights are prepared once (caffe/plan/prepared.py).

Before a pooling whose mask is used, in float32, convolutions do without Winograd's algorithm: in
flat parts of a picture all values of a window are equal, the mask names the first, and rounding
that depends on the place would have it name any of them. That moved values to other pixels in the
decoder, and changed the labels of a tenth of a frame of NYUv2 with its white border.
"""

from __future__ import annotations

import torch

from caffe.layers.normalization import BatchNorm
from caffe.layers.pooling import Pooling
from caffe.layers.vision import Convolution, Deconvolution
from caffe.plan.ir import Node, Program
from caffe.plan.prepared import PreparedConvolution
from caffe.plan.rewrites.patterns import image_misfit, plain_relu, plain_sum, scales_channels
from caffe.plan.rewrites.rewrite import Match, Rewrite


def _pattern(program: Program, node: Node) -> Match | None:
    """A (de)convolution, and the chain behind it that can become part of it."""
    if not node.is_a(Convolution, Deconvolution):
        return None
    match = [node]
    norm = program.only_taker(node.top[0])
    if norm is not None and norm.is_a(BatchNorm) and norm.layer.use_global:
        match.append(norm)
        scale = program.only_taker(norm.top[0])
        if scales_channels(scale):
            match.append(scale)
    total = program.only_taker(match[-1].top[0])
    if plain_sum(total):
        match.append(total)
    relu = program.only_taker(match[-1].top[0])
    return [*match, relu] if plain_relu(relu) else match


def _check(program: Program, match: Match) -> str:
    return image_misfit(match[0])


def _action(program: Program, match: Match) -> None:
    even = program.circumstances.dtype == torch.float32 and _decides_a_mask(program, match[0])
    layers = [node.layer for node in match]
    prepared = PreparedConvolution(layers, program.circumstances, even)
    program.join(match, prepared, prepared.numbers)


def _decides_a_mask(program: Program, node: Node) -> bool:
    """Whether a pooling mask that is used depends on the node's top."""
    reached, used = set(node.top), program.takers()
    for later in program.nodes[program.nodes.index(node) + 1 :]:
        if not reached & {*later.bottom}:
            continue
        if later.is_a(Pooling) and any(used[mask] for mask in later.top[1:]):
            return True
        reached |= {*later.top}
    return False


PREPARE_CONVOLUTIONS = Rewrite("prepare_convolutions", _pattern, _check, _action, train=False)

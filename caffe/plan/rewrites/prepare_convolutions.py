"""prepare_convolutions: make BatchNorm, Scale and ReLU part of the (de)convolution before them.

BatchNorm uses gathered statistics. The weights are prepared once (caffe/plan/prepared.py).
"""

from __future__ import annotations

from caffe.layers.normalization import BatchNorm
from caffe.layers.vision import Convolution, Deconvolution
from caffe.plan.ir import Node, Program, always
from caffe.plan.prepared import PreparedConvolution
from caffe.plan.rewrites.patterns import image_misfit, plain_relu, scales_channels
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
    relu = program.only_taker(match[-1].top[0])
    return [*match, relu] if plain_relu(relu) else match


def _check(program: Program, match: Match) -> str:
    return image_misfit(match[0])


def _action(program: Program, match: Match) -> None:
    prepared = PreparedConvolution([node.layer for node in match], program.circumstances)
    program.join(match, prepared, always(program.circumstances.dtype, 1))


PREPARE_CONVOLUTIONS = Rewrite("prepare_convolutions", _pattern, _check, _action, train=False)

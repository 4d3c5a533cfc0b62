"""fuse_batch_norm: run BatchNorm on batch statistics, Scale and the ReLU behind them as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.kernels import finite, fused
from caffe.kernels.sync_bn import sync_batch_norm
from caffe.layers.base import Tensors
from caffe.layers.normalization import BatchNorm
from caffe.plan.ir import Node, Operation, Program, like_bottoms
from caffe.plan.operations import pure
from caffe.plan.rewrites.patterns import plain_relu, scales_channels
from caffe.plan.rewrites.rewrite import Match, Rewrite


def _pattern(program: Program, node: Node) -> Match | None:
    """A BatchNorm on batch statistics, with the Scale and ReLU that are its tops' only takers."""
    if not node.is_a(BatchNorm) or node.layer.use_global or node.layer.affine:
        return None
    match = [node]
    scale = program.only_taker(node.top[0])
    if scales_channels(scale):
        match.append(scale)
        relu = program.only_taker(scale.top[0])
        if plain_relu(relu) and all(relu.wants):
            match.append(relu)
    return match


def _check(program: Program, match: Match) -> str:
    if not all(want for node in match for want in node.wants):
        return "passes no gradient on"
    return "" if len(match) > 1 else "is not followed by one Scale of its channels alone"


def _action(program: Program, match: Match) -> None:
    norm, scale = match[0].layer, match[1].layer
    layer, scaled = pure(norm, program.circumstances), pure(scale, program.circumstances)
    run = _batch_norm_scale_relu(norm, layer, scaled, relu=len(match) == 3)
    program.join(match, run, like_bottoms(1))


def _batch_norm_scale_relu(
    norm: BatchNorm, layer: Operation, scaled: Operation, relu: bool
) -> Operation:
    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x = bottom[0]
        alone = x.numel() == norm.channels and not norm.synchronous
        # In one step an infinite gain makes NaN of what it should make infinite.
        wild = x.device.type == "cpu" and not finite.all_finite(*blobs[3:])
        if x.dim() < 2 or alone or wild:  # the first two are special cases of BatchNorm itself
            y = scaled(layer([x.float()], blobs[:3]), blobs[3:])[0]
            return [F.relu(y) if relu else y]
        gain = blobs[3]
        bias = blobs[4] if len(blobs) == 5 else torch.zeros_like(gain)
        if norm.synchronous:
            y, mean, variance = sync_batch_norm(x, gain, bias, norm.eps, relu)
        else:
            mean, variance = gain.new_zeros(norm.channels), gain.new_zeros(norm.channels)
            y = fused.batch_norm_scale_relu(x, gain, bias, mean, variance, norm.eps, relu)
        with torch.no_grad():
            for blob, new in zip(blobs, (mean, variance, torch.ones_like(blobs[2])), strict=False):
                blob.mul_(norm.fraction).add_(new)
        return [y]

    return run


FUSE_BATCH_NORM = Rewrite("fuse_batch_norm", _pattern, _check, _action)

"""pool_values: pooling of which only the values are wanted computes no positions.

Behind pool_by_indices, which keeps them for nets that learn or unpool. The layer itself copies the
image into its padding and knows the place of each maximum, which takes ten times as long.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.kernels import finite
from caffe.layers.base import Tensors
from caffe.layers.pooling import Pooling, Windows
from caffe.plan.ir import Node, Operation, Program, like_bottoms
from caffe.plan.operations import channels_last, pure
from caffe.plan.rewrites import pool_by_indices
from caffe.plan.rewrites.rewrite import Match, Rewrite
from caffe.proto import caffe_pb2 as pb

MAX, AVE = pb.PoolingParameter.MAX, pb.PoolingParameter.AVE


def _pattern(program: Program, node: Node) -> Match | None:
    if not node.is_a(Pooling):
        return None
    method = node.layer.layer_param.pooling_param.pool
    alone = len(node.top) == 1
    if method == MAX and alone and not pool_by_indices.misfit(program, [node]):
        return None  # it is pool_by_indices'
    return [node] if method in (MAX, AVE) else None


def _check(program: Program, match: Match) -> str:
    if len(match[0].top) == 2:
        return "has a mask"
    return ""


def _action(program: Program, match: Match) -> None:
    (node,) = match
    plain = pure(node.layer, program.circumstances)
    if node.layer.layer_param.pooling_param.pool == AVE:
        node.run = _mean(node.layer, plain)
        return
    node.run = _largest(node.layer, plain, program.circumstances.device.type == "cpu")
    node.any_number, node.numbers = True, like_bottoms(1)


def _largest(layer: Pooling, plain: Operation, on_cpu: bool) -> Operation:
    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        (shape,) = layer.top_shapes(bottom)
        x, windows = bottom[0], layer.windows(tuple(bottom[0].shape))
        if not _counts_alike(windows, x.shape[2:]):
            return plain(bottom, blobs)
        x, known = channels_last(x) if on_cpu else x, finite.bound(x)
        y = F.max_pool2d(
            x, windows.kernel, windows.stride, windows.pad, ceil_mode=not windows.floor
        )
        # PyTorch's maximum is NaN where a window holds one; on the CPU the layer's is not.
        if on_cpu and known is None and not finite.all_finite(y):
            return plain([x], blobs)
        assert y.shape == shape
        return [finite.carry(y, known)]

    return run


def _counts_alike(windows: Windows, size: Sequence[int]) -> bool:
    """Whether PyTorch has the same windows: it drops a last one that starts behind the image, and
    takes no padding of more than half a kernel.
    """
    for n, count, kernel, stride, pad in zip(
        size, windows.count(size), windows.kernel, windows.stride, windows.pad, strict=True
    ):
        if 2 * pad > kernel or (count - 1) * stride >= n + pad:
            return False
    return True


def _mean(layer: Pooling, plain: Operation) -> Operation:
    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        (x,) = bottom
        windows = layer.windows(tuple(x.shape))
        if windows.kernel != tuple(x.shape[2:]) or any(windows.pad):
            return plain(bottom, blobs)
        layer.top_shapes(bottom)  # raises CaffeError if the bottom does not fit
        return [finite.carry(x.mean((2, 3), keepdim=True), finite.bound(x))]

    return run


POOL_VALUES = Rewrite("pool_values", _pattern, _check, _action, train=False)

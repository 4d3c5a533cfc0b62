"""pool_values: pooling of which only the values are wanted computes no positions.

Behind pool_by_indices, which keeps them for nets that learn or unpool. The layer itself copies the
image into its padding and knows the place of each maximum, which takes ten times as long.
Overlapping windows are compared along one axis after the other (maxima.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from caffe.kernels import finite
from caffe.layers.base import Tensors
from caffe.layers.pooling import Pooling, Windows
from caffe.plan.ir import Node, Operation, Program, like_bottoms
from caffe.plan.operations import channels_last, pure
from caffe.plan.rewrites import pool_by_indices
from caffe.plan.rewrites.maxima import maxima
from caffe.plan.rewrites.rewrite import Match, Rewrite
from caffe.proto import caffe_pb2 as pb

# A mean over more places than these is shared out among threads.
LARGE = 100

Pool = Callable[[torch.Tensor], torch.Tensor]
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
    on_cpu = program.circumstances.device.type == "cpu"
    if node.layer.layer_param.pooling_param.pool == AVE:
        node.run = _mean(node.layer, plain, on_cpu)
        return
    node.run = _largest(node.layer, plain, on_cpu)
    node.any_number, node.numbers = True, like_bottoms(1)


def _largest(layer: Pooling, plain: Operation, on_cpu: bool) -> Operation:
    shape: torch.Size | None = None
    pool: Pool | None = None

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        nonlocal shape, pool
        x = bottom[0]
        if x.shape != shape:
            layer.top_shapes(bottom)  # raises CaffeError if the bottom does not fit
            shape, pool = x.shape, _maximum(layer.windows(tuple(x.shape)), x.shape, on_cpu)
        if pool is None:
            return plain(bottom, blobs)
        x, known = channels_last(x) if on_cpu else x, finite.bound(x)
        y = pool(x)
        # PyTorch's maximum is NaN where a window holds one; on the CPU the layer's is not.
        if on_cpu and known is None and not finite.all_finite(y):
            return plain([x], blobs)
        return [finite.carry(y, known)]

    return run


def _maximum(windows: Windows, shape: torch.Size, on_cpu: bool) -> Pool | None:
    """Max pooling of images of that shape, None where PyTorch has other windows."""
    if not _counts_alike(windows, shape[2:]):
        return None
    separable = maxima(shape, windows) if on_cpu else None
    if separable is not None:
        return separable
    return lambda x: F.max_pool2d(
        x, windows.kernel, windows.stride, windows.pad, ceil_mode=not windows.floor
    )


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


def _mean(layer: Pooling, plain: Operation, on_cpu: bool) -> Operation:
    shape: torch.Size | None = None
    pool: Pool | None = None

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        nonlocal shape, pool
        x = bottom[0]
        if x.shape != shape:
            layer.top_shapes(bottom)  # raises CaffeError if the bottom does not fit
            shape, pool = x.shape, _average(layer.windows(tuple(x.shape)), x.shape)
        if pool is None:
            return plain(bottom, blobs)
        return [finite.carry(pool(channels_last(x) if on_cpu else x), finite.bound(x))]

    return run


def _average(windows: Windows, shape: torch.Size) -> Pool | None:
    """Mean pooling of images of that shape, None where PyTorch has other windows."""
    if not _counts_alike(windows, shape[2:]):
        return None
    if windows.kernel == tuple(shape[2:]) and not any(windows.pad) and shape[2:].numel() > LARGE:
        return lambda x: x.mean((2, 3), keepdim=True)
    return lambda x: F.avg_pool2d(
        x, windows.kernel, windows.stride, windows.pad, ceil_mode=not windows.floor
    )


POOL_VALUES = Rewrite("pool_values", _pattern, _check, _action, train=False)

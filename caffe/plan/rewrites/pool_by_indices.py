"""pool_by_indices: max pooling keeps the positions it chose instead of its bottom.

If only Unpooling takes the mask, it stays these positions (int64) and is not converted to float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.kernels import finite, fused
from caffe.layers import Layer
from caffe.layers.base import Tensors
from caffe.layers.pooling import Pooling, Unpooling
from caffe.plan.ir import Node, Number, Numbers, Operation, Program
from caffe.plan.rewrites.rewrite import Match, Rewrite
from caffe.proto import caffe_pb2 as pb


def _pattern(program: Program, node: Node) -> Match | None:
    """A max pooling, and the nodes that take its mask."""
    if not node.is_a(Pooling) or node.layer.layer_param.pooling_param.pool != MAX:
        return None
    return [node, *(program.takers_of(node.top[1]) if len(node.top) == 2 else [])]


def misfit(program: Program, match: Match) -> str:
    """Why a max pooling and the takers of its mask stay as they are; empty if they do not."""
    pool, *takers = match
    layer = pool.layer
    if layer.layer_param.pooling_param.global_pooling:
        return "has one window for the whole image"
    # Windows that lie side by side, without padding, choose no position twice.
    if layer.pad != (0, 0):
        return "pads the image"
    if layer.kernel != layer.stride:
        return "has windows that do not lie side by side"
    if len(pool.top) == 2 and pool.top[1] in program.outputs:
        return "shows its mask as an output of the net"
    for taker in takers:
        if not taker.is_a(Unpooling) or taker.bottom[0] == pool.top[1]:
            return f"gives its mask to {taker.name}, which is no Unpooling"
        if not _fits(taker.layer, layer):
            return f"gives its mask to {taker.name}, whose plane may not be the pooled image's"
    return ""


def _fits(unpooling: Layer, pooling: Layer) -> bool:
    """Whether the plane is known to be the pooled image's own, whatever its size."""
    if unpooling.follows and unpooling.pooling is pooling:
        return True
    if unpooling.spreading is not None:  # DeconvNet's
        return False
    p = unpooling.layer_param.unpooling_param
    return p.HasField("output_h") or unpooling.scale == pooling.kernel[0] == pooling.kernel[1]


def _action(program: Program, match: Match) -> None:
    pool, *takers = match
    pool.run, pool.any_number = _pool(pool.layer, len(pool.top), program), True
    pool.numbers = _value_and_position(len(pool.top))
    for node in takers:
        node.run, node.any_number = _unpool(node.layer), True
        node.numbers = _of_value
        node.wants = [node.wants[0], False]


def _value_and_position(tops: int) -> Numbers:
    return lambda bottoms: [bottoms[0], torch.int64][:tops]


def _of_value(bottoms: Sequence[Number]) -> Sequence[Number]:
    return bottoms[:1]


def _pool(layer: Layer, tops: int, program: Program) -> Operation:
    ceil = not layer.floor
    kernel, train, on_cpu = layer.kernel, program.train, program.circumstances.device.type == "cpu"

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        (x,) = bottom
        known = finite.bound(x)
        layer.image = tuple(x.shape[2:])
        if train:
            found = fused.max_pool(x, kernel, ceil)[:tops]
        elif tops == 2:
            found = F.max_pool2d(x, kernel, kernel, ceil_mode=ceil, return_indices=True)
        else:
            found = [F.max_pool2d(x, kernel, kernel, ceil_mode=ceil)]
        # PyTorch's maximum is NaN where a window holds one; on the CPU the layer's is not.
        if on_cpu and known is None and not finite.all_finite(found[0]):
            return _by_layer(layer, x, tops)
        finite.carry(found[0], known)
        return found

    return run


def _by_layer(layer: Layer, x: torch.Tensor, tops: int) -> Sequence[torch.Tensor]:
    """The layer's own maxima, float32, and their places as integers."""
    if tops == 1:
        return [layer.forward([x.float()], [])]
    y, places = layer.forward([x.float()], [])
    return [y, places.detach().long()]


def _unpool(layer: Layer) -> Operation:
    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x, places = bottom
        size = layer.plane(tuple(x.shape))
        try:
            return [finite.carry(fused.unpool(x, places, size), finite.bound(x))]
        except RuntimeError:
            layer.forward([x, places], [])  # raises an error that says what does not fit
            raise

    return run


MAX = pb.PoolingParameter.MAX
POOL_BY_INDICES = Rewrite("pool_by_indices", _pattern, misfit, _action)

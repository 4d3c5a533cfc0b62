"""The rewrites of plans: what can be done together, elsewhere, or not at all.

Each equals the layers that it replaces up to rounding (docs/performance.md says what each saves).
For training and for deploy:

- `drop_copies`: Split, Dropout in TEST, and Concat or Slice of one, vanish.
- `pool_by_indices`: max pooling keeps the places that it chose, and not its bottom; a mask that
  only Unpooling takes stays these places.
- `fuse_batch_norm`: BatchNorm on batch statistics + Scale (+ ReLU) is one operation.

For training:

- `convolve_lean`: convolutions keep nothing that can be made again, and multiply less (winograd).

For deploy:

- `prepare_convolutions`: BatchNorm on gathered statistics, Scale and ReLU become part of the
  (de)convolution before them, whose weights are made ready once.
- `work_in_place`: ReLU and sums, where nobody else takes the value.
- `softmax_in_order`: Softmax on values that lie as in Caffe, and not channels-last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from caffe.kernels import fused
from caffe.kernels.sync_bn import sync_batch_norm
from caffe.layers.activation import Dropout, ReLU
from caffe.layers.base import Layer, Tensors
from caffe.layers.common import Concat, Eltwise, Slice, Softmax, Split
from caffe.layers.normalization import BatchNorm, Scale
from caffe.layers.pooling import Pooling, Unpooling
from caffe.layers.vision import Convolution, Deconvolution
from caffe.plan.prepared import PreparedConvolution
from caffe.proto import caffe_pb2 as pb

SOFTMAX_PIECE = 1 << 18  # values at once: 1 MB

if TYPE_CHECKING:
    from caffe.blob import Blob
    from caffe.plan.plan import Node, Operation, Plan


def rewrite(plan: Plan) -> None:
    """Apply all that fit the plan."""
    shared = (drop_copies, pool_by_indices, fuse_batch_norm)
    deploy = (prepare_convolutions, work_in_place, softmax_in_order)
    own = (convolve_lean,) if plan.train else deploy
    for each in (*shared, *own):
        each(plan)


def drop_copies(plan: Plan) -> None:
    """Remove nodes whose tops are their bottom."""
    for node in list(plan.nodes):
        copies = (
            node.is_a(Split)
            or (node.is_a(Dropout) and node.layer.phase == pb.TEST)
            or (node.is_a(Concat, Slice) and len(node.bottom) == len(node.top) == 1)
        )
        # One value can be one output blob and carry one loss weight only.
        values = [*node.bottom, *node.top]
        single = all(sum(v in t for v in values) <= 1 for t in (plan._outputs, plan._losses))
        if copies and single and (not plan.train or all(node.wants)):
            plan.nodes.remove(node)
            for value in node.top:
                plan.rename(value, node.bottom[0])


def pool_by_indices(plan: Plan) -> None:
    """Max pooling over windows side by side, and the Unpooling on its mask, by places."""
    for pool in plan.nodes:
        if not pool.is_a(Pooling) or not _plain_windows(pool.layer):
            continue
        unpoolings: list[Node] = []
        if len(pool.top) == 2:
            mask = pool.top[1]
            unpoolings = [n for n in plan.nodes if mask in n.bottom]
            linked = mask not in plan._outputs and all(
                n.is_a(Unpooling) and n.bottom[0] != mask and _fits(n.layer, pool.layer)
                for n in unpoolings
            )
            if not linked:
                continue
        pool.run, pool.reduced = _pool(pool.layer, len(pool.top), plan.train), True
        for node in unpoolings:
            node.run, node.reduced = _unpool(node.layer), True
            node.wants = [node.wants[0], False]


def _plain_windows(layer: Layer) -> bool:
    """Whether windows do not overlap and are not padded: then no place of the mask repeats."""
    p = layer.layer_param.pooling_param
    return (
        not p.global_pooling
        and p.pool == pb.PoolingParameter.MAX
        and layer.pad == (0, 0)
        and layer.kernel == layer.stride
    )


def _fits(unpooling: Layer, pooling: Layer) -> bool:
    """Whether the plane is known to be the pooled image's own, whatever its size."""
    p = unpooling.layer_param.unpooling_param
    return p.HasField("output_h") or unpooling.scale == pooling.kernel[0] == pooling.kernel[1]


def _pool(layer: Layer, tops: int, train: bool) -> Operation:
    ceil = layer.layer_param.pooling_param.round_mode == pb.PoolingParameter.CEIL
    kernel = layer.kernel

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        if train:
            return fused.max_pool(bottom[0], kernel, ceil)[:tops]
        if tops == 2:
            return F.max_pool2d(bottom[0], kernel, kernel, ceil_mode=ceil, return_indices=True)
        return [F.max_pool2d(bottom[0], kernel, kernel, ceil_mode=ceil)]

    return run


def _unpool(layer: Layer) -> Operation:
    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x, places = bottom
        size = layer.size
        if layer.scale:
            size = (x.shape[2] * layer.scale, x.shape[3] * layer.scale)
        try:
            return [fused.unpool(x, places, size)]
        except RuntimeError:
            layer.forward([x, places], [])  # says what does not fit
            raise

    return run


def _scales_channels(node: Node | None) -> bool:
    """Whether this is a Scale with one learned gain (and bias) a channel."""
    if node is None or not node.is_a(Scale) or len(node.bottom) != 1:
        return False
    p = node.layer.layer_param.scale_param
    return p.axis == 1 and p.num_axes == 1


def fuse_batch_norm(plan: Plan) -> None:
    """BatchNorm on batch statistics, Scale, and ReLU if it follows, in one."""
    for norm in list(plan.nodes):
        if not norm.is_a(BatchNorm) or norm.layer.use_global or not all(norm.wants):
            continue
        takers = plan.takers()
        scale = plan.only_taker(norm.top[0], takers)
        if not _scales_channels(scale) or not all(scale.wants):
            continue
        parts = [norm, scale]
        relu = plan.only_taker(scale.top[0], takers)
        if relu is not None and _plain_relu(relu) and all(relu.wants):
            parts.append(relu)
        run = _batch_norm_scale_relu(plan, norm.layer, scale.layer, len(parts) == 3)
        _replace(plan, parts, run)


def _plain_relu(node: Node) -> bool:
    return node.is_a(ReLU) and not node.layer.layer_param.relu_param.negative_slope


def _replace(plan: Plan, parts: Sequence[Node], run: Operation) -> None:
    """Put one node in the place of a chain of them."""
    first, last = parts[0], parts[-1]
    node = type(first)(
        [layer for part in parts for layer in part.layers],
        first.bottom,
        last.top,
        run,
        first.wants,
        [blob for part in parts for blob in part.blobs],
        reduced=True,
    )
    plan.nodes[plan.nodes.index(last)] = node
    for part in parts[:-1]:
        plan.nodes.remove(part)


def _batch_norm_scale_relu(plan: Plan, norm: BatchNorm, scale: Scale, relu: bool) -> Operation:
    layer, scaled = plan.pure(norm), plan.pure(scale)

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x = bottom[0]
        alone = x.numel() == norm.channels and not norm.synchronous
        if x.dim() < 2 or alone:  # BatchNorm has its own way there
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


def convolve_lean(plan: Plan) -> None:
    """2-D convolutions and their transposes by fused.convolve."""
    for node in plan.nodes:
        if node.is_a(Convolution, Deconvolution) and _is_image(node):
            node.run, node.reduced = _lean(plan, node.layer), True


def _is_image(node: Node) -> bool:
    """Whether this convolution takes one bottom of samples x channels x height x width."""
    layer = node.layer
    return len(node.bottom) == 1 and layer.channel_axis == 1 and layer.spatial == 2


def _lean(plan: Plan, layer: Layer) -> Operation:
    transposed = isinstance(layer, Deconvolution)
    how = fused.Convolving(layer.kernel_geometry, transposed, plan.dtype, plan.channels_last)
    plain, recompute = plan.pure(layer), plan.circumstances.settings.recompute

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x = bottom[0]
        layer.top_shapes(bottom)  # refuses what does not fit
        if not transposed and layer.filled(x) is not x:
            return plain([x.float()], blobs)
        return [fused.convolve(x, blobs[0], blobs[1] if len(blobs) > 1 else None, how, recompute)]

    return run


def prepare_convolutions(plan: Plan) -> None:
    """A 2-D (de)convolution with the BatchNorm, Scale and ReLU that follow it, in one."""
    for conv in list(plan.nodes):
        if not conv.is_a(Convolution, Deconvolution) or not _is_image(conv):
            continue
        parts, takers = [conv], plan.takers()
        norm = plan.only_taker(conv.top[0], takers)
        if norm is not None and norm.is_a(BatchNorm) and norm.layer.use_global:
            parts.append(norm)
            scale = plan.only_taker(norm.top[0], takers)
            if _scales_channels(scale):
                parts.append(scale)
        relu = plan.only_taker(parts[-1].top[0], takers)
        if relu is not None and _plain_relu(relu):
            parts.append(relu)
        _replace(plan, parts, PreparedConvolution([p.layer for p in parts], plan))


def work_in_place(plan: Plan) -> None:
    """Rectify, or add, where the value lies, if nobody else takes it and it is no source's own."""
    takers = plan.takers()
    for node in plan.nodes:
        maker = plan.maker(node.bottom[0]) if node.bottom else None
        fresh = maker is not None and any(
            isinstance(part, Convolution | Deconvolution | BatchNorm | Scale)
            for part in maker.layers
        )
        if not fresh or takers[node.bottom[0]] != 1:
            continue
        if _plain_relu(node):
            node.run = lambda bottom, blobs: [bottom[0].relu_()]
        elif _plain_sum(node):
            node.run = _add_in_place(plan.pure(node.layer))


def softmax_in_order(plan: Plan) -> None:
    """PyTorch's softmax over an axis takes three times as long on channels-last values; by a few
    rows of an image at a time, into the output blob if it can be, it needs no memory of its own.
    """
    for node in plan.nodes:
        if node.is_a(Softmax):
            node.run, node.reduced = _softmax(node.layer, plan._outputs.get(node.top[0])), True


def _softmax(layer: Layer, shown: Blob | None) -> Operation:
    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x = bottom[0]
        axis = layer.axis(layer.layer_param.softmax_param.axis, tuple(x.shape))
        if x.device.type != "cpu" or x.dim() != 4 or axis == 2 or not x.numel():
            return [layer.forward([_in_order(x)], [])]
        y = shown.place() if shown is not None and shown.shape == x.shape else None
        y = torch.empty(x.shape) if y is None else y
        rows = max(1, x.shape[2] * SOFTMAX_PIECE // x.numel())
        for part, out in zip(x.split(rows, 2), y.split(rows, 2), strict=True):
            out.copy_(layer.forward([_in_order(part)], []))
        return [y]

    return run


def _in_order(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float32, memory_format=torch.contiguous_format)


def _plain_sum(node: Node) -> bool:
    """Whether this adds two blobs as they are."""
    if not node.is_a(Eltwise) or len(node.bottom) != 2:
        return False
    p = node.layer.layer_param.eltwise_param
    return p.operation == p.SUM and all(c == 1 for c in p.coeff)


def _add_in_place(plain: Operation) -> Operation:
    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x, y = bottom
        fits = x.dtype == y.dtype and x.shape == y.shape
        return [x.add_(y)] if fits else plain(bottom, blobs)

    return run

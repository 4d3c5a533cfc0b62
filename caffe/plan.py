"""Plan: how a net runs when nobody looks at the blobs between its inputs and outputs.

The layer loop of `Net` keeps every blob, as pycaffe's users expect. A plan computes the same
outputs and parameter gradients with less time and memory: the layers become nodes over values,
rewrites replace what can be done together, one graph of autograd spans the whole net, and a value
is forgotten when the last node that takes it has run. Only the net's output blobs are filled.

Rewrites, each equal to the layers it replaces up to rounding:

- `drop_copies`: Split, Dropout in TEST, and Concat or Slice of one, vanish.
- `fuse_batch_norm`: BatchNorm on batch statistics + Scale (+ ReLU) is one operation that keeps two
  activations for the gradient instead of four.
- `fold_batch_norm`: BatchNorm on gathered statistics + Scale goes into the weights of the
  (de)convolution before it, where no gradient is wanted.
- `link_unpooling`: a pooling mask that only Unpooling takes stays a tensor of indices.
- `relu_in_place`: where no gradient is wanted and nobody else takes the value.

On the CPU 4-D values are kept channels-last, which PyTorch's convolutions prefer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from caffe.blob import Blob
from caffe.device import current_device
from caffe.layers.activation import Dropout, ReLU
from caffe.layers.base import Layer, Tensors
from caffe.layers.common import Concat, Slice, Split
from caffe.layers.normalization import BatchNorm, Scale
from caffe.layers.pooling import Pooling, Unpooling
from caffe.layers.vision import Convolution, Deconvolution
from caffe.proto import caffe_pb2 as pb
from caffe.sync_bn import sync_batch_norm

if TYPE_CHECKING:
    from caffe.net import Net

Operation = Callable[[Tensors, Tensors], Sequence[torch.Tensor]]


@dataclass
class Node:
    """One operation: values in, values out (numbers of values), and the blobs that it reads."""

    layers: list[Layer]
    bottom: list[int]
    top: list[int]
    run: Operation
    wants: list[bool]  # which bottoms get a gradient
    blobs: list[Blob] = field(default_factory=list)

    @property
    def layer(self) -> Layer:
        return self.layers[0]

    def is_a(self, *classes: type[Layer]) -> bool:
        """Whether this is still one single layer, of one of these types."""
        return len(self.layers) == 1 and isinstance(self.layer, classes)


def can_plan(net: Net) -> bool:
    """Whether a plan can stand for the net: sources take nothing, the others are pure functions.

    A user's Python layer, say, works on blobs, and gets the layer loop.
    """
    return all(
        layer.num_bottoms == 0 if layer.source else type(layer).run_forward is Layer.run_forward
        for layer in net._layers
    )


class Plan:
    """The plan of one net. `train`: gradients are wanted, else only outputs.

    forward() returns the losses (weighted, scalars); after it the net's output blobs are filled.
    backward() adds to the gradients of the parameters.
    """

    def __init__(self, net: Net, train: bool) -> None:
        self.net, self.train = net, train
        self.nodes: list[Node] = []
        self._outputs: dict[int, Blob] = {}
        self._losses: dict[int, float] = {}
        self._read_net()
        for rewrite in (drop_copies, link_unpooling, fuse_batch_norm):
            rewrite(self)
        if not train:
            fold_batch_norm(self)
            relu_in_place(self)
        self._last_use = {i: k for k, node in enumerate(self.nodes) for i in node.bottom}
        self._total: torch.Tensor | None = None

    def _read_net(self) -> None:
        """One node a layer; a blob that is written in place becomes several values."""
        net = self.net
        newest: dict[int, int] = {}
        count = 0
        for i, layer in enumerate(net._layers):
            bottom = [newest[b] for b in net._bottom_id_vecs[i]]
            top = list(range(count, count + len(net._top_id_vecs[i])))
            count += len(top)
            newest.update(zip(net._top_id_vecs[i], top, strict=True))
            run = _source(layer, net._tops(i)) if layer.source else _pure(layer)
            wants = list(net._bottom_need_backward[i])
            self.nodes.append(Node([layer], bottom, top, run, wants, list(layer.blobs)))
            for value, weight in zip(top, layer.loss_weights, strict=True):
                if weight:
                    self._losses[value] = weight
        for i in net._outputs:
            self._outputs[newest[i]] = net._blobs[i]

    # -- for rewrites ---------------------------------------------------------------------------

    def takers(self) -> Counter[int]:
        """How often each value is taken; outputs and losses count as taken once more."""
        count = Counter(i for node in self.nodes for i in node.bottom)
        count.update([*self._outputs, *self._losses])
        return count

    def maker(self, value: int) -> Node | None:
        return next((node for node in self.nodes if value in node.top), None)

    def only_taker(self, value: int, takers: Counter[int]) -> Node | None:
        """The one node that takes `value`, if no other and no output does."""
        if takers[value] != 1:
            return None
        return next((node for node in self.nodes if value in node.bottom), None)

    def rename(self, old: int, new: int) -> None:
        """Let everyone who takes value `old` take `new`."""
        for node in self.nodes:
            node.bottom = [new if i == old else i for i in node.bottom]
        for table in (self._outputs, self._losses):
            if old in table:
                table[new] = table.pop(old)

    # -- running --------------------------------------------------------------------------------

    def forward(self) -> list[torch.Tensor]:
        device = current_device()
        values: dict[int, torch.Tensor] = {}
        leaves: dict[int, torch.Tensor] = {}
        losses = []
        with torch.set_grad_enabled(self.train):
            for k, node in enumerate(self.nodes):
                bottom = [
                    values[i] if want else values[i].detach()
                    for i, want in zip(node.bottom, node.wants, strict=True)
                ]
                tops = node.run(bottom, self._parameters(node, leaves, device))
                del bottom
                for i, value in zip(node.top, tops, strict=True):
                    values[i] = value
                    if i in self._losses:
                        losses.append(self._losses[i] * value.sum())
                    if i in self._outputs:
                        self._outputs[i].assign(value.detach().contiguous(), borrowed=True)
                del tops
                for i in {*node.bottom, *node.top}:
                    if self._last_use.get(i, -1) <= k:
                        values.pop(i, None)
        self._total = sum(losses[1:], start=losses[0]) if losses else None
        return [loss.detach() for loss in losses]

    def backward(self) -> None:
        """Add the gradients of the last forward pass's losses to the parameters' `.diff`."""
        total, self._total = self._total, None
        if total is not None and total.requires_grad:
            total.backward()

    def _parameters(
        self, node: Node, leaves: dict[int, torch.Tensor], device: torch.device
    ) -> list[torch.Tensor]:
        if not self.train:
            return [b.tensor(device) for b in node.blobs]
        learns = [want for layer in node.layers for want in layer.param_propagate_down]
        return [
            self._leaf(b, leaves, device) if want else b.tensor(device).data
            for b, want in zip(node.blobs, learns, strict=True)
        ]

    def _leaf(
        self, blob: Blob, leaves: dict[int, torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        """The parameter as a leaf whose gradient is the blob's diff, one for all who share it."""
        leaf = leaves.get(id(blob._data))
        if leaf is None:
            leaf = blob.tensor(device).data.requires_grad_()
            leaf.grad = blob.diff_tensor(device).data
            hook = self.net.gradient_hook
            if hook is not None:
                leaf.register_post_accumulate_grad_hook(lambda _: hook(blob))
            leaves[id(blob._data)] = leaf
        return leaf.view(blob.shape)


def _pure(layer: Layer) -> Operation:
    convolves = isinstance(layer, Convolution | Deconvolution)

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        tops = layer.forward([_channels_last(x) for x in bottom] if convolves else bottom, blobs)
        return [tops] if isinstance(tops, torch.Tensor) else tops

    return run


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    if x.dim() == 4 and x.device.type == "cpu":
        return x.contiguous(memory_format=torch.channels_last)
    return x


def _source(layer: Layer, tops: Sequence[Blob]) -> Operation:
    """Fills the source's own blobs, as in the layer loop, and takes the values from there."""

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        layer.run_forward([], tops, False)
        return [blob.tensor() for blob in tops]

    return run


# -- rewrites ---------------------------------------------------------------------------------


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


def link_unpooling(plan: Plan) -> None:
    """Let the mask between a pooling layer and its Unpooling stay what torch makes: indices."""
    for node in plan.nodes:
        if not node.is_a(Unpooling):
            continue
        pool = plan.maker(node.bottom[1])
        if pool is None or not pool.is_a(Pooling) or not _plain_windows(pool.layer):
            continue
        mask = pool.top[1]
        takers = [n for n in plan.nodes if mask in n.bottom]
        if mask in plan._outputs or not all(n.is_a(Unpooling) for n in takers):
            continue
        if not all(_fits(n.layer, pool.layer) for n in takers):
            continue
        pool.run = _pool_with_indices(pool.layer)
        for taker in takers:
            taker.run = _unpool_by_indices(taker.layer)
            taker.wants = [taker.wants[0], False]


def _plain_windows(layer: Layer) -> bool:
    """Whether windows do not overlap and are not padded: then no place of the mask repeats."""
    p = layer.layer_param.pooling_param
    return (
        not p.global_pooling
        and p.pool == pb.PoolingParameter.MAX
        and layer.pad == (0, 0)
        and layer.kernel == layer.stride
        and layer.num_tops == 2
    )


def _fits(unpooling: Layer, pooling: Layer) -> bool:
    """Whether the plane is known to be the pooled image's own, whatever its size."""
    p = unpooling.layer_param.unpooling_param
    return p.HasField("output_h") or unpooling.scale == pooling.kernel[0] == pooling.kernel[1]


def _pool_with_indices(layer: Layer) -> Operation:
    ceil = layer.layer_param.pooling_param.round_mode == pb.PoolingParameter.CEIL

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        return F.max_pool2d(
            bottom[0], layer.kernel, layer.stride, ceil_mode=ceil, return_indices=True
        )

    return run


def _unpool_by_indices(layer: Layer) -> Operation:
    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x, indices = bottom
        height, width = layer.size
        if layer.scale:
            height, width = x.shape[2] * layer.scale, x.shape[3] * layer.scale
        return [torch.ops.aten.max_unpool2d(x, indices, [height, width])]

    return run


class _BatchNormScaleReLU(torch.autograd.Function):
    """Normalise by the batch, scale, shift, rectify; keeps only the bottom and the top."""

    @staticmethod
    def forward(ctx, x, gain, bias, mean, variance, eps: float, relu: bool):
        y, batch_mean, invstd = torch.native_batch_norm(
            x, gain, bias, mean, variance, True, 1.0, eps
        )
        if relu:
            y.relu_()
        ctx.save_for_backward(x, gain, batch_mean, invstd, y if relu else None)
        ctx.eps = eps
        return y

    @staticmethod
    def backward(ctx, grad):
        x, gain, mean, invstd, y = ctx.saved_tensors
        if y is not None:
            grad = torch.ops.aten.threshold_backward(grad, y, 0)
        needs = list(ctx.needs_input_grad[:3])
        grads = torch.ops.aten.native_batch_norm_backward(
            grad, x, gain, None, None, mean, invstd, True, ctx.eps, needs
        )
        return (
            *(g if n else None for g, n in zip(grads, needs, strict=True)),
            None,
            None,
            None,
            None,
        )


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
        if relu is not None and _plain_relu(relu):
            parts.append(relu)
        _replace(plan, parts, _batch_norm_scale_relu(norm.layer, scale.layer, len(parts) == 3))


def _plain_relu(node: Node) -> bool:
    return (
        node.is_a(ReLU) and not node.layer.layer_param.relu_param.negative_slope and all(node.wants)
    )


def _replace(plan: Plan, parts: Sequence[Node], run: Operation) -> None:
    """Put one node in the place of a chain of them."""
    first, last = parts[0], parts[-1]
    node = Node(
        [layer for part in parts for layer in part.layers],
        first.bottom,
        last.top,
        run,
        first.wants,
        [blob for part in parts for blob in part.blobs],
    )
    plan.nodes[plan.nodes.index(last)] = node
    for part in parts[:-1]:
        plan.nodes.remove(part)


def _batch_norm_scale_relu(norm: BatchNorm, scale: Scale, relu: bool) -> Operation:
    layer = _pure(norm)
    scaled = _pure(scale)

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x = bottom[0]
        alone = x.numel() == norm.channels and not norm.synchronous
        if x.dim() < 2 or alone:  # BatchNorm has its own way there
            y = scaled(layer(bottom, blobs[:3]), blobs[3:])[0]
            return [F.relu(y) if relu else y]
        gain = blobs[3]
        bias = blobs[4] if len(blobs) == 5 else torch.zeros_like(gain)
        if norm.synchronous:
            y, mean, variance = sync_batch_norm(x, gain, bias, norm.eps, relu)
        else:
            mean, variance = x.new_zeros(norm.channels), x.new_zeros(norm.channels)
            y = _BatchNormScaleReLU.apply(x, gain, bias, mean, variance, norm.eps, relu)
        with torch.no_grad():
            for blob, new in zip(blobs, (mean, variance, torch.ones_like(blobs[2])), strict=False):
                blob.mul_(norm.fraction).add_(new)
        return [y]

    return run


def fold_batch_norm(plan: Plan) -> None:
    """BatchNorm on gathered statistics and Scale into the (de)convolution before them."""
    for norm in list(plan.nodes):
        if not norm.is_a(BatchNorm) or not norm.layer.use_global:
            continue
        takers = plan.takers()
        conv = plan.maker(norm.bottom[0])
        foldable = (
            conv is not None
            and conv.is_a(Convolution, Deconvolution)
            and len(conv.bottom) == 1
            and conv.layer.channel_axis == 1
            and takers[norm.bottom[0]] == 1
        )
        if not foldable:
            continue
        parts = [conv, norm]
        scale = plan.only_taker(norm.top[0], takers)
        if _scales_channels(scale):
            parts.append(scale)
        _replace(plan, parts, _folded(conv.layer, norm.layer, len(parts) == 3))


def _folded(conv: Layer, norm: BatchNorm, scaled: bool) -> Operation:
    transposed = isinstance(conv, Deconvolution)
    count = len(conv.blobs)

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        weight = blobs[0]
        mean, variance, factor = blobs[count : count + 3]
        share = torch.where(factor == 0, torch.zeros_like(factor), 1 / factor)
        gain = torch.rsqrt(variance * share + norm.eps)
        shift = -mean * share
        if count == 2:
            shift = shift + blobs[1]
        if scaled:
            gain = gain * blobs[count + 3]
        shift = shift * gain
        if scaled and len(blobs) == count + 5:
            shift = shift + blobs[count + 4]
        ones = [1] * (weight.dim() - 2)
        if transposed:  # (inputs, outputs / group, ...): gains repeat by group along the inputs
            per = gain.view(conv.group, 1, -1).expand(-1, weight.shape[0] // conv.group, -1)
            weight = weight * per.reshape(weight.shape[0], weight.shape[1], *ones)
        else:
            weight = weight * gain.view(-1, 1, *ones)
        return conv.forward([_channels_last(x) for x in bottom], [weight, shift])

    return run


def relu_in_place(plan: Plan) -> None:
    """Rectify where the value lies, if nobody else takes it and it is no source's own blob."""
    takers = plan.takers()
    for node in plan.nodes:
        maker = plan.maker(node.bottom[0]) if node.bottom else None
        if not node.is_a(ReLU) or node.layer.layer_param.relu_param.negative_slope:
            continue
        fresh = maker is not None and any(
            isinstance(part, Convolution | Deconvolution | BatchNorm | Scale)
            for part in maker.layers
        )
        if fresh and takers[node.bottom[0]] == 1:
            node.run = lambda bottom, blobs: [bottom[0].relu_()]

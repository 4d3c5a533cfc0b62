"""prepare_products: inner products with weights in oneDNN's own layout, and the ReLU behind them.

PyTorch multiplies float32 by MKL, which takes two to three times as long for a few rows on AMD's
processors, and in bfloat16 autocast rounds all weights again in each pass. The weights are laid out
once, and again when they change; the layer's own stay, so that they take twice their memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from caffe.kernels import finite
from caffe.layers.base import Layer, Tensors
from caffe.layers.common import InnerProduct
from caffe.plan.ir import Circumstances, Node, Number, Program, always
from caffe.plan.operations import by_layer
from caffe.plan.prepared import Growth, Watch
from caffe.plan.rewrites.patterns import plain_relu
from caffe.plan.rewrites.rewrite import Match, Rewrite
from caffe.process import memory

# Multiply-adds. Below, the call of oneDNN takes longer than its product saves.
LEAST = 1 << 19
# oneDNN chooses a layout by the number of rows. That for this many is as fast for all others, so
# that the weights stay as they are when the number changes.
ROWS = 16


def _pattern(program: Program, node: Node) -> Match | None:
    """An inner product, and the ReLU behind it."""
    if not node.is_a(InnerProduct):
        return None
    relu = program.only_taker(node.top[0])
    return [node, relu] if plain_relu(relu) else [node]


def _check(program: Program, match: Match) -> str:
    layer = match[0].layer
    if len(match[0].bottom) != 1:
        return "takes its weights from another layer"
    if layer.gathers:
        return "changes its weights in each pass"
    if program.circumstances.device.type != "cpu":
        return "is not computed on the CPU"
    return "" if _by_onednn(program.circumstances.dtype) else "has no oneDNN for it"


def _by_onednn(number: Number) -> bool:
    """Whether this PyTorch has the operations, and they run on this processor for such numbers."""
    ops = torch.ops.mkldnn
    if not (torch.backends.mkldnn.is_available() and hasattr(ops, "_linear_pointwise")):
        return False
    try:
        ops._reorder_linear_weight(torch.zeros(1, 1, dtype=number), ROWS)
    except (RuntimeError, AttributeError, TypeError):
        return False
    return True


def _action(program: Program, match: Match) -> None:
    prepared = PreparedProduct([node.layer for node in match], program.circumstances)
    program.join(match, prepared, always(program.circumstances.dtype, 1))


class PreparedProduct:
    """An operation of a plan: InnerProduct, then optionally ReLU.

    It runs layer by layer where that is as fast, where parameters or values are not finite or may
    overflow, and where someone holds a view of the parameters: to compare them in each pass would
    take longer than the product.
    """

    def __init__(self, layers: Sequence[Layer], made_for: Circumstances) -> None:
        self.layer, self.relu, self.dtype = layers[0], len(layers) > 1, made_for.dtype
        self._plain = by_layer(self.layer, made_for)
        self._watch = Watch(self.layer.blobs)
        self._for: torch.Size | None = None  # the bottom's shape
        self._shape: tuple[int, ...] = ()  # the top's
        self._packed: torch.Tensor | None = None
        self._bias: torch.Tensor | None = None
        self._growth: Growth | None = None

    def __call__(self, bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        (x,) = bottom
        if x.shape != self._for:
            self._for = None
            (self._shape,) = self.layer.top_shapes(bottom)  # raises CaffeError if it does not fit
            self._for = x.shape
        rows = math.prod(self._shape[:-1])
        if rows * self.layer.features * self.layer.outputs < LEAST:
            return self._by_layer(x, blobs)
        if any(blob.viewed for blob in self.layer.blobs):
            self._packed = self._growth = None
            return self._by_layer(x, blobs)
        if self._watch.changed() or self._growth is None:
            self._prepare(blobs)
        assert self._growth is not None
        limit = self._growth.top(x)
        if limit == math.inf:
            return self._by_layer(x, blobs)
        x = x.to(self.dtype).reshape(rows, self.layer.features)
        after = "relu" if self.relu else "none"
        y = torch.ops.mkldnn._linear_pointwise(x, self._packed, self._bias, after, [], "")
        return [finite.carry(y.view(self._shape), limit)]

    def _prepare(self, blobs: Tensors) -> None:
        self._packed = None  # free the old ones before new ones are made
        shape = self.layer.outputs, self.layer.features
        weight = blobs[0].t() if self._transposed() else blobs[0].reshape(shape)
        self._growth = Growth(torch.linalg.vector_norm(weight, 1, 1))
        self._bias = None
        if len(blobs) == 2:
            self._growth.add(blobs[1])
            self._bias = blobs[1].to(self.dtype, copy=True)
        with memory.lasting_memory():
            self._packed = torch.ops.mkldnn._reorder_linear_weight(
                weight.to(self.dtype).contiguous(), ROWS
            )

    def _transposed(self) -> bool:
        return self.layer.layer_param.inner_product_param.transpose

    def _by_layer(self, x: torch.Tensor, blobs: Tensors) -> Sequence[torch.Tensor]:
        (y,) = self._plain([x.float()], blobs)
        return [F.relu_(y) if self.relu else y]


PREPARE_PRODUCTS = Rewrite("prepare_products", _pattern, _check, _action, train=False)

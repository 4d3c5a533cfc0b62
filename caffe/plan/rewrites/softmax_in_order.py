"""softmax_in_order: run Softmax on contiguous values, as in Caffe, not on channels-last ones.

PyTorch's softmax over an axis takes three times as long on channels-last values. It processes a few
rows of an image at a time and writes, where possible, into the output blob, so that it needs no
memory of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.layers.base import Layer, Tensors
from caffe.layers.common import Softmax
from caffe.plan.ir import Node, Operation, Program, always
from caffe.plan.rewrites.rewrite import Match, Rewrite

PIECE = 1 << 18  # values per piece: 1 MB


def _pattern(program: Program, node: Node) -> Match | None:
    return [node] if node.is_a(Softmax) else None


def _check(program: Program, match: Match) -> str:
    return ""


def _action(program: Program, match: Match) -> None:
    (node,) = match
    node.run = _softmax(node.layer, program.outputs.get(node.top[0]))
    node.any_number, node.numbers = True, always(torch.float32, 1)


def _softmax(layer: Layer, shown: Blob | None) -> Operation:
    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x = bottom[0]
        axis = layer.axis(layer.layer_param.softmax_param.axis, tuple(x.shape))
        plane = x.shape[2:].numel() if x.dim() == 4 else 0
        if x.device.type != "cpu" or plane < 2 or axis == 2 or not x.numel():
            return [layer.forward([_in_order(x)], [])]
        y = shown.place() if shown is not None and shown.shape == x.shape else None
        y = torch.empty(x.shape) if y is None else y
        rows = max(1, x.shape[2] * PIECE // x.numel())
        for part, out in zip(x.split(rows, 2), y.split(rows, 2), strict=True):
            out.copy_(layer.forward([_in_order(part)], []))
        return [y]

    return run


def _in_order(x: torch.Tensor) -> torch.Tensor:
    return x.to(torch.float32, memory_format=torch.contiguous_format)


SOFTMAX_IN_ORDER = Rewrite("softmax_in_order", _pattern, _check, _action, train=False)

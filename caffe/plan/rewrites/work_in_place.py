"""work_in_place: ReLU and sums of two overwrite their first bottom if nothing else takes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.kernels import finite
from caffe.layers.base import Tensors
from caffe.plan.ir import Node, Operation, Program
from caffe.plan.operations import pure
from caffe.plan.rewrites.patterns import memory_misfit, plain_relu, plain_sum
from caffe.plan.rewrites.rewrite import Match, Rewrite


def _pattern(program: Program, node: Node) -> Match | None:
    return [node] if plain_relu(node) or plain_sum(node) else None


def _check(program: Program, match: Match) -> str:
    return memory_misfit(program, match[0].bottom[0])


def _action(program: Program, match: Match) -> None:
    (node,) = match
    if plain_relu(node):
        node.run = _rectify
    else:
        node.run = _add(pure(node.layer, program.circumstances))


def _rectify(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
    return [bottom[0].relu_()]


def _add(plain: Operation) -> Operation:
    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x, y = bottom
        fits = x.dtype == y.dtype and x.shape == y.shape
        if not fits:
            return plain(bottom, blobs)
        bounds = finite.bound(x), finite.bound(y)
        return [finite.carry(x.add_(y), None if None in bounds else sum(bounds))]

    return run


WORK_IN_PLACE = Rewrite("work_in_place", _pattern, _check, _action, train=False)

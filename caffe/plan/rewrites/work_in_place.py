"""work_in_place: ReLU and sums of two overwrite their first bottom if nothing else takes it, and
convolutions with a sum the other term if nothing takes that after them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.kernels import finite
from caffe.layers.base import Tensors
from caffe.plan.ir import Node, Operation, Program
from caffe.plan.operations import pure
from caffe.plan.prepared import PreparedConvolution
from caffe.plan.rewrites.patterns import memory_misfit, plain_relu, plain_sum
from caffe.plan.rewrites.rewrite import Match, Rewrite


def _pattern(program: Program, node: Node) -> Match | None:
    return [node] if plain_relu(node) or plain_sum(node) or _adds(node) else None


def _adds(node: Node) -> bool:
    """Whether this is a convolution with a sum."""
    return isinstance(node.run, PreparedConvolution) and node.run.sum is not None


def _check(program: Program, match: Match) -> str:
    (node,) = match
    if not _adds(node):
        return memory_misfit(program, node.bottom[0])
    misfit = memory_misfit(program, node.bottom[1])
    return "" if misfit and _is_last(program, node, node.bottom[1]) else misfit


def _makes_fresh(node: Node) -> bool:
    return any(layer.fresh for layer in node.layers)


def _is_last(program: Program, node: Node, value: int) -> bool:
    """Whether nothing needs the value once the node has run: the others that take it have run and
    keep nothing of it.
    """
    if value in program.outputs or value in program.losses or node.bottom.count(value) > 1:
        return False
    maker = program.maker(value)
    if maker is None or not _makes_fresh(maker):
        return False
    here = program.nodes.index(node)
    return all(
        program.nodes.index(other) < here and _makes_fresh(other) and value not in other.bottom[1:]
        for other in program.takers_of(value)
        if other is not node
    )


def _action(program: Program, match: Match) -> None:
    (node,) = match
    if isinstance(node.run, PreparedConvolution):
        node.run.overwrites = True
    elif plain_relu(node):
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

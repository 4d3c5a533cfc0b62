"""The pass that sets every value's number type and inserts casts where a node needs another."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.layers.base import Tensors
from caffe.plan.ir import Node, Program, always


def insert_casts(program: Program) -> None:
    """Fill program.numbers, and cast bfloat16 values to float32 for nodes that do not take them."""
    program.numbers.clear()
    nodes: list[Node] = []
    cast: dict[int, int] = {}  # value -> the same as float32
    for node in program.nodes:
        if not node.any_number:
            for i in node.bottom:
                if program.numbers[i] == torch.bfloat16 and i not in cast:
                    cast[i] = program.new_value()
                    nodes.append(_to_float(i, cast[i], nodes))
                    program.numbers[cast[i]] = torch.float32
            node.bottom = [cast.get(i, i) for i in node.bottom]
        numbers = node.numbers([program.numbers[i] for i in node.bottom])
        program.numbers.update(zip(node.top, numbers, strict=True))
        nodes.append(node)
    program.nodes = nodes


def _to_float(value: int, top: int, before: Sequence[Node]) -> Node:
    maker = next(node for node in before if value in node.top)
    title = f"{maker.name}:float32"
    return Node([], [value], [top], _cast, [True], always(torch.float32, 1), True, title=title)


def _cast(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
    return [bottom[0].float()]

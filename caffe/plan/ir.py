"""A plan as data: operations over values, each value of one number type.

caffe/plan/plan.py runs it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch

from caffe.blob import Blob
from caffe.layers import Layer
from caffe.layers.base import Tensors
from caffe.process import execution, memory
from caffe.process.device import current_device

Operation = Callable[[Tensors, Tensors], Sequence[torch.Tensor]]
Number = torch.dtype  # a value's number type: float32, bfloat16, or int64 for positions
Numbers = Callable[[Sequence[Number]], Sequence[Number]]  # of the tops, given those of the bottoms


class Circumstances(NamedTuple):
    """The settings and device that a plan is made for; others need a new plan."""

    settings: execution.Settings
    device: torch.device

    @property
    def dtype(self) -> Number:
        """The number type that convolutions and inner products multiply."""
        return torch.bfloat16 if self.settings.precision == "bf16" else torch.float32

    @property
    def channels_last(self) -> bool:
        """Whether images lie in memory with their channels innermost, as convolutions prefer."""
        return self.device.type == "cpu" or self.dtype == torch.bfloat16


def circumstances() -> Circumstances:
    """The circumstances in force now."""
    found = Circumstances(execution.settings(), current_device())
    if found.dtype == torch.bfloat16 and found.device.type == "cpu":
        execution.warn_of_slow_bfloat16()
    return found


@dataclass(eq=False)
class Node:
    """One operation, with the values that it takes and makes and the blobs that it reads.

    layers: the layers that it replaces; none for a cast. bottom, top: numbers of values. run: the
    function of the bottoms' and the blobs' tensors that computes the tops. wants: which bottoms get
    a gradient. numbers: gives the tops' number types. any_number: whether it takes bfloat16 bottoms
    as they are; else they must be float32. title: its name, if not the layers'.
    """

    layers: list[Layer]
    bottom: list[int]
    top: list[int]
    run: Operation
    wants: list[bool]
    numbers: Numbers
    any_number: bool = False
    title: str = ""

    @cached_property
    def blobs(self) -> list[Blob]:
        """The parameters of its layers, in order."""
        return [blob for layer in self.layers for blob in layer.blobs]

    @property
    def layer(self) -> Layer:
        """Its first layer; a cast has none."""
        return self.layers[0]

    @property
    def name(self) -> str:
        """The layers' names, joined by +."""
        return self.title or "+".join(layer.name for layer in self.layers)

    def is_a(self, *classes: type[Layer]) -> bool:
        """Whether this is still one single layer, of one of these types."""
        return len(self.layers) == 1 and isinstance(self.layer, classes)


def like_bottoms(tops: int) -> Numbers:
    """The tops have the bottoms' number type, or float32 if the bottoms' differ."""

    def numbers(bottoms: Sequence[Number]) -> Sequence[Number]:
        return [bottoms[0] if len(set(bottoms)) == 1 else torch.float32] * tops

    return numbers


def always(number: Number, tops: int) -> Numbers:
    """The tops have one number type, whatever the bottoms have."""
    return lambda bottoms: [number] * tops


def run_nodes(
    nodes: Sequence[Node], values: dict[int, torch.Tensor], kept: Collection[int]
) -> None:
    """Run nodes one by one: from the values that they take to those of `kept`, which stay in
    `values`; the others are freed when the last node that takes them has run.
    """
    device = current_device()
    last_use = {i: k for k, node in enumerate(nodes) for i in node.bottom}
    for k, node in enumerate(nodes):
        bottom = [values[i] for i in node.bottom]
        with memory.named(f"layer {node.name!r}"):
            tops = node.run(bottom, [blob.tensor(device) for blob in node.blobs])
        del bottom
        values.update(zip(node.top, tops, strict=True))
        del tops
        for i in {*node.bottom, *node.top}:
            if last_use.get(i, -1) <= k and i not in kept:
                values.pop(i, None)


@dataclass
class Program:
    """The nodes of a plan in the order in which they run, and the values that leave it.

    train: whether gradients are wanted, or only outputs. outputs: value -> the net's blob for it.
    losses: value -> its loss weight. numbers: value -> its number type, once casts are inserted.
    """

    train: bool
    circumstances: Circumstances
    nodes: list[Node] = field(default_factory=list)
    outputs: dict[int, Blob] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)
    numbers: dict[int, Number] = field(default_factory=dict)
    count: int = 0  # values so far

    def new_value(self) -> int:
        """The number of a new value."""
        self.count += 1
        return self.count - 1

    def takers(self) -> Counter[int]:
        """How often each value is taken; outputs and losses count as taken once more."""
        count = Counter(i for node in self.nodes for i in node.bottom)
        count.update([*self.outputs, *self.losses])
        return count

    def maker(self, value: int) -> Node | None:
        """The node that makes a value."""
        return next((node for node in self.nodes if value in node.top), None)

    def takers_of(self, value: int) -> list[Node]:
        """The nodes that take a value."""
        return [node for node in self.nodes if value in node.bottom]

    def only_taker(self, value: int) -> Node | None:
        """The one node that takes `value`, if no other and no output does."""
        takers = self.takers_of(value)
        return takers[0] if takers and self.takers()[value] == 1 else None

    def rename(self, old: int, new: int) -> None:
        """Use value `new` wherever `old` is used.

        Raises ValueError if both are outputs, or both are losses: one value cannot be two.
        """
        if any(old in table and new in table for table in (self.outputs, self.losses)):
            raise ValueError(f"values {old} and {new} are both outputs or losses of the net")
        for node in self.nodes:
            node.bottom = [new if i == old else i for i in node.bottom]
        for table in (self.outputs, self.losses):
            if old in table:
                table[new] = table.pop(old)

    def join(self, parts: Sequence[Node], run: Operation, numbers: Numbers) -> Node:
        """Replace a chain of nodes by one node, which takes any number type.

        It takes the first node's bottoms, then what the others take besides the values of the
        chain, and makes the last one's tops. Raises ValueError unless each of the others takes one
        value that the node before it makes alone.
        """
        first, last = parts[0], parts[-1]
        bottom, wants = list(first.bottom), list(first.wants)
        for before, part in itertools.pairwise(parts):
            if len(before.top) != 1 or part.bottom.count(before.top[0]) != 1:
                raise ValueError(f"{before.name} and {part.name} are no links of one chain")
            for value, want in zip(part.bottom, part.wants, strict=True):
                if value != before.top[0]:
                    bottom.append(value)
                    wants.append(want)
        layers = [layer for part in parts for layer in part.layers]
        node = Node(layers, bottom, last.top, run, wants, numbers, any_number=True)
        self.nodes[self.nodes.index(last)] = node
        for part in parts[:-1]:
            self.nodes.remove(part)
        return node

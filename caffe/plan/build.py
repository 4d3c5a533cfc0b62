"""From a net's wiring to a program: one node per layer, rewrites, casts between number types."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from caffe.blob import Blob
from caffe.graph.wiring import Wiring
from caffe.layers.base import Tensors
from caffe.plan.casts import insert_casts
from caffe.plan.delegates import ByPlan, Delegate
from caffe.plan.ir import Circumstances, Node, Operation, Program, always, like_bottoms
from caffe.plan.operations import from_source, pure
from caffe.plan.rewrites import Report, apply_all


def can_plan(wiring: Wiring) -> bool:
    """Whether a plan can run the net: sources have no bottoms, other layers are pure functions.

    A net with a Python layer, say, which works on blobs, runs layer by layer.
    """
    return all(layer.num_bottoms == 0 if layer.source else layer.pure for layer in wiring.layers)


def build(
    wiring: Wiring,
    train: bool,
    circumstances: Circumstances,
    delegate: Delegate | None = None,
    by_plan: ByPlan | None = None,
) -> tuple[Program, Report]:
    """The program of a net, and what the rewrites did to it. delegate, by_plan: as read()'s."""
    program = read(wiring, train, circumstances, delegate, by_plan)
    return program, _finish(program)


def read(
    wiring: Wiring,
    train: bool,
    circumstances: Circumstances,
    delegate: Delegate | None = None,
    by_plan: ByPlan | None = None,
) -> Program:
    """A program with one node per layer; a blob that is written in place becomes several values.

    delegate: computes some layers of a deploy net, in one node. by_plan: computes them, too.
    """
    reader = _Reader(wiring, train, circumstances)
    if delegate is None or by_plan is None:
        program = reader.read(range(len(wiring)))
    else:
        others = [i for i in range(len(wiring)) if i not in delegate.layers]
        # All that a delegate takes are sources' tops, so it can run before any other layer.
        reader.read([i for i in others if wiring.layers[i].source])
        reader.give_to(delegate, by_plan)
        program = reader.read([i for i in others if not wiring.layers[i].source])
    program.outputs = {reader.newest[i]: wiring.blobs[i] for i in wiring.outputs}
    return program


def build_part(wiring: Wiring, circumstances: Circumstances, delegate: Delegate) -> Program:
    """The program of the layers that a net's delegate computes. Its first node makes the values of
    `takes`; whoever runs the program gives it a function that does so. Its outputs are those of
    `gives`, in order, and the blobs that stand for them are nobody's.
    """
    reader = _Reader(wiring, False, circumstances)
    reader.take(delegate.takes)
    program = reader.read(sorted(delegate.layers))
    program.outputs = {reader.newest[i]: Blob() for i in delegate.gives}
    _finish(program)
    return program


def _finish(program: Program) -> Report:
    report = apply_all(program)
    insert_casts(program)
    return report


class _Reader:
    """Adds nodes to a program. newest: the last value of each blob so far."""

    def __init__(self, wiring: Wiring, train: bool, circumstances: Circumstances) -> None:
        self.wiring, self.program = wiring, Program(train, circumstances)
        self.newest: dict[int, int] = {}

    def read(self, layers: Iterable[int]) -> Program:
        """Add these layers, given by their numbers."""
        for i in layers:
            self._add(i)
        return self.program

    def give_to(self, delegate: Delegate, by_plan: ByPlan) -> None:
        """Add the node of a delegate."""

        def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
            tops = delegate.run(bottom, by_plan)
            node.title = delegate.title  # it may have chosen only now
            return tops

        bottom = [self.newest[i] for i in delegate.takes]
        node = self._node(bottom, self._make(delegate.gives), run, delegate.title)

    def take(self, blobs: Sequence[int]) -> None:
        """Add a node that makes these blobs, whose function is still missing."""
        self._node([], self._make(blobs), _missing, "what the part takes")

    def _node(self, bottom: list[int], top: list[int], run: Operation, title: str) -> Node:
        wants, numbers = [False] * len(bottom), always(torch.float32, len(top))
        node = Node([], bottom, top, run, wants, numbers, title=title)
        self.program.nodes.append(node)
        return node

    def _make(self, blobs: Sequence[int]) -> list[int]:
        """New values of these blobs."""
        values = [self.program.new_value() for _ in blobs]
        self.newest.update(zip(blobs, values, strict=True))
        return values

    def _add(self, i: int) -> None:
        wiring, program = self.wiring, self.program
        layer, bottoms, tops = wiring.layers[i], wiring.bottoms[i], wiring.tops[i]
        circumstances = program.circumstances
        bottom = [self.newest[b] for b in bottoms]
        top = self._make(tops)
        run = (
            from_source(layer, wiring.top_blobs(i)) if layer.source else pure(layer, circumstances)
        )
        number = circumstances.dtype if layer.multiplies else torch.float32
        any_number = layer.takes_bfloat16()
        numbers = like_bottoms(len(top)) if any_number else always(number, len(top))
        wants = list(wiring.wants[i])
        program.nodes.append(Node([layer], bottom, top, run, wants, numbers, any_number))
        for value, weight in zip(top, layer.loss_weights, strict=True):
            if weight:
                program.losses[value] = weight


def _missing(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
    raise AssertionError("given before it runs")

"""Segments: runs of small convolutions of a deploy plan that oneDNN computes as one graph.

For each convolution PyTorch's operation tells oneDNN anew what to compute. Between large
convolutions, which push that code out of the caches, this takes 60 to 90 us, a fifth of the time of
a ResNet on two cores. PyTorch can also hand oneDNN a whole graph, by its fuser for TorchScript
(torch.jit.enable_onednn_fusion), and then all of it is told once.

To make such graphs takes a tenth of a second or more, so a plan does that when it has run AFTER
times without a change. Where this PyTorch has no such fuser, convolutions run one by one,
as before.
"""

from __future__ import annotations

import itertools
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F

from caffe.kernels import finite
from caffe.layers.base import Tensors
from caffe.plan.ir import Node, Program, always, run_nodes
from caffe.plan.operations import channels_last
from caffe.plan.prepared import PreparedConvolution, Watch

AFTER = 25  # passes
_making = threading.Lock()  # PyTorch's fuser and Python's warnings are switched for all threads
# Multiply-adds of a convolution from which on it does not matter how oneDNN is told of it.
LARGE = 200_000_000
NOMINAL = 1e4  # bounds of what a segment takes for which nothing in it may be too large
TOLERANCE = 1e-4  # of the largest value, by which the graph's values may differ

Run = Callable[..., Sequence[torch.Tensor]]


def find(program: Program) -> list[list[Node]]:
    """The runs of convolutions that are worth a graph, once they have been prepared.

    None in plans for training, for a GPU or in bf16.
    """
    made_for = program.circumstances
    if program.train or made_for.device.type != "cpu" or made_for.dtype != torch.float32:
        return []
    groups = itertools.groupby(program.nodes, _is_part)
    return [piece for part, nodes in groups if part for piece in _pieces(list(nodes))]


def preparations(program: Program) -> int:
    """Grows when a convolution is prepared anew, because weights or shapes have changed."""
    runs = (node.run for node in program.nodes)
    return sum(run.preparations for run in runs if isinstance(run, PreparedConvolution))


def _pieces(run: Sequence[Node]) -> Iterator[list[Node]]:
    """The run in pieces in which bounds do not grow too large."""
    piece: list[Node] = []
    for node in run:
        growth = _Growth([*piece, node], [])
        if piece and growth.limits([NOMINAL] * len(growth.takes)) is None:
            yield piece
            piece = []
        piece.append(node)
    yield piece


def _is_part(node: Node) -> bool:
    run = node.run
    return isinstance(run, PreparedConvolution) and run.is_direct and run.macs < LARGE


def _taken(run: Sequence[Node]) -> list[int]:
    """The values that a run takes from others."""
    own = {i for node in run for i in node.top}
    return list(dict.fromkeys(i for node in run for i in node.bottom if i not in own))


class Segment:
    """An operation of a plan: a run of its nodes at once, or one by one where that cannot be.

    stale: whether parameters or shapes have changed since the graph was made. refused: whether
    there is none, or its values are not right.
    """

    def __init__(self, program: Program, run: Sequence[Node]) -> None:
        inside = {id(node) for node in run}
        later = {i for node in program.nodes if id(node) not in inside for i in node.bottom}
        later |= {*program.outputs, *program.losses}
        self.nodes, self._takes = run, _taken(run)
        self._gives = [i for node in run for i in node.top if i in later]
        self._watch = Watch([blob for node in run for blob in node.blobs])
        self._shapes: list[torch.Size] = []
        self._graph: Run | None = None
        self._growth: _Growth | None = None
        self.stale = self.refused = False

    def as_node(self) -> Node:
        """The node that takes the place of the run. It has no parameters: its nodes know theirs."""
        numbers, wants = always(torch.float32, len(self._gives)), [False] * len(self._takes)
        title = " to ".join(dict.fromkeys(node.name for node in (self.nodes[0], self.nodes[-1])))
        return Node([], self._takes, self._gives, self, wants, numbers, title=title)

    def __call__(self, bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        if torch.is_autocast_enabled("cpu"):  # it would reach into the graph
            return self._one_by_one(bottom)
        bottom = [_innermost(x) for x in bottom]
        shapes = [x.shape for x in bottom]
        if self._growth is None:
            self._watch.changed()
            self._growth, self._shapes = _Growth(self.nodes, self._gives), shapes
        elif self._watch.changed() or shapes != self._shapes:
            self.stale = True
        limits = None if self.stale else self._limits(bottom)
        if limits is None:
            return self._one_by_one(bottom)
        if self._graph is None:
            return self._begin(bottom)
        tops = self._graph(*bottom)
        return [finite.carry(top, limit) for top, limit in zip(tops, limits, strict=True)]

    def _begin(self, bottom: Tensors) -> Sequence[torch.Tensor]:
        """Make the graph, and see whether its values are right."""
        # Sums may be written over what they take.
        given = [x.clone(memory_format=torch.preserve_format) for x in bottom]
        tops = self._one_by_one(bottom)
        graph = None if self.refused else _make_graph(self.nodes, self._takes, self._gives, given)
        if graph is not None and _agree(tops, graph(*given)):
            self._graph = graph
            for node in self.nodes:
                _of(node).forget()  # its copy of the weights
        else:
            self.refused = True
        return tops

    def _limits(self, bottom: Tensors) -> list[float] | None:
        """What the tops do not exceed; None if values may be too large on the way, or are not
        finite.
        """
        assert self._growth is not None
        known = [finite.bound(x) for x in bottom]
        found = None if None in known else self._growth.limits(known)
        if found is None:  # bounds grow from layer to layer, much faster than values do
            found = self._growth.limits([finite.largest(x) for x in bottom])
        return found

    def _one_by_one(self, bottom: Tensors) -> list[torch.Tensor]:
        values = dict(zip(self._takes, bottom, strict=True))
        run_nodes(self.nodes, values, self._gives)
        return [values[i] for i in self._gives]


def _innermost(x: torch.Tensor) -> torch.Tensor:
    """x with its channels innermost in memory; a graph keeps the layout that it is given."""
    y = channels_last(x)
    return y if y is x else finite.carry(y, finite.bound(x))


def _of(node: Node) -> PreparedConvolution:
    assert isinstance(node.run, PreparedConvolution)
    return node.run


class _Growth:
    """How large values get on the way through nodes, for bounds of what they take.

    gives: the values whose bounds are wanted.
    """

    def __init__(self, nodes: Sequence[Node], gives: Sequence[int]) -> None:
        # Each bound is a sum of those of the values that are taken, times these weights, and of
        # the last weight.
        self.takes = _taken(nodes)
        count = len(self.takes) + 1
        found = {i: tuple(float(k == j) for j in range(count)) for k, i in enumerate(self.takes)}
        self._worst: tuple[float, ...] = (0.0,) * count
        for node in nodes:
            x, *others = (found[i] for i in node.bottom)
            for slope, offset in _of(node).growth.steps:
                y = (*(slope * a for a in x[:-1]), slope * x[-1] + offset)
                self._note(y)
            for other in others:
                y = tuple(a + b for a, b in zip(y, other, strict=True))
                self._note(y)
            found[node.top[0]] = y
        self._tops = [found[i] for i in gives]

    def _note(self, weights: Sequence[float]) -> None:
        """Keep the larger ones; NaN stays."""
        pairs = zip(self._worst, weights, strict=True)
        self._worst = tuple(b if a <= b or b != b else a for a, b in pairs)

    def limits(self, bounds: Sequence[float]) -> list[float] | None:
        """The bounds of `gives`; None if one on the way reaches finite.LIMIT."""
        if not _sum(self._worst, bounds) < finite.LIMIT:  # NaN is not below it either
            return None
        return [_sum(top, bounds) for top in self._tops]


def _sum(weights: Sequence[float], bounds: Sequence[float]) -> float:
    total = weights[-1]
    for weight, bound in zip(weights, bounds, strict=False):
        total += weight * bound
    return total


# -- graphs ------------------------------------------------------------------------------------


def _make_graph(
    nodes: Sequence[Node], takes: Sequence[int], gives: Sequence[int], bottom: Tensors
) -> Run | None:
    """The function of `takes` that computes `gives` as a graph of oneDNN's; None if this PyTorch
    makes none.
    """
    plain = {id(node): _of(node).plain() for node in nodes}

    def compute(*given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = dict(zip(takes, given, strict=True))
        for node in nodes:
            x, *others = (values[i] for i in node.bottom)
            y = F.conv2d(x, *plain[id(node)])
            for other in others:
                y = y + other
            values[node.top[0]] = F.relu(y) if _of(node).relu else y
        return tuple(values[i] for i in gives)

    with _making:
        try:
            was_enabled = torch.jit.onednn_fusion_enabled()
            torch.jit.enable_onednn_fusion(True)
        except (AttributeError, RuntimeError):  # not in every PyTorch
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is to go some day
                # torch.jit.trace() would keep the weights for the life of the process.
                graph, _ = torch.jit._get_trace_graph(compute, tuple(bottom))
                made = torch._C._create_function_from_graph("segment", graph)
                for _ in range(3):  # it looks at shapes first, and fuses then
                    made(*bottom)
                fused = "oneDNNFusionGroup" in str(made.graph_for(*bottom))
        except (AttributeError, RuntimeError, TypeError):
            return None
        finally:
            torch.jit.enable_onednn_fusion(was_enabled)
    if not fused:
        return None
    return made if len(gives) > 1 else lambda *x: (made(*x),)


def _agree(ours: Tensors, theirs: Tensors) -> bool:
    """Whether values are the same but for rounding."""
    for a, b in zip(ours, theirs, strict=True):
        scale = finite.largest(a)
        if a.shape != b.shape or not finite.largest(a - b) <= TOLERANCE * scale < math.inf:
            return False
    return True

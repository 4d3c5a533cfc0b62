"""Plan: how a net runs when nobody looks at the blobs between its inputs and outputs.

The layer loop of `Net` keeps every blob, as pycaffe's users expect. A plan computes the same
outputs and parameter gradients with less time and memory: the layers become nodes over values
(caffe/plan/ir.py), rewrites replace groups of nodes by cheaper ones (caffe/plan/rewrites), one
graph of autograd spans the whole net, and a value is freed when the last node that takes it has
run. Only the net's output blobs are filled.

On the CPU, and in bf16 everywhere, 4-D values are kept channels-last, as convolutions prefer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import cached_property
from typing import NamedTuple, Protocol, overload

import torch

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.graph.wiring import Wiring
from caffe.kernels.later import Later, Target, aim
from caffe.plan import segments
from caffe.plan.build import build
from caffe.plan.delegates import Delegate
from caffe.plan.ir import Node, Program, circumstances
from caffe.plan.part import Part
from caffe.plan.streams import Streams, number
from caffe.process import memory
from caffe.process.device import current_device
from caffe.process.waiting import waiting

Hook = Callable[[Blob], None]


class Watcher(Protocol):
    """Told of each node that has run forward or backward (caffe/plan/clock.py)."""

    def forward(self, k: int, tops: Sequence[torch.Tensor]) -> None: ...

    def backward(self, k: int | None) -> None: ...


class Plan:
    """The plan of one net. train: whether gradients are wanted, or only outputs. delegate: computes
    some of the layers, in one node; for deploy plans.

    forward() fills the net's output blobs and returns the losses (weighted, scalars). backward()
    adds to the gradients of the parameters, and calls gradient_hook with each blob whose gradient
    is complete. program: the nodes (caffe/plan/ir.py). report: which rewrites acted, and which did
    not fit and why. clock: the Watcher, if any.
    """

    def __init__(self, wiring: Wiring, train: bool, delegate: Delegate | None = None) -> None:
        self.name, self.train = wiring.name, train
        part = Part(wiring, delegate) if delegate is not None else None
        self.program, self.report = build(wiring, train, circumstances(), delegate, part)
        self._steps = _steps(self.program, self.nodes)
        self._segments: list[segments.Segment] = []
        self._joined = self._steps  # the same, in segments
        self._passes = 0  # since segments were last given up or looked for
        self._stamp = self._tried = -1  # of segments.preparations()
        self._total: torch.Tensor | None = None
        self._later = Later()
        self.gradient_hook: Hook | None = None
        self.clock: Watcher | None = None

    @property
    def nodes(self) -> list[Node]:
        return self.program.nodes

    def is_current(self) -> bool:
        """Whether the settings and device are still those that the plan was made for."""
        return self.program.circumstances == circumstances()

    def forward(self) -> list[torch.Tensor]:
        """Run all nodes; returns the weighted losses, without gradients."""
        self._total = None  # frees what an earlier pass kept
        steps, second = self._current_steps(), self._second()
        divided = second is not None and self._streams.fit
        if second is not None and divided:
            losses = self._forward_in_streams(steps, second)
        else:
            losses = self._forward_in_order(steps)
        self._total = sum(losses[1:], start=losses[0]) if losses else None
        if self._total is not None and divided:
            number(len(steps), [self._total], losses)
        return [loss.detach() for loss in losses]

    def _forward_in_order(self, steps: Sequence[_Step]) -> list[torch.Tensor]:
        """Run nodes one by one; returns the weighted losses."""
        train, leaves, device, k = self.train, self._leaves(), current_device(), 0
        values: dict[int, torch.Tensor] = {}
        losses: list[torch.Tensor] = []
        with torch.set_grad_enabled(train), memory.named(lambda: f"layer {steps[k].node.name!r}"):
            for k, step in enumerate(steps):
                node = step.node
                if train:
                    bottom = _wanted(node, values)
                else:  # the tensors themselves, with the bounds they carry
                    bottom = [values[i] for i in node.bottom]
                tops = node.run(bottom, self._parameters(node, leaves, device))
                del bottom
                if self.clock is not None:
                    self.clock.forward(k, tops)
                made = dict(zip(node.top, tops, strict=True))
                del tops
                if step.leaving:
                    losses += self._give_out(made)
                values.update(made)
                del made
                for i in step.over:
                    values.pop(i, None)
        return losses

    def _forward_in_streams(self, steps: Sequence[_Step], second: Executor) -> list[torch.Tensor]:
        """The same, for training, on two threads (caffe/plan/streams.py)."""
        leaves, values, device = self._leaves(), dict[int, torch.Tensor](), current_device()
        parameters = [self._parameters(step.node, leaves, device) for step in steps]
        losses: list[Sequence[torch.Tensor]] = [()] * len(steps)

        def run(k: int) -> None:
            node = steps[k].node
            with memory.named(f"layer {node.name!r}"):
                bottom = _wanted(node, values)
                made = dict(zip(node.top, node.run(bottom, parameters[k]), strict=True))
                if steps[k].leaving:
                    losses[k] = self._give_out(made)
            number(k, [*made.values(), *losses[k]], bottom, parameters[k])
            values.update(made)  # others may take them from now on

        self._streams.run(second, run, values)
        return [loss for found in losses for loss in found]

    def _give_out(self, made: dict[int, torch.Tensor]) -> list[torch.Tensor]:
        """Fill the blobs of the values that are outputs; returns the weighted losses among them."""
        program, losses = self.program, []
        for i, value in made.items():
            if i in program.losses:
                losses.append(program.losses[i] * value.float().sum())
            if i in program.outputs:
                layout = torch.contiguous_format
                shown = value.detach().to(torch.float32, memory_format=layout)
                program.outputs[i].assign(shown, borrowed=True)
        return losses

    def _second(self) -> Executor | None:
        """The thread that helps with a pass, if it is a training step's beside other work."""
        watched = self.clock is not None or self.gradient_hook is not None
        if not self.train or watched or self.program.circumstances.device.type != "cpu":
            return None
        return waiting.second()

    @cached_property
    def _streams(self) -> Streams:
        return Streams(self.program)

    def _current_steps(self) -> list[_Step]:
        """One for each node, or, once many passes have run without a change, in segments."""
        if self.clock is not None or self.train:
            return self._steps
        if any(segment.stale for segment in self._segments):
            self._arrange([])
            self._passes = 0
        elif any(segment.refused for segment in self._segments):
            self._arrange([segment for segment in self._segments if not segment.refused])
        if not self._segments and self._are_settled():
            runs = segments.find(self.program)
            self._arrange([segments.Segment(self.program, run) for run in runs])
        return self._joined

    def _are_settled(self) -> bool:
        """Whether weights and shapes have not changed for many passes, and no segments were made of
        them so far. To be asked once a pass.
        """
        self._passes += 1
        if self._passes == 2:
            self._stamp = segments.preparations(self.program)  # the first pass's among them
        if self._passes <= segments.AFTER:
            return False
        self._passes, now = 0, segments.preparations(self.program)
        if now != self._stamp or now == self._tried:
            return False
        self._tried = now
        return True

    def _arrange(self, kept: list[segments.Segment]) -> None:
        """Run these segments in place of their nodes."""
        nodes, self._segments = self.nodes, kept
        for segment in kept:
            first, last = nodes.index(segment.nodes[0]), nodes.index(segment.nodes[-1])
            nodes = [*nodes[:first], segment.as_node(), *nodes[last + 1 :]]
        self._joined = _steps(self.program, nodes)

    def backward(self) -> None:
        """Add the gradients of the last forward pass's losses to the parameters' `.diff`.

        Raises CaffeError if nothing is left of that pass.
        """
        total, self._total = self._total, None
        if total is None and self.train and self.program.losses:
            raise CaffeError(
                f"net {self.name!r}: backward needs a forward pass before it, each time; only "
                "an observed net can go back twice"
            )
        if total is not None and total.requires_grad:
            with (
                memory.named(f"net {self.name!r}, backward"),
                self._later.by(self._second()),
            ):
                total.backward()
            if self.clock is not None:
                self.clock.backward(None)

    def _parameters(
        self, node: Node, leaves: _Leaves | None, device: torch.device
    ) -> Sequence[torch.Tensor]:
        """The tensors of a node's blobs. leaves: of the parameters, for training."""
        if leaves is None:
            return _Parameters(node.blobs, device)
        ready = []
        for layer in node.layers:
            for i, blob in enumerate(layer.blobs):
                if layer.statistic(i):  # not .data: prepared.Watch must notice writes to it
                    ready.append(blob.tensor(device).detach())
                elif layer.param_propagate_down[i]:
                    ready.append(leaves.of(blob))
                else:
                    ready.append(blob.tensor(device).data)
        return ready

    def _leaves(self) -> _Leaves | None:
        return _Leaves(self.nodes, self._later, self.gradient_hook) if self.train else None


class _Leaves:
    """The parameters of one training pass, as leaves whose gradients are the blobs' diffs."""

    def __init__(self, nodes: Sequence[Node], later: Later, hook: Hook | None) -> None:
        self._uses = Counter(blob.data_key for node in nodes for blob in node.blobs)
        self._later, self._hook, self._device = later, hook, current_device()
        self._found: dict[object, torch.Tensor] = {}

    def of(self, blob: Blob) -> torch.Tensor:
        """The parameter in its own shape; layers that share it share a leaf."""
        hook, key = self._hook, blob.data_key
        leaf = self._found.get(key)
        if leaf is None:
            leaf = blob.tensor(self._device).data.requires_grad_()
            leaf.grad = blob.diff_tensor(self._device).data
            if hook is not None:
                leaf.register_post_accumulate_grad_hook(lambda _: hook(blob))
            self._found[key] = leaf
        shown = leaf.view(blob.shape)
        if self._uses[key] == 1:  # two that add to one gradient must not do so at once
            aim(shown, Target(leaf, self._later))
        return shown


class _Step(NamedTuple):
    """A node, which of its tops leave the net, and the values that nothing takes after it."""

    node: Node
    leaving: frozenset[int]
    over: tuple[int, ...]


def _wanted(node: Node, values: dict[int, torch.Tensor]) -> list[torch.Tensor]:
    """A node's bottoms for training: those that get no gradient stand for themselves."""
    return [
        values[i] if want else values[i].detach()
        for i, want in zip(node.bottom, node.wants, strict=True)
    ]


def _steps(program: Program, nodes: Sequence[Node]) -> list[_Step]:
    last_use = {i: k for k, node in enumerate(nodes) for i in node.bottom}
    found = []
    for k, node in enumerate(nodes):
        leaving = frozenset(i for i in node.top if i in program.outputs or i in program.losses)
        over = tuple(i for i in {*node.bottom, *node.top} if last_use.get(i, -1) <= k)
        found.append(_Step(node, leaving, over))
    return found


class _Parameters(Sequence[torch.Tensor]):
    """The tensors of parameters, made where an operation looks at them: most have prepared what
    follows from them.
    """

    def __init__(self, blobs: Sequence[Blob], device: torch.device) -> None:
        self._blobs, self._device = blobs, device

    def __len__(self) -> int:
        return len(self._blobs)

    @overload
    def __getitem__(self, index: int) -> torch.Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> list[torch.Tensor]: ...

    def __getitem__(self, index: int | slice) -> torch.Tensor | list[torch.Tensor]:
        if isinstance(index, slice):
            return [blob.tensor(self._device) for blob in self._blobs[index]]
        return self._blobs[index].tensor(self._device)

"""Plan: how a net runs when nobody looks at the blobs between its inputs and outputs.

The layer loop of `Net` keeps every blob, as pycaffe's users expect. A plan computes the same
outputs and parameter gradients with less time and memory: the layers become nodes over values
(caffe/plan/ir.py), rewrites replace groups of nodes by cheaper ones (caffe/plan/rewrites), one
graph of autograd spans the whole net, and a value is freed when the last node that takes it has
run. Only the net's output blobs are filled.

On the CPU, and in bf16 everywhere, 4-D values are kept channels-last, as convolutions prefer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, overload

import torch

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.graph.wiring import Wiring
from caffe.plan import segments
from caffe.plan.build import build
from caffe.plan.delegates import Delegate
from caffe.plan.ir import Node, Program, circumstances
from caffe.plan.part import Part
from caffe.process import memory
from caffe.process.device import current_device


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
        self.gradient_hook: Callable[[Blob], None] | None = None
        self.clock: Watcher | None = None

    @property
    def nodes(self) -> list[Node]:
        return self.program.nodes

    def is_current(self) -> bool:
        """Whether the settings and device are still those that the plan was made for."""
        return self.program.circumstances == circumstances()

    def forward(self) -> list[torch.Tensor]:
        """Run all nodes; returns the weighted losses, without gradients."""
        device, program, train = current_device(), self.program, self.train
        self._total = None  # frees what an earlier pass kept
        values: dict[int, torch.Tensor] = {}
        leaves: dict[object, torch.Tensor] = {}
        losses = []
        steps, k = self._current_steps(), 0
        with torch.set_grad_enabled(train), memory.named(lambda: f"layer {steps[k].node.name!r}"):
            for k, step in enumerate(steps):
                node = step.node
                if train:
                    bottom = [
                        values[i] if want else values[i].detach()
                        for i, want in zip(node.bottom, node.wants, strict=True)
                    ]
                else:  # the tensors themselves, with the bounds they carry
                    bottom = [values[i] for i in node.bottom]
                tops = node.run(bottom, self._parameters(node, leaves, device))
                del bottom
                if self.clock is not None:
                    self.clock.forward(k, tops)
                for i, value in zip(node.top, tops, strict=True):
                    values[i] = value
                    if i in step.leaving:
                        if i in program.losses:
                            losses.append(program.losses[i] * value.float().sum())
                        if i in program.outputs:
                            layout = torch.contiguous_format
                            shown = value.detach().to(torch.float32, memory_format=layout)
                            program.outputs[i].assign(shown, borrowed=True)
                del tops
                for i in step.over:
                    values.pop(i, None)
        self._total = sum(losses[1:], start=losses[0]) if losses else None
        return [loss.detach() for loss in losses]

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
            with memory.named(f"net {self.name!r}, backward"):
                total.backward()
            if self.clock is not None:
                self.clock.backward(None)

    def _parameters(
        self, node: Node, leaves: dict[object, torch.Tensor], device: torch.device
    ) -> Sequence[torch.Tensor]:
        if not self.train:
            return _Parameters(node.blobs, device)
        ready = []
        for layer in node.layers:
            for i, blob in enumerate(layer.blobs):
                if layer.statistic(i):  # not .data: prepared.Watch must notice writes to it
                    ready.append(blob.tensor(device).detach())
                else:
                    want, fixed = layer.param_propagate_down[i], blob.tensor(device).data
                    ready.append(self._leaf(blob, leaves, device) if want else fixed)
        return ready

    def _leaf(
        self, blob: Blob, leaves: dict[object, torch.Tensor], device: torch.device
    ) -> torch.Tensor:
        """The parameter as a leaf whose gradient is the blob's diff; sharing layers share it."""
        leaf = leaves.get(blob.data_key)
        if leaf is None:
            leaf = blob.tensor(device).data.requires_grad_()
            leaf.grad = blob.diff_tensor(device).data
            hook = self.gradient_hook
            if hook is not None:
                leaf.register_post_accumulate_grad_hook(lambda _: hook(blob))
            leaves[blob.data_key] = leaf
        return leaf.view(blob.shape)


class _Step(NamedTuple):
    """A node, which of its tops leave the net, and the values that nothing takes after it."""

    node: Node
    leaving: frozenset[int]
    over: tuple[int, ...]


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

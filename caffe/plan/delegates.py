"""Delegates: programs other than PyTorch that compute a part of a deploy net in its plan's place.

The packages that know such programs lie above the nets. They say here, by `use`, who is asked for
the delegate of a net (caffe/engines).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from typing import Any, Protocol

import torch

from caffe.layers.base import Tensors


class ByPlan(Protocol):
    """Computes a delegate's layers as a plan does (caffe/plan/part.py)."""

    def __call__(self, bottom: Tensors) -> Sequence[torch.Tensor]:
        """The values of `gives` for those of `takes`."""
        ...

    def free(self) -> None:
        """Give back the memory of what was prepared for calls."""
        ...


class Direct(Protocol):
    """A delegate's pass that reads and writes the memory of the net's blobs and does nothing else.

    blobs: the numbers of those whose memory is bound, the inputs first. run: the pass; it raises
    whatever the delegate's program does.
    """

    blobs: Sequence[int]
    run: Callable[[], object]

    def holds(self) -> bool:
        """Whether run() of the delegate would do the same, for the same memory and shapes, device
        and settings.
        """
        ...


class Delegate(Protocol):
    """Computes some layers of one net, without gradients.

    layers: their numbers in the wiring. They take blobs of sources only, `takes`, and other layers
    or the net's outputs take `gives` of what they make, as it is after the last of them; both are
    numbers of blobs. title: what computes them. ready: whether acts() saw that nothing has to be
    prepared or chosen for the pass.
    """

    layers: Set[int]
    takes: Sequence[int]
    gives: Sequence[int]
    title: str
    ready: bool

    def acts(self) -> bool:
        """Whether it computes a pass on inputs of the shapes that the net's have now; else the
        plan does without it.
        """
        ...

    def run(self, bottom: Tensors, by_plan: ByPlan) -> Sequence[torch.Tensor]:
        """The values of `gives` for those of `takes`. by_plan: computes the same as a plan."""
        ...

    def direct(self) -> Direct | None:
        """The last pass, to be repeated; None if it did more than to fill blobs from blobs."""
        ...


class Delegates(Protocol):
    """Finds the delegate of a net (caffe.Net); None for a net of which nothing can be taken."""

    def of(self, net: Any) -> Delegate | None: ...


_current: Delegates | None = None


def use(found: Delegates | None) -> None:
    """Let nets have these delegates from the next pass on; None: no delegates, the default."""
    global _current
    _current = found


def current() -> Delegates | None:
    """Who is asked for delegates now."""
    return _current

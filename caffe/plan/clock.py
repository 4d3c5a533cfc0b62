"""Clock: how long each node of a plan takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from caffe.plan.plan import Plan


class Clock:
    """The seconds that each node of a plan takes: `spent["forward"]` and `spent["backward"]`.

    A node's backward lasts from the moment its tops' gradient is complete to that of the next node.
    now: returns the time in seconds.
    """

    def __init__(self, plan: Plan, now: Callable[[], float]) -> None:
        self.plan, self.now = plan, now
        self.names = [node.name for node in plan.nodes]
        self.spent = {way: [0.0] * len(self.names) for way in ("forward", "backward")}
        self._at: int | None = None
        self._last = now()

    def run(self) -> None:
        """Run one forward and one backward pass."""
        self.plan.clock, self._at, self._last = self, None, self.now()
        try:
            self.plan.forward()
            self._last = self.now()
            self.plan.backward()
        finally:
            self.plan.clock = None

    def forward(self, k: int, tops: Sequence[torch.Tensor]) -> None:
        """Node k has run, next after the node of the last call."""
        self._charge("forward", k)
        for top in tops:
            if top.requires_grad:
                top.register_hook(lambda _, k=k: self.backward(k))

    def backward(self, k: int | None) -> None:
        """The gradient of node k's tops is complete; None: the backward pass is done."""
        if self._at is not None:
            self._charge("backward", self._at)
        self._at, self._last = k, self.now()

    def _charge(self, way: str, k: int) -> None:
        now = self.now()
        self.spent[way][k] += now - self._last
        self._last = now

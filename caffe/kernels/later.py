"""Gradients of parameters that another thread computes while a backward pass goes on.

Nothing in the pass takes them. So where a second thread is there to do it (caffe/plan/streams.py),
operations leave them to it and go on with the gradient that the layer before them waits for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass

import torch

# Each keeps an activation and its gradient until it is done.
MOST = 4  # tasks that wait; the thread that has another one does that itself


class _Task:
    """Something to do once, whoever comes first; then nothing is kept of it."""

    def __init__(self, do: Callable[[], None]) -> None:
        self._do: Callable[[], None] | None = do
        self._lock = threading.Lock()

    def __call__(self) -> None:
        with self._lock:
            do, self._do = self._do, None
        if do is not None:
            do()


class Later:
    """Tasks of one backward pass, which a second thread does, or the first one where it is faster.

    Tasks run in any order and must not depend on each other.
    """

    def __init__(self) -> None:
        self._second: Executor | None = None
        self._tasks: list[tuple[Future[None], _Task]] = []

    @property
    def is_open(self) -> bool:
        """Whether add() may be called now."""
        return self._second is not None

    @contextmanager
    def by(self, second: Executor | None) -> Iterator[None]:
        """Within the block, tasks may be added; behind it they are done. second: has the thread;
        None: nothing is left to another one.

        Raises what a task raises. If the block raises, tasks that have not begun are dropped.
        """
        self._second = second
        try:
            yield
            for future, task in reversed(self._tasks):  # the second thread begins with the first
                if future.cancel():
                    task()
                else:
                    future.result()
        finally:
            self._second = None
            futures = [future for future, _ in self._tasks if not future.cancel()]
            self._tasks.clear()
            wait(futures)

    def add(self, do: Callable[[], None]) -> None:
        """Have something done until the end of the block."""
        assert self._second is not None
        task = _Task(do)
        del do
        waiting = sum(not (future.running() or future.done()) for future, _ in self._tasks)
        if waiting < MOST:
            try:
                self._tasks.append((self._second.submit(task), task))
                return
            except RuntimeError:  # the thread has ended in between, or there can be none
                pass
        task()


@dataclass(frozen=True)
class Target:
    """Where a parameter's gradient goes: to that of `leaf`, which has one. later: of the pass."""

    leaf: torch.Tensor
    later: Later

    def add(self, gradient: torch.Tensor) -> None:
        """Add a gradient of the leaf's count, as the backward pass itself would."""
        assert self.leaf.grad is not None
        with torch.no_grad():
            self.leaf.grad.add_(gradient.view(self.leaf.shape))


def target(parameter: torch.Tensor | None) -> Target | None:
    """Where this parameter's gradient goes, if a plan has said so by aim()."""
    return getattr(parameter, "target", None)


def aim(parameter: torch.Tensor, where: Target) -> torch.Tensor:
    """The parameter, whose gradient operations may add to `where` later on."""
    parameter.target = where
    return parameter

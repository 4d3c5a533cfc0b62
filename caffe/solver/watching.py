"""What a solver tells those who watch it: its iterations, tests and snapshots."""

from __future__ import annotations

from dataclasses import dataclass


def less_is_better(name: str, weight: float) -> bool:
    """Whether an output of this name and loss weight is a loss or an error."""
    return bool(weight) or any(word in name.lower() for word in ("loss", "error"))


@dataclass(frozen=True)
class Figure:
    """One value of an output of a net: value `index` of the blob `name`, and its loss weight."""

    name: str
    index: int
    value: float
    weight: float = 0.0

    @property
    def falls(self) -> bool:
        """Whether less is better."""
        return less_is_better(self.name, self.weight)


@dataclass(frozen=True)
class Outcome:
    """The figures of one test: net: the number of the test net. loss: the mean loss, if the solver
    says test_compute_loss.
    """

    iteration: int
    net: int
    figures: tuple[Figure, ...]
    loss: float | None = None


class Watcher:
    """Methods that a solver calls (Solver.watch); each does nothing unless it is overridden.

    In a run of several processes, testing(), tested() and saved() are called in the first one only.
    """

    def iterated(self, iteration: int, loss: float) -> None:
        """After an iteration's passes, before its update. loss: as displayed, a mean of some."""

    def updating(self, iteration: int, rate: float) -> None:
        """At an iteration's update, by this learning rate."""

    def asked(self, iteration: int, request: str) -> None:
        """All processes agreed on a request: 'snapshot', 'stop' or 'end'."""

    def testing(self, iteration: int, net: int, batch: int, batches: int) -> None:
        """Before a batch of a test; batch: its number, from 0 on."""

    def tested(self, tested: Outcome) -> None:
        """After a complete test of one test net."""

    def saved(self, iteration: int, state: str) -> None:
        """After a snapshot; state: the path of its .solverstate."""

"""Ranks: this process's place among several solvers that train together."""

from __future__ import annotations

from dataclasses import dataclass

from caffe.process.log import INFO, emit


@dataclass
class _State:
    solver_count: int = 1
    solver_rank: int = 0
    sync_bn: bool = False


_state = _State()


def solver_count() -> int:
    return _state.solver_count


def set_solver_count(count: int) -> None:
    _state.solver_count = int(count)


def solver_rank() -> int:
    return _state.solver_rank


def set_solver_rank(rank: int) -> None:
    _state.solver_rank = int(rank)


def set_multiprocess(on: bool) -> None:
    """Accepted as in pycaffe, without effect: the engine only looks at solver_count."""


def set_sync_bn(on: bool) -> None:
    """Whether BatchNorm in training takes its statistics over the batches of all processes.

    By default, as in Caffe, each process uses its own batch.
    """
    _state.sync_bn = bool(on)


def sync_bn() -> bool:
    """Whether set_sync_bn is on and there are several processes."""
    return _state.sync_bn and _state.solver_count > 1


def root_solver() -> bool:
    """True in the one process that logs, tests and saves: rank 0."""
    return _state.solver_rank == 0


def announce(place: str, message: str, severity: int = INFO) -> None:
    """Log a line on rank 0 alone."""
    if root_solver():
        emit(place, message, severity)

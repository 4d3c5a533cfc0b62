"""How many threads of PyTorch compute what this thread asks for."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch


@contextmanager
def alone() -> Iterator[None]:
    """Within the block, operations of the calling thread are not shared out among threads.

    Other threads keep their number, unlike with torch.set_num_threads(). Where PyTorch does not use
    an OpenMP library that can be asked, the block has no effect.
    """
    count, openmp = torch.get_num_threads(), _openmp()
    if count == 1 or openmp is None:
        yield
        return
    openmp.omp_set_num_threads(1)
    try:
        yield
    finally:
        openmp.omp_set_num_threads(count)


def share_out(count: int) -> None:
    """From now on, operations of the calling thread are shared out among `count` threads.

    Other threads keep their number. Where PyTorch does not use an OpenMP library that can be asked,
    this has no effect.
    """
    if torch.get_num_threads() != count and (openmp := _openmp()) is not None:
        openmp.omp_set_num_threads(count)


@cache
def _openmp() -> ctypes.PyDLL | None:
    """The OpenMP library that gives PyTorch its threads; None if it is not found.

    PyTorch loads it for all of the process, but another one may have been there before.
    """
    before = torch.get_num_threads()
    try:
        library = ctypes.PyDLL(None)
        library.omp_set_num_threads(before + 1)
    except (OSError, AttributeError):
        return None
    is_used = torch.get_num_threads() == before + 1
    library.omp_set_num_threads(before)
    return library if is_used else None

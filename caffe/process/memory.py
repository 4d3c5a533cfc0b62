"""Tells the C library how much freed memory to keep."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def keep_freed_memory() -> None:
    """Make the C library keep all freed memory, for programs that train.

    By default it returns large arrays to the system, which then has to clear every page of the
    next ones: a fifth of a training step. Only with glibc; CAFFE_KEEP_MEMORY=0 turns this off.
    """
    if os.environ.get("CAFFE_KEEP_MEMORY") != "0":
        _mallopt({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 << 20})


def keep_small_memory() -> None:
    """Make the C library keep the memory of freed arrays below 32 MiB, for programs that predict.

    Larger arrays, those of big images and weights, go back to the system. By default glibc moves
    the threshold while the program runs, which takes more memory and more time. Only with glibc;
    CAFFE_KEEP_MEMORY=0 turns this off.
    """
    global _own_pages_from
    if os.environ.get("CAFFE_KEEP_MEMORY") != "0":
        _own_pages_from = 32 << 20
        _mallopt({M_MMAP_THRESHOLD: _own_pages_from, M_TRIM_THRESHOLD: 2**31 - 1})


@contextmanager
def lasting_memory() -> Iterator[None]:
    """Give allocations of 128 KiB and more in this block pages of their own, so that long-lived
    weights do not fragment the memory that passes reuse. Only acts after keep_small_memory.
    """
    if not _own_pages_from:
        yield
        return
    _mallopt({M_MMAP_THRESHOLD: 1 << 17})
    try:
        yield
    finally:
        _mallopt({M_MMAP_THRESHOLD: _own_pages_from})


_own_pages_from = 0  # bytes: the threshold that keep_small_memory set, 0 before


M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -2, -3, -4  # malloc.h


def _mallopt(values: dict[int, int]) -> None:
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return
    for parameter, value in values.items():
        mallopt(parameter, value)

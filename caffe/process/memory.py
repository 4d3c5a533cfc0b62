"""How the C library keeps freed memory."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, for programs that train.

    By default it gives large arrays back to the system, which then has to clear every page of the
    next ones: a fifth of a training step. Only for glibc; CAFFE_KEEP_MEMORY=0 leaves things alone.
    """
    if os.environ.get("CAFFE_KEEP_MEMORY") != "0":
        _mallopt({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 64 << 20})


def keep_small_memory() -> None:
    """Have the C library keep what is freed of arrays below 32 MiB, for programs that predict.

    Larger ones, those of big images and weights, go back to the system. By default the line between
    the two moves while the program runs, which takes more memory and more time. As
    keep_freed_memory, only for glibc.
    """
    global _own_pages_from
    if os.environ.get("CAFFE_KEEP_MEMORY") != "0":
        _own_pages_from = 32 << 20
        _mallopt({M_MMAP_THRESHOLD: _own_pages_from, M_TRIM_THRESHOLD: 2**31 - 1})


@contextmanager
def lasting_memory() -> Iterator[None]:
    """What is allocated here, and is not small, gets pages of its own after keep_small_memory: to
    lie among what a pass has freed would leave the next pass too little room there.
    """
    if not _own_pages_from:
        yield
        return
    _mallopt({M_MMAP_THRESHOLD: 1 << 17})
    try:
        yield
    finally:
        _mallopt({M_MMAP_THRESHOLD: _own_pages_from})


_own_pages_from = 0


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

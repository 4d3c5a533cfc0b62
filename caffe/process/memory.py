"""Memory: how much is left, errors when there is none, and what the C library keeps."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from caffe.errors import CaffeError

GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

# -- how much is left ----------------------------------------------------------------------------


def left() -> float:
    """The bytes that this process may still take: of the machine's memory, of its control group's,
    of its address space (ulimit -v) and of its data (ulimit -d). Infinite where the system does not
    tell.
    """
    return min(
        _of_machine(),
        _of_group(),
        _of_limit(resource.RLIMIT_AS, 0),
        _of_limit(resource.RLIMIT_DATA, 5),
    )


def check(need: float, where: str, what: str) -> None:
    """Raise CaffeError, starting with `where`, unless `need` bytes are left for `what`."""
    there = left()
    if need > there:
        raise CaffeError(f"{where}: {what} need {size(need)} of memory; {size(there)} are left")


def size(count: float) -> str:
    """A number of bytes for people: '1.5 GB'."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} PB" if count < 1000 else f"{count / 1000:.1f} EB"


def _of_machine() -> float:
    """What is free on the machine, the swap's space and what only caches files included."""
    rows = (line.split() for line in _lines("/proc/meminfo"))
    sizes = {row[0]: 1024.0 * int(row[1]) for row in rows if len(row) > 1}
    if "MemAvailable:" not in sizes:
        return float("inf")
    return sizes["MemAvailable:"] + sizes.get("SwapFree:", 0)


def _of_group() -> float:
    """What the control groups of a container or a batch job leave; cached files can go."""
    found = [float("inf")]
    for line in _lines(OWN_GROUPS):
        number, kinds, path = line.split(":", 2)
        if number == "0":  # the groups of version 2
            names = GROUPS, "memory.max", "memory.current", "file"
        elif kinds == "memory":
            names = GROUPS / kinds, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_cache"
        else:
            continue
        group = Path(path)
        for part in (group, *group.parents):
            found.append(_left_in(names[0] / part.relative_to("/"), *names[1:]))
    return min(found)


def _left_in(folder: Path, limit: str, used: str, cached: str) -> float:
    most, now = ("".join(_lines(folder / name)).strip() for name in (limit, used))
    if not (most.isdecimal() and now.isdecimal()):  # "max": no limit
        return float("inf")
    rows = (line.split() for line in _lines(folder / "memory.stat"))
    files = sum(int(row[1]) for row in rows if row[0] == cached)
    return float(int(most) - int(now) + files)


def _of_limit(kind: int, column: int) -> float:
    """What a limit of the process leaves; column: of statm, which says how much it has used."""
    limit, _ = resource.getrlimit(kind)
    pages = "".join(_lines("/proc/self/statm")).split()
    if limit == resource.RLIM_INFINITY or not pages:
        return float("inf")
    return float(limit - int(pages[column]) * resource.getpagesize())


def _lines(path: str | Path) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []


# -- when there is none --------------------------------------------------------------------------

# PyTorch raises plain RuntimeErrors for sizes that it cannot allocate or count.
_NO_MEMORY = re.compile(
    "allocate memory|not enough memory|out of memory|Storage size calculation overflowed|bad_alloc"
    "|could not (?:create|construct) a (?:memory|primitive)|Overflow when unpacking"
    "|[Ii]nteger out of range|Insufficient memory|without overflow"
)
_TRIED = re.compile(r"tried to allocate (\d+) bytes")


@contextmanager
def named(where: str | Callable[[], str]) -> Iterator[None]:
    """Turn what libraries raise for want of memory, or for sizes beyond what they count, into a
    CaffeError that starts with `where`, or with what that returns then.
    """
    try:
        yield
    except CaffeError:
        raise
    except (MemoryError, RuntimeError, TypeError) as error:
        if not (isinstance(error, MemoryError) or _NO_MEMORY.search(str(error))):
            raise
        where = where if isinstance(where, str) else where()
        kind = _NoMemory if isinstance(error, MemoryError) else CaffeError
        raise kind(f"{where}: {_want(error)}") from None


class _NoMemory(CaffeError, MemoryError):
    """For callers that free memory and try again."""


def _want(error: Exception) -> str:
    tried = _TRIED.search(str(error))
    if tried:
        return f"not enough memory: it tried to take {size(int(tried[1]))}"
    if isinstance(error, MemoryError) or "emory" in str(error):
        return f"not enough memory: {next(iter(str(error).splitlines()), 'none is left')}"
    return f"too large to be computed: {next(iter(str(error).splitlines()))}"


# -- what the C library keeps --------------------------------------------------------------------


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

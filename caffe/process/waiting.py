"""How PyTorch's threads wait for each other: long where cores are free, briefly where they are not.

PyTorch shares out each operation among threads, which meet at its end. With GNU OpenMP, a thread
that is there first tries again for milliseconds before it sleeps. On free cores that is the fastest
way to go on. But if another process has the core that the missing thread needs, trying takes away
still more of it, and a net stands still at every operation.

OpenMP reads its settings only when it is loaded. It does know a crowd, though: if it has more
threads than there are cores, each of them tries a hundred times only (GOMP_SPINCOUNT in libgomp's
manual). So while cores are contended, a second team of threads is kept asleep, which makes it so.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

from caffe.process.threads import share_out

EVERY = 0.05  # seconds from look to look
LOOKS = 3  # so many in a row decide: other programs, too, work for moments only
RUNNING = Path("/proc/loadavg")  # "0.20 0.18 0.12 1/80 11206": one task of 80 runs or could run


class Waiting:
    """Looks from time to time whether there are free cores, and has threads wait accordingly.

    brief: whether threads sleep early now.
    """

    def __init__(self) -> None:
        self._team: _Team | None = None
        self._next, self._own = 0.0, 1
        self._against = LOOKS - 1  # the first look decides at once
        self._lock = threading.Lock()

    @property
    def brief(self) -> bool:
        return self._team is not None

    def second(self) -> Executor | None:
        """A second thread for what the calling one shares out, with as many OpenMP threads, while
        threads sleep early because other tasks run; None while there are none, or if that is not
        known, or if the calling one shares out nothing.

        The thread ends as soon as threads wait long again: what is submitted then raises
        RuntimeError.
        """
        count = torch.get_num_threads()
        if self._team is None or count == 1 or _running() is None:
            return None
        with self._lock:
            return self._team.second(count) if self._team is not None else None

    def look(self) -> None:
        """To be called before work that is shared out. It does nothing for the next EVERY seconds,
        or if the user has chosen, or if PyTorch's threads are not GNU OpenMP's.
        """
        now = time.monotonic()
        if now < self._next or not self._lock.acquire(blocking=False):
            return
        try:
            self._next = now + EVERY
            threads = torch.get_num_threads()
            if threads > 1 and _openmp() is not None:
                self._decide(crowded(threads, self._own), threads)
        finally:
            self._lock.release()

    def _decide(self, want: bool, threads: int) -> None:
        self._against = self._against + 1 if want != self.brief else 0
        if self._against == LOOKS:
            self._against = 0
            if self._team is None:
                self._team = _Team(len(os.sched_getaffinity(0)) - threads + 2)
            else:
                self._team.end()
                self._team = None
        self._own = 1 if self.brief else threads


def crowded(threads: int, own: int) -> bool:
    """Whether other tasks that could run leave fewer cores than `threads`; own: how many of those
    that could run are this program's.

    A program that may use only some of the machine's cores cannot tell who else does, and takes
    them for contended. So does one on a system that does not say what runs.
    """
    running = _running()
    return running is None or running - own + threads > (os.cpu_count() or 1)


def _running() -> int | None:
    """How many tasks could run on the cores that this program may use; None: that is not known."""
    if len(os.sched_getaffinity(0)) < (os.cpu_count() or 1):
        return None
    try:
        return int(RUNNING.read_text(encoding="ascii").split()[3].split("/")[0])
    except (OSError, ValueError, IndexError):
        return None


class _Team:
    """OpenMP threads that sleep until end(): a thread that has `count` - 1 others."""

    def __init__(self, count: int) -> None:
        self._over, begun = threading.Event(), threading.Event()

        def rest() -> None:
            openmp = _openmp()
            assert openmp is not None
            nothing = ctypes.cast(ctypes.CDLL(None).labs, ctypes.c_void_p)
            openmp.GOMP_parallel(nothing, None, ctypes.c_uint(max(count, 2)), ctypes.c_uint(0))
            begun.set()
            self._over.wait()

        self._second: ThreadPoolExecutor | None = None
        self._count = 0
        self._thread = threading.Thread(target=rest, name="waits briefly", daemon=True)
        self._thread.start()
        begun.wait()

    def second(self, count: int) -> Executor:
        """A thread whose operations `count` threads share."""
        if self._second is None or count != self._count:
            self._end_second()
            self._second = ThreadPoolExecutor(1, "second", share_out, (count,))
            self._count = count
        return self._second

    def _end_second(self) -> None:
        if self._second is not None:
            self._second.shutdown(wait=False)

    def end(self) -> None:
        self._end_second()
        self._over.set()
        self._thread.join()


@cache
def _openmp() -> ctypes.CDLL | None:
    """GNU's library, if it gives PyTorch its threads and the user has not chosen how they wait."""
    if "OMP_WAIT_POLICY" in os.environ or "GOMP_SPINCOUNT" in os.environ:
        return None
    try:
        library = ctypes.CDLL(None)
        has = hasattr(library, "GOMP_parallel") and not hasattr(library, "kmp_get_blocktime")
    except OSError:
        return None
    return library if has else None


waiting = Waiting()

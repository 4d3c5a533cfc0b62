"""Child processes that leave signals to their parent."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker


@contextmanager
def held_back(signals: Iterable[int]) -> Iterator[None]:
    """Block signals meanwhile, so that processes started within never receive them.

    A terminal sends Ctrl-C to all processes of a command; only the first is to answer. One that
    comes meanwhile is answered at the end of the block.
    """
    resource_tracker.ensure_running()  # starting it later would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

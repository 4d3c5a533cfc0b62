"""Prefetcher: batches made ahead in a thread."""

from __future__ import annotations

import atexit
import queue
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch


@dataclass
class Batch:
    """What a data layer hands out in one forward pass: one tensor a top."""

    tops: Sequence[torch.Tensor]

    def pin(self) -> Batch:
        """The same in memory that a GPU reads by itself."""
        return Batch([t.pin_memory() for t in self.tops])


class Prefetcher:
    """Makes batches in a thread of its own, a few ahead, so that training never waits on reading.

    The thread ends when the Prefetcher is closed or forgotten.
    """

    def __init__(self, make: Callable[[], Batch], depth: int) -> None:
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(max(1, depth))
        self.waited = 0.0  # seconds that get() took in all
        self._stop = threading.Event()
        arguments = (make, self._ready, self._stop)
        self._thread = threading.Thread(target=_produce, args=arguments, daemon=True)
        weakref.finalize(self, self._stop.set)
        self._thread.start()
        for thread in list(_running):
            if not thread.is_alive():
                _running.pop(thread, None)
        _running[self._thread] = self._stop

    def get(self) -> Batch:
        """The next batch. Raises what the thread ran into."""
        start = time.perf_counter()
        item = self._ready.get()
        self.waited += time.perf_counter() - start
        if isinstance(item, BaseException):
            self._ready.put(item)  # it stays broken
            raise item
        return item

    def close(self) -> None:
        self._stop.set()
        self._thread.join(timeout=30)


# Threads that may not have ended yet, those of forgotten Prefetchers too, and what stops them. They
# do not leave by themselves: a thread gives its tensors back after all that it could do here.
_running: dict[threading.Thread, threading.Event] = {}


@atexit.register
def _close_all() -> None:
    """End the threads before Python ends: one cut off within PyTorch takes the process down."""
    running = list(_running.items())
    for _, stop in running:
        stop.set()
    for thread, _ in running:
        thread.join(timeout=30)


def _produce(make: Callable[[], Batch], ready: queue.Queue, stop: threading.Event) -> None:
    while not stop.is_set():
        item: Batch | BaseException
        try:
            item = make()
        except BaseException as error:
            item = error
        _hand_over(item, ready, stop)
        if isinstance(item, BaseException):
            return


def _hand_over(item: Batch | BaseException, ready: queue.Queue, stop: threading.Event) -> None:
    """Put an item into the queue once there is room, unless nobody wants it any more."""
    while not stop.is_set():
        try:
            return ready.put(item, timeout=0.1)
        except queue.Full:
            continue

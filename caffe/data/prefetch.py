"""Prefetcher: makes batches ahead in a thread."""

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
    """The output of a data layer in one forward pass: one tensor per top."""

    tops: Sequence[torch.Tensor]

    def pin(self) -> Batch:
        """A copy in pinned memory, from which a GPU copies while it computes."""
        return Batch([t.pin_memory() for t in self.tops])


class Prefetcher:
    """Makes up to `depth` batches ahead in a thread of its own, so that training need not wait.

    make: returns the next batch; it runs in the thread. The thread ends when the Prefetcher is
    closed or garbage-collected.
    """

    def __init__(self, make: Callable[[], Batch], depth: int) -> None:
        self._ready: queue.Queue[Batch | BaseException] = queue.Queue(max(1, depth))
        self.waited = 0.0  # total seconds spent in get()
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
        """The next batch. Raises the exception that ended the thread, if one did."""
        start = time.perf_counter()
        item = self._ready.get()
        self.waited += time.perf_counter() - start
        if isinstance(item, BaseException):
            self._ready.put(item)  # the next get() raises it again
            raise item
        return item

    def close(self) -> None:
        """End the thread, waiting up to 30 seconds for it."""
        self._stop.set()
        self._thread.join(timeout=30)


# Threads that may still run, also those of collected Prefetchers, and the events that stop them. A
# thread cannot remove itself: it still frees its tensors after the last line that it could run.
_running: dict[threading.Thread, threading.Event] = {}


@atexit.register
def _close_all() -> None:
    """End the threads before Python exits: one cut off inside PyTorch crashes the process."""
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
    """Put an item into the queue once there is room; give up when `stop` is set."""
    while not stop.is_set():
        try:
            return ready.put(item, timeout=0.1)
        except queue.Full:
            continue

"""Timer: measures how long work takes on the CPU or on a GPU."""

from __future__ import annotations

import time
from typing import Any

from caffe.process import device
from caffe.process.log import WARNING, emit


class Timer:
    """A stopwatch, as pycaffe's. On a GPU it times the work queued between start and stop."""

    def __init__(self) -> None:
        self._marks: list[Any] = []
        self.running = False

    def start(self) -> None:
        """Start anew; no effect if running."""
        if not self.running:
            self._marks = [_mark()]
            self.running = True

    def stop(self) -> None:
        """Stop; no effect if not running."""
        if self.running:
            self._marks.append(_mark())
            self.running = False

    @property
    def ms(self) -> float:
        """Milliseconds from start to stop; a running timer is stopped. 0 if it never ran."""
        if not self._marks:
            emit("benchmark.cpp:84", "Timer has never been run before reading time.", WARNING)
            return 0.0
        self.stop()
        start, end = self._marks
        if isinstance(start, float):
            return (end - start) * 1e3
        end.synchronize()
        return start.elapsed_time(end)


def _mark() -> Any:
    """A point in time: seconds on the CPU, an event in the GPU's queue on a GPU."""
    if device.current_device().type == "cpu":
        return time.perf_counter()
    import torch

    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event

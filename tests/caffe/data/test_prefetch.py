"""Reading ahead: order, threads that end, errors of the thread."""

from __future__ import annotations

import gc
import itertools
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch

import caffe
from caffe.data.prefetch import Batch, Prefetcher

pytestmark = pytest.mark.usefixtures("fresh")


def _numbered() -> Callable[[], Batch]:
    counter = itertools.count()
    return lambda: Batch((torch.tensor([float(next(counter))]),))


def _until(condition: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_batches_come_in_order_and_are_made_ahead() -> None:
    made = []
    number = _numbered()

    def make() -> Batch:
        made.append(None)
        return number()

    prefetcher = Prefetcher(make, depth=3)
    assert _until(lambda: len(made) == 4)  # three wait, the fourth is in hand
    time.sleep(0.05)
    assert len(made) == 4
    assert [float(prefetcher.get().tops[0]) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    prefetcher.close()


def test_the_thread_ends_with_its_prefetcher() -> None:
    prefetcher = Prefetcher(_numbered(), depth=1)
    prefetcher.get()
    thread = prefetcher._thread
    assert thread.is_alive()
    del prefetcher
    gc.collect()
    thread.join(timeout=60)
    assert not thread.is_alive()


def test_closing_ends_the_thread() -> None:
    prefetcher = Prefetcher(_numbered(), depth=1)
    prefetcher.close()
    assert not prefetcher._thread.is_alive()


def test_forgotten_prefetchers_do_not_take_the_process_down_at_its_end() -> None:
    code = (
        "import torch; from caffe.data.prefetch import Batch, Prefetcher\n"
        "p = Prefetcher(lambda: Batch([torch.zeros(9)]), depth=1); p.get(); del p"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=600)
    assert (result.returncode, result.stderr) == (0, b"")


def test_what_the_thread_runs_into_comes_out() -> None:
    number = _numbered()

    def make() -> Batch:
        batch = number()
        if batch.tops[0] == 2:
            raise caffe.CaffeError("record 2 is bad")
        return batch

    prefetcher = Prefetcher(make, depth=4)
    assert [float(prefetcher.get().tops[0]) for _ in range(2)] == [0, 1]
    for _ in range(2):
        with pytest.raises(caffe.CaffeError, match="record 2 is bad"):
            prefetcher.get()

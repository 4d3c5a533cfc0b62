"""Threads wait long on free cores and briefly on contended ones, unless the user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from caffe.process import threads, waiting
from caffe.process.waiting import LOOKS, Waiting

ROOT = Path(__file__).parents[3]
CORES = len(os.sched_getaffinity(0))

# Prints the processor's seconds of operations with pauses behind them: on free cores, on contended
# ones, and on free ones again.
SPENT = """
import time
import torch
from caffe.process import threads, waiting

def spent():
    before = time.process_time()
    for _ in range(10):
        values.add_(1)
        time.sleep(0.03)
    return time.process_time() - before

values, found, waiting.EVERY = torch.zeros(1 << 20), waiting.Waiting(), 0
values.add_(1)
if waiting._openmp() is not None:
    for contended in (False, True, False):
        waiting.crowded = lambda *_: contended
        for _ in range(waiting.LOOKS):
            found.look()
        print(spent())
"""


@pytest.fixture(autouse=True)
def _free_to_choose(_one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two threads on a machine of two cores, and a look whenever it is asked for."""
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(waiting, "EVERY", 0.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    waiting._openmp.cache_clear()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)
    waiting._openmp.cache_clear()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """run(n): from now on n tasks could run."""
    path = tmp_path / "loadavg"
    monkeypatch.setattr(waiting, "RUNNING", path)
    return lambda count: path.write_text(f"0.20 0.18 0.12 {count}/80 11206\n")


@pytest.fixture
def found() -> Iterator[Waiting]:
    if waiting._openmp() is None:
        pytest.skip("this PyTorch's threads are not GNU OpenMP's")
    made = Waiting()
    yield made
    if made.brief:
        made._team.end()


def _look(found: Waiting, times: int) -> bool:
    for _ in range(times):
        found.look()
    return found.brief


def test_the_first_look_decides_at_once(run, found: Waiting) -> None:
    run(2)  # this program and another, on two cores
    assert _look(found, 1)


def test_others_must_be_there_for_a_while(run, found: Waiting) -> None:
    run(1)
    assert not _look(found, 1)
    run(3)  # two threads that wait for each other, and another program
    assert not _look(found, LOOKS - 1)
    run(2)
    assert not _look(found, 1)
    run(3)
    assert not _look(found, LOOKS - 1)
    assert _look(found, 1)
    run(2)  # threads that sleep are not counted: this is another program
    assert _look(found, 2 * LOOKS)
    run(1)
    assert _look(found, LOOKS - 1)
    assert not _look(found, 1)


def test_looks_are_some_time_apart(run, found: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "EVERY", 3600.0)
    run(1)
    found.look()
    run(9)
    assert not _look(found, 2 * LOOKS)


def test_openmp_takes_it_up() -> None:
    """While a thread tries again, it uses its core; the processor's time shows whether it does."""
    if CORES < 2:
        pytest.skip("one core has no second thread")
    environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-c", SPENT], env=environment, capture_output=True, text=True, check=True
    )
    if not done.stdout:
        pytest.skip("this PyTorch's threads are not GNU OpenMP's")
    free, contended, again = map(float, done.stdout.split())
    assert contended < free / 2
    assert contended < again / 2


def test_the_second_team_ends(run, found: Waiting) -> None:
    before = threading.active_count()
    run(9)
    assert _look(found, 1)
    assert threading.active_count() == before + 1
    run(1)
    assert not _look(found, LOOKS)
    assert threading.active_count() == before


def test_who_cannot_know_has_no_second_thread(run, found: Waiting, monkeypatch) -> None:
    """On free cores it would be in the way."""
    monkeypatch.setattr(os, "cpu_count", lambda: 4)  # of which this program may use two
    run(9)
    assert _look(found, 1)
    assert found.second() is None
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert found.second() is not None


def test_a_second_thread_is_there_while_cores_are_contended(run, found: Waiting) -> None:
    run(1)
    assert not _look(found, 1)
    assert found.second() is None
    before = threading.active_count()
    run(9)
    assert _look(found, LOOKS)
    second = found.second()
    assert second is not None
    assert second is found.second()
    assert second.submit(torch.get_num_threads).result() == 2
    torch.set_num_threads(3)
    third = found.second()
    assert third is not None
    assert third.submit(torch.get_num_threads).result() == 3
    with pytest.raises(RuntimeError):
        second.submit(int)
    with threads.alone():  # a net for which one thread is best
        assert found.second() is None
    torch.set_num_threads(2)
    last = found.second()
    assert last is not None
    run(1)
    assert not _look(found, LOOKS)
    assert found.second() is None
    with pytest.raises(RuntimeError):
        last.submit(int)
    deadline = time.monotonic() + 60  # threads that have nothing left to do end by themselves
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() == before


@pytest.mark.parametrize("variable", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_the_user_may_choose(
    run, found: Waiting, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "passive")
    waiting._openmp.cache_clear()
    run(9)
    assert not _look(found, LOOKS)


def test_one_thread_waits_for_nobody(run, found: Waiting) -> None:
    torch.set_num_threads(1)
    run(9)
    assert not _look(found, LOOKS)


def test_who_cannot_know_takes_cores_for_contended(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(1)
    assert not waiting.crowded(2, 1)
    assert not waiting.crowded(1, 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert waiting.crowded(2, 1)  # of four cores it may use two
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(waiting, "RUNNING", tmp_path / "none")
    assert waiting.crowded(2, 1)

"""Processes that are started and watched: how they end, and what is said of it."""

from __future__ import annotations

import importlib
import re
import signal
import threading
import time
from pathlib import Path

import pytest

import caffe
from caffe.process.signals import SignalRequests
from caffe.train import launch

# What the processes run; a module, so that they can import it.
WORK = """
import os, signal, sys, time
from pathlib import Path
from caffe.process.peers import PeerLost
from caffe.errors import CaffeError

def note(folder, place, uid, requests):
    Path(folder, str(place.rank)).write_text(f"{place.count} {place.local_rank} {uid.decode()}")

def killed(place, uid, requests):
    if place.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)

def lost_and_cause(folder, place, uid, requests):
    if place.rank == 0:
        raise PeerLost("rank 0 sees nobody")
    if place.rank == 1:
        raise CaffeError("layer 'x':\\n  no such thing")

def leave(place, uid, requests):
    sys.exit(3 if place.rank else 0)

def broken(place, uid, requests):
    return {}["nothing"]

def heed(folder, place, uid, requests):
    if place.rank == 0:
        Path(folder, "ready").touch()
        while (request := requests.next()) == "none":
            time.sleep(0.05)
        Path(folder, "heard").write_text(request)
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    name = f"work_of_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    return importlib.import_module(name)


def _fails(work, *arguments: object, count: int = 2) -> str:
    with pytest.raises(caffe.CaffeError) as caught:
        launch.run_processes(work, arguments, count, SignalRequests())
    return str(caught.value)


def test_each_knows_its_place(work, tmp_path: Path) -> None:
    launch.run_processes(work.note, (tmp_path,), 2, SignalRequests())
    first, second = ((tmp_path / str(rank)).read_text().split() for rank in range(2))
    assert (first[:2], second[:2]) == (["2", "0"], ["2", "1"])
    assert first[2] == second[2]
    assert not Path(first[2]).parent.exists()  # where they met is cleared away


def test_one_that_is_killed_ends_the_others(work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "PATIENCE", 0.1)
    text = _fails(work.killed)
    assert re.fullmatch(
        r"rank 1 \(process \d+\) was killed by SIGKILL, perhaps for want of memory", text
    )


def test_the_cause_is_named_not_what_followed(work, tmp_path: Path) -> None:
    text = _fails(work.lost_and_cause, tmp_path)
    assert re.fullmatch(
        r"rank 1 \(process \d+\) ended with exit status 1: layer 'x': no such thing", text
    )


def test_an_exit_status(work) -> None:
    assert re.fullmatch(r"rank 1 \(process \d+\) ended with exit status 3", _fails(work.leave))


def test_any_other_error_in_one_line(work) -> None:
    text = _fails(work.broken, count=1)
    assert "ended with exit status 1: KeyError: 'nothing' (work_of_" in text
    assert "\n" not in text


def test_signals_to_the_parent_are_requests_to_rank_0(work, tmp_path: Path) -> None:
    """They arrive while nothing is being done but to wait."""

    def hang_up() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.05)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGHUP)

    threading.Thread(target=hang_up, daemon=True).start()
    launch.run_processes(work.heed, (tmp_path,), 2, SignalRequests())
    assert (tmp_path / "heard").read_text() == "snapshot"

"""Starts the processes of one training run on this machine, watches them and ends them together."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any

from caffe.errors import CaffeError, one_line
from caffe.process.log import settings, take_settings
from caffe.process.peers import PeerLost, Place, end_with_parent
from caffe.process.signals import SignalRequests

# Seconds that the other processes have to end by themselves after one has failed: they may finish
# a snapshot or report errors of their own.
PATIENCE = 5.0
GLANCE = 1.0  # seconds per wait: a signal that arrives just before a wait is answered after it
SIGNALS = (signal.SIGINT, signal.SIGHUP)  # this process answers them, also if a terminal sent all

Work = Callable[..., None]


def run_processes(
    work: Work, arguments: tuple[Any, ...], count: int, requests: SignalRequests
) -> None:
    """Run work(*arguments, place, uid, requests) in `count` processes, until all are done.

    place: the process's Place. uid: a name under which the processes find each other. requests: a
    function that returns, in rank 0, what the signals to this process ask for, and 'none' in the
    others. The processes also end when this one does, however it ends.
    Raises CaffeError, with the rank and the cause, if one fails; the others are then killed.
    """
    context = get_context("spawn")  # CUDA does not survive a fork
    workers: list[_Worker] = []
    with tempfile.TemporaryDirectory(prefix="caffe-") as folder:
        uid = os.fsencode(os.path.join(folder, "meeting"))
        with requests.installed(lambda: workers and workers[0].ask(requests.next())), _tidy_end():
            try:
                with _held_back():
                    for rank in range(count):
                        place = Place(rank, count, rank, count)
                        workers.append(_Worker(context, work, arguments, place, uid))
                _wait(workers)
            finally:
                for worker in workers:
                    worker.end()


class _Worker:
    """One process, and the pipe that takes requests there and brings back its reason for ending."""

    def __init__(self, context: Any, work: Work, arguments: tuple, place: Place, uid: bytes):
        self.rank = place.rank
        self.line, theirs = context.Pipe()
        rest = (work, arguments, place, uid, theirs, os.getpid(), settings())
        # The name appears in lists of processes. It is no daemon, so that it may have children.
        self.process = context.Process(target=_main, args=rest, name=f"rank {place.rank}")
        self.process.start()
        theirs.close()
        self.lost_others, self.error = False, ""

    def ask(self, request: str) -> None:
        """Pass on a request, unless it is 'none' or the process is gone."""
        if request != "none":
            with suppress(OSError):
                self.line.send(request)

    def hear(self) -> None:
        """Wait for the process's end and read the reason that it sent, if any."""
        self.process.join()
        with suppress(EOFError, OSError):
            if self.line.poll():
                self.lost_others, self.error = self.line.recv()

    def reason(self) -> str:
        """How it ended, in one line."""
        code = self.process.exitcode or 0
        who = f"rank {self.rank} (process {self.process.pid})"
        if code < 0:
            hint = ", perhaps for want of memory" if -code == signal.SIGKILL else ""
            return f"{who} was killed by {_signal_name(-code)}{hint}"
        return f"{who} ended with exit status {code}" + (f": {self.error}" if self.error else "")

    def suspicion(self) -> int:
        """0 if it was killed, 1 if it has an error of its own, 2 if it only lost the others."""
        if (self.process.exitcode or 0) < 0:
            return 0
        return 2 if self.lost_others else 1

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.line.close()


def _wait(workers: Sequence[_Worker]) -> None:
    """Wait until all have ended. Raises CaffeError if one fails."""
    running = {worker.process.sentinel: worker for worker in workers}
    while running:
        for worker in _ended(running, GLANCE):
            if worker.process.exitcode:
                raise CaffeError(_cause(worker, running).reason())


def _cause(first: _Worker, running: dict[int, _Worker]) -> _Worker:
    """The process that failed by itself, not one that only noticed that another was gone."""
    failed = [first]
    deadline = time.monotonic() + PATIENCE
    while running and (left := deadline - time.monotonic()) > 0:
        failed += [worker for worker in _ended(running, left) if worker.process.exitcode]
    return min(failed, key=_Worker.suspicion)


def _ended(running: dict[int, _Worker], timeout: float) -> list[_Worker]:
    """Wait up to `timeout` seconds for an end; take the ended ones out of `running`, by rank."""
    ended = [running.pop(sentinel) for sentinel in wait(list(running), timeout)]
    for worker in ended:
        worker.hear()
    return sorted(ended, key=lambda worker: worker.rank)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


@contextmanager
def _held_back() -> Iterator[None]:
    """Block SIGNALS meanwhile, so that processes started within never receive them."""
    resource_tracker.ensure_running()  # starting it later would unblock the signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _tidy_end() -> Iterator[None]:
    """On SIGTERM, end the processes and remove the temporary folder, then exit with status 143."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


# -- in the processes -------------------------------------------------------------------------


def _main(
    work: Work,
    arguments: tuple[Any, ...],
    place: Place,
    uid: bytes,
    line: Connection,
    parent: int,
    logging: tuple[int, str | None, str],
) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    if os.getppid() != parent:  # the parent ended before end_with_parent() could take effect
        os._exit(1)
    take_settings(*logging)
    try:
        work(*arguments, place, uid, lambda: _request(line))
    except Exception as error:
        text = " ".join(str(error).split()) if isinstance(error, CaffeError) else one_line(error)
        line.send((isinstance(error, PeerLost), text))
        os._exit(1)  # an orderly exit would wait for operations with the other processes


def _request(line: Connection) -> str:
    return line.recv() if line.poll() else "none"

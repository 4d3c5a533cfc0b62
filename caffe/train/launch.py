"""Starts the processes of one training run on this machine, watches them and ends them together."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

from boundary.processes import held_back
from boundary.running import placed
from caffe.errors import CaffeError
from caffe.process.log import settings, take_settings
from caffe.process.peers import PeerLost, Place, end_with_parent
from caffe.process.signals import ENDING, SignalRequests

# Seconds that the other processes have to end by themselves after one has failed: they may finish
# a snapshot or report errors of their own.
PATIENCE = 5.0
GLANCE = 1.0  # seconds per wait; a signal ends it
# This process answers them, also if a terminal or a scheduler sent them to all.
SIGNALS = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)

Work = Callable[..., object]


def run_processes(
    work: Work, arguments: tuple[Any, ...], count: int, requests: SignalRequests
) -> bool:
    """Run work(*arguments, place, uid, requests) in `count` processes, until all are done.

    place: the process's Place. uid: a name under which the processes find each other. requests: a
    Requests; in rank 0 it gives what the signals to this process ask for, and 'none' in the others.
    The processes also end when this one does, however it ends.
    Returns whether a request ended the work: one process's `work` returned True, or there was a
    request to end before rank 0 had begun, and `requests` says at_once; all are then killed. Raises
    CaffeError, with the rank and the cause, if one fails; the others are then killed.
    """
    context = get_context("spawn")  # CUDA does not survive a fork
    workers: list[_Worker] = []
    with tempfile.TemporaryDirectory(prefix="caffe-") as folder, _Bell() as bell:
        uid = os.fsencode(os.path.join(folder, "meeting"))
        with requests.installed(bell.ring):
            try:
                with held_back(SIGNALS):
                    for rank in range(count):
                        place = Place(rank, count, rank, count)
                        workers.append(_Worker(context, work, arguments, place, uid))
                return _wait(workers, requests, bell)
            finally:
                for worker in workers:
                    worker.end()


class _Bell:
    """A pipe that wakes the process from its wait when a signal has come."""

    def __enter__(self) -> _Bell:
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        return self._reader

    def ring(self) -> None:
        with suppress(BlockingIOError):  # it rings already
            os.write(self._writer, b"!")

    def hush(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._reader, 4096)


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
        self.begun, self.lost_others, self.error, self.result = False, False, "", False

    def ask(self, request: str) -> None:
        """Pass on a request, unless it is 'none' or the process is gone."""
        if request != "none":
            with suppress(OSError):
                self.line.send(request)

    def hear(self) -> None:
        """Read what the process has sent so far."""
        with suppress(EOFError, OSError):
            while self.line.poll():
                message = self.line.recv()
                if message is None:
                    self.begun = True
                else:
                    self.lost_others, self.error, self.result = message

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


def _wait(workers: Sequence[_Worker], requests: SignalRequests, bell: _Bell) -> bool:
    """Wait until all have ended, and pass on requests. Returns as run_processes does.

    Raises CaffeError if one fails.
    """
    running = {worker.process.sentinel: worker for worker in workers}
    first = workers[0]
    while running:
        while (request := requests.next()) != "none":
            first.hear()
            if request in ENDING and requests.at_once and not first.begun:
                requests.tell_early_end()
                return True
            first.ask(request)
        for worker in _ended(running, GLANCE, bell):
            if worker.process.exitcode:
                raise CaffeError(_cause(worker, running).reason())
    return any(worker.result for worker in workers)


def _cause(first: _Worker, running: dict[int, _Worker]) -> _Worker:
    """The process that failed by itself, not one that only noticed that another was gone."""
    failed = [first]
    deadline = time.monotonic() + PATIENCE
    while running and (left := deadline - time.monotonic()) > 0:
        failed += [worker for worker in _ended(running, left) if worker.process.exitcode]
    return min(failed, key=_Worker.suspicion)


def _ended(running: dict[int, _Worker], timeout: float, bell: _Bell | None = None) -> list[_Worker]:
    """Wait up to `timeout` seconds for an end; take the ended ones out of `running`, by rank."""
    awaited = [*running] if bell is None else [*running, bell]
    ended = []
    for what in wait(awaited, timeout):
        if what is bell:
            bell.hush()
            continue
        worker = running.pop(what)
        worker.process.join()
        worker.hear()
        ended.append(worker)
    return sorted(ended, key=lambda worker: worker.rank)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


# -- in the processes -------------------------------------------------------------------------


def _main(
    work: Work,
    arguments: tuple[Any, ...],
    place: Place,
    uid: bytes,
    line: Connection,
    parent: int,
    logging: tuple[int, str | None, str, bool],
) -> None:
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    if os.getppid() != parent:  # the parent ended before end_with_parent() could take effect
        os._exit(1)
    take_settings(*logging)
    try:
        ended = work(*arguments, place, uid, _Parent(line))
    except Exception as error:
        text = " ".join(str(error).split()) if isinstance(error, CaffeError) else placed(error)
        line.send((isinstance(error, PeerLost), text, False))
        os._exit(1)  # an orderly exit would wait for operations with the other processes
    line.send((False, "", bool(ended)))


class _Parent:
    """The Requests of a process that was started here: they come from its parent."""

    def __init__(self, line: Connection) -> None:
        self._line = line

    def next(self) -> str:
        return self._line.recv() if self._line.poll() else "none"

    def waiting(self) -> bool:
        return self._line.poll()

    def begin(self) -> None:
        self._line.send(None)

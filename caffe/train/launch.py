"""Starting the processes of one training on this machine, watching them, ending them together."""

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

# How long the others may take to end by themselves when one has failed, in seconds: to finish a
# snapshot, or to say what they know.
PATIENCE = 5.0
GLANCE = 1.0  # seconds: a signal that arrives just as waiting begins is answered by then
SIGNALS = (signal.SIGINT, signal.SIGHUP)  # ours to answer, also where a terminal sends them to all

Work = Callable[..., None]


def run_processes(
    work: Work, arguments: tuple[Any, ...], count: int, requests: SignalRequests
) -> None:
    """Run work(*arguments, place, uid, requests) in `count` processes, until all are done.

    place: a Place. uid: a name under which they find each other. requests: a function, in the
    process of rank 0 what the signals to this one ask for. They end when this process ends, too,
    however that comes.
    Raises CaffeError if one fails, with its rank and the cause; the others are ended then.
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
    """One of the processes, and the line to it: requests go there, the reason for an end comes."""

    def __init__(self, context: Any, work: Work, arguments: tuple, place: Place, uid: bytes):
        self.rank = place.rank
        self.line, theirs = context.Pipe()
        rest = (work, arguments, place, uid, theirs, os.getpid(), settings())
        # Its name is what shows in a list of processes; no daemon, so that it may have children.
        self.process = context.Process(target=_main, args=rest, name=f"rank {place.rank}")
        self.process.start()
        theirs.close()
        self.lost_others, self.error = False, ""

    def ask(self, request: str) -> None:
        """Pass on a request, if there is one and the process is there."""
        if request != "none":
            with suppress(OSError):
                self.line.send(request)

    def hear(self) -> None:
        """After the process's end: what it said of the reason."""
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
        """Low where it is sure that it failed by itself: it was killed, or has its own error."""
        if (self.process.exitcode or 0) < 0:
            return 0
        return 2 if self.lost_others else 1

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.line.close()


def _wait(workers: Sequence[_Worker]) -> None:
    """Until all have ended; raises CaffeError if one fails."""
    running = {worker.process.sentinel: worker for worker in workers}
    while running:
        for worker in _ended(running, GLANCE):
            if worker.process.exitcode:
                raise CaffeError(_cause(worker, running).reason())


def _cause(first: _Worker, running: dict[int, _Worker]) -> _Worker:
    """The process that failed by itself: not one that noticed only that another was gone."""
    failed = [first]
    deadline = time.monotonic() + PATIENCE
    while running and (left := deadline - time.monotonic()) > 0:
        failed += [worker for worker in _ended(running, left) if worker.process.exitcode]
    return min(failed, key=_Worker.suspicion)


def _ended(running: dict[int, _Worker], timeout: float) -> list[_Worker]:
    """Take those that have ended out of `running`; waits for one, `timeout` seconds at most."""
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
    """Processes started within the block never see the signals that are ours to answer."""
    resource_tracker.ensure_running()  # which lifts the block when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _tidy_end() -> Iterator[None]:
    """SIGTERM ends this process only when what it started and made is gone; status 143."""
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
    if os.getppid() != parent:  # it ended before it could be watched
        os._exit(1)
    take_settings(*logging)
    try:
        work(*arguments, place, uid, lambda: _request(line))
    except Exception as error:
        text = " ".join(str(error).split()) if isinstance(error, CaffeError) else one_line(error)
        line.send((isinstance(error, PeerLost), text))
        os._exit(1)  # what is under way with the others would hold up an orderly end


def _request(line: Connection) -> str:
    return line.recv() if line.poll() else "none"

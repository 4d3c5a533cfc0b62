"""Runs inputs in a child that may die, hang or take memory, and starts another one after it.

`python -m fuzz.worker CORPUS MODULE...` imports everything once, then reads tasks as JSON lines
from stdin and writes outcomes as JSON lines to stdout. The process that imports runs nothing
itself: for each task it forks a child, watches it, and forks again behind the input that killed it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import json
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fuzz import families, judge, mutate
from fuzz.judge import Outcome

GIB = 2**30
# An input may take this much CPU time and, because it may sleep, PATIENCE times as much by the
# clock: other work of the machine makes no hangs.
SECONDS, PATIENCE = 10.0, 6
PEAK = 2 * GIB  # bytes by which memory in use may grow
# Behind so many bytes the system refuses memory: what takes more is seen, and the machine lives.
HEADROOM = 4 * GIB
FILE = GIB  # bytes of a file that is written
POLL = 0.02
_STATE = struct.Struct("=qdd")  # position in the task, time of its start, CPU time at its start


def main(arguments: Sequence[str]) -> None:
    """Serves tasks until stdin ends."""
    corpus, *modules = arguments
    registry = families.load(modules)
    _preload()
    gc.collect()
    gc.freeze()
    results = os.dup(1)
    with tempfile.TemporaryDirectory(prefix="fz", dir=_quick_folder()) as folder:
        for line in sys.stdin:
            task = json.loads(line)
            serve(task, registry, Path(corpus), Path(folder), results)
            os.write(results, b'{"done": true}\n')


def _quick_folder() -> str | None:
    """A place in memory, where it has room: commands wait for the disk whenever they write."""
    shared = "/dev/shm"
    roomy = os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 2 * FILE
    return shared if roomy else None


def _preload() -> None:
    """Imports what readers import late, so that not every child does."""
    for name in ("torch", "cv2", "h5py", "lmdb", "PIL.Image", "matplotlib.figure", "csv",
                 "matplotlib.backends.backend_agg", "caffe", "data_tools.cli"):  # fmt: skip
        with contextlib.suppress(ImportError):
            __import__(name)


# ---------------------------------------------------------------------------------------------
# The watching process
# ---------------------------------------------------------------------------------------------


def serve(task: dict[str, Any], registry: Any, corpus: Path, folder: Path, results: int) -> None:
    """Runs a task: {"family", "seed", "indices"}; "keep": a folder, to write the files and run
    nothing; "idle": the files stay sound; "seconds" and "peak": instead of SECONDS and PEAK.
    """
    chosen = registry[task["family"]]
    seconds = task.get("seconds", SECONDS)
    left = list(task["indices"])
    while left:
        state = mmap.mmap(-1, _STATE.size)
        state[:] = _STATE.pack(-1, 0.0, 0.0)
        dump = os.memfd_create("dump")
        pid = os.fork()
        if pid == 0:
            try:
                _Child(chosen, corpus, folder, results, state, dump).run(task, left)
            except BaseException:
                os.write(dump, traceback.format_exc().encode())
            finally:
                os._exit(0)
        status, hung = _watch(pid, state, dump, seconds)
        position = _STATE.unpack(state[:])[0]
        text = os.pread(dump, 1 << 20, 0).decode("utf-8", "replace")
        os.close(dump)
        if position >= len(left):
            return
        position = max(position, 0)
        outcome = Outcome(chosen.name, left[position], place=judge.place_in_dump(text))
        if hung:
            outcome.kind, outcome.error = "hang", f"over {seconds:g} s"
        elif os.WIFSIGNALED(status):
            outcome.kind, outcome.error = "signal", signal.Signals(os.WTERMSIG(status)).name
        else:
            outcome.kind, outcome.error = "exit", f"exit status {os.waitstatus_to_exitcode(status)}"
        outcome.text, outcome.size = chosen.title(left[position]), _size(folder)
        os.write(results, (json.dumps(outcome.as_dict()) + "\n").encode())
        for entry in folder.iterdir():
            shutil.rmtree(entry, ignore_errors=True)
        left = left[position + 1 :]


def _watch(pid: int, state: mmap.mmap, dump: int, seconds: float) -> tuple[int, bool]:
    """Waits for the child; kills it when an input takes too long. (wait status, whether killed)"""
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return status, False
        position, start, used = _STATE.unpack(state[:])
        late = time.monotonic() - start > PATIENCE * seconds
        if position >= 0 and start and (late or _cpu(pid) - used > seconds):
            os.kill(pid, signal.SIGUSR1)  # the child writes where it is
            deadline = time.monotonic() + 1
            while not os.fstat(dump).st_size and time.monotonic() < deadline:
                time.sleep(POLL)
            time.sleep(POLL)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            return os.waitpid(pid, 0)[1], True
        time.sleep(POLL)


def _cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _size(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------
# The child
# ---------------------------------------------------------------------------------------------


class _Child:
    """The process in which inputs run, one after the other."""

    def __init__(
        self, chosen: Any, corpus: Path, folder: Path, results: int, state: mmap.mmap, dump: int
    ) -> None:
        self.family, self.corpus, self.folder = chosen, corpus, folder
        self.results, self.state = results, state
        for fd in (1, 2):
            self._capture(fd)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        faulthandler.enable(dump)
        faulthandler.register(signal.SIGUSR1, dump, all_threads=False)

    @staticmethod
    def _capture(fd: int) -> None:
        """A file in memory takes the place of a descriptor."""
        taken = os.memfd_create(f"fd{fd}")
        appending = os.open(f"/proc/self/fd/{taken}", os.O_RDWR | os.O_APPEND)
        os.dup2(appending, fd)

    def run(self, task: dict[str, Any], indices: list[int]) -> None:
        """Runs the inputs and writes their outcomes."""
        self.peak = task.get("peak", PEAK)
        _limit(self.peak if self.family.asks else HEADROOM * self.peak // PEAK)
        mutate.idle = task.get("idle", False)
        for position, index in enumerate(indices):
            self._mark(position, 0.0)
            rng = families.rng_of(task["seed"], self.family.name, index)
            if task.get("keep"):
                with _within(Path(task["keep"]) / f"{self.family.name}-{index}", keep=True):
                    self.family.make(families.Draw(rng, self.corpus, index))
            else:
                with _within(self.folder / "x"):
                    outcome = self._one(rng, position, index)
                os.write(self.results, (json.dumps(outcome.as_dict()) + "\n").encode())
        self._mark(len(indices), 0.0)

    def _mark(self, position: int, start: float) -> None:
        self.state[:] = _STATE.pack(position, start, time.process_time())

    def _one(self, rng: Any, position: int, index: int) -> Outcome:
        outcome = Outcome(self.family.name, index)
        draw = families.Draw(rng, self.corpus, index)
        try:
            target = self.family.make(draw)
        except Exception as error:
            outcome.kind, outcome.error, outcome.text = "broken", type(error).__name__, str(error)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            outcome.place = f"{Path(frame.filename).name}:{frame.lineno}"
            return outcome
        outcome.size = _size(Path())
        for fd in (1, 2):
            os.ftruncate(fd, 0)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(  # noqa: SIM115
            2, "w", encoding="utf-8", errors="backslashreplace", closefd=False
        )
        _reseed()
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _memory("VmHWM")
        start = time.process_time()
        self._mark(position, time.monotonic())
        judge.run(outcome, target, sys.stderr, self.family.asks)
        outcome.seconds = round(time.process_time() - start, 3)
        outcome.peak = max(0, _memory("VmHWM") - before)
        if outcome.peak > self.peak and outcome.kind in (judge.FINE, judge.ONE_LINE):
            outcome.kind, outcome.text = "memory", f"{outcome.peak / GIB:.1f} GiB; {outcome.text}"
        elif outcome.seconds > SECONDS and not outcome.failed:
            outcome.kind = "hang"
        outcome.text = self.family.title(index) + outcome.text
        outcome.text = outcome.text.encode("utf-8", "backslashreplace").decode()[:400]
        del target
        gc.collect()
        return outcome


def _limit(memory: int) -> None:
    """So much memory beyond what is in use, no large files, no core files."""
    most = _memory("VmData") + memory
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _memory(what: str) -> int:
    """A field of /proc/self/status in bytes."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith(what):
                return int(line.split()[1]) * 1024
    return 0


def _reseed() -> None:
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@contextlib.contextmanager
def _within(folder: Path, keep: bool = False) -> Iterator[None]:
    """The folder as the working directory."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir("/")
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1:])

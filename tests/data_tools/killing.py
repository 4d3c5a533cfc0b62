"""Builds an LMDB in a process that is killed again and again: `killing.py OUT WORKERS SEED`.

Prints how many records were there after each kill, and how many frames the last run, which is left
alone, loaded, as JSON. A program of its own: it forks, which a process with threads must not.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import lmdb

from data_tools import build, store
from data_tools.build import Options, Output
from data_tools.record import Frame, RecordFormat
from data_tools.synth import Synth

KILLS = 20
FRAMES = 200
# Frames that a run gets leave for: all runs together cannot finish, however slow their killer.
RATION = 9


class Rationed(Synth):
    """Rendered frames; asks for leave before each, and tells when it is loaded.

    leave, loaded: FIFOs, by name because workers are processes that inherit nothing. One byte is
    one frame.
    """

    block = 1

    def __init__(self, leave: Path, loaded: Path):
        super().__init__(FRAMES, (24, 18), 5)
        self.leave, self.loaded = leave, loaded

    def load(self, index: int) -> Frame:
        with open(self.leave, "rb", buffering=0) as leave:
            leave.read(1)
        frame = super().load(index)
        with open(self.loaded, "wb", buffering=0) as loaded:
            loaded.write(b".")
        return frame


class Fifo:
    """A FIFO that is open at both ends while this process lives, so that nobody waits for it."""

    def __init__(self, path: Path):
        os.mkfifo(path)
        self.path, self.end = path, os.open(path, os.O_RDWR)

    def put(self, count: int) -> None:
        os.write(self.end, b"." * count)

    def take(self, count: int) -> None:
        while count:
            count -= len(os.read(self.end, count))


def run(out: Path, leave: Fifo, loaded: Fifo, committed: Fifo, workers: int) -> int:
    """Starts a run that commits each record and tells so; returns its process id."""
    child = os.fork()
    if child:
        return child
    try:
        store.BATCH_SECONDS = 0
        commit = store.Writer.commit

        def commit_and_tell(writer: store.Writer) -> None:
            some = bool(writer._batch)
            commit(writer)
            if some:
                committed.put(1)

        store.Writer.commit = commit_and_tell
        source = Rationed(leave.path, loaded.path)
        build.build(source, [Output(out, range(FRAMES))], RecordFormat(), {}, Options(workers))
        os._exit(0)
    finally:
        os._exit(1)


def kill_once(out: Path, folder: Path, workers: int, draw: random.Random) -> int:
    """Starts a run, kills it somewhere, and returns how many records there are."""
    folder.mkdir()
    leave, loaded, committed = (Fifo(folder / name) for name in ("leave", "loaded", "committed"))
    child = run(out, leave, loaded, committed, workers)
    leave.put(RATION)
    # Every worker may be ahead of the record that is next by a few, hence no more than 3.
    if draw.random() < 0.5:
        committed.take(draw.randint(1, 3))
    else:
        loaded.take(draw.randint(1, RATION))
    time.sleep(draw.uniform(0, 0.01))  # while loading, putting, committing, or waiting
    os.kill(child, signal.SIGKILL)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    with lmdb.open(f"{out}.fusenet-partial", readonly=True, lock=False) as env:
        return env.stat()["entries"]


def main() -> None:
    """All kills, then a run that is let through."""
    out, workers, draw = Path(sys.argv[1]), int(sys.argv[2]), random.Random(sys.argv[3])
    fifos = out.with_name(out.name + ".fifos")
    fifos.mkdir()
    counts = [kill_once(out, fifos / str(i), workers, draw) for i in range(KILLS)]
    published = out.exists()
    last = [Fifo(fifos / name) for name in ("leave", "loaded", "committed")]
    last[0].put(FRAMES)
    assert os.waitpid(run(out, *last, workers), 0)[1] == 0
    loads = len(os.read(last[1].end, 2 * FRAMES))
    print(json.dumps({"counts": counts, "published": published, "loads": loads}))


if __name__ == "__main__":
    main()

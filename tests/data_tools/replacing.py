"""Replaces an LMDB in processes that are killed at one step after the other: `replacing.py DB`.

Prints as JSON, for each step at which a process was killed, the records that DB had then ("" if it
was not there), and those after the next run. A program of its own: it forks, which a process with
threads must not.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np

from data_tools import store
from data_tools.record import to_datum

STEPS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")


def replace(path: Path, name: str, kill_at: int | None = None) -> None:
    """Writes an LMDB of one record, over another if there is one."""
    writer = store.Writer(path, name, force=True)
    writer.put(store.key(0, name), to_datum(np.zeros((5, 2, 3), np.uint8)))
    writer.commit()
    if kill_at is not None:
        left = itertools.count(kill_at, -1)

        def count(event: str, arguments: tuple) -> None:
            if event in STEPS and next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
    writer.finish({})


def names(path: Path) -> str:
    """The names of the records, or "" if there is no LMDB."""
    if not path.exists():
        return ""
    return " ".join(key.decode()[9:] for key, _ in store.Reader(path))


def try_again(path: Path) -> str:
    """A run without --force, as a user starts it who knows of nothing; returns what DB has then."""
    try:
        store.Writer(path, "other").close()
    except store.DataError:
        return names(path)
    return "nothing"


def main() -> None:
    """All steps, until a process comes through."""
    told = []
    for step in itertools.count():
        path = Path(sys.argv[1], str(step), "db")
        path.parent.mkdir()
        replace(path, "old")
        child = os.fork()
        if not child:
            replace(path, "new", step)
            os._exit(0)
        ended = os.waitpid(child, 0)[1]
        if not os.WIFSIGNALED(ended):
            assert ended == 0
            break
        found, later = names(path), try_again(path)
        replace(path, "new")
        left = sorted(entry.name for entry in path.parent.iterdir())
        inside = sorted(entry.name for entry in path.iterdir())
        told.append([found, later, names(path), left, inside])
    print(json.dumps(told))


if __name__ == "__main__":
    main()

"""A folder that appears under its name when it is complete; what a killed run did is kept."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from boundary import reading, writing
from boundary.errors import shown
from data_tools.cli import DataError

PARTIAL = ".fusenet-partial-pairs"  # another one than an LMDB's of the same name
PLAN, DONE, INNER = "plan.json", "done.jsonl", "pairs"
MAKER = "data_tools.recordings"  # the mark in the plan


class PartialFolder:
    """The folder `out` while it is made: `folder`, in OUT.fusenet-partial-pairs, beside a plan and
    a list of the items that are done.

    done: facts by the name of each item. A run with the same plan, any JSON value that says what
    will be written, goes on; with another plan it begins anew. Raises DataError if `out` exists, if
    another process is writing it, or if OUT.fusenet-partial-pairs is not ours.
    """

    def __init__(self, out: Path, plan: Any):
        if os.path.lexists(out):
            raise DataError(f"{shown(out)}: exists already")
        self._out, self._home = out, out.with_name(out.name + PARTIAL)
        self.folder = self._home / INNER
        text = json.dumps({"made_by": MAKER, "plan": plan}, sort_keys=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(self._home):
            with writing.atomic_folder(self._home, DataError) as beside:
                writing.write_text(beside / PLAN, text, DataError)
        self._lock = _locked(self._home)
        try:
            self.done = self._begin(text)
        except BaseException:
            os.close(self._lock)
            raise

    def _begin(self, text: str) -> dict[str, dict[str, Any]]:
        plan = self._home / PLAN
        found = reading.read_json(plan, DataError) if plan.is_file() else {}
        if found.get("made_by") != MAKER:
            raise DataError(f"{shown(self._home)}: was not made by this command; move it away")
        same = reading.read_text(plan, DataError) == text
        if not same or not self.folder.is_dir():
            shutil.rmtree(self.folder, ignore_errors=True)
            (self._home / DONE).unlink(missing_ok=True)
            writing.write_text(plan, text, DataError)
            self.folder.mkdir()
        return _read(self._home / DONE)

    def add(self, name: str, facts: dict[str, Any]) -> None:
        """Notes that an item is done. Its files must have reached the disk."""
        with open(self._home / DONE, "a", encoding="ascii") as file:
            file.write(json.dumps([name, facts]) + "\n")
        self.done[name] = facts

    def finish(self) -> None:
        """Gives the folder its name. Raises DataError if that has been taken meanwhile."""
        if os.path.lexists(self._out):
            raise DataError(f"{shown(self._out)}: exists already")
        writing.sync(self.folder)
        os.rename(self.folder, self._out)
        writing.sync(self._out.parent)
        self.done = {}

    def close(self) -> None:
        """Lets others write it. What is done stays for the next run, if anything is."""
        if not self.done:
            shutil.rmtree(self.folder, ignore_errors=True)
            with suppress(OSError):
                (self._home / DONE).unlink(missing_ok=True)
                (self._home / PLAN).unlink()
                self._home.rmdir()
        os.close(self._lock)


def _locked(home: Path) -> int:
    """A descriptor that holds the lock of a folder."""
    try:
        lock = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    except NotADirectoryError:
        raise DataError(f"{shown(home)}: is no folder; move it away") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise DataError(f"{shown(home)}: another process is writing it") from None
    return lock


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The items that are done. A line that a kill cut off counts as none."""
    found = {}
    for line in reading.read_lines(path, DataError) if path.is_file() else []:
        with suppress(ValueError), reading.reading(path, "our own list", DataError):
            name, facts = json.loads(line)
            found[name] = facts
    return found

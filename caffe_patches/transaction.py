"""Changes many files, all or none of them, even if the process is killed half-way.

First a journal in the tree takes a copy of every file to change. If the process is killed, the next
one restores the files from it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from caffe_patches.errors import PatchError

JOURNAL = ".fusenet_patch"


@dataclass(frozen=True)
class Change:
    """A file's bytes before and after; None if there is no file."""

    path: str
    before: bytes | None
    after: bytes | None


def interrupted(root: Path) -> bool:
    """Whether a change of this tree was interrupted and must be undone."""
    return (root / JOURNAL / "journal.json").exists()


@contextmanager
def exclusive(root: Path) -> Iterator[None]:
    """Locks the tree against other runs of this program, and undoes an interrupted change.

    Raises PatchError if another run holds the lock, or if the tree cannot be opened.
    """
    try:
        directory = os.open(root, os.O_RDONLY)
    except OSError as error:
        raise PatchError(f"{root}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PatchError(f"{root}: another caffe_patches is at work here") from error
        roll_back(root)
        yield
    finally:
        os.close(directory)


def write(root: Path, changes: Sequence[Change]) -> None:
    """Makes all changes, or none if anything fails. Call it inside exclusive().

    Files keep their permissions. Missing folders are made, empty ones removed. Raises PatchError,
    before any change, for files that are read-only or not regular.
    """
    problems = [problem for change in changes if (problem := _obstacle(root, change))]
    if problems:
        raise PatchError(*problems)
    try:
        _prepare(root, changes)
        for number, change in enumerate(changes):
            _carry_out(root, number, change)
        os.remove(root / JOURNAL / "journal.json")  # commits the changes
    except BaseException as error:
        roll_back(root)
        if isinstance(error, OSError):
            path = error.filename or root
            raise PatchError(f"{path}: {error.strerror}; nothing was changed") from error
        raise
    shutil.rmtree(root / JOURNAL)
    _sync(root)


def roll_back(root: Path) -> bool:
    """Undoes the changes in the journal, if there is one; returns whether there was."""
    journal = root / JOURNAL
    waiting = interrupted(root)
    if waiting:
        for entry in json.loads((journal / "journal.json").read_text(encoding="utf-8")):
            path, copy = root / entry["path"], journal / entry["copy"]
            if entry["existed"]:
                again = journal / "again"
                shutil.copy2(copy, again)
                path.parent.mkdir(parents=True, exist_ok=True)  # it may have been removed as empty
                os.replace(again, path)
            else:
                path.unlink(missing_ok=True)
                _remove_empty(root, path.parent)
        os.remove(journal / "journal.json")
    if journal.exists():
        shutil.rmtree(journal)
    return waiting


def _obstacle(root: Path, change: Change) -> str | None:
    """Why this file cannot be changed, or None."""
    path = root / change.path
    if change.before is None:
        folder = path.parent
        while not folder.exists():
            folder = folder.parent
        return None if _writable(folder) else f"{change.path}: {folder} is read-only"
    if not stat.S_ISREG(path.lstat().st_mode):
        return f"{change.path}: is no plain file"
    if not _writable(path):
        return f"{change.path}: is read-only"
    return None if _writable(path.parent) else f"{change.path}: its folder is read-only"


def _writable(path: Path) -> bool:
    # Also checks the mode: os.access lets root write everything.
    return bool(path.stat().st_mode & 0o222) and os.access(path, os.W_OK)


def _prepare(root: Path, changes: Sequence[Change]) -> None:
    """Writes copies of the old files and the new files, then the journal that lists them."""
    journal = root / JOURNAL
    journal.mkdir()
    entries = []
    for number, change in enumerate(changes):
        path, copy = root / change.path, journal / f"{number}.old"
        if change.before is not None:
            shutil.copy2(path, copy)
            _sync(copy)
        if change.after is not None:
            new = journal / f"{number}.new"
            new.write_bytes(change.after)
            if change.before is not None:
                shutil.copymode(path, new)
            _sync(new)
        existed = change.before is not None
        entries.append({"path": change.path, "copy": copy.name, "existed": existed})
    draft = journal / "journal.draft"
    draft.write_text(json.dumps(entries), encoding="utf-8")
    _sync(draft)
    os.replace(draft, journal / "journal.json")
    _sync(journal)
    _sync(root)


def _carry_out(root: Path, number: int, change: Change) -> None:
    path = root / change.path
    if change.after is None:
        path.unlink()
        _remove_empty(root, path.parent)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(root / JOURNAL / f"{number}.new", path)
    _sync(path.parent)


def _remove_empty(root: Path, folder: Path) -> None:
    while folder != root and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def _sync(path: Path) -> None:
    """Waits until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

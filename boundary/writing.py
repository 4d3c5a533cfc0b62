"""Writes files and folders that appear under their names only when they are complete."""

from __future__ import annotations

import errno
import fcntl
import itertools
import os
import re
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boundary.errors import InputError, reason, shown

PathLike = str | os.PathLike[str]

_count = itertools.count()
_mine: set[Path] = set()  # the temporary files and folders that this process has now
_cleared: set[Path] = set()  # folders in which this process has looked for stale ones
_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())[:40] or "host"
_DESCRIPTOR = re.compile(r"/dev/(stdout|stderr)|/(?:dev|proc/self)/fd/(\d{1,4})")
_TEMPORARY = re.compile(rf"\..*\.(\d+)\.\d+\.{re.escape(_HOST)}\.tmp", re.DOTALL)


@contextmanager
def atomic_write(path: PathLike, error: type[InputError]) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`, renamed to it if the block succeeds.

    The data reaches the disk before the rename. After an error nothing is left; what killed
    processes left in the folder is cleared away at the first write there. A symbolic link stays
    one: the file that it names is replaced. If `path` is a device or a pipe, a file elsewhere is
    yielded and copied to it, because many formats cannot be written without seeking. An existing
    file's permissions are kept.

    Raises `error` if `path` is a folder, its folder is missing or not writable, or the disk is
    full.
    """
    final = _target(path, error)
    if final is None:
        with _told(path, error), tempfile.TemporaryDirectory() as folder:
            elsewhere = Path(folder, os.path.basename(path))
            elsewhere.touch()
            yield elsewhere
            with open(elsewhere, "rb") as written, open(_opened(path), "wb") as through:
                shutil.copyfileobj(written, through)
        return
    with _told(path, error), _temporary(final) as beside:
        beside.touch()
        with _locked(beside):
            yield beside
            with suppress(OSError):
                beside.chmod(stat.S_IMODE(os.stat(final).st_mode))
            sync(beside)
            os.replace(beside, final)
        sync(final.parent)


@contextmanager
def atomic_folder(path: PathLike, error: type[InputError]) -> Iterator[Path]:
    """Yields a new temporary folder beside `path`, renamed to it if the block succeeds.

    After an error nothing is left, as with atomic_write. The caller's files must have reached the
    disk. Raises `error` if `path` exists, its folder is missing or not writable, or the disk is
    full.
    """
    if os.path.lexists(path):
        raise error(f"{shown(path)}: exists already")
    final = Path(os.path.abspath(path))
    with _told(path, error), _temporary(final) as beside:
        beside.mkdir()
        with _locked(beside):
            yield beside
            sync(beside)
            os.rename(beside, final)
        sync(final.parent)


def write_bytes(path: PathLike, data: bytes, error: type[InputError]) -> None:
    """Write a file, which appears under its name only when complete; as atomic_write."""
    with atomic_write(path, error) as beside, open(beside, "wb") as file:
        file.write(data)


def write_text(path: PathLike, text: str, error: type[InputError]) -> None:
    """Write a text file in UTF-8; as atomic_write. Names of other bytes in it keep their bytes."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"), error)


def sync(path: PathLike) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as problem:
        if problem.errno != errno.EINVAL:  # a file system that cannot flush folders
            raise
    finally:
        os.close(descriptor)


def clear_stale(folder: PathLike) -> None:
    """Remove the temporary files and folders that ended processes of this machine left there."""
    with suppress(OSError):
        for entry in os.scandir(folder):
            match = _TEMPORARY.fullmatch(entry.name)
            if match and _is_stale(path := Path(folder, entry.name), int(match[1])):
                _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def _is_stale(path: Path, pid: int) -> bool:
    if pid == os.getpid():
        return Path(os.path.realpath(path)) not in _mine
    try:
        os.kill(pid, 0)
        return False
    except ProcessLookupError:
        pass
    except (OSError, OverflowError):  # another user's process
        return False
    # It may live in another container, which has process numbers of its own.
    with suppress(OSError), _locked(path) as locked:
        return locked
    return False


@contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Locks a file or a folder within the block, unless another process has locked it.

    Files have POSIX's kind of lock, because HDF5 opens and locks the same file by the other kind.
    """
    folder = path.is_dir()
    descriptor = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        try:
            lock = fcntl.flock if folder else fcntl.lockf
            lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            got = True
        except OSError:  # locked, or on a file system without locks
            got = False
        yield got
    finally:
        os.close(descriptor)


def _target(path: PathLike, error: type[InputError]) -> Path | None:
    """The file to replace; None if `path` is to be written through."""
    if "\0" in os.fspath(path):
        raise error(f"{shown(path)}: a path cannot hold a zero character")
    if os.path.isdir(path):
        raise error(f"{shown(path)}: is a directory; expected a file name")
    if os.path.exists(path) and not os.path.isfile(path):
        return None
    if _DESCRIPTOR.fullmatch(os.fspath(path)):  # the shell has opened it, and others may write, too
        return None
    final = Path(os.path.realpath(path))
    if os.path.islink(final):
        raise error(f"{shown(path)}: {os.strerror(errno.ELOOP)}")
    return final


def _opened(path: PathLike) -> int | str:
    """What to open to write to a device or a pipe: itself, or what the shell has opened."""
    match = _DESCRIPTOR.fullmatch(os.fspath(path))
    if match is None:
        return os.fspath(path)
    return os.dup(int(match[2]) if match[2] else {"stdout": 1, "stderr": 2}[match[1]])


@contextmanager
def _temporary(final: Path) -> Iterator[Path]:
    """A new name in the folder of `final`; what is still there at the end is removed."""
    folder = Path(os.path.realpath(final.parent))
    if folder not in _cleared:
        _cleared.add(folder)
        clear_stale(folder)
    short = os.fsdecode(os.fsencode(final.name)[:150])
    beside = folder / f".{short}.{os.getpid()}.{next(_count)}.{_HOST}.tmp"
    _mine.add(beside)
    try:
        yield beside
    finally:
        _mine.discard(beside)
        _remove(beside)


@contextmanager
def _told(path: PathLike, error: type[InputError]) -> Iterator[None]:
    """Turns the system's errors into `error`."""
    try:
        yield
    except BrokenPipeError:  # the reader of a pipe is gone: the commands know what to do
        raise
    except (OSError, UnicodeEncodeError) as problem:
        raise error(f"{shown(path)}: cannot be written: {reason(problem)}") from problem

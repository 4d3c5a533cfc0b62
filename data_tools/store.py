"""LMDBs of records: a writer whose LMDB appears only when complete, and a reader."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from boundary.lmdb_file import LmdbFile
from data_tools.cli import DataError
from data_tools.record import from_datum

INFO = "dataset.json"
PLAN = "plan.json"
LMDB_FILES = {"data.mdb", "lock.mdb", INFO, PLAN}
FIRST_MAP = 1 << 26
MAX_KEY = 511  # bytes, LMDB's limit
# A batch is committed when it reaches either limit; a kill loses no more than this.
BATCH_BYTES = 64 << 20
BATCH_SECONDS = 1.0
FULL = 1 << 20  # bytes; a disk with less free space counts as full


def key(index: int, name: str) -> bytes:
    """The record's key, `00000012_name`, which sorts in frame order, as in convert_imageset."""
    text = f"{index:08d}_".encode()
    return text + name.encode()[-(MAX_KEY - len(text)) :]


@contextmanager
def lmdb_errors(path: Path) -> Iterator[None]:
    """Turns LMDB's errors (a full disk, a broken file) into one line that names the path."""
    try:
        yield
    except lmdb.Error as error:
        words = str(error).rpartition(": ")[2] or str(error)
        # If the disk is full, LMDB reports an input/output error.
        if path.exists() and shutil.disk_usage(path).free < FULL:
            words = "no space left on the disk"
        raise DataError(f"{path}: {words}") from error


class Writer:
    """Writes records to `path`.partial, and renames it to `path` when it is complete.

    After a kill, a writer with the same plan resumes after the last commit: check `key in writer`
    before you make a record. plan: any JSON value that describes what will be written; partial
    data with another plan is deleted. Raises DataError if `path` exists (unless force), or if
    another process is writing it.
    """

    def __init__(self, path: str | Path, plan: Any, force: bool = False):
        self.path = Path(path)
        self.partial = self.path.with_name(self.path.name + ".partial")
        check_target(self.path, force)
        self._lock = self._acquire()
        try:
            self._env = self._open(json.dumps(plan, sort_keys=True))
        except DataError:
            with suppress(OSError):
                self.partial.rmdir()  # succeeds only if it is empty
            os.close(self._lock)
            raise
        self._batch: list[tuple[bytes, bytes]] = []
        self._bytes = 0
        self._since = time.monotonic()
        self._finished = False

    def _open(self, plan: str) -> lmdb.Environment:
        if not self._resumes(plan):
            self._clear()
            write_text(self.partial / PLAN, plan)
        with lmdb_errors(self.partial):
            env = lmdb.open(str(self.partial), map_size=FIRST_MAP, max_readers=16)
            # A file that grew in an earlier run needs a larger map than the first.
            size = (self.partial / "data.mdb").stat().st_size
            if size > FIRST_MAP:
                env.set_mapsize(2 * size)
        return env

    def _acquire(self) -> int:
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            place = next(part for part in self.partial.parents if part.exists())
            raise DataError(f"{place}: is no folder, so {self.path} cannot be made") from error
        lock = os.open(self.partial, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(lock)
            raise DataError(f"{self.partial}: another process is writing it") from error
        return lock

    def _resumes(self, plan: str) -> bool:
        try:
            return (self.partial / PLAN).read_text() == plan
        except OSError:
            return False

    def _clear(self) -> None:
        for entry in self.partial.iterdir():
            entry.unlink()

    def __contains__(self, key: bytes) -> bool:
        with self._env.begin() as txn:
            return txn.get(key) is not None

    def put(self, key: bytes, record: bytes) -> None:
        """Adds a record. It is on the disk after the next commit, which happens by itself."""
        self._batch.append((key, record))
        self._bytes += len(record)
        if self._bytes >= BATCH_BYTES or time.monotonic() - self._since >= BATCH_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Writes the batch to the disk; the map grows as needed."""
        with lmdb_errors(self.partial):
            while True:
                try:
                    with self._env.begin(write=True) as txn:
                        for key, record in self._batch:
                            txn.put(key, record)
                    break
                except lmdb.MapFullError:
                    self._env.set_mapsize(2 * self._env.info()["map_size"])
        self._batch, self._bytes, self._since = [], 0, time.monotonic()

    def close(self) -> None:
        """Commits and closes; partial data stays for the next run. Does nothing after finish."""
        if self._finished:
            return
        try:
            self.commit()
        finally:
            empty = not self._env.stat()["entries"]
            self._env.close()
            if empty:
                shutil.rmtree(self.partial, ignore_errors=True)
            os.close(self._lock)

    def finish(self, info: dict[str, Any]) -> dict[str, Any]:
        """Surveys the records, adds dataset.json, and renames the LMDB to its final name.

        info: facts for dataset.json beyond the survey. Returns the whole content of dataset.json.
        """
        self.commit()
        with lmdb_errors(self.partial), self._env.begin() as txn:
            info = {**info, **survey(txn.cursor(), str(self.partial))}
        with lmdb_errors(self.partial):
            self._env.sync(True)
            self._env.close()
        write_text(self.partial / INFO, to_json(info))
        replace(self.partial, self.path)
        # Removed last: a run that is killed before the renaming needs its plan to resume.
        for name in ("lock.mdb", PLAN):
            (self.path / name).unlink(missing_ok=True)
        os.close(self._lock)
        self._finished = True
        return info


def to_json(info: dict[str, Any]) -> str:
    """info as JSON with one key per line, so that it is readable in spite of its long lists."""
    lines = (f"{json.dumps(key)}: {json.dumps(info[key], ensure_ascii=False)}" for key in info)
    return "{\n" + ",\n".join(lines) + "\n}\n"


def survey(records: Iterator[tuple[bytes, bytes]], where: str) -> dict[str, Any]:
    """Facts about a stream of (key, record), for dataset.json.

    They are counts, the common shape and type, pixels of every label (channel 4), records of every
    scene, and a SHA-256 over keys and records, each preceded by its length as 8 bytes,
    little-endian.
    """
    digest = hashlib.sha256()
    shapes, labels, scenes, count = set(), np.zeros(256, np.int64), {}, 0
    for key, record in records:
        for part in (key, record):
            digest.update(len(part).to_bytes(8, "little") + part)
        planes, scene = from_datum(record, f"{where}: {key.decode(errors='replace')}")
        shapes.add((*planes.shape, str(planes.dtype)))
        if len(planes) == 5:
            labels += np.bincount(planes[4].astype(np.uint8).ravel(), minlength=256)
        scenes[scene] = scenes.get(scene, 0) + 1
        count += 1
    shape = list(shapes.pop()) if len(shapes) == 1 else None
    return {
        "records": count,
        "shape": shape[:3] if shape else None,
        "type": shape[3] if shape else None,
        "label_pixels": {str(i): int(labels[i]) for i in np.flatnonzero(labels)},
        "scene_records": {str(i): scenes[i] for i in sorted(scenes)},
        "checksum": "sha256:" + digest.hexdigest(),
    }


def check_target(path: Path, force: bool) -> None:
    """Raises DataError if `path` must not be written. force allows replacing an LMDB, only."""
    if not os.path.lexists(path):
        return
    if not force:
        raise DataError(f"{path}: exists already; pass --force to replace it")
    if not path.is_dir() or not {entry.name for entry in path.iterdir()} <= LMDB_FILES:
        raise DataError(f"{path}: exists and is not an LMDB, so --force does not replace it")


def replace(new: Path, path: Path) -> None:
    """Renames the directory `new` to `path`, and then deletes the old content of `path`."""
    sync_directory(new)
    old = path.with_name(path.name + ".old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    new.rename(path)
    sync_directory(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_directory(path: Path) -> None:
    """fsyncs a directory, so that its entries survive a crash."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file, which appears under its name only when complete."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file, which appears under its name only when complete.

    Raises DataError, naming the file, if it cannot be written.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink()


class Reader:
    """An LMDB of records, in key order. `info` is its dataset.json, or {} if there is none."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not (self.path / "data.mdb").is_file():
            what = "no LMDB there (no data.mdb in it)" if self.path.exists() else "does not exist"
            raise DataError(f"{self.path}: {what}")
        self._file = LmdbFile(self.path, DataError)
        self.info = read_info(self.path)

    def __len__(self) -> int:
        return len(self._file)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, serialised Datum) of every record."""
        return self._file.every(0, 1)

    def keys(self) -> list[bytes]:
        """Every record's key."""
        return self._file.keys()

    def get(self, key: bytes) -> bytes:
        """The record of that key. Raises DataError if there is none."""
        record = self._file.get(key)
        if record is None:
            raise DataError(f"{self.path}: has no record {key.decode(errors='replace')}")
        return record

    def planes(self) -> Iterator[tuple[bytes, np.ndarray, int]]:
        """(key, planes C x H x W, Datum.label) of every record."""
        for key, record in self:
            yield key, *from_datum(record, f"{self.path}: {key.decode(errors='replace')}")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_info(path: str | Path) -> dict[str, Any]:
    """dataset.json of the LMDB at path, or {} if there is none (an LMDB of other tools)."""
    file = Path(path) / INFO
    try:
        info = json.loads(file.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DataError(f"{file}: not JSON: {error}") from error
    if not isinstance(info, dict):
        raise DataError(f"{file}: expected a JSON object")
    return info

"""LMDBs of records: a writer whose file appears only when complete, and a reader."""

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

from data_tools.cli import DataError
from data_tools.record import from_datum

INFO = "dataset.json"
PLAN = "plan.json"
LMDB_FILES = {"data.mdb", "lock.mdb", INFO, PLAN}
FIRST_MAP = 1 << 26
MAX_KEY = 511  # bytes, LMDB's limit
# A batch is committed when it reaches either: a kill costs no more than this.
BATCH_BYTES = 64 << 20
BATCH_SECONDS = 1.0
FULL = 1 << 20  # bytes; with less, a disk is as good as full


def key(index: int, name: str) -> bytes:
    """The record's key, `00000012_name`: sorts in frame order, as convert_imageset's do."""
    text = f"{index:08d}_".encode()
    return text + name.encode()[-(MAX_KEY - len(text)) :]


@contextmanager
def lmdb_errors(path: Path) -> Iterator[None]:
    """Turns LMDB's errors (a full disk, a broken file) into one line that names the path."""
    try:
        yield
    except lmdb.Error as error:
        words = str(error).rpartition(": ")[2] or str(error)
        # What a full disk does to a write, LMDB calls an input/output error.
        if path.exists() and shutil.disk_usage(path).free < FULL:
            words = "no space left on the disk"
        raise DataError(f"{path}: {words}") from error


def open_lmdb(path: Path) -> lmdb.Environment:
    """The LMDB to be read. Raises DataError where the engine finds that it was cut short."""
    try:
        from caffe.formats import db
    except ImportError:  # a real pycaffe has no such check
        return lmdb.open(str(path), readonly=True, lock=False, readahead=False)
    try:
        return db.open_lmdb(path, readahead=False)
    except RuntimeError as error:
        raise DataError(str(error)) from error


class Writer:
    """Writes records to `path`.partial, and renames it to `path` once everything is in it.

    A writer opened again with the same plan after a kill goes on where the last commit left off:
    ask `key in writer` before making a record. plan: any JSON value that says what will be
    written; a partial file with another plan is thrown away. Raises DataError where `path` exists
    (unless force) or another process writes it.
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
                self.partial.rmdir()  # of which there is nothing yet
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
            # A file that grew in an earlier run needs its size, not the first map's.
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
        """Adds a record; it is safe after the next commit, which comes by itself."""
        self._batch.append((key, record))
        self._bytes += len(record)
        if self._bytes >= BATCH_BYTES or time.monotonic() - self._since >= BATCH_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Writes what was put so far to the disk; the map grows as needed."""
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
        """Commits and lets go; the partial file stays for the next run. After finish: nothing."""
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
        """Surveys what was written, adds dataset.json, and gives the whole its final name.

        info: what dataset.json says beyond the survey. Returns all that it says.
        """
        self.commit()
        with lmdb_errors(self.partial), self._env.begin() as txn:
            info = {**info, **survey(txn.cursor(), str(self.partial))}
        with lmdb_errors(self.partial):
            self._env.sync(True)
            self._env.close()
        write_text(self.partial / INFO, to_json(info))
        replace(self.partial, self.path)
        # Last, because until the new name is there a killed run needs its plan to go on.
        for name in ("lock.mdb", PLAN):
            (self.path / name).unlink(missing_ok=True)
        os.close(self._lock)
        self._finished = True
        return info


def to_json(info: dict[str, Any]) -> str:
    """info as JSON, one key a line, so that people can read it in spite of its long lists."""
    lines = (f"{json.dumps(key)}: {json.dumps(info[key], ensure_ascii=False)}" for key in info)
    return "{\n" + ",\n".join(lines) + "\n}\n"


def survey(records: Iterator[tuple[bytes, bytes]], where: str) -> dict[str, Any]:
    """What a stream of (key, record) holds, for dataset.json.

    Counts, the common shape and type, pixels of every label (channel 4) and scene, and a SHA-256
    over each key and record, every one preceded by its length as 8 bytes, little-endian.
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
    """Raises DataError if `path` may not be written; force allows only an LMDB to be replaced."""
    if not os.path.lexists(path):
        return
    if not force:
        raise DataError(f"{path}: exists already; pass --force to replace it")
    if not path.is_dir() or not {entry.name for entry in path.iterdir()} <= LMDB_FILES:
        raise DataError(f"{path}: exists and is not an LMDB, so --force does not replace it")


def replace(new: Path, path: Path) -> None:
    """Renames the directory `new` to `path`, whose old content goes only after that."""
    sync_directory(new)
    old = path.with_name(path.name + ".old")
    if path.exists():
        shutil.rmtree(old, ignore_errors=True)
        path.rename(old)
    new.rename(path)
    sync_directory(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def sync_directory(path: Path) -> None:
    """fsync of a directory: its entries survive a crash."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Writes a text file that appears under its name only when complete."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes a file that appears under its name only when complete.

    Raises DataError, naming it, where it cannot be written.
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
    """An LMDB of records, in key order. `info` is its dataset.json, {} where it has none."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not (self.path / "data.mdb").is_file():
            what = "no LMDB there (no data.mdb in it)" if self.path.exists() else "does not exist"
            raise DataError(f"{self.path}: {what}")
        with lmdb_errors(self.path):
            self._env = open_lmdb(self.path)
        self.info = read_info(self.path)

    def __len__(self) -> int:
        with lmdb_errors(self.path):
            return self._env.stat()["entries"]

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, serialised Datum) of every record."""
        with lmdb_errors(self.path), self._env.begin() as txn:
            yield from txn.cursor()

    def keys(self) -> list[bytes]:
        """Every record's key."""
        with lmdb_errors(self.path), self._env.begin() as txn:
            return list(txn.cursor().iternext(values=False))

    def get(self, key: bytes) -> bytes:
        """The record of that key; raises DataError where there is none."""
        with lmdb_errors(self.path), self._env.begin() as txn:
            record = txn.get(key)
        if record is None:
            raise DataError(f"{self.path}: has no record {key.decode(errors='replace')}")
        return record

    def planes(self) -> Iterator[tuple[bytes, np.ndarray, int]]:
        """(key, planes C x H x W, Datum.label) of every record."""
        for key, record in self:
            yield key, *from_datum(record, f"{self.path}: {key.decode(errors='replace')}")

    def close(self) -> None:
        """Lets go of the file."""
        self._env.close()


def read_info(path: str | Path) -> dict[str, Any]:
    """dataset.json of the LMDB at path; {} where it has none (an LMDB of other tools)."""
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

"""LMDBs of records: a writer whose LMDB appears only when complete, and a reader."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from boundary import reading, writing
from boundary.errors import shown
from boundary.lmdb_file import LmdbFile
from data_tools import info
from data_tools.cli import DataError
from data_tools.record import from_datum

Survey = Callable[[Iterator[tuple[bytes, bytes]], str], dict[str, Any]]

INFO = info.NAME
PLAN = "plan.json"
UNKNOWN = "unknown.json"  # while an LMDB is built: key -> pixels whose unknown labels became 0
# While an LMDB is built: key -> what reading the frame found; and whether a frame was fitted.
FACTS = "facts.json"
LABEL_MAP = "labelmap.prototxt"  # of an LMDB of boxes
LMDB_FILES = {"data.mdb", "lock.mdb", INFO, PLAN, UNKNOWN, FACTS, LABEL_MAP}
PARTIAL = ".fusenet-partial"  # ending of the folder in which an LMDB is built
REPLACED = "replaced"  # in it: the LMDB that it replaces, for a moment
MAKER = "data_tools.store"  # the mark in the plan
FIRST_MAP = 1 << 26
MAX_KEY = 511  # bytes, LMDB's limit
# A batch is committed when it reaches either limit; a kill loses no more than this.
BATCH_BYTES = 64 << 20
BATCH_SECONDS = 1.0
FULL = 1 << 20  # bytes; a disk with less free space counts as full


def key(index: int, name: str) -> bytes:
    """The record's key, `00000012_name`, which sorts in frame order, as in convert_imageset."""
    text = f"{index:08d}_".encode()
    return text + name.encode("utf-8", "surrogateescape")[-(MAX_KEY - len(text)) :]


def name_of(key: bytes) -> str:
    """A key as text; bytes that are no UTF-8 stay in it as Python's surrogates."""
    return key.decode("utf-8", "surrogateescape")


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
    """Writes records to `path`.fusenet-partial, renamed to `path` when it is complete.

    After a kill, a writer with the same plan resumes after the last commit: check `key in writer`
    before you make a record. plan: any JSON value that describes what will be written; partial
    data with another plan is deleted. The folder holds the plan with a mark of ours, so a folder
    of the user's that has the same name is left alone. If `path` is a symbolic link, the folder
    that it names is written.

    Raises DataError if `path` exists (unless force), or if another process is writing it.
    """

    def __init__(self, path: str | Path, plan: Any, force: bool = False):
        self.path, self._force = Path(path), force
        self._final = _final(self.path)
        self.partial = _partial(self._final)
        _settle(self._final)
        check_target(self.path, force)
        text = json.dumps({"made_by": MAKER, "plan": plan}, sort_keys=True)
        self._lock = self._acquire(text)
        try:
            self._env = self._open(text)
        except BaseException:
            if not (self.partial / "data.mdb").exists():
                _remove(self.partial)
            os.close(self._lock)
            raise
        self._batch: list[tuple[bytes, bytes]] = []
        self._unknown: dict[str, int] = self._read(UNKNOWN)
        facts = self._read(FACTS)
        self._facts: dict[str, dict[str, Any]] = facts.get("frames", {})
        self.fitted = bool(facts.get("fitted"))  # whether --fit changed a frame
        self._bytes = self._saved = 0
        self._since = time.monotonic()
        self._complete = self._finished = False

    def _open(self, plan: str) -> lmdb.Environment:
        if not self._resumes(plan):
            # The plan goes last: without one, the folder would not be ours any more.
            for name in LMDB_FILES - {PLAN}:
                (self.partial / name).unlink(missing_ok=True)
            writing.write_text(self.partial / PLAN, plan, DataError)
        with lmdb_errors(self.partial):
            env = lmdb.open(str(self.partial), map_size=FIRST_MAP, max_readers=16)
            # A file that grew in an earlier run needs a larger map than the first.
            size = (self.partial / "data.mdb").stat().st_size
            if size > FIRST_MAP:
                env.set_mapsize(2 * size)
        return env

    def _acquire(self, plan: str) -> int:
        """Locks the folder, which is made if it is missing. Raises DataError if it is not ours."""
        try:
            self._final.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            place = next(part for part in self._final.parents if part.exists())
            raise DataError(f"{place}: is no folder, so {self.path} cannot be made") from error
        if not os.path.lexists(self.partial):
            try:
                with writing.atomic_folder(self.partial, DataError) as beside:
                    writing.write_text(beside / PLAN, plan, DataError)
            except DataError:
                if not os.path.lexists(self.partial):  # else another process was faster
                    raise
        lock = _lock(self.partial)
        if lock is None:
            raise DataError(f"{self.partial}: another process is writing it")
        try:
            _check_ours(self.partial)
        except DataError:
            os.close(lock)
            raise
        return lock

    def _resumes(self, plan: str) -> bool:
        try:
            return (self.partial / PLAN).read_text(encoding="utf-8") == plan
        except (OSError, ValueError):
            return False

    def __contains__(self, key: bytes) -> bool:
        with self._env.begin() as txn:
            return txn.get(key) is not None

    def _read(self, name: str) -> dict[str, Any]:
        path = self.partial / name
        return reading.read_json(path, DataError) if path.exists() else {}

    def put(
        self,
        key: bytes,
        record: bytes,
        unknown: int = 0,
        facts: dict[str, Any] | None = None,
        fitted: bool = False,
    ) -> None:
        """Adds a record. It is on the disk after the next commit, which happens by itself.

        unknown: the number of its pixels whose unknown labels became 0, or of objects left out.
        facts: what dataset.json's `frames` says of it, beside what finish is given. fitted: whether
        --fit changed the frame.
        """
        self.fitted |= fitted
        self._batch.append((key, record))
        if unknown:
            self._unknown[name_of(key)] = unknown
        if facts:
            self._facts[name_of(key)] = facts
        self._bytes += len(record)
        if self._bytes >= BATCH_BYTES or time.monotonic() - self._since >= BATCH_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Writes the batch to the disk; the map grows as needed."""
        known = len(self._unknown) + len(self._facts) + self.fitted
        if self._saved != known:  # before the records: a kill loses none
            writing.write_text(self.partial / UNKNOWN, json.dumps(self._unknown), DataError)
            facts = {"frames": self._facts, "fitted": self.fitted}
            writing.write_text(self.partial / FACTS, json.dumps(facts), DataError)
            self._saved = known
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
        self._finished = True
        try:
            if not self._complete:
                self.commit()
        finally:
            if not self._complete:
                empty = not self._env.stat()["entries"]
                self._env.close()
                if empty:
                    _remove(self.partial)
            os.close(self._lock)

    def finish(
        self, facts: dict[str, Any], look: Survey | None = None, unit: str = "pixels"
    ) -> dict[str, Any]:
        """Surveys the records, adds dataset.json, and renames the LMDB to its final name.

        facts: those for dataset.json beyond the survey. look: the survey, for records that are no
        Datums. unit: what `put` counted as unknown. Returns the whole content of dataset.json.
        """
        self.commit()
        with lmdb_errors(self.partial), self._env.begin() as txn:
            facts = {**facts, **(look or survey)(txn.cursor(), str(self.partial))}
        if self._facts:
            frames = facts["frames"] = dict(facts.get("frames", {}))
            for name, found in self._facts.items():
                frames[name] = {**frames.get(name, {}), **found}
        if self._unknown:
            facts["unknown_labels"] = unknown_labels(list(self._unknown.values()), unit)
        with lmdb_errors(self.partial):
            self._env.sync(True)
            self._env.close()
        self._complete = True
        writing.write_text(self.partial / INFO, info.to_json(facts), DataError)
        self._publish()
        os.close(self._lock)
        self._finished = True
        return facts

    def _publish(self) -> None:
        """Renames the LMDB to its final name.

        An old one moves into the new one's folder first, and both go to the final name together: at
        every moment, each of them is complete somewhere, and `_settle` puts right what a kill left.
        """
        writing.sync(self.partial)
        check_target(self.path, self._force)  # it may have come into being meanwhile
        if self._final.exists():
            os.rename(self._final, self.partial / REPLACED)
            writing.sync(self.partial)
        os.rename(self.partial, self._final)
        writing.sync(self._final.parent)
        _tidy(self._final)


def _final(path: Path) -> Path:
    """The folder to write: `path`, or what it names if it is a symbolic link or has no name."""
    return Path(os.path.realpath(path)) if path.name in ("", "..") or path.is_symlink() else path


def _partial(final: Path) -> Path:
    """The folder in which the LMDB `final` is built. Raises DataError for the root folder."""
    if not final.name:
        raise DataError(f"{final}: is no place for an LMDB")
    return final.with_name(final.name + PARTIAL)


def _is_ours(folder: Path) -> bool:
    """Whether a writer made the folder: it holds a plan with our mark."""
    try:
        found = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("made_by") == MAKER


def _check_ours(folder: Path) -> None:
    writing.clear_stale(folder)
    strange = sorted({entry.name for entry in folder.iterdir()} - LMDB_FILES)
    if strange or not _is_ours(folder):
        what = f"holds {strange[0]}" if strange else f"has no {PLAN} of ours"
        raise DataError(f"{folder}: {what}, so it was not made by data_tools; move it away")


def _lock(folder: Path) -> int | None:
    """Locks a folder; None if another process has it, or has just renamed it."""
    try:
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except NotADirectoryError as error:
        raise DataError(f"{folder}: is no folder; move it away") from error
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(folder)):
            return lock
    except OSError:
        pass
    os.close(lock)
    return None


def _settle(final: Path) -> None:
    """Puts right what a writer left that was killed while it renamed its LMDB.

    Raises DataError if the LMDB that it was about to replace can be put back nowhere.
    """
    for folder in (final, _partial(final)):
        if not _is_ours(folder):
            continue
        lock = _lock(folder)
        if lock is None:
            continue  # it is being renamed, or written: the caller finds out
        try:
            if folder == final:
                _tidy(final)
            elif os.path.lexists(folder / REPLACED):
                if os.path.lexists(final):
                    raise DataError(
                        f"{folder / REPLACED}: the LMDB that {final} was to replace is still "
                        "there; move it away"
                    )
                os.rename(folder / REPLACED, final)
                writing.sync(final.parent)
        finally:
            os.close(lock)


def _tidy(final: Path) -> None:
    """Removes from a finished LMDB what it needed while it was built, and what it replaces."""
    if os.path.lexists(final / REPLACED):
        _remove(final / REPLACED)
    # The plan goes last: it tells the next run that the rest is ours.
    for name in ("lock.mdb", UNKNOWN, FACTS, PLAN):
        (final / name).unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    """Removes an LMDB's folder; files of anybody else in it stay, and so does the folder then."""
    with suppress(OSError):
        for name in LMDB_FILES:
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()


def unknown_labels(counts: list[int], unit: str = "pixels") -> dict[str, int]:
    """dataset.json's `unknown_labels`. counts: the number of such pixels, or of another unit, of
    each frame that has any."""
    return {unit: sum(counts), "frames": len(counts)}


def survey(
    records: Iterator[tuple[bytes, bytes]],
    where: str,
    see: Callable[[str, np.ndarray], object] = lambda name, planes: None,
) -> dict[str, Any]:
    """Facts about a stream of (key, record), for dataset.json. see: is shown each record's planes.

    They are counts, the common shape and type, pixels of every label (channel 4), records of every
    scene, and a SHA-256 over keys and records, each preceded by its length as 8 bytes,
    little-endian.
    """
    digest = hashlib.sha256()
    shapes, labels, scenes, count = set(), np.zeros(256, np.int64), {}, 0
    for key, record in records:
        for part in (key, record):
            digest.update(len(part).to_bytes(8, "little") + part)
        planes, scene = from_datum(record, f"{where}: {shown(key)}")
        see(name_of(key), planes)
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
    if not path.is_dir() or not all(
        entry.name in LMDB_FILES and entry.is_file() for entry in path.iterdir()
    ):
        raise DataError(f"{path}: exists and is not an LMDB, so --force does not replace it")


class Reader:
    """An LMDB of records, in key order. `info` is its dataset.json, or {} if there is none.

    Raises DataError if there is none, or if its records are pictures with boxes.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        if not (self.path / "data.mdb").is_file():
            what = "no LMDB there (no data.mdb in it)" if self.path.exists() else "does not exist"
            if os.path.lexists(_partial(_final(self.path)) / REPLACED):
                what = "its replacement was interrupted; run the command that writes it again"
            raise DataError(f"{self.path}: {what}")
        self.info = read_info(self.path)
        if "boxes" in self.info:
            raise DataError(f"{self.path}: holds pictures with boxes (for AnnotatedData layers)")
        self._file = LmdbFile(self.path, DataError)

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
            raise DataError(f"{self.path}: has no record {shown(key)}")
        return record

    def planes(self) -> Iterator[tuple[bytes, np.ndarray, int]]:
        """(key, planes C x H x W, Datum.label) of every record."""
        for key, record in self:
            yield key, *from_datum(record, f"{self.path}: {shown(key)}")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read_info(path: str | Path) -> dict[str, Any]:
    """dataset.json of the LMDB at path, or {} if there is none (an LMDB of other tools)."""
    file = Path(path) / INFO
    return info.read(file) if os.path.lexists(file) else {}

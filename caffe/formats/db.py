"""Reads and creates databases of records, LMDB or LevelDB, in which Caffe keeps its Datums."""

from __future__ import annotations

import itertools
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar

from boundary import writing
from boundary.errors import shown
from boundary.lmdb_file import LmdbFile
from boundary.reading import reading
from caffe.errors import CaffeError

BACKENDS = ("lmdb", "leveldb")
BATCH = 2**26  # bytes of records in one transaction
MAP_SIZE = 2**28  # initial size of an LMDB in bytes; doubled whenever it is full


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------


class Database(ABC):
    """Records by key, read only. `Database.open` opens each database once per process."""

    _open: ClassVar[Any] = weakref.WeakValueDictionary()

    def __init__(self, path: str) -> None:
        self.path = path

    @classmethod
    def open(cls, path: str | os.PathLike[str], backend: str = "lmdb") -> Database:
        """The database at `path`. Raises CaffeError if it is missing, broken or empty."""
        path = os.fspath(path)
        kinds = {"lmdb": LMDB, "leveldb": LevelDB}
        if backend not in kinds:
            raise CaffeError(f"backend {backend!r}; expected {' or '.join(BACKENDS)}")
        with reading(path, "a database", CaffeError):
            status = os.stat(path)
        # By device and inode, because another database may have replaced one of the same name.
        key = (backend, status.st_dev, status.st_ino)
        database = cls._open.get(key)
        if database is None:
            database = kinds[backend](path)
            if not len(database):
                raise CaffeError(f"{path}: no records")
            cls._open[key] = database
        return database

    @abstractmethod
    def __len__(self) -> int: ...

    def get(self, key: bytes) -> bytes:
        """The record with this key. Raises CaffeError if there is none."""
        value = self._get(key)
        if value is None:
            raise CaffeError(f"{self.path}: no record {key!r}")
        return value

    @abstractmethod
    def _get(self, key: bytes) -> bytes | None: ...

    @abstractmethod
    def keys(self) -> list[bytes]:
        """All keys in sorted order."""

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """(key, record) of all records in the order of their keys."""
        return self.every(0, 1)

    @abstractmethod
    def every(self, first: int, step: int) -> Iterator[tuple[bytes, bytes]]:
        """(key, record) of every `step`-th record from `first` on, in the order of the keys."""


class LMDB(Database):
    """An LMDB: a folder with data.mdb in it, or such a file itself."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._file = LmdbFile(path, CaffeError)

    def __len__(self) -> int:
        return len(self._file)

    def _get(self, key: bytes) -> bytes | None:
        return self._file.get(key)

    def keys(self) -> list[bytes]:
        return self._file.keys()

    def every(self, first: int, step: int) -> Iterator[tuple[bytes, bytes]]:
        return self._file.every(first, step)


class LevelDB(Database):
    """A LevelDB folder; needs the package plyvel. Only one process at a time can open a LevelDB."""

    def __init__(self, path: str) -> None:
        plyvel = _plyvel()
        super().__init__(path)
        if not (Path(path) / "CURRENT").is_file():
            raise CaffeError(f"{path}: no LevelDB; expected a folder with CURRENT in it")
        with self._reading():
            self._db = plyvel.DB(path)
        self._count: int | None = None

    def _reading(self) -> AbstractContextManager[None]:
        return reading(self.path, "a LevelDB that can be read", CaffeError)

    def __len__(self) -> int:
        if self._count is None:  # LevelDB keeps no count
            with self._reading():
                self._count = sum(1 for _ in self._iterator(include_value=False))
        return self._count

    def _iterator(self, **options: bool) -> Any:
        # Without checksums, a damaged block counts as empty.
        return self._db.iterator(verify_checksums=True, **options)

    def _get(self, key: bytes) -> bytes | None:
        with self._reading():
            return self._db.get(key, verify_checksums=True)

    def keys(self) -> list[bytes]:
        with self._reading():
            return list(self._iterator(include_value=False))

    def every(self, first: int, step: int) -> Iterator[tuple[bytes, bytes]]:
        with self._reading():
            yield from itertools.islice(self._iterator(), first, None, step)


def _plyvel() -> Any:
    try:
        import plyvel
    except ImportError:
        raise CaffeError(
            "LevelDB needs the package plyvel: pip install 'fusenet[leveldb]' (or use LMDB)"
        ) from None
    return plyvel


# ---------------------------------------------------------------------------------------------
# Creating
# ---------------------------------------------------------------------------------------------

Put = Callable[[bytes, bytes], None]


@contextmanager
def create(path: str | os.PathLike[str], backend: str = "lmdb") -> Iterator[Put]:
    """Create a database; yields a function put(key, value). The database appears at `path` when
    the block ends without error; after an error nothing is left.

    Raises CaffeError if `path` exists, its folder does not, the backend is unknown, or a record
    cannot be stored.
    """
    makers = {"lmdb": _make_lmdb, "leveldb": _make_leveldb}
    if backend not in makers:
        raise CaffeError(f"backend {backend!r}; expected {' or '.join(BACKENDS)}")
    if os.path.lexists(path):
        raise CaffeError(f"{path}: already exists; remove it first or choose another name")
    with writing.atomic_folder(path, CaffeError) as beside:
        with makers[backend](str(beside), shown(path)) as put:
            yield put
        for file in beside.iterdir():
            writing.sync(file)


@contextmanager
def _make_lmdb(folder: str, name: str) -> Iterator[Put]:
    import lmdb

    env = lmdb.open(folder, map_size=MAP_SIZE, sync=False)
    pending: list[tuple[bytes, bytes]] = []
    size = 0

    def commit() -> None:
        while True:
            try:
                with env.begin(write=True) as transaction:
                    for key, value in pending:
                        transaction.put(key, value)
                break
            except lmdb.MapFullError:
                env.set_mapsize(2 * env.info()["map_size"])
        pending.clear()

    def put(key: bytes, value: bytes) -> None:
        longest = env.max_key_size()
        if not 0 < len(key) <= longest:
            raise CaffeError(f"{name}: key {key!r} of {len(key)} bytes; LMDB takes 1 to {longest}")
        nonlocal size
        pending.append((key, value))
        size += len(value)
        if size >= BATCH:
            commit()
            size = 0

    try:
        yield put
        commit()
        env.sync(True)
    except lmdb.Error as error:
        raise CaffeError(f"{name}: {error}") from None
    finally:
        env.close()


@contextmanager
def _make_leveldb(folder: str, name: str) -> Iterator[Put]:
    plyvel = _plyvel()
    try:
        database = plyvel.DB(folder, create_if_missing=True, write_buffer_size=2**26)
        try:
            yield database.put
        finally:
            database.close()
    except plyvel.Error as error:
        raise CaffeError(f"{name}: {error}") from None

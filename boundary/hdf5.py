"""Reads HDF5 files of strangers, and writes HDF5 so that a full disk is an error.

What an HDF5 file says may lie elsewhere: links lead to other files, and datasets keep their values
in them. Only what the file itself stores is read here. A few bytes may also claim gigabytes: by a
shape without values, by compressed chunks, or by a group that holds itself. Claims are looked at
before memory is taken.
"""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from boundary import inflate, limits, writing
from boundary.errors import InputError, reason, shown
from boundary.late import h5py
from boundary.reading import PathLike, check_plain, reading

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_DEEPEST = 64  # groups within groups
_DEFLATE, _FLETCHER32 = 1, 3  # HDF5's numbers of filters
_FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_BIG_CHUNK = 2**18  # bytes; a smaller chunk grows to 256 MiB at most


class Hdf5:
    """An HDF5 file, read only; also a context manager, which closes it.

    path, what, error: as boundary.reading.reading's. options: further arguments of h5py.File.
    What is read in all must fit limits.check_bytes for the whole file.

    All methods raise `error` for what is missing, is of another kind, is stored outside the file or
    is broken. `guard` does so for what callers do with h5py's objects themselves.
    """

    def __init__(self, path: PathLike, what: str, error: type[InputError], **options: Any) -> None:
        self.path, self._what, self._error = shown(path), what, error
        self.size = check_plain(path, error).st_size
        with self.guard():
            self.file = h5py.File(os.fspath(path), "r", **options)
        self._taken = 0
        self._followed = 0
        self._listed: set[h5py.h5g.GroupID] = set()

    def __enter__(self) -> Hdf5:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def guard(self) -> AbstractContextManager[None]:
        """boundary.reading.reading for this file."""
        return reading(self.path, self._what, self._error)

    # -- groups -------------------------------------------------------------------------------

    def names(self, group: h5py.Group | None = None) -> list[str]:
        """The names in a group; by default in the file's first group."""
        with self.guard():
            return list(self.file if group is None else group)

    def get(self, name: str, group: h5py.Group | None = None) -> h5py.Group | h5py.Dataset | None:
        """What is called NAME, or NAME/NAME/..., in a group; None if there is nothing."""
        found: Any = self.file if group is None else group
        with self.guard():
            for part in name.split("/"):
                if not isinstance(found, h5py.Group):
                    return None
                data = part.encode(errors="surrogateescape")
                if not data or b"\0" in data or not found.id.links.exists(data):
                    return None
                if found.id.links.get_info(data).type != h5py.h5l.TYPE_HARD:
                    raise self._error(
                        f"{self.path}: {name!r} is a link to another place; only what the file "
                        "itself holds is read"
                    )
                found = found[part]
            return self._checked(found)

    def group(self, name: str, group: h5py.Group | None = None) -> h5py.Group:
        """The group of this name."""
        found = self.get(name, group)
        if not isinstance(found, h5py.Group):
            raise self._error(f"{self.path}: no group {name!r}; expected {self._what}")
        return found

    def dataset(self, name: str, group: h5py.Group | None = None) -> h5py.Dataset:
        """The dataset of this name."""
        found = self.get(name, group)
        if not isinstance(found, h5py.Dataset):
            raise self._error(f"{self.path}: no dataset {name!r}; expected {self._what}")
        return found

    def members(self, group: h5py.Group) -> dict[str, h5py.Group | h5py.Dataset]:
        """All that a group holds, by name. A group can be listed once: groups may lead to each
        other in circles.
        """
        if group.id in self._listed:
            raise self._error(f"{self.path}: group {group.name} is linked twice")
        self._listed.add(group.id)
        if group.name is not None and group.name.count("/") > _DEEPEST:
            raise self._error(f"{self.path}: groups are nested too deep")
        found = {name: self.get(name, group) for name in self.names(group)}
        return {name: item for name, item in found.items() if item is not None}

    def follow(self, reference: h5py.Reference, once: bool = True) -> h5py.Group | h5py.Dataset:
        """What an object reference points to.

        once: no reference is followed twice, unless references lead in circles.
        """
        self._followed += once
        if self._followed > self.size // 8:  # each takes 8 bytes
            raise self._error(f"{self.path}: its references lead in circles")
        with self.guard():
            return self._checked(self.file[reference])

    # -- datasets -----------------------------------------------------------------------------

    def _checked(self, found: Any) -> h5py.Group | h5py.Dataset:
        if isinstance(found, h5py.Group):
            return found
        if not isinstance(found, h5py.Dataset):
            raise self._error(f"{self.path}: {found.name!r} is neither a group nor a dataset")
        plan = found.id.get_create_plist()
        if plan.get_layout() == h5py.h5d.VIRTUAL or plan.get_external_count():
            raise self._error(
                f"{self.path}: dataset {found.name!r} keeps its values in another file; only what "
                "the file itself holds is read"
            )
        if found.shape is None:
            raise self._error(f"{self.path}: dataset {found.name!r} has no values")
        if found.chunks:
            chunk = math.prod(found.chunks) * found.dtype.itemsize
            limits.check_bytes(chunk, self.size, f"{self.path}: {found.name!r}", self._error)
        return found

    def read(self, dataset: h5py.Dataset, dtype: Any = None, once: bool = True) -> np.ndarray:
        """All values of a dataset, as `dtype` or as stored: numbers, references or short texts.

        once: they count with all else that is read. Say False where the caller gives the memory
        back before it reads on.

        Texts of any length, as HDF5 calls them, are read only if there is one.
        """
        where = f"{self.path}: dataset {dataset.name!r}"
        with self.guard():
            vlen = h5py.check_vlen_dtype(dataset.dtype) or (
                (text := h5py.check_string_dtype(dataset.dtype)) and text.length is None
            )
            if vlen and dataset.shape != ():
                raise self._error(f"{where} holds values of any length; expected numbers")
            kind = np.dtype(dtype or dataset.dtype)
            size = max(kind.itemsize, dataset.dtype.itemsize)
            (self.take if once else self.check)(math.prod(dataset.shape) * size, where)
            self.check_chunks(dataset)
            if vlen or dataset.shape == ():
                return np.asarray(dataset[()])
            array = np.empty(dataset.shape, kind)
            if array.size:
                dataset.read_direct(array)
            return array

    def check(self, size: int, where: str) -> None:
        """Raise `error` if so many bytes of memory at once are too many for the file."""
        limits.check_bytes(size, self.size, where, self._error)

    def take(self, size: int, where: str) -> None:
        """Count bytes of memory. Raises `error` if the file has asked for too many in all."""
        self._taken += size
        self.check(self._taken, where)

    def check_chunks(self, dataset: h5py.Dataset) -> None:
        """Raise `error` if a compressed chunk takes more than it claims.

        HDF5 decompresses a chunk whole, however large it becomes.
        """
        if not dataset.chunks or dataset.id.get_storage_size() <= _BIG_CHUNK:
            return
        plan = dataset.id.get_create_plist()
        filters = [plan.get_filter(i)[0] for i in range(plan.get_nfilters())]
        size = math.prod(dataset.chunks) * dataset.dtype.itemsize
        with self.guard():
            for place, stored in _chunks(dataset):
                if stored > self.size:
                    raise ValueError(f"a chunk of {stored} bytes")
                if stored > _BIG_CHUNK and _DEFLATE in filters:
                    skipped, data = dataset.id.read_direct_chunk(place)
                    if not skipped:
                        inflate.inflate(data, size + 4 * (_FLETCHER32 in filters))


def _chunks(dataset: h5py.Dataset) -> Iterator[tuple[tuple[int, ...], int]]:
    """(first element, stored bytes) of each chunk."""
    found: list[tuple[tuple[int, ...], int]] = []
    if hasattr(dataset.id, "chunk_iter"):  # get_chunk_info counts from the first chunk each time
        dataset.id.chunk_iter(lambda info: found.append((info.chunk_offset, info.size)))
    else:
        for i in range(dataset.id.get_num_chunks()):
            info = dataset.id.get_chunk_info(i)
            found.append((info.chunk_offset, info.size))
    yield from found


# ---------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------


@contextmanager
def writing_hdf5(path: PathLike, error: type[InputError]) -> Iterator[h5py.File]:
    """A new HDF5 file, which appears under its name when the block succeeds; as atomic_write."""
    with writing.atomic_write(path, error) as beside:
        descriptor = os.open(beside, os.O_RDWR)
        try:
            with _writable(descriptor, "w") as file:
                yield file
        finally:
            os.close(descriptor)


@contextmanager
def appending_hdf5(path: PathLike, size: int, error: type[InputError]) -> Iterator[h5py.File]:
    """An HDF5 file to change in its place. Room for `size` bytes is taken beforehand, so that the
    file stays whole if there is none.

    Raises `error` if the file cannot be opened or the disk is full.
    """
    with reading(path, "an HDF5 file", error):
        descriptor = os.open(path, os.O_RDWR)
    try:
        before = os.fstat(descriptor).st_size
        try:
            os.posix_fallocate(descriptor, before, size)
        except OSError as problem:
            if problem.errno in _FULL:  # other errors: a file system that cannot do so
                os.ftruncate(descriptor, before)
                raise
        with _writable(descriptor, "r+") as file:
            yield file
    except OSError as problem:
        raise error(f"{shown(path)}: cannot be written: {reason(problem)}") from problem
    finally:
        os.close(descriptor)


@contextmanager
def _writable(descriptor: int, mode: str) -> Iterator[h5py.File]:
    """An h5py.File on an open file. Raises OSError at the end if something was not written."""
    target = _Target(descriptor)
    with h5py.File(target, mode) as file:
        yield file
    if target.problem is not None:
        raise target.problem


class _Target:
    """A file for HDF5's library that never fails, because the library would crash at the end of the
    process. After the first error nothing more is written; `problem` keeps it.
    """

    def __init__(self, descriptor: int) -> None:
        self.problem: OSError | None = None
        self._file, self._place = descriptor, 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place}
        self._place = offset + (start[whence] if whence in start else self._end())
        return self._place

    def _end(self) -> int:
        return os.fstat(self._file).st_size

    def tell(self) -> int:
        return self._place

    def read(self, size: int) -> bytes:
        out = bytearray(size)
        self.readinto(out)
        return bytes(out)

    def readinto(self, out: Any) -> int:
        view = memoryview(out).cast("B")
        done = 0
        while done < len(view):
            try:
                part = os.preadv(self._file, [view[done:]], self._place + done)
            except OSError as problem:
                self.problem = self.problem or problem
                part = 0
            if not part:  # what was not written reads as zeros
                view[done:] = bytes(len(view) - done)
                break
            done += part
        self._place += len(view)
        return len(view)

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        while done < len(view) and self.problem is None:
            try:
                done += os.pwrite(self._file, view[done:], self._place + done)
            except OSError as problem:
                self.problem = problem
        self._place += len(view)
        return len(view)

    def truncate(self, size: int | None = None) -> int:
        size = self._place if size is None else size
        try:
            if self.problem is None:
                os.ftruncate(self._file, size)
        except OSError as problem:
            self.problem = problem
        return size

    def flush(self) -> None:
        """Nothing waits."""

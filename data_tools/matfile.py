"""Reads variables of MATLAB files: level 5 (decoded here) and 7.3 (HDF5, by h5py).

Struct arrays become lists of dictionaries, cell arrays lists, character arrays strings, and numbers
NumPy arrays with MATLAB's order of axes. MathWorks' "MAT-File Format" documents level 5.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from boundary import limits
from boundary.hdf5 import SIGNATURE, Hdf5
from boundary.inflate import beginning, inflate
from boundary.late import h5py
from boundary.reading import check_plain, read_bytes, reading
from data_tools.cli import DataError

HEAD = 2**16  # bytes of a compressed variable that are sure to hold its name
# Data types of elements: code -> NumPy's name.
NUMBERS = {
    1: "i1",
    2: "u1",
    3: "i2",
    4: "u2",
    5: "i4",
    6: "u4",
    7: "f4",
    9: "f8",
    12: "i8",
    13: "u8",
}
TEXT = {16: "utf-8", 17: "utf-16", 18: "utf-32"}
MATRIX, COMPRESSED = 14, 15
CELL, STRUCT, OBJECT, CHAR = 1, 2, 3, 4


def open_hdf5(path: str | Path, cache: int = 1 << 20) -> Hdf5:
    """Opens a MATLAB 7.3 file. cache: bytes of chunk cache per dataset. Raises DataError."""
    check_plain(path, DataError)
    with reading(path, "a file that can be read", DataError), open(path, "rb") as file:
        if file.read(8) == b"MATLAB 5":
            raise DataError(
                f"{path}: is a MATLAB file of level 5; expected one of version 7.3 (MATLAB's save "
                "-v7.3 makes it)"
            )
    return Hdf5(path, "a MATLAB 7.3 file that can be read", DataError, rdcc_nbytes=cache)


def variable(file: Hdf5, name: str) -> h5py.Dataset:
    """A dataset by name. Raises DataError if it is missing, or is none."""
    found = file.get(name)
    if found is None:
        raise DataError(f"{file.path}: has no variable '{name}'")
    return file.dataset(name)


class Slices:
    """Reads a dataset frame by frame, along its first axis.

    HDF5 decompresses one chunk after the other. If the dataset is stored as MATLAB stores it
    (deflated chunks), this class decompresses the chunks of a frame in parallel; else HDF5 reads.
    """

    def __init__(self, file: Hdf5, name: str):
        self._dataset = dataset = variable(file, name)
        plain = dataset.chunks and dataset.compression == "gzip" and not dataset.shuffle
        self._direct = bool(plain and not dataset.fletcher32 and dataset.scaleoffset is None)
        self._first, self._block = -1, np.empty(0)
        self._size = file.size
        if not self._direct:
            file.check_chunks(dataset)
        if not dataset.shape:
            raise DataError(f"{file.path}: dataset {name!r} is a single value; expected frames")
        chunks = dataset.chunks or (1, *dataset.shape[1:])
        sides = [-(-side // step) for side, step in zip(dataset.shape[1:], chunks[1:], strict=True)]
        block = math.prod(sides) * math.prod(chunks) * dataset.dtype.itemsize
        # Each chunk takes some bytes in the file, if only those that say where it is.
        file.check(max(block, 64 * math.prod(sides)), f"{file.path}: dataset {name!r}")

    def __getitem__(self, index: int) -> np.ndarray:
        """Frame `index`. Raises OSError or RuntimeError for a broken file."""
        if not self._direct:
            return self._dataset[index]
        first = index - index % self._dataset.chunks[0]
        if first != self._first:
            self._block, self._first = self._read(first), first
        return self._block[index - first]

    def _read(self, first: int) -> np.ndarray:
        """Reads the row of chunks whose first frame is `first`."""
        shape, chunks = self._dataset.shape, self._dataset.chunks
        corners = list(product(*map(range, (0,) * len(shape[1:]), shape[1:], chunks[1:])))
        # HDF5 itself is not parallel; only zlib runs in several threads.
        stored = [self._stored((first, *corner)) for corner in corners]
        inflated = list(_inflaters().map(self._inflate, stored))
        if chunks[1:] == shape[1:]:
            return inflated[0]
        block = np.empty((chunks[0], *shape[1:]), self._dataset.dtype)
        for corner, chunk in zip(corners, inflated, strict=True):
            places = (slice(start, start + step) for start, step in
                      zip(corner, chunks[1:], strict=True))  # fmt: skip
            part = block[(slice(None), *places)]
            part[...] = chunk[tuple(map(slice, part.shape))]
        return block

    def _stored(self, place: tuple[int, ...]) -> tuple[int, bytes]:
        size = self._dataset.id.get_chunk_info_by_coord(place).size
        if size is None or size > self._size:
            raise OSError(f"{self._dataset.name}: a chunk of {size} bytes")
        return self._dataset.id.read_direct_chunk(place)

    def _inflate(self, stored: tuple[int, bytes]) -> np.ndarray:
        skipped, data = stored
        shape, dtype = self._dataset.chunks, self._dataset.dtype
        if not skipped:
            try:
                data = inflate(data, math.prod(shape) * dtype.itemsize)
            except ValueError as error:
                raise OSError(f"{self._dataset.name}: {error}") from error
        return np.frombuffer(data, dtype).reshape(shape)


@cache
def _inflaters() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="inflate")


def text(file: Hdf5, reference: Any) -> str:
    """The character array that an object reference points to."""
    found = file.follow(reference)
    codes = file.read(found).ravel() if isinstance(found, h5py.Dataset) else np.empty(0)
    with file.guard():
        return "".join(map(chr, codes)) if codes.dtype.kind == "u" else ""


def single(file: Hdf5, reference: Any) -> np.ndarray:
    """The array of numbers, with MATLAB's axes, that one of many object references points to."""
    found = file.follow(reference, once=False)
    if not isinstance(found, h5py.Dataset) or found.dtype.kind not in "fiu":
        raise DataError(f"{file.path}: {found.name!r} does not hold numbers")
    return file.read(found, once=False).T


def read(path: str | Path, name: str, fields: Collection[str] | None = None) -> Any:
    """Variable `name` of a MATLAB file of either kind, with only `fields` of structs.

    Raises DataError if the file or the variable is missing or broken, or takes too much memory.
    """
    check_plain(path, DataError)
    with reading(path, "a MATLAB file that can be read", DataError):
        with open(path, "rb") as file:
            head = file.read(1024)
        if SIGNATURE in (head[:8], head[512:520]):
            with open_hdf5(path) as hdf5:
                found = hdf5.get(name)
                if found is None:
                    raise DataError(f"{path}: has no variable '{name}'")
                return _from_hdf5(hdf5, found, fields)
        return _Level5(read_bytes(path, DataError), fields, str(path)).find(name)


def _from_hdf5(file: Hdf5, item: Any, fields: Collection[str] | None) -> Any:
    if isinstance(item, h5py.Group):
        columns = {key: file.get(key, item) for key in file.names(item)
                   if fields is None or key in fields}  # fmt: skip
        columns = {key: _from_hdf5(file, column, fields) for key, column in columns.items()}
        if columns and all(isinstance(column, list) for column in columns.values()):
            rows = zip(*columns.values(), strict=True)
            return [dict(zip(columns, row, strict=True)) for row in rows]
        return [columns]
    values = file.read(item)
    if item.dtype == h5py.ref_dtype:
        return [_from_hdf5(file, file.follow(ref), fields) for ref in values.T.ravel(order="F")]
    if item.attrs.get("MATLAB_class") == b"char" or (
        "MATLAB_class" not in item.attrs and values.dtype == np.uint16
    ):
        return "".join(map(chr, values.T.ravel(order="F"))) if values.any() else ""
    return values.T


class _Level5:
    """Decodes one level-5 file."""

    def __init__(self, data: bytes, fields: Collection[str] | None, where: str):
        if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
            raise DataError(f"{where}: not a MATLAB file")
        self._order = "<" if data[126:128] == b"IM" else ">"
        # A view, because elements lie in each other and slices of bytes are copies.
        self._data, self._fields, self._where = memoryview(data), fields, where

    def find(self, name: str) -> Any:
        at = 128
        while at < len(self._data):
            kind, payload, at = self._element(self._data, at)
            if kind == COMPRESSED:
                kind, payload = self._unpacked(payload, name)
            if kind == MATRIX and self._header(payload)[2] == name:
                return self._matrix(payload)
        raise DataError(f"{self._where}: has no variable '{name}'")

    def _unpacked(self, packed: memoryview, name: str) -> tuple[int, memoryview]:
        """Data type and payload of a compressed element; (0, empty) if its name is another."""
        head = memoryview(beginning(packed, HEAD))
        kind, size = struct.unpack_from(self._order + "2I", head)
        if kind != MATRIX or self._header(head[8:])[2] != name:
            return 0, head[:0]
        limits.check_bytes(size, len(packed), f"{self._where}: {name}", DataError)
        # What follows the element, if anything, is padding.
        return kind, memoryview(inflate(packed, size + 16))[8 : 8 + size]

    def _element(self, data: memoryview, at: int) -> tuple[int, memoryview, int]:
        """(data type, payload, start of the next element) of the element at `at`."""
        (tag,) = struct.unpack_from(self._order + "I", data, at)
        if tag >> 16:  # the small format: size and type share a word
            return tag & 0xFFFF, data[at + 4 : at + 4 + (tag >> 16)], at + 8
        (size,) = struct.unpack_from(self._order + "I", data, at + 4)
        end = at + 8 + size
        if end > len(data):
            raise ValueError("an element reaches beyond the end")
        return tag, data[at + 8 : end], end if tag == COMPRESSED else end + -size % 8

    def _header(self, data: memoryview) -> tuple[int, tuple[int, ...], str, int]:
        """(class, shape, name, start of the content) of a matrix."""
        _, flags, at = self._element(data, 0)
        _, shape, at = self._element(data, at)
        _, name, at = self._element(data, at)
        kind = struct.unpack_from(self._order + "I", flags)[0] & 0xFF
        sides = tuple(map(int, np.frombuffer(shape, self._order + "i4")))
        return kind, sides, bytes(name).decode("latin-1"), at

    def _matrix(self, data: memoryview) -> Any:
        if not data:
            return np.empty((0, 0))
        kind, shape, _, at = self._header(data)
        count = math.prod(shape)
        if min(shape, default=0) < 0 or (kind in (CELL, STRUCT, OBJECT) and count > len(data)):
            raise ValueError(f"an array of shape {'x'.join(map(str, shape))}")
        if kind == CELL:
            return [value for value, _ in self._matrices(data, at, count)]
        if kind in (STRUCT, OBJECT):
            return self._structs(data, at, count, kind == OBJECT)
        element, payload, _ = self._element(data, at)
        if kind == CHAR:
            if element in TEXT:
                encoding = TEXT[element]
                suffix = "" if element == 16 else "-le" if self._order == "<" else "-be"
                return bytes(payload).decode(encoding + suffix)
            return "".join(map(chr, np.frombuffer(payload, self._order + NUMBERS[element])))
        values = np.frombuffer(payload, self._order + NUMBERS[element])
        return values.reshape(shape, order="F")

    def _matrices(self, data: memoryview, at: int, count: int) -> Iterator[tuple[Any, int]]:
        for _ in range(count):
            _, payload, at = self._element(data, at)
            yield self._matrix(payload), at

    def _structs(self, data: memoryview, at: int, count: int, named: bool) -> list[dict[str, Any]]:
        if named:
            _, _, at = self._element(data, at)
        _, width, at = self._element(data, at)
        _, block, at = self._element(data, at)
        width = struct.unpack(self._order + "i", width)[0]
        names = [
            bytes(block[i : i + width]).split(b"\0")[0].decode("latin-1")
            for i in range(0, len(block), width)
        ]
        structs = []
        for _ in range(count):
            record = {}
            for name in names:
                _, payload, at = self._element(data, at)
                if self._fields is None or name in self._fields:
                    record[name] = self._matrix(payload)
            structs.append(record)
        return structs

"""Reads variables of MATLAB files: level 5 (decoded here) and 7.3 (HDF5, by h5py).

Struct arrays become lists of dictionaries, cell arrays lists, character arrays strings, and numbers
NumPy arrays with MATLAB's order of axes. MathWorks' "MAT-File Format" documents level 5.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data_tools.cli import DataError, describe

try:  # has zlib's functions and is 1.5 times faster
    from isal import isal_zlib as zlib
except ImportError:
    import zlib

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
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


@contextmanager
def open_hdf5(path: str | Path, cache: int = 1 << 20) -> Iterator[h5py.File]:
    """Opens a MATLAB 7.3 file. cache: bytes of chunk cache per dataset. Errors become DataErrors of
    one line."""
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    try:
        with h5py.File(path, "r", rdcc_nbytes=cache) as file:
            yield file
    except (OSError, RuntimeError, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path}: broken or truncated MATLAB 7.3 file ({describe(error)})"
        ) from error


def variable(file: h5py.File, name: str) -> h5py.Dataset:
    """A variable by name. Raises DataError if it is missing."""
    if name not in file:
        raise DataError(f"{file.filename}: has no variable '{name}'")
    return file[name]


class Slices:
    """Reads a dataset frame by frame, along its first axis.

    HDF5 decompresses one chunk after the other. If the dataset is stored as MATLAB stores it
    (deflated chunks), this class decompresses the chunks of a frame in parallel; else HDF5 reads.
    """

    def __init__(self, dataset: h5py.Dataset):
        self._dataset = dataset
        plain = dataset.chunks and dataset.compression == "gzip" and not dataset.shuffle
        self._direct = bool(plain and not dataset.fletcher32 and dataset.scaleoffset is None)
        self._first, self._block = -1, np.empty(0)

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
        stored = [self._dataset.id.read_direct_chunk((first, *corner)) for corner in corners]
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

    def _inflate(self, stored: tuple[int, bytes]) -> np.ndarray:
        skipped, data = stored
        shape, dtype = self._dataset.chunks, self._dataset.dtype
        if not skipped:
            try:
                # With the full size given, zlib need not grow its buffer by copying.
                data = zlib.decompress(data, bufsize=math.prod(shape) * dtype.itemsize)
            except zlib.error as error:
                raise OSError(f"{self._dataset.name}: {error}") from error
        return np.frombuffer(data, dtype).reshape(shape)


@cache
def _inflaters() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(2, thread_name_prefix="inflate")


def text(file: h5py.File, reference: Any) -> str:
    """The character array that an object reference points to."""
    codes = np.array(file[reference]).ravel()
    return "".join(map(chr, codes)) if codes.dtype.kind == "u" else ""


def read(path: str | Path, name: str, fields: Collection[str] | None = None) -> Any:
    """Variable `name` of a MATLAB file of either kind, with only `fields` of structs.

    Raises DataError if the file or the variable is missing or broken.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    with open(path, "rb") as file:
        head = file.read(1024)
    if HDF5_SIGNATURE in (head[:8], head[512:520]):
        with open_hdf5(path) as hdf5:
            return _from_hdf5(hdf5, variable(hdf5, name), fields)
    try:
        return _Level5(Path(path).read_bytes(), fields).find(name, str(path))
    except (struct.error, zlib.error, IndexError, KeyError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: broken or truncated MATLAB file ({error})") from error


def _from_hdf5(file: h5py.File, item: Any, fields: Collection[str] | None) -> Any:
    if isinstance(item, h5py.Group):
        columns = {key: item[key] for key in item if fields is None or key in fields}
        columns = {key: _from_hdf5(file, column, fields) for key, column in columns.items()}
        if columns and all(isinstance(column, list) for column in columns.values()):
            rows = zip(*columns.values(), strict=True)
            return [dict(zip(columns, row, strict=True)) for row in rows]
        return [columns]
    if item.dtype == h5py.ref_dtype:
        references = np.array(item).T.ravel(order="F")
        return [_from_hdf5(file, file[reference], fields) for reference in references]
    values = np.array(item)
    if item.attrs.get("MATLAB_class") == b"char" or (
        "MATLAB_class" not in item.attrs and values.dtype == np.uint16
    ):
        return "".join(map(chr, values.T.ravel(order="F"))) if values.any() else ""
    return values.T


class _Level5:
    """Decodes one level-5 file."""

    def __init__(self, data: bytes, fields: Collection[str] | None):
        if len(data) < 128 or data[126:128] not in (b"IM", b"MI"):
            raise DataError("not a MATLAB file")
        self._order = "<" if data[126:128] == b"IM" else ">"
        self._data, self._fields = data, fields

    def find(self, name: str, where: str) -> Any:
        at = 128
        while at < len(self._data):
            kind, payload, at = self._element(self._data, at)
            if kind == COMPRESSED:
                kind, payload, _ = self._element(zlib.decompress(payload), 0)
            if kind == MATRIX and self._header(payload)[2] == name:
                return self._matrix(payload)
        raise DataError(f"{where}: has no variable '{name}'")

    def _element(self, data: bytes, at: int) -> tuple[int, bytes, int]:
        """(data type, payload, start of the next element) of the element at `at`."""
        (tag,) = struct.unpack_from(self._order + "I", data, at)
        if tag >> 16:  # the small format: size and type share a word
            return tag & 0xFFFF, data[at + 4 : at + 4 + (tag >> 16)], at + 8
        (size,) = struct.unpack_from(self._order + "I", data, at + 4)
        end = at + 8 + size
        if end > len(data):
            raise ValueError("an element reaches beyond the end")
        return tag, data[at + 8 : end], end if tag == COMPRESSED else end + -size % 8

    def _header(self, data: bytes) -> tuple[int, tuple[int, ...], str, int]:
        """(class, shape, name, start of the content) of a matrix."""
        _, flags, at = self._element(data, 0)
        _, shape, at = self._element(data, at)
        _, name, at = self._element(data, at)
        kind = struct.unpack_from(self._order + "I", flags)[0] & 0xFF
        return kind, tuple(np.frombuffer(shape, self._order + "i4")), name.decode("latin-1"), at

    def _matrix(self, data: bytes) -> Any:
        if not data:
            return np.empty((0, 0))
        kind, shape, _, at = self._header(data)
        count = int(np.prod(shape))
        if kind == CELL:
            return [value for value, _ in self._matrices(data, at, count)]
        if kind in (STRUCT, OBJECT):
            return self._structs(data, at, count, kind == OBJECT)
        element, payload, _ = self._element(data, at)
        if kind == CHAR:
            if element in TEXT:
                encoding = TEXT[element]
                suffix = "" if element == 16 else "-le" if self._order == "<" else "-be"
                return payload.decode(encoding + suffix)
            return "".join(map(chr, np.frombuffer(payload, self._order + NUMBERS[element])))
        values = np.frombuffer(payload, self._order + NUMBERS[element])
        return values.reshape(shape, order="F")

    def _matrices(self, data: bytes, at: int, count: int) -> Iterator[tuple[Any, int]]:
        for _ in range(count):
            _, payload, at = self._element(data, at)
            yield self._matrix(payload), at

    def _structs(self, data: bytes, at: int, count: int, named: bool) -> list[dict[str, Any]]:
        if named:
            _, _, at = self._element(data, at)
        _, width, at = self._element(data, at)
        _, block, at = self._element(data, at)
        width = struct.unpack(self._order + "i", width)[0]
        names = [
            block[i : i + width].split(b"\0")[0].decode("latin-1")
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

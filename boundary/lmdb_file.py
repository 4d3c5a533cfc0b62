"""Reads LMDBs of records without mapping them into memory, so that a damaged one is only an error.

LMDB's own library maps the file and trusts what it says. A page beyond the end of a file that was
cut off, or cut off while it is read, then ends the process by a signal, and so may a flipped bit in
a page's header. Here pages are read by their numbers and checked before they are used.

The file is a B+ tree of pages, as lmdb.h and mdb.c describe it: two meta pages, of which the one
with the higher transaction number counts; branch pages with the first key and the number of each
child; leaf pages with keys and values. A value that does not fit into a page has pages of its own.
"""

from __future__ import annotations

import operator
import os
import stat
import struct
import weakref
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, NoReturn

from boundary.errors import InputError, reason, shown
from boundary.reading import PathLike, check_file

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER = struct.Struct("<Q2x3H")  # of a page: its number, flags, ends of the free space
_BRANCH, _LEAF, _META = 1, 2, 8  # pages' flags
_BOUNDARY = 0x10 | 0x4000 | 0x8000  # flags that a page has only while it is in memory
_NODE = struct.Struct("<4H")  # value's size or child's number (2 or 3 parts), flags, key's size
_ELSEWHERE = 1  # a node's flag: its value lies on pages of its own
_TREE = struct.Struct("<I2H5Q")  # page size or 0, flags, depth, pages of 3 kinds, entries, root
_EMPTY = 2**64 - 1  # root of an empty tree
_DEEPEST = 32
_LONGEST = 2**31 - 1  # bytes of a record, protobuf's limit for a message
_SMALLEST = 11  # bytes of an entry: its place, its node and a key of one byte
_CACHED = {_BRANCH: 4096, _LEAF: 1024}  # pages that are kept


class _Page(NamedTuple):
    """keys: of its nodes. values: a branch's children by number; a leaf's values, or where they
    are: (page, size).
    """

    keys: list[bytes]
    values: list


class LmdbFile:
    """The records of an LMDB in the order of their keys, read only; threads may share it.

    path: a folder with data.mdb in it, or such a file itself. error: what to raise if it cannot be
    read, is damaged, or ends early; also while records are read.
    """

    def __init__(self, path: PathLike, error: type[InputError]) -> None:
        self.path, self._error = shown(path), error
        if "\0" in os.fspath(path):
            raise error(f"{self.path}: a path cannot hold a zero character")
        file = Path(path) / "data.mdb" if os.path.isdir(path) else Path(path)
        if not os.path.lexists(file):
            raise error(f"{self.path}: no LMDB; expected a folder with data.mdb in it")
        if not stat.S_ISREG(check_file(file, error).st_mode):
            raise error(f"{self.path}: no LMDB: {file.name} is no plain file")
        try:
            self._file = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as problem:
            raise error(f"{self.path}: {reason(problem)}") from None
        self._close = weakref.finalize(self, os.close, self._file)
        self._size = os.fstat(self._file).st_size
        try:
            self._open()
        except InputError:
            self.close()
            raise

    def close(self) -> None:
        """Close the file; nothing can be read afterwards."""
        self._close()
        self._file = -1

    def __len__(self) -> int:
        return self._entries

    def get(self, key: bytes) -> bytes | None:
        """The record with this key; None if there is none."""
        if not self._entries:
            return None
        number = self._root
        for level in range(1, self._depth):
            page = self._page(number, level)
            # The first key of a branch stands for all that are smaller than the second.
            number = page.values[bisect_right(page.keys, key, 1) - 1]
        page = self._page(number, self._depth)
        place = bisect_left(page.keys, key)
        if place == len(page.keys) or page.keys[place] != key:
            return None
        return self._value(page.values[place])

    def keys(self) -> list[bytes]:
        """All keys."""
        return [key for page in self._leaves() for key in page.keys]

    def every(self, first: int, step: int) -> Iterator[tuple[bytes, bytes]]:
        """(key, record) of every `step`-th record from `first` on; those between are not read."""
        for page in self._leaves():
            for place in range(first, len(page.keys), step):
                yield page.keys[place], self._value(page.values[place])
            count = len(page.keys)
            first = first - count if first >= count else (first - count) % step

    # -- opening ------------------------------------------------------------------------------

    def _open(self) -> None:
        first, size = self._meta(0, 0)
        if size not in {2**n for n in range(8, 17)}:
            self._damaged(f"pages of {size} bytes")
        second, other = self._meta(1, size)
        if other != size:
            self._damaged(f"pages of {size} and {other} bytes")
        self._page_size = size
        self._pages: dict[int, dict[int, _Page]] = {_BRANCH: {}, _LEAF: {}}  # by kind and number
        newer = max((first, second), key=lambda meta: meta[1])
        (_, flags, self._depth, *_, self._entries, self._root), _, last = newer
        if flags:
            raise self._error(f"{self.path}: an LMDB of another kind (flags {flags:#x})")
        if self._root == _EMPTY and not self._entries:
            return
        if not 1 <= self._depth <= _DEEPEST:
            self._damaged(f"a tree of depth {self._depth}")
        if not 1 <= self._entries <= self._size // _SMALLEST:
            self._damaged(f"{self._entries} records in {self._size} bytes")
        if (last + 1) * size > self._size:
            self._check_end((last + 1) * size)

    def _meta(self, number: int, place: int) -> tuple[tuple, int, int]:
        """(main tree, transaction number, last page) of a meta page, and the size of pages."""
        data = self._read(place, 152)
        _, flags, _, _ = _HEADER.unpack_from(data)
        magic, version = struct.unpack_from("<2I", data, 16)
        if not flags & _META or magic != _MAGIC:
            raise self._error(f"{self.path}: no LMDB (meta page {number} is none)")
        if version != _VERSION:
            raise self._error(f"{self.path}: an LMDB of version {version}; expected {_VERSION}")
        free = _TREE.unpack_from(data, 40)
        last, transaction = struct.unpack_from("<2Q", data, 136)
        return (_TREE.unpack_from(data, 88), transaction, last), free[0]

    def _check_end(self, needed: int) -> None:
        """Look whether a file that lacks pages at its end lacks only free ones.

        LMDB leaves out pages that a transaction took and gave back.
        """
        for page in self._leaves():
            for value in page.values:
                self._check_value(value, needed)

    # -- reading ------------------------------------------------------------------------------

    def _damaged(self, what: str) -> NoReturn:
        raise self._error(f"{self.path}: damaged LMDB: {what}; was it copied whole?")

    def _read(self, place: int, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = os.pread(self._file, size, place) if place < 2**63 else b""
            except OSError as problem:
                raise self._error(f"{self.path}: {reason(problem)}") from None
            if not part:
                self._damaged(f"it ends at byte {os.fstat(self._file).st_size}, inside a page")
            parts.append(part)
            place, size = place + len(part), size - len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _page(self, number: int, level: int) -> _Page:
        kind = _LEAF if level == self._depth else _BRANCH
        kept = self._pages[kind]
        page = kept.get(number)
        if page is None:
            found, page = self._parse(number)
            if found != kind:
                self._damaged(f"page {number} is on a wrong level")
            if len(kept) >= _CACHED[kind]:
                kept.clear()
            kept[number] = page
        return page

    def _parse(self, number: int) -> tuple[int, _Page]:
        """A page and its kind; checked, but for its level."""
        size = self._page_size
        data = self._read(number * size, size)
        own, flags, lower, upper = _HEADER.unpack_from(data)
        kind = flags & ~_BOUNDARY
        count = (lower - _HEADER.size) // 2
        least = {_LEAF: 1, _BRANCH: 2}.get(kind, size)
        if own != number or count < least or not lower <= upper <= size:
            self._damaged(f"page {number} is none of a tree")
        places = struct.unpack_from(f"<{count}H", data, _HEADER.size)
        if min(places) < upper or max(places) > size - _NODE.size:
            self._damaged(f"page {number} has a node outside its room")
        keys, values = [], []
        for place in places:
            low, high, third, length = _NODE.unpack_from(data, place)
            start = place + _NODE.size
            end = start + length
            keys.append(data[start:end])
            if kind == _BRANCH:
                values.append(low | high << 16 | third << 32)
            elif third == _ELSEWHERE:
                values.append((int.from_bytes(data[end : end + 8], "little"), low | high << 16))
                end += 8
            elif third == 0:
                values.append(data[end : end + (low | high << 16)])
                end += low | high << 16
            else:
                self._damaged(f"page {number} has a node of kind {third}")
            if end > size:
                self._damaged(f"page {number} has a node that ends beyond it")
        # The first key of a branch stands for everything below the second, whatever it says.
        rising = keys[1:] if kind == _BRANCH else keys
        if not all(map(operator.lt, rising, rising[1:])):
            self._damaged(f"page {number} is not in order")
        return kind, _Page(keys, values)

    def _leaves(self) -> Iterator[_Page]:
        """The leaf pages in order. Keys must rise, so no page can come twice."""
        count, last = 0, b""
        for number in self._leaf_numbers(self._root, 1) if self._entries else ():
            page = self._page(number, self._depth)
            if page.keys[0] <= last:
                self._damaged(f"page {number} is not in order")
            last = page.keys[-1]
            count += len(page.keys)
            if count > self._entries:
                break
            yield page
        if count != self._entries:
            more = "more" if count > self._entries else f"{count}"
            self._damaged(f"its head counts {self._entries} records, it holds {more}")

    def _leaf_numbers(self, number: int, level: int) -> Iterator[int]:
        if level == self._depth:
            yield number
            return
        for child in self._page(number, level).values:
            yield from self._leaf_numbers(child, level + 1)

    def _check_value(self, value: bytes | tuple[int, int], needed: int) -> None:
        if isinstance(value, tuple):
            number, size = value
            if number * self._page_size + _HEADER.size + size > self._size:
                self._damaged(f"it has {self._size} bytes, its records need {needed}")
            if size > _LONGEST:
                self._damaged(f"a record of {size} bytes")

    def _value(self, value: bytes | tuple[int, int]) -> bytes:
        if isinstance(value, bytes):
            return value
        self._check_value(value, value[0] * self._page_size + _HEADER.size + value[1])
        return self._read(value[0] * self._page_size + _HEADER.size, value[1])

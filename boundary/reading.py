"""Reads files from outside: whatever goes wrong is one error, which names the file and the reason.

`reading` guards every reader: libraries raise what they like for a damaged file, and a reader's own
steps may fail in it, too (a missing key, a number that is a text). Within the guard all of it
becomes the error of the package that reads.
"""

from __future__ import annotations

import csv
import io
import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from boundary.errors import InputError, reason, shown

PathLike = str | os.PathLike[str]

MAX_TEXT = 2**30  # bytes of a text or a list
MAX_TABLE = 2**26  # bytes of a table or of JSON, which take many times that in memory

_MARKS = {  # byte order marks, the longer ones first
    b"\xff\xfe\x00\x00": "utf-32",
    b"\x00\x00\xfe\xff": "utf-32",
    b"\xef\xbb\xbf": "utf-8-sig",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}
_SEPARATORS = (",", ";", "\t")
_LFS = b"version https://git-lfs"


@contextmanager
def reading(path: PathLike, what: str, error: type[InputError]) -> Iterator[None]:
    """Guard the reading of a file: an exception within becomes error("PATH: not ...: reason").

    what: the kind of file that is expected, with its article: "an HDF5 file of weights".
    An InputError passes as it is, because its message already says what is wrong and where. So
    does an exception that asks the program to end. Whatever it is, a file that is only Git LFS's
    pointer to another one is called that.
    """
    try:
        yield
    except InputError as problem:
        if pointer := git_lfs(path):
            raise error(f"{shown(path)}: {pointer}") from problem
        raise
    except OSError as problem:
        known = problem.errno is not None and problem.strerror
        not_so = "" if known else f"not {what}: "
        raise error(f"{shown(path)}: {not_so}{reason(problem)}") from problem
    except Exception as problem:
        why = git_lfs(path) or f"not {what}: {reason(problem)}"
        raise error(f"{shown(path)}: {why}") from problem


def git_lfs(path: PathLike) -> str:
    """What to say of a file that is Git LFS's pointer to the real one; empty for other files."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return ""
        with open(path, "rb") as file:
            head = file.read(len(_LFS))
    except (OSError, ValueError):
        return ""
    if head != _LFS:
        return ""
    return "is Git LFS's pointer to the file; fetch the file itself (git lfs pull)"


def check_file(path: PathLike, error: type[InputError]) -> os.stat_result:
    """The status of a file or pipe that can be read. Raises `error` if there is none."""
    if "\0" in os.fspath(path):
        raise error(f"{shown(path)}: a path cannot hold a zero character")
    try:
        status = os.stat(path)
    except (OSError, UnicodeEncodeError) as problem:
        raise error(f"{shown(path)}: {reason(problem)}") from None
    if stat.S_ISDIR(status.st_mode):
        raise error(f"{shown(path)}: is a folder; expected a file")
    return status


def check_plain(path: PathLike, error: type[InputError]) -> os.stat_result:
    """As check_file, for what is never read from a pipe or a device: pictures, arrays, weights.

    Opening a pipe waits for a writer, perhaps for ever.
    """
    status = check_file(path, error)
    if not stat.S_ISREG(status.st_mode):
        raise error(f"{shown(path)}: is no plain file")
    return status


def read_bytes(
    path: PathLike, error: type[InputError], most: int = 2**31, plain: bool = False
) -> bytes:
    """A file's bytes. Raises `error` if it cannot be read or holds more than `most` bytes.

    plain: whether pipes and devices are refused, as by check_plain.
    """
    status = (check_plain if plain else check_file)(path, error)
    try:
        with open(path, "rb") as file:
            data = file.read(min(status.st_size, most) + 1 if status.st_size else most + 1)
            if status.st_size and status.st_size < len(data) <= most:  # it is growing
                data += file.read(most + 1 - len(data))
    except OSError as problem:
        raise error(f"{shown(path)}: {reason(problem)}") from None
    except MemoryError as problem:
        raise error(f"{shown(path)}: {reason(problem)}") from None
    if len(data) > most:
        raise error(f"{shown(path)}: holds more than {most} bytes")
    return data


def read_text(
    path: PathLike, error: type[InputError], paths: bool = False, most: int = MAX_TEXT
) -> str:
    """A text file's content. It is UTF-8 or begins with a byte order mark, which is dropped.

    paths: the text names files. Bytes that are no UTF-8 then stay as they are (Python's
    surrogateescape), because the names on the disk may have the same bytes.

    Raises `error` if the file cannot be read or, with the line, if it has another encoding.
    """
    return decode(read_bytes(path, error, most), path, error, paths)


def decode(data: bytes, path: PathLike, error: type[InputError], paths: bool = False) -> str:
    """The text in the bytes of a file; as read_text."""
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding, "surrogateescape" if paths and "8" in encoding else "strict")
    except UnicodeDecodeError as problem:
        line = data.count(b"\n", 0, problem.start) + 1
        raise error(
            f"{shown(path)}:{line}: not {encoding.upper()} (byte {data[problem.start]:#04x}); save "
            "the file as UTF-8 (in Excel: 'CSV UTF-8')"
        ) from None
    return text


def read_lines(path: PathLike, error: type[InputError], paths: bool = False) -> list[str]:
    """A text file's lines, without their ends (\\n or \\r\\n); as read_text."""
    lines = read_text(path, error, paths).replace("\r\n", "\n").split("\n")
    return lines[:-1] if lines and not lines[-1] else lines


def read_json(
    path: PathLike, error: type[InputError], kind: type | None = dict, most: int = MAX_TABLE
) -> Any:
    """The value in a JSON file of at most `most` bytes, of type `kind` unless that is None.

    Raises `error` if the file cannot be read, is no JSON, or holds a value of another type.
    """
    text = read_text(path, error, most=most)
    with reading(path, "JSON", error):
        value = json.loads(text)
    if kind is not None and not isinstance(value, kind):
        names = {dict: "an object", list: "a list", str: "a text"}
        raise error(f"{shown(path)}: expected {names.get(kind, kind.__name__)} in JSON")
    return value


def read_table(
    path: PathLike, columns: Sequence[str], error: type[InputError]
) -> list[tuple[int, dict[str, str]]]:
    """The rows of a CSV table, each with the number of its line; blank rows are left out.

    columns: those that must be there, by the names in the table's first row; blanks around names
    and values, and capital letters in names, do not count. The separator is that of the first row:
    ',', ';' or a tab. A row's missing values are empty texts.

    Raises `error` if the file cannot be read or lacks one of the columns.
    """
    text = read_text(path, error, most=MAX_TABLE)
    first = text.split("\n", 1)[0]
    separator = max(_SEPARATORS, key=first.count)
    rows: list[tuple[int, dict[str, str]]] = []
    with reading(path, "a CSV table", error):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        names = [name.strip().lower() for name in next(reader, [])]
        missing = [name for name in columns if name not in names]
        if missing:
            raise error(
                f"{shown(path)}:1: no column {missing[0]!r}; expected a CSV table with the "
                f"columns {','.join(columns)}"
            )
        for row in reader:
            if not any(cell.strip() for cell in row):
                continue
            if len(row) > len(names):
                raise error(
                    f"{shown(path)}:{reader.line_num}: {len(row)} values; the table has "
                    f"{len(names)} columns"
                )
            cells = [cell.strip() for cell in row] + [""] * (len(names) - len(row))
            rows.append((reader.line_num, dict(zip(names, cells, strict=True))))
    return rows

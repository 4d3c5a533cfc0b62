"""Reads NumPy's .npy files, after a look at the size that they claim."""

from __future__ import annotations

import io
import math
import os
from typing import BinaryIO

import numpy as np

from boundary.errors import InputError, shown
from boundary.reading import PathLike, check_plain, reading

_WHAT = "a NumPy array that can be read"


def read_npy(path: PathLike, error: type[InputError]) -> np.ndarray:
    """The array in a .npy file. Raises `error` for any other file, for one that ends early, and for
    an array of Python objects, which only a pickle could hold.
    """
    check_plain(path, error)
    with reading(path, _WHAT, error), open(path, "rb") as file:
        return _read(file, os.fstat(file.fileno()).st_size, shown(path), error)


def decode_npy(data: bytes, where: str, error: type[InputError]) -> np.ndarray:
    """The array in the bytes of a .npy file; as read_npy. where: begins the message of an error."""
    with reading(where, _WHAT, error):
        return _read(io.BytesIO(data), len(data), where, error)


def _read(file: BinaryIO, size: int, where: str, error: type[InputError]) -> np.ndarray:
    shape, dtype = read_header(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects")
    stored = size - file.tell()
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > stored:
        raise error(
            f"{where}: its shape {'x'.join(map(str, shape))} of {dtype} takes more than "
            f"the {stored} bytes that follow"
        )
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array in a .npy file; reads up to its data. Raises ValueError."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"its version is {version[0]}.{version[1]}")
    shape, _, dtype = readers[version](file)
    return shape, dtype

"""Loads pickles of arrays and plain containers, and refuses all others.

A pickle can run any code when it is loaded, so only the functions that arrays need are allowed.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from boundary import checkpoint
from boundary.arrays import read_header
from boundary.reading import check_plain, reading
from data_tools.cli import DataError

ARRAYS = {"_reconstruct", "scalar", "_frombuffer"}
ARRAY_MODULES = {"numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric",
                 "numpy._core.numeric"}  # fmt: skip


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if module in ARRAY_MODULES and name in ARRAYS:
            # NumPy 2 moved the function to another module.
            core = "numpy._core" if hasattr(np, "_core") else "numpy.core"
            return super().find_class(f"{core}.{module.rpartition('.')[2]}", name)
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")


class _Sized:
    """A file that is asked for no more than it has: Python takes the memory before it reads."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.readline, self.tell = file, file.readline, file.tell
        start = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(start)

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._end - self._file.tell()))


def _check_memo(file: BinaryIO) -> None:
    """Raise ValueError if the pickle numbers what it remembers beyond what it holds.

    Python takes memory up to the highest number.
    """
    start = file.tell()
    for count, (code, argument, _) in enumerate(pickletools.genops(_Sized(file))):
        if code.name in ("PUT", "BINPUT", "LONG_BINPUT") and not 0 <= argument <= count + 256:
            raise ValueError(f"it remembers {count} things as number {argument}")
    file.seek(start)


def load(file: BinaryIO, where: str) -> Any:
    """The content of a pickle (of Python 2 or 3).

    Raises DataError, naming `where`, if the pickle is broken or needs anything but arrays.
    """
    with reading(where, "a pickle of arrays", DataError):
        _check_memo(file)
        return _ArraysOnly(_Sized(file), encoding="latin1").load()


def load_pickle(path: str | Path) -> Any:
    """The content of a pickle file. Raises as `load`."""
    check_plain(path, DataError)
    with reading(path, "a pickle", DataError), open(path, "rb") as file:
        return load(file, str(path))


def load_npy(path: str | Path) -> Any:
    """The Python object in a .npy file of numpy.save."""
    check_plain(path, DataError)
    with reading(path, "a NumPy file", DataError), open(path, "rb") as file:
        shape, dtype = read_header(file)
        if shape != () or dtype != np.dtype(object):
            raise DataError(f"{path}: holds {dtype} of shape {shape}, expected one Python object")
        held = load(io.BufferedReader(file), str(path))
    return held.item() if isinstance(held, np.ndarray) and held.shape == () else held


def load_state_dict(path: str | Path) -> dict[str, np.ndarray]:
    """A PyTorch state dict (.pth) as float64 arrays.

    Raises DataError for any other file.
    """
    state = checkpoint.read_state_dict(path, DataError)
    return {key: values.double().numpy() for key, values in state.items()}

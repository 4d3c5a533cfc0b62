"""Pickles of arrays are read; what could run code is not."""

import os
import pickle

import numpy as np
import pytest

from data_tools import unpickle
from data_tools.cli import DataError

# As Python 2 and NumPy 1 wrote it (protocol 0): {'test': array([1, 2])}.
PYTHON_2 = (
    b"(dp0\nS'test'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\n"
    b"S'b'\np5\ntp6\nRp7\n(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'i8'\np10\nI0\nI1\ntp11\nRp12\n"
    b"(I3\nS'<'\np13\nNNNI-1\nI-1\nI0\ntp14\nbI00\n"
    b"S'\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x00'\n"
    b"p15\ntp16\nbs."
)


def test_python_2_arrays(tmp_path):
    (tmp_path / "p").write_bytes(PYTHON_2)
    assert unpickle.load_pickle(tmp_path / "p")["test"].tolist() == [1, 2]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(tmp_path, protocol):
    value = {"a": [np.arange(6, dtype=np.uint16).reshape(2, 3), 1.5], "b": np.float32(2)}
    (tmp_path / "p").write_bytes(pickle.dumps(value, protocol))
    back = unpickle.load_pickle(tmp_path / "p")
    assert (back["a"][0] == value["a"][0]).all()
    assert back["a"][0].dtype == np.uint16
    assert (back["a"][1], back["b"]) == (1.5, 2)


def test_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/harmed",)

    (tmp_path / "p").write_bytes(pickle.dumps([Evil()]))
    with pytest.raises(DataError, match=r"p: not a pickle of arrays: it asks for posix.system"):
        unpickle.load_pickle(tmp_path / "p")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("content", [b"", b"hello", PYTHON_2[:100], b"\x80\x05."])
def test_broken_pickles_are_refused(tmp_path, content):
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(DataError, match="p: not a pickle of arrays"):
        unpickle.load_pickle(tmp_path / "p")


def test_objects_in_npy_files(tmp_path):
    np.save(tmp_path / "o.npy", {"x": [np.ones(2)]})
    assert unpickle.load_npy(tmp_path / "o.npy")["x"][0].tolist() == [1, 1]
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(DataError, match="holds float64 of shape"):
        unpickle.load_npy(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(b"x")
    with pytest.raises(DataError, match="not a NumPy file"):
        unpickle.load_npy(tmp_path / "b.npy")


LENGTH = (2**40).to_bytes(8, "little")


@pytest.mark.parametrize(
    "code",
    [
        b"r\xff\xff\xff\x0f",
        b"p268435455\n",
        b"p-1\n",
        b"\x96" + LENGTH,
        b"\x8e" + LENGTH,
        b"\x95" + LENGTH,
    ],
)
def test_what_would_take_gigabytes(tmp_path, code):
    (tmp_path / "p").write_bytes(b"\x80\x02N" + code + b".")
    with pytest.raises(DataError, match=r"p: not a pickle of arrays"):
        unpickle.load_pickle(tmp_path / "p")

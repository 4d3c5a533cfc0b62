"""read_npy: arrays as NumPy writes them; hostile headers are one line."""

import io
import struct

import numpy as np
import pytest

from boundary.arrays import read_npy
from boundary.errors import InputError


class Bad(InputError, ValueError):
    pass


def npy(header, data=b"", version=1):
    text = header.encode().ljust(117) + b"\n"
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text + data


def header(shape="(2,)", descr="'<f4'", order="False"):
    return f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}}}"


@pytest.mark.parametrize(
    "array",
    [np.arange(6.0).reshape(2, 3).T, np.float32(3), np.zeros((0, 4)), np.array(["ab", "c"]),
     np.zeros(3, [("a", "i4"), ("b", "f8")])],
)  # fmt: skip
def test_what_numpy_wrote(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    found = read_npy(tmp_path / "a.npy", Bad)
    np.testing.assert_array_equal(found, array)
    assert found.dtype == np.asarray(array).dtype
    assert found.flags.writeable


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(header("(1048576, 1048576)"), bytes(8)), "1048576x1048576 of float32 takes more than"),
        (npy(header("(-2, -1)"), bytes(8)), "-2x-1 of float32 takes more than the 8 bytes"),
        (npy(header("(3,)"), bytes(8)), "3 of float32 takes more than the 8 bytes that follow"),
        (npy(header(f"({2**70},)"), bytes(8)), "takes more than the 8 bytes"),
        (npy(header("(1,)", "'|O'"), bytes(8)), "it holds Python objects"),
        (npy(header("1"), bytes(8)), "not a NumPy array that can be read"),
        (npy(header(descr="'x'"), bytes(8)), "not a NumPy array that can be read"),
        (npy("[" * 110), "not a NumPy array that can be read"),
        (npy(header(), version=9), "its version is 9.0"),
        (b"", "not a NumPy array that can be read"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff", "not a NumPy array that can be read"),
    ],
)
def test_what_is_none(tmp_path, data, message):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(Bad, match=rf"a\.npy: .*{message}") as caught:
        read_npy(tmp_path / "a.npy", Bad)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_an_archive_of_arrays_is_none(tmp_path):
    packed = io.BytesIO()
    np.savez_compressed(packed, a=np.zeros(10))
    (tmp_path / "a.npy").write_bytes(packed.getvalue())
    with pytest.raises(Bad, match=r"a\.npy: not a NumPy array"):
        read_npy(tmp_path / "a.npy", Bad)

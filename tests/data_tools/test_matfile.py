"""MATLAB files of both kinds give the same values."""

import struct
import zlib

import h5py
import numpy as np
import pytest
from mat_files import write_level5

from data_tools import matfile
from data_tools.cli import DataError

VALUES = {
    "numbers": np.array([[1.5, 2, 3], [4, 5, 6]]),
    "cells": ["/a/b", "", "c"],
    "structs": [
        {"path": "/n/1", "size": np.array([[3.0, 4.0]]), "sensor": "kv1"},
        {"path": "/n/22", "size": np.array([[5.0, 6.0]]), "sensor": "xtion"},
    ],
}


@pytest.fixture(params=["plain", "compressed"])
def level5(request, tmp_path):
    path = tmp_path / "v.mat"
    write_level5(path, request.param == "compressed", **VALUES)
    return path


def test_level_5(level5):
    assert matfile.read(level5, "numbers").tolist() == VALUES["numbers"].tolist()
    assert matfile.read(level5, "cells") == VALUES["cells"]
    structs = matfile.read(level5, "structs")
    assert [s["path"] for s in structs] == ["/n/1", "/n/22"]
    assert structs[1]["size"].tolist() == [[5, 6]]


def test_fields_that_nobody_asked_for_are_left_out(level5):
    assert matfile.read(level5, "structs", ("sensor",)) == [{"sensor": "kv1"}, {"sensor": "xtion"}]


def test_level_7_3(tmp_path):
    path = tmp_path / "v.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["numbers"] = VALUES["numbers"].T  # axes reversed
        group = file.create_group("structs")
        for field in ("path", "sensor"):
            refs = group.create_dataset(field, (2, 1), h5py.ref_dtype)
            for i, row in enumerate(VALUES["structs"]):
                codes = np.array([[ord(c)] for c in row[field]], np.uint16)
                refs[i, 0] = file.create_dataset(f"#refs#/{field}{i}", data=codes).ref
    assert matfile.read(path, "numbers").tolist() == VALUES["numbers"].tolist()
    assert matfile.read(path, "structs") == [
        {"path": "/n/1", "sensor": "kv1"},
        {"path": "/n/22", "sensor": "xtion"},
    ]


def test_a_missing_variable_is_named(level5):
    with pytest.raises(DataError, match=r"v\.mat: has no variable 'alltrain'"):
        matfile.read(level5, "alltrain")


def test_truncated_files_are_refused(level5):
    whole = level5.read_bytes()
    for length in (0, 100, 130, len(whole) // 2, len(whole) - 5):
        level5.write_bytes(whole[:length])
        with pytest.raises(DataError):
            matfile.read(level5, "structs")
    with pytest.raises(DataError, match="No such file"):
        matfile.read(level5.parent / "absent.mat", "x")


@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"chunks": (1, 3, 8, 6)},
        {"chunks": (2, 3, 8, 6), "compression": "gzip"},
        {"chunks": (4, 1, 5, 4), "compression": "gzip"},
        {"chunks": (1, 3, 8, 6), "compression": "gzip", "shuffle": True},
        {"chunks": (3, 2, 8, 6), "compression": "lzf"},
    ],
)
def test_slices_are_the_datasets_own(tmp_path, storage):
    values = np.random.default_rng(0).integers(0, 9, (7, 3, 8, 6), np.uint16)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        file.create_dataset("d", data=values, **storage)
    with matfile.open_hdf5(tmp_path / "d.h5") as file:
        slices = matfile.Slices(file, "d")
        for index in (0, 1, 6, 2, 5):
            assert (slices[index] == values[index]).all()


def test_slices_of_a_damaged_file_raise(tmp_path):
    values = np.random.default_rng(0).integers(0, 9, (2, 40, 40), np.uint8)
    with h5py.File(tmp_path / "d.h5", "w") as file:
        data = file.create_dataset("d", data=values, chunks=(1, 40, 40), compression="gzip")
        place = data.id.get_chunk_info_by_coord((1, 0, 0)).byte_offset
    whole = bytearray((tmp_path / "d.h5").read_bytes())
    whole[place + 20 : place + 60] = bytes(40)
    (tmp_path / "d.h5").write_bytes(bytes(whole))
    with matfile.open_hdf5(tmp_path / "d.h5") as file:
        slices = matfile.Slices(file, "d")
        assert (slices[0] == values[0]).all()
        with pytest.raises(OSError, match="d"):
            slices[1]


def test_a_variable_that_takes_too_much_memory(tmp_path):
    """A megabyte of compressed zeros that are 600 MiB; others are not unpacked."""
    item = struct.pack("<II", 14, 600 * 2**20) + name_of("zeros")
    packer = zlib.compressobj(9)
    packed = packer.compress(item) + b"".join(packer.compress(bytes(2**20)) for _ in range(600))
    packed += packer.flush()
    data = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    path = tmp_path / "v.mat"
    path.write_bytes(data + struct.pack("<II", 15, len(packed)) + packed)
    with pytest.raises(DataError, match=r"v\.mat: zeros: asks for 600\.0 MiB of memory but stores"):
        matfile.read(path, "zeros")
    with pytest.raises(DataError, match="has no variable 'other'"):
        matfile.read(path, "other")


def name_of(name, kind=6, shape=(1, 1)):
    """The head of a matrix."""
    flags = struct.pack("<4I", 6, 8, kind, 0)
    sides = struct.pack("<2I2i", 5, 8, *shape)
    return flags + sides + struct.pack("<2I", 1, len(name)) + name.encode().ljust(8, b"\0")


@pytest.mark.parametrize("kind", [1, 2, 6])
@pytest.mark.parametrize("shape", [(-1, -1), (2**30, 2**30), (2**31 - 1, 1)])
def test_shapes_that_the_file_does_not_hold(tmp_path, kind, shape):
    item = name_of("x", kind, shape) + struct.pack("<4I", 5, 4, 1, 0) + struct.pack("<2I", 1, 0)
    data = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (tmp_path / "v.mat").write_bytes(data + struct.pack("<II", 14, len(item)) + item)
    with pytest.raises(DataError, match=r"v\.mat: not a MATLAB file that can be read"):
        matfile.read(tmp_path / "v.mat", "x")


def test_cells_in_cells_without_end(tmp_path):
    item = b""
    for _ in range(20_000):
        item = name_of("x", 1) + struct.pack("<II", 14, len(item)) + item
        if len(item) > 2**20:
            break
    data = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    (tmp_path / "v.mat").write_bytes(data + struct.pack("<II", 14, len(item)) + item)
    with pytest.raises(DataError, match="it is nested too deep"):
        matfile.read(tmp_path / "v.mat", "x")


def test_level_7_3_references_in_circles(tmp_path):
    with h5py.File(tmp_path / "v.mat", "w", userblock_size=512) as file:
        file.create_dataset("x", (1, 3), dtype=h5py.ref_dtype)
        file["x"][...] = file["x"].ref
    with pytest.raises(DataError, match=r"v\.mat: (its references|.* nested too deep)"):
        matfile.read(tmp_path / "v.mat", "x")


def test_a_chunk_that_takes_more_than_it_claims(tmp_path):
    with h5py.File(tmp_path / "d.h5", "w") as file:
        made = file.create_dataset("d", (2, 4), "u1", chunks=(1, 4), compression="gzip")
        made.id.write_direct_chunk((0, 0), zlib.compress(bytes(2**26)))
    with (
        matfile.open_hdf5(tmp_path / "d.h5") as file,
        pytest.raises(OSError, match="takes more than the 4 bytes"),
    ):
        matfile.Slices(file, "d")[0]

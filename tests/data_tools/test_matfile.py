"""MATLAB files of both kinds give the same values."""

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
    with pytest.raises(DataError, match="no such file"):
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
    with h5py.File(tmp_path / "d.h5") as file:
        slices = matfile.Slices(file["d"])
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
    with h5py.File(tmp_path / "d.h5") as file:
        slices = matfile.Slices(file["d"])
        assert (slices[0] == values[0]).all()
        with pytest.raises(OSError, match="d"):
            slices[1]

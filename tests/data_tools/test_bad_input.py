"""Bad input of every kind: one line that names it, exit status 1, and nothing under the name."""

import errno
import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from mat_files import write_nyu

from caffe.errors import CaffeError
from caffe.formats.files import read_weights
from data_tools import matfile, prepared, store, unpickle, vgg_surgery
from data_tools.cli import DataError

SIZE = (64, 48)


@pytest.fixture
def mat(tmp_path):
    """A dozen frames in the data set's layout."""
    write_nyu(tmp_path / "nyu.mat", 12, SIZE, chunk=1, compression="gzip")
    return tmp_path / "nyu.mat"


@pytest.fixture
def refused(command, tmp_path):
    """refused(module, *arguments): the last line on stderr of a command that must fail, and that
    must leave no LMDB."""

    def run(module, *arguments):
        result = command(module, *arguments, code=1)
        assert not list(tmp_path.rglob("out*/data.mdb"))
        assert "Traceback" not in result.stderr
        line = result.stderr.splitlines()[-1]
        assert line.startswith(f"python -m data_tools.{module}: ")
        return line

    return run


def test_a_mat_file_that_was_cut_short(refused, mat):
    os.truncate(mat, mat.stat().st_size * 2 // 3)
    line = refused("nyuv2", mat, "out")
    assert "nyu.mat: not a MATLAB 7.3 " in line
    assert "truncated" in line


def test_a_variable_that_is_missing(refused, tmp_path):
    write_nyu(tmp_path / "nyu.mat", 3, SIZE, leave_out=("labels",))
    assert "nyu.mat: has no variable 'labels'" in refused("nyuv2", "nyu.mat", "out")


def test_a_chunk_that_was_damaged(refused, mat):
    with h5py.File(mat) as file:
        info = file["images"].id.get_chunk_info(2)
    with open(mat, "r+b") as file:
        file.seek(info.byte_offset)
        file.write(b"\xff" * info.size)
    line = refused("nyuv2", mat, "out", "--splits", "trainval,test")
    assert "cannot use frame nyu0003: " in line
    assert "nyu.mat: " in line
    assert "is broken" in line


def test_a_frame_without_depth(refused, mat):
    with h5py.File(mat, "r+") as file:
        file["depths"][5] = 0
    assert "cannot use frame nyu0006: depth has no reading at all" in refused("nyuv2", mat, "out")


def test_a_raw_label_that_nobody_knows(refused, mat):
    with h5py.File(mat, "r+") as file:
        file["labels"][4, 3, 3] = 900
    line = refused("nyuv2", mat, "out")
    assert "cannot use frame nyu0005: raw label 900 is unknown, expected 0 to 894" in line


def folders(trio, depth):
    trio("a", np.zeros((24, 32, 3), np.uint8), depth, np.ones((24, 32), np.uint8))
    return "--rgb", "rgb", "--depth", "depth", "--label", "label"


def test_pictures_of_another_aspect(refused, trio):
    line = refused("folder", *folders(trio, np.ones((24, 40), np.uint16)), "out")
    assert "depth/a.png: depth is 40x24 and colour 32x24: expected one aspect ratio" in line
    assert "--intrinsics projects it into colour's; mend" in line


def test_pictures_of_two_known_cameras(refused, trio):
    trio("a", np.zeros((720, 1280, 3), np.uint8), np.ones((576, 640), np.uint16), np.ones((2, 2)))
    line = refused("folder", "--rgb", "rgb", "--depth", "depth", "out")
    assert "--intrinsics projects it into colour's (azure-kinect has these sizes)" in line


def test_depth_of_eight_bits_that_nobody_called_scaled(refused, trio):
    line = refused("folder", *folders(trio, np.ones((24, 32), np.uint8)), "out")
    assert "depth/a.png: 8-bit depth has no unit; if it is already scaled" in line


@pytest.fixture
def good(trio):
    """Arguments of data_tools.folder that nothing is wrong with, but for the place to write to."""
    return folders(trio, np.full((24, 32), 1000, np.uint16))


def test_a_file_where_a_folder_should_be(refused, good, tmp_path):
    (tmp_path / "file").touch()
    assert "file: is no folder, so file/out cannot be made" in refused("folder", *good, "file/out")


def test_a_folder_that_is_read_only(refused, good, monkeypatch):
    def denied(self, *_, **__):
        if not self.exists():
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", denied)  # the tests may run as root, whom nobody denies
    line = refused("folder", *good, "out")
    assert "out.fusenet-partial: cannot be written: Permission denied" in line


def full_disk(monkeypatch):
    """No room for anything, as lmdb and the file system say it."""
    usage = shutil.disk_usage(".")._replace(free=0)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage)

    def no_room(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.os, "fsync", no_room)


def test_a_full_disk_when_an_lmdb_is_begun(refused, good, monkeypatch, tmp_path):
    full_disk(monkeypatch)
    line = refused("folder", *good, "out")
    assert "plan.json: cannot be written: No space left on device" in line
    assert not (tmp_path / "out.fusenet-partial").exists()


def test_a_full_disk_later(refused, good, monkeypatch, tmp_path):
    def no_room(self):
        with store.lmdb_errors(self.partial):
            raise store.lmdb.DiskError("mdb_txn_commit: Input/output error")

    usage = shutil.disk_usage(".")._replace(free=0)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(store.Writer, "commit", no_room)
    assert "out.fusenet-partial: no space left on the disk" in refused("folder", *good, "out")


def test_a_full_disk_under_pictures(refused, good, command, monkeypatch, tmp_path):
    command("folder", *good, "db")
    full_disk(monkeypatch)
    for arguments in (["inspect", "db", "--sheet", "sheet.png"],
                      ["convert", "db", "pictures", "--to", "folder"]):  # fmt: skip
        assert "No space left on device" in refused(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["db", "depth", "label", "rgb"]


def test_a_pipe_is_no_data_set(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for read in (matfile.open_hdf5, unpickle.load_pickle, unpickle.load_npy, prepared.open_source,
                 vgg_surgery.read_source, read_weights):  # fmt: skip
        with pytest.raises((DataError, CaffeError), match="pipe: is no plain file"):
            read(pipe)

"""The driver: the same records whatever the workers, bad frames by name, kills survived."""

import functools
import os
import signal
from dataclasses import replace

import cv2
import numpy as np
import pytest

from data_tools import build, store
from data_tools.build import Options, Output
from data_tools.cli import DataError
from data_tools.record import Frame, RecordFormat
from data_tools.synth import Synth


class Numbers:
    """Frame i is all i; those in `bad` cannot be read."""

    block = 3

    def __init__(self, count, bad=()):
        self.names = [f"n{i}" for i in range(count)]
        self.bad = set(bad)

    def load(self, index):
        if index in self.bad:
            raise DataError("scratched disc")
        return Frame(np.full((2, 2, 3), index, np.uint8), np.full((2, 2), 1 + index, np.uint16))

    def about(self, index):
        return {"camera": "kv1"} if index == 1 else {}


def contents(path):
    return list(store.Reader(path))


def run(source, path, indices=None, **options):
    indices = range(len(source.names)) if indices is None else indices
    return build.build(source, [Output(path, indices)], RecordFormat(), {}, Options(**options))


def test_records_do_not_depend_on_the_workers(tmp_path):
    source = Synth(7, (32, 24), 3)
    run(source, tmp_path / "one")
    run(source, tmp_path / "three", workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")
    assert len(contents(tmp_path / "one")) == 7


class Odd(Numbers):
    """Frame i has i + 1 pixels of label 9, at most four, and -1 in the last."""

    def load(self, index):
        label = np.zeros((2, 2), np.int16)
        label.flat[: index + 1] = 9
        if index == len(self.names) - 1:
            label[1, 1] = -1
        return replace(super().load(index), label=label)


def test_unknown_labels_become_0_and_are_counted(tmp_path, capsys):
    format = RecordFormat(classes=8)
    outputs = [Output(tmp_path / "db", [2, 0, 1])]
    with pytest.raises(DataError, match=r"2 of 2 frames.*; --unknown ignore counts such pixels"):
        build.build(Odd(2), [Output(tmp_path / "db", [0, 1])], format, {}, Options(workers=2))
    assert "label 9 is out of range, expected 0 (ignored) to 8" in capsys.readouterr().err
    (info,) = build.build(Odd(3), outputs, format, {}, Options(ignore_unknown=True))
    assert info["unknown_labels"] == {"pixels": 4 + 1 + 2, "frames": 3}
    assert info["label_pixels"] == {"0": 12}
    assert info["options"]["unknown"] == "ignore"
    assert "7 pixels of 3 frames had labels of no class" in capsys.readouterr().err
    assert sorted(os.listdir(tmp_path / "db")) == ["data.mdb", "dataset.json"]


def test_unknown_labels_are_counted_once_however_often_a_run_is_killed(tmp_path):
    format = RecordFormat(classes=8)
    outputs = [Output(tmp_path / "db", range(3))]
    options = Options(ignore_unknown=True)
    source = Odd(3)
    source.bad = {2}
    with pytest.raises(DataError, match="scratched"):
        build.build(source, outputs, format, {}, options)
    source.bad = set()
    (info,) = build.build(source, outputs, format, {}, options)
    assert info["unknown_labels"] == {"pixels": 1 + 2 + 4, "frames": 3}


def test_a_frame_can_go_into_several_outputs(tmp_path):
    outputs = [Output(tmp_path / "a", [4, 0, 2]), Output(tmp_path / "b", [2], {"split": "b"})]
    infos = build.build(Numbers(5), outputs, RecordFormat(), {"tool": "t"}, Options())
    assert [key for key, _ in contents(tmp_path / "a")] == [
        b"00000000_n4",
        b"00000001_n0",
        b"00000002_n2",
    ]
    assert contents(tmp_path / "b")[0][0] == b"00000000_n2"
    assert [info.get("split") for info in infos] == [None, "b"]
    assert infos[1]["tool"] == "t"


def test_what_the_source_knows_of_a_frame_is_kept(tmp_path):
    (info,) = run(Numbers(3), tmp_path / "db")
    assert info["frames"] == {"00000001_n1": {"camera": "kv1"}}


def test_bad_frames_are_named_and_nothing_is_published(tmp_path, capsys):
    with pytest.raises(DataError, match=r"^2 of 5 frames cannot be used \(named above\)"):
        run(Numbers(5, bad=[1, 3]), tmp_path / "db")
    talk = capsys.readouterr().err.splitlines()
    assert talk == [
        "cannot use frame n1: scratched disc",
        "cannot use frame n3: scratched disc",
    ]
    assert not (tmp_path / "db").exists()
    with pytest.raises(DataError, match=r"^cannot use frame n1: scratched disc; mend"):
        run(Numbers(5, bad=[1]), tmp_path / "db2")


def test_of_many_bad_frames_the_first_are_named(tmp_path, capsys):
    with pytest.raises(DataError, match=r"^63 of 64 frames cannot be used"):
        run(Numbers(64, bad=range(1, 64)), tmp_path / "db")
    talk = capsys.readouterr().err.splitlines()
    assert len(talk) == 51
    assert talk[-1] == "... and 13 more frames"


def test_the_next_run_makes_only_what_is_missing(tmp_path):
    with pytest.raises(DataError):
        run(Numbers(5, bad=[1]), tmp_path / "db")
    mended = Numbers(5, bad=[0, 2, 3, 4])  # those are there: they are not asked for again
    run(mended, tmp_path / "db")
    run(Numbers(5), tmp_path / "whole")
    assert contents(tmp_path / "db") == contents(tmp_path / "whole")


def test_skip_bad_leaves_them_out(tmp_path):
    (info,) = run(Numbers(4, bad=[1]), tmp_path / "db", skip_bad=True)
    assert [key for key, _ in contents(tmp_path / "db")] == [
        b"00000000_n0",
        b"00000002_n2",
        b"00000003_n3",
    ]
    assert info["skipped"] == ["n1"]
    assert "frames" not in info
    with pytest.raises(DataError, match="none of its frames can be used"):
        run(Numbers(2, bad=[0, 1]), tmp_path / "none", skip_bad=True)


def test_opencv_failures_are_a_frames_own(tmp_path):
    class Broken(Numbers):
        def load(self, index):
            return cv2.resize(np.zeros((0, 0), np.uint8), (2, 2))

    with pytest.raises(DataError, match=r"cannot use frame n0: .*resize"):
        run(Broken(1), tmp_path / "db")


def test_frames_of_several_sizes_are_pointed_out(tmp_path, capsys):
    class Growing(Numbers):
        def load(self, index):
            size = index + 1
            return Frame(np.zeros((size, size, 3), np.uint8), np.ones((size, size), np.uint16))

    (info,) = run(Growing(2), tmp_path / "db")
    assert info["shape"] is None
    assert "differ in size" in capsys.readouterr().err


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_while_the_name_is_given_loses_nothing(tmp_path, monkeypatch, renames):
    run(Numbers(3), tmp_path / "db")
    child = os.fork()
    if child == 0:
        try:
            monkeypatch.setattr(os, "rename", functools.partial(_die_after, [renames], os.rename))
            run(Numbers(4), tmp_path / "db", force=True)
        finally:
            os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    # Every record is there already: none is asked for again.
    run(Numbers(4, bad=range(4)), tmp_path / "db", force=True)
    assert len(contents(tmp_path / "db")) == 4
    assert os.listdir(tmp_path) == ["db"]


def _die_after(left, rename, *paths):
    if not str(paths[0]).endswith(".tmp"):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
    rename(*paths)

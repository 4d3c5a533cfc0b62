"""Log lines and files in glog's forms."""

from __future__ import annotations

import getpass
import os
import re
import socket
import threading
from pathlib import Path

import pytest

import caffe
from caffe.process import log
from caffe.process.log import ERROR, INFO, WARNING, emit, init_log, number, set_log_dir


@pytest.fixture(autouse=True)
def _own_sink(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOG_minloglevel", "GLOG_logtostderr"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(log, "_sink", log._Sink())


def test_the_classic_prefix(capsys) -> None:
    emit("solver.cpp:347", "Iteration 0, Testing net (#0)")
    line = capsys.readouterr().err
    # as in I1122 16:49:45.278925 12994 solver.cpp:347]
    assert re.fullmatch(
        r"I[01]\d[0-3]\d \d\d:\d\d:\d\d\.\d{6} [ \d]{4}\d+ solver\.cpp:347\] Iteration 0, Testing "
        r"net \(#0\)\n",
        line,
    )
    assert f" {threading.get_native_id()} " in line


def test_severities(capsys) -> None:
    for severity in (INFO, WARNING, ERROR):
        emit("a.cpp:1", "x", severity)
    assert [line[0] for line in capsys.readouterr().err.splitlines()] == ["I", "W", "E"]


@pytest.mark.parametrize(("level", "kept"), [("0", "IWE"), ("1", "WE"), ("2", "E"), ("3", "")])
def test_minloglevel(monkeypatch, capsys, level: str, kept: str) -> None:
    monkeypatch.setenv("GLOG_minloglevel", level)
    for severity in (INFO, WARNING, ERROR):
        emit("a.cpp:1", "x", severity)
    assert "".join(line[0] for line in capsys.readouterr().err.splitlines()) == kept


def test_pycaffes_functions(monkeypatch, capsys) -> None:
    monkeypatch.setenv("GLOG_minloglevel", "2")
    caffe.init_log(0)
    caffe.log("from Python")
    assert capsys.readouterr().err.endswith("_caffe.cpp:68] from Python\n")
    init_log(1, True)
    caffe.log("no more")
    assert capsys.readouterr().err == ""


def _files(folder: Path) -> dict[str, list[str]]:
    return {p.name: p.read_text().splitlines() for p in folder.iterdir() if not p.is_symlink()}


def test_files_under_glogs_names(tmp_path: Path, capsys) -> None:
    set_log_dir(str(tmp_path), "caffe")
    emit("a.cpp:1", "first")
    emit("a.cpp:2", "second", WARNING)
    assert len(capsys.readouterr().err.splitlines()) == 2  # stderr has them, too
    found = _files(tmp_path)
    stem = rf"caffe\.{re.escape(socket.gethostname())}\.{re.escape(getpass.getuser())}\.log"
    names = {
        re.fullmatch(stem + r"\.(\w+)\.\d{8}-\d{6}\." + str(os.getpid()), n)[1]: n for n in found
    }
    assert sorted(names) == ["INFO", "WARNING"]
    info, warning = (found[names[kind]] for kind in ("INFO", "WARNING"))
    assert info[0].startswith("Log file created at: ")
    assert info[1] == f"Running on machine: {socket.gethostname()}"
    assert info[2].startswith("Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg")
    # a file holds its severity and all above
    assert [line[-5:] for line in info[3:]] == ["first", "econd"]
    assert [line[-6:] for line in warning[3:]] == ["second"]
    assert (tmp_path / "caffe.INFO").read_text() == (tmp_path / names["INFO"]).read_text()


@pytest.mark.parametrize("value", ["1", "true", "yes", "T"])
def test_logtostderr_means_no_files(tmp_path: Path, monkeypatch, capsys, value: str) -> None:
    monkeypatch.setenv("GLOG_logtostderr", value)
    set_log_dir(str(tmp_path))
    emit("a.cpp:1", "x")
    assert capsys.readouterr().err.endswith("] x\n")
    assert not list(tmp_path.iterdir())


def test_logtostderr_that_says_no(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("GLOG_logtostderr", "0")
    set_log_dir(str(tmp_path))
    emit("a.cpp:1", "x")
    assert list(tmp_path.iterdir())


def test_a_missing_log_dir(tmp_path: Path) -> None:
    with pytest.raises(caffe.CaffeError, match=r"-log_dir .*nix: no such directory"):
        set_log_dir(str(tmp_path / "nix"))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.955668123, "0.955668"),
        (1, "1"),
        (1e-7, "1e-07"),
        (123456789, "1.23457e+08"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_numbers_as_c_streams_print_them(value: float, text: str) -> None:
    assert number(value) == text

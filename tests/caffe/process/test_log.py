"""Log lines and files in glog's forms."""

from __future__ import annotations

import errno
import getpass
import io
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import caffe
from caffe.process import log, progress, ranks
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


def test_pycaffes_lines_off_and_on(capsys) -> None:
    for on in (False, True):
        caffe.set_logging(on)
        emit("a.cpp:1", "about a net")
        emit("a.cpp:1", "careful", WARNING)
    lines = [line.partition("] ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["careful", "about a net", "careful"]


# -- a brief log -----------------------------------------------------------------------------------


def test_a_brief_log_shows_what_is_told_and_what_is_wrong(tmp_path: Path, capsys) -> None:
    set_log_dir(str(tmp_path))
    log.set_brief(True)
    emit("a.cpp:1", "about a net")
    progress.tell("told")
    emit("a.cpp:1", "careful", WARNING)
    emit("a.cpp:1", "bad", ERROR)
    assert capsys.readouterr().err == "told\nwarning: careful\nerror: bad\n"
    lines = (tmp_path / "caffe.INFO").read_text().splitlines()[3:]
    told = [(line[0], line.partition("] ")[2]) for line in lines]
    assert told == [("I", "about a net"), ("I", "told"), ("W", "careful"), ("E", "bad")]


def test_what_is_told_is_an_ordinary_line_of_a_full_log(capsys) -> None:
    progress.tell("told", "solver.cpp:1")
    assert re.fullmatch(r"I.* solver\.cpp:1\] told\n", capsys.readouterr().err)


def test_minloglevel_holds_for_a_brief_log(capsys) -> None:
    log.set_brief(True)
    init_log(WARNING)
    progress.tell("told")
    emit("a.cpp:1", "careful", WARNING)
    assert capsys.readouterr().err == "warning: careful\n"


def test_other_ranks_tell_nothing(capsys) -> None:
    ranks.set_solver_rank(1)
    progress.tell("told")
    assert capsys.readouterr().err == ""


def test_a_child_logs_as_briefly_as_its_parent() -> None:
    log.set_brief(True)
    taken = log.settings()
    log.set_brief(False)
    log.take_settings(*taken)
    assert log.brief()


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


# -- lines that cannot be written ------------------------------------------------------------------


class _Disk:
    """Stands for a file on a disk with room for so many bytes."""

    def __init__(self, path: Path, mode: str) -> None:
        self.path = path
        self.path.write_text("")

    def write(self, data: bytes) -> int:
        taken = data[: _Disk.room]
        _Disk.room -= len(taken)
        if data and not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        with self.path.open("ab") as file:
            return file.write(taken)


def test_a_full_disk_under_log_dir(tmp_path: Path, monkeypatch, capsys) -> None:
    """Lines go missing there; stderr has them all, and says once that the file lacks some."""
    monkeypatch.setattr(log, "FileIO", _Disk)
    set_log_dir(str(tmp_path))
    _Disk.room = 10_000
    emit("a.cpp:1", "first")
    _Disk.room = 7
    for text in ("second", "third"):
        emit("a.cpp:1", text)
    _Disk.room = 10_000
    emit("a.cpp:1", "fourth")
    said = capsys.readouterr().err
    assert all(said.count(f"] {text}\n") == 1 for text in ("first", "second", "third", "fourth"))
    assert said.count("lines are missing: No space left on device") == 1
    written = (tmp_path / "caffe.INFO").read_text().splitlines()[3:]
    assert written[0].endswith("] first")
    assert written[2] == "(lines missing here: 2: No space left on device)"
    assert written[3].endswith("] fourth")


def test_a_log_dir_that_vanishes(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    set_log_dir(str(folder))
    folder.rmdir()
    for _ in range(2):
        emit("a.cpp:1", "x")
    assert capsys.readouterr().err.count("lines are missing: No such file or directory") == 1


def test_a_stderr_that_fails_for_a_while(monkeypatch) -> None:
    class Terminal(io.StringIO):
        gone = False

        def write(self, text: str) -> int:
            if self.gone:
                raise OSError(errno.EIO, "Input/output error")
            return super().write(text)

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    emit("a.cpp:1", "first")
    Terminal.gone = True
    for text in ("second", "third"):
        emit("a.cpp:1", text)
    Terminal.gone = False
    emit("a.cpp:1", "fourth")
    lines = [line.partition("] ")[2] or line for line in terminal.getvalue().splitlines()]
    assert lines == ["first", "", "(lines missing here: 2: Input/output error)", "fourth"]


@pytest.mark.parametrize("gone", ["None", "open('/dev/full', 'w')", "closed"])
def test_without_stderr(tmp_path: Path, gone: str) -> None:
    """A program of its own: Python's end, too, must not mind."""
    program = f"""
import sys
from caffe.process.log import emit
closed = open({str(tmp_path / "x")!r}, "w")
closed.close()
sys.stderr = {gone}
emit("a.cpp:1", "x")
print("done")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "done\n", "")


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


def test_quiet_hushes_its_thread_alone(capsys) -> None:
    def other() -> None:
        emit("a.cpp:1", "heard")

    with log.quiet():
        emit("a.cpp:1", "lost", ERROR)
        with log.quiet(WARNING):
            emit("a.cpp:1", "lost, too", ERROR)
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    emit("a.cpp:1", "heard again")
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("] ")[2] for line in lines] == ["heard", "heard again"]

"""Log lines in glog's form, as Caffe prints them, so that parsers of Caffe's logs work."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

INFO, WARNING, ERROR, FATAL = range(4)
_LETTERS = "IWEF"
_NAMES = ("INFO", "WARNING", "ERROR", "FATAL")


class _Sink:
    """Where lines go: stderr always (Caffe's tools set alsologtostderr), files under log_dir."""

    def __init__(self) -> None:
        self.min_level: int | None = None
        self.log_dir: Path | None = None
        self.program = "caffe"
        self.files: dict[int, TextIO] = {}
        self.lock = threading.Lock()

    def level(self) -> int:
        if self.min_level is None:
            try:
                self.min_level = int(os.environ.get("GLOG_minloglevel", "0"))
            except ValueError:
                self.min_level = 0
        return self.min_level

    def open_file(self, severity: int) -> TextIO:
        import getpass  # not above: only commands that log to a file need these two
        import socket

        now = time.strftime("%Y%m%d-%H%M%S")
        host, user = socket.gethostname(), getpass.getuser()
        stem = f"{self.program}.{host}.{user}.log.{_NAMES[severity]}.{now}.{os.getpid()}"
        assert self.log_dir is not None
        path = self.log_dir / stem
        file = path.open("w", buffering=1, encoding="utf-8", errors="backslashreplace")
        file.write(f"Log file created at: {time.strftime('%Y/%m/%d %H:%M:%S')}\n")
        file.write(f"Running on machine: {host}\n")
        file.write("Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n")
        link = self.log_dir / f"{self.program}.{_NAMES[severity]}"
        link.unlink(missing_ok=True)
        link.symlink_to(path.name)
        return file

    def write(self, severity: int, line: str) -> None:
        with self.lock:
            sys.stderr.write(line)
            sys.stderr.flush()
            if self.log_dir is None:
                return
            for level in range(severity + 1):  # as in glog, a file holds its severity and above
                if level not in self.files:
                    self.files[level] = self.open_file(level)
                self.files[level].write(line)


_sink = _Sink()


def emit(place: str, message: str, severity: int = INFO) -> None:
    """Log `message` as if from Caffe's source at `place` ('solver.cpp:347')."""
    if severity < _sink.level():
        return
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    micro = int(now % 1 * 1e6)
    thread = threading.get_native_id()
    prefix = f"{_LETTERS[severity]}{stamp}.{micro:06d} {thread:5d} {place}] "
    _sink.write(severity, f"{prefix}{message}\n")


def set_log_dir(directory: str, program: str = "caffe") -> None:
    """Also write log files, named as glog names them, into an existing directory.

    The variable GLOG_logtostderr turns this off. Raises CaffeError if the directory is missing.
    """
    from caffe.errors import CaffeError

    if os.environ.get("GLOG_logtostderr", "0")[:1] in ("", *"tTyY1"):  # as glog reads it
        return
    if not Path(directory).is_dir():
        raise CaffeError(f"-log_dir {directory}: no such directory")
    _sink.log_dir, _sink.program = Path(directory), program


def init_log(level: int | None = None, stderr: bool = True) -> None:
    """pycaffe's init_log: `level` is the lowest severity to log (0 INFO .. 3 FATAL).

    `stderr` is accepted as in pycaffe; without -log_dir all lines go to stderr anyway.
    """
    if level is not None:
        _sink.min_level = int(level)


def lowest_level() -> int:
    """The lowest severity that is logged."""
    return _sink.level()


def settings() -> tuple[int, str | None, str]:
    """(lowest level, log directory, program): what a child process needs to log like this one."""
    directory = None if _sink.log_dir is None else str(_sink.log_dir)
    return _sink.level(), directory, _sink.program


def take_settings(level: int, directory: str | None, program: str) -> None:
    """Log like the process whose settings() these are."""
    _sink.min_level, _sink.program = level, program
    _sink.log_dir = None if directory is None else Path(directory)


def log(message: str) -> None:
    """pycaffe's log: one INFO line."""
    emit("_caffe.cpp:68", message)


def number(value: float) -> str:
    """A number as a C++ stream prints it: six significant digits."""
    return f"{float(value):g}"

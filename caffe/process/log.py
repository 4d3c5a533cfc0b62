"""Log lines in glog's form, as Caffe prints them, so that parsers of Caffe's logs work.

A brief log (`caffe train` on a terminal) keeps them from stderr: it shows what show() says, and
warnings and errors, without glog's prefix. Files under log_dir hold all lines in both cases.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from boundary.lines import fold
from boundary.streams import Outlet, say, stderr

INFO, WARNING, ERROR, FATAL = range(4)
_LETTERS = "IWEF"
_NAMES = ("INFO", "WARNING", "ERROR", "FATAL")


class _Sink:
    """Where lines go: stderr always (Caffe's tools set alsologtostderr), files under log_dir."""

    def __init__(self) -> None:
        self.min_level: int | None = None
        self.verbosity = 0
        self.brief = False
        self.log_dir: Path | None = None
        self.program = "caffe"
        self.files: dict[int, _File] = {}
        self.lock = threading.Lock()

    def level(self) -> int:
        if self.min_level is None:
            try:
                self.min_level = int(os.environ.get("GLOG_minloglevel", "0"))
            except ValueError:
                self.min_level = 0
        return self.min_level

    def write(self, severity: int, line: str, short: str) -> None:
        """short: what stderr gets of the line when the log is brief."""
        with self.lock:
            stderr().write(_folded(short) if self.brief else line)
            if self.log_dir is None:
                return
            for level in range(severity + 1):  # as in glog, a file holds its severity and above
                if level not in self.files:
                    self.files[level] = _File(self.log_dir, self.program, level)
                self.files[level].write(line)


def _folded(text: str) -> str:
    """Lines broken at spaces, if they are wider than the terminal."""
    width = stderr().columns()
    lines = [line for row in text.splitlines() for line in fold("", row.split(" "), width, " ")]
    return "".join(f"{line}\n" for line in lines)


class _File:
    """One severity's log file. Lines that cannot be written are dropped; stderr says so once."""

    def __init__(self, folder: Path, program: str, severity: int) -> None:
        import socket  # not above: only commands that log to a file need it

        now = time.strftime("%Y%m%d-%H%M%S")
        self._host = socket.gethostname()
        kind = f"{self._host}.{_user()}.log.{_NAMES[severity]}"
        self._path = folder / f"{program}.{kind}.{now}.{os.getpid()}"
        self._link = folder / f"{program}.{_NAMES[severity]}"
        self._file: FileIO | None = None
        self._outlet = Outlet(self._put)
        self.torn = False  # whether lines are missing

    def write(self, line: str) -> None:
        if not self._outlet.write(line) and not self.torn:
            self.torn = True
            say(f"{self._path}: lines are missing: {self._outlet.why}")

    def _put(self, text: str) -> None:
        if self._file is None:
            self._file = FileIO(self._path, "w")  # without a buffer, which would fail again later
            with suppress(OSError):  # some file systems have no links
                self._link.unlink(missing_ok=True)
                self._link.symlink_to(self._path.name)
            text = self._header() + text
        data = text.encode(errors="backslashreplace")
        while data:
            data = data[self._file.write(data) :]  # a disk that is nearly full takes a part

    def _header(self) -> str:
        created = time.strftime("%Y/%m/%d %H:%M:%S")
        return (
            f"Log file created at: {created}\nRunning on machine: {self._host}\n"
            "Log line format: [IWEF]mmdd hh:mm:ss.uuuuuu threadid file:line] msg\n"
        )


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user has no name
        return str(os.getuid())


_sink = _Sink()


class _Hush(threading.local):
    """Per thread: the lowest severity within a block of quiet()."""

    level = INFO


_hush = _Hush()


@contextmanager
def quiet(level: int = FATAL) -> Iterator[None]:
    """Within the block, this thread logs nothing below `level`."""
    before = _hush.level
    _hush.level = max(before, level)
    try:
        yield
    finally:
        _hush.level = before


def emit(place: str, message: str, severity: int = INFO) -> None:
    """Log `message` as if from Caffe's source at `place` ('solver.cpp:347').

    A line that cannot be written, because the disk is full or the terminal gone, is dropped.
    """
    word = _NAMES[severity].lower()
    _write(place, message, severity, f"{word}: {message}\n" if severity > INFO else "")


def show(place: str, message: str) -> None:
    """Log an INFO line that a brief log shows, too, without its prefix."""
    _write(place, message, INFO, f"{message}\n")


def detail(place: str, message: str) -> None:
    """Log an INFO line also where -v asks for details and INFO lines are not logged otherwise."""
    if _sink.verbosity > 0 and _hush.level <= INFO:
        _put(place, message, INFO, f"{message}\n")
    else:
        emit(place, message)


def _write(place: str, message: str, severity: int, short: str) -> None:
    if severity >= max(_sink.level(), _hush.level):
        _put(place, message, severity, short)


def _put(place: str, message: str, severity: int, short: str) -> None:
    now = time.time()
    stamp = time.strftime("%m%d %H:%M:%S", time.localtime(now))
    micro = int(now % 1 * 1e6)
    thread = threading.get_native_id()
    prefix = f"{_LETTERS[severity]}{stamp}.{micro:06d} {thread:5d} {place}] "
    _sink.write(severity, f"{prefix}{message}\n", short)


def set_log_dir(directory: str, program: str = "caffe") -> None:
    """Also write log files, named as glog names them, into an existing directory.

    The variable GLOG_logtostderr turns this off. Raises CaffeError if the directory is missing.
    """
    from caffe.errors import CaffeError

    if asked_for("GLOG_logtostderr"):
        return
    if not Path(directory).is_dir():
        raise CaffeError(f"-log_dir {directory}: no such directory")
    _sink.log_dir, _sink.program = Path(directory), program


def asked_for(variable: str) -> bool:
    """Whether one of glog's variables is set to true, as glog reads it."""
    return os.environ.get(variable, "0")[:1] in ("", *"tTyY1")


def init_log(level: int | None = None, stderr: bool = True) -> None:
    """pycaffe's init_log: `level` is the lowest severity to log (0 INFO .. 3 FATAL).

    `stderr` is accepted as in pycaffe; without -log_dir all lines go to stderr anyway.
    """
    if level is not None:
        _sink.min_level = int(level)


def lowest_level() -> int:
    """The lowest severity that is logged."""
    return _sink.level()


def set_verbosity(level: int) -> None:
    """Log details from level 1 on, whatever else is logged; 0: as other lines, the default."""
    _sink.verbosity = int(level)


def set_logging(on: bool) -> None:
    """Whether INFO lines are logged: Caffe's lines about nets, solvers and data. Warnings and
    errors always are; init_log(3) turns off these, too.
    """
    init_log(INFO if on else WARNING)


def set_brief(on: bool) -> None:
    """Whether the log on stderr is brief."""
    _sink.brief = bool(on)


def brief() -> bool:
    """Whether the log on stderr is brief."""
    return _sink.brief


def full_log() -> Path | None:
    """The file that has all lines, by its lasting name; None if there is no log directory, or if
    lines could not be written there.
    """
    folder, file = _sink.log_dir, _sink.files.get(INFO)
    if folder is None or (file is not None and file.torn):
        return None
    return folder / f"{_sink.program}.{_NAMES[INFO]}"


def settings() -> tuple[int, str | None, str, bool]:
    """(lowest level, log directory, program, brief): what a child process needs to log like this
    one.
    """
    folder = None if _sink.log_dir is None else str(_sink.log_dir)
    return _sink.level(), folder, _sink.program, _sink.brief


def take_settings(level: int, folder: str | None, program: str, brief: bool) -> None:
    """Log like the process whose settings() these are."""
    _sink.min_level, _sink.program, _sink.brief = level, program, brief
    _sink.log_dir = None if folder is None else Path(folder)


def log(message: str) -> None:
    """pycaffe's log: one INFO line."""
    emit("_caffe.cpp:68", message)


def number(value: float) -> str:
    """A number as a C++ stream prints it: six significant digits."""
    return f"{float(value):g}"

"""Streams that fail: what is dropped, what is said, and what a command's exit status is."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys

import pytest
from terminal import Screen

from boundary import running, streams
from boundary.streams import Guarded, Outlet


class Failing(io.StringIO):
    """Fails with `error` while it is set."""

    error: OSError | None = OSError(errno.ENOSPC, "No space left on device")

    def write(self, text: str) -> int:
        if self.error:
            raise self.error
        return super().write(text)


def test_an_outlet_says_once_what_is_missing() -> None:
    place = Failing()
    outlet = Outlet(place.write)
    assert not outlet.write("a\nb\n")
    assert not outlet.write("c\n")
    assert (outlet.lost, outlet.why) == (3, "No space left on device")
    place.error = None
    assert outlet.write("d\n")
    assert outlet.write("e\n")
    assert place.getvalue() == "\n(lines missing here: 3: No space left on device)\nd\ne\n"


def test_a_closed_file_is_no_reason_to_stop() -> None:
    place = io.StringIO()
    place.close()
    assert Guarded(place).write("x") == 1
    assert not Guarded(place).isatty()
    assert Guarded(None).write("x") == 1


def test_what_a_code_page_lacks_is_escaped() -> None:
    raw = io.BytesIO()
    stream = Guarded(io.TextIOWrapper(raw, encoding="latin-1"))
    stream.write("größer \u2265 \ud800\n")
    assert raw.getvalue() == "größer \\u2265 \\ud800\n".encode("latin-1")


def _status(main, stdout, **options) -> tuple[int, str]:
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = stdout, io.StringIO()
    try:
        return running.status("tool", main, **options), sys.stderr.getvalue()
    except SystemExit as end:
        return end.code, sys.stderr.getvalue()
    finally:
        sys.stdout, sys.stderr = before


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("main", "status", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (lambda: sys.exit(), 0, ""),
        (lambda: sys.exit(2), 2, ""),
        (lambda: sys.exit("no such thing"), 1, "no such thing\n"),
        (lambda: _raise(ValueError("f:\n  is broken")), 1, "tool: f: is broken\n"),
        (lambda: os.stat("/nowhere/x"), 1, "tool: /nowhere/x: No such file or directory\n"),
        (lambda: _raise(BrokenPipeError(32, "Broken pipe")), 141, ""),
        (lambda: _raise(KeyboardInterrupt()), 130, "tool: interrupted\n"),
        (lambda: _raise(KeyError("k")), 1, r"tool: KeyError: 'k' (test_streams.py:"),
        (lambda: _raise(MemoryError()), 1, r"tool: MemoryError: (test_streams.py:"),
    ],
)
def test_exit_statuses(main, status: int, said: str) -> None:
    got = _status(main, io.StringIO(), known=(ValueError,))
    assert got[0] == status
    assert got[1].startswith(said)
    assert got[1].count("\n") == (said != "")


def test_output_that_is_lost_makes_a_status_and_the_work_goes_on() -> None:
    done = []

    def main() -> None:
        print("a result")
        print("more")
        done.append(True)

    lost = "tool: the output on stdout is lost: "
    assert _status(main, Failing()) == (1, f"{lost}No space left on device\n")
    assert _status(main, None) == (1, f"{lost}it is closed\n")
    assert _status(lambda: None, None) == (0, "")
    assert len(done) == 2


def test_a_reader_that_wants_no_more_is_no_error() -> None:
    stdout = Failing()
    stdout.error = BrokenPipeError(errno.EPIPE, "Broken pipe")
    assert _status(lambda: print("a result"), stdout) == (0, "")


PROGRAM = """
import sys
from boundary import running
def main():
    print("a result")
    print("a word", file=sys.stderr)
    open("done", "w").write(open("/dev/null").read() + "x")
running.run("tool", main)
"""


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        ("", 0, "a word\n"),
        (">/dev/full", 1, "a word\ntool: the output on stdout is lost: No space left on device\n"),
        (">&-", 1, "a word\ntool: the output on stdout is lost: it is closed\n"),
        ("2>/dev/full", 0, ""),
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 1, ""),
        (">/dev/full 2>/dev/full", 1, ""),
    ],
)
def test_a_process(tmp_path, monkeypatch, redirection: str, status: int, said: str) -> None:
    """Python's own end must not trip either, and no file takes a closed stream's place."""
    monkeypatch.chdir(tmp_path)
    script = f'exec "$0" -c "$1" {redirection}'
    ended = subprocess.run(
        ["bash", "-c", script, sys.executable, PROGRAM], capture_output=True, text=True
    )
    assert (ended.returncode, ended.stderr) == (status, said)
    assert (tmp_path / "done").read_text() == "x"


def test_a_terminal_that_is_gone() -> None:
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        stream = Guarded(terminal)
        stream.write("seen\n")
        assert os.read(ours, 99) == b"seen\r\n"
        os.close(ours)
        stream.write("not seen\n")
        assert (stream.outlet.lost, stream.outlet.why) == (1, "Input/output error")


def test_stderr_is_guarded_wherever_it_goes(monkeypatch) -> None:
    monkeypatch.setattr(sys, "stderr", first := io.StringIO())
    streams.say("one")
    monkeypatch.setattr(sys, "stderr", None)
    streams.say("nowhere")
    monkeypatch.setattr(sys, "stderr", second := io.StringIO())
    streams.say("two")
    assert (first.getvalue(), second.getvalue()) == ("one\n", "two\n")


# -- a line that stands below all others -----------------------------------------------------------


class _Terminal(io.StringIO):
    """Stands for a terminal `width` columns wide."""

    width = 40

    def fileno(self) -> int:
        return 2


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[Guarded, Screen]:
    """A guarded stream, and the screen behind it."""
    for name in ("TMUX", "STY", "XTERM_VERSION"):
        monkeypatch.delenv(name, raising=False)
    screen, file = Screen(40), _Terminal()
    file.write = lambda text: screen.feed(text) or len(text)
    size = lambda _: os.terminal_size((screen.columns, 24))  # noqa: E731
    monkeypatch.setattr(os, "get_terminal_size", size)
    return Guarded(file), screen


def test_a_standing_line_stays_below_what_is_written(terminal) -> None:
    stream, screen = terminal
    stream.stand("10%")
    stream.write("a warning\n")
    assert screen.rows() == ["a warning", "10%"]
    stream.stand("20%")
    stream.write("")
    assert screen.rows() == ["a warning", "20%"]
    stream.stand("")
    stream.write("done\n")
    assert screen.rows() == ["a warning", "done"]


def test_a_line_written_in_pieces_is_not_torn(terminal) -> None:
    stream, screen = terminal
    stream.stand("10%")
    stream.write("one, ")
    stream.stand("20%")
    stream.write("two\n")
    assert screen.rows() == ["one, two", "20%"]


def test_a_standing_line_that_the_terminal_has_broken_goes_whole(terminal) -> None:
    stream, screen = terminal
    stream.write("above\n")
    stream.stand("x" * 37)
    screen.columns = 10
    assert screen.rows()[1:] == ["x" * 10] * 3 + ["x" * 7]
    stream.stand("yy")
    assert screen.rows() == ["above", "yy"]


def test_where_the_terminal_breaks_no_lines_nothing_above_is_removed(terminal, monkeypatch) -> None:
    monkeypatch.setenv("XTERM_VERSION", "XTerm(390)")  # it cuts them off
    stream, screen = terminal
    stream.write("above\n")
    stream.stand("x" * 37)
    screen.columns, screen.lines, screen.at = 10, ["above", "x" * 10], 10
    stream.stand("yy")
    assert screen.rows() == ["above", "yy"]


def test_another_processs_line_is_written_over(terminal) -> None:
    stream, screen = terminal
    stream.shared = True
    screen.feed("another's 10%")
    stream.write("a warning\n")
    assert screen.rows() == ["a warning"]


def test_the_width_of_what_is_no_terminal_is_not_known(tmp_path) -> None:
    with open(tmp_path / "file", "w") as file:
        assert Guarded(file).columns() is None
    assert Guarded(io.StringIO()).columns() is None
    assert Guarded(None).columns() is None


@pytest.mark.parametrize(("told", "width"), [(100, 100), (0, 80)])
def test_a_terminal_that_does_not_know_its_width(monkeypatch, told: int, width: int) -> None:
    """As those of script and of some CI systems."""
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((told, 0)))
    assert streams.columns(1) == width

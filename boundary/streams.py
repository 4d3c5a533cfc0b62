"""stdout, stderr and logs that may be gone: what cannot be written is dropped, the work goes on.

A terminal may be closed, a disk full, a pipe without a reader, or a stream closed from the start.
On a terminal, a line of progress can stand below all that is written (Guarded.stand).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from boundary.errors import reason
from boundary.interrupts import fill

_TO_START, _CLEAR = "\r", "\x1b[J"  # ANSI: from the cursor to the end of the screen


class Outlet:
    """Takes texts to a place that may fail. A text that fails is dropped and counted.

    put: writes a text. `lost` is the number of lines that are missing since the last text that went
    through, `why` what the system said about them. The next text that goes through comes behind a
    line with both.
    """

    def __init__(self, put: Callable[[str], object]) -> None:
        self._put = put
        self.lock = threading.RLock()  # a signal's handler may write while its thread does
        self.lost, self.why = 0, ""

    def write(self, text: str) -> bool:
        """Write a text, or drop it; returns whether it went through."""
        with self.lock:
            note = f"\n(lines missing here: {self.lost}: {self.why})\n" if self.why else ""
            try:
                self._put(note + text)
            except (OSError, ValueError) as error:  # ValueError: a stream that was closed
                self.lost, self.why = self.lost + text.count("\n"), reason(error)
                return False
            self.lost, self.why = 0, ""
            return True


class Guarded:
    """A text stream that never raises when it is written to.

    stream: the stream behind; None if it was closed before the program started.
    """

    by_line = True  # whether a line is flushed when it is complete

    def __init__(self, stream: TextIO | None) -> None:
        self.stream = stream
        self.outlet = Outlet(self._put)
        self.shared = False  # whether another process's line may stand on the same terminal
        self._standing = ""
        self._within = False  # whether what was written last left its line open

    def write(self, text: str) -> int:
        """Write a text, or drop it; returns its length. A line that stands stays below it."""
        if not text:
            return 0
        with self.outlet.lock:
            before = "" if self._within else self._erase()
            self._within = not text.endswith("\n")
            self.outlet.write(before + text + ("" if self._within else self._standing))
        return len(text)

    def stand(self, text: str) -> None:
        """Draw a line of printable text that stays below all that is written, in place of the one
        that stood there; an empty text removes it. For terminals that know ANSI's codes.

        The text must be narrower than the terminal, or it would take two rows.
        """
        with self.outlet.lock:
            before = "" if self._within else self._erase()
            self._standing = text
            if self._within:  # a line is not complete so far: what completes it will draw the text
                return
            if before or text:
                self.outlet.write(before + text)
                self.flush()

    def columns(self) -> int | None:
        """The terminal's width; None if the stream is no terminal."""
        try:
            return columns(self.fileno())
        except (OSError, ValueError, AttributeError):  # a stream without a file
            return None

    def _erase(self) -> str:
        """What removes the standing line and puts the cursor where it began."""
        if not self._standing:
            return _TO_START + _CLEAR if self.shared else ""
        rows = 1
        if _reflows():  # a terminal that became narrower has broken the line into rows
            rows = -(-len(self._standing) // (self.columns() or 80))
        up = f"\x1b[{rows - 1}A" if rows > 1 else ""
        return _TO_START + up + _CLEAR

    def writelines(self, texts: Any) -> None:
        """Write several texts."""
        for text in texts:
            self.write(text)

    def flush(self) -> None:
        """Write what is buffered, or drop it."""
        with suppress(OSError, ValueError):
            self._flush()

    def isatty(self) -> bool:
        """Whether the stream behind is a terminal."""
        return self.stream is not None and not self.stream.closed and self.stream.isatty()

    def __getattr__(self, name: str) -> Any:
        if self.stream is None:
            raise AttributeError(f"no {name}: the stream was closed when the program started")
        return getattr(self.stream, name)

    def _put(self, text: str) -> None:
        stream = self.stream
        if stream is None:
            raise OSError("it is closed")
        with _emptied_if_it_fails(stream):
            try:
                stream.write(text)
            except UnicodeEncodeError:
                code = stream.encoding
                stream.write(text.encode(code, "backslashreplace").decode(code))
            if self.by_line and ("\n" in text or "\r" in text):
                stream.flush()

    def _flush(self) -> None:
        if self.stream is not None:
            with _emptied_if_it_fails(self.stream):
                self.stream.flush()


class _Output(Guarded):
    """stdout. Once a write has failed all others are dropped: output with a hole is of no use."""

    by_line = False  # Python's own way: by line on a terminal, else when the buffer is full

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__(stream)
        self.failure = ""
        self.left = False  # whether its reader closed the pipe

    def write(self, text: str) -> int:
        if text:
            self._try(lambda: self._put(text))
        return len(text)

    def flush(self) -> None:
        self._try(self._flush)

    def _try(self, work: Callable[[], object]) -> None:
        if self.failure:
            return
        try:
            work()
        except BrokenPipeError:
            self.failure, self.left = "its reader is gone", True
        except (OSError, ValueError) as error:
            self.failure = reason(error)


def columns(number: int) -> int | None:
    """The width of the terminal that a file descriptor stands for; None if it is no terminal."""
    try:
        return os.get_terminal_size(number).columns or 80  # 0: it does not know
    except OSError:
        return None


def _reflows() -> bool:
    """Whether the terminal breaks its lines anew when its width changes, as most do."""
    return "TMUX" in os.environ or not {"XTERM_VERSION", "STY"} & os.environ.keys()


@contextmanager
def _emptied_if_it_fails(stream: TextIO) -> Iterator[None]:
    """Throws away what the stream's buffer holds after an error, or Python would try it at exit."""
    try:
        yield
    except OSError:
        with suppress(OSError, ValueError, AttributeError):  # a stream without a file
            _empty(stream, stream.fileno())
        raise


def _empty(stream: TextIO, number: int) -> None:
    before, null = os.dup(number), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, number)
        stream.flush()
    finally:
        os.dup2(before, number)
        os.close(before)
        os.close(null)


_guarded: Guarded | None = None


def stderr() -> Guarded:
    """The process's stderr, guarded."""
    global _guarded
    if isinstance(sys.stderr, Guarded):
        return sys.stderr
    if _guarded is None or _guarded.stream is not sys.stderr:
        _guarded = Guarded(sys.stderr)
    return _guarded


def say(text: str) -> None:
    """Print a line to stderr, or drop it."""
    stderr().write(f"{text}\n")


@contextmanager
def guarded() -> Iterator[Callable[[], str]]:
    """Guards sys.stdout and sys.stderr within the block.

    Yields a function that flushes stdout and returns why output was lost; an empty text if none
    was, or if its reader closed the pipe because it wanted no more.
    """
    fill()
    before = sys.stdout, sys.stderr
    out = _Output(sys.stdout)
    sys.stdout, sys.stderr = out, stderr()

    def lost() -> str:
        out.flush()
        return "" if out.left else out.failure

    try:
        yield lost
    finally:
        sys.stdout, sys.stderr = before

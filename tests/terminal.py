"""A terminal for tests: a command's screen, as a person sees it, its size and its Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Sequence
from pathlib import Path

LIMIT = 600  # seconds that anything may take on a machine that is busy with other things

# The module's command, with the terminal as its controlling one, so that Ctrl-C reaches it.
START = """import fcntl, runpy, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


class Screen:
    """What a terminal shows: rows that are broken anew when its width changes, as in tmux.

    drawn: each text that was written from the start of a row without a line's end, as it stood.
    """

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self.lines, self.at = [""], 0  # lines as written; the cursor's place in the last one
        self.drawn: list[tuple[int, str]] = []  # (columns, text)

    def feed(self, text: str) -> None:
        """Write a text with carriage returns and the codes 'up' and 'clear to the end'."""
        for code, up, words in re.findall(r"([\r\n]|\x1b\[(\d*)[AJ])|([^\r\n\x1b]+)", text):
            if code == "\n":
                self.lines.append("")
                self.at = 0
            elif code == "\r":
                self.at -= self.at % self.columns or (self.columns if self.at else 0)
            elif code.endswith("A"):
                self.at -= int(up) * self.columns
                assert self.at >= 0, "the cursor went up into the line above"
            elif code:
                self.lines[-1] = self.lines[-1][: self.at]
            else:
                self.lines[-1] = self.lines[-1][: self.at] + words
                self.at = len(self.lines[-1])
                self.drawn.append((self.columns, words))

    def rows(self) -> list[str]:
        """The rows from top to bottom, without empty ones."""
        n = self.columns
        return [line[i : i + n] for line in self.lines for i in range(0, len(line), n)]


class Terminal:
    """`python -m module arguments` on a terminal of its own, in the folder `where`."""

    def __init__(
        self, columns: int, where: Path, module: str, *arguments: str, term: str = "xterm"
    ) -> None:
        self.screen, self.raw = Screen(columns), ""
        self._end, theirs = pty.openpty()
        self.resize(columns)
        away = ("TMUX", "STY", "XTERM_VERSION", "GLOG_minloglevel", "GLOG_logtostderr")
        self.process = subprocess.Popen(
            [sys.executable, "-c", START, module, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=where,
            env={**{k: v for k, v in os.environ.items() if k not in away}, "TERM": term},
            start_new_session=True,
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)

    def resize(self, columns: int) -> None:
        """Give it another width."""
        self.screen.columns = columns
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def type(self, keys: str) -> None:
        """Press keys; "\\x03" is Ctrl-C."""
        os.write(self._end, keys.encode())

    def read_until(self, met: Callable[[Screen], bool]) -> None:
        """Read on until the screen meets a condition; fails if the command ends before."""
        while not met(self.screen):
            assert self._read(), f"it has ended: {self.screen.lines}"

    def wait(self) -> int:
        """Read on until the command has ended; returns its exit status."""
        while self._read():
            pass
        return self.process.wait()

    def _read(self) -> bool:
        deadline = time.monotonic() + LIMIT
        while not select.select([self._end], [], [], 1)[0]:
            assert time.monotonic() < deadline, self.screen.lines
        try:
            data = os.read(self._end, 4096)
        except OSError:  # the last process has closed it
            return False
        text = data.decode().replace("\r\n", "\n")
        self.raw += text
        self.screen.feed(text)
        return bool(data)


def lines_of(rows: Sequence[str], pattern: str) -> list[str]:
    """The rows that match a pattern from their start."""
    return [row for row in rows if re.match(pattern, row)]

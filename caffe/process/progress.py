"""Lines for people who watch a run: those that stay, and one of progress, redrawn in place."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable

from boundary.streams import say, stderr
from caffe.process import log, ranks

_PLACE = "progress.py:1"  # for log lines that have no counterpart in Caffe
SECONDS = 0.25  # between two drawings
STILL = 4  # draws an unchanged line that often only: something else may have written over it
SECONDS_OF_LINES = 10.0  # between two lines where nothing can be redrawn
WIDE = 1000  # columns of a file's line
ROOM = 3  # columns that stay free, so that the ^C which a terminal shows does not begin a new row


def tell(text: str, place: str = _PLACE) -> None:
    """Say one line that also a brief log shows (there without glog's prefix); on rank 0 alone.

    place: stands in the prefix, as for emit(). Where the log is not brief, this is an INFO line.
    """
    if ranks.root_solver():
        log.show(place, text)


def redraws() -> bool:
    """Whether stderr is a terminal on which a line can be drawn anew."""
    return stderr().isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")


def share_terminal() -> None:
    """Say that another process draws progress on this one's terminal: lines replace it."""
    stderr().shared = redraws()


class Redrawn:
    """A line of progress on stderr, drawn a few times a second, by a thread of its own: training
    waits neither for the terminal nor to look at a clock.

    line: the line for a width. Where nothing can be redrawn (a file, TERM=dumb), it is printed as a
    line of its own from time to time, if it has changed. A process in the background draws nothing.
    """

    def __init__(self, line: Callable[[int], str]) -> None:
        self._line = line
        self._redraws = redraws()
        self._shown, self._same = "", 0  # the line, and how often it was the same as before
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="progress")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Draw no more, and remove the line."""
        self._done.set()
        self._thread.join(timeout=1)  # a terminal that was stopped (Ctrl-S) may hold the thread
        if self._redraws and not self._thread.is_alive():
            stderr().stand("")

    def _run(self) -> None:
        draw = self._draw if self._redraws else self._print
        seconds = SECONDS if self._redraws else SECONDS_OF_LINES
        while not self._done.wait(seconds):
            draw()

    def _draw(self) -> None:
        line = "" if _in_background() else self._line((stderr().columns() or 80) - ROOM)
        self._same = self._same + 1 if line == self._shown else 0
        if self._same % STILL == 0:
            self._shown = line
            stderr().stand(line)

    def _print(self) -> None:
        if (line := self._line(WIDE)) != self._shown:
            self._shown = line
            say(line)


def _in_background() -> bool:
    """Whether the shell has given the terminal to another job."""
    try:
        return os.tcgetpgrp(stderr().fileno()) != os.getpgrp()
    except (OSError, ValueError, AttributeError):  # not the terminal of this session
        return False

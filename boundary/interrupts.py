"""Ctrl-C and SIGTERM while a command starts: they end the process at once.

Python turns Ctrl-C into an exception. While modules are imported it may be lost: PyTorch's core
imports NumPy and drops whatever that raises, and Python itself ignores what is raised in the
callback of a weak reference. Or an import turns it into another error. Nothing has to be cleared up
at that time, so the process can simply end.

Importing this module has that effect in a process that `python -m` has just started. It imports
next to nothing, to be early. What a command loads later on, it loads within `loading()`.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_USUAL = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
_of_command = False  # whether this process runs a command of this project


def fill() -> None:
    """Open /dev/null for each of the standard streams that is closed.

    Otherwise the next file that is opened takes its number, and what a library prints goes there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def end_at_once() -> None:
    """From now on SIGINT and SIGTERM end the process with one line and status 130 or 143.

    A signal that is ignored stays ignored, and a program's own handler stays. Outside the main
    thread this does nothing.
    """
    global _of_command
    _of_command = True
    fill()
    for number, usual in _USUAL.items():
        if signal.getsignal(number) is usual:
            _set(number, _end)


def take_back() -> list[int]:
    """Undo end_at_once(): SIGINT raises KeyboardInterrupt again.

    Returns the signals for which it was in force, for put_back().
    """
    numbers = [number for number in _USUAL if signal.getsignal(number) is _end]
    for number in numbers:
        _set(number, _USUAL[number])
    return numbers


def put_back(numbers: list[int]) -> None:
    """Have these signals end the process again."""
    for number in numbers:
        _set(number, _end)


class loading:  # a context manager; contextlib takes time to import
    """Within the block, SIGINT and SIGTERM end the process as end_at_once() says, then as before.

    For the import of PyTorch and what uses it. Python's collector of garbage rests meanwhile, and
    leaves alone from then on what is there at the end: modules stay, and looking through PyTorch's
    takes a fifth of the time of its import. Nothing changes in a process that never was in
    end_at_once(), so Ctrl-C and the collector are up to the programs that import this project's
    modules.
    """

    def __enter__(self) -> None:
        self._collects = _of_command and gc.isenabled()
        if self._collects:
            gc.disable()
        before = [number for number in _USUAL if signal.getsignal(number) is _end]
        if _of_command:
            end_at_once()
        after = [number for number in _USUAL if signal.getsignal(number) is _end]
        self._changed = [number for number in after if number not in before]

    def __exit__(self, *_: object) -> None:
        if self._collects:
            gc.freeze()
            gc.enable()
        for number in self._changed:
            _set(number, _USUAL[number])


def _set(number: int, handler: object) -> None:
    try:  # noqa: SIM105  # contextlib takes time to import
        signal.signal(number, handler)
    except ValueError:  # not the main thread
        pass


def _end(number: int, frame: object) -> None:
    try:
        os.write(2, f"{_WORDS[number]}\n".encode())
    finally:  # also if there is nobody to tell
        os._exit(128 + number)


if getattr(sys, "argv", [])[:1] == ["-m"]:  # Python is still looking for the command to run
    end_at_once()

"""Runs a command: what its exit status is, what it prints at its end, and that it cannot trip."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

from boundary import interrupts
from boundary.errors import LONGEST, InputError, one_line, shortened
from boundary.streams import guarded, say


def status(
    program: str,
    main: Callable[[], int | None],
    known: tuple[type[Exception], ...] = (),
    at_once: bool = False,
) -> int:
    """Run a command's `main` with guarded streams; returns the process's exit status.

    It is what main returns, None for 0; 1 with one line on stderr for an exception (`known` ones
    and OSError say enough by themselves, others with their class and place) and if output on
    stdout could not be written; 130 with one line after an interrupt; 141 if the reader of a pipe
    other than stdout is gone. A SystemExit of main's, as argparse raises, stays one, with such a
    status.
    at_once: an interrupt ends the process, as interrupts.end_at_once() says; else it is raised.
    """
    with guarded() as lost:
        suspended: list[int] = []
        left = False
        try:
            if not at_once:
                suspended = interrupts.take_back()
            result = _status_of(program, main, known)
        except KeyboardInterrupt:
            say(f"{program}: interrupted")
            return 130
        except SystemExit as end:
            result, left = _status_in(end), True
        finally:
            interrupts.put_back(suspended)
        if trouble := lost():
            say(f"{program}: the output on stdout is lost: {trouble}")
            result = result or 1
    if left:
        raise SystemExit(result)
    return result


def _status_of(
    program: str, main: Callable[[], int | None], known: tuple[type[Exception], ...]
) -> int:
    """What main returns, or 1 with a line for an exception."""
    try:
        return main() or 0
    except InputError as error:
        say(shortened(f"{program}: {error}", error.longest))
    except known as error:
        say(shortened(f"{program}: {one_line(str(error))}"))
    except BrokenPipeError:  # of a pipe that it was to write to: its reader wants no more
        return 128 + signal.SIGPIPE
    except OSError as error:
        say(shortened(f"{program}: {described(error)}"))
    except Exception as error:  # out of memory, say, or a bug: still one line
        say(shortened(f"{program}: {placed(error)}"))
    return 1


def _status_in(end: SystemExit) -> int:
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    say(str(end.code))
    return 1


def described(error: OSError) -> str:
    """An OSError in words: the file, and what the system says."""
    if error.strerror is None:
        return str(error) or type(error).__name__
    return f"{error.filename}: {error.strerror}" if error.filename else error.strerror


def placed(error: BaseException) -> str:
    """An unexpected exception as one line: its class, its text's first line, and its place."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f" ({os.path.basename(place.filename)}:{place.lineno})"
    text = next(iter(str(error).splitlines()), "")  # PyTorch adds a page of C++ to it
    room = LONGEST - len(where) - 40  # for the program's name
    return shortened(f"{type(error).__name__}: {text}".rstrip(), room) + where


def run(
    program: str,
    main: Callable[[], int | None],
    known: tuple[type[Exception], ...] = (),
    at_once: bool = False,
) -> None:
    """Run a command and end the process with its status()."""
    sys.exit(status(program, main, known, at_once))

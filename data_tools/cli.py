"""Common to the commands of data_tools and eval_tools: errors, exit codes, progress, options."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from boundary import limits, running
from boundary.errors import InputError, shown
from boundary.late import tqdm  # data_tools.layers runs without it on a real pycaffe
from boundary.streams import say as say

_LMDB_FILES = ("data.mdb", "lock.mdb", "dataset.json")


class DataError(InputError, ValueError):
    """Unusable input. The message is one line: what is wrong, where, and what was expected."""


def run(main: Callable[[], None], name: str | None = None) -> None:
    """Runs a command and ends the process with its exit status.

    It is 1 for bad input, and if output on stdout could not be written; 130 after Ctrl-C; each with
    one line on stderr. name: the command's name in messages; by default that of the data_tools file
    that is run.
    """
    running.run(name or f"python -m data_tools.{Path(sys.argv[0]).stem}", main, (DataError,))


def check_distinct(
    outputs: Iterable[tuple[str, str | Path]], inputs: Iterable[tuple[str, str | Path]]
) -> None:
    """Raises DataError, naming both, if a file that is to be written is also read or written twice.

    Each file comes with what it is: an option, say. Of an LMDB's folder its files count. To be
    called before any work. Devices and pipes may be written more than once.
    """
    taken: dict[str, tuple[str, str | Path]] = {}
    for what, path in inputs:
        lmdb = os.path.isfile(os.path.join(path, "data.mdb"))
        files = [os.path.join(path, name) for name in _LMDB_FILES] if lmdb else [path]
        for file in files:
            taken.setdefault(os.path.realpath(file), (what, path))
    for what, path in outputs:
        if os.path.exists(path) and not (os.path.isfile(path) or os.path.isdir(path)):
            continue
        real = os.path.realpath(path)
        if real in taken:
            other, its = taken[real]
            raise DataError(f"{shown(path)}: {what} would overwrite {other} ({shown(its)})")
        taken[real] = what, path


def describe(error: Exception) -> str:
    """An exception as one line; for an OSError, the file and the system's message."""
    if isinstance(error, OSError) and error.strerror:
        return running.described(error)
    return " ".join(str(error).split()) or type(error).__name__


def progress(items: Iterable[Any], total: int | None, what: str, done: int = 0) -> Iterable[Any]:
    """Iterates over items, with a progress bar if stderr is a terminal."""
    return tqdm.tqdm(items, total=total, initial=done, desc=what, unit="frame", disable=None)


def size(text: str) -> tuple[int, int]:
    """argparse type: `320x240` -> (width, height) in pixels."""
    match = re.fullmatch(r"(\d+)[xX](\d+)", text)
    if not match or not all(1 <= int(side) <= 16384 for side in match.groups()):
        raise argparse.ArgumentTypeError(f"'{text}' is not WIDTHxHEIGHT in pixels, e.g. 320x240")
    return int(match[1]), int(match[2])


def whole(low: int, high: int | None = None) -> Callable[[str], int]:
    """argparse type: an integer of at least low (and at most high)."""

    def parse(text: str) -> int:
        expected = f"at least {low}" if high is None else f"{low} to {high}"
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of {expected}")
        return value

    return parse


def fraction(text: str) -> float:
    """argparse type: a number between 0 and 1, both excluded."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number between 0 and 1")
    return value


class _MaxPixels(argparse.Action):
    """Sets the limit in the environment, which worker processes inherit."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        os.environ[limits.PIXELS_VARIABLE] = str(values)
        setattr(namespace, self.dest, values)


def add_max_pixels(parser: Any) -> None:
    """Adds --max-pixels to a parser, or to a group of one, of a command that reads pictures."""
    parser.add_argument(
        "--max-pixels",
        type=whole(1),
        action=_MaxPixels,
        metavar="N",
        help=f"read pictures of up to N pixels (default: {limits.PIXELS_VARIABLE}, else "
        f"{limits.MAX_PIXELS}, as 8192x8192)",
    )


def some_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    """argparse type: some of `names`, separated by commas."""

    def parse(text: str) -> list[str]:
        chosen = text.split(",")
        for name in chosen:
            if name not in names or chosen.count(name) > 1:
                raise argparse.ArgumentTypeError(f"'{name}' is not one of {', '.join(names)}, once")
        return chosen

    return parse


def parser(
    description: str | None, module: str, package: str = "data_tools"
) -> argparse.ArgumentParser:
    """An ArgumentParser for `python -m <package>.<module>`, described by the module's docstring."""
    return argparse.ArgumentParser(
        prog=f"python -m {package}.{module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def parse(
    arguments: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parsed arguments; `.usage` is the parser, for errors about combinations of options."""
    parsed = arguments.parse_args(argv)
    parsed.usage = arguments
    return parsed

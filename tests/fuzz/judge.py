"""What became of one input: a result, a clear error of one line, or a failure."""

from __future__ import annotations

import io
import os
import re
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LONGEST = 300  # characters of an error's line
LISTED = 20_000  # of one that lists all names that are not known (caffe/formats/unknown.py)
# or that lists the kinds of recordings (data_tools/recordings/kinds.py)
_LIST = re.compile(r" has no (field|value) |unknown layer types? |not recognised as a recording")
FINE, ONE_LINE = "fine", "one line"
# broken: the family itself failed to make the input.
FAILURES = ("traceback", "message", "memory", "signal", "hang", "exit", "broken")
KINDS = (FINE, ONE_LINE, *FAILURES)

# Errors by which the product refuses input, by name, because toys and tests have theirs.
_REFUSALS = {"CaffeError", "DataError"}
_ALLOCATION = re.compile(r"MemoryError|nable to allocate|an't allocate|nsufficient memory")
# caffe.errors.one_line: an exception that nobody expected, as `caffe` shows it.
_DISGUISED = re.compile(r"^[\w. -]+: (\w+): .*\((\w+\.py):(\d+)\)$", re.DOTALL)


@dataclass
class Outcome:
    """kind: of KINDS. error: an exception's or signal's name. place: the innermost line of the
    project, FILE:LINE. text: the message. size: bytes of the input. seconds: of CPU. peak: bytes.
    """

    family: str
    index: int
    kind: str = FINE
    error: str = ""
    place: str = ""
    text: str = ""
    size: int = 0
    seconds: float = 0.0
    peak: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def failed(self) -> bool:
        return self.kind in FAILURES


def in_project(file: str) -> bool:
    """Whether a frame's file is code of the product, neither a test nor a library."""
    path = Path(file)
    if not path.is_relative_to(ROOT):
        return False
    top = path.relative_to(ROOT).parts[0]
    return top != "tests" and not top.startswith(".")


def place_of(trace: TracebackType | None) -> str:
    """The innermost line of the project in a traceback; the innermost of all if there is none."""
    frames = traceback.extract_tb(trace)
    ours = [frame for frame in frames if in_project(frame.filename)]
    if not frames:
        return ""
    frame = (ours or frames)[-1]
    return f"{_short(frame.filename)}:{frame.lineno}"


def place_in_dump(dump: str) -> str:
    """The innermost line of the project in a dump of faulthandler, which is innermost first."""
    for file, line in re.findall(r'File "([^"]+)", line (\d+)', dump):
        if in_project(file):
            return f"{_short(file)}:{line}"
    return ""


def place_in_text(text: str) -> str:
    """The innermost line of the project in a printed traceback, which is innermost last."""
    return place_in_dump("\n".join(reversed(text.splitlines())))


def _short(file: str) -> str:
    path = Path(file)
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def run(
    outcome: Outcome, target: Callable[[], Any], errors: io.TextIOBase, asks: bool = False
) -> None:
    """Calls the target and notes in `outcome` how it ended. errors: sys.stderr, which is read.

    asks: memory that the system refuses is no failure if one line says so.
    """
    try:
        target()
    except SystemExit as end:
        _ended(outcome, end, _written(errors), asks)
    except BaseException as error:
        _raised(outcome, error, asks)
    said = _written(errors)
    if "Traceback (most recent call last)" in said and not outcome.failed:
        # Of a thread, or of a destructor.
        last = said.strip().splitlines()[-1]
        outcome.kind, outcome.error = "traceback", last.partition(":")[0].rpartition(".")[2]
        outcome.place, outcome.text = place_in_text(said), last[:LONGEST]


def _written(errors: io.TextIOBase) -> str:
    errors.flush()
    return os.pread(errors.fileno(), 1 << 20, 0).decode("utf-8", "replace")


def _raised(outcome: Outcome, error: BaseException, asks: bool) -> None:
    outcome.error, outcome.place = type(error).__name__, place_of(error.__traceback__)
    outcome.text = str(error)
    names = {kind.__name__ for kind in type(error).__mro__}
    refused = names & _REFUSALS
    if _out_of_memory(error) and not (asks and refused):
        outcome.kind = "memory"
    elif refused or (isinstance(error, OSError) and error.strerror and error.filename):
        _judge_line(outcome, str(error))
    else:
        outcome.kind = "traceback"


def _ended(outcome: Outcome, end: SystemExit, said: str, asks: bool) -> None:
    """A command ended: 0, 1 with a line, or 2 for bad usage."""
    outcome.error = "SystemExit"
    cause = end.__context__
    outcome.place = place_of((cause or end).__traceback__)
    if end.code in (None, 0, 2):
        return
    if isinstance(end.code, str):
        line = end.code
    elif end.code == 1:
        line = next(reversed(said.strip().splitlines()), "")
    else:
        outcome.kind, outcome.text = "exit", f"exit status {end.code}"
        return
    outcome.text = line
    disguised = _DISGUISED.search(line)
    scarce = _out_of_memory(cause) or _ALLOCATION.search(line)
    if scarce and (disguised or not asks):
        outcome.kind = "memory"
    elif disguised:
        outcome.kind, outcome.error = "traceback", disguised[1]
        outcome.place = f"{disguised[2]}:{disguised[3]}"
    else:
        # The command's name stands before the message.
        _judge_line(outcome, line.partition(": ")[2] or line)


def _judge_line(outcome: Outcome, line: str) -> None:
    outcome.kind = ONE_LINE
    problem = ""
    if not line.strip():
        problem = "no message"
    elif len(line.splitlines()) > 1:
        problem = "message of several lines"
    elif len(line) > (LISTED if _LIST.search(line) else LONGEST):
        problem = f"message of {len(line)} characters"
    if problem:
        outcome.kind, outcome.error = "message", f"{outcome.error}: {problem.split(' of ')[0]}"
        outcome.text = f"{problem}: {line}"


def _out_of_memory(error: BaseException | None) -> bool:
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, MemoryError) or _ALLOCATION.search(str(error)):
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False

"""Reads the log of `caffe train`: losses, outputs and learning rates by iteration and by time.

It reads the logs of every Caffe since 2014: with or without a year in glog's date, with lines of
other threads in between, with restarts in one log, and while they are still being written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from boundary.reading import read_bytes
from data_tools.cli import DataError

_NUMBER = re.compile(r"[-+]?(?:(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|nan|inf)", re.ASCII)
_WORD = r"([^\s,]+)"  # where a number is expected
_AT = r"Iteration (\d{1,18})\b"  # what fits 64 bits
_STAMP = re.compile(r"[IWEF](?:(\d{4}))?(\d\d)(\d\d) (\d\d):(\d\d):(\d\d)\.(\d+) ")
_LOSS = re.compile(rf"{_AT}(?: \([^)]*\))?, loss = {_WORD}")
_RATE = re.compile(rf"{_AT}, lr = {_WORD}")
_TESTING = re.compile(rf"{_AT}, Testing net \(#(\d+)\)")
_OUTPUT = re.compile(rf"(Train|Test) net output #\d+: (\S+) = {_WORD}")
_DAMAGED = re.compile(r"Iteration \d{19}")
_IOU = re.compile(r"(?<![a-z])(mean|m)?iou(?![a-z])")
_DONE = "Optimization Done."


@dataclass
class Series:
    """One curve: values at iterations, and seconds since the run's first line (NaN if unknown)."""

    iterations: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass
class Run:
    """One training run. `series` has the keys `loss`, `lr`, `train/<blob>` and `test/<blob>`
    (`test1/...` for a second test net); a blob of several values is `<blob>[0]`, `<blob>[1]`, ...
    unread: the number of lines that were not understood, or only without their time.
    """

    name: str
    series: dict[str, Series] = field(default_factory=dict)
    done: bool = False
    unread: int = 0

    def __bool__(self) -> bool:
        return bool(self.series)


class Parser:
    """Parses lines into a Run; `feed` may be called repeatedly."""

    def __init__(self, name: str) -> None:
        self.run = Run(name)
        self._start: datetime | None = None
        self._now: datetime | None = None
        self._iteration = 0
        self._test = "test"
        self._seen: dict[str, int] = {}

    def feed(self, lines: Iterable[str]) -> Run:
        """Adds whole lines; returns the run so far."""
        for line in lines:
            if "Iteration " in line or "net output #" in line:
                self._read(line)
            elif _DONE in line:
                self.run.done = True
        return self.run

    def _read(self, line: str) -> None:
        try:
            self._clock(line)
            self._values(line)
        except ValueError:
            self.run.unread += 1

    def _values(self, line: str) -> None:
        """Raises ValueError for a line that is damaged."""
        if match := _OUTPUT.search(line):
            phase = "train" if match[1] == "Train" else self._test
            value = _number(match[3])
            self._add(f"{phase}/{match[2]}", self._iteration, value, repeats=True)
            return
        self._seen.clear()
        if _DAMAGED.search(line):
            raise ValueError(line)
        if match := _LOSS.search(line):
            value = _number(match[2])
            self._iteration = int(match[1])
            self._add("loss", self._iteration, value)
        elif match := _RATE.search(line):
            self._add("lr", int(match[1]), _number(match[2]))
        elif match := _TESTING.search(line):
            self._iteration = int(match[1])
            self._test = "test" if match[2] == "0" else f"test{match[2]}"

    def _add(self, name: str, iteration: int, value: float, repeats: bool = False) -> None:
        if repeats:
            name = self._member(name)
        series = self.run.series.setdefault(name, Series())
        # A run that was resumed from a snapshot replaces the points after that snapshot.
        while series.iterations and series.iterations[-1] >= iteration:
            for values in (series.iterations, series.seconds, series.values):
                values.pop()
        series.iterations.append(iteration)
        known = self._now is not None and self._start is not None
        seconds = (self._now - self._start).total_seconds() if known else float("nan")
        series.seconds.append(seconds)
        series.values.append(value)

    def _member(self, name: str) -> str:
        """The name of the next value of a blob that has several."""
        count = self._seen.get(name, 0)
        self._seen[name] = count + 1
        if count == 1 and name in self.run.series:  # the second value: there are several
            self.run.series[f"{name}[0]"] = self.run.series.pop(name)
        if count or f"{name}[0]" in self.run.series:
            return f"{name}[{count}]"
        return name

    def _clock(self, line: str) -> None:
        match = _STAMP.match(line)
        if not match:
            return
        year, *rest, fraction = match.groups()
        # Without a year, a leap year is assumed, so that every day exists.
        now = datetime(int(year or 2000), *map(int, rest), int(f"{fraction:0<6}"[:6]))
        if self._start is None:
            self._start = now
        elif year is None and now - self._start < timedelta(days=-1):
            now += timedelta(days=366)  # the run continued past New Year
        self._now = now


def _number(text: str) -> float:
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


def measure(key: str) -> str | None:
    """What a series measures by its name: "accuracy" or "IoU"; None for another."""
    if "accura" in key.lower():
        return "accuracy"
    return "IoU" if _IOU.search(key.lower()) else None


def panel(key: str) -> str | None:
    """The panel of a figure to which a series belongs; None if it is not drawn."""
    if key == "lr":
        return "learning rate"
    if measure(key):
        return "accuracy"
    # `loss` already is the average of the train net's outputs.
    return "loss" if "loss" in key.lower() and not key.startswith("train/") else None


def read_log(path: str | Path, name: str | None = None) -> Run:
    """The run of a log file.

    Raises DataError if it cannot be read or contains no loss, accuracy or learning rate.
    """
    data = read_bytes(path, DataError)
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))  # as PowerShell writes what it redirects
    text = data.decode("utf-16" if wide else "utf-8-sig", "replace")
    run = Parser(name or Path(path).stem).feed(text.splitlines())
    if not any(map(panel, run.series)):
        raise DataError(f"{path}: no line of Caffe's training log ('Iteration N, ...') in it")
    return run

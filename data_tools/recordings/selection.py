"""Which frames of a recording are taken: from a frame or second on, up to one, and every Nth."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from data_tools.cli import DataError
from data_tools.recordings.association import SECOND, Pair


@dataclass(frozen=True)
class Position:
    """A place in a recording: a frame's number from 0, or nanoseconds after the first frame."""

    frame: int | None = None
    time: int | None = None

    @classmethod
    def parse(cls, text: str) -> Position:
        """argparse type: `120` (frames) or `4.5s` (seconds)."""
        if re.fullmatch(r"[0-9]{1,9}", text):
            return cls(frame=int(text))
        match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)s", text)
        if not match:
            raise argparse.ArgumentTypeError(
                f"'{text}' is neither a number of frames such as 120 nor a time such as 4.5s"
            )
        return cls(time=int(Decimal(match[1]) * SECOND))

    def __str__(self) -> str:
        return str(self.frame) if self.time is None else f"{self.time / SECOND:g}s"


def chosen(
    pairs: Sequence[Pair], start: Position | None, end: Position | None, every: int, title: str
) -> list[int]:
    """The indices of the pairs from `start` on and before `end`, and of these every Nth.

    title: the kind of recording. Raises DataError if none is left, or for a place in seconds if
    the frames have no times.
    """
    first = 0 if start is None else _index(pairs, start, "--start", title)
    last = len(pairs) if end is None else _index(pairs, end, "--end", title)
    found = list(range(first, min(last, len(pairs)), every))
    if not found:
        span = ""
        if pairs[0].time is not None and pairs[-1].time is not None:
            span = f" in {(pairs[-1].time - pairs[0].time) / SECOND:.1f} s"
        raise DataError(
            f"no frame is left by --start {start or 0} and --end {end or len(pairs)}: "
            f"the recording has {len(pairs)}{span}"
        )
    return found


def _index(pairs: Sequence[Pair], place: Position, option: str, title: str) -> int:
    if place.time is None:
        return place.frame
    if any(pair.time is None for pair in pairs):
        raise DataError(
            f"{option} {place}: the frames of this recording ({title}) have no times; give a number"
        )
    return next(
        (i for i, pair in enumerate(pairs) if pair.time - pairs[0].time >= place.time), len(pairs)
    )

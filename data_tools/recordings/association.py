"""Pairs the colour pictures of a recording with its depth pictures: nearest in time, or by key."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from decimal import Decimal
from heapq import heappop, heappush
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from data_tools.cli import DataError

SECOND, MILLISECOND = 10**9, 10**6  # in nanoseconds
MAX_GAP = 20 * MILLISECOND  # the default of TUM's own program

Key = tuple[Any, ...]

# Names that are times: seconds with a fraction; whole seconds, milli-, micro- or nanoseconds since
# 1970, the first two with or without a fraction; and Redwood's, a number and microseconds since the
# start.
_FRACTION = re.compile(r"[0-9]{1,11}\.[0-9]+")
_MILLI_FRACTION = re.compile(r"[1-9][0-9]{11,13}\.[0-9]+")
_WHOLE = re.compile(r"[1-9][0-9]{9,18}")
_REDWOOD = re.compile(r"[0-9]+-([0-9]{12})")
# Names that end with a time, behind other words or numbers: `rgb_1305031102.175304`.
_LAST = re.compile(r".*[^0-9.]([0-9]+\.[0-9]+|[1-9][0-9]{9,18})(?:ms|us|ns)?")
# Or with a date and a time of the day, with a part of a second: `depth_20230401_120301_125`.
_DATE = re.compile(
    r"(?:.*[^0-9])?(20[0-9]{2})[-_]?([0-9]{2})[-_]?([0-9]{2})[-_T ]?"
    r"([0-9]{2})[-_]?([0-9]{2})[-_]?([0-9]{2})[-_.]([0-9]{1,9})"
)
_UNITS = {10: SECOND, 11: SECOND, 12: 10**6, 13: 10**6, 14: 10**6,
          15: 1000, 16: 1000, 17: 1000, 18: 1, 19: 1}  # fmt: skip


@dataclass(frozen=True)
class Picture:
    """A colour or depth picture of a recording.

    source: what the recording reads it from. shown: how messages name it. name: the frame's name.
    time: in nanoseconds, if it is known. key: what pairs it, if that is not the time.
    """

    source: Any
    shown: str
    name: str
    time: int | None = None
    key: Key = ()


@dataclass(frozen=True)
class Pair:
    """A frame: its name, and what its parts are read from. time: of colour, in nanoseconds.
    gap: from colour's time to depth's, if they were paired by time."""

    name: str
    color: Any
    depth: Any
    label: Path | None = None
    time: int | None = None
    gap: int | None = None


@dataclass(frozen=True)
class Association:
    """All pairs, in order, and what is left: rule is what pairs, in words. closest: nanoseconds
    between the times that are nearest to each other, if none is near enough."""

    pairs: list[Pair]
    color: int
    depth: int
    rule: str
    lonely: dict[str, list[str]] = field(default_factory=dict)
    closest: int | None = None

    def describe(self) -> dict[str, Any]:
        """The facts for dataset.json."""
        gaps = sorted(abs(pair.gap) / MILLISECOND for pair in self.pairs if pair.gap is not None)
        facts: dict[str, Any] = {
            "rule": self.rule,
            "color": self.color,
            "depth": self.depth,
            "pairs": len(self.pairs),
            "unmatched": {part: len(names) for part, names in self.lonely.items()},
        }
        if gaps:
            facts["gap_ms"] = {"median": round(median(gaps), 3), "max": round(gaps[-1], 3)}
        return facts


def nearest(color: Sequence[int], depth: Sequence[int], max_gap: int) -> list[tuple[int, int]]:
    """Indices of colour and depth times that belong together, in order of the colour times.

    As TUM's associate.py: of all pairs closer than max_gap (at 0: equal times) the closest come
    first, and each time is used once. Of equally close pairs the earlier one comes first.
    """
    order = sorted(range(len(depth)), key=lambda j: depth[j])
    times = [depth[j] for j in order]
    free = _Free(len(times))

    def offer(i: int) -> None:
        """Puts the closest depth that is free for colour i into the heap."""
        place = bisect_left(times, color[i])
        sides = free.before(place - 1), free.after(place)
        close = [(abs(times[k] - color[i]), color[i], times[k], i, k) for k in sides
                 if 0 <= k < len(times)]  # fmt: skip
        best = min(close, default=None)
        if best and (best[0] < max_gap or best[0] == 0):
            heappush(heap, best)

    heap: list[tuple[int, int, int, int, int]] = []
    for i in range(len(color)):
        offer(i)
    found = []
    while heap:
        _, _, _, i, place = heappop(heap)
        if free.take(place):
            found.append((i, order[place]))
        else:
            offer(i)
    return sorted(found, key=lambda pair: (color[pair[0]], pair[0]))


class _Free:
    """Which of the places 0 to count - 1 are free, and the nearest one that is."""

    def __init__(self, count: int):
        # What each place leads to on its way to a free one; itself if it is free. One beyond each
        # end, which stay free.
        self._before = list(range(-1, count + 1))
        self._after = list(range(count + 1))

    def take(self, place: int) -> bool:
        """Takes a place; False if it was taken."""
        if self._after[place] != place:
            return False
        self._after[place] = place + 1
        self._before[place + 1] = place - 1
        return True

    def before(self, place: int) -> int:
        """The last free place up to this one; -1 if there is none."""
        path = []
        while self._before[place + 1] != place:
            path.append(place)
            place = self._before[place + 1]
        for passed in path:
            self._before[passed + 1] = place
        return place

    def after(self, place: int) -> int:
        """The first free place from this one on; `count` if there is none."""
        path = []
        while self._after[place] != place:
            path.append(place)
            place = self._after[place]
        for passed in path:
            self._after[passed] = place
        return place


def by_time(color: Sequence[Picture], depth: Sequence[Picture], max_gap: int) -> Association:
    """Pairs pictures that are nearest in time. All must have a time."""
    found = nearest([picture.time for picture in color], [p.time for p in depth], max_gap)
    pairs = [
        Pair(color[i].name, color[i].source, depth[j].source, None, color[i].time,
             depth[j].time - color[i].time)
        for i, j in found
    ]  # fmt: skip
    rule = f"nearest in time, within {max_gap / MILLISECOND:g} ms"
    result = _association(color, depth, found, pairs, rule)
    return result if pairs else replace(result, closest=_closest(color, depth))


def _closest(color: Sequence[Picture], depth: Sequence[Picture]) -> int | None:
    """The least time between a colour and a depth picture."""
    times = sorted([(one.time, part) for part, side in enumerate((color, depth)) for one in side])
    gaps = [after - time for (time, part), (after, other) in pairwise(times) if part != other]
    return min(gaps, default=None)


def by_key(color: Sequence[Picture], depth: Sequence[Picture], rule: str) -> Association:
    """Pairs pictures of equal keys, in order of the keys.

    Raises DataError for two pictures of one part with the same key.
    """
    places = [_places(pictures, rule) for pictures in (color, depth)]
    common = sorted(places[0].keys() & places[1].keys())
    found = [(places[0][key], places[1][key]) for key in common]
    pairs = [Pair(color[i].name, color[i].source, depth[j].source, None, color[i].time)
             for i, j in found]  # fmt: skip
    return _association(color, depth, found, pairs, rule)


def _places(pictures: Sequence[Picture], rule: str) -> dict[Key, int]:
    places: dict[Key, int] = {}
    for place, picture in enumerate(pictures):
        other = places.setdefault(picture.key, place)
        if other != place:
            raise DataError(
                f"{pictures[other].shown} and {picture.shown} are the same frame by their names "
                f"({rule}): expected one of them"
            )
    return places


def _association(
    color: Sequence[Picture],
    depth: Sequence[Picture],
    found: list[tuple[int, int]],
    pairs: list[Pair],
    rule: str,
) -> Association:
    counts = Counter(pair.name for pair in pairs)
    if twice := next((name for name in counts if counts[name] > 1), None):
        raise DataError(f"two colour pictures are named {twice}: expected one")
    used = [{i for i, _ in found}, {j for _, j in found}]
    lonely = {
        part: [picture.shown for place, picture in enumerate(pictures) if place not in taken]
        for part, pictures, taken in zip(("color", "depth"), (color, depth), used, strict=True)
    }
    return Association(pairs, len(color), len(depth), rule, lonely)


def time_of(stem: str) -> int | None:
    """The time in nanoseconds that a file's name is, without its suffix; None if it is none."""
    if _FRACTION.fullmatch(stem):
        return nanoseconds(stem)
    if _MILLI_FRACTION.fullmatch(stem):
        return int(Decimal(stem) * MILLISECOND)
    if _WHOLE.fullmatch(stem):
        return int(stem) * _UNITS[len(stem)]
    if match := _REDWOOD.fullmatch(stem):
        return int(match[1]) * 1000
    return None


def last_time_of(stem: str) -> int | None:
    """The time in nanoseconds at the end of a name that begins otherwise; None if there is none."""
    if match := _DATE.fullmatch(stem):
        with suppress(ValueError):  # such as a 13th month: it is no date
            day = datetime(*map(int, match.groups()[:6]), tzinfo=timezone.utc)
            return int(day.timestamp()) * SECOND + nanoseconds(f"0.{match[7]}")
    match = _LAST.fullmatch(stem)
    return time_of(match[1]) if match else None


def nanoseconds(seconds: str) -> int:
    """Seconds as a text of digits, in whole nanoseconds."""
    return int(Decimal(seconds) * SECOND)


def key_of(stem: str) -> Key:
    """All numbers in a name, as numbers, so that `color_7` and `depth_0007` belong together; the
    name itself if it has none."""
    numbers = re.findall(r"[0-9]+", stem)
    return (0, *(int(number) for number in numbers)) if numbers else (1, stem)


def parse_gap(text: str) -> int:
    """A time such as 20ms or 0.02s in nanoseconds. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s)", text)
    if not match:
        raise ValueError(f"'{text}' is not a time such as 20ms or 0.5s")
    return int(Decimal(match[1]) * (SECOND if match[2] == "s" else MILLISECOND))

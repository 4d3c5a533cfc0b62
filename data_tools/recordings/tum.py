"""TUM RGB-D: lists of timestamps and files, files whose names are timestamps, or a list of pairs.

The benchmark's page (Sturm et al., IROS 2012) describes the lists `rgb.txt` and `depth.txt`:
comments begin with #, other lines are `timestamp filename`. Depth has 5000 steps per metre. A list
of pairs is what the benchmark's associate.py prints, and what ICL-NUIM has.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from boundary.errors import shown
from boundary.reading import read_lines
from data_tools import images
from data_tools.cli import DataError
from data_tools.doctor import distance
from data_tools.recordings import declared
from data_tools.recordings.association import (
    Association,
    Pair,
    Picture,
    by_time,
    key_of,
    nanoseconds,
    time_of,
)
from data_tools.recordings.base import (
    MILLIMETRES,
    Kind,
    Recording,
    Settings,
    associated,
    listed,
    needed,
)

FEWEST = 10_000  # readings; fewer say too little about the unit
NEAR = 0.8  # metres, of the median
ASSOCIATIONS = ("associations.txt", "associate.txt", "association.txt")
_STAMP = re.compile(r"[0-9]{1,11}(?:\.[0-9]{0,12})?")


class TumRecording(Recording):
    """A recording in TUM's layout. Programs that are not TUM's write it, too, often with depth in
    millimetres."""

    def doubt(self) -> str | None:
        """That depth may be in millimetres, if it would be near in TUM's unit. Where TUM made it of
        whole millimetres, all values are multiples of 5."""
        depth = self.first_depth()
        seen = depth[depth > 0]
        if (
            declared.unit(self.where)
            or depth.dtype != np.uint16
            or seen.size < FEWEST
            or not (seen % 5).any()
        ):
            return None
        metres = float(np.median(seen)) / KIND.steps
        if metres > NEAR:
            return None
        return (
            f"the median distance is {distance.metres(metres)} in TUM's unit, and "
            f"{distance.metres(metres * KIND.steps / MILLIMETRES)} in millimetres (--depth-unit mm)"
        )


def _recognise(where: Path) -> bool:
    if (where / "rgb.txt").is_file() and (where / "depth.txt").is_file():
        return True
    files = listed(where / "rgb", images.COLOR), listed(where / "depth", images.DEPTH)
    if not all(files):
        return False
    return bool(_list_of_pairs(where)) or all(
        _is_time(file.stem) for part in files for file in part
    )


def _list_of_pairs(where: Path) -> Path | None:
    return next((where / name for name in ASSOCIATIONS if (where / name).is_file()), None)


def _is_time(stem: str) -> bool:
    return "-" not in stem and time_of(stem) is not None  # with a hyphen they are Redwood's


def _open(where: Path, settings: Settings) -> Recording:
    lists = where / "rgb.txt", where / "depth.txt"
    if all(path.is_file() for path in lists):
        sides = [read_list(where, path) for path in lists]
        return TumRecording(where, KIND, by_time(*sides, settings.max_gap))
    if listed_pairs := _list_of_pairs(where):
        return TumRecording(where, KIND, read_pairs(where, listed_pairs))
    color = needed(where / "rgb", images.COLOR)
    depth = needed(where / "depth", images.DEPTH)
    return TumRecording(where, KIND, associated(where, color, depth, settings.max_gap))


def read_list(where: Path, path: Path) -> list[Picture]:
    """The pictures that a list names. Raises DataError, naming the line, for anything else."""
    pictures = []
    for number, parts in _lines(path, 2):
        if not _STAMP.fullmatch(parts[0]):
            raise DataError(f"{shown(path)}:{number}: {parts[0]!r} is no timestamp in seconds")
        file = where / _portable(parts[1])
        pictures.append(
            Picture(file, shown(parts[1]), file.stem, nanoseconds(parts[0]), key_of(file.stem))
        )
    return pictures


def read_pairs(where: Path, path: Path) -> Association:
    """The pairs in a list. Raises DataError, naming the line, for anything else."""
    pairs = []
    for _, (one, first, other, second) in _lines(path, 4):
        first, second = _portable(first), _portable(second)
        stamps, files = [one, other], [where / first, where / second]
        if "depth" in Path(first).parts:  # ICL-NUIM names depth first
            stamps, files = stamps[::-1], files[::-1]
        times = [time_of(stamp) for stamp in stamps]  # ICL-NUIM's are numbers of frames
        gap = None if None in times else times[1] - times[0]
        pairs.append(Pair(files[0].stem, *files, None, times[0], gap))
    names = {pair.name for pair in pairs}
    if len(names) < len(pairs):
        raise DataError(f"{shown(path)}: names a colour picture twice")
    return Association(pairs, len(pairs), len(pairs), f"the list {shown(path.name)}")


def _portable(name: str) -> str:
    """The path of a file in a list, which may have been written on Windows."""
    return name if "/" in name else name.replace("\\", "/")


def _lines(path: Path, count: int) -> list[tuple[int, list[str]]]:
    """The lines of a list and their numbers, in `count` parts: timestamps and files in turns.

    TUM's associate.py takes commas and tabs for blanks, too. Raises DataError for other lines, and
    if there are none.
    """
    found = []
    for number, line in enumerate(read_lines(path, DataError, paths=True), start=1):
        if line.startswith("#") or not line.strip():
            continue
        parts = re.split(r"[\s,]+", line.strip(), maxsplit=count - 1)
        if len(parts) != count:
            form = " ".join(["timestamp filename"] * (count // 2))
            raise DataError(f"{shown(path)}:{number}: {line!r}: expected '{form}'")
        found.append((number, parts))
    if not found:
        raise DataError(f"{shown(path)}: names no file")
    return found


KIND = Kind(
    "tum",
    "TUM RGB-D",
    "rgb.txt and depth.txt, or rgb/ and depth/ with timestamps as names or with associations.txt",
    5000,
    _recognise,
    _open,
)

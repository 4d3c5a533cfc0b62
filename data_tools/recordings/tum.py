"""TUM RGB-D: lists of timestamps and files, or files whose names are timestamps.

The benchmark's page (Sturm et al., IROS 2012) describes the lists `rgb.txt` and `depth.txt`:
comments begin with #, other lines are `timestamp filename`. Depth has 5000 steps per metre.
"""

from __future__ import annotations

import re
from pathlib import Path

from boundary.errors import shown
from boundary.reading import read_lines
from data_tools import images
from data_tools.cli import DataError
from data_tools.recordings.association import Picture, by_time, key_of, nanoseconds, time_of
from data_tools.recordings.base import Kind, Recording, Settings, listed, needed, opened

_STAMP = re.compile(r"[0-9]{1,11}(?:\.[0-9]{0,12})?")


def _recognise(where: Path) -> bool:
    if (where / "rgb.txt").is_file() and (where / "depth.txt").is_file():
        return True
    files = listed(where / "rgb", images.COLOR), listed(where / "depth", images.DEPTH)
    return all(files) and all(_is_time(file.stem) for part in files for file in part)


def _is_time(stem: str) -> bool:
    return "-" not in stem and time_of(stem) is not None  # with a hyphen they are Redwood's


def _open(where: Path, settings: Settings) -> Recording:
    lists = where / "rgb.txt", where / "depth.txt"
    if all(path.is_file() for path in lists):
        sides = [read_list(where, path) for path in lists]
        return Recording(where, KIND, by_time(*sides, settings.max_gap))
    color = needed(where / "rgb", images.COLOR)
    depth = needed(where / "depth", images.DEPTH)
    return opened(where, KIND, color, depth, settings)


def read_list(where: Path, path: Path) -> list[Picture]:
    """The pictures that a list names. Raises DataError, naming the line, for anything else."""
    pictures = []
    for number, line in enumerate(read_lines(path, DataError, paths=True), start=1):
        if line.startswith("#") or not line.strip():
            continue
        # TUM's associate.py takes commas and tabs for blanks, too.
        parts = re.split(r"[\s,]+", line.strip(), maxsplit=1)
        if len(parts) != 2 or not _STAMP.fullmatch(parts[0]):
            raise DataError(f"{shown(path)}:{number}: {line!r}: expected 'timestamp filename'")
        file = where / parts[1]
        pictures.append(
            Picture(file, shown(parts[1]), file.stem, nanoseconds(parts[0]), key_of(file.stem))
        )
    if not pictures:
        raise DataError(f"{shown(path)}: names no file")
    return pictures


KIND = Kind(
    "tum",
    "TUM RGB-D",
    "rgb.txt and depth.txt, or rgb/ and depth/ with timestamps as names",
    5000,
    _recognise,
    _open,
)

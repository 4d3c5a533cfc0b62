"""Record3D (an app for iPhones) and programs like it: colour pictures, and depth as EXR in metres.

The app's export "EXR + JPG sequence" is a folder EXR_RGBD with `rgb/N.jpg`, `depth/N.exr` and
`metadata.json`, which says the frames a second. Depth is smaller than colour.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from boundary.reading import read_json
from data_tools import images
from data_tools.cli import DataError
from data_tools.recordings.association import SECOND, by_key
from data_tools.recordings.base import (
    COLOR_FOLDERS,
    NUMBERED,
    Kind,
    Recording,
    Settings,
    color_folder,
    listed,
    needed,
    picture,
)

INNER = "EXR_RGBD"
EXR = (".exr",)


def _folder(where: Path) -> Path:
    return where / INNER if (where / INNER).is_dir() else where


def _recognise(where: Path) -> bool:
    folder = _folder(where)
    colors = any(listed(folder / name, images.COLOR) for name in COLOR_FOLDERS)
    return colors and bool(listed(folder / "depth", EXR))


def _open(where: Path, settings: Settings) -> Recording:
    folder = _folder(where)
    color = needed(color_folder(folder), images.COLOR)
    depth = needed(folder / "depth", EXR)
    sides = [[picture(where, file) for file in files] for files in (color, depth)]
    rate = _rate(folder / "metadata.json")
    if rate and all(len(one.key) == 2 and one.key[0] == 0 for one in sides[0]):
        sides[0] = [replace(one, time=round(one.key[1] * SECOND / rate)) for one in sides[0]]
    return Recording(where, KIND, by_key(*sides, NUMBERED))


def _rate(path: Path) -> float | None:
    """Frames a second, if the file says so. Raises DataError if it is no JSON."""
    rate = read_json(path, DataError).get("fps") if path.is_file() else None
    known = isinstance(rate, (int, float)) and not isinstance(rate, bool) and 0 < rate <= 1e6
    return float(rate) if known else None


KIND = Kind(
    "record3d",
    "Record3D",
    "rgb/ (or color/, image/) with pictures and depth/ with EXR files, also in EXR_RGBD/",
    1000,
    _recognise,
    _open,
)

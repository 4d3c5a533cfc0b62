"""Polycam (an app for phones): the raw data of a scan, `keyframes/images/` and `keyframes/depth/`.

Names are microseconds since the phone was switched on. Depth is in millimetres, and smaller.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from data_tools import images
from data_tools.recordings.association import by_key
from data_tools.recordings.base import Kind, Recording, Settings, listed, needed, picture

INNER = "keyframes"
MICROSECOND = 1000  # in nanoseconds


def _folder(where: Path) -> Path:
    return where / INNER if (where / INNER).is_dir() else where


def _recognise(where: Path) -> bool:
    folder = _folder(where)
    parts = (("images", images.COLOR), ("depth", images.DEPTH), ("cameras", (".json",)))
    return all(listed(folder / name, suffixes) for name, suffixes in parts)


def _open(where: Path, settings: Settings) -> Recording:
    folder = _folder(where)
    color, depth = (
        [picture(where, file) for file in needed(folder / name, suffixes)]
        for name, suffixes in (("images", images.COLOR), ("depth", images.DEPTH))
    )
    if all(one.name.isdecimal() and len(one.name) <= 15 for one in color):
        color = [replace(one, time=int(one.name) * MICROSECOND) for one in color]
    else:
        color = [replace(one, time=None) for one in color]
    return Recording(where, KIND, by_key(color, depth, "equal names"))


KIND = Kind(
    "polycam",
    "Polycam",
    "images/, depth/ and cameras/, also in keyframes/",
    1000,
    _recognise,
    _open,
)

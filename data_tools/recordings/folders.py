"""A folder of colour and one of depth, side by side, which the words in their names tell apart.

Such are `lowres_wide/` and `lowres_depth/` (ARKitScenes), `undistorted_color_images/` and
`undistorted_depth_images/` (Matterport3D), `livingroom1-color/` and `livingroom1-depth-clean/`
(Redwood), `image_left/` and `depth_left/` (TartanAir), `images/` and `depths/`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from boundary.errors import shown
from data_tools import images
from data_tools.cli import DataError
from data_tools.recordings import words
from data_tools.recordings.base import Kind, Recording, Settings, associated, listed, needed

DATA = "data"  # the folder in which files may lie, as InteriorNet has them
# Of folders whose depth has another unit than millimetres: Matterport3D's documentation.
STEPS = {"undistorted_depth_images": 4000.0, "matterport_depth_images": 4000.0}


def _files(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    return listed(folder, suffixes) or listed(folder / DATA, suffixes)


def _found(where: Path, part: str) -> list[str]:
    """The names of the folders of colour or depth at `where`, by their words."""
    if not where.is_dir():
        return []
    inner = sorted(path.name for path in where.iterdir() if path.is_dir())
    if part == "color":
        told = [name for name in inner if words.color_rank(name) not in (None, words.UNTOLD)]
        return words.clearest((name for name in told if _files(where / name, images.COLOR)), False)
    return [name for name in inner
            if words.is_depth(name) and _files(where / name, images.DEPTH)]  # fmt: skip


def _recognise(where: Path) -> bool:
    return bool(_found(where, "color") and _found(where, "depth"))


def _chosen(where: Path, part: str, asked: str | None) -> Path:
    """The folder of colour or depth: the one that was asked for, else the only one."""
    if asked is not None:
        return where / asked
    told = "colour" if part == "color" else part
    found = _found(where, part)
    if not found:
        raise DataError(f"{shown(where)}: no folder of {told}, by the names; --{part}-folder NAME")
    if len(found) > 1:
        raise DataError(
            f"{shown(where)}: {len(found)} folders of {told}: {', '.join(map(shown, found))}; "
            f"choose one with --{part}-folder"
        )
    return where / found[0]


def _open(where: Path, settings: Settings) -> Recording:
    color = _chosen(where, "color", settings.color_folder)
    depth = _chosen(where, "depth", settings.depth_folder)
    sides = [_files(folder, suffixes) or needed(folder, suffixes)
             for folder, suffixes in ((color, images.COLOR), (depth, images.DEPTH))]  # fmt: skip
    kind = replace(KIND, steps=STEPS.get(depth.name, KIND.steps))
    return Recording(where, kind, associated(where, *sides, settings.max_gap))


KIND = Kind(
    "folders",
    "folders of colour and depth",
    "two folders with 'depth' in one's name and 'color', 'rgb', 'image' or the like in the other's",
    1000,
    _recognise,
    _open,
)

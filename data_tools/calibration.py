"""Calibrations of depth and colour cameras: files of several programs, and cameras by name."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from boundary.errors import shown
from boundary.reading import read_json, read_text, reading
from data_tools import calibration_json, calibration_text
from data_tools.camera import Calibration, Extrinsics, Rig
from data_tools.cli import DataError

TABLE = Path(__file__).parent / "tables" / "cameras.json"
DIRECTIONS = ("depth-to-color", "color-to-depth")
IDENTITY = "identity"
MOST_BYTES = 2**24  # of a file; a device's calibration takes some ten thousand


def rig(
    intrinsics: str,
    depth_intrinsics: str | None = None,
    extrinsics: str | None = None,
    direction: str | None = None,
) -> Rig:
    """The pair of cameras that files or names of cameras describe.

    intrinsics: the colour camera's; its file or name may also tell the others. direction: one of
    DIRECTIONS, for extrinsics that do not say theirs (default: depth-to-color).

    Raises DataError for what cannot be read, is missing or contradicts.
    """
    colors = read(intrinsics)
    depths = read(depth_intrinsics) if depth_intrinsics else colors
    color = colors.color or colors.camera
    depth = depths.depth or (depths.camera if depth_intrinsics else None)
    if color is None:
        raise DataError(f"{shown(intrinsics)}: no intrinsics of a colour camera")
    if depth is None and depth_intrinsics:
        raise DataError(f"{shown(depth_intrinsics)}: no intrinsics of a depth camera")
    if depth is None:
        raise DataError(
            f"{shown(intrinsics)}: has no intrinsics of the depth camera; --depth-intrinsics is "
            "missing (if depth is aligned to colour already, leave --intrinsics out)"
        )
    if extrinsics:
        return Rig(color, depth, _directed(extrinsics, read(extrinsics), direction))
    place = colors.extrinsics or depths.extrinsics
    if place is None:
        raise DataError(
            f"{shown(intrinsics)}: does not say where the cameras are; --extrinsics is missing "
            f"('--extrinsics {IDENTITY}' if they are one)"
        )
    if direction:
        raise DataError("--extrinsics-direction goes with --extrinsics")
    return Rig(color, depth, place)


def _directed(name: str, found: Calibration, direction: str | None) -> Extrinsics:
    """Extrinsics from depth to colour."""
    if found.extrinsics is not None:
        if direction == DIRECTIONS[1]:
            raise DataError(
                f"{shown(name)}: states its direction; leave --extrinsics-direction out"
            )
        return found.extrinsics
    if found.motion is None:
        raise DataError(f"{shown(name)}: no extrinsics: no rotation and translation")
    return found.motion.inverse() if direction == DIRECTIONS[1] else found.motion


def names() -> list[str]:
    """The names of cameras whose nominal values are known."""
    return list(_table())


def with_sizes(color: tuple[int, int], depth: tuple[int, int]) -> list[str]:
    """The names of cameras that have modes of these sizes, (width, height), of both kinds."""
    found = []
    for name in names():
        one = read(name)
        sizes = ({mode.size for mode in camera.modes} for camera in (one.color, one.depth))
        if all(size in known for size, known in zip((color, depth), sizes, strict=True)):
            found.append(name)
    return found


@lru_cache(maxsize=1)
def _table() -> dict[str, Any]:
    return read_json(TABLE, DataError)


def read(name: str) -> Calibration:
    """The calibration in a file, or of a camera by its name. Raises DataError."""
    if name == IDENTITY:
        return Calibration(extrinsics=Extrinsics())
    if name in _table() and not Path(name).is_file():
        return calibration_json.parse(_table()[name])
    if not Path(name).exists():
        raise DataError(
            f"{shown(name)}: no such file, and no camera of this name; expected a file or one of "
            f"{', '.join(names())}"
        )
    text = read_text(name, DataError, most=MOST_BYTES)
    with reading(name, "a camera's calibration", DataError):
        try:
            if text.lstrip()[:1] == "{" or text.lstrip()[:2] in ("[{", "[["):
                try:
                    return calibration_json.parse(json.loads(text))
                except json.JSONDecodeError as problem:
                    if "p[" not in text:  # pyrealsense2's intrinsics in a dict, as Python prints it
                        raise DataError(f"not JSON: {problem}") from problem
            return calibration_text.parse(text)
        except DataError as problem:
            raise DataError(f"{shown(name)}: {problem}") from problem

"""The unit of depth that files beside the pictures declare.

`cam_params.json`: Replica as NICE-SLAM has it, steps in a metre, also beside the scenes' folders.
`scene_camera.json`: BOP's data sets, millimetres in a step. `transforms.json`: metres in a step, as
NeRFCapture (`integer_depth_scale`) and Nerfstudio (`depth_unit_scale_factor`) write them.
`N-meta.mat` tells YCB-Video. `dataset.json`: of a folder of pairs that data_tools.sequence wrote.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from boundary.errors import shown
from boundary.reading import read_json, reading
from data_tools import info
from data_tools.cli import DataError
from data_tools.depth import FEWEST_STEPS, MOST_STEPS, DepthUnit

REPLICA, BOP, TRANSFORMS = "cam_params.json", "scene_camera.json", "transforms.json"
YCB, YCB_STEPS = "-meta.mat", 10000.0  # beside each frame of YCB-Video; its factor_depth
METRES_IN_A_STEP = ("integer_depth_scale", "depth_unit_scale_factor")
ABOVE = 2  # folders above the pictures, for Replica's file


def unit(where: Path) -> tuple[DepthUnit, str] | None:
    """The unit of integer depth and the file that says so; None if there is none.

    Raises DataError for a file that should say it, and does not.
    """
    if own := _own(where / info.NAME):
        return own, info.NAME
    told = _steps(where if where.is_dir() else where.parent)
    return (DepthUnit("steps", told[0]), told[1]) if told else None


def _own(path: Path) -> DepthUnit | None:
    """The unit that data_tools.sequence has written."""
    facts = info.read(path) if path.is_file() else {}
    text = facts.get("options", {}).get("depth_unit")
    if facts.get("tool") != "data_tools.sequence" or text is None:
        return None
    with reading(path, "a unit of depth in options", DataError):
        return DepthUnit.parse(str(text).removesuffix(" steps per metre"))


def _steps(folder: Path) -> tuple[float, str] | None:
    top = folder.absolute()
    for one in (top, *top.parents[:ABOVE]):
        if (one / REPLICA).is_file():
            camera = read_json(one / REPLICA, DataError).get("camera")
            scale = camera.get("scale") if isinstance(camera, dict) else None
            return _checked(scale, one / REPLICA, "camera.scale"), REPLICA
    if meta := next(folder.glob(f"[0-9]*{YCB}"), None):
        return YCB_STEPS, meta.name
    if (folder / BOP).is_file():
        return _bop(folder / BOP), BOP
    if (folder / TRANSFORMS).is_file():
        told = read_json(folder / TRANSFORMS, DataError)
        for key in METRES_IN_A_STEP:
            if key in told:
                return _per_metre(1, told[key], folder / TRANSFORMS, key), TRANSFORMS
    return None


def _bop(path: Path) -> float:
    frames = read_json(path, DataError).values()
    scales = {
        scale if isinstance(scale := frame.get("depth_scale"), (int, float)) else None
        for frame in frames
        if isinstance(frame, dict)
    }
    if len(scales) != 1:
        raise DataError(f"{shown(path)}: expected one depth_scale, that of all frames")
    return _per_metre(1000, scales.pop(), path, "depth_scale")


def _per_metre(units: float, size: Any, path: Path, key: str) -> float:
    """The steps in a metre, of which one is `size`; a metre has so many units."""
    found = _checked(size, path, key)
    return _checked(round(units / found, 6), path, key)


def _checked(value: Any, path: Path, key: str) -> float:
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not known or not FEWEST_STEPS <= value <= MOST_STEPS:
        raise DataError(f"{shown(path)}: {key} is no unit of depth")
    return float(value)

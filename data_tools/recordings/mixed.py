"""One folder of colour and depth files, which the words in their names tell apart.

Such are `left000000.png` and `depth000000.png` (ZED), `frame_00000.jpg` and `depth_00000.png` (3D
Scanner App), `Color_N.png` and `Depth_N.png` (Orbbec), `00000-color.png` and `00000-depth.png`
(RGB-D Scenes v2), and the folder `results/` of Replica as NICE-SLAM has it, whose `cam_params.json`
says the steps in a metre.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from boundary.errors import shown
from boundary.reading import read_json
from data_tools import depth, images
from data_tools.cli import DataError
from data_tools.recordings import words
from data_tools.recordings.base import Kind, Recording, Settings, associated, listed

INNER = "results"
PARAMETERS = "cam_params.json"


def _sides(where: Path) -> tuple[list[Path], list[Path]]:
    """Colour and depth files in the folder."""
    colors = {file.name: file for file in listed(where, images.COLOR)}
    chosen = words.clearest((Path(name).stem for name in colors), untold=True)
    color = [file for file in colors.values() if file.stem in set(chosen)]
    return color, [file for file in listed(where, images.DEPTH) if words.is_depth(file.stem)]


def _folder(where: Path) -> Path:
    return next((one for one in (where, where / INNER) if all(_sides(one))), where)


def _recognise(where: Path) -> bool:
    return all(_sides(_folder(where)))


def _open(where: Path, settings: Settings) -> Recording:
    folder = _folder(where)
    sides = _sides(folder)
    for part, files in zip(("colour", "depth"), sides, strict=True):
        if not files:
            raise DataError(f"{shown(folder)}: no {part} files in it, by their names")
    kind = replace(KIND, steps=_steps(folder) or KIND.steps)
    return Recording(where, kind, associated(where, *sides, settings.max_gap))


def _steps(folder: Path) -> float | None:
    """The steps in a metre by Replica's file, in the folder or up to two above it; None if there is
    no such file. Raises DataError if it does not say them."""
    top = folder.absolute()
    file = next((one / PARAMETERS for one in (top, *top.parents[:2])
                 if (one / PARAMETERS).is_file()), None)  # fmt: skip
    if file is None:
        return None
    camera = read_json(file, DataError).get("camera")
    steps = camera.get("scale") if isinstance(camera, dict) else None
    known = isinstance(steps, (int, float)) and not isinstance(steps, bool)
    if not known or not depth.FEWEST_STEPS <= steps <= depth.MOST_STEPS:
        raise DataError(f"{shown(file)}: expected the steps in a metre as camera.scale")
    return float(steps)


KIND = Kind(
    "mixed",
    "colour and depth in one folder",
    "files in one folder with 'depth' in the names of some, also in results/",
    1000,
    _recognise,
    _open,
)

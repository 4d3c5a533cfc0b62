"""One folder of colour and depth files, which the words in their names tell apart.

Such are `left000000.png` and `depth000000.png` (ZED), `frame_00000.jpg` and `depth_00000.png` (3D
Scanner App), `Color_N.png` and `Depth_N.png` (Orbbec), `00000-color.png` and `00000-depth.png`
(RGB-D Scenes v2), and the folder `results/` of Replica as NICE-SLAM has it.
"""

from __future__ import annotations

from pathlib import Path

from boundary.errors import shown
from data_tools import images
from data_tools.cli import DataError
from data_tools.recordings import words
from data_tools.recordings.base import Kind, Recording, Settings, associated, listed

INNER = "results"


def _sides(where: Path) -> tuple[list[Path], list[Path]]:
    """Colour and depth files in the folder."""
    colors = {file.name: file for file in listed(where, images.COLOR)}
    chosen = words.clearest((Path(name).stem for name in colors), untold=True)
    color = [file for file in colors.values() if file.stem in set(chosen)]
    return color, [file for file in listed(where, images.DEPTH) if words.is_depth(file.stem)]


def _folder(where: Path) -> Path | None:
    return next((one for one in (where, where / INNER) if all(_sides(one))), None)


def _recognise(where: Path) -> bool:
    return _folder(where) is not None


def _open(where: Path, settings: Settings) -> Recording:
    folder = _folder(where) or where
    sides = _sides(folder)
    for part, files in zip(("colour", "depth"), sides, strict=True):
        if not files:
            raise DataError(f"{shown(folder)}: no {part} files in it, by their names")
    return Recording(where, KIND, associated(where, *sides, settings.max_gap))


KIND = Kind(
    "mixed",
    "colour and depth in one folder",
    "files in one folder with 'depth' in the names of some, also in results/",
    1000,
    _recognise,
    _open,
)

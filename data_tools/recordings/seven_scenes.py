"""7-Scenes: `frame-N.color.*` and `frame-N.depth.*` in one folder, or in its folders seq-NN.

Microsoft's description of the data set (Shotton et al., CVPR 2013): depth in millimetres, 65535
where there is no reading. ScanNet's and BundleFusion's programs write the same names.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from boundary.errors import shown
from data_tools import images
from data_tools.cli import DataError
from data_tools.recordings.association import Pair, Picture, by_key, key_of
from data_tools.recordings.base import Kind, Recording, Settings, listed

INVALID = 65535
_NAME = re.compile(r"(frame-[0-9]+)\.(color|depth)")


class SevenScenes(Recording):
    """Frames whose depth has a number for 'no reading'."""

    def read_depth(self, pair: Pair) -> np.ndarray:
        """Millimetres, 0 = no reading."""
        depth = images.read_depth(pair.depth)
        return np.where(depth == INVALID, 0, depth) if depth.dtype == np.uint16 else depth

    def files(self, index: int) -> dict[str, Path]:
        """The colour file; the depth file holds 65535."""
        return {"color": self.pairs[index].color}

    def inputs(self) -> list[Path]:
        """All files that are read."""
        return [file for pair in self.pairs for file in (pair.color, pair.depth)]


def _folders(where: Path) -> list[Path]:
    """Where frames lie: the folder itself, or sequences in it."""
    inner = [path for path in where.glob("seq-*") if path.is_dir()]
    return [where] if _frames(where, where, "color") or not inner else sorted(inner)


def _frames(where: Path, folder: Path, part: str) -> list[Picture]:
    found = []
    for file in listed(folder, images.COLOR if part == "color" else images.DEPTH):
        match = _NAME.fullmatch(file.stem)
        if match and match[2] == part:
            name = (folder.relative_to(where) / match[1]).as_posix()
            key = (folder.name, *key_of(match[1]))
            found.append(Picture(file, shown(file.relative_to(where)), name, None, key))
    return found


def _recognise(where: Path) -> bool:
    return any(_frames(where, folder, "color") for folder in _folders(where))


def _open(where: Path, settings: Settings) -> Recording:
    sides = [
        [picture for folder in _folders(where) for picture in _frames(where, folder, part)]
        for part in ("color", "depth")
    ]
    for part, pictures in zip(("color", "depth"), sides, strict=True):
        if not pictures:
            raise DataError(f"{shown(where)}: no frame-N.{part}.* in it")
    return SevenScenes(where, KIND, by_key(*sides, "equal names"))


KIND = Kind(
    "7scenes",
    "7-Scenes",
    "frame-N.color.* and frame-N.depth.*, also in folders seq-NN",
    1000,
    _recognise,
    _open,
)

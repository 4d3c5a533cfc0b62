"""A scene of NYU Depth V2's raw data: `r-TIME-TICKS.ppm` and `d-TIME-TICKS.pgm` in one folder.

Such names and files libfreenect's program `record` writes, by which it was made. Depth files hold
the Kinect's own numbers, with their bytes swapped. The data set's toolbox
(Silberman et al., ECCV 2012; depth_rel2depth_abs.m, camera_params.m) makes metres of them. Depth is
not aligned to colour: `--intrinsics kinect-v1` has the toolbox's calibration.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from boundary.errors import shown
from data_tools import images
from data_tools.cli import DataError
from data_tools.recordings.association import Pair, Picture, by_time, nanoseconds
from data_tools.recordings.base import Kind, Recording, Settings, listed

# metres = FACTOR / (OFFSET - number). Where there is no reading, the number is 2047.
FACTOR, OFFSET = 351.3, 1092.5
FARTHEST = 10.0  # metres; the toolbox takes readings beyond it as this
_NAME = re.compile(r"([rd])-([0-9]{1,11}\.[0-9]{1,9})-[0-9]+")
_SUFFIXES = {"r": (".ppm",), "d": (".pgm",)}


class NyuRaw(Recording):
    """Frames whose depth is computed from the Kinect's numbers."""

    def read_depth(self, pair: Pair) -> np.ndarray:
        """H x W float32 metres, 0 = no reading."""
        stored = images.read_depth(pair.depth)
        if stored.dtype != np.uint16:
            raise DataError(f"{shown(pair.depth)}: {stored.dtype}, expected 16 bits")
        return metres(stored.byteswap())

    def beside(self) -> str | None:
        """The Kinect has two lenses."""
        return "depth is not aligned to colour; --intrinsics kinect-v1 aligns it"

    def files(self, index: int) -> dict[str, Path]:
        """The colour file; the depth file holds other numbers."""
        return {"color": self.pairs[index].color}

    def inputs(self) -> list[Path]:
        """All files that are read."""
        return [file for pair in self.pairs for file in (pair.color, pair.depth)]


def metres(numbers: np.ndarray) -> np.ndarray:
    """The Kinect's numbers (uint16, any shape) in float32 metres, 0 = no reading."""
    seen = (numbers > 0) & (numbers < OFFSET)
    distance = FACTOR / (OFFSET - np.where(seen, numbers, 0))
    return np.where(seen, np.minimum(distance, FARTHEST), 0).astype(np.float32)


def _pictures(where: Path, part: str) -> list[Picture]:
    found = []
    for file in listed(where, _SUFFIXES[part]):
        match = _NAME.fullmatch(file.stem)
        if match and match[1] == part:
            found.append(Picture(file, shown(file.name), file.stem, nanoseconds(match[2])))
    return found


def _recognise(where: Path) -> bool:
    return bool(_pictures(where, "r") and _pictures(where, "d"))


def _open(where: Path, settings: Settings) -> Recording:
    sides = [_pictures(where, part) for part in "rd"]
    if not all(sides):
        raise DataError(f"{shown(where)}: no r-TIME-TICKS.ppm and d-TIME-TICKS.pgm in it")
    return NyuRaw(where, KIND, by_time(*sides, settings.max_gap))


KIND = Kind(
    "nyuv2-raw",
    "NYU Depth V2, raw",
    "r-TIME-TICKS.ppm and d-TIME-TICKS.pgm",
    1,
    _recognise,
    _open,
)

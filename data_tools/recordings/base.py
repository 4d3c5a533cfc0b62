"""What all recordings share: a kind, pairs of pictures, and frames that are read one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from boundary.errors import shown
from data_tools import images, turning
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.doctor.distance import doubt, has_rotated_bits
from data_tools.files import natural
from data_tools.record import Frame
from data_tools.recordings import declared
from data_tools.recordings.association import (
    MAX_GAP,
    SECOND,
    Association,
    Pair,
    Picture,
    by_key,
    by_time,
    key_of,
    last_time_of,
    time_of,
)

MILLIMETRES = 1000  # steps per metre
BEYOND = 100  # metres, which no camera's median distance exceeds
COLOR_FOLDERS = ("color", "rgb", "image")
NUMBERED = "equal numbers in the names"
CHANGING = "equal numbers in the names, without those that never change"
FIRST = "equal first numbers in the names that change"
ENOUGH = (
    0.5  # the share of the pictures that a way of pairing has to pair, so that no other is tried
)


@dataclass(frozen=True)
class Settings:
    """What a recording is opened with. max_gap: in nanoseconds. color_topic, depth_topic: of a bag.
    color_folder, depth_folder: of the kind `folders`. labels: whether labels are read. label_map:
    ScanNet's table of labels. ignore_unknown: labels that the table lacks become UNKNOWN."""

    max_gap: int = MAX_GAP
    color_topic: str | None = None
    depth_topic: str | None = None
    labels: bool = True
    label_map: Path | None = None
    ignore_unknown: bool = False
    color_folder: str | None = None
    depth_folder: str | None = None


@dataclass(frozen=True)
class Kind:
    """A kind of recording.

    name: for --kind. title: for people. needs: the files by which `recognise` knows it, in words.
    steps: of its integer depth in a metre. open: raises DataError if something is missing.
    """

    name: str
    title: str
    needs: str
    steps: float
    recognise: Callable[[Path], bool]
    open: Callable[[Path, Settings], Recording]


class Recording:
    """The source: a recording's frames as pairs of files, in order. It is pickled for workers."""

    block = 1

    def __init__(self, where: Path, kind: Kind, association: Association):
        self.where, self.title, self.kind_name = where, kind.title, kind.name
        self.association, self._steps = association, kind.steps
        self.pairs = association.pairs
        self.names = [pair.name for pair in self.pairs]  # those of the colour pictures

    def keep(self, chosen: Sequence[int]) -> None:
        """Leaves these frames only."""
        self.pairs = [self.pairs[index] for index in chosen]
        self.names = [pair.name for pair in self.pairs]

    def load(
        self, index: int, label: Callable[[tuple[int, int]], np.ndarray] | None = None
    ) -> Frame:
        """Frame `index`. label: reads its labels (H x W) from elsewhere, given the colour picture's
        width and height. Raises DataError if it cannot be read."""
        pair = self.pairs[index]
        color, depth, labels = self.read_color(pair), self.read_depth(pair), None
        if label is not None:
            labels = label(color.shape[1::-1])
        elif pair.label is not None:
            labels = self.read_label(pair)
        files = {"color": pair.color, "depth": pair.depth, "label": pair.label}
        told = {part: self.tell(file) for part, file in files.items() if file is not None}
        return turning.turned(Frame(color, depth, labels, files=told), self.orientation(pair))

    def about(self, index: int) -> dict[str, Any]:
        """The time of colour in seconds, and the gap to depth's in milliseconds, if known."""
        pair = self.pairs[index]
        facts = {} if pair.time is None else {"time": pair.time / SECOND}
        return facts if pair.gap is None else {**facts, "gap_ms": round(pair.gap / 1e6, 3)}

    def read_color(self, pair: Pair) -> np.ndarray:
        """H x W x 3 uint8, BGR."""
        return images.read_color(pair.color)

    def orientation(self, pair: Pair) -> int:
        """The EXIF orientation from which read_color turns the picture; 1 if there is none."""
        return images.orientation_of(pair.color) if isinstance(pair.color, Path) else 1

    def read_depth(self, pair: Pair) -> np.ndarray:
        """H x W as stored, 0 = no reading."""
        return images.read_depth(pair.depth)

    def read_label(self, pair: Pair) -> np.ndarray:
        """H x W of labels."""
        return images.read_label(pair.label)

    def tell(self, source: Any) -> str:
        """How messages name what a part is read from."""
        return str(source)

    def files(self, index: int) -> dict[str, Path]:
        """The files 'color', 'depth', 'label' that hold what `load` gives, to be copied."""
        pair = self.pairs[index]
        parts = {"color": pair.color, "depth": pair.depth, "label": pair.label}
        return {part: file for part, file in parts.items() if file is not None}

    def inputs(self) -> list[Path]:
        """All files that are read."""
        return [file for index in range(len(self.pairs)) for file in self.files(index).values()]

    def rate(self) -> float | None:
        """Frames a second, by the median of the times between frames; None if it is not known."""
        times = [pair.time for pair in self.pairs if pair.time is not None]
        steps = [after - time for time, after in pairwise(times) if after > time]
        return SECOND / median(steps) if steps else None

    def facts(self) -> dict[str, Any]:
        """What else dataset.json says: classes, if the recording has labels."""
        return {"labeled": any(pair.label for pair in self.pairs)}

    def unit(self) -> DepthUnit:
        """The unit of the stored depth: metres for floats, unless they are so large that they must
        be millimetres; else as a file declares it, else that of the kind. Millimetres may have
        SUN3D's rotated bits, which their values tell.

        Raises DataError if no depth can be read.
        """
        depth = self.first_depth()
        if depth.dtype.kind == "f":
            seen = depth[np.isfinite(depth) & (depth > 0)]
            large = seen.size and np.median(seen) > BEYOND
            return DepthUnit("steps", MILLIMETRES if large else 1.0)
        if told := declared.unit(self.where):
            return told[0]
        if self._steps == MILLIMETRES and has_rotated_bits(depth):
            return DepthUnit("sunrgbd")
        return DepthUnit("steps", self._steps)

    def doubt(self) -> str | None:
        """Why the unit may be another one, in words."""
        if self.unit() != DepthUnit("steps", MILLIMETRES) or declared.unit(self.where):
            return None
        return doubt(self.first_depth())

    def beside(self) -> str | None:
        """Why depth is that of another camera than colour, and has to be aligned, in words."""
        return None

    def first_depth(self) -> np.ndarray:
        """The first depth that can be read, as stored. Raises DataError if there is none."""
        first: DataError | None = None
        for pair in self.pairs:
            try:
                return self.read_depth(pair)
            except DataError as error:
                first = first or error
        raise first or DataError(f"{shown(self.where)}: no depth")


def opened(
    where: Path, kind: Kind, color: Sequence[Path], depth: Sequence[Path], settings: Settings
) -> Recording:
    """A recording of files: paired in time if all their names are times, else by numbers."""
    return Recording(where, kind, associated(where, color, depth, settings.max_gap))


def associated(
    where: Path, color: Sequence[Path], depth: Sequence[Path], max_gap: int
) -> Association:
    """Pairs files by their names: by time if all are times, else by all numbers in them.

    Where that pairs few, names may have more in them: a time at the end, numbers that never change,
    such as a size, or more behind the frame's number. What pairs the most is taken then. Raises
    DataError for two files of one part with the same numbers.
    """
    sides = [[picture(where, file) for file in files] for files in (color, depth)]
    if _have_times(sides):
        return by_time(*sides, max_gap)
    timed = [[replace(one, time=last_time_of(one.name)) for one in side] for side in sides]
    changing = [_changing(side) for side in sides]
    firsts = [[replace(one, key=one.key[:2]) for one in side] for side in changing]
    ways = (
        lambda: by_key(*sides, NUMBERED),
        lambda: by_time(*timed, max_gap) if _have_times(timed) else None,
        lambda: by_key(*changing, CHANGING) if _have_keys(changing) else None,
        lambda: by_key(*firsts, FIRST) if _have_keys(firsts) else None,
    )
    found = problem = None
    for way in ways:
        try:
            better = way()
        except DataError as error:
            problem = problem or error
            continue
        if better and (found is None or len(better.pairs) > len(found.pairs)):
            found = better
        if found and len(found.pairs) >= ENOUGH * min(len(color), len(depth)):
            return found
    if problem is not None:
        raise problem
    return found


def _have_times(sides: list[list[Picture]]) -> bool:
    return all(one.time is not None for side in sides for one in side)


def _have_keys(sides: list[list[Picture]]) -> bool:
    return all(len({one.key for one in side}) == len(side) for side in sides)


def _changing(pictures: list[Picture]) -> list[Picture]:
    """The pictures, whose keys have only those numbers that are not the same in all names."""
    keys = [one.key for one in pictures]
    if len({len(key) for key in keys}) > 1:
        return pictures
    kept = [
        0,
        *(place for place in range(1, len(keys[0])) if len({key[place] for key in keys}) > 1),
    ]
    return [replace(one, key=tuple(one.key[place] for place in kept)) for one in pictures]


def picture(where: Path, file: Path) -> Picture:
    """A file as a picture: its time or key is in its name."""
    told = shown(file.relative_to(where))
    return Picture(file, told, file.stem, time_of(file.stem), key_of(file.stem))


def listed(folder: Path, suffixes: Iterable[str]) -> list[Path]:
    """The files in a folder (not below it) with one of these suffixes, in natural order; none if
    there is no folder. The folder's name may have capitals."""
    folder = _actual(folder)
    if not folder.is_dir():
        return []
    files = [
        file
        for file in folder.iterdir()
        if file.suffix.lower() in suffixes and not file.name.startswith(".")
    ]
    return sorted(files, key=lambda file: natural(file.name))


def _actual(folder: Path) -> Path:
    """The folder, or one beside it whose name differs in capitals only."""
    if folder.is_dir() or not folder.parent.is_dir():
        return folder
    beside = sorted(path for path in folder.parent.iterdir()
                    if path.name.lower() == folder.name.lower() and path.is_dir())  # fmt: skip
    return beside[0] if beside else folder


def needed(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    """As listed. Raises DataError if there are none."""
    found = listed(folder, suffixes)
    if not found:
        folder = _actual(folder)
        lacks = "holds none of the files looked for" if folder.is_dir() else "no such folder"
        raise DataError(f"{shown(folder)}: {lacks} ({' '.join(suffixes)})")
    return found


def color_folder(where: Path, names: Sequence[str] = COLOR_FOLDERS) -> Path:
    """The folder of colour pictures. Raises DataError if there is none."""
    for name in names:
        if listed(where / name, images.COLOR):
            return where / name
    raise DataError(f"{shown(where)}: no {'/, '.join(names)}/ with colour pictures in it")

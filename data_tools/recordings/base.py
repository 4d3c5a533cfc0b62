"""What all recordings share: a kind, pairs of pictures, and frames that are read one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from boundary.errors import shown
from data_tools import images, turning
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.folder import natural
from data_tools.record import Frame
from data_tools.recordings.association import (
    MAX_GAP,
    SECOND,
    Association,
    Pair,
    Picture,
    by_key,
    by_time,
    key_of,
    time_of,
)

COLOR_FOLDERS = ("color", "rgb", "image")
NUMBERED = "equal numbers in the names"


@dataclass(frozen=True)
class Settings:
    """What a recording is opened with. max_gap: in nanoseconds. color_topic, depth_topic: of a bag.
    labels: whether labels are read. label_map: ScanNet's table of labels. ignore_unknown: labels
    that the table lacks become UNKNOWN."""

    max_gap: int = MAX_GAP
    color_topic: str | None = None
    depth_topic: str | None = None
    labels: bool = True
    label_map: Path | None = None
    ignore_unknown: bool = False


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
        """The unit of the stored depth: metres for floats, else that of the kind.

        Raises DataError if no depth can be read.
        """
        first: DataError | None = None
        for pair in self.pairs:
            try:
                floats = self.read_depth(pair).dtype.kind == "f"
                return DepthUnit("steps", 1.0 if floats else self._steps)
            except DataError as error:
                first = first or error
        raise first or DataError(f"{shown(self.where)}: no depth")


def opened(
    where: Path, kind: Kind, color: Sequence[Path], depth: Sequence[Path], settings: Settings
) -> Recording:
    """A recording of files: paired in time if all their names are times, else by numbers."""
    sides = [[picture(where, file) for file in files] for files in (color, depth)]
    if all(one.time is not None for side in sides for one in side):
        return Recording(where, kind, by_time(*sides, settings.max_gap))
    return Recording(where, kind, by_key(*sides, NUMBERED))


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

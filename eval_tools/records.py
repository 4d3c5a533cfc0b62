"""RGB-D frames of an LMDB, as inputs for nets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boundary.errors import shown
from data_tools.cli import DataError
from data_tools.fit import Placement
from data_tools.notes import Note
from data_tools.record import from_datum
from data_tools.store import Reader, name_of

# Records of other tools may have a mean subtracted, or depth in millimetres; beyond is damage.
FARTHEST = 2.0**16


@dataclass(frozen=True)
class Record:
    """One frame: color (H, W, 3) in BGR and depth (H, W), both 0..255, as in training.

    `label` is (H, W) of integers, 0 = ignored, or None if the frame has no label channel.
    `scene` is the Datum's own label: the scene class, if the LMDB was made with scenes.
    `guide` is the colour image at a higher resolution, if there is one; `placement` says where that
    image is in `color`. `notes` is what is to be said of the frame.
    """

    key: str
    color: np.ndarray
    depth: np.ndarray
    label: np.ndarray | None = None
    scene: int = 0
    guide: np.ndarray | None = None
    placement: Placement = field(default_factory=Placement)
    notes: tuple[Note, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.depth.shape

    @property
    def picture(self) -> np.ndarray:
        """The colours at the highest resolution, for drawings and refinement: uint8 BGR."""
        picture = self.color if self.guide is None else self.guide
        if picture.dtype != np.uint8:
            picture = np.clip(picture, 0, 255)
        return np.ascontiguousarray(picture, np.uint8)


def short_name(key: str) -> str:
    """A record's key without the leading number of data_tools."""
    number, _, name = key.partition("_")
    return name if number.isdigit() and name else key


class Records:
    """The frames of one LMDB in the order of their keys, read one at a time.

    `info` is the content of dataset.json (empty if there is none).

    Raises:
        DataError: there is no LMDB, it has no record, or (while reading) a record is not a Datum
            with the channels blue, green, red, depth and optionally label.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._reader = Reader(path)
        self.info = self._reader.info
        if not len(self):
            raise DataError(f"{path}: the LMDB holds no record")

    def __len__(self) -> int:
        return len(self._reader)

    def __iter__(self) -> Iterator[Record]:
        for key, value in self._reader:
            yield unpack(name_of(key), value, str(self.path))

    def keys(self) -> list[str]:
        """The keys of all frames, in order."""
        keys = self._reader.keys()
        return [name_of(key) for key in keys]

    def get(self, key: str) -> Record:
        """The record of that key. Raises DataError if there is none."""
        return unpack(key, self._reader.get(key.encode("utf-8", "surrogateescape")), str(self.path))

    def about(self, key: str) -> dict[str, Any]:
        """The facts about one frame in dataset.json (its camera, its scene, ...), or {}."""
        frames = self.info.get("frames")
        return frames.get(key, {}) if isinstance(frames, dict) else {}


def unpack(key: str, value: bytes, where: str) -> Record:
    """Decodes a serialised Datum to a frame.

    Raises:
        DataError: naming `where` and the key, if it is not a Datum of 4 or 5 plain channels, or if
            colours or depth are not finite or far from 0..255.
    """
    where = f"{where}: record {shown(key)}"
    planes, scene = from_datum(value, where)
    if len(planes) not in (4, 5):
        raise DataError(
            f"{where}: {len(planes)} channels, expected 5: blue, green, red, depth, label"
        )
    low, high = planes[:4].min(), planes[:4].max()
    if not -FARTHEST <= low <= high <= FARTHEST:  # also if they are NaN
        raise DataError(f"{where}: colours and depth of {low:g} to {high:g}, expected 0 to 255")
    label = planes[4] if len(planes) == 5 else None
    return Record(key, planes[:3].transpose(1, 2, 0), planes[3], label, scene)

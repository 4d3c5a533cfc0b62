"""RGB-D frames out of an LMDB, as the nets take them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.cli import DataError
from data_tools.record import from_datum
from data_tools.store import Reader


@dataclass(frozen=True)
class Record:
    """One frame: color (H, W, 3) in BGR and depth (H, W), both 0..255 as the nets are trained on.

    `label` is (H, W) of whole numbers, 0 = ignored, or None where the frame has no label channel.
    `scene` is the Datum's own label: the scene class, where the LMDB was made with scenes.
    `guide` is the colour picture at another size, where there is one of finer detail.
    """

    key: str
    color: np.ndarray
    depth: np.ndarray
    label: np.ndarray | None = None
    scene: int = 0
    guide: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.depth.shape

    @property
    def picture(self) -> np.ndarray:
        """The colours for people and refinement to look at: uint8 BGR, the finest there are."""
        picture = self.color if self.guide is None else self.guide
        return np.ascontiguousarray(picture, np.uint8)


def short_name(key: str) -> str:
    """A record's key without the running number that data_tools puts in front."""
    number, _, name = key.partition("_")
    return name if number.isdigit() and name else key


class Records:
    """The frames of one LMDB in the order of their keys; read one at a time, never all at once.

    `info` is the content of dataset.json (empty where there is none).

    Raises:
        DataError: no LMDB there, no record in it, or (while reading) a record that is no Datum with
            the channels blue, green, red, depth and, unless it has only these four, label.
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
            yield unpack(key.decode(errors="replace"), value, str(self.path))

    def keys(self) -> list[str]:
        """The keys of all frames, in order."""
        keys = self._reader.keys()
        return [key.decode(errors="replace") for key in keys]

    def get(self, key: str) -> Record:
        """The record of that key. Raises DataError where there is none."""
        return unpack(key, self._reader.get(key.encode()), str(self.path))

    def about(self, key: str) -> dict[str, Any]:
        """What dataset.json says of one frame (its camera, its scene, ...); empty if nothing."""
        frames = self.info.get("frames")
        return frames.get(key, {}) if isinstance(frames, dict) else {}


def unpack(key: str, value: bytes, where: str) -> Record:
    """A serialised Datum as a frame.

    Raises:
        DataError: naming `where` and the key, if it is no Datum of 4 or 5 plain channels.
    """
    where = f"{where}: record {key}"
    planes, scene = from_datum(value, where)
    if len(planes) not in (4, 5):
        raise DataError(
            f"{where}: {len(planes)} channels, expected 5: blue, green, red, depth, label"
        )
    label = planes[4] if len(planes) == 5 else None
    return Record(key, planes[:3].transpose(1, 2, 0), planes[3], label, scene)

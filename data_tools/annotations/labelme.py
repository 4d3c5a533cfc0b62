"""LabelMe: a folder with a JSON file for each picture.

Polygons, rectangles, turned rectangles, circles and masks are drawn as LabelMe's own export does;
lines and points are left out. Format: the README and the examples of github.com/labelmeai/labelme.
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from boundary import pictures
from boundary.errors import shown
from boundary.late import cv2
from boundary.reading import read_json, reading
from data_tools.annotations import shapes
from data_tools.annotations.base import Annotations, Drawn, Numbers, json_limit, told_size
from data_tools.annotations.shapes import Patch, Size
from data_tools.classes import NOTHING
from data_tools.cli import DataError

KIND = "LabelMe"
LINES = ("line", "linestrip", "point", "points")
DRAWN = {"polygon": "polygon", "rectangle": "rectangle", "circle": "circle",
         "oriented_rectangle": "polygon"}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """A shape of a JSON file. told: 'points', and 'mask' if it is one."""

    kind: str
    label: str
    told: Mapping[str, Any]

    def mask(self, size: Size) -> Patch:
        """As base.Shape.mask."""
        if self.kind == "mask":
            return self._mask(size)
        if self.kind not in DRAWN:
            raise DataError(
                f"its shape_type is {self.kind[:40]!r}, expected {', '.join(DRAWN)}, mask"
            )
        return shapes.pillow(DRAWN[self.kind], self.told["points"], size)

    def _mask(self, size: Size) -> Patch:
        """A picture, not 0 where the mask is, and the pixels of its corners, both within."""
        data = base64.b64decode(self.told["mask"], validate=True)
        found = pictures.decode(data, cv2.IMREAD_GRAYSCALE, "mask", DataError) > 0
        corners = np.asarray(self.told["points"], np.float64).astype(int)
        (left, top), (right, bottom) = corners.tolist()
        if found.shape != (bottom - top + 1, right - left + 1):
            raise DataError(
                f"a mask of {found.shape[1]}x{found.shape[0]} pixels, expected "
                f"{right - left + 1}x{bottom - top + 1} as its corners say"
            )
        return shapes.placed(left, top, found, size)


@dataclass(frozen=True)
class Broken:
    """A file that cannot be read. Its frame is bad; the others may be used."""

    names: Sequence[str]
    error: str
    empty = False

    def __str__(self) -> str:
        return self.names[0]

    def draw(self, number: Numbers, size: Size) -> np.ndarray:
        """Raises DataError."""
        raise DataError(self.error)


def read(path: Path) -> Annotations:
    """The annotations in a folder, or in one JSON file. Raises DataError if there are none."""
    files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
    found = Annotations(KIND, shown(path), [], [], nothing=NOTHING)
    drawn, strange = [], 0
    for file in files:
        try:
            picture = _picture(file, found.left_out)
        except DataError as error:
            picture = Broken((file.stem,), str(error))
        strange += picture is None
        drawn += [picture] if picture else []
    if not drawn:
        raise DataError(f"{shown(path)}: holds no JSON file of LabelMe's, one with 'shapes'")
    if all(isinstance(picture, Broken) for picture in drawn):
        raise DataError(drawn[0].error)
    if strange:
        found.notes.append(f"{strange} JSON files without 'shapes' are left out")
    labels = {shape.label for picture in drawn for shape in getattr(picture, "shapes", ())}
    found.pictures, found.names = drawn, sorted(labels - set(NOTHING))
    return found


def _picture(file: Path, left_out: Counter[str]) -> Drawn | None:
    """The picture that a file annotates; None if it is JSON of something else."""
    told = read_json(file, DataError, None, json_limit())
    if not isinstance(told, dict) or not isinstance(told.get("shapes"), list):
        return None
    where = shown(file)
    with reading(file, "LabelMe's JSON", DataError):
        # Its own name comes second: imagePath may be that of a picture which was renamed since.
        names = [str(told.get("imagePath") or file.stem), file.stem]
        sides = told.get("imageWidth"), told.get("imageHeight")
        size = None if None in sides else told_size(*sides, where)
        found = []
        for item in told["shapes"]:
            kind = str(item.get("shape_type") or "polygon")
            if kind in LINES:
                left_out[kind] += 1
                continue
            kept = {key: item[key] for key in ("points", "mask") if item.get(key) is not None}
            found.append(Shape(kind, str(item["label"]).strip(), kept))
    return Drawn(where, names, size, found)

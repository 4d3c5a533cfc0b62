"""COCO: instances with polygons and masks, and panoptic pictures.

Format: cocodataset.org, "Data format". Later annotations of a picture lie on top.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from boundary.errors import shown
from boundary.late import cv2
from boundary.pictures import read_picture
from boundary.reading import reading
from data_tools.annotations import shapes
from data_tools.annotations.base import Annotations, Drawn, Numbers, told_size, whole_number
from data_tools.annotations.shapes import Patch, Size
from data_tools.classes import Color
from data_tools.cli import DataError

KIND = "COCO instances"
PANOPTIC = "COCO panoptic"


@dataclass(frozen=True)
class Shape:
    """An annotation: its 'segmentation' is a list of polygons, or a mask."""

    label: str
    segmentation: Any

    def mask(self, size: Size) -> Patch:
        """As base.Shape.mask."""
        told = self.segmentation
        if isinstance(told, dict):
            return shapes.coco_mask(told["counts"], told.get("size"), size)
        return shapes.polygons([np.asarray(part, float).reshape(-1, 2) for part in told], size)


def read(told: Mapping[str, Any], path: Path) -> Annotations:
    """The annotations in the JSON of instances. Raises DataError if it is something else."""
    with reading(path, "COCO's JSON of instances", DataError):
        names, colors = _categories(told, shown(path))
        images = _images(told, path)
        drawn: dict[int, list[Shape]] = {identity: [] for identity in images}
        left_out: Counter[str] = Counter()
        for item in told["annotations"]:
            if item["image_id"] not in drawn:
                left_out["annotation of no picture"] += 1
            elif not item.get("segmentation"):
                left_out["annotation without a segmentation"] += 1
            else:
                label = names.get(item["category_id"], f"category {item['category_id']}")
                drawn[item["image_id"]].append(Shape(label, item["segmentation"]))
        pictures = [
            Drawn(where, (name,), size, drawn[identity])
            for identity, (where, name, size) in images.items()
        ]
    ordered = list(dict.fromkeys(names[identity] for identity in sorted(names)))
    return Annotations(KIND, shown(path), pictures, ordered, colors, left_out=left_out)


def _images(told: Mapping[str, Any], path: Path) -> dict[Any, tuple[str, str, Size | None]]:
    """Where, name and size of each picture by its id."""
    found = {}
    for item in told["images"]:
        where = f"{shown(path)}: picture {shown(str(item['file_name']))!r}"
        sides = item.get("width"), item.get("height")
        size = None if None in sides else told_size(*sides, where)
        if item["id"] in found:
            raise DataError(f"{where}: its id {item['id']} is another picture's, too")
        found[item["id"]] = where, str(item["file_name"]), size
    if not found:
        raise DataError(f"{shown(path)}: lists no images")
    return found


def _categories(told: Mapping[str, Any], where: str) -> tuple[dict[int, str], dict[str, Color]]:
    names, colors = {}, {}
    for item in told["categories"]:
        name = str(item["name"]).strip()
        names[whole_number(item["id"], f"{where}: a category's id")] = name
        color = item.get("color")
        if isinstance(color, list) and len(color) == 3:
            colors[name] = tuple(whole_number(part, f"{where}: a colour") for part in color)
    return names, colors


@dataclass(frozen=True)
class Segments:
    """A picture of segments: the class of each, by the number R + 256 G + 65536 B; 0 is none."""

    file: Path
    names: Sequence[str]
    segments: Mapping[int, str]

    def __str__(self) -> str:
        return shown(self.file)

    @property
    def empty(self) -> bool:
        """Whether it has no segments."""
        return not self.segments

    def draw(self, number: Numbers, size: Size) -> np.ndarray:
        """As base.Annotated.draw."""
        colors = read_picture(self.file, cv2.IMREAD_UNCHANGED, DataError)
        if colors.ndim != 3 or colors.dtype != np.uint8:
            raise DataError(f"{self}: expected a colour picture, whose colours number segments")
        found = colors[:, :, 2::-1].astype(np.int32) @ np.array([1, 256, 65536], np.int32)
        numbers, places = np.unique(found, return_inverse=True)
        strange = [int(n) for n in numbers if n and int(n) not in self.segments]
        if strange:
            raise DataError(f"{self}: segment {strange[0]} is not in its segments_info")
        labels = [number(self.segments[int(n)]) if n else 0 for n in numbers]
        return np.array(labels, np.int16)[places.reshape(found.shape)]


def read_panoptic(told: Mapping[str, Any], path: Path) -> Annotations:
    """The annotations in panoptic JSON, with the PNGs in the folder of its name, or beside it.

    Raises DataError if it is something else, or if no PNG is there.
    """
    with reading(path, "COCO's panoptic JSON", DataError):
        names, colors = _categories(told, shown(path))
        images = {item["id"]: str(item["file_name"]) for item in told["images"]}
        files = [_inside(str(item["file_name"]), path) for item in told["annotations"]]
        folder = _folder(path, files)
        pictures = []
        for item, file in zip(told["annotations"], files, strict=True):
            segments = {
                whole_number(part["id"], f"{shown(path)}: a segment's id"): names.get(
                    part["category_id"], f"category {part['category_id']}"
                )
                for part in item["segments_info"]
            }
            known = [images[item["image_id"]]] if item["image_id"] in images else []
            pictures.append(Segments(folder / file, (*known, file), segments))
    ordered = list(dict.fromkeys(names[identity] for identity in sorted(names)))
    return Annotations(PANOPTIC, shown(path), pictures, ordered, colors)


def _inside(name: str, path: Path) -> str:
    """A file's name, if it stays within its folder."""
    parts = PurePosixPath(name).parts
    if not parts or parts[0] == "/" or ".." in parts or "\0" in name:
        raise DataError(f"{shown(path)}: {name[:60]!r} names no file in the folder of PNGs")
    return name


def _folder(path: Path, files: Sequence[str]) -> Path:
    """The folder that holds the PNGs."""
    beside = [path.with_suffix(""), path.parent, path.parent.parent / path.stem]
    for folder in beside:
        if files and (folder / files[0]).is_file():
            return folder
    raise DataError(f"{shown(path)}: expected its PNGs in {shown(beside[0])}/ or beside it")

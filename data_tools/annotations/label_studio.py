"""Label Studio: its export as JSON, with polygons, rectangles, ellipses and brush strokes.

Sides are per cent of the picture's. Later regions lie on top. Cancelled annotations do not count;
of several of one picture the one that is marked as ground truth is taken, else the last one.
Format: labelstud.io, "Export annotations" and the pages of its tags.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from boundary.errors import shown
from boundary.reading import reading
from data_tools.annotations import rle, shapes
from data_tools.annotations.base import Annotations, Drawn, number, told_size
from data_tools.annotations.shapes import Patch, Size
from data_tools.cli import DataError

KIND = "Label Studio"
UPLOADED = re.compile("^[0-9a-f]{8}-(?=.)")  # what Label Studio puts before an uploaded file's name
PICTURE = re.compile(r"\.(jpe?g|png|bmp|tiff?|webp|ppm|gif)$", re.I)
LABELS = ("polygonlabels", "rectanglelabels", "ellipselabels", "brushlabels", "labels")
# The key of a region's value that tells its form.
FORMS = {"rle": "brush", "points": "polygon", "radiusX": "ellipse", "height": "rectangle"}


@dataclass(frozen=True)
class Shape:
    """A region: its form and value."""

    form: str
    label: str
    told: Mapping[str, Any]

    def mask(self, size: Size) -> Patch:
        """As base.Shape.mask."""
        return getattr(self, f"_{self.form}")(size)

    def _brush(self, size: Size) -> Patch:
        if self.told.get("format") != "rle":
            raise DataError(f"its format is {str(self.told.get('format'))[:40]!r}, expected 'rle'")
        return Patch(0, 0, rle.brush(bytes(self.told["rle"]), *size))

    def _polygon(self, size: Size) -> Patch:
        points = np.asarray(self.told["points"], np.float64).reshape(-1, 2)
        return shapes.polygons([points * size / 100], size)

    def _rectangle(self, size: Size) -> Patch:
        """It turns about its upper left corner."""
        x, y = self._part("x", size[0]), self._part("y", size[1])
        right, bottom = x + self._part("width", size[0]), y + self._part("height", size[1])
        corners = [(x, y), (right, y), (right, bottom), (x, bottom)]
        return shapes.polygons([[shapes.turned(c, (x, y), self._angle()) for c in corners]], size)

    def _ellipse(self, size: Size) -> Patch:
        middle = self._part("x", size[0]), self._part("y", size[1])
        radii = self._part("radiusX", size[0]), self._part("radiusY", size[1])
        return shapes.ellipse(middle, radii, self._angle(), size)

    def _angle(self) -> float:
        return number(self.told.get("rotation") or 0, "rotation")

    def _part(self, name: str, side: int) -> float:
        return number(self.told[name], name) * side / 100


def read(told: list, path: Path) -> Annotations:
    """The annotations in an export. Raises DataError if it is something else."""
    left_out: Counter[str] = Counter()
    several, pictures = 0, []
    with reading(path, "Label Studio's JSON", DataError):
        for place, task in enumerate(told, 1):
            where = f"{shown(path)}: task {task.get('id', place)}"
            regions, choice = _regions(task)
            several += choice > 1
            if regions is not None:
                pictures.append(_picture(task, regions, where, left_out))
    if not pictures:
        raise DataError(f"{shown(path)}: no task has an annotation")
    names = sorted({shape.label for picture in pictures for shape in picture.shapes})
    found = Annotations(KIND, shown(path), pictures, names, left_out=left_out)
    if len(pictures) < len(told):
        found.notes.append(f"{len(told) - len(pictures)} tasks have no annotation and are left out")
    if several:
        found.notes.append(
            f"{several} pictures have several annotations: the one marked as ground truth, else "
            "the last one, is taken"
        )
    return found


def _regions(task: Mapping[str, Any]) -> tuple[list | None, int]:
    """The results of the task's annotation, None if it has none; and how many there are."""
    if "annotations" not in task:  # the short form, JSON_MIN: lists of values beside the picture
        lists = [value for value in task.values() if isinstance(value, list)]
        return [{"value": item, **item} for part in lists for item in part
                if isinstance(item, dict)], 1  # fmt: skip
    done = [item for item in task["annotations"] if not item.get("was_cancelled")]
    if not done:
        return None, 0
    best = [item for item in done if item.get("ground_truth")] or done
    return best[-1]["result"], len(done)


def _picture(task: Mapping[str, Any], regions: list, where: str, left_out: Counter[str]) -> Drawn:
    names = _names(task.get("data", task), where)
    where = f"{where}, picture {shown(names[-1])!r}"
    # A region drawn with <Labels> has its label in a result of its own, with the same id.
    labels = {item.get("id"): label for item in regions if (label := _label(item, where))}
    size, found, seen = None, [], set()
    for item in regions:
        form = next((form for key, form in FORMS.items() if key in item.get("value", {})), None)
        if form is None:
            if str(item.get("type", "")).startswith(("keypoint", "vector", "video")):
                left_out[item["type"]] += 1
            continue
        if item.get("image_rotation"):
            raise DataError(f"{where}: was turned in Label Studio, which cannot be undone here")
        size = told_size(item["original_width"], item["original_height"], where)
        label = _label(item, where) or labels.get(item.get("id"))
        if label is None:
            left_out["region without a label"] += item.get("id") not in seen
        elif item.get("id") is None or item["id"] not in seen:
            found.append(Shape(form, label, item["value"]))
            seen.add(item.get("id"))
    return Drawn(where, names, size, found)


def _label(item: Mapping[str, Any], where: str) -> str | None:
    value = item.get("value", {})
    for key in LABELS:
        if found := value.get(key):
            if len(found) > 1:
                raise DataError(
                    f"{where}: a region has the labels {', '.join(found)[:60]}, expected one"
                )
            return str(found[0]).strip()
    return None


def _names(data: Mapping[str, Any], where: str) -> list[str]:
    """The names of the task's picture: as uploaded, and without what the upload put before it."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    addresses = {key: _path(value) for key, value in texts.items() if PICTURE.search(_path(value))}
    chosen = addresses.get("image") or [*addresses.values(), None][0]
    if chosen is None or (len(addresses) > 1 and "image" not in addresses):
        raise DataError(
            f"{where}: its data names {len(addresses)} pictures, expected one, or an 'image'"
        )
    folder, _, name = chosen.rpartition("/")
    short = UPLOADED.sub("", name)
    return [chosen] if short == name else [chosen, f"{folder}/{short}".lstrip("/")]


def _path(address: str) -> str:
    """The path in an address: of an upload, a file of the machine (?d=...), the web, a bucket."""
    parts = urlsplit(address)
    local = parse_qs(parts.query).get("d")
    return local[0] if local else unquote(parts.path or address)

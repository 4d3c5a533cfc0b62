"""CVAT's `annotations.xml`: "CVAT for images 1.1".

Format: docs.cvat.ai, "XML annotation format". Shapes with a higher z_order lie on top, then later
ones. What covers no pixels (polylines, points, skeletons, cuboids, tags) is left out, as in CVAT's
own masks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from boundary.errors import shown
from boundary.xml_file import read_xml
from data_tools.annotations import rle, shapes
from data_tools.annotations.base import Annotations, Drawn, number, told_size, whole_number
from data_tools.annotations.shapes import Patch, Point, Size
from data_tools.classes import Color
from data_tools.cli import DataError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

KIND = "CVAT for images"
MAX_XML = 2**28  # bytes
AREAS = ("polygon", "box", "ellipse", "mask")
LINES = ("polyline", "points", "cuboid", "skeleton")


@dataclass(frozen=True)
class Shape:
    """An element of an <image>: its kind and attributes."""

    kind: str
    label: str
    told: Mapping[str, str]

    def mask(self, size: Size) -> Patch:
        """As base.Shape.mask."""
        return getattr(self, f"_{self.kind}")(size)

    def _number(self, name: str) -> float:
        if name not in self.told:
            raise DataError(f"a {self.kind} without {name}")
        return number(self.told[name], name)

    def _polygon(self, size: Size) -> Patch:
        return shapes.polygons([read_points(self.told.get("points", ""))], size)

    def _box(self, size: Size) -> Patch:
        sides = (self._number(name) for name in ("xtl", "ytl", "xbr", "ybr"))
        return shapes.box(*sides, self._angle(), size)

    def _ellipse(self, size: Size) -> Patch:
        x, y, rx, ry = (self._number(name) for name in ("cx", "cy", "rx", "ry"))
        return shapes.ellipse((x, y), (rx, ry), self._angle(), size)

    def _mask(self, size: Size) -> Patch:
        left, top, width, height = (
            whole_number(self.told.get(name, "nothing"), name)
            for name in ("left", "top", "width", "height")
        )
        inside = 0 <= left <= left + width <= size[0] and 0 <= top <= top + height <= size[1]
        if not inside or width < 1 or height < 1:
            raise DataError(
                f"a mask of {width}x{height} at x={left} y={top}, beyond the picture of "
                f"{size[0]}x{size[1]}"
            )
        counts = [whole_number(word, "a run") for word in self.told.get("rle", "").split(",")]
        return Patch(left, top, rle.runs(counts, width, height, by_columns=False))

    def _angle(self) -> float:
        return number(self.told.get("rotation", "0"), "rotation")


def read(path: Path) -> Annotations:
    """The annotations in the file. Raises DataError if it is no such file, or one for videos."""
    tree = read_xml(path, "annotations", DataError, MAX_XML)
    if tree.find("track") is not None:
        raise DataError(f"{shown(path)}: is 'CVAT for video'; export it as 'CVAT for images 1.1'")
    found = tree.findall("image")
    if not found:
        raise DataError(f"{shown(path)}: has no <image>, expected 'CVAT for images 1.1'")
    left_out: Counter[str] = Counter()
    pictures = [_picture(image, path, left_out) for image in found]
    names, colors = _classes(tree)
    if not names:
        names = sorted({shape.label for picture in pictures for shape in picture.shapes})
    return Annotations(KIND, shown(path), pictures, names, colors, left_out=left_out)


def _picture(image: Element, path: Path, left_out: Counter[str]) -> Drawn:
    name = image.get("name", "")
    where = f"{shown(path)}: picture {shown(name)!r}"
    if not name:
        raise DataError(f"{shown(path)}: an <image> has no name")
    size = told_size(image.get("width"), image.get("height"), where)
    found: list[tuple[int, Shape]] = []
    for element in image:
        if element.tag in LINES:
            left_out[element.tag] += 1
        elif element.tag in AREAS:
            order = whole_number(element.get("z_order", "0"), f"{where}: z_order")
            found.append((order, Shape(element.tag, element.get("label", ""), element.attrib)))
    found.sort(key=lambda item: item[0])
    return Drawn(where, (name,), size, [shape for _, shape in found])


def _classes(tree: Element) -> tuple[list[str], dict[str, Color]]:
    """Names and colours of the task's, project's or job's labels; parts of skeletons are none."""
    names, colors = [], {}
    for element in tree.findall("meta/*/labels/label"):
        name = (element.findtext("name") or "").strip()
        if not name or element.find("parent") is not None or name in names:
            continue
        names.append(name)
        color = (element.findtext("color") or "").strip()
        if re.fullmatch("#[0-9a-fA-F]{6}", color):
            colors[name] = tuple(bytes.fromhex(color[1:]))
    return names, colors


def read_points(text: str) -> list[Point]:
    """The points in 'x,y;x,y'. Raises DataError for another text."""
    points = []
    for pair in text.split(";"):
        words = pair.split(",")
        if len(words) != 2:
            raise DataError(f"points are {text[:40]!r}, expected x,y;x,y;...")
        points.append((number(words[0], "a point"), number(words[1], "a point")))
    return points

"""Converts pictures with Pascal VOC's annotations to an LMDB that SSD's AnnotatedData layer reads.

LIST has a line for each picture: its path and that of its XML file, both below ROOT, as SSD's
create_list.sh writes them. LABELMAP names the labels, as SSD's labelmap_voc.prototxt does. The
records are those of SSD's convert_annoset: a picture's file as it is, and the boxes' sides as
fractions of the size that the XML file tells.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING

from boundary import pictures
from boundary.errors import shown
from boundary.late import cv2
from boundary.reading import read_bytes, read_lines
from boundary.xml_file import read_xml
from data_tools import boxes, cli
from data_tools.boxes import Box, Label, Picture
from data_tools.cli import DataError
from data_tools.record import UnknownLabel

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

KEPT = (b"\xff\xd8", b"\x89PNG")  # how files begin that become records as they are
SIDES = ("xmin", "ymin", "xmax", "ymax")


def read_list(path: str | Path) -> list[tuple[str, str]]:
    """(picture, XML file) of each line. Raises DataError, with the line, for another one."""
    found = []
    for number, line in enumerate(read_lines(path, DataError, paths=True), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise DataError(
                f"{shown(path)}:{number}: {len(words)} words, expected a picture and its XML file"
            )
        found.append((words[0], words[1]))
    if not found:
        raise DataError(f"{shown(path)}: lists no pictures")
    return found


class Annotated:
    """The source: pictures and their XML files.

    ignore_unknown: leave out objects whose name the label map lacks. any_size: take an XML file
    that tells another size than its picture has.
    """

    def __init__(
        self,
        files: list[tuple[str, str]],
        root: Path,
        labels: list[Label],
        ignore_unknown: bool = False,
        any_size: bool = False,
    ):
        self.names = [name for name, _ in files]
        self._files = [(root / name, root / xml) for name, xml in files]
        self._labels = {item.name: item.label for item in labels if item.label > 0}
        self._ignore_unknown, self._any_size = ignore_unknown, any_size

    def picture(self, index: int) -> Picture:
        """Reads picture `index` and its XML file."""
        file, xml = self._files[index]
        data, size = read_picture(file)
        tree = read_xml(xml, "annotation", DataError)
        told = self._told(tree, xml, size)
        found: list[Box] = []
        unknown = 0
        for number, item in enumerate(tree.findall("object"), 1):
            where = f"{shown(xml)}: object {number}"
            label = self._label(item, where)
            if label is None:
                unknown += 1
            else:
                instance = sum(box.label == label for box in found)
                found.append(read_object(item, where, label, told, instance))
        return Picture(self.names[index], data, size, found, unknown)

    def _told(self, tree: Element, xml: Path, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height that the XML file tells; the picture's if it tells none."""
        element = tree.find("size")
        if element is None:
            return size
        width, height = (
            number(element, side, f"{shown(xml)}: size") for side in ("width", "height")
        )
        if (width, height) != size and not self._any_size:
            raise DataError(
                f"{shown(xml)}: tells {width:g}x{height:g} pixels, the picture has "
                f"{size[0]}x{size[1]}; --any-size takes the boxes as parts of the size told"
            )
        if min(width, height) < 1:
            raise DataError(f"{shown(xml)}: tells {width:g}x{height:g} pixels, expected some")
        return int(width), int(height)

    def _label(self, item: Element, where: str) -> int | None:
        """An object's label; None for a name without one, if those are ignored."""
        name = (item.findtext("name") or "").strip()
        if name not in self._labels and not self._ignore_unknown:
            raise UnknownLabel(f"{where}: the label map has no label from 1 up for {name!r}")
        return self._labels.get(name)


def read_picture(path: Path) -> tuple[bytes, tuple[int, int]]:
    """The bytes for a record, and width and height.

    A JPEG or PNG of three channels stays as it is; another picture becomes a PNG of three.
    """
    data = read_bytes(path, DataError, plain=True)
    image = pictures.decode(data, cv2.IMREAD_ANYCOLOR, shown(path), DataError)
    if image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
        data = b""
    if not data.startswith(KEPT):
        data = cv2.imencode(".png", image)[1].tobytes()
    return data, (image.shape[1], image.shape[0])


def read_object(item: Element, where: str, label: int, size: tuple[int, int], instance: int) -> Box:
    """The box of an <object>. Raises DataError if it has none, or one whose sides are reversed."""
    place = item.find("bndbox")
    if place is None:
        raise DataError(f"{where}: has no bndbox")
    left, top, right, bottom = (number(place, side, f"{where}: bndbox") for side in SIDES)
    if left > right or top > bottom:
        raise DataError(
            f"{where}: its box goes from ({left:g}, {top:g}) to ({right:g}, {bottom:g}); expected "
            "xmin and ymin first"
        )
    difficult = (item.findtext("difficult") or "").strip() == "1"
    width, height = size
    sides = (left / width, top / height, right / width, bottom / height)
    return Box(label, *sides, instance, difficult)


def number(element: Element, tag: str, where: str) -> float:
    """The number in an element within `element`, in pixels."""
    text = element.findtext(tag)
    if text is None:
        raise DataError(f"{where}: has no {tag}")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < 2**31:
        raise DataError(f"{where}: {tag} is {text.strip()[:40]!r}, expected a number of pixels")
    return value


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "annoset")
    parser.add_argument("list", metavar="LIST", type=Path)
    parser.add_argument("root", metavar="ROOT", type=Path)
    parser.add_argument("labelmap", metavar="LABELMAP", type=Path)
    parser.add_argument("out", metavar="OUT_LMDB", type=Path)
    parser.add_argument(
        "--unknown",
        choices=("error", "ignore"),
        default="error",
        help="objects whose name the label map lacks: their pictures cannot be used (error, the "
        "default), or such objects are left out (ignore), and their number is told",
    )
    parser.add_argument(
        "--any-size",
        action="store_true",
        help="use pictures of another size than their XML files tell, as convert_annoset does",
    )
    parser.add_argument("--force", action="store_true", help="replace an existing LMDB")
    parser.add_argument(
        "--skip-bad", action="store_true", help="leave out unusable pictures instead of failing"
    )
    cli.add_max_pixels(parser)
    return parser


def main() -> None:
    """`python -m data_tools.annoset`."""
    args = cli.parse(arguments())
    cli.check_distinct([("OUT_LMDB", args.out)], [("LIST", args.list), ("LABELMAP", args.labelmap)])
    labels = boxes.read_label_map(args.labelmap)
    ignore = args.unknown == "ignore"
    source = Annotated(read_list(args.list), args.root, labels, ignore, args.any_size)
    info = {
        "tool": "data_tools.annoset",
        "source": {"list": str(args.list), "root": str(args.root)},
        "options": {"unknown": args.unknown, "any_size": args.any_size},
    }
    result = boxes.write(args.out, source, labels, info, args.force, args.skip_bad)
    if left := result.get("unknown_labels"):
        cli.say(
            f"{args.out}: {left['objects']} objects of {left['frames']} pictures have names that "
            "the label map lacks; they are left out (--unknown ignore)"
        )
    if result["beyond"]:
        cli.say(f"{args.out}: boxes that reach beyond their pictures: {result['beyond']}")


if __name__ == "__main__":
    cli.run(main)

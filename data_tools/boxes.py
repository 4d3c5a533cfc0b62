"""LMDBs of pictures with boxes, in the records that SSD's AnnotatedData layer reads.

A record is an AnnotatedDatum: the encoded picture, and for each label a group of boxes, whose sides
are fractions of the picture's. Beside the records lies labelmap.prototxt, the names of the labels;
label 0 is the background.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boundary import writing
from boundary.errors import shown
from boundary.reading import reading
from caffe.proto import caffe_pb2
from data_tools import cli, store
from data_tools.cli import DataError

BACKGROUND = "background"


@dataclass(frozen=True)
class Box:
    """An object: its label (from 1), and its sides as fractions of the picture's, 0..1.

    instance: the object's number among those of its label. difficult: hard to see; tests do not
    count it.
    """

    label: int
    left: float
    top: float
    right: float
    bottom: float
    instance: int = 0
    difficult: bool = False


@dataclass(frozen=True)
class Picture:
    """name: of the record. data: the encoded picture (PNG, JPEG). size: width, height in pixels."""

    name: str
    data: bytes
    size: tuple[int, int]
    boxes: Sequence[Box]


def record(picture: Picture) -> bytes:
    """The serialised AnnotatedDatum. Raises DataError under a pycaffe that has none."""
    made = _annotated_datum()()
    made.type = made.BBOX
    made.datum.encoded, made.datum.data, made.datum.label = True, picture.data, -1
    made.datum.channels, made.datum.width, made.datum.height = 3, *picture.size
    for label in sorted({box.label for box in picture.boxes}):
        group = made.annotation_group.add(group_label=label)
        for box in picture.boxes:
            if box.label == label:
                annotation = group.annotation.add(instance_id=box.instance)
                side = annotation.bbox
                side.xmin, side.ymin, side.xmax, side.ymax = (
                    box.left,
                    box.top,
                    box.right,
                    box.bottom,
                )
                side.difficult = box.difficult
    return made.SerializeToString()


def _annotated_datum() -> Any:
    made = getattr(caffe_pb2, "AnnotatedDatum", None)
    if made is None:
        raise DataError("this pycaffe has no AnnotatedDatum; use FuseNet's, or SSD's")
    return made


def label_map(names: Sequence[str]) -> str:
    """labelmap.prototxt for labels 1, 2, ... of these names."""
    items = [("none_of_the_above", 0, BACKGROUND)]
    items += [(name, label, name) for label, name in enumerate(names, 1)]
    return "".join(_item(*item) for item in items)


def _item(name: str, label: int, title: str) -> str:
    lines = (f"name: {_quoted(name)}", f"label: {label}", f"display_name: {_quoted(title)}")
    return "item {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def write(
    path: Path,
    names: Sequence[str],
    pictures: Iterable[Picture],
    titles: Sequence[str],
    info: dict[str, Any],
    force: bool,
) -> dict[str, Any]:
    """Write an LMDB of pictures with boxes; returns its dataset.json.

    names: of the labels 1, 2, ... titles: the pictures' names, in order. info: facts for
    dataset.json. An interrupted run is gone on with: records that are there stay.

    Raises DataError if the LMDB exists (unless `force`) or a record cannot be made.
    """
    writer = store.Writer(path, [info, list(names), list(titles)], force)
    try:
        for position, picture in enumerate(cli.progress(pictures, len(titles), "records")):
            key = store.key(position, picture.name)
            if key not in writer:
                writer.put(key, record(picture))
        writing.write_text(writer.partial / store.LABEL_MAP, label_map(names), DataError)
        facts = {**info, "labeled": True, "classes": [BACKGROUND, *names]}
        result = writer.finish(facts, survey)
    finally:
        writer.close()
    boxes = sum(result["boxes"].values())
    megabytes = (path / "data.mdb").stat().st_size / 1e6
    print(f"{path}: {result['records']} pictures with {boxes} boxes, {megabytes:.0f} MB")
    return result


def survey(records: Iterator[tuple[bytes, bytes]], where: str) -> dict[str, Any]:
    """Facts about (key, AnnotatedDatum) for dataset.json: counts of records and of boxes by label,
    of difficult ones, and the checksum that other LMDBs have.
    """
    digest, boxes, difficult, count = hashlib.sha256(), Counter(), 0, 0
    for key, data in records:
        for part in (key, data):
            digest.update(len(part).to_bytes(8, "little") + part)
        with reading(f"{where}: {shown(key)}", "an AnnotatedDatum", DataError):
            found = _annotated_datum().FromString(data)
        for group in found.annotation_group:
            boxes[group.group_label] += len(group.annotation)
            difficult += sum(annotation.bbox.difficult for annotation in group.annotation)
        count += 1
    return {
        "records": count,
        "boxes": {str(label): boxes[label] for label in sorted(boxes)},
        "difficult": difficult,
        "checksum": "sha256:" + digest.hexdigest(),
    }

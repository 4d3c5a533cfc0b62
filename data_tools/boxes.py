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
from typing import Any, Protocol

from google.protobuf import text_format

from boundary import writing
from boundary.errors import shown
from boundary.reading import MAX_TABLE, read_text, reading
from caffe.proto import caffe_pb2
from data_tools import build, cli, store
from data_tools.cli import DataError
from data_tools.record import UnknownLabel

BACKGROUND = "background"
IGNORE_UNKNOWN = "--unknown ignore leaves out such objects"


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
    """name: of the record. data: the encoded picture (PNG, JPEG). size: width, height in pixels.

    unknown: how many objects were left out because no label has their name.
    """

    name: str
    data: bytes
    size: tuple[int, int]
    boxes: Sequence[Box]
    unknown: int = 0


@dataclass(frozen=True)
class Label:
    """An item of a label map: the name in annotations, the label, the name for people."""

    name: str
    label: int
    title: str


class Source(Protocol):
    """Pictures with boxes, and the names that their records get."""

    names: Sequence[str]

    def picture(self, index: int) -> Picture:
        """Picture `index`. Raises DataError if it cannot be used; UnknownLabel for its labels."""


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


def numbered(names: Sequence[str]) -> list[Label]:
    """Labels 1, 2, ... of these names behind the background, as SSD's label maps have them."""
    found = [Label("none_of_the_above", 0, BACKGROUND)]
    return found + [Label(name, label, name) for label, name in enumerate(names, 1)]


def label_map(labels: Iterable[Label]) -> str:
    """The text of labelmap.prototxt."""
    return "".join(
        f"item {{\n  name: {_quoted(item.name)}\n  label: {item.label}\n"
        f"  display_name: {_quoted(item.title)}\n}}\n"
        for item in labels
    )


def read_label_map(path: str | Path) -> list[Label]:
    """The items of a label map. Raises DataError if the file is none, or has a name or label twice.

    An item without a name for people gets its name.
    """
    made = getattr(caffe_pb2, "LabelMap", None)
    if made is None:
        raise DataError("this pycaffe has no LabelMap; use FuseNet's, or SSD's")
    text = read_text(path, DataError, most=MAX_TABLE)
    with reading(path, "a label map", DataError):
        found = text_format.Parse(text, made())
    labels = [Label(i.name, i.label, i.display_name or i.name) for i in found.item]
    for what, values in (("name", [i.name for i in labels]), ("label", [i.label for i in labels])):
        value, times = Counter(values).most_common(1)[0] if values else ("", 0)
        if times > 1:
            raise DataError(f"{shown(path)}: {what} {value!r} stands there {times} times")
    if not any(item.label > 0 for item in labels):
        raise DataError(f"{shown(path)}: names no label from 1 up, expected item {{ ... }}")
    return labels


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def write(
    path: Path,
    source: Source,
    labels: Sequence[Label],
    info: dict[str, Any],
    force: bool,
    skip_bad: bool = False,
) -> dict[str, Any]:
    """Writes an LMDB of pictures with boxes; returns its dataset.json.

    info: facts for dataset.json. skip_bad: leave out pictures that cannot be used. An interrupted
    run is gone on with: records that are there stay.

    Raises DataError if the LMDB exists (unless `force`), or if pictures cannot be used, after it
    named them on stderr.
    """
    text, names = label_map(labels), list(source.names)
    writer = store.Writer(path, [info, text, names], force)
    try:
        bad = _put(writer, source)
        build.report(bad, len(names), skip_bad, "picture", IGNORE_UNKNOWN)
        if len(bad) == len(names):
            raise DataError(f"{path}: none of its pictures can be used")
        writing.write_text(writer.partial / store.LABEL_MAP, text, DataError)
        facts = {**info, "labeled": True, "labels": {str(i.label): i.title for i in labels}}
        if bad:
            facts["skipped"] = [name for name in names if name in bad]
        result = writer.finish(facts, survey, "objects")
    finally:
        writer.close()
    boxes = sum(result["boxes"].values())
    megabytes = (path / "data.mdb").stat().st_size / 1e6
    print(f"{path}: {result['records']} pictures with {boxes} boxes, {megabytes:.0f} MB")
    return result


def _put(writer: store.Writer, source: Source) -> dict[str, str]:
    """Writes the records that are missing; returns the pictures that cannot be used, and why."""
    bad: dict[str, str] = {}
    for position, name in enumerate(cli.progress(source.names, len(source.names), "records")):
        key = store.key(position, name)
        if key in writer:
            continue
        try:
            picture = source.picture(position)
        except UnknownLabel as error:
            bad[name] = build.Unknown(cli.describe(error))
        except DataError as error:
            bad[name] = cli.describe(error)
        else:
            writer.put(key, record(picture), picture.unknown)
    writer.commit()
    return bad


def survey(records: Iterator[tuple[bytes, bytes]], where: str) -> dict[str, Any]:
    """Facts about (key, AnnotatedDatum) for dataset.json: counts of records, of boxes by label, of
    difficult ones and of those that reach beyond their picture; the checksum that other LMDBs have.
    """
    digest, boxes, difficult, beyond, count = hashlib.sha256(), Counter(), 0, 0, 0
    for key, data in records:
        for part in (key, data):
            digest.update(len(part).to_bytes(8, "little") + part)
        with reading(f"{where}: {shown(key)}", "an AnnotatedDatum", DataError):
            found = _annotated_datum().FromString(data)
        for group in found.annotation_group:
            boxes[group.group_label] += len(group.annotation)
            for annotation in group.annotation:
                difficult += annotation.bbox.difficult
                beyond += _beyond(annotation.bbox)
        count += 1
    return {
        "records": count,
        "boxes": {str(label): boxes[label] for label in sorted(boxes)},
        "difficult": difficult,
        "beyond": beyond,
        "checksum": "sha256:" + digest.hexdigest(),
    }


def _beyond(box: Any) -> bool:
    return min(box.xmin, box.ymin) < 0 or max(box.xmax, box.ymax) > 1

"""data_tools.annoset: Pascal VOC's annotations as the records that convert_annoset makes."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest

from boundary.lmdb_file import LmdbFile
from caffe.proto import caffe_pb2 as pb
from data_tools.cli import DataError

LABELS = """item { name: "none_of_the_above" label: 0 display_name: "background" }
item { name: "dog" label: 3 display_name: "Dog" }
item { name: "cat" label: 1 }
"""
DOG = (
    "<object><name>dog</name><difficult>1</difficult>"
    "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    "<bndbox><xmax>30</xmax><xmin>10</xmin><ymin>5</ymin><ymax>20</ymax></bndbox></object>"
)
CAT = (
    "<object><bndbox><xmin>4.5</xmin><ymin>1</ymin><xmax>41</xmax><ymax>7</ymax></bndbox>"
    "<name> cat </name></object>"
)
SIZE = "<size><width>40</width><height>20</height><depth>3</depth></size>"


@pytest.fixture
def voc(tmp_path):
    """voc(XML's inside, ...) writes a.png (40 x 20) and XML files 0.xml, ..., and their list."""

    def write(*insides: str) -> None:
        image = np.random.default_rng(0).integers(0, 256, (20, 40, 3)).astype(np.uint8)
        (tmp_path / "root").mkdir()
        assert cv2.imwrite(str(tmp_path / "root" / "a.png"), image)
        for number, inside in enumerate(insides):
            (tmp_path / "root" / f"{number}.xml").write_text(f"<annotation>{inside}</annotation>")
        lines = (f"a.png {number}.xml\n" for number in range(len(insides)))
        (tmp_path / "list.txt").write_text("".join(lines))
        (tmp_path / "labels.prototxt").write_text(LABELS)

    return write


WORDS = ("annoset", "list.txt", "root", "labels.prototxt", "db")


def records(tmp_path) -> list[tuple[str, pb.AnnotatedDatum]]:
    return [
        (bytes(key).decode(), pb.AnnotatedDatum.FromString(bytes(value)))
        for key, value in LmdbFile(tmp_path / "db", DataError).every(0, 1)
    ]


def rows(record: pb.AnnotatedDatum) -> list[tuple]:
    """(label, instance, four sides, difficult) of each box."""
    return [
        (group.group_label, a.instance_id, a.bbox.xmin, a.bbox.ymin, a.bbox.xmax, a.bbox.ymax,
         a.bbox.difficult)
        for group in record.annotation_group for a in group.annotation
    ]  # fmt: skip


def test_records(command, voc, tmp_path) -> None:
    voc(SIZE + DOG + CAT + DOG, SIZE)
    said = command(*WORDS)
    assert "db: 2 pictures with 3 boxes" in said.stdout
    assert "db: boxes that reach beyond their pictures: 1" in said.stderr  # the cat's xmax
    (key, first), (_, second) = records(tmp_path)
    assert key == "00000000_a.png"
    assert first.datum.encoded
    assert first.datum.data == (tmp_path / "root" / "a.png").read_bytes()
    dog = (0.25, 0.25, 0.75, 1.0, True)  # 10 of 40, 5 of 20, 30 of 40, 20 of 20
    cat = (1, 0, *(pytest.approx(side) for side in (0.1125, 0.05, 1.025, 0.35)), False)
    assert rows(first) == [cat, (3, 0, *dog), (3, 1, *dog)]
    assert rows(second) == []
    info = json.loads((tmp_path / "db" / "dataset.json").read_text())
    assert info["labels"] == {"0": "background", "3": "Dog", "1": "cat"}
    assert info["boxes"] == {"1": 1, "3": 2}


def test_the_label_map_lies_beside_the_records(command, voc, tmp_path) -> None:
    voc(SIZE + DOG)
    command(*WORDS)
    text = (tmp_path / "db" / "labelmap.prototxt").read_text()
    words = ((k, v) for k, v in re.findall(r'(name|label): "?(\w+)', text))
    assert list(words) == [
        ("name", "none_of_the_above"), ("label", "0"), ("name", "background"), ("name", "dog"),
        ("label", "3"), ("name", "Dog"), ("name", "cat"), ("label", "1"), ("name", "cat"),
    ]  # fmt: skip


def test_without_a_size_the_pictures_counts(command, voc, tmp_path) -> None:
    voc(DOG)
    command(*WORDS)
    assert rows(records(tmp_path)[0][1])[0][2:6] == (0.25, 0.25, 0.75, 1.0)


def test_pictures_without_three_channels_become_such(command, voc, tmp_path) -> None:
    voc(SIZE)
    grey = np.arange(800, dtype=np.uint8).reshape(20, 40)
    assert cv2.imwrite(str(tmp_path / "root" / "a.png"), grey)
    command(*WORDS)
    data = np.frombuffer(records(tmp_path)[0][1].datum.data, np.uint8)
    assert (cv2.imdecode(data, cv2.IMREAD_UNCHANGED) == grey[:, :, None]).all()


BOX = "<bndbox><xmin>{}</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"


@pytest.mark.parametrize(
    ("inside", "why"),
    [
        (
            DOG.replace("dog", "cow"),
            "object 1: the label map has no label from 1 up for 'cow'; mend or remove it and run "
            "again, or pass --skip-bad; --unknown ignore leaves out such objects",
        ),
        (
            CAT.replace("cat", "none_of_the_above"),
            "object 1: the label map has no label from 1 up for 'none_of_the_above'",
        ),
        (
            SIZE.replace("40", "50"),
            "tells 50x20 pixels, the picture has 40x20; --any-size takes the boxes as parts",
        ),
        ("<size><width>40</width></size>", "size: has no height"),
        (CAT + "<object><name>dog</name></object>", "object 2: has no bndbox"),
        (f"<object><name>dog</name>{BOX.format('x')}</object>", "xmin is 'x', expected a number"),
        (f"<object><name>dog</name>{BOX.format('nan')}</object>", "xmin is 'nan', expected a num"),
        (f"<object><name>dog</name>{BOX.format(12)}</object>", "goes from (12, 1) to (9, 9)"),
        ("<object>", "not XML: mismatched tag"),
    ],
)
def test_annotations_that_cannot_be_used(inside, why, command, voc) -> None:
    voc(inside)
    said = command(*WORDS, code=1).stderr
    assert said.count("\n") == 1
    assert "cannot use picture a.png: root/0.xml: " in said
    assert why in said


def test_unknown_names_can_be_left_out(command, voc, tmp_path) -> None:
    voc(SIZE + DOG + CAT.replace("cat", "cow"))
    said = command(*WORDS, "--unknown", "ignore").stderr
    assert "db: 1 objects of 1 pictures have names that the label map lacks" in said
    assert [row[0] for row in rows(records(tmp_path)[0][1])] == [3]


def test_another_size_can_be_taken(command, voc, tmp_path) -> None:
    voc(SIZE.replace("40", "80") + DOG)
    command(*WORDS, "--any-size")
    assert rows(records(tmp_path)[0][1])[0][2:6] == (0.125, 0.25, 0.375, 1.0)
    voc_of_none = SIZE.replace("40", "0")
    (tmp_path / "root" / "0.xml").write_text(f"<annotation>{voc_of_none}</annotation>")
    said = command(*WORDS, "--any-size", "--force", code=1).stderr
    assert "tells 0x20 pixels, expected some" in said


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "list.txt: lists no pictures"),
        ("a.png 0.xml\n\na b.png 0.xml\n", "list.txt:3: 3 words, expected a picture and its XML"),
        ("a.png none.xml\n", "cannot use picture a.png: root/none.xml: No such file"),
        ("0.xml 0.xml\n", "cannot use picture 0.xml: root/0.xml: not a picture"),
    ],
)
def test_lists_that_cannot_be_used(text, why, command, voc, tmp_path) -> None:
    voc(SIZE)
    (tmp_path / "list.txt").write_text(text)
    assert why in command(*WORDS, code=1).stderr

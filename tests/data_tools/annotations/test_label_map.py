"""CVAT's segmentation masks."""

import cv2
import numpy as np
import pytest
from drawn import art, labels
from PIL import Image

from data_tools.annotations import kinds
from data_tools.classes import ClassTable
from data_tools.cli import DataError
from data_tools.record import UnknownLabel

MAP = """# label:color_rgb:parts:actions
background:0,0,0::
wall:250,50,83::
chair:61,61,245::
"""
COLORS = np.array([(0, 0, 0), (250, 50, 83), (61, 61, 245), (9, 9, 9)], np.uint8)  # RGB
DRAWN = art("..1122...... 1111........")


def export(root, drawn=DRAWN, text=MAP, write=None):
    (root / "SegmentationClass" / "sub").mkdir(parents=True)
    (root / "SegmentationObject").mkdir()
    (root / "labelmap.txt").write_text(text)
    path = str(root / "SegmentationClass" / "sub" / "a.png")
    if write:
        write(path, drawn)
    else:
        cv2.imwrite(path, COLORS[drawn][:, :, ::-1])
    return root


def with_palette(path, drawn):
    picture = Image.fromarray(drawn.astype(np.uint8), "P")
    picture.putpalette(COLORS.ravel().tolist())
    picture.save(path)


def in_grey(path, drawn):
    cv2.imwrite(path, drawn.astype(np.uint8))


@pytest.mark.parametrize("write", [None, with_palette, in_grey])
def test_colours_palettes_and_numbers_of_lines(tmp_path, write):
    export(tmp_path, write=write)
    assert (labels(tmp_path)["sub/a.png"] == DRAWN).all()
    assert (labels(tmp_path / "labelmap.txt")["sub/a.png"] == DRAWN).all()


def test_background_is_no_class_unless_the_table_has_it(tmp_path):
    export(tmp_path)
    found = kinds.read(tmp_path)
    assert found.kind == "CVAT segmentation masks"
    assert list(found.names) == ["wall", "chair"]
    table = ClassTable(("none", "Background", "chair", "wall"))
    assert (labels(tmp_path, table=table)["sub/a.png"] == np.array([1, 3, 2])[DRAWN]).all()


def test_black_that_no_line_has_is_no_class(tmp_path):
    export(tmp_path, text="background:0,128,0::\nwall:250,50,83::\nchair:61,61,245::\n")
    assert (labels(tmp_path)["sub/a.png"] == DRAWN).all()


def test_lines_that_the_table_lacks_matter_where_they_occur(tmp_path):
    export(tmp_path, text=MAP + "sofa:1,2,3::\n")
    table = ClassTable(("none", "wall", "chair"))
    assert (labels(tmp_path, table=table)["sub/a.png"] == DRAWN).all()
    with pytest.raises(UnknownLabel, match=r"a\.png: 'chair' is not in the table of classes"):
        labels(tmp_path, table=ClassTable(("none", "wall")))


@pytest.mark.parametrize(
    ("text", "drawn", "write", "message"),
    [
        ("wall\n", DRAWN, None, r"labelmap.txt:1: 'wall', expected name:r,g,b:parts:actions"),
        ("wall:1,2::\n", DRAWN, None, "labelmap.txt:1: "),
        ("wall:1,2,256::\n", DRAWN, None, "labelmap.txt:1: "),
        ("a:1,2,3::\nb:1,2,3::\n", DRAWN, None, r"labelmap.txt:2: another line has the colour"),
        ("# nothing\n", DRAWN, None, "labelmap.txt: names no class"),
        (MAP, DRAWN + 1, None, r"a\.png: colour \(9, 9, 9\) at x=4 y=0 is not in the table"),
        (
            MAP,
            DRAWN + 1,
            in_grey,
            r"a\.png: expected colours of labelmap.txt, or numbers of 0 to 2",
        ),
    ],
)
def test_spoiled_files_have_their_line(tmp_path, text, drawn, write, message):
    export(tmp_path, drawn, text, write)
    with pytest.raises(DataError, match=message):
        labels(tmp_path)


def test_no_pictures(tmp_path):
    (tmp_path / "labelmap.txt").write_text(MAP)
    with pytest.raises(DataError, match="SegmentationClass: expected the PNGs that belong to"):
        kinds.read(tmp_path)

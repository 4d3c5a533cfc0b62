"""CVAT for images 1.1."""

import numpy as np
import pytest
from drawn import SIZE, art, labels

from data_tools.annotations import kinds
from data_tools.classes import ClassTable
from data_tools.cli import DataError
from data_tools.record import UnknownLabel

HEAD = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <version>1.1</version>
  <meta>
    <task>
      <id>7</id>
      <name>kitchen</name>
      <size>2</size>
      <mode>annotation</mode>
      <overlap>0</overlap>
      <labels>
        <label>
          <name>wall</name>
          <color>#fa3253</color>
          <type>any</type>
          <attributes>
          </attributes>
        </label>
        <label>
          <name>chair</name>
          <color>#3d3df5</color>
          <type>any</type>
          <attributes>
          </attributes>
        </label>
        <label>
          <name>hand</name>
          <color>#00ff00</color>
          <type>skeleton</type>
          <svg>&lt;line/&gt;</svg>
        </label>
        <label>
          <name>thumb</name>
          <color>#d12345</color>
          <type>points</type>
          <parent>hand</parent>
        </label>
      </labels>
    </task>
    <dumped>2026-01-15 12:00:00.000000+00:00</dumped>
  </meta>
"""


def file(root, shapes, more="", head=HEAD):
    text = f'{head}  <image id="0" name="a.png" width="{SIZE[0]}" height="{SIZE[1]}">\n{shapes}\n'
    path = root / "annotations.xml"
    path.write_text(f"{text}  </image>\n{more}</annotations>\n")
    return path


def polygon(label, points, z_order=0):
    return (
        f'    <polygon label="{label}" source="manual" occluded="0" points="{points}" '
        f'z_order="{z_order}">\n    </polygon>'
    )


def mask(label, rle, left, top, width, height):
    return (
        f'    <mask label="{label}" source="semi-auto" occluded="0" rle="{rle}" left="{left}" '
        f'top="{top}" width="{width}" height="{height}" z_order="0">\n    </mask>'
    )


def box(label, sides, more=""):
    sides = " ".join(
        f'{side}="{value}"' for side, value in zip(("xtl", "ytl", "xbr", "ybr"), sides, strict=True)
    )
    return f'<box label="{label}" source="manual" occluded="0" {sides} z_order="0"{more}></box>'


def test_each_shape_covers_the_pixels_that_were_drawn(tmp_path):
    shapes = [
        polygon("wall", "1.00,1.00;5.00,1.00;5.00,4.00;1.00,4.00"),
        box("chair", (7, 0, 9, 3)),
        mask("chair", "1, 2, 1, 4", 1, 5, 4, 2),
    ]
    expected = art("""
        .......22...
        .1111..22...
        .1111..22...
        .1111.......
        ............
        ..22........
        .2222.......
        """)
    assert (labels(file(tmp_path, "\n".join(shapes)))["a.png"] == expected).all()


def test_a_slanted_polygon(tmp_path):
    expected = art("""
        1111111.....
        111111......
        11111.......
        1111........
        111.........
        11..........
        1...........
        """)  # the middles of the pixels on x + y = 8 lie on its side
    assert (labels(file(tmp_path, polygon("wall", "0,0;8,0;0,8")))["a.png"] == expected).all()


def test_ellipses_and_turned_boxes(tmp_path):
    ellipse = '<ellipse label="wall" occluded="0" cx="4" cy="4" rx="3" ry="2" z_order="0"{}/>'
    flat = art("""
        ............
        ............
        ..11111.....
        .1111111....
        .1111111....
        .1111111....
        ..11111.....
        """)
    assert (labels(file(tmp_path, ellipse.format("")))["a.png"] == flat).all()
    upright = labels(file(tmp_path, ellipse.format(' rotation="90"')))["a.png"]
    assert [
        (column.any(), row.any()) for column, row in zip(upright.T[:8], upright, strict=True)
    ] == [(2 <= place <= 6, 1 <= place <= 7) for place in range(8)]
    turned = labels(file(tmp_path, box("wall", (2, 3, 8, 5), ' rotation="90.00"')))["a.png"]
    assert (turned == labels(file(tmp_path, box("wall", (4, 1, 6, 7))))["a.png"]).all()
    assert turned.sum() == 12


def test_a_higher_z_order_lies_on_top_then_what_comes_later(tmp_path):
    low, high = polygon("wall", "0,0;4,0;4,2;0,2", 0), polygon("chair", "2,0;6,0;6,2;2,2", 1)
    for shapes in ((low, high), (high, low)):
        found = labels(file(tmp_path, "\n".join(shapes)))["a.png"]
        assert (found[0] == art("112222......")[0]).all()
    later = polygon("wall", "3,0;5,0;5,2;3,2", 1)
    found = labels(file(tmp_path, "\n".join((low, high, later))))["a.png"]
    assert (found[0] == art("112112......")[0]).all()


def test_classes_are_the_tasks_in_its_order_with_its_colours(tmp_path):
    image = '  <image id="1" name="sub/b.png" width="4" height="3">\n  </image>\n'
    lines = '<polyline label="wall" points="0,0;3,3"/><points label="wall" points="1,1"/>'
    found = kinds.read(file(tmp_path, lines, image))
    assert found.kind == "CVAT for images"
    assert list(found.names) == ["wall", "chair", "hand"]
    assert found.colors["chair"] == (0x3D, 0x3D, 0xF5)
    assert found.left_out == {"polyline": 1, "points": 1}
    assert [picture.empty for picture in found.pictures] == [True, True]
    assert labels(tmp_path / "annotations.xml")["sub/b.png"].shape == (3, 4)
    project = HEAD.replace("task>", "project>")
    assert list(kinds.read(file(tmp_path, "", head=project)).names) == ["wall", "chair", "hand"]


def test_names_are_looked_up_in_the_table_whatever_their_case(tmp_path):
    path = file(tmp_path, polygon("chair", "0,0;4,0;4,2;0,2"))
    table = ClassTable(("none", "sofa", "Wall", "CHAIR"))
    assert labels(path, table=table)["a.png"].max() == 3
    with pytest.raises(UnknownLabel, match=r"picture 'a.png': 'chair' is not in the table"):
        labels(path, table=ClassTable(("none", "sofa")))
    found = labels(path, table=ClassTable(("none", "sofa")), ignore_unknown=True)["a.png"]
    assert set(np.unique(found)) == {-1, 0}
    with pytest.raises(DataError, match="'chair' is in the table of classes 2 times"):
        labels(path, table=ClassTable(("none", "Chair", "CHAIR")))


BAD = {
    "two points": (polygon("wall", "1,1;2,2"), "a polygon of 2 points"),
    "no number": (polygon("wall", "1,1;2,2;x,3"), "a point is 'x'"),
    "no pair": (polygon("wall", "1,1;2;3,3"), "points are '1,1;2;3,3'"),
    "nan": (polygon("wall", "1,1;2,2;nan,3"), "a point is 'nan'"),
    "far": (polygon("wall", "1,1;2,2;900,3"), r"\(900, 3\) is far outside the picture of 12x8"),
    "short": (mask("wall", "1, 2", 0, 0, 2, 2), "its runs cover 3 pixels, expected 2x2 = 4"),
    "negative": (mask("wall", "-1, 5", 0, 0, 2, 2), "its runs cover 4"),
    "beyond": (mask("wall", "0, 4", 11, 0, 2, 2), "a mask of 2x2 at x=11 y=0, beyond the picture"),
    "huge": (mask("wall", "0, 4", 0, 0, 10**9, 10**9), "beyond the picture of 12x8"),
    "no rle": ('<mask label="wall" left="0" top="0" width="2" height="2"/>', "a run is ''"),
    "no sides": ('<box label="wall" xtl="0" ytl="0" xbr="2"/>', "a box without ybr"),
    "ellipse": ('<ellipse label="wall" cx="4" cy="4" rx="-3" ry="2"/>', "an ellipse of the radii"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_with_a_shape_names_picture_and_shape(tmp_path, case):
    shapes, message = BAD[case]
    with pytest.raises(
        DataError, match=rf"annotations.xml: picture 'a.png': shape 1 \(wall\): .*{message}"
    ):
        labels(file(tmp_path, shapes))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<annotations><track id='0'/></annotations>", "is 'CVAT for video'; export it as"),
        ("<annotations></annotations>", "has no <image>"),
        ("<annotation></annotation>", "outermost element is 'annotation'"),
        ("<annotations><image width='1' height='1'/></annotations>", "an <image> has no name"),
        ("<annotations><image name='a' width='x' height='1'/></annotations>", "width is 'x'"),
        ("<annotations><image name='a' width='99999' height='99999'/></annotations>", "at most"),
        ("<annotations>", "not XML"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotations/>", "declares a document type"),
    ],
)
def test_spoiled_files_have_their_line(tmp_path, text, message):
    path = tmp_path / "annotations.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"annotations.xml: .*{message}"):
        kinds.read(path)

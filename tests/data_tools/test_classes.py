"""Tables of classes: the benchmarks' and a user's own."""

import re

import pytest

from data_tools import classes
from data_tools.cli import DataError


@pytest.mark.parametrize(
    ("name", "count", "first", "last"),
    [
        ("nyuv2-40", 41, "wall", "otherprop"),
        ("nyuv2-13", 14, "bed", "tv"),
        ("sunrgbd-37", 38, "wall", "bag"),
    ],
)
def test_benchmarks(name, count, first, last):
    names = classes.benchmark(name).names
    assert (len(names), names[0], names[1], names[-1]) == (count, "(ignored)", first, last)


def test_netgen_says_the_same():
    from netgen.datasets import NYUV2_13, NYUV2_40, SUNRGBD_37

    for name, rows in (("nyuv2-40", NYUV2_40), ("nyuv2-13", NYUV2_13), ("sunrgbd-37", SUNRGBD_37)):
        assert classes.benchmark(name).names == tuple(row[0] for row in rows)


def test_palette_is_pascal_vocs():
    # The well-known first colours, and 20 (tvmonitor).
    assert classes.palette(5) == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128)]
    assert classes.palette(21)[20] == (0, 64, 128)
    assert len(set(classes.palette(256))) == 256


def test_a_number_or_a_table(tmp_path):
    assert classes.parse("2").names == ("(ignored)", "class 1", "class 2")
    table = tmp_path / "t.csv"
    table.write_text("label,name,r,g,b\n1,wall,10,20,30\n2,sofa,1,2,3\n")
    parsed = classes.parse(str(table))
    assert parsed.names == ("(ignored)", "wall", "sofa")
    assert parsed.colors == ((0, 0, 0), (10, 20, 30), (1, 2, 3))
    assert parsed.highest == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1: no column 'label'; expected a CSV table"),
        ("name,r\nwall,1\n", "1: no column 'label'; expected a CSV table"),
        ("label,name\n", " a table of no labels"),
        ("label,name\n0,x\n0,y\n", " line 3: label '0', expected 1"),
        ("label,name\n1000000000,x\n", " line 2: label '1000000000', expected 0"),
        ("label,name\n0,x\n" + "9" * 200000, " not a CSV table: field larger"),
        ("label,name\n0,x\n2,y\n", " line 3: label '2', expected 1"),
        ("label,name,r,g,b\n0,x,0,0,0\n1,y,0,0,256\n", " line 3: r, g, b must be"),
        ("label,name,r,g,b\n0,x,0,0,0\n1,y,0,0,0\n", " two labels have the same colour"),
    ],
)
def test_broken_tables_are_refused(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(DataError, match=f"t.csv:{re.escape(message)}"):
        classes.read_table(tmp_path / "t.csv")


def test_benchmarks_by_name():
    assert classes.parse("nyuv2-13") == classes.benchmark("nyuv2-13")


def test_a_list_of_names(tmp_path):
    names = tmp_path / "labels.txt"
    names.write_text("__ignore__\n_background_\n# mine\nwall\n\n Dining table \n")
    assert classes.parse(str(names)).names == ("(ignored)", "wall", "Dining table")
    names.write_text("__ignore__\n")
    with pytest.raises(DataError, match=r"labels\.txt: 0 names, expected 1 to 255, one a line"):
        classes.parse(str(names))


def test_cvats_label_map(tmp_path):
    path = tmp_path / "labelmap.txt"
    path.write_text("# label:color_rgb:parts:actions\nbackground:0,0,0::\nwall:1,2,3::\n")
    table = classes.parse(str(path))
    assert table.names == ("(ignored)", "wall")
    assert table.colors == ((0, 0, 0), (1, 2, 3))
    path.write_text("wall:1,2,3::\nsofa:1,2::\n")
    with pytest.raises(
        DataError, match=r"labelmap\.txt:2: 'sofa:1,2::', expected name:r,g,b:parts"
    ):
        classes.parse(str(path))


def test_tables_as_other_programs_save_them(tmp_path):
    table = tmp_path / "t.csv"
    text = "Label;Name;R;G;B\r\n0;(ignored);0;0;0\r\n1;Tür;1;2;3\r\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        table.write_text(text, encoding=encoding, newline="")
        assert classes.read_table(table).names == ("(ignored)", "Tür")
        assert classes.read_table(table).colors[1] == (1, 2, 3)
    table.write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=r"t\.csv:3: not UTF-8 .*save the file as UTF-8"):
        classes.read_table(table)


@pytest.mark.parametrize("text", ["0", "256", "9" * 5000])
def test_labels_fit_a_byte(text):
    with pytest.raises(DataError, match="1 to 255"):
        classes.parse(text)

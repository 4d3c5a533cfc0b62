import os

import cv2
import pytest

from boundary.arrays import read_npy
from boundary.errors import InputError, one_line
from boundary.hdf5 import Hdf5
from boundary.pictures import read_picture
from boundary.reading import (
    check_file,
    read_bytes,
    read_json,
    read_lines,
    read_table,
    read_text,
    reading,
)


class Bad(InputError, ValueError):
    pass


@pytest.mark.parametrize(
    "raised", [KeyError("x"), ValueError("a\nb"), RecursionError(), MemoryError(), AttributeError()]
)
def test_the_guard_turns_any_exception_into_one_line_with_the_path(raised):
    with pytest.raises(Bad, match=r"^dir/f\.x: not a thing: \S") as caught, \
            reading("dir/f.x", "a thing", Bad):  # fmt: skip
        raise raised
    assert "\n" not in str(caught.value)


def test_the_guard_gives_the_systems_words():
    with pytest.raises(Bad, match=r"^no/file: No such file or directory$"), \
            reading("no/file", "a thing", Bad):  # fmt: skip
        os.stat("no/file")


@pytest.mark.parametrize("passing", [Bad("mine"), KeyboardInterrupt(), SystemExit(3)])
def test_the_guard_lets_own_errors_and_ends_pass(passing):
    with pytest.raises(type(passing)) as caught, reading("f", "a thing", Bad):
        raise passing
    assert caught.value is passing


def test_long_texts_lose_their_middle():
    text = one_line("begin " + "x" * 5000 + " end")
    assert len(text) <= 300
    assert text.startswith("begin x")
    assert text.endswith("x end")
    assert one_line("two\nlines\x1b") == "two lines\\x1b"
    assert one_line("a\\b") == "a\\b"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_texts_may_begin_with_a_mark(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes("Tür\r\nFuß\n".encode(encoding))
    assert read_lines(tmp_path / "a.txt", Bad) == ["Tür", "Fuß"]


def test_another_encoding_is_refused_with_its_line(tmp_path):
    (tmp_path / "a.txt").write_bytes("wall\nTür\n".encode("latin-1"))
    with pytest.raises(Bad, match=r"a\.txt:2: not UTF-8 \(byte 0xfc\); save the file as UTF-8"):
        read_text(tmp_path / "a.txt", Bad)


def test_lists_of_paths_keep_their_bytes(tmp_path):
    (tmp_path / "a.txt").write_bytes("Tür.png\n".encode("latin-1"))
    assert os.fsencode(read_lines(tmp_path / "a.txt", Bad, paths=True)[0]) == b"T\xfcr.png"


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", Bad, 5) == b"12345"
    with pytest.raises(Bad, match="holds more than 4 bytes"):
        read_bytes(tmp_path / "a", Bad, 4)
    with pytest.raises(Bad, match="/dev/zero: holds more than 9 bytes"):
        read_bytes("/dev/zero", Bad, 9)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (".", "is a folder"),
        ("no", "No such file"),
        ("a\0b", "zero character"),
        ("\ud800", r"\\ud800: "),
    ],
)
def test_what_is_no_file_is_named(path, message):
    with pytest.raises(Bad, match=message) as caught:
        check_file(path, Bad)
    str(caught.value).encode()


def test_json(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path, Bad) == {"a": 1}
    path.write_text("[1]")
    with pytest.raises(Bad, match=r"a\.json: expected an object"):
        read_json(path, Bad)
    path.write_text("[" * 100_000)
    with pytest.raises(Bad, match=r"a\.json: not JSON: it is nested too deep"):
        read_json(path, Bad)
    path.write_text('{"a": 12345}')
    with pytest.raises(Bad, match=r"a\.json: holds more than 8 bytes"):
        read_json(path, Bad, most=8)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_of_spreadsheets(tmp_path, separator, encoding):
    lines = ["Label, Name ,r", "1,Tür,7", "", "2,Wand"]
    text = "\r\n".join(line.replace(",", separator) for line in lines)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert read_table(tmp_path / "t.csv", ["label", "name"], Bad) == [
        (2, {"label": "1", "name": "Tür", "r": "7"}),
        (4, {"label": "2", "name": "Wand", "r": ""}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"t\.csv:1: no column 'label'; expected a CSV table with the columns label,name"),
        ("label\n1", r"no column 'name'"),
        ("label,name\n1,a,b\n", r"t\.csv:2: 3 values; the table has 2 columns"),
        ('label,name\n1,"' + "x" * 200_000, r"t\.csv: not a CSV table: field larger"),
    ],
)
def test_tables_that_are_none(tmp_path, text, message):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(Bad, match=message):
        read_table(tmp_path / "t.csv", ["label", "name"], Bad)


def test_pipes_and_devices_are_refused_where_a_plain_file_is_needed(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, "/dev/zero"):
        with pytest.raises(Bad, match=r"(pipe|zero): is no plain file"):
            read_bytes(path, Bad, plain=True)
    with pytest.raises(Bad, match="is a folder"):
        read_bytes(tmp_path, Bad, plain=True)
    with pytest.raises(Bad, match="pipe: is no plain file"):
        read_picture(pipe, cv2.IMREAD_COLOR, Bad)
    with pytest.raises(Bad, match="pipe: is no plain file"):
        read_npy(pipe, Bad)
    with pytest.raises(Bad, match="pipe: is no plain file"):
        Hdf5(pipe, "an HDF5 file", Bad)


def test_tables_and_json_are_small(tmp_path):
    with open(tmp_path / "t", "wb") as file:
        file.truncate(2**26 + 1)
    for read in (
        lambda: read_table(tmp_path / "t", ["label"], Bad),
        lambda: read_json(tmp_path / "t", Bad),
    ):
        with pytest.raises(Bad, match="t: holds more than 67108864 bytes"):
            read()

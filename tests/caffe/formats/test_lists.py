"""Lists of pictures with labels, as people and programs write them."""

from __future__ import annotations

import pytest

from caffe.errors import CaffeError
from caffe.formats.lists import read_labelled


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.png 1", ("a.png", 1)),
        ("a b.png 2", ("a b.png", 2)),
        ("a.png   3", ("a.png", 3)),
        ("a.png\t4", ("a.png", 4)),
        ("a b.png \t 5  ", ("a b.png", 5)),
        ("a.png;6", ("a.png", 6)),
        ("a b.png; 7", ("a b.png", 7)),
        ("a,b.png,8", ("a,b.png", 8)),
        ("a;b.png 9", ("a;b.png", 9)),
        (" a.png -1", (" a.png", -1)),
    ],
)
def test_what_stands_before_the_label(tmp_path, line, expected):
    (tmp_path / "list").write_text(line + "\r\n", newline="")
    for labels in (True, False):
        assert read_labelled(tmp_path / "list", labels) == [expected]


def test_lists_without_labels(tmp_path):
    (tmp_path / "list").write_text("a.png\na,b.png\n7\n")
    assert read_labelled(tmp_path / "list", False) == [("a.png", 0), ("a,b.png", 0), ("7", 0)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_encodings(tmp_path, encoding):
    (tmp_path / "list").write_text("bär.png 1\n", encoding=encoding)
    assert read_labelled(tmp_path / "list") == [("bär.png", 1)]


def test_names_keep_bytes_that_are_no_utf8(tmp_path):
    (tmp_path / "list").write_bytes(b"b\xe4r.png 1\n")
    ((path, _),) = read_labelled(tmp_path / "list")
    assert path.encode("utf-8", "surrogateescape") == b"b\xe4r.png"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.png 1\nb.png one", "list:2: label 'one' is no integer"),
        ("a.png 1.5", "label '1.5' is no integer"),
        ("a.png 2147483648", "label '2147483648' is no integer"),
        ("a.png " + "9" * 5000, "is no integer"),
        ("a.png", "label 'a.png' is no integer"),
        ("7", "list:1: no path"),
        ("a\0.png 1", "list:1: a path cannot hold a zero character"),
        ("", "list: lists no pictures"),
    ],
)
def test_bad_lines(tmp_path, text, message):
    (tmp_path / "list").write_text(text)
    with pytest.raises(CaffeError, match=message):
        read_labelled(tmp_path / "list")

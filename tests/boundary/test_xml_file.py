"""XML from outside: its tree, or one line that says why not."""

from __future__ import annotations

import pytest

from boundary import xml_file
from boundary.errors import InputError
from boundary.xml_file import MAX_DEPTH, read_xml


class Wrong(InputError):
    pass


def read(tmp_path, content: bytes):
    (tmp_path / "a.xml").write_bytes(content)
    return read_xml(tmp_path / "a.xml", "a", Wrong)


def test_a_tree(tmp_path) -> None:
    text = b'<?xml version="1.0"?>\n<a x="1"><b>one &amp; two</b><!-- no --><b/></a>'
    tree = read(tmp_path, text)
    assert tree.attrib == {"x": "1"}
    assert [item.text for item in tree.findall("b")] == ["one & two", None]
    latin = "<?xml version='1.0' encoding='ISO-8859-1'?><a><b>\u00e4</b></a>".encode("latin-1")
    assert read(tmp_path, latin).findtext("b") == "\u00e4"


BOMB = b'<!DOCTYPE a [<!ENTITY l "l"><!ENTITY m "&l;&l;">]>\n<a>&m;</a>'
OUTSIDE = b'<!DOCTYPE a [<!ENTITY p SYSTEM "file:///etc/hostname">]>\n<a>&p;</a>'


def test_a_longer_file_is_read_where_that_is_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(xml_file, "MAX_NODES", 5)
    (tmp_path / "a.xml").write_bytes(b"<a>" + b"x" * 100 + b"<b c='1' d='2'/></a>")
    assert read_xml(tmp_path / "a.xml", "a", Wrong, 200).find("b").attrib == {"c": "1", "d": "2"}
    with pytest.raises(Wrong, match="holds more than 50 bytes"):
        read_xml(tmp_path / "a.xml", "a", Wrong, 50)
    with pytest.raises(Wrong, match="not XML: more than 5 elements and attributes"):
        read(tmp_path, b"<a><b c='1' d='2'/><b/><b/></a>")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (BOMB, "not XML: line 1: declares a document type"),
        (OUTSIDE, "not XML: line 1: declares a document type"),
        (b"<a>&other;</a>", "not XML: undefined entity"),
        (b"", "not XML: no element found"),
        (b"<a><b></a>", "not XML: mismatched tag: line 1"),
        (b"<a>" * (MAX_DEPTH + 1), f"not XML: line 1: more than {MAX_DEPTH} levels"),
        (b"<annotations/>", "the outermost element is 'annotations', expected 'a'"),
        (b"\xff\xd8\xff\xe0", "not XML: "),
        (b"version https://git-lfs.github.com/spec/v1\n", "is Git LFS's pointer"),
    ],
)
def test_what_is_refused(content, why, tmp_path) -> None:
    with pytest.raises(Wrong) as caught:
        read(tmp_path, content)
    assert str(caught.value).startswith(f"{tmp_path / 'a.xml'}: {why}")
    assert "\n" not in str(caught.value)

"""Lists of pictures with their labels, as ImageData and convert_imageset read them."""

from __future__ import annotations

import re

from boundary.errors import shown
from boundary.reading import PathLike, read_lines
from caffe.errors import CaffeError

_INTEGER = re.compile("[+-]?[0-9]{1,10}")
_BLANKS = re.compile("[ \t\r\n\f\v]+")


def read_labelled(source: PathLike, labels: bool = True) -> list[tuple[str, int]]:
    """(path, label) of each line that is not blank.

    The label is what follows the last blank, as in Caffe (image_data_layer.cpp), or the last tab,
    ';' or ',' if a whole number follows that. Further blanks around it do not count; those within
    the path do. labels: whether each line must have one; a line without is a path of label 0.

    Raises CaffeError, with the line, for a label that is no integer of 32 bits, for a line without
    a path, and if there are no lines.
    """
    entries = []
    for number, line in enumerate(read_lines(source, CaffeError, paths=True), 1):
        if not line.strip():
            continue
        path, label = _split(line.rstrip(), labels)
        where = f"{shown(source)}:{number}"
        if not _INTEGER.fullmatch(label) or not -(2**31) <= int(label) < 2**31:
            raise CaffeError(f"{where}: label {label!r} is no integer; expected: path label")
        if not path:
            raise CaffeError(f"{where}: no path; expected: path label")
        if "\0" in path:
            raise CaffeError(f"{where}: a path cannot hold a zero character")
        entries.append((path, int(label)))
    if not entries:
        raise CaffeError(f"{shown(source)}: lists no pictures; expected lines of: path label")
    return entries


def read_words(source: PathLike, expected: str) -> list[tuple[str, list[str]]]:
    """The words of each line that is not blank, each with the line's place, "list.txt:3".

    Blanks and tabs separate words, so that paths cannot hold any. expected: what a line holds, for
    messages. Raises CaffeError for a word with a zero character, and if there are no lines.
    """
    entries = []
    for number, line in enumerate(read_lines(source, CaffeError, paths=True), 1):
        words = [word for word in _BLANKS.split(line) if word]
        where = f"{shown(source)}:{number}"
        if any("\0" in word for word in words):
            raise CaffeError(f"{where}: a path cannot hold a zero character")
        if words:
            entries.append((where, words))
    if not entries:
        raise CaffeError(f"{shown(source)}: lists no pictures; expected lines of: {expected}")
    return entries


def _split(line: str, labels: bool) -> tuple[str, str]:
    for separators in (" \t;,", " \t"):
        place = max(map(line.rfind, separators))
        path, label = line[: max(place, 0)].rstrip(" \t"), line[place + 1 :]
        if _INTEGER.fullmatch(label) and (place >= 0 or labels):
            if line[place] in " \t" and path.endswith((";", ",")):
                path = path[:-1].rstrip(" \t")
            return path, label
    return (path, label) if place >= 0 or labels else (line, "0")

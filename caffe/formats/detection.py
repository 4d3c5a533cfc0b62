"""Files beside sets of pictures with boxes: the names of labels, the pictures' sizes (SSD)."""

from __future__ import annotations

import os

from boundary.errors import shown
from boundary.reading import read_lines
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.proto import caffe_pb2 as pb

PathLike = str | bytes | os.PathLike


def read_label_map(path: PathLike) -> dict[int, str]:
    """The name of each label, from a LabelMap as text: item { name: "n02..." label: 1 }.

    Raises CaffeError if the file is none, or names a label or uses a name twice.
    """
    names: dict[int, str] = {}
    for item in files.read_text(path, pb.LabelMap).item:
        if item.label in names:
            raise CaffeError(f"{shown(path)}: label {item.label} stands there twice")
        if item.name in names.values():
            raise CaffeError(f"{shown(path)}: the name {item.name!r} stands there twice")
        names[item.label] = item.name
    return names


def read_sizes(path: PathLike) -> list[tuple[str, int, int]]:
    """(name, height, width) of each picture, a line each, in the order of a set's records.

    Raises CaffeError, with the line, for one that does not end in two positive numbers.
    """
    sizes = []
    for number, line in enumerate(read_lines(path, CaffeError, paths=True), 1):
        words = line.split()
        if not words:
            continue
        fits = len(words) == 3 and all(w.isdecimal() and int(w) > 0 for w in words[1:])
        if not fits or max(map(int, words[1:])) >= 2**31:
            raise CaffeError(f"{shown(path)}:{number}: expected name, height and width in pixels")
        sizes.append((words[0], int(words[1]), int(words[2])))
    if not sizes:
        raise CaffeError(f"{shown(path)}: lists no pictures; expected lines of: name height width")
    return sizes

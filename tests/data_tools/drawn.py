"""Hand-drawn masks, and the labels that a tool's files give."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data_tools import labelling
from data_tools.annotations import kinds
from data_tools.classes import ClassTable

SIZE = (12, 8)  # width and height of the pictures of the tests


def art(text: str) -> np.ndarray:
    """Labels drawn as rows of digits; a dot is 0, and rows that are left out below are empty."""
    rows = [[0 if mark == "." else int(mark) for mark in row] for row in text.split()]
    assert all(len(row) == SIZE[0] for row in rows), rows
    return np.array(rows + [[0] * SIZE[0]] * (SIZE[1] - len(rows)))


def labels(path: Path, kind: str | None = None, table: ClassTable | None = None, **options):
    """The labels of each picture by its name: the classes are those of `table`, or the tool's."""
    found = kinds.read(path, kind)
    reader = labelling.Labelling(table or labelling.own_table(found), None, found, **options)
    return {picture.names[0]: reader.read(picture, SIZE) for picture in found.pictures}

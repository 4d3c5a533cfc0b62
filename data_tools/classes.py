"""Class tables, of the benchmarks or a user's own: label, name and colour."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from boundary import reading
from boundary.palette import palette as palette
from data_tools.cli import DataError

TABLES = Path(__file__).parent / "tables"
IGNORED = "(ignored)"


@dataclass(frozen=True)
class ClassTable:
    """names[label]; label 0 is ignored. colors[label]: (r, g, b); None if the table has none."""

    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...] | None = None

    @property
    def highest(self) -> int:
        """The highest label."""
        return len(self.names) - 1

    def describe(self) -> dict[str, list]:
        """dataset.json's `classes` (names) and `palette` ([r, g, b]), both by label."""
        colors = self.colors or palette(len(self.names))
        return {"classes": list(self.names), "palette": [list(color) for color in colors]}


def benchmark(name: str) -> ClassTable:
    """The table of a benchmark: nyuv2-40, nyuv2-13 or sunrgbd-37."""
    dataset, _, count = name.partition("-")
    return read_table(TABLES / f"{dataset}_{count}class.csv")


def parse(text: str) -> ClassTable:
    """The table that `--classes` gives: a number of classes, or the file of a table."""
    if re.fullmatch("[0-9]+", text):
        count = int(text[:4])
        if not 1 <= count <= 255 or len(text) > 3:
            raise DataError(f"--classes {text}: expected 1 to 255 classes")
        return ClassTable((IGNORED, *(f"class {label}" for label in range(1, count + 1))))
    return read_table(text)


def read_table(path: str | Path) -> ClassTable:
    """Reads a CSV with the columns label, name and, for colour-coded labels, r, g, b.

    Labels count up from 0 (ignored) or 1. Raises DataError, naming the line, for anything else.
    """
    rows = reading.read_table(path, ("label", "name"), DataError)
    if not rows:
        raise DataError(f"{path}: a table of no labels; expected label,name[,r,g,b]")
    colored = {"r", "g", "b"} <= set(rows[0][1])
    names, colors = [], []
    if rows[0][1]["label"] == "1":
        names, colors = [IGNORED], [(0, 0, 0)]
    for line, row in rows:
        if row["label"] != str(len(names)):
            label = row["label"][:20]
            raise DataError(f"{path}: line {line}: label {label!r}, expected {len(names)}")
        names.append(row["name"])
        if colored:
            colors.append(_color(row, f"{path}: line {line}"))
    if len(names) > 256:
        raise DataError(f"{path}: {len(names)} labels, expected at most 256 (0 to 255)")
    if colored and len(set(colors)) < len(colors):
        raise DataError(f"{path}: two labels have the same colour")
    return ClassTable(tuple(names), tuple(colors) if colored else None)


def _color(row: dict[str, str], where: str) -> tuple[int, int, int]:
    try:
        color = int(row["r"]), int(row["g"]), int(row["b"])
    except ValueError:
        color = (-1, -1, -1)
    if not all(0 <= part <= 255 for part in color):
        raise DataError(f"{where}: r, g, b must be whole numbers of 0 to 255")
    return color

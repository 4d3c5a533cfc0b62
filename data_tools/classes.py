"""Class tables, of the benchmarks or a user's own: label, name and colour."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from boundary import reading
from boundary.errors import shown
from boundary.palette import palette as palette
from data_tools.cli import DataError

TABLES = Path(__file__).parent / "tables"
IGNORED = "(ignored)"
BENCHMARKS = ("nyuv2-40", "nyuv2-13", "sunrgbd-37")
BACKGROUND = "background"  # of CVAT's label maps: no class
BLACK = (0, 0, 0)
# Lines of LabelMe's labels.txt that are no class.
NOTHING = ("__ignore__", "_background_")

Color = tuple[int, int, int]


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
    """The table that `--classes` gives: a number of classes, a benchmark, or the file of a table.

    Files are a CSV (read_table), a .txt of one name a line (1 up; LabelMe's names of no class are
    left out), or CVAT's label map. Raises DataError for anything else.
    """
    if text in BENCHMARKS:
        return benchmark(text)
    if Path(text).suffix.lower() == ".txt":
        return _read_text(text)
    if re.fullmatch("[0-9]+", text):
        count = int(text[:4])
        if not 1 <= count <= 255 or len(text) > 3:
            raise DataError(f"--classes {text}: expected 1 to 255 classes")
        return ClassTable((IGNORED, *(f"class {label}" for label in range(1, count + 1))))
    return read_table(text)


def _read_text(path: str) -> ClassTable:
    """The table in a list of names, or in a label map: its first line tells them apart."""
    lines = [line.strip() for line in reading.read_lines(path, DataError)]
    lines = [line for line in lines if line and not line.startswith("#")]
    if lines and lines[0].count(":") >= 3:
        named = [(name, color) for name, color in read_label_map(path) if name != BACKGROUND]
        names = [IGNORED, *(name for name, _ in named)]
        colors = ((0, 0, 0), *(color for _, color in named))
    else:
        names, colors = [IGNORED, *(line for line in lines if line not in NOTHING)], None
    if not 2 <= len(names) <= 256:
        raise DataError(f"{path}: {len(names) - 1} names, expected 1 to 255, one a line")
    return ClassTable(tuple(names), colors)


def read_label_map(path: str | Path) -> list[tuple[str, Color]]:
    """Names and colours in CVAT's labelmap.txt. Raises DataError, with its line, for another line.

    Each line is `name:r,g,b:parts:actions`; '#' begins a comment.
    """
    found: list[tuple[str, Color]] = []
    for place, line in enumerate(reading.read_lines(path, DataError), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, *more = line.split(":")
        parts = [part.strip() for part in (more[0] if more else "").split(",")]
        color = tuple(int(part) if re.fullmatch("[0-9]{1,3}", part) else 256 for part in parts)
        where = f"{shown(path)}:{place}"
        if len(color) != 3 or max(color) > 255 or not name.strip():
            raise DataError(f"{where}: {line[:60]!r}, expected name:r,g,b:parts:actions")
        if color in [other for _, other in found]:
            raise DataError(f"{where}: another line has the colour {color}, too")
        found.append((name.strip(), color))
    if not found:
        raise DataError(f"{shown(path)}: names no class, expected name:r,g,b:parts:actions")
    return found


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

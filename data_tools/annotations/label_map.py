"""CVAT's "Segmentation mask 1.1": coloured PNGs in SegmentationClass/, and labelmap.txt.

Each line of labelmap.txt is `name:r,g,b:parts:actions`; '#' begins a comment. Pictures of one
channel hold the numbers of its lines, 0 first. Black that no line has, and the line `background`,
stand for no class. Format: docs.cvat.ai, "Segmentation Mask".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boundary.errors import shown
from data_tools import images
from data_tools.annotations.base import Annotations, Numbers
from data_tools.annotations.shapes import Size
from data_tools.classes import BACKGROUND, BLACK, ClassTable, Color, read_label_map
from data_tools.cli import DataError
from data_tools.record import UNKNOWN

KIND = "CVAT segmentation masks"
FILE, FOLDER = "labelmap.txt", "SegmentationClass"


@dataclass(frozen=True)
class Picture:
    """A picture of labels, by the lines of the label map."""

    file: Path
    names: Sequence[str]
    lines: Sequence[tuple[str, Color]]
    empty = False

    def __str__(self) -> str:
        return shown(self.file)

    def draw(self, number: Numbers, size: Size) -> np.ndarray:
        """As base.Annotated.draw."""
        table = ClassTable(*map(tuple, zip(*self.lines, strict=True)))
        places = images.read_label(self.file, table)
        if places.ndim != 2 or places.dtype.kind not in "ui" or places.max() >= len(self.lines):
            raise DataError(
                f"{self}: expected colours of {FILE}, or numbers of 0 to {len(self.lines) - 1}"
            )
        labels = np.full(len(self.lines), UNKNOWN, np.int16)
        for place in np.unique(places):
            labels[place] = number(self.lines[place][0])
        return labels[places]


def read(path: Path) -> Annotations:
    """The annotations beside labelmap.txt; path: that file. Raises DataError if there are none."""
    lines = read_label_map(path)
    if BLACK not in [color for _, color in lines]:
        lines.append((BACKGROUND, BLACK))
    folder = path.parent / FOLDER
    files = sorted(file for file in folder.rglob("*.png") if not file.name.startswith("."))
    if not files:
        raise DataError(f"{shown(folder)}: expected the PNGs that belong to {shown(path)}")
    pictures = [
        Picture(file, (file.relative_to(folder).as_posix(),), tuple(lines)) for file in files
    ]
    names = [name for name, _ in lines if name != BACKGROUND]
    return Annotations(KIND, shown(path), pictures, names, dict(lines), (BACKGROUND,))

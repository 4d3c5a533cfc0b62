"""What in the labels of a whole data set looks wrong: classes that never occur, labels shifted by
one, a value that stands for none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from boundary.errors import shown
from data_tools import cli
from data_tools.classes import ClassTable
from data_tools.cli import DataError
from data_tools.labelling import Labelling

MANY = 8  # classes that a message names
LARGE = 0.1  # the share of pixels from which on label 0 may be a class


def tell(
    where: str | Path,
    results: Iterable[Mapping[str, Any]],
    labelling: Labelling,
    pictures: Iterable[Path],
) -> None:
    """Says what looks wrong with the labels of finished LMDBs.

    results: their dataset.json. pictures: those of labels, if they come from pictures.
    """
    if not labelling.given:
        return
    pixels = np.zeros(256, np.int64)
    for result in results:
        for label, count in result["label_pixels"].items():
            pixels[int(label)] += count
    numbers = not labelling.zero_based and _numbers(pictures, labelling)
    for text in concerns(pixels, labelling.table, numbers):
        cli.say(f"{where}: {text}")


def _numbers(pictures: Iterable[Path], labelling: Labelling) -> bool:
    """Whether labels are stored as numbers, as the first picture that can be read says."""
    for picture in pictures:
        with suppress(DataError):
            return labelling.stores_numbers(picture)
    return False


def concerns(pixels: np.ndarray, table: ClassTable | None, numbers: bool) -> list[str]:
    """What looks wrong with a data set's labels. pixels: those of each label, 256 counts.

    numbers: whether labels were stored as numbers that may count from 0.
    """
    if not pixels.sum():
        return []
    if table is None:
        return _taken_for_none(pixels)
    absent = [label for label in range(1, table.highest + 1) if not pixels[label]]
    found = []
    if numbers and _shifted(pixels, absent, table):
        share = pixels[0] / pixels.sum()
        found.append(
            f"label 0 (ignored) has {share:.0%} of the pixels, and the highest, {table.highest} "
            f"({shown(table.names[-1])}), never occurs; if labels count from 0, pass --zero-based"
        )
    if absent:
        named = ", ".join(f"{label} ({shown(table.names[label])})" for label in absent[:MANY])
        more = f" and {len(absent) - MANY} more" if len(absent) > MANY else ""
        found.append(f"{len(absent)} of {table.highest} classes never occur: {named}{more}")
    return found


def _shifted(pixels: np.ndarray, absent: Sequence[int], table: ClassTable) -> bool:
    """Whether labels look as if they counted from 0.

    Then label 0 is a class with a large share, the highest label cannot occur, and the one below
    is there, as are most others. With few classes left over, sound labels look otherwise.
    """
    large = pixels[0] >= LARGE * pixels.sum()
    return bool(
        large
        and table.highest > 1
        and pixels[table.highest] == 0
        and pixels[table.highest - 1] > 0
        and len(absent) <= 1 + table.highest // 4
    )


def _taken_for_none(pixels: np.ndarray) -> list[str]:
    """Label 255 far above all others, where no classes were told."""
    others = np.flatnonzero(pixels[:255])
    if not pixels[255] or (len(others) and others[-1] >= 128):
        return []
    highest = int(others[-1]) if len(others) else 0
    return [
        f"label 255 has {pixels[255] / pixels.sum():.0%} of the pixels, and no other is above "
        f"{highest}; if it stands for no class, pass --ignore-label 255"
    ]

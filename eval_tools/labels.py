"""Label sets: the scored labels, and the names and colours of labels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from boundary.reading import read_lines
from data_tools.classes import BENCHMARKS, IGNORED, ClassTable, benchmark, palette, read_table
from data_tools.cli import DataError

MOST = 256  # labels in a picture
# The labels of NYUv2's 40 that ScanNet's benchmark scores (Dai et al., CVPR 2017).
SCANNET_20 = (*range(1, 13), 14, 16, 24, 28, 33, 34, 36, 39)


@dataclass(frozen=True)
class LabelSet:
    """The `values` labels that a net predicts, including the ignored 0, and the scored ones.

    `names` and `colors` (uint8 (values, 3), RGB) have one entry per label, 0 first. `scored` are
    the scored labels in ascending order: all except 0, unless some are selected.
    """

    values: int
    names: tuple[str, ...]
    scored: tuple[int, ...]
    colors: np.ndarray

    @property
    def scored_names(self) -> list[str]:
        """Names of the scored labels."""
        return [self.names[label] for label in self.scored]

    @cached_property
    def ranks(self) -> np.ndarray:
        """Label -> its rank among the scored labels, from 1; 0 for the others: uint8, (256,)."""
        table = np.zeros(256, np.uint8)
        table[list(self.scored)] = np.arange(1, len(self.scored) + 1)
        return table


def label_set(
    values: int,
    info: dict[str, Any],
    names: str | Path | None = None,
    scored: Sequence[int] | None = None,
) -> LabelSet:
    """The labels of a net with `values` score channels.

    Names and colours come from `names`: a benchmark (nyuv2-40, nyuv2-13, sunrgbd-37), a CSV with
    the columns label, name and optionally r, g, b, or a text file with one name per line (label 0
    first or left out). Without it they come from dataset.json; if that has none, names are numbers.

    Raises:
        DataError: more than 256 values, a wrong number of names, or a scored label that the net
            does not have.
    """
    if values > MOST:
        raise DataError(f"the net scores {values} values, at most {MOST} fit a label image")
    if scored is not None and not scored:
        raise DataError("--classes: no label")
    wrong = [label for label in scored or () if not 1 <= label < values]
    if wrong:
        raise DataError(f"--classes: label {wrong[0]} is not among the net's 1..{values - 1}")
    chosen = tuple(sorted(set(scored))) if scored is not None else tuple(range(1, values))
    table = _from_info(values, info) if names is None else _from_file(values, names)
    colors = np.array(table.colors or palette(values), np.uint8)
    return LabelSet(values, table.names, chosen, colors)


def _from_file(values: int, names: str | Path) -> ClassTable:
    if str(names) in BENCHMARKS:
        table = benchmark(str(names))
    elif Path(names).suffix.lower() == ".csv":
        table = read_table(names)
    else:
        lines = [line.strip() for line in read_lines(names, DataError) if line.strip()]
        table = ClassTable((IGNORED, *lines) if len(lines) == values - 1 else tuple(lines))
    if len(table.names) != values:
        raise DataError(
            f"--names {names}: {len(table.names)} names, expected one for each of the net's "
            f"{values - 1} classes"
        )
    return table


def _from_info(values: int, info: dict[str, Any]) -> ClassTable:
    names, colors = info.get("classes"), info.get("palette")
    if not isinstance(names, list) or len(names) != values:
        names = [IGNORED, *range(1, values)]
    if not isinstance(colors, list) or len(colors) != values:
        colors = None
    return ClassTable(tuple(map(str, names)), tuple(map(tuple, colors)) if colors else None)


def parse_classes(text: str) -> tuple[int, ...]:
    """argparse type: `scannet-20`, or labels as in `1-12,14,16`.

    Raises:
        ValueError: it is neither.
    """
    if text == "scannet-20":
        return SCANNET_20
    found: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if not match:
            raise ValueError(f"'{text}' is neither scannet-20 nor labels such as 1-12,14")
        first, last = (
            int(label) if len(label) < 10 else MOST for label in (match[1], match[2] or match[1])
        )
        if not first <= last < MOST:
            raise ValueError(f"'{text}': {part} names no labels below {MOST}, the lower one first")
        found += range(first, last + 1)
    return tuple(found)

"""A scene of ScanNet, exported from its .sens file: color/, depth/ and, with labels, label-filt/.

ScanNet's documentation (Dai et al., CVPR 2017): depth in millimetres; the pictures in `label-filt/`
hold raw ids of objects, which scannetv2-labels.combined.tsv maps to NYUv2's 40 classes. In the
25k frames the labels are in `label/` and are these classes already.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from boundary import reading
from boundary.errors import shown
from data_tools import classes, cli, images
from data_tools.cli import DataError
from data_tools.record import UNKNOWN, UnknownLabel
from data_tools.recordings.association import Association, Pair, by_key
from data_tools.recordings.base import (
    NUMBERED,
    Kind,
    Recording,
    Settings,
    listed,
    needed,
    picture,
)

RAW, MAPPED = "label-filt", "label"
SIGNS = (RAW, MAPPED, "instance-filt", "pose", "intrinsic", "intrinsics_color.txt")
IDS = 2**16


class ScanNetScene(Recording):
    """A scene. table: label of each raw id; None if the labels stay as they are."""

    def __init__(
        self, where: Path, association: Association, table: np.ndarray | None, settings: Settings
    ):
        super().__init__(where, KIND, association)
        self._table, self._ignore_unknown = table, settings.ignore_unknown
        self._labeled = any(pair.label for pair in self.pairs)
        self._nyu = table is not None or any(
            pair.label and pair.label.parent.name == MAPPED for pair in self.pairs
        )

    def read_label(self, pair: Pair) -> np.ndarray:
        """Labels by the table, or as stored. Raises UnknownLabel for an id without a label."""
        ids = images.read_label(pair.label)
        if self._table is None:
            if not self._nyu and ids.size and ids.max() > 255 and not self._ignore_unknown:
                raise UnknownLabel(
                    f"{shown(pair.label)}: label {ids.max()} is one of ScanNet's raw ids; "
                    "--label-map scannetv2-labels.combined.tsv makes them NYUv2's 40 classes"
                )
            return ids
        if ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() >= IDS:
            raise DataError(f"{shown(pair.label)}: expected whole numbers of 0 to {IDS - 1}")
        label = self._table[ids]
        if not self._ignore_unknown and (label == UNKNOWN).any():
            strange = ids[label == UNKNOWN].min()
            raise UnknownLabel(f"{shown(pair.label)}: label {strange} is not in --label-map")
        return label

    def files(self, index: int) -> dict[str, Path]:
        """The files, without labels that are mapped."""
        found = super().files(index)
        return {part: file for part, file in found.items()
                if part != "label" or self._table is None}  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """Whether there are labels, and their classes."""
        if not (self._labeled and self._nyu):
            return {"labeled": self._labeled}
        table = classes.benchmark("nyuv2-40")
        return {"labeled": True, "dataset": "scannet-40", **table.describe()}


def read_map(path: Path) -> np.ndarray:
    """ScanNet's table of labels: the NYUv2 class of each raw id, UNKNOWN where there is none.

    Raises DataError, naming the line, for a row that is not one of its.
    """
    table = np.full(IDS, UNKNOWN, np.int16)
    table[0] = 0
    for line, row in reading.read_table(path, ("id", "nyu40id"), DataError):
        texts = row["id"], row["nyu40id"] or "0"  # some ids have no class
        if not all(text.isdecimal() and len(text) <= 5 for text in texts):
            raise DataError(f"{shown(path)}:{line}: id and nyu40id must be whole numbers")
        number, label = map(int, texts)
        if number >= IDS or label > 40:
            raise DataError(f"{shown(path)}:{line}: id {number}, nyu40id {label}: out of range")
        table[number] = label
    return table


def _recognise(where: Path) -> bool:
    pictures = listed(where / "color", images.COLOR) and listed(where / "depth", images.DEPTH)
    return bool(pictures) and any((where / sign).exists() for sign in SIGNS)


def _open(where: Path, settings: Settings) -> Recording:
    parts = ("color", images.COLOR), ("depth", images.DEPTH)
    color, depth = (
        [picture(where, file) for file in needed(where / name, suffixes)]
        for name, suffixes in parts
    )
    association = by_key(color, depth, NUMBERED)
    keys = {one.name: one.key for one in color}
    labels = _labels(where) if settings.labels else {}
    pairs = [replace(pair, label=labels.get(keys[pair.name])) for pair in association.pairs]
    table = read_map(settings.label_map) if settings.label_map and labels else None
    if labels:
        _check_map(where, next(iter(labels.values())).parent.name, table)
    return ScanNetScene(where, replace(association, pairs=pairs), table, settings)


def _check_map(where: Path, folder: str, table: np.ndarray | None) -> None:
    """Raises DataError for a table for labels that need none; says where one is missing."""
    told = f"{shown(where / folder)}: these labels are"
    if folder == MAPPED and table is not None:
        raise DataError(f"{told} NYUv2's 40 classes already; leave --label-map out")
    if folder == RAW and table is None:
        cli.say(
            f"{told} taken as they are, ScanNet's raw ids; --label-map "
            "scannetv2-labels.combined.tsv makes them NYUv2's 40 classes"
        )


def _labels(where: Path) -> dict[tuple, Path]:
    """The label files by key."""
    for name in (RAW, MAPPED):
        if files := listed(where / name, images.LABEL):
            return {picture(where, file).key: file for file in files}
    return {}


KIND = Kind(
    "scannet",
    "ScanNet export",
    "color/ and depth/ with numbers as names, and label-filt/, label/, pose/ or intrinsic/",
    1000,
    _recognise,
    _open,
)

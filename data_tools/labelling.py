"""Where frames' labels come from: pictures of labels, or the files of a labelling tool.

data_tools.folder, data_tools.sequence and eval_tools.evaluate share the options. `Labelling` reads
a frame's labels.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boundary.errors import shown
from data_tools import classes, cli, images
from data_tools.annotations import kinds
from data_tools.annotations.base import Annotated, Annotations
from data_tools.classes import IGNORED, ClassTable
from data_tools.cli import DataError
from data_tools.matching import match
from data_tools.record import UNKNOWN, UnknownLabel

STANDS_FOR_NONE = (255, 65535, -1)  # values by which others mark pixels without a label


def add_options(group: Any) -> None:
    """Adds the options on labels to a parser, or to a group of one."""
    source = group.add_mutually_exclusive_group()
    source.add_argument(
        "--label",
        metavar="DIR",
        help="labels: PNG (plain, palette or colours) or NPY; without this option and "
        "--labels-from every label is 0, which is good only for prediction",
    )
    add_tool(group, source)
    group.add_argument(
        "--classes",
        metavar="N|TABLE|nyuv2-40|...",
        help="number of classes, or a table of them: a .csv of label,name[,r,g,b], a .txt of one "
        "name a line, CVAT's labelmap.txt, nyuv2-40, nyuv2-13 or sunrgbd-37; names of "
        "--labels-from are looked up in it (default there: the tool's own names)",
    )
    add_numbers(group)


def add_tool(group: Any, source: Any) -> None:
    """Adds --labels-from to `source`, among options of which one may be given, and its kind."""
    source.add_argument(
        "--labels-from",
        type=Path,
        metavar="PATH",
        help="labels from a labelling tool's files: CVAT, LabelMe, COCO or Label Studio",
    )
    group.add_argument(
        "--labels-kind",
        choices=tuple(kinds.NEEDS),
        help="the form of --labels-from (default: recognised by the files)",
    )


def add_numbers(group: Any, where: str = "label files") -> None:
    """Adds the options on labels that are stored as numbers. where: what holds them, in words."""
    group.add_argument(
        "--ignore-label",
        type=_values,
        action="extend",
        default=[],
        metavar="V[,V]",
        help=f"values in {where} that stand for no class, e.g. 255: they become 0",
    )
    group.add_argument(
        "--zero-based",
        action="store_true",
        help=f"{where} count classes from 0: each becomes one more, after --ignore-label",
    )


def _values(text: str) -> list[int]:
    if not re.fullmatch(r"-?\d{1,9}(,-?\d{1,9})*", text):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a label or several, as in 255 or 254,255"
        )
    return [int(part) for part in text.split(",")]


@dataclass
class Labelling:
    """How frames get their labels. It is pickled for the workers.

    table: the classes; None if they were not told. label: where pictures of labels are, as --label.
    annotations: a tool's files instead of them. ignore, zero_based: the options. ignore_unknown:
    labels that no class has become UNKNOWN.
    """

    table: ClassTable | None = None
    label: str | None = None
    annotations: Annotations | None = None
    ignore: Sequence[int] = ()
    zero_based: bool = False
    ignore_unknown: bool = False
    _found: dict[str, int] = field(default_factory=dict, repr=False)

    @property
    def given(self) -> bool:
        """Whether frames have labels at all."""
        return self.label is not None or self.annotations is not None

    @property
    def source(self) -> str | None:
        """Where the labels are, for dataset.json."""
        return self.annotations.path if self.annotations else self.label

    @property
    def highest(self) -> int:
        """The highest label."""
        return self.table.highest if self.table else 255

    def facts(self) -> dict[str, Any]:
        """dataset.json's `labeled` and, if they are known, `classes` and `palette`."""
        return {"labeled": self.given, **(self.table.describe() if self.table else {})}

    def describe(self) -> dict[str, Any]:
        """The options for dataset.json; only those that were given."""
        told: dict[str, Any] = {}
        if self.ignore:
            told["ignore_label"] = list(self.ignore)
        if self.zero_based:
            told["zero_based"] = True
        if self.annotations:
            told["labels_kind"] = self.annotations.kind
        return told

    def annotated(self, colors: Mapping[str, Path]) -> dict[str, Annotated]:
        """The annotated picture of each frame. colors: the frames' colour files by frames' names.

        Pictures that belong to no frame come last, under their own names. Raises DataError if a
        picture may belong to several frames, or two to one.
        """
        return match(colors, self.annotations.pictures)

    def read(self, source: Path | Annotated, size: tuple[int, int]) -> np.ndarray:
        """A frame's labels, H x W integers, from a picture of labels or an annotated picture.

        size: width and height of the colour picture. Raises UnknownLabel for labels of no class,
        unless ignore_unknown, and DataError for files that cannot be read.
        """
        if isinstance(source, Path):
            return images.read_label(
                source, self.table, self.ignore_unknown, lambda n: self.numbers(n, shown(source))
            )
        return source.draw(lambda name: self.number(name, str(source)), size)

    def stores_numbers(self, path: Path) -> bool:
        """Whether a picture of labels holds numbers, and not colours of the table.

        Raises as read.
        """
        seen: list[np.ndarray] = []
        images.read_label(path, self.table, True, lambda stored: seen.append(stored) or stored)
        return bool(seen)

    def number(self, name: str, where: str) -> int:
        """The label of a class's name in a tool's files. Raises as read, naming `where`."""
        name = name.strip()
        if name not in self._found:
            self._found[name] = self._look_up(name)
        found = self._found[name]
        if found == UNKNOWN and not self.ignore_unknown:
            raise UnknownLabel(f"{where}: {shown(name)[:60]!r} is not in the table of classes")
        return found

    def _look_up(self, name: str) -> int:
        for same in (str, str.casefold):
            found = [i for i, other in enumerate(self.table.names) if same(other) == same(name)]
            if len(found) > 1:
                raise DataError(f"{shown(name)!r} is in the table of classes {len(found)} times")
            if found:
                return found[0]
        return 0 if name in self.annotations.nothing else UNKNOWN

    def numbers(self, label: np.ndarray, where: str) -> np.ndarray:
        """Labels from the numbers in a file (integers of any shape; others are left as they are).

        Raises UnknownLabel for one of no class, where the options may help.
        """
        if label.dtype.kind not in "ui" or not label.size:
            return label
        changed = label
        if self.zero_based:
            changed = label.astype(np.int64) + 1
        if self.ignore:
            changed = np.where(np.isin(label, self.ignore), 0, changed)
        if not self.ignore_unknown:
            self._check(label, changed, where)
        return changed

    def _check(self, label: np.ndarray, changed: np.ndarray, where: str) -> None:
        wrong = (changed > self.highest) | (changed < 0)
        if not wrong.any():
            return
        value = int(label[wrong][0])
        remedy = f"; --ignore-label {value} takes it for 0" if value in STANDS_FOR_NONE else ""
        if self.zero_based:
            expected = f"0 to {self.highest - 1} (--zero-based)"
        elif remedy:
            expected = f"0 (ignored) to {self.highest}"
        else:
            return  # what checks the frame says it
        raise UnknownLabel(f"{where}: label {value} is out of range, expected {expected}{remedy}")


def from_args(args: argparse.Namespace) -> Labelling:
    """The labelling that the options select; reads --classes and --labels-from.

    args: those of add_options, `unknown` of build.add_arguments and `usage`. Says what was
    recognised. Raises DataError for files that cannot be used.
    """
    if args.labels_kind and not args.labels_from:
        args.usage.error("--labels-kind goes with --labels-from")
    table = classes.parse(args.classes) if args.classes else None
    common = {
        "ignore": tuple(dict.fromkeys(args.ignore_label)),
        "zero_based": args.zero_based,
        "ignore_unknown": args.unknown == "ignore",
    }
    if not args.labels_from:
        return Labelling(table, args.label, **common)
    found = kinds.read(args.labels_from, args.labels_kind)
    if found is None:
        cli.say(f"{args.labels_from}: pictures of labels")
        return Labelling(table, str(args.labels_from), **common)
    if args.zero_based or args.ignore_label:
        args.usage.error(f"--zero-based, --ignore-label: the labels of {found.kind} are names")
    if table is not None and re.fullmatch("[0-9]+", args.classes):
        args.usage.error(f"--classes {args.classes}: the labels of {found.kind} are names")
    introduce(found)
    return Labelling(table or own_table(found), None, found, **common)


def own_table(found: Annotations) -> ClassTable:
    """The tool's own classes, 1 up in its order; with its colours, if all have one.

    Raises DataError for more than 255.
    """
    names = list(found.names)
    if not 1 <= len(names) <= 255:
        raise DataError(f"{found.path}: names {len(names)} classes, expected 1 to 255")
    colors = [found.colors.get(name) for name in names]
    if None in colors or len({*colors, (0, 0, 0)}) <= len(colors):
        return ClassTable((IGNORED, *names))
    return ClassTable((IGNORED, *names), ((0, 0, 0), *colors))


def introduce(found: Annotations) -> None:
    """Says what the files of a labelling tool hold."""
    empty = sum(picture.empty for picture in found.pictures)
    nothing = f", {empty} of them without shapes" if empty else ""
    cli.say(
        f"{found.path}: {found.kind}, {len(found.pictures)} pictures{nothing}, "
        f"{len(found.names)} classes"
    )
    if found.left_out:
        things = ", ".join(f"{count} x {shown(k)}" for k, count in sorted(found.left_out.items()))
        cli.say(f"{found.path}: left out, as they tell no area: {things}")
    for note in found.notes:
        cli.say(f"{found.path}: {note}")
    alike: dict[str, list[str]] = {}
    for name in found.names:
        alike.setdefault(name.casefold(), []).append(name)
    for names in alike.values():
        if len(names) > 1:
            told = " and ".join(map(shown, names))
            cli.say(f"{found.path}: {told} count as different classes")

"""Converts your own frames to an LMDB: colour, depth and label files, paired by name.

Each of --rgb, --depth and --label is a folder, a file, or a quoted pattern with `*`, `?` or
`[0-9]`, e.g. 'frames/*_depth.png' or 'scenes/*/depth/*.png'. Files in folders are paired if their
names are equal without the suffix and a trailing word such as `_rgb` or `_depth`. With patterns,
the texts that the wildcards match must be equal.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_tools import build, cli, framing, images, label_check, labelling
from data_tools.build import Output
from data_tools.classes import ClassTable
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.files import find, pair
from data_tools.labelling import Labelling
from data_tools.matching import stem
from data_tools.record import Frame, RecordFormat


class Files:
    """The source: frames as triples of files, in the order of their names."""

    block = 1

    def __init__(
        self,
        rgb: str,
        depth: str,
        label: str | None,
        table: ClassTable | None,
        skip_unpaired: bool = False,
        named: Callable[[Path], str] | None = None,
        labels: Labelling | None = None,
    ):
        """named: the name of a file in a folder, by which it is paired (default: `stem`).
        labels: how labels are read (default: as pictures, by `table`); its annotations stand for
        label files."""
        self._labels = labels or Labelling(table)
        named = named or stem
        parts = {
            "color": find(rgb, images.COLOR, named),
            "depth": find(depth, images.DEPTH, named),
        }
        if label is not None:
            parts["label"] = find(label, images.LABEL, named)
        if all(
            len(files) == 1 and Path(where).is_file()
            for files, where in zip(parts.values(), (rgb, depth, label), strict=False)
        ):
            # A single frame whose files are given one by one; their names may differ.
            name = next(iter(parts["color"]))
            parts = {kind: {name: next(iter(files.values()))} for kind, files in parts.items()}
        if self._labels.annotations:
            found = self._labels.annotated(parts["color"])
            alone = len(parts["color"]) == 1 and Path(rgb).is_file()
            parts["label"] = {n: found[n] for n in found if n in parts["color"] or not alone}
        self.names = pair(parts, skip_unpaired)
        self._files = parts

    def load(self, index: int) -> Frame:
        """Reads frame `index` from its files."""
        files = {part: files[self.names[index]] for part, files in self._files.items()}
        read = None
        if "label" in files:
            read = partial(self._labels.read, files["label"])
        return images.read_frame(files, read)

    def about(self, index: int) -> dict[str, Any]:
        """Nothing: the name is in the key."""
        return {}

    def first_depth(self) -> np.ndarray:
        """The depth of the first frame that has one which can be read, as stored.

        Those before it are bad frames, of which the building says so. Raises DataError for the
        first, if no depth can be read.
        """
        first: DataError | None = None
        for name in self.names:
            try:
                return images.read_depth(self._files["depth"][name])
            except DataError as error:
                first = first or error
        raise first or DataError("no frame has all its files")

    def label_pictures(self) -> list[Path]:
        """The frames' pictures of labels; none if labels do not come from pictures."""
        found = self._files.get("label", {})
        return [found[name] for name in self.names if isinstance(found.get(name), Path)]


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "folder")
    parser.add_argument("out", metavar="OUT_LMDB", type=Path)
    parser.add_argument("--rgb", required=True, metavar="DIR", help="colour images")
    parser.add_argument(
        "--depth", required=True, metavar="DIR", help="depth: PNG (16-bit), EXR, NPY or TIFF"
    )
    framing.add_options(parser)
    labelling.add_options(parser.add_argument_group("labels"))
    parser.add_argument(
        "--val-fraction",
        type=cli.fraction,
        metavar="F",
        help="write this fraction of the frames to OUT_LMDB_val instead of OUT_LMDB",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of that draw (default: 0)")
    build.add_arguments(parser, None, fit="crop")
    return parser


def record_format(args: argparse.Namespace, files: Files, table: ClassTable | None) -> RecordFormat:
    """The format that the options select; some defaults depend on the depth files."""
    unit = args.depth_unit
    if unit is None:
        unit = DepthUnit.parse("m" if files.first_depth().dtype.kind == "f" else "mm")
    depth_range = args.depth_range or DepthRange("none" if unit.kind == "scaled" else "authors")
    if unit.kind == "scaled" and depth_range.rule == "fixed":
        args.usage.error("--depth-range in metres does not go with --depth-unit scaled")
    highest = table.highest if table else 255
    return RecordFormat(
        args.size, unit, depth_range, args.float_depth, highest, **framing.fields(args)
    )


def split(count: int, val_fraction: float, seed: int) -> tuple[list[int], list[int]]:
    """(training, validation) indices of `count` frames, each in order and with at least one."""
    if count < 2:
        raise DataError("--val-fraction needs at least two frames")
    held_out = min(max(round(count * val_fraction), 1), count - 1)
    chosen = set(random.Random(seed).sample(range(count), held_out))
    return [i for i in range(count) if i not in chosen], sorted(chosen)


def outputs(args: argparse.Namespace, count: int) -> list[Output]:
    """The LMDBs to write."""
    if args.val_fraction is None:
        return [Output(args.out, range(count))]
    train, val = split(count, args.val_fraction, args.seed)
    return [
        Output(args.out, train, {"split": "train"}),
        Output(beside(args.out), val, {"split": "val"}),
    ]


def beside(out: Path) -> Path:
    """OUT_val. Raises DataError for a folder without a name of its own."""
    if out.name in ("", ".."):
        raise DataError(f"{out}: --val-fraction needs a name, beside which NAME_val is written")
    return out.with_name(f"{out.name}_val")


def main() -> None:
    """`python -m data_tools.folder`."""
    args = cli.parse(arguments())
    labels = labelling.from_args(args)
    table = labels.table
    files = Files(args.rgb, args.depth, labels.label, table, args.skip_bad, labels=labels)
    info = {
        "tool": "data_tools.folder",
        "source": {"rgb": args.rgb, "depth": args.depth, "label": labels.source},
        "options": {"val_fraction": args.val_fraction, "seed": args.seed, **labels.describe()},
        **labels.facts(),
    }
    format = record_format(args, files, table)
    made = build.build(files, outputs(args, len(files.names)), format, info, build.options(args))
    label_check.tell(args.out, made, labels, files.label_pictures())


if __name__ == "__main__":
    cli.run(main)

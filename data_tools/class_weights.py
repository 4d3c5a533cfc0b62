"""Computes loss weights from the label frequencies of an LMDB, as text that netgen reads.

Methods:
  authors  FuseNet's (ACCV 2016): (1 / f) / median of all labels' (1 / f), where f is a label's
           share of the pixels of the frames in which it occurs; so the weights' median is 1
  median   Eigen and Fergus (ICCV 2015): median of all f / f, with this f
  inverse  1 / (K f) for K labels that occur, where f is a label's share of all pixels; so the
           mean over pixels is 1
  log      ENet (Paszke et al., 2016): 1 / ln(1.02 + f), with the f of inverse
For `authors` all labels count alike, label 0 among them. The other methods leave the ignored label
out: its pixels do not count, and its weight is 0. Labels that never occur have weight 0.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from data_tools import classes, cli
from data_tools.cli import DataError
from data_tools.record import CHANNELS
from data_tools.store import Reader

METHODS = ("authors", "median", "inverse", "log")
ENET_OFFSET = 1.02


def _zeros() -> np.ndarray:
    return np.zeros(256, np.int64)


@dataclass
class Histogram:
    """The pixels of each label in a number of frames, all int64, (256,).

    pixels[label]: those of the label. framed[label]: all of the frames in which it occurs.
    valid[label]: those of these whose label is not the ignored one (None: none is).
    """

    ignore: int | None
    pixels: np.ndarray = field(default_factory=_zeros)
    framed: np.ndarray = field(default_factory=_zeros)
    valid: np.ndarray = field(default_factory=_zeros)

    def add(self, frame: np.ndarray) -> None:
        """Counts one more frame, given its pixels of each label: int64, (256,)."""
        self.pixels += frame
        self.framed[frame > 0] += frame.sum()
        self.valid[frame > 0] += frame.sum() - (0 if self.ignore is None else frame[self.ignore])


def count(reader: Reader, ignore: int | None) -> Histogram:
    """Counts the labels of all records in one pass.

    Raises DataError for a record without five channels or with labels that are not integers.
    """
    histogram = Histogram(ignore)
    for key, planes, _ in cli.progress(reader.planes(), len(reader), "records"):
        where = f"{reader.path}: {key.decode(errors='replace')}"
        histogram.add(label_histogram(planes, where))
    return histogram


def label_histogram(planes: np.ndarray, where: str) -> np.ndarray:
    """Pixels of each label 0..255 in a record's planes (5 x H x W): int64, (256,)."""
    if len(planes) != len(CHANNELS):
        raise DataError(f"{where}: has {len(planes)} channels, expected {', '.join(CHANNELS)}")
    label = planes[4].astype(np.uint8)
    if planes.dtype != np.uint8 and (label != planes[4]).any():
        raise DataError(f"{where}: has labels that are not whole numbers of 0 to 255")
    return np.bincount(label.ravel(), minlength=256)


def weigh(histogram: Histogram, method: str, labels: int) -> np.ndarray:
    """The weight of each of `labels` labels, float64, by one of METHODS.

    Raises DataError if no label occurs.
    """
    pixels, ignore = histogram.pixels[:labels].astype(np.float64), histogram.ignore
    if method != "authors" and ignore is not None and ignore < labels:
        pixels[ignore] = 0
    seen = pixels > 0
    if not seen.any():
        raise DataError("none of its labels is among those to weigh")
    share = pixels[seen] / pixels.sum()
    weights = np.zeros(labels)
    if method == "authors":
        rarity = histogram.framed[:labels][seen] / pixels[seen]
        # For an even number of labels this median is not 1 / the median of the shares.
        weights[seen] = rarity / np.median(rarity)
    elif method == "median":
        share = pixels[seen] / histogram.valid[:labels][seen]
        weights[seen] = np.median(share) / share
    elif method == "inverse":
        weights[seen] = 1 / (len(share) * share)
    else:
        weights[seen] = 1 / np.log(ENET_OFFSET + share)
    return weights


def table(histogram: Histogram, weights: np.ndarray, names: list[str]) -> str:
    """One line per label: its weight and, after `#`, label, name and share of all pixels."""
    shares = histogram.pixels[: len(weights)] / histogram.pixels.sum()
    lines = (
        f"{weight:.6f}  # {label} {name}: {100 * share:.4g} %"
        for label, (weight, share, name) in enumerate(zip(weights, shares, names, strict=True))
    )
    return "\n".join(lines)


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "class_weights")
    parser.add_argument("lmdb", metavar="LMDB", type=Path)
    parser.add_argument("--method", choices=METHODS, default="authors", help="default: authors")
    parser.add_argument(
        "--ignore",
        type=cli.whole(-1, 255),
        default=0,
        metavar="LABEL",
        help="the label that methods other than authors leave out (default: 0); -1 for none",
    )
    parser.add_argument(
        "--classes",
        metavar="N|TABLE|nyuv2-40|...",
        help="the classes (default: those in dataset.json, else as many as occur)",
    )
    return parser


def label_names(reader: Reader, given: str | None, histogram: Histogram) -> list[str]:
    """The names of the labels to weigh, 0 first.

    Raises DataError if any other label occurs.
    """
    highest = int(np.flatnonzero(histogram.pixels)[-1])
    if given:
        names = list(classes.parse(given).names)
    else:
        names = reader.info.get("classes") or list(classes.parse(str(max(highest, 1))).names)
    if highest >= len(names):
        raise DataError(f"{reader.path}: label {highest} occurs, expected 0 to {len(names) - 1}")
    return names


def main() -> None:
    """`python -m data_tools.class_weights`."""
    args = cli.parse(arguments())
    reader = Reader(args.lmdb)
    if not len(reader):
        raise DataError(f"{args.lmdb}: holds no records")
    if reader.info.get("labeled") is False:
        raise DataError(f"{args.lmdb}: its frames have no labels")
    ignore = None if args.ignore < 0 else args.ignore
    histogram = count(reader, ignore)
    names = label_names(reader, args.classes, histogram)
    weights = weigh(histogram, args.method, len(names))
    print(
        f"# loss weights by method '{args.method}' from {len(reader)} records; "
        "weight  # label name: share of pixels"
    )
    print(table(histogram, weights, names))


if __name__ == "__main__":
    cli.run(main)

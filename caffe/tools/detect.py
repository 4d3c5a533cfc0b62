"""Classify windows of pictures with a trained net, as R-CNN does; pycaffe's detect.py.

    python -m caffe.tools.detect windows.csv scores.csv --model_def deploy.prototxt \\
        --pretrained_model net.caffemodel --crop_mode list

INPUT is a .csv with the columns filename, ymin, xmin, ymax, xmax, one window a row, or (for
--crop_mode selective_search) a .txt with one picture's name a line.
OUTPUT is a .csv with the same columns and class0, class1, ..., or an .h5 with the data sets
filename, window (N x 4) and prediction (N x classes).
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from boundary import engine
from boundary.late import h5py
from boundary.reading import read_lines, read_table
from boundary.streams import say
from caffe.commands.script import add_preprocessing, load_engine, preprocessing, run
from caffe.errors import CaffeError
from caffe.formats.files import atomic_write

if TYPE_CHECKING:
    from caffe.detector import Detector

LARGEST = 2**24  # pixels
COLUMNS = ("ymin", "xmin", "ymax", "xmax")
Detections = Sequence[dict[str, Any]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m caffe.tools.detect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input_file", help="windows (.csv) or names of pictures (.txt)")
    parser.add_argument("output_file", help="the .csv or .h5 to write")
    add_preprocessing(parser)
    parser.add_argument(
        "--crop_mode",
        choices=("list", "selective_search"),
        default="selective_search",
        help="where windows come from (selective_search)",
    )
    parser.add_argument(
        "--context_pad",
        type=int,
        default=16,
        help="pixels of a window's surroundings on each side of the net's input (16)",
    )
    return parser


def read_windows(path: str) -> list[tuple[str, list[tuple[float, ...]]]]:
    """Read (picture, its windows) from a .csv, in the order in which the pictures first appear.

    Raises CaffeError for a missing column or a value that is no number.
    """
    windows: dict[str, list[tuple[float, ...]]] = {}
    for line, row in read_table(path, ("filename", *COLUMNS), CaffeError):
        try:
            window = tuple(float(row[column]) for column in COLUMNS)
        except ValueError:
            window = (math.nan,)
        if not all(abs(side) < LARGEST for side in window):
            raise CaffeError(f"{path}:{line}: expected numbers of pixels in {COLUMNS}")
        windows.setdefault(row["filename"], []).append(window)
    return list(windows.items())


def detect(detector: Detector, path: str, crop_mode: str) -> Detections:
    """The detections for an input file. Raises CaffeError for a file of the wrong kind."""
    ending = Path(path).suffix.lower()
    if crop_mode == "list":
        if ending != ".csv":
            raise CaffeError(f"{path}: --crop_mode list takes windows from a .csv")
        return detector.detect_windows(read_windows(path))
    if ending != ".txt":
        raise CaffeError(f"{path}: --crop_mode selective_search takes names from a .txt")
    names = read_lines(path, CaffeError, paths=True)
    return detector.detect_selective_search([name.strip() for name in names if name.strip()])


def write(path: str, detections: Detections) -> None:
    """Write detections as .csv or .h5, according to the path's ending."""
    windows = np.array([d["window"] for d in detections]).reshape(-1, 4)
    predictions = np.array([np.ravel(d["prediction"]) for d in detections])
    names = [str(d["filename"]) for d in detections]
    if path.lower().endswith(".csv"):
        with atomic_write(path) as beside, beside.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            classes = predictions.shape[1] if len(predictions) else 0
            rows.writerow(["filename", *COLUMNS, *(f"class{i}" for i in range(classes))])
            for name, window, scores in zip(names, windows, predictions, strict=True):
                rows.writerow([name, *(f"{v:g}" for v in window), *scores])
        return
    from boundary.hdf5 import writing_hdf5

    with writing_hdf5(path, CaffeError) as file:
        file["filename"] = np.array(names, dtype=h5py.string_dtype())
        file["window"], file["prediction"] = windows, predictions


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; exits 2 for bad usage. Raises CaffeError for bad input."""
    args = _parser().parse_args(arguments)
    engine.check(args.engine, CaffeError)
    if not args.output_file.lower().endswith((".csv", ".h5", ".hdf5")):
        raise CaffeError(f"{args.output_file}: unknown ending; expected .csv or .h5")
    load_engine()
    from caffe.detector import Detector

    options = preprocessing(args)
    if options["mean"] is not None:  # one number per channel, because windows have any size
        options["mean"] = options["mean"].reshape(len(options["mean"]), -1).mean(1)
    detector = Detector(
        args.model_def, args.pretrained_model, context_pad=args.context_pad, **options
    )
    detector.observed = args.engine is None  # engines compute what nobody observes
    start = time.monotonic()
    detections = detect(detector, args.input_file, args.crop_mode)
    spent = time.monotonic() - start
    say(f"Processed {len(detections)} windows in {spent:.3f} s.")
    write(args.output_file, detections)
    say(f"Results are in {args.output_file}")


if __name__ == "__main__":
    run("python -m caffe.tools.detect", main)

"""What the commands of eval_tools share: a quiet log, their options and checks of them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import caffe
from data_tools import cli
from data_tools.cli import DataError, whole
from eval_tools.inference import Options
from eval_tools.labels import parse_classes


def parser(description: str | None, module: str) -> argparse.ArgumentParser:
    """An ArgumentParser for `python -m eval_tools.<module>`; shows the module's docstring."""
    return cli.parser(description, module, "eval_tools")


def run(module: str, main: Callable[[Sequence[str] | None], None]) -> None:
    """Runs a command and ends the process: 0 done, 1 bad input (one line), 130 interrupted."""
    if "GLOG_minloglevel" not in os.environ and hasattr(caffe, "init_log"):  # old pycaffes: none
        caffe.init_log(2)  # a net's hundred lines on how it is set up would bury ours
    cli.run(lambda: main(None), f"python -m eval_tools.{module}")


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """An argparse type from a parser that raises ValueError: its message reaches the user."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the two files that make a trained net."""
    parser.add_argument("deploy", metavar="DEPLOY", help="deploy prototxt (netgen --deploy)")
    parser.add_argument("weights", metavar="WEIGHTS", help=".caffemodel or .caffemodel.h5")


def add_labels(group: argparse._ArgumentGroup) -> None:
    """Adds which labels count and what they are called."""
    group.add_argument(
        "--classes",
        type=argument(parse_classes),
        metavar="scannet-20|1-12,14",
        help="these labels alone: the net chooses among them, and no others are scored",
    )
    group.add_argument(
        "--names",
        metavar="FILE|nyuv2-40|...",
        help="class names: a file with one a line, a table label,name[,r,g,b] in .csv, nyuv2-40, "
        "nyuv2-13 or sunrgbd-37 (default: those of dataset.json)",
    )


def add_inference(parser: argparse.ArgumentParser) -> None:
    """Adds how a net is run."""
    group = parser.add_argument_group("how the net is run")
    group.add_argument("--batch-size", type=whole(1), default=1, metavar="N", help="default 1")
    group.add_argument("--gpu", type=whole(0), metavar="ID", help="run on that GPU")
    group.add_argument("--flip", action="store_true", help="average with the mirrored frame")
    group.add_argument(
        "--scales",
        type=argument(_scales),
        default=(1.0,),
        metavar="S,S,...",
        help="average over the frame at these multiples of its size, e.g. 0.75,1,1.25",
    )
    group.add_argument(
        "--crf", action="store_true", help="refine with a dense CRF on the frame's colours"
    )
    group.add_argument("--score", metavar="BLOB", help="blob of class scores (default: score)")
    group.add_argument(
        "--scene", metavar="BLOB", help="blob of scene scores (default: scene_score)"
    )


def options(
    args: argparse.Namespace, size: tuple[int, int] | None, labels: tuple[int, ...] | None
) -> Options:
    """The inference options that add_inference took."""
    return Options(size, args.flip, args.scales, args.crf, labels)


def _scales(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0.1 <= scale <= 10 for scale in found):
        raise ValueError(f"'{text}' is not a list of scales (0.1 to 10) such as 0.75,1,1.25")
    return found


def check_output(path: str | Path | None) -> None:
    """Raises DataError where a file `path` could not be written: before long work, not after."""
    if path is None:
        return
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected the name of a file")

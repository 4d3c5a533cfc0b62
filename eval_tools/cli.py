"""Common to the commands of eval_tools: a quiet log, options and their checks."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import caffe
from boundary import engine, packed, trust
from data_tools import cli
from data_tools.cli import DataError, whole
from eval_tools.labels import BENCHMARKS, parse_classes

if TYPE_CHECKING:
    from eval_tools.inference import Options


def parser(description: str | None, module: str) -> argparse.ArgumentParser:
    """An ArgumentParser for `python -m eval_tools.<module>`; shows the module's docstring."""
    return cli.parser(description, module, "eval_tools")


def run(module: str, main: Callable[[Sequence[str] | None], None]) -> None:
    """Runs a command. Bad input ends the process with one line and status 1, Ctrl-C with 130."""
    if "GLOG_minloglevel" not in os.environ and hasattr(caffe, "init_log"):  # old pycaffes: none
        caffe.init_log(2)  # a net logs a hundred lines of setup, which would bury ours
    cli.run(lambda: main(None), f"python -m eval_tools.{module}")


def argument(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Makes an argparse type of a parser that raises ValueError; users see its message."""

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments for a trained net: its two files, or one that has both. See `parsed`."""
    parser.add_argument(
        "deploy",
        metavar="DEPLOY",
        help="deploy prototxt (netgen --deploy), or a packed model (eval_tools.pack) or an ONNX "
        "file (caffe.convert, caffe.quantize), which have their own weights",
    )
    parser.add_argument(
        "weights", metavar="WEIGHTS", nargs="?", help=".caffemodel or .caffemodel.h5"
    )
    trust.add_option(parser)


def parsed(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """The arguments of a command that has those of add_model.

    WEIGHTS stand beside a prototxt, and not beside a packed model or an ONNX file; anything else is
    bad usage, as it is for the two values of --versus.
    """
    # All positional arguments are looked at together, wherever options stand between them: only
    # then is it clear whether one is missing.
    args = parser.parse_intermixed_args(_with_gaps(sys.argv[1:] if argv is None else argv))
    if problem := packed.misplaced(args.deploy, args.weights):
        parser.error(problem)
    for model in getattr(args, "versus", []):
        model[1] = model[1] or None
        if problem := packed.misplaced(*model):
            parser.error(f"--versus {problem}")
    return args


def _with_gaps(argv: Sequence[str]) -> list[str]:
    """The arguments with an empty text as the second value of each --versus MODEL."""
    found: list[str] = []
    for place, text in enumerate(argv):
        found.append(text)
        if place and argv[place - 1] == "--versus" and packed.whole_model(text):
            found.append("")
    return found


def add_labels(group: argparse._ArgumentGroup) -> None:
    """Adds the options on scored labels and class names."""
    group.add_argument(
        "--classes",
        type=argument(parse_classes),
        metavar="scannet-20|1-12,14",
        help="only these labels: the net chooses among them, and no others are scored",
    )
    add_names(group)


def add_names(group: argparse._ArgumentGroup) -> None:
    """Adds the option on class names."""
    group.add_argument(
        "--names",
        metavar="FILE|nyuv2-40|...",
        help="class names: a file with one per line, a .csv table label,name[,r,g,b], nyuv2-40, "
        "nyuv2-13 or sunrgbd-37 (default: those in dataset.json)",
    )


def add_inference(parser: argparse.ArgumentParser) -> None:
    """Adds the options on running a net."""
    group = parser.add_argument_group("inference")
    group.add_argument(
        "--batch-size", type=whole(1), default=1, metavar="N", help="frames per batch (default: 1)"
    )
    group.add_argument("--gpu", type=whole(0), metavar="ID", help="run on that GPU")
    engine.add_option(group)
    group.add_argument(
        "-v", "--verbose", action="store_true", help="say which engine computes, and why"
    )
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


def use_engine(args: argparse.Namespace) -> None:
    """Sets the engine that add_inference's options ask for. Raises DataError if there is none."""
    if args.verbose and hasattr(caffe, "set_verbosity"):
        caffe.set_verbosity(1)
    engine.check(args.engine, DataError)
    if args.engine is None:
        return
    if not hasattr(caffe, "set_engine"):  # another pycaffe
        raise DataError("--engine: this Caffe has no other engines")
    try:
        caffe.set_engine(args.engine)
    except RuntimeError as error:
        raise DataError(f"--engine: {cli.describe(error)}") from error


def options(
    args: argparse.Namespace, size: tuple[int, int] | None, labels: tuple[int, ...] | None
) -> Options:
    """The inference options, from arguments that add_inference defined."""
    from eval_tools.inference import Options  # not above: not every command runs a net

    return Options(size, args.flip, args.scales, args.crf, labels)


def _scales(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(0.1 <= scale <= 10 for scale in found):
        raise ValueError(f"'{text}' is not a list of scales (0.1 to 10) such as 0.75,1,1.25")
    return found


def model_files(args: argparse.Namespace) -> list[tuple[str, str]]:
    """The files that the arguments of add_model and add_labels name, with what they are."""
    files = [("DEPLOY", args.deploy)]
    if args.weights is not None:
        files.append(("WEIGHTS", args.weights))
    if args.names is not None and args.names not in BENCHMARKS:
        files.append(("--names", args.names))
    return files


def label_files(labels: str | None) -> list[tuple[str, str | Path]]:
    """The files of --labels: an LMDB, or the pictures in a folder."""
    if labels is None:
        return []
    if (Path(labels) / "data.mdb").is_file():
        return [("--labels", labels)]
    from data_tools.images import LABEL

    return [("--labels", file) for file in Path(labels).rglob("*") if file.suffix.lower() in LABEL]


def check_output(path: str | Path | None) -> None:
    """Raises DataError if the file `path` cannot be written; to be called before long work."""
    if path is None:
        return
    path = Path(path)
    if not path.absolute().parent.is_dir():
        raise DataError(f"{path}: the folder {path.parent} does not exist")
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected the name of a file")

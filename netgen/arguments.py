"""The arguments of `python -m netgen NET` and its companions: parsers, and types of values."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from caffe import TEST, TRAIN
from netgen import augment, label_weights
from netgen.datasets import DATASETS
from netgen.fusenet import NETS
from netgen.solver import Scheme

DEFAULT_DATASET = "nyuv2-40"
PHASES = {"train": TRAIN, "test": TEST}
MOST = 2**31 - 1  # the largest number of most fields


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments; `command` is the name of a net or of a command, `argv` is argv itself.

    Raises SystemExit(2) for bad usage, as argparse does.
    """
    parser = argparse.ArgumentParser(
        prog="python -m netgen",
        description="Prints FuseNet's networks and their solvers as Caffe prototxt.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=(
            "nets:\n"
            "  sf1..sf5  sparse fusion: depth is added before each of the first K poolings\n"
            "  df1..df5  dense fusion: after every convolution of the first K blocks\n"
            "  rgb, depth, rgbd  baselines: one input, or both stacked to four channels\n"
        ),
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="NET | COMMAND")
    net_parser = _net_parser(commands)
    _solver_parser(commands)
    _file_parser(commands, "summary", "print layers, shapes, parameters, multiply-adds and memory")
    _file_parser(commands, "draw", "draw a net")
    papers = commands.add_parser("papers", help="write the papers' nets and solvers to a folder")
    papers.add_argument(
        "folder", metavar="DIR", help="folder to write to; each data set has a folder in it"
    )
    args = parser.parse_args(argv)
    args.argv = list(argv)
    if args.command in NETS:
        _complete(args, net_parser.error)
    names = [name for name, _ in getattr(args, "input", [])]
    for name in names:
        if names.count(name) > 1:
            what = f"the shape of {name}" if name else "a shape without a blob's name"
            parser.error(f"--input gives {what} twice")
    return args


# -------------------------------------------------------------------------------------------------
# NET
# -------------------------------------------------------------------------------------------------


def _net_parser(commands: Any) -> argparse.ArgumentParser:
    first, *others = NETS
    parser = commands.add_parser(
        first,
        aliases=others,
        prog="python -m netgen NET",
        help="print a net",
        description="Prints a net as prototxt: for training and testing, or with --deploy for "
        "prediction.",
    )
    add = parser.add_argument
    add("--dataset", choices=[*DATASETS, "custom"], help=f"default: {DEFAULT_DATASET}")
    default = "default: lmdb/DATASET_SPLIT, or lmdb/SPLIT if that holds the data set"
    text = "training records, whose dataset.json says classes and size where no option does"
    add("--source", metavar="LMDB", help=f"{text}; {default}")
    add("--test-source", metavar="LMDB", help=f"test records; {default}")
    _list_options(parser)
    add("--batch-size", type=_positive, metavar="N", help="default: 4, or 1 with --deploy")
    add("--test-batch-size", type=_positive, default=1, metavar="N", help="default: 1")
    text = "default: the records', else the data set's, else 320x240"
    add("--size", type=_size, metavar="WxH", help=text)
    text = "classes of a custom data set, without 0; default: those of the records or the weights"
    add("--classes", type=_positive, metavar="N", help=text)
    add(
        "--label-weights",
        metavar="paper|FILE|none",
        help="loss weight of each label; default: paper for sunrgbd-37, else none",
    )
    add(
        "--augment",
        type=augment.parse,
        metavar="HOW",
        help=f"change training records at random: {augment.FORM}, or some of these; other versions "
        "of Caffe know only mirror",
    )
    add(
        "--freeze",
        type=_names,
        metavar="PART[,PART...]",
        help="layers that keep the weights with which training starts: encoder (both), rgb, depth, "
        "or patterns of layers' names such as conv1_*",
    )
    add(
        "--iou",
        action="store_true",
        help="tests also tell global accuracy, mean class accuracy and mean IoU over all test "
        "records (layer SegmentationAccuracy, which other versions of Caffe do not know)",
    )
    add(
        "--from",
        dest="earlier",
        metavar="FILE",
        help="a net's prototxt, for training or prediction, from which everything is taken that "
        "neither options nor the records of --source say: classes, size, width, dropout, ...",
    )
    add("--no-shuffle", action="store_true", help="read the training records in their order")
    add(
        "--width-multiplier",
        type=float,
        metavar="F",
        help="factor of all channels; default: 1",
    )
    add(
        "--moving-average-fraction",
        type=float,
        metavar="F",
        help="BatchNorm's; default: Caffe's 0.999",
    )
    add(
        "--dropout",
        type=float,
        metavar="F",
        help="share of the values that training drops; default: 0.5",
    )
    add("--scene-classes", type=_natural, metavar="N", help="add a scene branch; default: 0, none")
    add("--scene-loss-weight", type=_from_zero, metavar="F", help="default: 0.1")
    add(
        "--pooling",
        choices=["ceil", "floor"],
        help="rounding of odd sizes; default: ceil, as Caffe's",
    )
    add("--deploy", action="store_true", help="the net for prediction, with Input layers")
    return parser


# The options that go with lists of picture files only.
_LIST_OPTIONS = ("test_data_list", "data_root", "depth_unit", "depth_range", "data_seed")


def _list_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "picture files instead of LMDBs",
        "Each line of a list names a frame: COLOUR DEPTH [LABEL [SCENE]]. The net reads it with "
        "the Python layer RGBDImages of data_tools.layers.",
    )
    add = group.add_argument
    add("--data-list", metavar="FILE", help="training frames")
    add("--test-data-list", metavar="FILE", help="test frames; default: the net has no tests")
    add("--data-root", metavar="DIR", help="folder that the lists' paths are relative to")
    add("--depth-unit", metavar="UNIT", help="mm (default), m, steps in a metre, sunrgbd or scaled")
    add(
        "--depth-range",
        metavar="RULE",
        type=_range,
        help="authors (default), valid or MIN:MAX in metres; with --deploy also for LMDBs",
    )
    add("--data-seed", type=_natural, metavar="N", help="seed of the frames' order; default: 0")


def _complete(args: argparse.Namespace, complain: Callable[[str], NoReturn]) -> None:
    """Choose the data set that --classes means; complain of options that exclude each other.

    told: whether the options say which classes there are; else netgen.known looks at the data.
    old: what the net of --from says, which netgen.known reads.
    """
    args.old = None
    args.told = args.classes is not None or args.dataset not in (None, "custom")
    if args.dataset is None:
        args.dataset = DEFAULT_DATASET if args.classes is None else "custom"
    dataset = DATASETS.get(args.dataset)
    telling = args.source or args.earlier or label_weights.is_file(args.label_weights)
    if dataset is None and args.classes is None and not telling:
        complain("--dataset custom needs --classes N")
    if dataset and args.classes not in (None, dataset.classes):
        complain(f"{args.dataset} has {dataset.classes} classes; --classes is for custom data")
    given = [name for name in _LIST_OPTIONS if getattr(args, name) is not None]
    if given == ["depth_range"] and args.deploy:
        given = []  # it becomes a comment
    if given and args.data_list is None:
        complain(f"--{given[0].replace('_', '-')} goes with --data-list")
    if args.data_list is not None and (args.source or args.test_source):
        complain("--data-list takes the place of --source and --test-source")
    if args.augment and (args.deploy or args.data_list is not None):
        complain("--augment is for training from LMDBs")
    if args.freeze and args.deploy:
        complain("--freeze is for training")


# -------------------------------------------------------------------------------------------------
# solver
# -------------------------------------------------------------------------------------------------


def _solver_parser(commands: Any) -> None:
    scheme = Scheme()
    parser = commands.add_parser(
        "solver",
        help="print a solver with the reported training scheme",
        description="Prints a solver with the training scheme that FuseNet's authors report. "
        "The number of training images and the net's batch size turn epochs into iterations.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, none = parser.add_argument, argparse.SUPPRESS
    only = "other versions of Caffe than NVIDIA's refuse it"
    add("--net", required=True, metavar="FILE", help="train+test prototxt", default=none)
    for split in ("train", "test"):
        add(
            f"--{split}-images",
            type=_positive if split == "train" else _natural,
            metavar="N",
            default=none,
            help=f"number of {split} images (default: the records of the net's LMDB)",
        )
    add("--type", default=scheme.type, choices=_SOLVERS, help="the solver")
    for name, text in (
        ("base-lr", "learning rate at the start"),
        ("momentum", "momentum"),
        ("weight-decay", "L2 regularisation"),
        ("gamma", "factor of policy step"),
        ("power", "exponent of policy poly"),
        ("epochs", "length of the training"),
        ("step-epochs", "length of a step of policy step"),
        ("test-epochs", "epochs between tests; 0: no tests"),
        ("snapshot-epochs", "epochs between snapshots; 0: only the last one"),
        ("warmup-epochs", f"epochs in which the rate rises to base-lr; 0: none; {only}"),
        ("warmup-lr", "rate at which the warm-up begins"),
        ("min-lr", f"least rate, to which policy poly falls; 0: none; {only}"),
    ):
        default = getattr(scheme, name.replace("-", "_"))
        add(f"--{name}", type=_from_zero, default=default, metavar="F", help=text)
    add("--lr-policy", default=scheme.lr_policy, choices=["step", "poly", "fixed"], help="policy")
    for name, instead in (
        ("max-iter", "epochs"),
        ("stepsize", "step-epochs"),
        ("test-interval", "test-epochs"),
        ("snapshot", "snapshot-epochs"),
        ("warmup", "warmup-epochs"),
    ):
        text = f"in iterations, instead of --{instead}"
        add(f"--{name}", type=_positive, metavar="N", default=none, help=text)
    add(
        "--display",
        type=_natural,
        default=scheme.display,
        metavar="N",
        help="iterations between log lines",
    )
    add("--iter-size", type=_positive, default=1, metavar="N", help="batches per update")
    add("--devices", type=_positive, default=1, metavar="N", help="GPUs that train together")
    add("--random-seed", type=_natural, metavar="N", default=none, help="for repeatable runs")
    add(
        "--snapshot-prefix",
        metavar="PATH",
        default=none,
        help="path of the snapshots, without _iter_N (default: the net's name)",
    )


_SOLVERS = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


# -------------------------------------------------------------------------------------------------
# summary, draw
# -------------------------------------------------------------------------------------------------


def _file_parser(commands: Any, name: str, text: str) -> None:
    parser = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
    add = parser.add_argument
    add("file", metavar="FILE", help="a net's prototxt, of any version of Caffe")
    if name == "draw":
        add("out", metavar="OUT", type=_picture, help="file to write, .svg or .png")
        add("--expand", action="store_true", help="draw a box for every layer")
        add("--title", metavar="TEXT", help="default: the net's name")
    add("--phase", choices=PHASES, help="default: train for a net that has training data")
    add("--level", type=int, metavar="N", help="level of the net's state; default: the net's")
    add("--stage", action="append", default=[], metavar="NAME", help="stage of the net's state")
    add(
        "--input",
        action="append",
        default=[],
        type=_input_shape,
        metavar="[BLOB=]N,C,H,W",
        help="shape of an input, of data whose records cannot be read, or of a top of a layer "
        "whose type is unknown",
    )


# -------------------------------------------------------------------------------------------------
# Types of values
# -------------------------------------------------------------------------------------------------


def _natural(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
    if len(text) > 10 or int(text) > MOST:  # Python refuses texts of thousands of digits
        raise argparse.ArgumentTypeError(f"{text!r} is too large; expected at most {MOST}")
    return int(text)


def _positive(text: str) -> int:
    if not _natural(text):
        raise argparse.ArgumentTypeError("0 is too small; expected 1 or more")
    return int(text)


def _from_zero(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return value


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]+)x([0-9]+)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a width and height such as 320x240")
    return _positive(found[1]), _positive(found[2])


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"{text!r} has an empty part")
    return names


def _range(text: str) -> str:
    parts = re.fullmatch(r"([0-9.]+):([0-9.]+)", text)
    try:
        if text in ("authors", "valid") or (parts and float(parts[1]) < float(parts[2])):
            return text
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is neither authors, valid nor MIN:MAX in metres")


def _input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, shape = text.rpartition("=")
    if not re.fullmatch(r"[1-9][0-9]*([,x][1-9][0-9]*)*", shape):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 1,3,240,320")
    return name, tuple(map(int, re.split("[,x]", shape)))


def _picture(text: str) -> Path:
    if Path(text).suffix.lower() not in (".svg", ".png"):
        raise argparse.ArgumentTypeError(f"{text!r} ends in neither .svg nor .png")
    return Path(text)

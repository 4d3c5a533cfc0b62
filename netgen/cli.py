"""The command line: `python -m netgen NET` and its companions solver, summary, draw and papers."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from pathlib import Path
from typing import Any

from caffe.errors import CaffeError
from caffe.formats import files
from caffe.proto.caffe_pb2 import DataParameter, NetParameter
from netgen import augment, label_weights
from netgen.datasets import DATASETS
from netgen.filelist import Files, count_frames
from netgen.fusenet import NETS, Architecture, Training, deploy_net, train_net
from netgen.phases import PHASES, default_phase
from netgen.solver import Scheme, make_solver
from netgen.sources import count_records, depth_range, record_shape

DEFAULT_DATASET = "nyuv2-40"
DEFAULT_SIZE = (320, 240)
# Frames of NYUv2's train split alone, and of train + val, on which the papers train.
NYUV2_TRAIN, NYUV2_TRAINVAL = 381, 795


def main(argv: list[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0, or 1 for input that cannot be used.

    Raises SystemExit(2) for bad usage, as argparse does.
    """
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        args.run(args)
        sys.stdout.flush()
    except CaffeError as error:
        return _say(f"error: {error}")
    except BrokenPipeError:
        # The reader has seen enough; nothing may be written at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def parse(argv: list[str]) -> argparse.Namespace:
    """The arguments, with the command's function as `run` and argv itself as `argv`."""
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
    _net_parser(commands)
    _solver_parser(commands)
    for name, run, text in (
        ("summary", _run_summary, "print layers, shapes, parameters, multiply-adds and memory"),
        ("draw", _run_draw, "draw a net"),
    ):
        _file_parser(commands, name, run, text)
    papers = commands.add_parser("papers", help="write the papers' nets and solvers to a folder")
    papers.add_argument("folder", metavar="DIR", help="where they go, one folder a data set")
    papers.set_defaults(run=_run_papers)
    args = parser.parse_args(argv)
    args.argv, args.parser = list(argv), parser
    return args


# -------------------------------------------------------------------------------------------------
# NET
# -------------------------------------------------------------------------------------------------


def _net_parser(commands: argparse._SubParsersAction) -> None:
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
    add("--source", metavar="LMDB", help="training records; default: lmdb/DATASET_SPLIT")
    add("--test-source", metavar="LMDB", help="test records; default: lmdb/DATASET_SPLIT")
    _list_options(parser)
    add("--batch-size", type=_positive, metavar="N", help="default: 4, or 1 with --deploy")
    add("--test-batch-size", type=_positive, default=1, metavar="N", help="default: 1")
    add("--size", type=_size, metavar="WxH", help="default: the data set's, else 320x240")
    add("--classes", type=_positive, metavar="N", help="classes of a custom data set, without 0")
    add(
        "--label-weights",
        metavar="paper|FILE|none",
        help="loss weight of each label; default: paper for sunrgbd-37, else none",
    )
    add(
        "--augment",
        type=augment.parse,
        metavar="HOW",
        help=f"change training records at random: {augment.FORM}, or some of these; other Caffes "
        "know mirror alone",
    )
    add("--no-shuffle", action="store_true", help="read the training records in their order")
    add("--width-multiplier", type=float, default=1.0, metavar="F", help="times all channels")
    add(
        "--moving-average-fraction",
        type=float,
        metavar="F",
        help="BatchNorm's; default: Caffe's 0.999",
    )
    add(
        "--dropout",
        type=float,
        default=0.5,
        metavar="F",
        help="share of the values dropped in training; default: 0.5",
    )
    add("--scene-classes", type=_positive, default=0, metavar="N", help="add a scene branch")
    add("--scene-loss-weight", type=float, default=0.1, metavar="F", help="default: 0.1")
    add(
        "--pooling",
        choices=["ceil", "floor"],
        default="ceil",
        help="rounding of odd sizes; default: ceil, as Caffe's",
    )
    add("--deploy", action="store_true", help="the net for prediction, with Input layers")
    parser.set_defaults(run=_run_net, usage=parser.error)


# The options that go with lists of picture files only.
_LIST_OPTIONS = ("test_data_list", "data_root", "depth_unit", "depth_range", "data_seed")


def _list_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "picture files instead of LMDBs",
        "A list has a line a frame: COLOUR DEPTH [LABEL [SCENE]]. data_tools.layers reads it.",
    )
    add = group.add_argument
    add("--data-list", metavar="FILE", help="training frames")
    add("--test-data-list", metavar="FILE", help="test frames; default: the net has no tests")
    add("--data-root", metavar="DIR", help="what the lists' paths start from")
    add("--depth-unit", metavar="UNIT", help="mm (default), m, steps in a metre, sunrgbd or scaled")
    add("--depth-range", metavar="RULE", help="authors (default), valid or MIN:MAX in metres")
    add("--data-seed", type=_natural, metavar="N", help="of the order; default: 0")


def _run_net(args: argparse.Namespace) -> None:
    sys.stdout.write(net_text(args))


def net_text(args: argparse.Namespace) -> str:
    """The prototxt that a NET command prints."""
    if args.dataset is None:
        args.dataset = DEFAULT_DATASET if args.classes is None else "custom"
    dataset = DATASETS.get(args.dataset)
    if dataset is None and args.classes is None:
        args.usage("--dataset custom needs --classes N")
    if dataset and args.classes not in (None, dataset.classes):
        args.usage(f"{args.dataset} has {dataset.classes} classes; --classes is for custom data")
    _check_lists(args)
    arch = Architecture(
        net=args.command,
        classes=dataset.classes if dataset else args.classes,
        size=args.size or (dataset.size if dataset else DEFAULT_SIZE),
        width_multiplier=args.width_multiplier,
        moving_average_fraction=args.moving_average_fraction,
        dropout=args.dropout,
        scene_classes=args.scene_classes,
        floor_pooling=args.pooling == "floor",
    )
    name = f"fusenet-{args.command}-{args.dataset}"
    if args.deploy:
        net = deploy_net(arch, name, args.batch_size or 1)
        return _made_by(args) + _depth_range(args) + files.text(net)
    else:
        training = _training(args, arch.classes)
        _check_records(training, args.dataset, arch.size)
        net = train_net(arch, training, name)
    return _made_by(args) + files.text(net)


def _check_lists(args: argparse.Namespace) -> None:
    """Complains of options that do not go together."""
    given = [name for name in _LIST_OPTIONS if getattr(args, name) is not None]
    if given and args.data_list is None:
        args.usage(f"--{given[0].replace('_', '-')} goes with --data-list")
    if args.data_list is not None and (args.source or args.test_source):
        args.usage("--data-list takes the place of --source and --test-source")
    if args.augment and (args.deploy or args.data_list is not None):
        args.usage("--augment is for training from LMDBs")


def _made_by(args: argparse.Namespace) -> str:
    command = shlex.join(args.argv).replace("\n", " ")
    return f"# Made by: python -m netgen {command}\n"


def _depth_range(args: argparse.Namespace) -> str:
    """How depth was scaled for training, as a comment that eval_tools' predict follows."""
    files = _files(args)
    rule = files.scaling() if files else depth_range(_sources(args)[0])
    return f"# depth_range: {rule}\n" if rule else ""


def _files(args: argparse.Namespace) -> Files | None:
    if args.data_list is None:
        return None
    root, seed = args.data_root or "", args.data_seed or 0
    return Files(root, seed, args.depth_unit, args.depth_range)


def _sources(args: argparse.Namespace) -> tuple[str, str | None]:
    if args.data_list is not None:
        return args.data_list, args.test_data_list
    dataset = DATASETS.get(args.dataset)
    splits = dataset.splits if dataset else ("train", "test")
    train, test = (f"lmdb/{args.dataset}_{split}" for split in splits)
    return args.source or train, args.test_source or test


def _training(args: argparse.Namespace, classes: int) -> Training:
    source, test_source = _sources(args)
    return Training(
        source=source,
        test_source=test_source,
        batch_size=args.batch_size or 4,
        test_batch_size=args.test_batch_size,
        shuffle=not args.no_shuffle,
        transform=args.augment,
        label_weights=label_weights.choose(args.label_weights, DATASETS.get(args.dataset), classes),
        scene_loss_weight=args.scene_loss_weight,
        files=_files(args),
    )


def _check_records(training: Training, dataset: str, size: tuple[int, int]) -> None:
    """Says so if an LMDB or list, where it is there already, cannot be what the net is made for."""
    for source in filter(None, (training.source, training.test_source)):
        count = None
        if Path(source).exists() and training.files:
            count = count_frames(source)
        elif Path(source).exists():
            data = DataParameter(source=source, backend=DataParameter.LMDB)
            try:
                count, (_, height, width) = count_records(data), record_shape(data)
                if (width, height) != size:
                    what = f"{source} holds frames of {width}x{height}"
                    _say(f"warning: {what}, the net is made for {size[0]}x{size[1]}")
            except CaffeError as error:
                _say(f"warning: {error}")
        # A list called train.txt may name any frames: there, only their number tells.
        telling = training.files is None or count == NYUV2_TRAIN
        if dataset.startswith("nyuv2") and source == training.source and telling:
            _warn_of_train_split(source, count)


def _warn_of_train_split(source: str, count: int | None) -> None:
    name = Path(source).name
    if count == NYUV2_TRAIN:
        what = f"has {NYUV2_TRAIN} frames, NYUv2's train split alone"
    elif count != NYUV2_TRAINVAL and "train" in name and "trainval" not in name:
        what = "looks like NYUv2's train split alone (381 frames)"
    else:
        return
    _say(f"warning: {source} {what}; the papers train on train + val ({NYUV2_TRAINVAL} frames)")


# -------------------------------------------------------------------------------------------------
# solver
# -------------------------------------------------------------------------------------------------


def _solver_parser(commands: argparse._SubParsersAction) -> None:
    scheme = Scheme()
    parser = commands.add_parser(
        "solver",
        help="print a solver with the reported training scheme",
        description="Prints a solver with the training scheme that FuseNet's authors report. "
        "Epochs become iterations by the number of training images and the net's batch size.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add, none = parser.add_argument, argparse.SUPPRESS
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
        ("test-epochs", "between tests; 0: no tests"),
        ("snapshot-epochs", "between snapshots; 0: none but the last"),
    ):
        default = getattr(scheme, name.replace("-", "_"))
        add(f"--{name}", type=_from_zero, default=default, metavar="F", help=text)
    add("--lr-policy", default=scheme.lr_policy, choices=["step", "poly", "fixed"], help="policy")
    for name, instead in (
        ("max-iter", "epochs"),
        ("stepsize", "step-epochs"),
        ("test-interval", "test-epochs"),
        ("snapshot", "snapshot-epochs"),
    ):
        text = f"in iterations, instead of --{instead}"
        add(f"--{name}", type=_positive, metavar="N", default=none, help=text)
    add("--display", type=_natural, default=scheme.display, metavar="N", help="between log lines")
    add("--iter-size", type=_positive, default=1, metavar="N", help="batches an update")
    add("--devices", type=_positive, default=1, metavar="N", help="GPUs that train together")
    add("--random-seed", type=_natural, metavar="N", default=none, help="for repeatable runs")
    add(
        "--snapshot-prefix",
        metavar="PATH",
        default=none,
        help="path of the snapshots less _iter_N (default: the net's name)",
    )
    parser.set_defaults(run=_run_solver)


_SOLVERS = ("SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam")


def _run_solver(args: argparse.Namespace) -> None:
    sys.stdout.write(solver_text(args, files.read_net(args.net)))


def solver_text(args: argparse.Namespace, net: NetParameter) -> str:
    """The prototxt that `solver` prints for a net that is, or will be, in the file args.net."""
    given = vars(args)
    scheme = Scheme(**{name: given[name] for name in Scheme.__dataclass_fields__ if name in given})
    solver, notes = make_solver(
        net,
        args.net,
        scheme,
        given.get("train_images"),
        given.get("test_images"),
        given.get("snapshot_prefix"),
    )
    for note in notes:
        _say(f"warning: {note}")
    return _made_by(args) + files.text(solver)


# -------------------------------------------------------------------------------------------------
# summary, draw, papers
# -------------------------------------------------------------------------------------------------


def _file_parser(commands: argparse._SubParsersAction, name: str, run: object, text: str) -> None:
    parser = commands.add_parser(name, help=text, description=f"{text.capitalize()}.")
    add = parser.add_argument
    add("file", metavar="FILE", help="a net's prototxt, of any age")
    if name == "draw":
        add("out", metavar="OUT", type=_picture, help="file to write, .svg or .png")
        add("--expand", action="store_true", help="a box for every layer, none folded into one")
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
        help="shape of an input, or of data whose records cannot be looked at",
    )
    parser.set_defaults(run=run)


Inputs = dict[str, tuple[int, ...]]


def _read_net(args: argparse.Namespace) -> tuple[NetParameter, int, Inputs]:
    net = files.read_net(args.file)
    if args.level is not None:
        net.state.level = args.level
    net.state.stage.extend(args.stage)
    phase = PHASES[args.phase] if args.phase else default_phase(net)
    return net, phase, dict(args.input)


def _sizes(args: argparse.Namespace, net: NetParameter, phase: int, inputs: Inputs) -> list[Any]:
    from netgen.shapes import UnknownShape, size_net

    try:
        return size_net(net, phase, inputs)
    except UnknownShape as error:
        raise CaffeError(f"{args.file}: {error} with --input N,C,H,W") from None
    except CaffeError as error:
        raise CaffeError(f"{args.file}: {error}") from None


def _run_summary(args: argparse.Namespace) -> None:
    from netgen.summary import summary

    net, phase, inputs = _read_net(args)
    sys.stdout.write(summary(net, phase, _sizes(args, net, phase, inputs)))


def _run_draw(args: argparse.Namespace) -> None:
    from netgen.draw import draw

    net, phase, inputs = _read_net(args)
    try:
        sizes = _sizes(args, net, phase, inputs)
    except CaffeError as error:
        if inputs:
            raise
        _say(f"warning: drawn without sizes: {error}")
        sizes = None
    draw(net, args.out, phase, sizes, title=args.title, expand=args.expand)


def _run_papers(args: argparse.Namespace) -> None:
    from netgen.papers import write_papers

    _say(f"wrote {len(write_papers(args.folder))} files to {args.folder}")


# -------------------------------------------------------------------------------------------------
# Arguments
# -------------------------------------------------------------------------------------------------


def _say(text: str) -> int:
    print(f"netgen: {text}", file=sys.stderr)
    return 1


def _natural(text: str) -> int:
    if not re.fullmatch(r"[0-9]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 up")
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
    return int(found[1]), int(found[2])


def _input_shape(text: str) -> tuple[str, tuple[int, ...]]:
    name, _, shape = text.rpartition("=")
    if not re.fullmatch(r"[1-9][0-9]*([,x][1-9][0-9]*)*", shape):
        raise argparse.ArgumentTypeError(f"{text!r} is not a shape such as 1,3,240,320")
    return name, tuple(map(int, re.split("[,x]", shape)))


def _picture(text: str) -> Path:
    if Path(text).suffix.lower() not in (".svg", ".png"):
        raise argparse.ArgumentTypeError(f"{text!r} ends in neither .svg nor .png")
    return Path(text)

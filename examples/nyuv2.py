"""FuseNet on NYU Depth v2, from the dataset's file to an HTML report.

    python examples/nyuv2.py OUT --mat nyu_depth_v2_labeled.mat --vgg VGG_ILSVRC_16_layers.caffemodel --gpu all
    python examples/nyuv2.py OUT --mat nyu_depth_v2_labeled.mat --quick      # on a CPU

Makes LMDBs, loss weights if wanted, each net with its solver and its weights from VGG-16; trains
and scores the nets. Every step is a command of this project, which is printed so that you can
repeat it. Interrupted or killed at any moment, the same command goes on where it was.
"""  # noqa: E501

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from stages import AnyStep, Folder, Joined, Lines, Step, Work

from boundary.reading import read_table, read_text
from boundary.writing import write_text
from data_tools import classes, cli, files, images
from data_tools.class_weights import METHODS
from data_tools.cli import DataError
from netgen import augment
from netgen.arguments import SOLVERS
from netgen.fusenet import NETS


class Row(NamedTuple):
    """A number of the recipe: its kind, the paper's value, that of --quick, and what it is."""

    kind: Callable[[str], object]
    paper: object
    quick: object
    what: str


def as_text(check: Callable[[str], object]) -> Callable[[str], str]:
    """argparse type: a text that passes the check."""

    def parse(text: str) -> str:
        if text != "none":
            check(text)
        return text

    return parse


def one_of(*names: str) -> Callable[[str], str]:
    """argparse type: one of the names."""

    def parse(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"'{text}' is none of {', '.join(names)}")
        return text

    return parse


def gpus(text: str) -> str:
    """argparse type: numbers of GPUs, or all."""
    if not re.fullmatch(r"all|\d+(,\d+)*", text):
        raise argparse.ArgumentTypeError(f"'{text}' is neither all nor numbers such as 0,1")
    return text


# The recipe: every row is an option. The paper tells batch, rate and weight decay; the authors'
# later PyTorch port the steps and epochs (netgen/solver.py). They trained NYUv2 without weights and
# augmentation.
JITTER = "scale=0.9:1.3,brightness=0.2,contrast=0.2,saturation=0.2,hue=0.03,mirror"
RECIPE = {
    "size": Row(as_text(cli.size), "320x240", "160x120", "WxH of the records"),
    "width-multiplier": Row(float, 1.0, 0.25, "share of the paper's channels"),
    "batch-size": Row(cli.whole(1), 4, 4, "frames an iteration and device"),
    "dropout": Row(float, 0.5, 0.1, "fraction dropped"),
    "augment": Row(as_text(augment.parse), "none", JITTER, f"none or {augment.FORM}"),
    "class-weights": Row(
        one_of("none", "paper", *METHODS),
        "none",
        "none",
        "loss weights: none, paper (the published table), or computed from the training frames: "
        + ", ".join(METHODS),
    ),
    "moving-average-fraction": Row(float, 0.999, 0.95, "memory of BatchNorm's statistics"),
    "type": Row(one_of(*SOLVERS), "SGD", "Adam", f"the solver: {', '.join(SOLVERS)}"),
    "base-lr": Row(float, 0.001, 0.001, "learning rate at the start"),
    "lr-policy": Row(
        one_of("step", "poly", "fixed"),
        "step",
        "poly",
        "step (by 0.9 every 25 epochs), poly, fixed",
    ),
    "weight-decay": Row(float, 0.0005, 0.0001, "L2 regularisation"),
    "epochs": Row(float, 400.0, 60.0, "length of the training"),
    "test-epochs": Row(float, 20.0, 15.0, "epochs between tests; 0: none"),
    "snapshot-epochs": Row(float, 5.0, 1.0, "epochs between snapshots"),
}
SPLITS = {"trainval:test": ("trainval", "test"), "train:val": ("train", "val")}
# Global accuracy, mean class accuracy, mean IoU of FuseNet-SF5 on the 654 test frames, in %: the
# authors' repository.
PUBLISHED = (66.0, 43.4, 32.7)
FIGURES = ("global_accuracy", "mean_accuracy", "mean_iou")
MARK = ".fusenet-nyuv2"  # the file that says that a folder is this command's


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", metavar="OUT", type=Path, help="folder of all results")
    group = parser.add_argument_group("data")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--mat", type=Path, metavar="FILE", help="nyu_depth_v2_labeled.mat")
    source.add_argument(
        "--frames",
        type=Path,
        metavar="DIR",
        help="instead of the .mat, a folder with rgb*/, depth*/ and label*/, whose files have the "
        "frames' numbers in the .mat (from 1) as names",
    )
    group.add_argument(
        "--depth-unit", metavar="UNIT", help="unit of --frames' depth, as of data_tools.folder"
    )
    group.add_argument(
        "--split-table",
        type=Path,
        metavar="CSV",
        help="the frames' splits: columns image,split (default: the data set's)",
    )
    group.add_argument(
        "--split",
        choices=SPLITS,
        default="trainval:test",
        help="frames to train on and to score (default: trainval:test, 795 and 654, as papers do; "
        "train:val: 381 and 414)",
    )
    group.add_argument(
        "--classes", type=int, choices=(40, 13), default=40, help="number of classes (default: 40)"
    )
    group = parser.add_argument_group("nets")
    group.add_argument(
        "--net",
        type=cli.some_of(NETS),
        default=["sf5"],
        metavar="NET,...",
        help="nets to train, one after the other; the first is compared with the others, e.g. "
        "sf5,rgb,depth (default: sf5)",
    )
    group.add_argument(
        "--vgg",
        type=Path,
        metavar="FILE",
        help="weights to start from: VGG-16's .caffemodel, or torchvision's .pth",
    )
    group.add_argument("--from-scratch", action="store_true", help="start without VGG-16")
    group.add_argument(
        "--score",
        choices=("last", "best"),
        default="last",
        help="which weights are scored: the last iteration's (default), or those of the test with "
        "the best mean IoU, which are chosen by the frames that they are scored on",
    )
    group = parser.add_argument_group("running")
    device = group.add_mutually_exclusive_group()
    device.add_argument("--gpu", type=gpus, metavar="ID,...|all", help="train on these GPUs")
    device.add_argument("--cpu", type=cli.whole(1), metavar="N", help="train in N processes")
    group.add_argument("--seed", type=cli.whole(0), default=1, help="default: 1")
    group.add_argument(
        "--force", action="store_true", help="make anew what other options made in OUT"
    )
    group.add_argument("--dry-run", action="store_true", help="only print the commands")
    group = parser.add_argument_group(
        "recipe", "Defaults are the paper's, and behind the comma those of --quick."
    )
    group.add_argument(
        "--quick", action="store_true", help="small nets from scratch, for a CPU; without --vgg"
    )
    for name, row in RECIPE.items():
        metavar = name.rpartition("-")[2].upper()
        paper, quick = (f"{x:g}" if isinstance(x, float) else x for x in (row.paper, row.quick))
        text = f"{row.what} ({paper}, {quick})"
        group.add_argument(f"--{name}", type=row.kind, metavar=metavar, help=text)
    return parser


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line, with the recipe's values where it has none."""
    args = cli.parse(arguments(), argv)
    for name, row in RECIPE.items():
        key = name.replace("-", "_")
        if getattr(args, key) is None:
            setattr(args, key, row.quick if args.quick else row.paper)
    if args.quick and not args.vgg:
        args.from_scratch = True
    if not args.vgg and not args.from_scratch:
        args.usage.error("expected --vgg FILE, or --from-scratch, or --quick")
    if args.vgg and args.from_scratch:
        args.usage.error("--vgg does not go with --from-scratch")
    if args.vgg and args.width_multiplier != 1:
        args.usage.error("--vgg needs the full width: --width-multiplier 1")
    if args.score == "best" and not args.test_epochs:
        args.usage.error("--score best needs tests: --test-epochs of more than 0")
    if args.score == "best" and args.test_epochs > args.epochs:
        args.usage.error(
            f"--score best needs tests: --test-epochs {args.test_epochs:g} is more than "
            f"--epochs {args.epochs:g}"
        )
    if args.mat and (args.depth_unit or args.split_table):
        args.usage.error("--depth-unit and --split-table go with --frames")
    for name in ("mat", "frames", "vgg", "split_table"):
        if getattr(args, name):
            setattr(args, name, getattr(args, name).resolve())
    return args


def check(args: argparse.Namespace) -> None:
    """Raises DataError where a new run would end in a later stage for want of a file or a GPU."""
    devices(args)
    if args.dry_run:
        return
    if args.gpu:
        gpus_here(args)
    if (args.out / MARK).exists():  # a stage that is through needs no files
        return
    for path in (args.mat, args.frames, args.vgg, args.split_table):
        if path and not path.exists():
            raise DataError(f"{path}: no such file or folder")


def devices(args: argparse.Namespace) -> int:
    """The number of processes that train together. Raises DataError if there is no GPU."""
    if args.gpu == "all":
        return gpus_here(args)
    return len(args.gpu.split(",")) if args.gpu else args.cpu or 1


def gpus_here(args: argparse.Namespace) -> int:
    """The number of this machine's GPUs. Raises DataError unless --gpu's are among them."""
    import torch

    count = torch.cuda.device_count()
    highest = 0 if args.gpu == "all" else max(map(int, args.gpu.split(",")))
    if highest >= count:
        raise DataError(f"--gpu {args.gpu}: this machine has {count} GPUs that PyTorch can use")
    return count


# -- the stages --------------------------------------------------------------------------------


def make_data(work: Work, args: argparse.Namespace) -> None:
    """lmdb/: an LMDB of the training frames, and one of those to score."""
    steps = from_mat(args) if args.mat else from_frames(args)
    inputs = [args.mat] if args.mat else list(parts(args.frames))
    work.stage("lmdb", steps, inputs)


def from_mat(args: argparse.Namespace) -> list[AnyStep]:
    """A command for each LMDB, so that a kill between them costs nothing."""
    return [
        Step(("data_tools.nyuv2", str(args.mat), "lmdb", "--splits", split,
              "--classes", str(args.classes), "--size", args.size), f"lmdb/{split}")
        for split in SPLITS[args.split]
    ]  # fmt: skip


def parts(frames: Path) -> tuple[Path, Path, Path]:
    """The folders of colour, depth and labels. Raises DataError unless there is one of each."""
    found = []
    for part in ("rgb", "depth", "label"):
        fitting = sorted(path for path in frames.glob(f"{part}*") if path.is_dir())
        if len(fitting) != 1:
            names = ", ".join(path.name for path in fitting) or "none"
            raise DataError(f"{frames}: expected one folder {part}*, found {names}")
        found += fitting
    return found[0], found[1], found[2]


def from_frames(args: argparse.Namespace) -> list[AnyStep]:
    """One LMDB of all frames, and from it those of the splits, by lists of names."""
    rgb, depth, label = map(str, parts(args.frames))
    unit = ("--depth-unit", args.depth_unit) if args.depth_unit else ()
    steps: list[AnyStep] = [
        Step(("data_tools.folder", "--rgb", rgb, "--depth", depth, *unit, "--label", label,
              "--classes", f"nyuv2-{args.classes}", "--size", args.size, "--fit", "stretch",
              "lmdb/frames"), "lmdb/frames")
    ]  # fmt: skip
    names = list(files.find(rgb, images.COLOR))
    for split in SPLITS[args.split]:
        chosen = names_of(split, names, args)
        listed, made = f"lmdb/{split}.txt", f"lmdb/{split}"
        steps.append(Lines(listed, tuple(chosen), f"the names of {len(chosen)} frames of {split}"))
        steps.append(Step(("data_tools.convert", "lmdb/frames", made, "--names", listed), made))
    return steps


def names_of(split: str, names: list[str], args: argparse.Namespace) -> list[str]:
    """The names of a split's frames, in the table's order.

    The table has a frame's name, or its number, which is the last number in the name. Raises
    DataError if there are none.
    """
    table = args.split_table or classes.TABLES / "nyuv2_splits.csv"
    wanted = ("train", "val") if split == "trainval" else (split,)
    known = {number: name for name in names if (number := last_number(name))}
    known |= {name: name for name in names}
    rows = [row for _, row in read_table(table, ("image", "split"), DataError)
            if row["split"] in wanted]  # fmt: skip
    found = [known.get(row["image"]) or known.get(last_number(row["image"])) for row in rows]
    chosen = [name for name in found if name]
    if not chosen:
        raise DataError(
            f"{args.frames}: has no frame of {split}, by {table}; expected names or numbers of its "
            "column image"
        )
    if len(chosen) < len(rows):
        print(f"{args.frames}: has {len(chosen)} of the {len(rows)} frames of {split}", flush=True)
    return chosen


def last_number(name: str) -> str:
    """The last number in a name, without zeros in front; an empty text if there is none."""
    found = re.findall(r"\d+", name)
    return found[-1].lstrip("0") if found else ""


def weigh(work: Work, args: argparse.Namespace) -> list[str]:
    """weights/: the loss weights, if they are computed; netgen's option for the chosen ones."""
    if args.class_weights in ("none", "paper"):
        return ["--label-weights", args.class_weights]
    train, _ = SPLITS[args.split]
    command = ("data_tools.class_weights", f"lmdb/{train}", "--method", args.class_weights)
    work.stage("weights", [Step(command, "weights/weights.txt", out=True)], after=["lmdb"])
    return ["--label-weights", "weights/weights.txt"]


def train(work: Work, args: argparse.Namespace, net: str, weights: list[str]) -> None:
    """NET/: the net's prototxts and solver, its first weights, its snapshots and its log."""
    learn, test = SPLITS[args.split]
    shared = [
        "--dataset",
        f"nyuv2-{args.classes}",
        "--source",
        f"lmdb/{learn}",
        "--width-multiplier",
        f"{args.width_multiplier:g}",
    ]
    jitter = ["--augment", args.augment] if args.augment != "none" else []
    steps = [
        Step(("netgen", net, *shared, "--test-source", f"lmdb/{test}", "--iou", *weights, *jitter,
              "--batch-size", str(args.batch_size), "--dropout", f"{args.dropout:g}",
              "--moving-average-fraction", f"{args.moving_average_fraction:g}"),
             f"{net}/train.prototxt", out=True),
        Step(("netgen", net, *shared, "--deploy"), f"{net}/deploy.prototxt", out=True),
        Step(("netgen", "solver", "--net", f"{net}/train.prototxt",
              "--type", args.type, "--base-lr", f"{args.base_lr:g}", "--lr-policy", args.lr_policy,
              "--weight-decay", f"{args.weight_decay:g}", "--epochs", f"{args.epochs:g}",
              "--test-epochs", f"{args.test_epochs:g}",
              "--snapshot-epochs", f"{args.snapshot_epochs:g}",
              "--devices", str(devices(args)), "--random-seed", str(args.seed),
              "--snapshot-prefix", f"{net}/{net}"), f"{net}/solver.prototxt", out=True),
    ]  # fmt: skip
    start = []
    if args.vgg:
        start = ["-weights", f"{net}/init.caffemodel"]
        steps.append(Step(("data_tools.vgg_surgery", str(args.vgg), f"{net}/train.prototxt",
                           start[1], "--seed", str(args.seed)), start[1]))  # fmt: skip
    best = ["-keep_best", "mean_iou"] if args.test_epochs else []
    device = ["-gpu", args.gpu] if args.gpu else ["-cpu", str(args.cpu)] if args.cpu else []
    steps += [
        Folder(f"{net}/log"),
        Step(("caffe", "train", "-solver", f"{net}/solver.prototxt", *start,
              "-snapshot", "latest", "-snapshot_keep", "2", *best, "-sigint_effect", "end"),
             extra=("-brief", "-log_dir", f"{net}/log", *device)),
        Joined(f"{net}/log/caffe.*.INFO.*", f"{net}/train.log"),
    ]  # fmt: skip
    after = ["lmdb", *(["weights"] if weights[1] == "weights/weights.txt" else [])]
    work.stage(net, steps, [args.vgg] if args.vgg else [], after,
               kept=lambda made: any(made.glob("*.solverstate")))  # fmt: skip


def trained(work: Work, args: argparse.Namespace, net: str) -> str:
    """The weights of a net that are scored, relative to the work's folder."""
    if args.score == "best":
        return f"{net}/{net}_best.caffemodel"
    number = "N"  # in a dry run, where no solver tells it
    if not work.dry:
        text = read_text(work.folder / net / "solver.prototxt", DataError)
        number = re.search(r"^max_iter: (\d+)$", text, re.M)[1]
    return f"{net}/{net}_iter_{number}.caffemodel"


def score(work: Work, args: argparse.Namespace) -> None:
    """scores/: every class's figures, as text and JSON, and the report."""
    first, *others = ([f"{net}/deploy.prototxt", trained(work, args, net)] for net in args.net)
    versus = [word for model in others for word in ("--versus", *model)]
    logs = [word for net in args.net for word in ("--log", f"{net}/train.log")]
    device = ["--gpu", "0" if args.gpu == "all" else args.gpu.split(",")[0]] if args.gpu else []
    command = ["eval_tools.evaluate", *first, f"lmdb/{SPLITS[args.split][1]}", *versus, *logs,
               "--json", "scores/scores.json", "--report", "scores/report.html"]  # fmt: skip
    step = Step(tuple(command), "scores/scores.txt", out=True, extra=tuple(device))
    work.stage("scores", [step], after=["lmdb", *args.net], kept=lambda made: False)


def summary(out: Path, args: argparse.Namespace) -> str:
    """The nets' figures in %, with the published ones where these are of the same frames."""
    found = json.loads(read_text(out / "scores" / "scores.json", DataError))
    lines = [f"{'%':24}{'global':>8}{'class':>8}{'IoU':>8}"]
    for net, score in zip(args.net, [found, *found.get("versus", [])], strict=True):
        figures = (score[key] for key in FIGURES)
        line = f"{net:24}" + "".join(
            f"{'-' if f is None else f'{100 * f:.1f}':>8}" for f in figures
        )
        if "minus_first" in score:
            other = score["minus_first"]["mean_iou"]
            line += f"   IoU - {args.net[0]}'s: {100 * other['value']:+.1f}, p = {other['p']:.3f}"
        lines.append(line)
    if args.classes == 40 and args.split == "trainval:test":
        lines.append(f"{'FuseNet-SF5, published':24}" + "".join(f"{f:8.1f}" for f in PUBLISHED))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Runs the recipe."""
    args = parse()
    check(args)
    with Work(args.out, MARK, args.force, args.dry_run) as work:
        make_data(work, args)
        weights = weigh(work, args)
        for net in args.net:
            train(work, args, net, weights)
        score(work, args)
        if args.dry_run:
            return
        text = summary(args.out, args)
        write_text(args.out / "scores" / "summary.txt", text, DataError)
        print(f"\n{text}\n{args.out}/scores/report.html: the report; scores.txt: every class")


if __name__ == "__main__":
    cli.run(main, "nyuv2")

"""Packs a trained net into one file: prototxt, weights, and what predictions need to know of both.

OUT.fusenet stands wherever a command takes DEPLOY WEIGHTS, and fusenet.Predictor reads it. It is a
zip, and `unzip -p OUT.fusenet model.json` shows what is known: the size of the net's input, the
depth rule, how frames are fitted, classes, colours, the figures of --evaluation. The same files and
options give the same bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import caffe
from boundary import packed, trust
from boundary.errors import shown
from boundary.reading import read_json
from data_tools.cli import DataError, add_max_pixels, check_distinct, say
from data_tools.depth import DepthRange, DepthUnit
from data_tools.fit import FITS
from eval_tools import cli
from eval_tools.frames import (
    Trained,
    dataset_info,
    default_unit,
    read,
    record_format,
    recorded,
    trained_on,
    with_classes,
)
from eval_tools.inference import Options, segment
from eval_tools.labels import LabelSet, label_set
from eval_tools.network import Network, load

NONE = "-"  # in place of a file that the net does not look at


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "pack")
    parser.add_argument("deploy", metavar="DEPLOY", help="deploy prototxt (netgen --deploy)")
    parser.add_argument("weights", metavar="WEIGHTS", help=".caffemodel or .caffemodel.h5")
    parser.add_argument("out", metavar="OUT.fusenet", type=Path, help="the file to write")
    trust.add_option(parser)
    _add_facts(parser.add_argument_group("what is known of the net"))
    _add_example(parser.add_argument_group("an example frame"))
    return parser


def _add_facts(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset",
        metavar="LMDB|JSON",
        help="the net's training data, for the depth rule, fit, class names and colours",
    )
    cli.add_names(group)
    group.add_argument(
        "--depth-range",
        type=DepthRange.parse,
        metavar="authors|valid|MIN:MAX",
        help="mapping of depth to 0..255 in training (default: as --dataset or the prototxt says)",
    )
    group.add_argument(
        "--float-depth",
        action="store_true",
        help="with --depth-range: depth was not rounded in training",
    )
    group.add_argument(
        "--fit",
        choices=FITS,
        help="what becomes of frames of another aspect ratio (default: as --dataset says, else "
        "crop)",
    )
    group.add_argument(
        "--evaluation",
        action="append",
        default=[],
        metavar="JSON",
        help="figures to keep, as evaluate's --json writes them; may be repeated",
    )


def _add_example(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--example",
        nargs=2,
        metavar=("COLOUR", "DEPTH"),
        help=f"one frame's files to keep, for a first try; {NONE} for one that the net does not "
        "look at",
    )
    group.add_argument(
        "--depth-unit",
        type=DepthUnit.parse,
        metavar="STEPS_PER_METRE|mm|m|sunrgbd|scaled",
        help="unit of the example's depth (default: mm for integers, m for floats)",
    )
    add_max_pixels(group)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command. Raises DataError."""
    parser = arguments()
    args = parser.parse_args(argv)
    if args.out.suffix.lower() != packed.SUFFIX:
        parser.error(f"{shown(args.out)}: expected a name that ends in {packed.SUFFIX}")
    _check_files(args)
    network = load(args.deploy, args.weights, trusted=args.trust)
    facts, trained = _facts(args, network)
    files = {"net": args.deploy, "weights": args.weights}
    if args.example:
        found = _example(args)
        facts["example"] = _tried(args, network, trained, found, facts["options"]["fit"])
        files |= {"color" if kind == "colour" else kind: path for kind, path in found.items()}
    packed.write(args.out, facts, files, DataError)
    print(shown(args.out))


def _check_files(args: argparse.Namespace) -> None:
    """Raises DataError if the output cannot be written, or is one of the inputs."""
    cli.check_output(args.out)
    inputs = [*cli.model_files(args), *(("--evaluation", path) for path in args.evaluation)]
    inputs += [("--dataset", args.dataset)] if args.dataset else []
    inputs += [("--example", path) for path in args.example or () if path != NONE]
    check_distinct([("OUT.fusenet", args.out)], inputs)


def _facts(args: argparse.Namespace, network: Network) -> tuple[dict[str, Any], Trained | None]:
    """model.json, in the words of dataset.json where it has them; and the depth rule in it."""
    info = dataset_info(args.dataset) if args.dataset else {}
    info = with_classes(info, args.deploy, network.values)
    labels = label_set(network.values, info, args.names)
    trained = _trained(args) if network.takes_depth else None
    options: dict[str, Any] = {"size": list(network.size[::-1])}
    options["fit"] = args.fit or info.get("options", {}).get("fit") or "crop"
    if trained:
        options |= {"depth_range": trained.range, "float_depth": trained.floats}
    facts: dict[str, Any] = {"tool": f"fusenet {caffe.__version__}"}
    facts |= {key: info[key] for key in ("dataset", "scenes") if key in info}
    facts |= {"options": options, **_classes(labels)}
    if args.names is None and "classes" not in info:
        say("classes have numbers for names; --dataset or --names can name them")
    if args.evaluation:
        facts["figures"] = [_figures(path, labels) for path in args.evaluation]
    return facts, trained


def _trained(args: argparse.Namespace) -> Trained:
    """The depth rule. Raises DataError if nothing says it, as labels would be silently worse."""
    if args.depth_range is None:
        known = trained_on(args.deploy, args.dataset)
        if args.float_depth:
            raise DataError("--float-depth goes with --depth-range")
        if known is None:
            raise DataError(
                f"{shown(args.deploy)}: nothing says how depth became 0..255 when the net was "
                "trained; --dataset LMDB or --depth-range can"
            )
        return known
    if args.dataset:
        known = recorded(dataset_info(args.dataset), args.dataset)
    else:
        known = trained_on(args.deploy, None)
    given = Trained(str(args.depth_range), args.float_depth, "--depth-range")
    if known and known.range and (known.range, known.floats) != (given.range, given.floats):
        say(f"warning: --depth-range is {given.range}, but {known}")
    return given


def _classes(labels: LabelSet) -> dict[str, Any]:
    return {"classes": list(labels.names), "palette": labels.colors.tolist()}


def _figures(path: str, labels: LabelSet) -> dict[str, Any]:
    """evaluate's --json. Raises DataError if it is another JSON, or of a net of other classes."""
    found = read_json(path, DataError)
    classes = found.get("classes")
    if "mean_iou" not in found or not isinstance(classes, list):
        raise DataError(f"{shown(path)}: expected the figures that evaluate's --json writes")
    if len(classes) >= labels.values:
        raise DataError(
            f"{shown(path)}: figures of {len(classes)} classes; the net has {labels.values - 1}"
        )
    return found


# -- the example -----------------------------------------------------------------------------------


def _example(args: argparse.Namespace) -> dict[str, Path]:
    named = zip(("colour", "depth"), args.example, strict=True)
    return {kind: Path(path) for kind, path in named if path != NONE}


def _tried(
    args: argparse.Namespace,
    network: Network,
    trained: Trained | None,
    files: dict[str, Path],
    fit: str,
) -> dict[str, str]:
    """Label the example, so that a frame that cannot be is told now; returns its unit."""
    unit = args.depth_unit or default_unit(files)
    form = record_format(network, unit, trained, fit=fit)
    frame = read(files, "the example", form)
    segment(network, [frame], Options())
    return {"depth_unit": form.unit.option} if "depth" in files else {}


if __name__ == "__main__":
    cli.run("pack", main)

"""Converts a recording of an RGB-D camera to an LMDB, or to a folder of pairs of pictures.

SOURCE is a folder or file as the camera's program wrote it: TUM RGB-D, 7-Scenes, a scene of
ScanNet, Open3D or Redwood, Record3D, Polycam, raw NYUv2, a video with depth pictures, a bag of
RealSense, ROS 1 or ROS 2, or colour and depth in two folders or one, told apart by their names. The
kind is recognised by the files and said; --kind overrides. Colour and depth pictures with times are
paired with the nearest in time, others by their numbers; what has no partner is counted and left
out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from data_tools import build, classes, cli, framing, label_check, labelling
from data_tools.build import Output
from data_tools.cli import DataError
from data_tools.folder import beside, record_format
from data_tools.labelling import Labelling
from data_tools.record import RecordFormat
from data_tools.recordings import kinds, pairs, scannet_export
from data_tools.recordings.base import Recording, Settings
from data_tools.recordings.labelled import Labelled


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "sequence")
    parser.add_argument("source", metavar="SOURCE", type=Path, help="the recording: folder or file")
    parser.add_argument("out", metavar="OUT", type=Path, help="the LMDB, or the folder")
    parser.add_argument(
        "--to", choices=("lmdb", "folder"), default="lmdb", help="what to write (default: lmdb); "
        "a folder has rgb/, depth/ and perhaps label/, for labelling tools and data_tools.folder"
    )  # fmt: skip
    kinds.add_options(parser.add_argument_group("recording"))
    framing.add_options(parser, "that of the kind for integers, m for floats")
    labelling.add_options(parser.add_argument_group("labels"))
    group = parser.add_argument_group("labels of ScanNet")
    group.add_argument(
        "--label-map",
        type=Path,
        metavar="TSV",
        help="scannetv2-labels.combined.tsv: raw ids in label-filt/ become NYUv2's 40 classes",
    )
    group.add_argument("--no-labels", action="store_true", help="leave labels out")
    parser.add_argument(
        "--val-fraction",
        type=cli.fraction,
        metavar="F",
        help="write the last frames, this fraction of all, to OUT_val instead of OUT",
    )
    build.add_arguments(parser, None, fit="crop")
    return parser


def outputs(args: argparse.Namespace, count: int) -> list[Output]:
    """What to write. Frames that follow each other are alike, so the validation frames are the last
    ones, and not drawn by chance. Raises DataError if there are too few frames for two parts."""
    if args.val_fraction is None:
        return [Output(args.out, range(count))]
    if count < 2:
        raise DataError("--val-fraction needs at least two frames")
    held_out = min(max(round(count * args.val_fraction), 1), count - 1)
    return [
        Output(args.out, range(count - held_out), {"split": "train"}),
        Output(beside(args.out), range(count - held_out, count), {"split": "val"}),
    ]


def describe(args: argparse.Namespace, recording: Recording) -> dict[str, Any]:
    """The facts for dataset.json."""
    known = kinds.describe(recording, args)
    known["options"]["val_fraction"] = args.val_fraction
    if args.label_map:
        known["options"]["label_map"] = str(args.label_map)
    return {"tool": "data_tools.sequence", **known, **recording.facts()}


def with_labels(
    recording: Recording, labels: Labelling, info: dict[str, Any]
) -> tuple[Recording | Labelled, dict[str, Any]]:
    """The recording with the labels that the options give, and the facts about both."""
    facts = labels.facts() if labels.given or labels.table else {}
    if not labels.given:
        return recording, {**info, **facts, "labeled": info["labeled"]}
    told = {
        "source": {**info["source"], "label": labels.source},
        "options": {**info["options"], **labels.describe()},
    }
    return Labelled(recording, labels), {**info, **facts, **told}


def write_folders(
    args: argparse.Namespace, recording: Recording | Labelled, info: dict[str, Any]
) -> None:
    """Writes the folders of `--to folder` and says how data_tools.folder reads them."""
    form = RecordFormat(unit=args.depth_unit, **framing.fields(args))
    if form.rig:  # what stands for no reading would become a surface far away
        form = framing.settled(form, recording.load, framing.near(recording), args.out.name)
    kept = ("depth_unit", "rig", "no_reading")
    told = {key: value for key, value in form.describe().items() if key in kept}
    info = {**info, "options": {**info["options"], **told}}
    for output in outputs(args, len(recording.names)):
        facts = {**info, **output.info}
        count = pairs.write(recording, output.indices, output.path, form, facts, args.skip_bad)
        print(f"{output.path}: {count} frames, depth in {form.unit}")


def main() -> None:
    """`python -m data_tools.sequence`."""
    args = cli.parse(arguments())
    for_lmdbs = ("size", "depth_range", "float_depth", "force", "strict")
    if args.to == "folder" and any(getattr(args, name) for name in for_lmdbs):
        args.usage.error(
            "--size, --depth-range, --float-depth, --force and --strict are for LMDBs; a folder of "
            "pairs has the recording's own pictures"
        )
    if args.to == "folder" and args.no_reading and not args.intrinsics:
        args.usage.error(
            "--no-reading is for LMDBs and for --intrinsics; a folder of pairs has the recording's "
            "own pictures"
        )
    labels = labelling.from_args(args)
    if labels.describe() and not labels.given:
        args.usage.error("--ignore-label and --zero-based go with --label")
    how = Settings(
        args.max_gap,
        args.color_topic,
        args.depth_topic,
        not args.no_labels and not labels.given,
        args.label_map,
        args.unknown == "ignore",
        args.color_folder,
        args.depth_folder,
    )
    recording = kinds.open_recording(args.source, args, how)
    if args.label_map and recording.kind_name != scannet_export.KIND.name:
        raise DataError(f"--label-map is for ScanNet's labels; {args.source} is {recording.title}")
    args.depth_unit = args.depth_unit or recording.unit()
    info = describe(args, recording)
    recording, info = with_labels(recording, labels, info)
    if args.to == "folder":
        write_folders(args, recording, info)
        return
    table = labels.table
    if table is None and "classes" in info:
        table = classes.benchmark("nyuv2-40")
    format = record_format(args, recording, table)
    parts = outputs(args, len(recording.names))
    made = build.build(recording, parts, format, info, build.options(args))
    if labels.given:
        label_check.tell(args.out, made, labels, recording.label_pictures())


if __name__ == "__main__":
    cli.run(main)

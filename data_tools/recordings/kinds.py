"""All kinds of recordings: which one a folder or file is, and the options that open it."""

from __future__ import annotations

import argparse
from pathlib import Path, PurePosixPath
from typing import Any

from boundary.errors import shown
from data_tools import cli
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.recordings import (
    bag,
    base,
    declared,
    folders,
    hints,
    mixed,
    nyuv2_raw,
    open3d,
    polycam,
    record3d,
    scannet_export,
    selection,
    seven_scenes,
    tum,
    video,
)
from data_tools.recordings.association import MAX_GAP, MILLISECOND, Association, key_of, parse_gap
from data_tools.recordings.base import Kind, Recording, Settings
from data_tools.recordings.selection import Position

# In the order in which they are tried: what looks for more comes first.
MODULES = (
    bag,
    seven_scenes,
    tum,
    record3d,
    scannet_export,
    open3d,
    polycam,
    nyuv2_raw,
    video,
    folders,
    mixed,
)
KINDS = {module.KIND.name: module.KIND for module in MODULES}
CHOICES = ("color_topic", "depth_topic", "color_folder", "depth_folder")  # options of some kinds
FEWEST_PAIRS = 4  # fewer say nothing about rates
LONGER = 0.5  # of the pairs: so many more frames of one side may come from a higher rate
NAMED = 3  # pictures without a partner whose names are said


class Unrecognised(DataError):
    """No kind of recording; the message lists the kinds."""

    longest = 2000


def recognise(where: Path) -> Kind:
    """The kind of recording at `where`. Raises DataError, listing the kinds, if it is none."""
    if not where.exists():
        raise DataError(f"{shown(where)}: no such folder or file")
    found = _recognised(where)
    if found is None:
        hint = hints.hint(where, lambda inner: _recognised(inner) is not None)
        if hint:
            raise DataError(f"{shown(where)}: not recognised as a recording: {hint}")
        listed = "; ".join(f"{kind.name} ({kind.needs})" for kind in KINDS.values())
        raise Unrecognised(
            f"{shown(where)}: not recognised as a recording; expected one of: {listed}"
        )
    return found


def _recognised(where: Path) -> Kind | None:
    return next((kind for kind in KINDS.values() if kind.recognise(where)), None)


def add_options(group: Any) -> None:
    """Adds the options on a recording to a parser or to a group of one."""
    group.add_argument(
        "--kind",
        choices=list(KINDS),
        help="the kind of recording (default: recognised by its files, and said)",
    )
    group.add_argument(
        "--max-gap",
        type=_gap,
        default=MAX_GAP,
        metavar="TIME",
        help="pair colour and depth pictures that are closer in time than this, e.g. 20ms "
        "(the default), the closest first and each once",
    )
    group.add_argument(
        "--start",
        type=Position.parse,
        metavar="N|Ts",
        help="begin at this pair, counted from 0, or at this time after the first, e.g. 4.5s",
    )
    group.add_argument(
        "--end", type=Position.parse, metavar="N|Ts", help="stop before this pair or time"
    )
    group.add_argument(
        "--every", type=cli.whole(1), default=1, metavar="N", help="every Nth of these pairs"
    )
    for part, told in (("color", "colour"), ("depth", "depth")):
        group.add_argument(
            f"--{part}-folder", metavar="NAME", help=f"the folder of {told} in SOURCE, of any name"
        )
        group.add_argument(f"--{part}-topic", metavar="TOPIC", help=f"the topic of {told} in a bag")


def given(args: argparse.Namespace) -> list[str]:
    """The options of add_options that have another value than their default."""
    parser = argparse.ArgumentParser()
    add_options(parser)
    usual = vars(parser.parse_args([]))
    found = [name for name, value in usual.items() if getattr(args, name) != value]
    return [f"--{name.replace('_', '-')}" for name in found]


def _gap(text: str) -> int:
    try:
        return parse_gap(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def settings(args: argparse.Namespace) -> Settings:
    """The settings from arguments that add_options defined. Labels are not read."""
    return Settings(
        args.max_gap,
        args.color_topic,
        args.depth_topic,
        labels=False,
        color_folder=args.color_folder,
        depth_folder=args.depth_folder,
    )


def open_recording(where: Path, args: argparse.Namespace, how: Settings) -> Recording:
    """The recording at `where` with the frames that the options select; says what was found.

    Raises DataError if there is none, or no frame in it.
    """
    kind = _kind(where, args)
    recording = kind.open(where, how)
    found = recording.association
    if not found.pairs:
        raise DataError(
            f"{shown(where)}: {kind.title}, {found.color} colour and {found.depth} depth frames, "
            f"but none belong together ({found.rule}): {_examples(found)}{_remedy(recording)}"
        )
    taken = selection.chosen(found.pairs, args.start, args.end, args.every, kind.title)
    recording.keep(taken)
    told = f"{shown(where)}: {kind.title}, {found.color} colour and {found.depth} depth frames, "
    told += f"{len(found.pairs)} pairs"
    told += " (by the times of recording)" if "as recorded" in found.rule else ""
    told += f" ({found.rule})" if found.rule in (base.CHANGING, base.FIRST) else ""
    told += f", of which {len(taken)} are taken" if len(taken) < len(found.pairs) else ""
    _tell_unit(told, recording, getattr(args, "depth_unit", None))
    if not getattr(args, "intrinsics", None) and (beside := recording.beside()):
        cli.say(f"{shown(where)}: {beside}")
    if any(found.lonely.values()):
        left = [_named(part, names) for part, names in found.lonely.items() if names]
        cli.say(f"{shown(where)}: without a partner ({found.rule}): {' and '.join(left)}")
        if _differs_in_rate(found):
            cli.say(
                f"{shown(where)}: one side goes on for long ({found.color} colour and "
                f"{found.depth} depth frames): if they were recorded at different rates, equal "
                "numbers do not belong together; times in the names would pair them"
            )
    return recording


def _tell_unit(told: str, recording: Recording, given: DepthUnit | None) -> None:
    """Says the unit of depth, what declares it, and what is doubtful about it."""
    unit = given or recording.unit()
    file = None if given else declared.unit(recording.where)
    by = f" ({file[1]})" if file and file[0] == unit else ""
    cli.say(f"{told}; depth unit: {unit}{by}")
    if not given and (doubt := recording.doubt()):
        cli.say(f"{shown(recording.where)}: {doubt}")


def _kind(where: Path, args: argparse.Namespace) -> Kind:
    """The kind that the options tell, else the one that is recognised."""
    if not where.exists():
        raise DataError(f"{shown(where)}: no such folder or file")
    if args.color_folder is None and args.depth_folder is None:
        return KINDS[args.kind] if args.kind else recognise(where)
    if args.kind not in (None, folders.KIND.name):
        raise DataError(f"--color-folder and --depth-folder do not go with --kind {args.kind}")
    return folders.KIND


def _differs_in_rate(found: Association) -> bool:
    """Whether numbers pair the first frames, and only one side goes on, for long."""
    if any(pair.gap is not None for pair in found.pairs) or len(found.pairs) < FEWEST_PAIRS:
        return False
    ends = [names for names in found.lonely.values() if names]
    if len(ends) != 1 or len(ends[0]) < LONGER * len(found.pairs):
        return False
    last = max(key_of(pair.name) for pair in found.pairs)
    return min(key_of(PurePosixPath(name).stem) for name in ends[0]) > last


def _named(part: str, names: list[str]) -> str:
    """The number of pictures without a partner, and the first ones."""
    kind = "colour" if part == "color" else part
    first = [*names[:NAMED], *(["..."] if len(names) > NAMED else [])]
    return f"{len(names)} {kind} frame{'s' if len(names) > 1 else ''} ({', '.join(first)})"


def _examples(found: Association) -> str:
    """The first pictures of both parts."""
    return " and ".join(names[0] for names in found.lonely.values() if names)


def _remedy(recording: Recording) -> str:
    """What --max-gap would have to be, if the frames have times."""
    closest = recording.association.closest
    if closest is None:
        return ""
    return f"; the closest are {closest / MILLISECOND:.6g} ms apart: --max-gap sets another limit"


def describe(recording: Recording, args: argparse.Namespace) -> dict[str, Any]:
    """The facts about source and options for dataset.json."""
    return {
        "source": {"recording": shown(recording.where), "kind": recording.kind_name},
        "association": recording.association.describe(),
        "options": {
            "max_gap_ms": args.max_gap / MILLISECOND,
            "start": str(args.start) if args.start else None,
            "end": str(args.end) if args.end else None,
            "every": args.every,
            **{option: getattr(args, option) for option in CHOICES if getattr(args, option)},
        },
    }  # fmt: skip

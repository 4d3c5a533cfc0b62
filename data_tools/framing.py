"""The options on colour and depth files: their unit, and how frames become the net's input.

data_tools.folder, data_tools.sequence and eval_tools.predict share them.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from boundary.late import cv2
from data_tools import calibration
from data_tools.camera import Rig
from data_tools.cli import DataError, say
from data_tools.depth import DepthUnit
from data_tools.doctor import holes
from data_tools.doctor.together import Together
from data_tools.fit import FITS
from data_tools.record import Frame, RecordFormat

LOOKS = 8  # frames that are looked at together


class Source(Protocol):
    """What `near` asks of a source of frames (build.Source)."""

    names: Sequence[str]
    block: int


def add_options(group: Any, unit: str = "mm for integers, m for floats") -> None:
    """Adds the options to a parser or to a group of one. unit: the default unit, in words."""
    group.add_argument(
        "--depth-unit",
        type=DepthUnit.parse,
        metavar="STEPS_PER_METRE|mm|m|sunrgbd|scaled",
        help=f"unit of the stored depth (default: {unit})",
    )
    group.add_argument(
        "--no-reading",
        type=_no_reading,
        action="append",
        metavar="V|none",
        help="a value of the stored depth that stands for no reading, as 0 does; may be repeated. "
        "By default, one that is far behind all readings is found and said; none: there is none",
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="what the depth doctor warns of (docs/data.md) makes a frame unusable",
    )
    add_rig(group)


def _no_reading(text: str) -> float | None:
    """argparse type: a number, or None for `none`."""
    if text == "none":
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is neither a number nor none")
    return value


def add_rig(group: Any) -> None:
    """Adds the options on a depth camera beside the colour camera."""
    group.add_argument(
        "--intrinsics",
        metavar="FILE|CAMERA",
        help="depth comes from another place than colour: project it into the colour camera. The "
        "colour camera's calibration (JSON, or a text of RealSense, Azure Kinect, TUM, ScanNet or "
        f"ROS), or a camera's name: {', '.join(calibration.names())}",
    )
    group.add_argument(
        "--depth-intrinsics",
        metavar="FILE|CAMERA",
        help="the depth camera's calibration (default: that in --intrinsics)",
    )
    group.add_argument(
        "--extrinsics",
        metavar="FILE|CAMERA|identity",
        help="rotation and translation (metres) between the cameras (default: those in "
        "--intrinsics)",
    )
    group.add_argument(
        "--extrinsics-direction",
        choices=calibration.DIRECTIONS,
        help="which way --extrinsics go, if they do not say so (default: depth-to-color)",
    )


def rig(args: argparse.Namespace) -> Rig | None:
    """The pair of cameras that these options describe, or None. Raises DataError."""
    intrinsics, depth, extrinsics, direction = (
        getattr(args, name, None)
        for name in ("intrinsics", "depth_intrinsics", "extrinsics", "extrinsics_direction")
    )
    if intrinsics is None:
        for option, given in (
            ("--depth-intrinsics", depth),
            ("--extrinsics", extrinsics),
            ("--extrinsics-direction", direction),
        ):
            if given is not None:
                raise DataError(f"{option} needs --intrinsics, the colour camera's")
        return None
    if getattr(args, "depth_unit", None) and args.depth_unit.kind != "steps":
        raise DataError(
            f"--intrinsics does not go with --depth-unit {args.depth_unit}: such depth is aligned "
            "to colour already, or has no unit"
        )
    return calibration.rig(intrinsics, depth, extrinsics, direction)


def add_fit(group: Any, default: str | None, told: str | None = None) -> None:
    """Adds --fit. told: the default in words."""
    group.add_argument(
        "--fit",
        choices=FITS,
        default=default,
        help="frames whose aspect ratio differs by over 1 %% from that of --size: crop takes "
        "their middle, pad sets them between borders of 0, stretch squeezes them "
        f"(default: {told or default})",
    )


def fields(args: argparse.Namespace) -> dict[str, Any]:
    """The fields of RecordFormat that these options give."""
    return {"fit": args.fit, "rig": rig(args), **doctor_fields(args)}


def doctor_fields(args: argparse.Namespace) -> dict[str, Any]:
    """The doctor's fields; none for data sets, whose depth is known and has no such options."""
    if "no_reading" not in args:
        return {}
    given = args.no_reading
    values = None if given is None else tuple(value for value in given if value is not None)
    return {"no_reading": values, "doctor": True, "strict": args.strict}


def settled(
    form: RecordFormat,
    load: Callable[[int], Frame],
    count: int,
    where: str,
    tell: Callable[[str], object] = say,
) -> RecordFormat:
    """The format with the values that stand for "no reading", found if no option says them; and
    what the doctor says of some frames together.

    load: gives one of `count` frames; a few are looked at. where: what messages begin with. tell:
    what says them. Raises DataError if the doctor is strict.
    """
    if form.no_reading is not None and not form.doctor:
        return form
    taken: dict[float, holes.Found] = {}
    together = Together(form.unit)
    for frame in _some(load, count):
        if form.no_reading is None:
            holes.take(taken, frame.depth, form.unit)
        if not form.doctor:
            continue
        with suppress(DataError):
            one = replace(form, no_reading=form.no_reading or tuple(taken)).prepared(frame)
            form.check(one)
            together.add(one.color, one.depth)
    for value in taken.values():
        tell(f"{where}: {holes.told(value)}")
    found = form.remedied(together.findings())
    if found and form.strict:
        raise DataError(f"{where}: {'; '.join(map(str, found))}")
    for one in found:
        tell(f"{where}: {one.note.text}")
    return form if form.no_reading is not None else replace(form, no_reading=tuple(taken))


def near(source: Source) -> int:
    """How many frames may be looked at here and there: all, or those of the first block where what
    lies farther apart is slow to load."""
    return len(source.names) if source.block == 1 else min(source.block, len(source.names))


def _some(load: Callable[[int], Frame], count: int) -> Iterator[Frame]:
    """Frames here and there; unusable ones, which are told of later, are left out."""
    for index in np.unique(np.linspace(0, count - 1, LOOKS).astype(int)):
        with suppress(DataError, OSError, cv2.error):
            yield load(int(index))

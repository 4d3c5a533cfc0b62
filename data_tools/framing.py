"""The options on colour and depth files: their unit, and how frames become the net's input.

data_tools.folder, data_tools.sequence and eval_tools.predict share them.
"""

from __future__ import annotations

import argparse
from typing import Any

from data_tools import calibration
from data_tools.camera import Rig
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.fit import FITS


def add_options(group: Any, unit: str = "mm for integers, m for floats") -> None:
    """Adds the options to a parser or to a group of one. unit: the default unit, in words."""
    group.add_argument(
        "--depth-unit",
        type=DepthUnit.parse,
        metavar="STEPS_PER_METRE|mm|m|sunrgbd|scaled",
        help=f"unit of the stored depth (default: {unit})",
    )
    add_rig(group)


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
        for option, given in (("--depth-intrinsics", depth), ("--extrinsics", extrinsics)):
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
    return {"fit": args.fit, "rig": rig(args)}

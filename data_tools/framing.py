"""The options on colour and depth files: their unit, and how frames become the net's input.

data_tools.folder, data_tools.sequence and eval_tools.predict share them.
"""

from __future__ import annotations

import argparse
from typing import Any

from data_tools.depth import DepthUnit
from data_tools.fit import FITS


def add_options(group: Any) -> None:
    """Adds the options to a parser or to a group of one."""
    group.add_argument(
        "--depth-unit",
        type=DepthUnit.parse,
        metavar="STEPS_PER_METRE|mm|m|sunrgbd|scaled",
        help="unit of the stored depth (default: mm for integers, m for floats)",
    )


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
    return {"fit": args.fit}

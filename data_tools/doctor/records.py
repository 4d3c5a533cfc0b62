"""The doctor's findings on a record, whose depth is 0..255."""

from __future__ import annotations

import argparse
from contextlib import suppress
from typing import Any

import numpy as np

from data_tools.depth import DepthRange, DepthUnit
from data_tools.doctor import edges, surfaces, values
from data_tools.doctor.sample import sample
from data_tools.notes import Finding


def fixed_range(info: dict[str, Any]) -> DepthRange | None:
    """The range of depth in metres that 0..255 stands for, if dataset.json says one for all."""
    text = str(info.get("options", {}).get("depth_range", ""))
    with suppress(argparse.ArgumentTypeError):
        found = DepthRange.parse(text.removesuffix(" m"))
        return found if found.rule == "fixed" else None
    return None


def examine(planes: np.ndarray, fixed: DepthRange | None = None) -> list[Finding]:
    """What seems wrong with a record (5 x H x W: colour, depth 0..255, label).

    Distances, and values that stand for "no reading", are not in a record any more.
    """
    seen = sample(colors(planes), planes[3], unit_of(fixed))
    if seen is None:
        return []
    return values.examine(seen) or surfaces.examine(seen) + edges.examine(seen)


def unit_of(fixed: DepthRange | None) -> DepthUnit:
    """The unit of 0..255. From 0 metres on, it is a part of a metre; else something was subtracted,
    and it is none."""
    if fixed is None or fixed.near:
        return DepthUnit("scaled")
    return DepthUnit("steps", 255 / fixed.far)


def colors(planes: np.ndarray) -> np.ndarray:
    """The colours of a record as H x W x 3 uint8, BGR."""
    color = planes[:3].transpose(1, 2, 0)
    if color.dtype != np.uint8:
        color = np.clip(np.nan_to_num(color), 0, 255)
    return np.ascontiguousarray(color, np.uint8)

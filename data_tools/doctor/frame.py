"""The doctor's findings on one frame."""

from __future__ import annotations

import numpy as np

from data_tools.depth import DepthUnit
from data_tools.doctor import distance, edges, holes, surfaces, values
from data_tools.doctor.sample import sample
from data_tools.notes import Finding


def examine(color: np.ndarray, depth: np.ndarray, unit: DepthUnit) -> tuple[Finding, ...]:
    """What seems wrong with a frame: colour (H x W x 3 uint8, BGR), depth (h x w as stored).

    Both show one field of view. Small pictures (under sample.LEAST_PIXELS) are not judged.
    """
    seen = sample(color, depth, unit)
    if seen is None:
        return ()
    if found := values.examine(seen):
        return tuple(found)
    found = holes.examine(depth, unit) + distance.examine(seen)
    return tuple(found + surfaces.examine(seen) + edges.examine(seen))

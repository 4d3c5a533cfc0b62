"""What some frames of a set say together, where one alone may say too little."""

from __future__ import annotations

import numpy as np

from data_tools.depth import DepthUnit
from data_tools.doctor import edges, surfaces
from data_tools.doctor.sample import sample
from data_tools.notes import Finding

FEWEST = 4  # frames
FEWEST_PLACES = 3000  # on planes, of all frames
BEND = 0.25  # the median ratio of bends (surfaces.py): over all frames it is near 0.8 for distances


class Together:
    """Adds up the scores of shifts, and the bends of surfaces, of frames from one camera."""

    def __init__(self, unit: DepthUnit) -> None:
        self._unit = unit
        self._scores: list[np.ndarray] = []
        self._ratios: list[np.ndarray] = []
        self._scale = 1.0

    def add(self, color: np.ndarray, depth: np.ndarray) -> None:
        """Adds a frame: H x W x 3 uint8, and h x w as stored."""
        seen = sample(color, depth, self._unit)
        if seen is None or not seen.sorted.size:
            return
        self._ratios.append(surfaces.ratios(seen.metres))
        found = edges.scores(seen.color, seen.metres)
        if found is not None and (not self._scores or found.shape == self._scores[0].shape):
            self._scores.append(found)
            self._scale = seen.scale

    def findings(self) -> list[Finding]:
        """What is wrong with all of them."""
        found = []
        if len(self._ratios) >= FEWEST and self._unit.kind != "scaled":
            found += surfaces.told(self._bend())
        if len(self._scores) >= FEWEST:
            # The sum of independent scores, again in standard deviations.
            total = np.sum(self._scores, axis=0) / np.sqrt(len(self._scores))
            found += edges.shifted(edges.best(total), self._scale)
        count = max(len(self._ratios), len(self._scores))
        return [
            Finding(one.kind, f"{one.what} (in {count} frames together)", one.remedy)
            for one in found
        ]

    def _bend(self) -> str | None:
        ratios = np.concatenate(self._ratios)
        if len(ratios) < FEWEST_PLACES or np.median(ratios) > BEND:
            return None
        return surfaces.nearest(ratios)

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

SMALLEST = 100  # pixels of the longer side; the scores of smaller pictures stay low
MEET = 4.0  # the mean score of frames that have edges: of sound ones it is near 12


class Together:
    """Adds up the scores of shifts, and the bends of surfaces, of frames from one camera."""

    def __init__(self, unit: DepthUnit) -> None:
        self._unit = unit
        self._scores: list[np.ndarray] = []  # of frames that have edges
        self._clear: list[np.ndarray] = []  # those of frames that have many
        self._ratios: list[np.ndarray] = []
        self._scale = 1.0

    def add(self, color: np.ndarray, depth: np.ndarray) -> None:
        """Adds a frame: H x W x 3 uint8, and h x w as stored."""
        seen = sample(color, depth, self._unit)
        if seen is None or not seen.sorted.size:
            return
        self._ratios.append(surfaces.ratios(seen.metres))
        drawn = edges.depth_edges(seen.metres)
        found = edges.scores(seen.color, drawn)
        if found is not None and (not self._scores or found.shape == self._scores[0].shape):
            self._scores.append(found)
            self._scale = seen.scale
            if edges.enough(drawn) and max(drawn.shape) >= SMALLEST:
                self._clear.append(found)

    def findings(self) -> list[Finding]:
        """What is wrong with all of them."""
        return [
            Finding(one.kind, f"{one.what} (in {count} frames together)", one.remedy)
            for found, count in (
                (self._bent(), len(self._ratios)),
                (self._shifted() or self._strange(), len(self._scores)),
            )
            for one in found
        ]

    def _bent(self) -> list[Finding]:
        if len(self._ratios) < FEWEST or self._unit.kind == "scaled":
            return []
        ratios = np.concatenate(self._ratios)
        if len(ratios) < FEWEST_PLACES or np.median(ratios) > BEND:
            return []
        return surfaces.told(surfaces.nearest(ratios))

    def _shifted(self) -> list[Finding]:
        if len(self._scores) < FEWEST:
            return []
        found = edges.best(_sum(self._scores))
        return edges.shifted(found, self._scale, max(self._scores[0].shape))

    def _strange(self) -> list[Finding]:
        """A finding on colour and depth that have nothing to do with each other."""
        if len(self._clear) < FEWEST:
            return []
        score = edges.best(_sum(self._clear)).still
        least = MEET * np.sqrt(len(self._clear))
        if score >= least:
            return []
        what = f"the edges of depth and colour do not meet: score {score:.1f}, expected {least:.0f}"
        return [Finding("edges", what, "see that the pictures belong together")]


def _sum(scores: list[np.ndarray]) -> np.ndarray:
    """The sum of independent scores, again in standard deviations."""
    return np.sum(scores, axis=0) / np.sqrt(len(scores))

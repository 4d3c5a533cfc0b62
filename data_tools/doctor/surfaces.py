"""Whether depth bends as distances do: disparity and reversed depth do not.

Along a line across a plane, distance is z = 1 / (a + b x). With t = b x / a, three places at -x, 0
and x have a relative change g = (z1 - z2) / 2 z0 = t / (1 - t^2) and a relative bend
(z1 + z2 - 2 z0) / z0 = 2 g^2 (1 - t^2). So the ratio of bend and 2 g^2 is near 1 for distances. It
is 0 for disparity, which is linear in x, and negative for reversed depth. Rooms have enough planes
for a verdict if they are seen at a slant.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from boundary.late import cv2
from data_tools.doctor.sample import Sample
from data_tools.notes import Finding

SIDE = 160  # pixels; readings are averaged to this width, against noise
STEP = 16  # pixels between the three places of a difference
CHANGE = (0.12, 0.6)  # |g|: less drowns in noise
EVEN = 2.5  # the ratio of the steps between five places on a line that may be a plane
FEWEST, MANY = 500, 2500  # places that are needed for a clear verdict, and for any
AROUND = 0.25  # of a ratio
PLANE = 0.85  # the ratio that distances have in practice


def examine(sample: Sample) -> list[Finding]:
    """A finding on depth that is inverse or reversed.

    Depth without a unit is not judged: who scaled it may have subtracted something, and then ratios
    are smaller.
    """
    return [] if sample.unit.kind == "scaled" else told(judged(ratios(sample.metres)))


def told(kind: str | None) -> list[Finding]:
    """The finding on depth that is 'disparity' or 'reversed depth'."""
    if not kind:
        return []
    what = f"depth bends as {kind} does, not as distance: flat surfaces are curved"
    return [Finding("inverse", what, "convert it to distances")]


def judged(found: np.ndarray) -> str | None:
    """'disparity' or 'reversed depth', if the ratios say so clearly; else None."""
    if len(found) < FEWEST:
        return None
    linear, distance, negative = _shares(found)
    if negative > 0.65 and distance < 0.08:
        return "reversed depth"
    if linear > 0.5 and distance < 0.1:
        return "disparity"
    return nearest(found) if len(found) >= MANY and np.median(found) < 0.1 else None


def nearest(found: np.ndarray) -> str:
    """What ratios that are not those of distances fit best."""
    linear, _, negative = _shares(found)
    return "disparity" if linear > negative else "reversed depth"


def _shares(found: np.ndarray) -> tuple[float, float, float]:
    """The shares of ratios near 0, near those of distances, and below 0."""
    return (
        float((np.abs(found) < AROUND).mean()),
        float((np.abs(found - PLANE) < AROUND).mean()),
        float((found < -AROUND).mean()),
    )


def ratios(metres: np.ndarray) -> np.ndarray:
    """The ratio above at each place of a frame (H x W, 0 = no reading) that may be on a plane."""
    small = _averaged(metres)
    return np.concatenate([_along_rows(small), _along_rows(small.T)])


def _averaged(metres: np.ndarray) -> np.ndarray:
    """metres at a smaller size, NaN where there is no reading."""
    height, width = metres.shape
    factor = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    seen = (metres > 0).astype(np.float32)
    share = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
    total = cv2.resize(metres.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.where(share > 0.5, total / np.maximum(share, 0.5), np.nan)


def _along_rows(z: np.ndarray) -> np.ndarray:
    half = STEP // 2
    count = z.shape[1] - 2 * STEP
    if count < 1:
        return np.empty(0, np.float32)
    places = [z[:, i * half : i * half + count] for i in range(5)]
    first, middle, last = places[0], places[2], places[4]
    steps = np.stack([after - before for before, after in pairwise(places)])
    sizes = np.abs(steps)
    with np.errstate(invalid="ignore"):
        even = sizes.max(0) < EVEN * sizes.min(0)
        one_way = (steps > 0).all(0) | (steps < 0).all(0)
        change = np.abs(last - first) / (2 * middle)
        good = even & one_way & (change > CHANGE[0]) & (change < CHANGE[1])
    bend = (first[good] + last[good] - 2 * middle[good]) / middle[good]
    return bend / (2 * change[good] ** 2)

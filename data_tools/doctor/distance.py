"""How far away a frame is: distances that no room has, and the unit that makes sense of them."""

from __future__ import annotations

import numpy as np

from data_tools.depth import DepthUnit
from data_tools.doctor.sample import LEAST_PIXELS, Sample, readings
from data_tools.notes import Finding

NEAREST, FARTHEST = 0.2, 15.0  # metres, of the median
LIKELY = (0.4, 8.0)  # metres: a unit is proposed if it gives such a median
# The units of cameras and datasets, the most frequent ones first.
UNITS = ("mm", "m", "5000", "10000", "4000", "100", "256")
ENOUGH = 10_000  # readings; fewer say too little about a unit that is only assumed
NEVER_NEARER = 4.0  # metres: 5 % of the readings are nearer than this in nearly every room
FINER_THAN_MM = ("5000", "10000", "4000")
FAR = 5.0  # metres: where a unit gives more, a finer one is as likely
FINER = {"5000": "10000"}
TURNED = 7  # the bits that SUN RGB-D's depth has in no reading nearer than 8.192 m
TURNED_MEDIAN = 8.0  # metres: read as millimetres, such depth is eight times as far


def option(unit: DepthUnit) -> str:
    """The unit as --depth-unit takes it."""
    if unit.kind != "steps":
        return unit.kind
    return {1000.0: "mm", 1.0: "m"}.get(unit.steps, f"{unit.steps:g}")


def metres(value: float) -> str:
    """A distance in words."""
    if 1000 <= value < 1e5:
        return f"{value:.0f} m"
    return f"{value:.3g} m" if 1e-3 <= value < 1000 else f"{value:.1e} m"


def has_rotated_bits(raw: np.ndarray) -> bool:
    """Whether stored depth (H x W) is SUN RGB-D's and SUN3D's, by its values: as millimetres it
    would be too far away, and have multiples of 8 only. Few readings say nothing."""
    seen = raw[raw > 0]
    if seen.size < LEAST_PIXELS or not _turned(raw):
        return False
    return float(np.median(seen)) / 1000 > TURNED_MEDIAN


def doubt(raw: np.ndarray) -> str | None:
    """Why depth (H x W as stored) that is taken for millimetres may be in another unit: hardly
    anything is near. None if there is no reason.

    None of every second training frame of NYUv2 has so few near readings. In TUM's unit 97 % of
    them have, while of 35 % the median is beyond a room's.
    """
    seen = raw[raw > 0]
    if raw.dtype != np.uint16 or seen.size < ENOUGH:
        return None
    near, median = (float(value) / 1000 for value in np.percentile(seen, (5, 50)))
    better = next(
        (unit for unit in FINER_THAN_MM if median * 1000 / float(unit) >= LIKELY[0]), None
    )
    if near < NEVER_NEARER or median > FARTHEST or better is None:
        return None
    return (
        f"95 % of the readings are beyond {metres(near)} in millimetres; --depth-unit {better} "
        f"makes the median {metres(median * 1000 / float(better))}"
    )


def examine(sample: Sample) -> list[Finding]:
    """Findings on a frame whose median distance is not that of a room."""
    if sample.unit.kind != "steps":
        return []
    median = float(np.median(sample.sorted))
    turned = _turned(sample.raw) and median > TURNED_MEDIAN
    if NEAREST <= median <= FARTHEST and not turned:
        return []
    what = (
        f"median distance {metres(median)} with --depth-unit {option(sample.unit)}, "
        f"expected {NEAREST:g} to {FARTHEST:g} m"
    )
    better = "sunrgbd" if turned else proposed(sample)
    if not better:
        return [Finding("depth-unit", what, "no --depth-unit in use makes sense of it")]
    found = float(np.median(_read(sample, better)))
    remedy = f"--depth-unit {better} makes it {metres(found)}"
    if found > FAR and (finer := FINER.get(better)):
        nearer = float(np.median(_read(sample, finer)))
        remedy += f", --depth-unit {finer} {metres(nearer)}"
    return [Finding("depth-unit", what, remedy)]


def proposed(sample: Sample) -> str | None:
    """The unit that gives the likeliest distances, as --depth-unit takes it; None if none does."""
    units = [*UNITS, "sunrgbd"] if sample.raw.dtype == np.uint16 else UNITS
    if _turned(sample.raw):
        units = ["sunrgbd", *UNITS]
    for text in units:
        found = _read(sample, text)
        if found.size and LIKELY[0] <= np.median(found) <= LIKELY[1]:
            return text
    return None


def _read(sample: Sample, unit: str) -> np.ndarray:
    found = readings(sample.raw, DepthUnit.parse(unit))
    return found[found > 0]


def _turned(raw: np.ndarray) -> bool:
    """Whether the depth may have SUN RGB-D's rotated bits."""
    return raw.dtype == np.uint16 and not (raw & TURNED).any()

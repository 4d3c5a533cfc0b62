"""Values that stand for "no reading": found by their distance from all other readings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data_tools.depth import DepthUnit
from data_tools.doctor import distance
from data_tools.doctor.sample import readings
from data_tools.notes import Finding

STEP = 2  # every second row and column is looked at
SHARE = 0.002  # of the readings, at least; the type's maximum needs no share
MOST = 0.5  # beyond, depth is saturated
GAP = 1.1  # to the next reading, at least, for values that cameras use
FAR, FAR_GAP = 20.0, 1.5  # metres; any other value so far behind the rest
ROUND_FROM = 8.0  # metres: a round distance may be a sensor's limit
SPIKE, SPIKE_GAP = 0.02, 1.3  # what is asked about, but not taken


def number(value: float) -> str:
    """A stored value in full, as --no-reading takes it."""
    return f"{value:.0f}" if value == round(value) and abs(value) < 1e15 else f"{value:.9g}"


@dataclass(frozen=True)
class Found:
    """The highest reading of a frame, far behind all others. share: of the readings. next: the
    reading before it. Both as stored. sure: whether it is taken as a hole."""

    value: float
    share: float
    next: float
    sure: bool

    def __str__(self) -> str:
        value, after = number(self.value), number(self.next)
        return f"{self.share:.1%} of the readings are {value}, the next one is {after}"


def without(depth: np.ndarray, values: Sequence[float]) -> np.ndarray:
    """depth (as stored) with 0, a hole, where it is one of `values`."""
    for value in values:
        with np.errstate(over="ignore"):
            depth = np.where(depth == _as_stored(value, depth.dtype), depth.dtype.type(0), depth)
    return depth


def find(depth: np.ndarray, unit: DepthUnit) -> Found | None:
    """The value of a frame's depth (H x W as stored) that stands for "no reading", if any seems to.

    It is the highest one, as no reading is between it and the rest of the picture.
    """
    if unit.kind == "sunrgbd" or depth.ndim != 2 or depth.dtype.kind not in "uif":
        return None
    raw = depth[::STEP, ::STEP]
    raw = raw[readings(raw, unit) > 0]
    if not raw.size:
        return None
    value = raw.max()
    others = raw[raw < value]
    if not others.size:
        return None
    near = float(np.partition(others, -1 - others.size // 1000)[-1 - others.size // 1000])
    share = 1 - others.size / raw.size
    found = Found(float(value), share, float(near), False)
    return _judged(found, depth.dtype, unit)


def _judged(found: Found, dtype: np.dtype, unit: DepthUnit) -> Found | None:
    gap = found.value / found.next
    sure = gap >= GAP and found.share < MOST
    if unit.kind == "scaled":
        sure = False
    elif found.value != _highest(dtype):
        far = unit.kind == "steps" and found.value / unit.steps >= FAR and gap >= FAR_GAP
        sure = sure and found.share >= SHARE and (far or is_limit(found.value, dtype, unit))
    if sure:
        return Found(found.value, found.share, found.next, True)
    return found if SPIKE <= found.share < MOST and gap >= SPIKE_GAP else None


def is_limit(value: float, dtype: np.dtype, unit: DepthUnit) -> bool:
    """Whether sensors or file formats end at the value: the type's maximum, 2^n - 1, a round
    distance."""
    bits = value + 1
    if value == _highest(dtype) or (bits >= 1024 and bits == 2.0 ** np.round(np.log2(bits))):
        return True
    if unit.kind != "steps":
        return value == 255
    far = value / unit.steps
    return far >= ROUND_FROM and abs(far - round(far)) < 1e-6 * far


def take(taken: dict[float, Found], depth: np.ndarray, unit: DepthUnit) -> None:
    """Adds the value of a frame's depth that is surely no reading, if there is one, to those of
    other frames. The frame with most of them stands for a value."""
    found = find(depth, unit)
    if found and found.sure:
        known = taken.get(found.value)
        taken[found.value] = found if not known or found.share > known.share else known


def told(found: Found) -> str:
    """What is said where a value is taken as a hole."""
    return (
        f"depth {number(found.value)} is taken as no reading: {found} (--no-reading none keeps it)"
    )


def examine(depth: np.ndarray, unit: DepthUnit) -> list[Finding]:
    """A finding on a frame (depth as stored) that has such a value still."""
    found = find(depth, unit)
    if not found:
        return []
    where = ""
    if unit.kind == "steps":
        where = f" ({distance.metres(found.value / unit.steps)})"
    remedy = f"--no-reading {number(found.value)} takes them as holes"
    return [Finding("no-reading", f"{found}{where}", remedy)]


def _highest(dtype: np.dtype) -> float:
    return float((np.finfo if dtype.kind == "f" else np.iinfo)(dtype).max)


def _as_stored(value: float, dtype: np.dtype) -> np.number | float:
    return value if dtype.kind != "f" else dtype.type(value)

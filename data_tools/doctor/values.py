"""What a frame's depth values say by themselves: too few, all alike, at the limit, noise."""

from __future__ import annotations

import numpy as np

from boundary.late import cv2
from data_tools.depth import SUNRGBD_MAX_METRES, DepthUnit
from data_tools.doctor import distance
from data_tools.doctor.holes import is_limit, number
from data_tools.doctor.sample import Sample, readings
from data_tools.notes import Finding

FEWEST = 0.1  # the share of pixels with a reading
MOST_NAN = 0.5  # the share of pixels that are no number
NOISE, SMOOTH = 0.05, 0.02  # relative differences of neighbours, which a quarter exceeds
FLAT = 0.002  # the spread of nearly all readings, relative to their median
AT_LIMIT, AT_HIGHEST = 0.5, 0.65  # shares of the readings that are at a limit, at the highest
FEWEST_VALUES = 8  # different readings
COARSE_VALUES, COARSE_METRES = 256, 0.01  # steps up to the highest reading, and their least size
GREY = 0.96  # the correlation of depth with the colour picture's brightness


def examine(sample: Sample) -> list[Finding]:
    """The first of these that is wrong; what follows would be wrong for its reason."""
    if not sample.sorted.size:
        return [Finding("missing", "depth has no reading")]
    for look in (_missing, _flat, _saturated, _grey, _noise, _few, _coarse):
        if found := look(sample):
            return [found]
    return []


def _missing(sample: Sample) -> Finding | None:
    raw = sample.raw
    nan = float(np.isnan(raw).mean()) if raw.dtype.kind == "f" else 0.0
    if nan > MOST_NAN:
        return Finding("missing", f"{nan:.0%} of the depth is NaN")
    if sample.share < FEWEST:
        return Finding("missing", f"{sample.share:.1%} of the pixels have a depth reading")
    return None


def _flat(sample: Sample) -> Finding | None:
    found = sample.sorted
    low, middle, high = found[[len(found) // 50, len(found) // 2, -1 - len(found) // 50]]
    if high - low > FLAT * middle:
        return None
    stored = sample.raw[sample.metres > 0]
    where = "" if sample.unit.kind == "scaled" else f" ({distance.metres(middle)})"
    value = number(float(np.sort(stored)[stored.size // 2]))
    return Finding("flat", f"depth is a constant plane: nearly all readings are {value}{where}")


def _saturated(sample: Sample) -> Finding | None:
    highest = sample.sorted[-1]
    share = float((sample.sorted == highest).mean())
    if sample.unit.kind == "sunrgbd" and highest == SUNRGBD_MAX_METRES and share > AT_LIMIT:
        return Finding(
            "saturated",
            f"depth is saturated: {share:.0%} of the readings are at 8 m, the limit of "
            "--depth-unit sunrgbd",
            "--depth-unit mm is for depth whose bits are not rotated",
        )
    value = float(sample.raw[sample.metres > 0].max())
    if share < (AT_LIMIT if is_limit(value, sample.raw.dtype, sample.unit) else AT_HIGHEST):
        return None
    return Finding(
        "saturated",
        f"depth is saturated: {share:.0%} of the readings are {number(value)}, the highest value",
        f"--no-reading {number(value)} takes them as holes",
    )


def _noise(sample: Sample) -> Finding | None:
    found = _roughness(sample.raw, sample.beside, sample.unit)
    if found < NOISE:
        return None
    what = f"depth is noise: a quarter of all neighbours differ by over {found:.0%}"
    if sample.raw.dtype == np.uint16:
        swapped = sample.raw.byteswap(), sample.beside.byteswap()
        if _roughness(*swapped, sample.unit) < SMOOTH:
            what += ", and by little if the two bytes of each number are swapped"
            return Finding("noise", what, "swap them")
        unit = DepthUnit("sunrgbd")
        if _roughness(sample.raw, sample.beside, unit) < SMOOTH:
            return Finding("noise", what, "--depth-unit sunrgbd makes it smooth")
    return Finding("noise", what)


def _roughness(raw: np.ndarray, beside: np.ndarray, unit: DepthUnit) -> float:
    """A relative difference that a quarter of all neighbours exceed."""
    one, two = readings(raw[::2, ::2], unit), readings(beside[::2, ::2], unit)
    seen = (one > 0) & (two > 0)
    if not seen.any():
        return 0.0
    one, two = one[seen], two[seen]
    # What has no unit may begin anywhere, so that low values say nothing.
    whole = np.maximum(one, two) if unit.kind != "scaled" else 255.0
    return float(np.percentile(np.abs(one - two) / whole, 75))


def _few(sample: Sample) -> Finding | None:
    count = 1 + np.count_nonzero(np.diff(sample.sorted))
    return Finding("few", f"depth has {count} different values") if count < FEWEST_VALUES else None


def _grey(sample: Sample) -> Finding | None:
    """Depth that is the colour picture in grey, perhaps negative."""
    depth = sample.metres[::2, ::2]
    grey = cv2.cvtColor(sample.color, cv2.COLOR_BGR2GRAY)[::2, ::2][depth > 0]
    if not grey.std():
        return None
    found = float(np.corrcoef(grey, depth[depth > 0])[0, 1])
    if abs(found) < GREY:
        return None
    return Finding(
        "grey", f"depth is the brightness of the colour picture (correlation {found:.3f})"
    )


def _coarse(sample: Sample) -> Finding | None:
    """Depth of 16 bits or floats that was a picture of 8 bits: multiples of one coarse step."""
    if sample.unit.kind == "scaled" or sample.raw.dtype.itemsize == 1:
        return None
    found = sample.sorted
    values = found[np.flatnonzero(np.diff(found, prepend=-1.0))]
    step = float(np.diff(values).min())
    whole = values / step
    if whole[-1] > COARSE_VALUES or step < COARSE_METRES:
        return None
    if np.abs(whole - np.rint(whole)).max() > 0.02:
        return None
    return Finding(
        "coarse",
        f"depth has {len(values)} values, all multiples of {distance.metres(step)}, as if it came "
        "from an 8-bit picture",
    )

"""Whether the edges of depth and colour meet: finds shifts, mirror images and rotations.

The edges of depth (jumps and creases of 1 / z, which is linear across planes) are correlated with
those of colour over all shifts, by Fourier transforms, for the frame as it is and for depth turned
or mirrored. Scores are in standard deviations of the correlation over all shifts. Where the frame
is sound, the score without a shift stands out; a frame is complained of only if another one does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import numpy as np

from boundary.late import cv2
from data_tools.doctor.sample import SIDE, Sample
from data_tools.notes import Finding

JUMP = (0.03, 0.08)  # relative changes of depth from one pixel to the next: no edge, a full one
CREASE = (0.02, 0.08)  # relative second differences of 1 / depth over three pixels
SHADOW = 6  # pixels: holes up to this width are filled
AROUND = 31  # pixels: edges are compared with those around them
EDGE, LEAST_SHARE = 0.3, 0.02  # a single object's edges, fewer, meet others by chance
LEAST_SIDE = 16  # pixels of the grid
TOLERANCE = 2  # pixels of the grid: an offset up to here is none
REACH, TURN_REACH = 0.15, 0.04  # shifts up to this part of the longer side are looked for
CLEAR = 6.0  # a score that stands out among turns
# And among shifts, which are many more: on a grid of SIDE pixels, and on one of half the side, as
# fewer pixels give lower scores.
CLEAR_SHIFT = (8.5, 7.0)
# By how much another score must exceed the one without a shift, and which part of it the latter
# must not exceed.
SHIFT, TURN = (4.0, 0.8), (4.0, 0.7)
SOUND = 9.0  # where the score without a shift is so high, no turns are looked for
LEAST_SHIFT = 4  # pixels of the grid
PROJECT = "--intrinsics, --depth-intrinsics and --extrinsics project depth into the colour camera"

Turn = Callable[[np.ndarray], np.ndarray]
TURNS: dict[str, Turn] = {
    "mirrored": lambda plane: plane[:, ::-1],
    "upside down and mirrored": lambda plane: plane[::-1],
    "turned by 180 degrees": lambda plane: plane[::-1, ::-1],
}
SQUARE_TURNS: dict[str, Turn] = {  # of square pictures; others of this kind differ in size
    "turned by 90 degrees": lambda plane: np.rot90(plane, 1),
    "turned by 90 degrees the other way": lambda plane: np.rot90(plane, -1),
    "transposed": lambda plane: plane.T,
    "transposed and turned by 180 degrees": lambda plane: plane[::-1, ::-1].T,
}


@dataclass(frozen=True)
class Match:
    """still: the best score near no shift. best: the best of all, at the shift (x, y) of depth
    against colour, in pixels of the grid."""

    still: float
    best: float
    shift: tuple[int, int]


def examine(sample: Sample) -> list[Finding]:
    """A finding on a frame whose depth is shifted, mirrored or turned against its colour."""
    colors, depth = _spectrum(color_edges(sample.color)), depth_edges(sample.metres)
    if not enough(depth) or (found := _scores(colors, depth)) is None:
        return []
    as_is = best(found)
    if as_is.still < SOUND:
        name, turned = _turned(colors, depth)
        if turned > as_is.best and _clearly(turned, as_is.still, *TURN):
            what = f"depth seems to be {name} against colour: {_told(turned, as_is)}"
            return [Finding("edges", what, "turn it back")]
    return shifted(as_is, sample.scale, max(depth.shape))


def shifted(found: Match, scale: float, side: int) -> list[Finding]:
    """A finding on a match that is clearly better at a shift. scale: pixels of the colour picture
    in one of the grid. side: the longer one of the grid."""
    x, y = found.shift
    clear = np.interp(side, (SIDE / 2, SIDE), CLEAR_SHIFT[::-1])
    far = np.hypot(x, y) >= LEAST_SHIFT and found.best >= clear
    if not (far and _clearly(found.best, found.still, *SHIFT)):
        return []
    ways = [(x, "right", "left"), (y, "down", "up")]
    words = [f"{abs(n) * scale:.0f} pixels {b if n > 0 else a}" for n, b, a in ways if n]
    what = f"depth lies {' and '.join(words)} of its place in colour"
    return [Finding("edges", f"{what}: {_told(found.best, found)}", PROJECT)]


def _turned(colors: np.ndarray, depth: np.ndarray) -> tuple[str, float]:
    """How depth has to be turned for the best match, and its score."""
    square = depth.shape[0] == depth.shape[1]
    turns = {**TURNS, **(SQUARE_TURNS if square else {})}
    found = {name: _scores(colors, turn(depth)) for name, turn in turns.items()}
    return max(
        ((name, best(one, TURN_REACH).best) for name, one in found.items() if one is not None),
        key=lambda one: one[1],
        default=("", 0.0),
    )


def _told(score: float, as_is: Match) -> str:
    return f"so their edges meet with a score of {score:.1f}, as they are with {as_is.still:.1f}"


def _clearly(score: float, still: float, margin: float, part: float) -> bool:
    return score >= CLEAR and score - still >= margin and still <= part * score


def matched(color: np.ndarray, metres: np.ndarray) -> Match | None:
    """The match of a frame's colour (H x W x 3 uint8) and depth (H x W) as they are."""
    found = scores(color, depth_edges(metres))
    return None if found is None else best(found)


def enough(depth: np.ndarray) -> bool:
    """Whether there are so many edges of depth (H x W) that they do not meet others by chance."""
    return float((depth > EDGE).mean()) >= LEAST_SHARE


def scores(color: np.ndarray, depth: np.ndarray) -> np.ndarray | None:
    """The scores of colour (H x W x 3 uint8) and the edges of depth (H x W) for all shifts of
    depth, H x W with no shift in the middle; None without edges."""
    return _scores(_spectrum(color_edges(color)), depth)


def _scores(colors: np.ndarray, depth: np.ndarray) -> np.ndarray | None:
    """colors: the spectrum of colour's edges. depth: the edges of depth."""
    if min(depth.shape) < LEAST_SIDE:
        return None
    around = np.ascontiguousarray(depth - cv2.blur(depth, (AROUND, AROUND)))
    if not around.any() or not colors.any():
        return None
    product = cv2.mulSpectrums(_spectrum(around), colors, 0, conjB=True)
    found = cv2.dft(product, flags=cv2.DFT_INVERSE | cv2.DFT_REAL_OUTPUT | cv2.DFT_SCALE)
    return np.fft.fftshift(found) / max(float(found.std()), 1e-12)


def best(found: np.ndarray, reach: float = REACH) -> Match:
    """The best of these scores near no shift, and up to `reach` of the longer side."""
    height, width = found.shape
    farthest = min(height // 2, width // 2) - 1
    far = max(TOLERANCE, min(round(reach * max(height, width)), farthest))
    near = _middle(found, far)
    y, x = np.unravel_index(near.argmax(), near.shape)
    still = _middle(found, TOLERANCE).max()
    return Match(float(still), float(near.max()), (int(x) - far, int(y) - far))


def _middle(found: np.ndarray, far: int) -> np.ndarray:
    """The scores of shifts up to `far` pixels each way."""
    row, column = found.shape[0] // 2, found.shape[1] // 2
    return found[row - far : row + far + 1, column - far : column + far + 1]


def _spectrum(edges: np.ndarray) -> np.ndarray:
    return cv2.dft(edges)


def color_edges(color: np.ndarray) -> np.ndarray:
    """H x W float32: the strength of colour's edges, relative to those around, 0 on average."""
    smooth = cv2.GaussianBlur(color, (3, 3), 0)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1)
    strength = reduce(np.maximum, cv2.split(cv2.magnitude(across, down)))
    size = (AROUND, AROUND)
    strength /= cv2.blur(strength, size) + 0.3 * float(strength.mean()) + 1e-6
    strength = np.minimum(strength, 4)
    return strength - cv2.blur(strength, size)


def depth_edges(metres: np.ndarray) -> np.ndarray:
    """H x W float32, 0..1: jumps and creases of depth (H x W, 0 = no reading). Wide holes have
    none."""
    near = np.divide(1, metres, out=np.zeros_like(metres), where=metres > 0).astype(np.float32)
    near = _without_shadows(near)
    rows, columns = _along_rows(near), _along_rows(np.ascontiguousarray(near.T)).T
    return np.ascontiguousarray(np.maximum(rows, columns))


def _without_shadows(near: np.ndarray) -> np.ndarray:
    """near (H x W of 1 / metres, 0 = no reading), with narrow holes filled from their farther side:
    beside a near object, the sensor's two eyes do not both see what is behind."""
    left, right = near.copy(), near.copy()
    for _ in range(SHADOW):
        left[:, 1:] = np.where(left[:, 1:] > 0, left[:, 1:], left[:, :-1])
        right[:, :-1] = np.where(right[:, :-1] > 0, right[:, :-1], right[:, 1:])
    return np.where(near > 0, near, np.minimum(left, right))


def _along_rows(near: np.ndarray, step: int = 3) -> np.ndarray:
    """The edges along each row. near: H x W of 1 / metres, 0 = no reading."""
    edges = np.zeros_like(near)
    left, middle, right = near[:, : -2 * step], near[:, step:-step], near[:, 2 * step :]
    least = np.minimum(np.minimum(left, right), middle)
    with np.errstate(divide="ignore", invalid="ignore"):
        crease = np.abs(left + right - 2 * middle) / least
        ratio = near[:, 1:] / near[:, :-1]
        jump = np.maximum(ratio, 1 / ratio) - 1
    seen = (near[:, 1:] > 0) & (near[:, :-1] > 0)
    jump = np.where(seen, _ramp(jump, *JUMP), 0)
    edges[:, step:-step] = np.where(least > 0, _ramp(crease, *CREASE) / 2, 0)
    edges[:, 1:] = np.maximum(edges[:, 1:], jump)
    edges[:, :-1] = np.maximum(edges[:, :-1], jump)
    return edges


def _ramp(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """0 up to `low`, 1 from `high` on."""
    return np.clip((values - low) / (high - low), 0, 1)

"""Ways in which depth is spoiled, for the tests of the doctor: each takes colour (H x W x 3 uint8)
and depth (H x W uint16 millimetres, 0 = no reading)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from data_tools.depth import DepthUnit

Arrays = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Way:
    """spoil: gives colour and depth. kind: of the finding. words: in what is said. unit: that the
    user gives. least: the share of rendered frames in which it is found."""

    spoil: Callable[[np.ndarray, np.ndarray], Arrays]
    kind: str
    words: str
    unit: str = "mm"
    least: float = 1.0


def thinned(depth: np.ndarray, share: float) -> np.ndarray:
    """depth with readings left in this share of the pixels."""
    kept = np.random.default_rng(0).random(depth.shape) < share
    return np.where(kept, depth, 0).astype(depth.dtype)


def grey(color: np.ndarray, depth: np.ndarray) -> Arrays:
    """The brightness of colour, as an 8-bit file."""
    return color, np.maximum(cv2.cvtColor(color, cv2.COLOR_BGR2GRAY), 1)


def saturated(color: np.ndarray, depth: np.ndarray) -> Arrays:
    """A sensor that sees no farther than most of the room is."""
    limit = np.median(depth[depth > 0]) - 800
    return color, np.where(depth > limit, 65535, depth).astype(np.uint16)


def steps_of_eight_bits(color: np.ndarray, depth: np.ndarray) -> Arrays:
    """An 8-bit picture, scaled to 16 bits."""
    return color, (depth // 40).astype(np.uint8).astype(np.uint16) * 40


def disparity(color: np.ndarray, depth: np.ndarray) -> Arrays:
    """What a stereo camera measures: proportional to 1 / distance, 3 m apart from nothing."""
    return color, np.where(depth > 0, 9e6 / np.maximum(depth, 1), 0).astype(np.uint16)


def reversed_depth(color: np.ndarray, depth: np.ndarray) -> Arrays:
    """Near is high."""
    return color, np.where(depth > 0, 9000 - depth.astype(int), 0).astype(np.uint16)


def turned_bits(color: np.ndarray, depth: np.ndarray) -> Arrays:
    """SUN RGB-D's form."""
    return color, (depth << 3) | (depth >> 13)


def nan(color: np.ndarray, depth: np.ndarray) -> Arrays:
    """Metres, with NaN in seven pixels of ten."""
    few = thinned(depth, 0.3)
    return color, np.where(few > 0, few / 1000, np.nan).astype(np.float32)


def square(color: np.ndarray, depth: np.ndarray) -> Arrays:
    """The middle, with depth turned by a quarter."""
    side = depth.shape[0]
    left = (depth.shape[1] - side) // 2
    part = slice(left, left + side)
    return np.ascontiguousarray(color[:, part]), np.rot90(depth[:, part])


WAYS = {
    "constant": Way(lambda c, d: (c, np.full_like(d, 1500)), "flat", "are 1500 (1.5 m)"),
    "saturated": Way(saturated, "saturated", "are 65535, the highest value; --no-reading 65535"),
    "too far": Way(lambda c, d: (c, d), "depth-unit", "--depth-unit mm makes it", "m"),
    "too near": Way(lambda c, d: (c, d // 40), "depth-unit", "--depth-unit 100 makes it"),
    "metres as mm": Way(
        lambda c, d: (c, (d / 1000).astype(np.float32)), "depth-unit", "--depth-unit m makes it"
    ),
    "turned bits": Way(turned_bits, "depth-unit", "--depth-unit sunrgbd makes it"),
    "bits not turned": Way(lambda c, d: (c, d), "saturated", "--depth-unit mm is for", "sunrgbd"),
    "swapped bytes": Way(lambda c, d: (c, d.byteswap()), "noise", "bytes of each number"),
    "noise": Way(
        lambda c, d: (c, np.random.default_rng(0).integers(500, 5000, d.shape, np.uint16)),
        "noise",
        "neighbours differ",
    ),
    "few readings": Way(lambda c, d: (c, thinned(d, 0.03)), "missing", "of the pixels have"),
    "NaN": Way(nan, "missing", "of the depth is NaN", "m"),
    "few values": Way(
        lambda c, d: (c, (d // 2000 * 2000 + 37 * (d > 0)).astype(np.uint16)), "few", "different"
    ),
    "eight bits": Way(steps_of_eight_bits, "coarse", "multiples of 0.04 m"),
    "grey": Way(grey, "grey", "brightness of the colour picture", "scaled"),
    "negative": Way(lambda c, d: (c, 255 - grey(c, d)[1]), "grey", "correlation -", "scaled"),
    "disparity": Way(disparity, "inverse", "disparity", least=0.7),
    "reversed": Way(reversed_depth, "inverse", "reversed depth", least=0.7),
    "no reading is 65535": Way(
        lambda c, d: (c, np.where(d > 0, d, 65535).astype(np.uint16)),
        "no-reading",
        "--no-reading 65535 takes them as holes",
    ),
    "no reading is 10 m": Way(
        lambda c, d: (c, np.where(d > 0, d, 10000).astype(np.uint16)),
        "no-reading",
        "--no-reading 10000 takes them as holes",
    ),
    "shifted right": Way(
        lambda c, d: (c, np.roll(d, 12, 1)), "edges", "12 pixels right", least=0.4
    ),
    "shifted up": Way(lambda c, d: (c, np.roll(d, -12, 0)), "edges", "12 pixels up", least=0.4),
    "mirrored": Way(lambda c, d: (c, d[:, ::-1]), "edges", "to be mirrored against", least=0.7),
    "upside down": Way(
        lambda c, d: (c, d[::-1]), "edges", "upside down and mirrored against", least=0.7
    ),
    "turned by 180": Way(lambda c, d: (c, d[::-1, ::-1]), "edges", "180 degrees", least=0.7),
    "turned by 90": Way(square, "edges", "turned by 90 degrees the other way", least=0.7),
}


def unit(way: Way) -> DepthUnit:
    """The unit that the user gives."""
    return DepthUnit.parse(way.unit)

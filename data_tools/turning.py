"""Pictures that EXIF data turn upright, and the depth and labels that belong to them.

A phone stores its pictures as the sensor saw them, and says in EXIF data how to turn them. Depth
has no such data. So it has to be turned with the colours, unless somebody has turned it already.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.doctor import edges
from data_tools.doctor.sample import sample
from data_tools.fit import ASPECT_TOLERANCE
from data_tools.notes import Note
from data_tools.record import Frame

WAYS = {
    2: "mirrored",
    3: "turned by 180 degrees",
    4: "turned by 180 degrees and mirrored",
    5: "transposed",
    6: "turned by 90 degrees clockwise",
    7: "transposed and turned by 180 degrees",
    8: "turned by 90 degrees counter-clockwise",
}
ACROSS = 5  # from this orientation on, width and height are exchanged
CLEARLY = 3.0  # standard deviations between the scores of depth as it is and turned


def upright(plane: np.ndarray, orientation: int) -> np.ndarray:
    """A picture (H x W[ x C]) of this EXIF orientation, turned upright."""
    if orientation >= ACROSS:
        plane = plane.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        plane = plane[::-1]
    if orientation in (2, 3, 6, 7):
        plane = plane[:, ::-1]
    return np.ascontiguousarray(plane)


def turned(frame: Frame, orientation: int) -> Frame:
    """A frame whose colour picture was turned from this orientation, with depth and label turned in
    the same way if they were stored unturned. Raises DataError if nothing tells."""
    if orientation == 1:
        return frame
    parts = [
        part
        for part in ("depth", "label")
        if getattr(frame, part) is not None and _needs_it(frame, part, orientation)
    ]
    if not parts:
        return frame
    way = WAYS[orientation]
    verb = "are" if len(parts) > 1 else "is"
    text = f"{' and '.join(parts)} {verb} {way}, as EXIF data turn colour"
    return replace(
        frame,
        **{part: upright(getattr(frame, part), orientation) for part in parts},
        notes=(*frame.notes, Note("turned", text)),
        facts={**frame.facts, "turned": dict.fromkeys(parts, way)},
    )


def _needs_it(frame: Frame, part: str, orientation: int) -> bool:
    """Whether depth or label has to be turned: its size tells, else its edges."""
    plane = getattr(frame, part)
    as_is, across = (_alike(shape, frame.color.shape) for shape in (plane.shape, plane.shape[::-1]))
    if orientation >= ACROSS and not (as_is and across):
        return across
    return as_is and _meets(frame, part, orientation)


def _alike(shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return abs(shape[0] * other[1] / (shape[1] * other[0]) - 1) <= ASPECT_TOLERANCE


def _meets(frame: Frame, part: str, orientation: int) -> bool:
    """Whether the edges of depth or label meet those of colour if it is turned. Raises DataError if
    the edges of neither way stand out."""
    plane = getattr(frame, part)
    as_is, turned = (_score(frame.color, one) for one in (plane, upright(plane, orientation)))
    if max(as_is, turned) < edges.CLEAR or abs(as_is - turned) < CLEARLY:
        file = frame.files.get("color")
        raise DataError(
            f"{f'{file}: ' if file else ''}colour is {WAYS[orientation]} by its EXIF data, and "
            f"nothing tells whether {part} is; store it upright, without EXIF data"
        )
    return turned > as_is


def _score(color: np.ndarray, plane: np.ndarray) -> float:
    """How well the edges of depth or label meet those of colour; 0 for pictures without edges.

    Labels pass for depth: their edges are jumps, too.
    """
    if plane.dtype.kind not in "uif":
        return 0.0
    seen = sample(color, plane, DepthUnit("steps"))
    found = seen and edges.matched(seen.color, seen.metres)
    return found.still if found else 0.0

"""The contact sheet of an LMDB: colour, depth, label, overlay, and depth's edges over colour."""

from __future__ import annotations

import numpy as np

from boundary.late import cv2
from boundary.text import shown
from data_tools import classes
from data_tools.cli import DataError
from data_tools.depth import DepthRange
from data_tools.doctor import edges, records
from data_tools.doctor.sample import LEAST_PIXELS
from data_tools.record import CHANNELS, from_datum
from data_tools.store import Reader, name_of

STRIP = 18  # pixels: the height of a row's title
EDGE_COLOR = (60, 60, 255)
BAR = 10  # pixels: the width of the colour bar


def sheet(reader: Reader, frames: int, width: int = 240) -> np.ndarray:
    """A contact sheet of evenly spaced records, one row each under its key: BGR uint8.

    Each row has colour, depth with a colour bar, label and their overlay, each `width` wide, and
    the edges of depth over colour. Records of few pixels have neither bar nor edges.
    """
    keys = reader.keys()
    chosen = [keys[i] for i in np.unique(np.linspace(0, len(keys) - 1, frames).astype(int))]
    fixed = records.fixed_range(reader.info)
    palette = palette_of(reader)
    rows = []
    for key in chosen:
        try:
            planes, _ = from_datum(reader.get(key))
        except DataError:
            continue
        if len(planes) == len(CHANNELS):
            title = f"{shown(name_of(key))}  {depth_in_words(planes[3], fixed)}"
            rows.append((title, pictures(planes, palette, width, fixed)))
    if not rows:
        raise DataError(f"{reader.path}: has no five-channel record to draw")
    columns = max(len(row) for _, row in rows)
    return np.vstack([part for row in rows for part in _titled(*row, columns)])


def captions(reader: Reader) -> str:
    """What the sheet's columns are, in words."""
    fixed = records.fixed_range(reader.info)
    depth = f"depth in metres ({fixed})" if fixed else "depth as scaled to 0..255"
    return f"colour; {depth}; label; overlay; edges of depth over colour"


def palette_of(reader: Reader) -> np.ndarray:
    """The colour of each of 256 labels, B, G, R: those of the dataset.json, then the usual ones."""
    colors = list(reader.info.get("palette") or [])
    return np.array(colors + classes.palette(256)[len(colors) :], np.uint8)[:, ::-1]


def pictures(
    planes: np.ndarray, palette: np.ndarray, width: int, fixed: DepthRange | None
) -> list[np.ndarray]:
    """The pictures of a record of five channels, BGR uint8, each `width` wide: colour, depth,
    label, overlay, and the edges of depth over colour unless it has few pixels.

    palette: as palette_of. fixed: the metres that 0..255 stand for, if they are known.
    """
    color = records.colors(planes)
    depth = cv2.applyColorMap(planes[3].astype(np.uint8), cv2.COLORMAP_VIRIDIS)
    depth[planes[3] == 0] = 0
    label = palette[np.clip(planes[4], 0, 255).astype(np.uint8)]
    overlay = np.where((planes[4] > 0)[..., None], color // 2 + label // 2, color)
    size = width, max(1, round(width * color.shape[0] / color.shape[1]))
    found = [_at(picture, size) for picture in (color, depth, label, overlay)]
    if planes[3].size >= LEAST_PIXELS:
        _draw_bar(found[1], fixed)
        found.append(_with_edges(found[0], planes[3]))
    return found


def _at(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = np.ascontiguousarray(picture, np.uint8)
    return cv2.resize(picture, size, interpolation=cv2.INTER_NEAREST)


def _with_edges(color: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """color (H x W x 3) with the edges of depth (h x w, 0 = no reading) drawn over it."""
    values = np.nan_to_num(depth.astype(np.float64))
    found = cv2.resize(edges.depth_edges(values), color.shape[1::-1])
    drawn = color.copy()
    drawn[found > edges.EDGE] = EDGE_COLOR
    return drawn


def _draw_bar(picture: np.ndarray, fixed: DepthRange | None) -> None:
    """Draws the colours of 0..255 at the right of a picture, with metres if they are known."""
    height, width = picture.shape[:2]
    top, bottom = height // 10, height - height // 10
    steps = np.linspace(255, 0, bottom - top).astype(np.uint8)
    bar = cv2.applyColorMap(steps[:, None].repeat(BAR, 1), cv2.COLORMAP_VIRIDIS)
    picture[top:bottom, width - BAR - 4 : width - 4] = bar
    for part, at in ((1.0, top), (0.5, (top + bottom) // 2), (0.0, bottom)):
        text = f"{255 * part:.0f}"
        if fixed:
            text = f"{fixed.near + part * (fixed.far - fixed.near):g} m"
        (wide, _), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.4, 1)
        place = (width - BAR - 8 - wide, at + 4)
        for ink, thick in (((0, 0, 0), 3), ((255, 255, 255), 1)):
            cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, thick,
                        cv2.LINE_AA)  # fmt: skip


def depth_in_words(depth: np.ndarray, fixed: DepthRange | None) -> str:
    """The nearest and the farthest reading of a record."""
    found = depth[depth > 0]
    if not found.size:
        return "no depth"
    low, high = float(found.min()), float(found.max())
    if fixed is None:
        return f"depth {low:.0f} to {high:.0f} of 255"
    low, high = (fixed.near + value / 255 * (fixed.far - fixed.near) for value in (low, high))
    return f"{low:.2f} to {high:.2f} m"


def strip(title: str, width: int) -> np.ndarray:
    """A row's title, BGR uint8, STRIP x `width`."""
    drawn = np.full((STRIP, width, 3), 255, np.uint8)
    cv2.putText(drawn, title, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (0, 0, 0), 1, cv2.LINE_AA)
    return drawn


def _titled(title: str, row: list[np.ndarray], columns: int) -> list[np.ndarray]:
    row = row + [np.full_like(row[0], 255)] * (columns - len(row))
    return [strip(title, columns * row[0].shape[1]), np.hstack(row)]

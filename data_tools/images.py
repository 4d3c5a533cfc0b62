"""Reads image files: colour, depth (PNG, EXR, NPY, ...) and label (plain, palette, colours)."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from boundary.arrays import decode_npy, read_npy
from boundary.errors import shown
from boundary.late import cv2
from boundary.limits import check_pixels
from boundary.pictures import claimed_size, decode, orientation, read_picture
from boundary.reading import check_plain, read_bytes, reading
from data_tools import turning
from data_tools.classes import ClassTable
from data_tools.cli import DataError
from data_tools.exr import decode_exr
from data_tools.record import UNKNOWN, Frame, UnknownLabel

COLOR = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".ppm", ".webp")
DEPTH = (".png", ".exr", ".npy", ".tif", ".tiff", ".pgm")
COLORED = "; it is a picture of depth for people: export PNG of 16 bits"
LABEL = (".png", ".npy", ".bmp", ".tif", ".tiff", ".pgm")


def read_color(path: str | Path) -> np.ndarray:
    """H x W x 3 uint8, BGR, upright. Raises DataError if it is no picture, or a too large one."""
    return read_turned(path)[0]


def read_turned(path: str | Path) -> tuple[np.ndarray, int]:
    """As read_color, and the EXIF orientation from which it was turned upright; 1 if it was not."""
    data = read_bytes(path, DataError, plain=True)
    return decode_color(data, shown(path)), orientation(data)


def orientation_of(path: str | Path) -> int:
    """The EXIF orientation from which read_color turns a picture. Raises DataError."""
    return orientation(read_bytes(path, DataError, plain=True))


def read_frame(
    files: dict[str, Any], label: Callable[[tuple[int, int]], np.ndarray] | None = None
) -> Frame:
    """The frame in the files 'color' and 'depth'. label: reads the label (H x W) of 'label', given
    the colour picture's width and height.

    Where EXIF data turn the colour picture, depth and label are turned in the same way, if they
    were stored as the camera saw it. Raises as read_color and read_depth, and DataError if nothing
    tells whether they have to be turned.
    """
    color, way = read_turned(files["color"])
    depth = read_depth(files["depth"])
    paths = {part: str(file) for part, file in files.items()}
    frame = Frame(color, depth, label and label(color.shape[1::-1]), files=paths)
    return turning.turned(frame, way)


def decode_color(data: bytes, where: str) -> np.ndarray:
    """As read_color, from a file's bytes. where: begins the message of an error."""
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    return turning.upright(decode(data, flags, where, DataError), orientation(data))


def read_depth(path: str | Path) -> np.ndarray:
    """H x W as stored: integers or floats. Raises as read_color, also for several channels."""
    suffix = Path(path).suffix.lower()
    if suffix == ".npy":
        return _one_channel(_read_npy(path), str(path))
    return decode_depth(read_bytes(path, DataError, plain=True), suffix, shown(path))


def decode_depth(data: bytes, suffix: str, where: str) -> np.ndarray:
    """As read_depth, from a file's bytes. suffix: of its name. where: begins the message of an
    error.
    """
    if suffix == ".exr":
        return decode_exr(data, where)
    if suffix == ".npy":
        return _one_channel(_not_empty(decode_npy(data, where, DataError), where), where)
    return _one_channel(decode(data, cv2.IMREAD_UNCHANGED, where, DataError), where)


def _one_channel(depth: np.ndarray, where: str) -> np.ndarray:
    if depth.ndim == 3 and depth.shape[2] == 1:
        depth = depth[:, :, 0]
    if depth.ndim != 2:
        told = "" if depth.dtype != np.uint8 else COLORED
        raise DataError(
            f"{where}: depth has shape {depth.shape}, expected one channel (H, W){told}"
        )
    return depth


def read_label(
    path: str | Path,
    classes: ClassTable | None = None,
    ignore_unknown: bool = False,
    numbers: Callable[[np.ndarray], np.ndarray] = lambda stored: stored,
) -> np.ndarray:
    """H x W of labels.

    A palette PNG gives its indices. If the class table has colours, palette and colour images give
    the labels of their colours. numbers: what labels become that are stored as numbers.

    Raises UnknownLabel for a colour that is not in the table, unless ignore_unknown, which makes it
    UNKNOWN, and DataError for a colour image without a table.
    """
    has_colors = classes is not None and classes.colors is not None
    if Path(path).suffix.lower() == ".npy":
        return numbers(_read_npy(path))
    if not has_colors and _has_palette(path):
        return numbers(_palette_indices(path))
    label = _read(path, cv2.IMREAD_UNCHANGED)
    if label.ndim == 2:
        return numbers(label)
    if not has_colors:
        raise DataError(
            f"{path}: label is a colour picture; give a table of classes with their "
            "colours (--classes TABLE.csv with columns label,name,r,g,b)"
        )
    return labels_of_colors(label[:, :, 2::-1], classes, str(path), ignore_unknown)


def labels_of_colors(
    colors: np.ndarray, classes: ClassTable, where: str, ignore_unknown: bool = False
) -> np.ndarray:
    """colors (H x W x 3 uint8, RGB) -> labels of these colours, H x W uint8.

    Raises as read_label; with ignore_unknown, int16 if there are unknown colours.
    """
    weights = np.array([1 << 16, 1 << 8, 1])
    codes = colors.astype(np.int64) @ weights
    known = np.array(classes.colors, np.int64) @ weights
    order = np.argsort(known, kind="stable")
    places = np.minimum(np.searchsorted(known[order], codes), len(known) - 1)
    strange = known[order][places] != codes
    if ignore_unknown and strange.any():
        return np.where(strange, UNKNOWN, order[places]).astype(np.int16)
    wrong = np.argwhere(strange)
    if len(wrong):
        y, x = wrong[0]
        raise UnknownLabel(
            f"{where}: colour {tuple(map(int, colors[y, x]))} at x={x} y={y} is not "
            "in the table of classes"
        )
    return order[places].astype(np.uint8)


def _read(path: str | Path, flags: int) -> np.ndarray:
    return read_picture(path, flags, DataError)


def _read_npy(path: str | Path) -> np.ndarray:
    return _not_empty(read_npy(path, DataError), shown(path))


def _not_empty(values: np.ndarray, where: str) -> np.ndarray:
    if not values.size:
        raise DataError(f"{where}: an array of shape {values.shape} holds no values")
    return values


def _has_palette(path: str | Path) -> bool:
    """Whether the file is a PNG of colour type 3."""
    check_plain(path, DataError)
    with reading(path, "a picture", DataError), open(path, "rb") as file:
        head = file.read(26)
    return head[:8] == b"\x89PNG\r\n\x1a\n" and head[25:26] == b"\x03"


def _palette_indices(path: str | Path) -> np.ndarray:
    from PIL import Image  # OpenCV would convert palettes to colours

    data = read_bytes(path, DataError, plain=True)
    with reading(path, "a picture that can be read", DataError):
        size = claimed_size(data)
        if size is not None:
            check_pixels(*size, shown(path), DataError)
        with Image.open(io.BytesIO(data)) as image:
            return np.array(image)

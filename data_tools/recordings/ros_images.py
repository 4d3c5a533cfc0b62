"""Pictures in ROS messages: sensor_msgs/Image and CompressedImage to arrays.

The encodings are those of sensor_msgs' image_encodings.h; depth follows REP 118 (16UC1 in
millimetres, 32FC1 in metres). `compressedDepth` is that of compressed_depth_image_transport: a
header of 12 bytes and a PNG, or the size and RVL.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from boundary import limits, pictures
from boundary.late import cv2
from data_tools.cli import DataError
from data_tools.recordings import rvl

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"

# encoding: (number type, channels, the name of OpenCV's conversion to BGR)
COLORS = {
    "bgr8": ("u1", 3, None),
    "8UC3": ("u1", 3, None),
    "rgb8": ("u1", 3, "COLOR_RGB2BGR"),
    "bgra8": ("u1", 4, "COLOR_BGRA2BGR"),
    "rgba8": ("u1", 4, "COLOR_RGBA2BGR"),
    "yuv422": ("u1", 2, "COLOR_YUV2BGR_UYVY"),
    "uyvy": ("u1", 2, "COLOR_YUV2BGR_UYVY"),
    "yuv422_yuy2": ("u1", 2, "COLOR_YUV2BGR_YUY2"),
    "yuyv": ("u1", 2, "COLOR_YUV2BGR_YUY2"),
    # ROS names the first two pixels of a mosaic's first line, OpenCV those of the middle.
    "bayer_rggb8": ("u1", 1, "COLOR_BayerBG2BGR"),
    "bayer_bggr8": ("u1", 1, "COLOR_BayerRG2BGR"),
    "bayer_gbrg8": ("u1", 1, "COLOR_BayerGR2BGR"),
    "bayer_grbg8": ("u1", 1, "COLOR_BayerGB2BGR"),
}
GREYS = {"mono8": ("u1", 1, "COLOR_GRAY2BGR"), "8UC1": ("u1", 1, "COLOR_GRAY2BGR")}
DEPTHS = {"16UC1": "u2", "mono16": "u2", "32FC1": "f4"}
_HEADER = 12  # bytes before the PNG: a number, and the two parameters of the inverse depth


def part_of(message: Any) -> str | None:
    """'color', 'grey' or 'depth': what a message shows; None if it cannot be used."""
    if hasattr(message, "encoding"):
        if message.encoding in COLORS:
            return "color"
        if message.encoding in GREYS:
            return "grey"
        return "depth" if message.encoding in DEPTHS else None
    form = message.format.lower()
    if "compresseddepth" in form:
        return "depth"
    first = form.partition(";")[0].strip()
    if first in ("16uc1", "mono16", "32fc1"):
        return "depth"
    return "grey" if first in ("mono8", "8uc1") else "color"


def color(message: Any, where: str) -> np.ndarray:
    """H x W x 3 uint8, BGR. Raises DataError, naming `where`, for what it is not."""
    if not hasattr(message, "encoding"):
        return pictures.decode(bytes(message.data), cv2.IMREAD_COLOR, where, DataError)
    known = {**COLORS, **GREYS}
    if message.encoding not in known:
        raise DataError(
            f"{where}: encoding {message.encoding!r}, expected one of {', '.join(known)}"
        )
    kind, channels, conversion = known[message.encoding]
    image = _plain(message, kind, channels, where)
    if conversion is None:
        return np.ascontiguousarray(image)
    try:
        return cv2.cvtColor(image, getattr(cv2, conversion))
    except cv2.error:  # an odd width where two pixels share a colour
        size = f"{message.width}x{message.height}"
        raise DataError(
            f"{where}: encoding {message.encoding!r} of {size} pixels cannot be converted"
        ) from None


def depth(message: Any, where: str) -> np.ndarray:
    """H x W, uint16 or float32. Raises DataError, naming `where`, for what it is not."""
    if not hasattr(message, "encoding"):
        return _compressed_depth(message, where)
    if message.encoding not in DEPTHS:
        raise DataError(
            f"{where}: encoding {message.encoding!r}, expected one of {', '.join(DEPTHS)}"
        )
    return np.ascontiguousarray(_plain(message, DEPTHS[message.encoding], 1, where))


def _plain(message: Any, kind: str, channels: int, where: str) -> np.ndarray:
    """H x W[ x channels] of an Image, in this machine's order of bytes."""
    limits.check_pixels(message.width, message.height, where, DataError)
    number = np.dtype(kind).newbyteorder(">" if message.is_bigendian else "<")
    row = message.width * channels * number.itemsize
    data = np.frombuffer(bytes(message.data), np.uint8)
    step = message.step or row
    if step < row or data.size < step * (message.height - 1) + row:
        raise DataError(
            f"{where}: {data.size} bytes in lines of {step}, expected {message.height} lines of "
            f"{row} ({message.encoding})"
        )
    lines = np.zeros((message.height, step), np.uint8)
    lines.ravel()[: data.size] = data[: lines.size]
    values = np.ascontiguousarray(lines[:, :row]).view(number).astype(kind)
    shape = (message.height, message.width)
    return values.reshape(shape if channels == 1 else (*shape, channels))


def _compressed_depth(message: Any, where: str) -> np.ndarray:
    data = bytes(message.data)
    if "compresseddepth" not in message.format.lower():  # a plain PNG of depth
        return _channel(data, where)
    if "rvl" in message.format.lower():
        stored = _rvl(data[_HEADER:], where, message.format)
    elif data[_HEADER : _HEADER + 4] == b"\x89PNG":
        stored = _channel(data[_HEADER:], where)
    else:
        raise DataError(f"{where}: depth compressed as {message.format!r}, expected PNG or RVL")
    if not message.format.startswith("32FC1"):
        return stored
    _, scale, offset = struct.unpack_from("<iff", data)
    inverse = stored.astype(np.float32) - offset
    with np.errstate(divide="ignore"):
        return np.where(stored > 0, scale / inverse, 0).astype(np.float32)


def _rvl(data: bytes, where: str, form: str) -> np.ndarray:
    """H x W of the numbers behind two of 32 bits, the columns and rows."""
    try:
        columns, rows = struct.unpack_from("<II", data)
        limits.check_pixels(columns, rows, where, DataError)
        return rvl.decode(data[8:], columns * rows).reshape(rows, columns)
    except (struct.error, ValueError) as problem:
        told = f"{where}: depth compressed as {form!r}, expected PNG or RVL that can be read"
        raise DataError(f"{told}: {problem}") from problem


def _channel(data: bytes, where: str) -> np.ndarray:
    image = pictures.decode(data, cv2.IMREAD_UNCHANGED, where, DataError)
    if image.ndim != 2:
        raise DataError(f"{where}: depth has shape {image.shape}, expected one channel (H, W)")
    return image

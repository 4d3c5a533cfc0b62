"""Reads depth from one channel of an OpenEXR file, without a library.

The format is documented at openexr.com ("OpenEXR File Layout"). The reader supports single-part
scanline files without compression or with RLE, ZIPS or ZIP; it refuses others by name.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from boundary import limits
from boundary.inflate import inflate
from boundary.reading import read_bytes, reading
from data_tools.cli import DataError

MAGIC = 20000630
TILED, DEEP, MULTIPART = 0x200, 0x800, 0x1000
COMPRESSIONS = ("NONE", "RLE", "ZIPS", "ZIP", "PIZ", "PXR24", "B44", "B44A", "DWAA", "DWAB")
LINES = {"NONE": 1, "RLE": 1, "ZIPS": 1, "ZIP": 16}
PIXELS = (np.dtype("<u4"), np.dtype("<f2"), np.dtype("<f4"))
# Names of the depth channel, in order of preference.
DEPTH_CHANNELS = ("Z", "V", "Y", "R", "depth", "B", "G")


def read_exr(path: str | Path) -> np.ndarray:
    """The depth channel (Z, or the next of DEPTH_CHANNELS) as H x W float32.

    Raises DataError for an unsupported or broken file.
    """
    return decode_exr(read_bytes(path, DataError, plain=True), str(path))


def decode_exr(data: bytes, where: str) -> np.ndarray:
    """As read_exr, from the file's bytes. where: begins the message of an error."""
    with reading(where, "an OpenEXR file that can be read", DataError):
        return _decode(data, where)


def _decode(data: bytes, where: str) -> np.ndarray:
    magic, version = struct.unpack_from("<II", data)
    if magic != MAGIC:
        raise DataError(f"{where}: not an OpenEXR file")
    if version & (TILED | DEEP | MULTIPART):
        raise DataError(f"{where}: expected a single-part scanline OpenEXR file without tiles")
    header, offset = _header(data)
    compression = COMPRESSIONS[header["compression"][0]]
    if compression not in LINES:
        raise DataError(
            f"{where}: OpenEXR compression {compression} is not read; save it with ZIP or none"
        )
    channels = _channels(header["channels"])
    name = _depth_channel([channel for channel, _ in channels], where)
    left, top, right, bottom = struct.unpack("<4i", header["dataWindow"])
    width, height = right - left + 1, bottom - top + 1
    limits.check_pixels(width, height, where, DataError)
    row = sum(dtype.itemsize for _, dtype in channels) * width
    limits.check_bytes(row * LINES[compression], len(data), where, DataError)
    blocks = -(-height // LINES[compression])
    starts = struct.unpack_from(f"<{blocks}Q", data, offset)  # fails if there are not so many
    image = np.empty((height, width), np.float32)
    for start in starts:
        y, size = struct.unpack_from("<ii", data, start)
        lines = min(LINES[compression], bottom - y + 1)
        if size < 0 or y < top or lines < 1:
            raise ValueError(f"a block of {size} bytes at line {y}")
        block = _expand(data[start + 8 : start + 8 + size], compression, row * lines)
        _take(image[y - top : y - top + lines], block, channels, name)
    return image


def _header(data: bytes) -> tuple[dict[str, bytes], int]:
    """The attributes by name, and the position of the offset table."""
    attributes, at = {}, 8
    while data[at]:
        end = data.index(0, at)
        name = data[at:end].decode("latin-1")
        end = data.index(0, end + 1)  # the attribute's type
        (size,) = struct.unpack_from("<i", data, end + 1)
        attributes[name] = data[end + 5 : end + 5 + size]
        at = end + 5 + size
    return attributes, at + 1


def _channels(text: bytes) -> list[tuple[str, np.dtype]]:
    channels, at = [], 0
    while text[at]:
        end = text.index(0, at)
        kind, _, x_step, y_step = struct.unpack_from("<iIii", text, end + 1)
        if (x_step, y_step) != (1, 1):
            raise ValueError("subsampled channels")
        channels.append((text[at:end].decode("latin-1"), PIXELS[kind]))
        at = end + 17
    return channels


def _depth_channel(names: list[str], where: str) -> str:
    for wanted in DEPTH_CHANNELS:
        for name in names:
            if name.rpartition(".")[2] == wanted:
                return name
    if len(names) == 1:
        return names[0]
    raise DataError(f"{where}: which of its channels {', '.join(names)} is depth? expected Z")


def _expand(block: bytes, compression: str, size: int) -> bytes:
    if compression == "NONE" or len(block) == size:
        return block
    raw = _run_lengths(block, size) if compression == "RLE" else inflate(block, size)
    # Bytes are stored as differences (plus 128), those at even places before those at odd ones.
    steps = np.frombuffer(raw, np.uint8).astype(np.int64)
    steps[1:] -= 128
    values = np.cumsum(steps).astype(np.uint8)
    half = (len(values) + 1) // 2
    mixed = np.empty_like(values)
    mixed[0::2], mixed[1::2] = values[:half], values[half:]
    return mixed.tobytes()


def _run_lengths(block: bytes, size: int) -> bytes:
    out, at = bytearray(), 0
    while at < len(block):
        if len(out) > size:
            raise ValueError(f"runs of more than {size} bytes")
        count = block[at] - 256 if block[at] > 127 else block[at]
        if count < 0:
            out += block[at + 1 : at + 1 - count]
            at += 1 - count
        else:
            out += block[at + 1 : at + 2] * (count + 1)
            at += 2
    return bytes(out)


def _take(rows: np.ndarray, block: bytes, channels: list[tuple[str, np.dtype]], name: str) -> None:
    """Copies channel `name` into rows; each line of the block has its channels in sequence."""
    at, width = 0, rows.shape[1]
    for row in rows:
        for channel, dtype in channels:
            if channel == name:
                row[:] = np.frombuffer(block, dtype, width, at)
            at += dtype.itemsize * width

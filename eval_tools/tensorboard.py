"""Writes scalars as a TensorBoard event file, without TensorBoard.

The file is a sequence of TFRecords, each an `Event` message of TensorFlow's event.proto. This file
encodes the few fields that a scalar needs.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from boundary.writing import write_bytes
from data_tools.cli import DataError


def write_events(folder: str | Path, scalars: Iterable[tuple[str, int, float, float]]) -> Path:
    """Writes one event file into `folder`, which is made if missing, and returns its path.

    Args:
        scalars: (tag, step, value, seconds since 1970) of each point.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    events = [_event(time.time(), 0, _field(3, b"brain.Event:2"))]
    for tag, step, value, seconds in scalars:
        number = _key(2, 5) + _float(value)
        summary = _field(1, _field(1, tag.encode("utf-8", "replace")) + number)
        events.append(_event(seconds, step, _field(5, summary)))
    path = folder / "events.out.tfevents.0000000000.caffe"
    write_bytes(path, b"".join(map(_record, events)), DataError)
    return path


def _float(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:  # beyond float32
        return struct.pack("<f", math.copysign(math.inf, value))


def _event(seconds: float, step: int, rest: bytes) -> bytes:
    return _key(1, 1) + struct.pack("<d", seconds) + _key(2, 0) + _varint(step) + rest


def _record(data: bytes) -> bytes:
    """A TFRecord: the length, its checksum, the data, their checksum."""
    length = struct.pack("<Q", len(data))
    return length + struct.pack("<I", _masked(length)) + data + struct.pack("<I", _masked(data))


def _key(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _field(number: int, data: bytes) -> bytes:
    return _key(number, 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    digits.append(value)
    return bytes(digits)


def _table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC32C = _table()


def _masked(data: bytes) -> int:
    """The CRC-32C, rotated and offset as TFRecords require."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC32C[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF

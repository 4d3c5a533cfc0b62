"""Writes depth in RVL, by the description of the format, for tests."""

from __future__ import annotations

import struct


def encode(values) -> bytes:
    """Runs and differences in groups of three bits."""
    groups, before, place = [], 0, 0
    values = [int(value) for value in values]

    def put(number):
        while True:
            groups.append(number & 7 | (8 if number >> 3 else 0))
            number >>= 3
            if not number:
                return

    while place < len(values):
        zeros = next((i for i, v in enumerate(values[place:]) if v), len(values) - place)
        place += zeros
        readings = next((i for i, v in enumerate(values[place:]) if not v), len(values) - place)
        put(zeros)
        put(readings)
        for value in values[place : place + readings]:
            difference, before = value - before, value
            put(2 * difference if difference >= 0 else -2 * difference - 1)
        place += readings
    groups += [0] * (-len(groups) % 8)
    words = [int("".join(f"{group:x}" for group in groups[i : i + 8]), 16)
             for i in range(0, len(groups), 8)]  # fmt: skip
    return struct.pack(f"<{len(words)}I", *words)

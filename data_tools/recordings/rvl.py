"""RVL: depth of 16 bits, compressed without loss (A. D. Wilson, "Fast Lossless Depth Image
Compression", ISS 2017), as compressed_depth_image_transport has it.

The lengths of runs of zeros and of readings take turns; behind the latter come the differences of
the readings to the ones before, whose lowest bits are the signs. All of these are numbers in groups
of three bits, the lowest first, with a fourth bit on top that says whether more follow. Eight
groups are a little-endian word of 32 bits, the first group on top.
"""

from __future__ import annotations

import numpy as np

LONGEST = 10  # groups of a number: lengths have up to 30 bits


def decode(data: bytes, count: int) -> np.ndarray:
    """`count` numbers, uint16. Raises ValueError for data that do not hold them."""
    numbers = _numbers(data)
    runs = _runs(numbers, count)
    steps = [numbers[place : place + length] for _, place, length in runs]
    read = np.concatenate(steps) if steps else numbers[:0]
    values = np.cumsum(np.where(read & 1, ~(read >> 1), read >> 1))
    if values.size and not (values.min() >= 0 and values.max() < 2**16):
        raise ValueError("its differences do not give numbers of 16 bits")
    found = np.zeros(count, np.uint16)
    done = 0
    for first, _, length in runs:
        found[first : first + length] = values[done : done + length]
        done += length
    return found


def _runs(numbers: np.ndarray, count: int) -> list[tuple[int, int, int]]:
    """The runs of readings: where each begins in the picture and in the numbers, and its length."""
    runs = []
    place = done = 0
    while done < count:
        if place + 1 >= len(numbers):
            raise ValueError(f"it ends after {done} of {count} values")
        zeros, readings = int(numbers[place]), int(numbers[place + 1])
        runs.append((done + zeros, place + 2, readings))
        place += 2 + readings
        done += zeros + readings
        if zeros + readings == 0 or done > count or place > len(numbers):
            raise ValueError("its runs do not fit the picture")
    return runs


def _numbers(data: bytes) -> np.ndarray:
    """All numbers in the data, int64; behind the last one there may be zeros that fill a word."""
    words = np.frombuffer(data[: len(data) // 4 * 4], "<u4")
    groups = (words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32) & 15).ravel()
    ends = np.flatnonzero(groups < 8)
    starts = np.concatenate([[0], ends[:-1] + 1]) if len(ends) else ends
    lengths = ends - starts + 1
    if len(lengths) and lengths.max() > LONGEST:
        raise ValueError("a number in it is too long")
    bits = np.concatenate([groups & 7, np.zeros(LONGEST, groups.dtype)]).astype(np.int64)
    numbers = np.zeros(len(ends), np.int64)
    for group in range(int(lengths.max()) if len(lengths) else 0):
        numbers += np.where(group < lengths, bits[starts + group] << 3 * group, 0)
    return numbers

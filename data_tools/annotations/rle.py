"""Run-length codes of masks: COCO's texts, lists of counts, and Label Studio's brush strokes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_tools.cli import DataError


def coco_counts(text: str) -> list[int]:
    """The counts in the compressed text of a COCO mask.

    Each count is written in characters of 6 bits from '0' on, the lowest bits first: five bits of
    the number, and whether more follow; the fifth bit of the last one is the sign. From the fourth
    count on it is the difference to the count two places before. Source: the comment in maskApi.h
    of the COCO API. Raises DataError for other characters, and for a text that is cut off.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise DataError(f"{character!r} is not part of a run-length code")
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        counts.append(value)
        value = shift = 0
    if shift:
        raise DataError("its run-length code is cut off")
    return counts


def runs(counts: Sequence[int], width: int, height: int, by_columns: bool) -> np.ndarray:
    """The mask (height x width, bool) of alternating runs of 0 and 1, the first of 0.

    by_columns: the runs go down the columns, as COCO's, not along the rows. Raises DataError
    unless they fill the mask.
    """
    lengths = np.array([_count(value) for value in counts], np.int64)
    if (lengths < 0).any() or lengths.sum() != width * height:
        raise DataError(
            f"its runs cover {lengths.sum()} pixels, expected {width}x{height} = {width * height}"
        )
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return flat.reshape(width, height).T if by_columns else flat.reshape(height, width)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > 2**40:
        raise DataError(f"{str(value)[:20]!r} is not a number of pixels")
    return value


def brush(data: bytes, width: int, height: int) -> np.ndarray:
    """The mask (height x width, bool) of a brush stroke of Label Studio: where it is not clear.

    data: rle-pack's code of width x height x 4 bytes (red, green, blue, alpha). It has 32 bits of
    the number of words, 5 of their width - 1 and 4 x 4 of the widths - 1 of counts; then come
    chunks: a bit that tells a run from single words, 2 bits that choose the width of the count, the
    count - 1, and the run's word or all words. Source: the README of @thi.ng/rle-pack.

    Raises DataError if it is cut off, or holds another number of words or another width.
    """
    stream = _Bits(data)
    words, width_of_words = stream.number(32), stream.number(5) + 1
    if width_of_words != 8 or words != width * height * 4:
        raise DataError(
            f"its stroke has {words} words of {width_of_words} bits, expected {width}x{height}x4 "
            "of 8 bits"
        )
    widths = [stream.number(4) + 1 for _ in range(4)]
    out, place = np.zeros(words, np.uint8), 0
    while place < words:
        run = stream.number(1)
        count = stream.number(widths[stream.number(2)]) + 1
        if count > words - place:
            raise DataError(f"its stroke goes beyond {width}x{height} pixels")
        out[place : place + count] = stream.words(1 if run else count)
        place += count
    return out.reshape(height, width, 4)[:, :, 3] > 0


class _Bits:
    """The bits of a code, the highest of a byte first."""

    def __init__(self, data: bytes):
        self._bits = np.unpackbits(np.frombuffer(data, np.uint8))
        self._place = 0

    def _take(self, count: int) -> np.ndarray:
        found = self._bits[self._place : self._place + count]
        if len(found) < count:
            raise DataError("its run-length code is cut off")
        self._place += count
        return found

    def number(self, bits: int) -> int:
        return int.from_bytes(np.packbits(self._take(bits)).tobytes(), "big") >> (-bits % 8)

    def words(self, count: int) -> np.ndarray:
        return np.packbits(self._take(8 * count))

"""Decompresses zlib data whose size is known beforehand, and no more than that."""

from __future__ import annotations

try:  # has zlib's functions and is 1.5 times faster
    from isal import isal_zlib as zlib
except ImportError:
    import zlib

_SMALL = 2**18  # bytes; zlib makes at most 1032 times as many of them, 258 MiB


def inflate(data: bytes | memoryview, size: int) -> bytes:
    """The data, decompressed. Raises ValueError if it is broken or takes more than `size` bytes."""
    try:
        if len(data) <= _SMALL:
            # With the full size given, zlib need not grow its buffer by copying.
            found = zlib.decompress(data, bufsize=max(size, 1))
        else:
            # One byte more, because 0 would mean that there is no limit.
            stream = zlib.decompressobj()
            found = stream.decompress(data, size + 1)
            if not stream.eof and len(found) <= size:
                raise ValueError("its compressed data ends early")
    except zlib.error as error:
        raise ValueError(f"its compressed data is broken ({error})") from None
    if len(found) > size:
        raise ValueError(f"its compressed data takes more than the {size} bytes that it claims")
    return found


def beginning(data: bytes | memoryview, size: int) -> bytes:
    """The first `size` bytes of the data, decompressed; fewer if there are no more.

    Raises ValueError if they are broken.
    """
    try:
        return zlib.decompressobj().decompress(data, size)
    except zlib.error as error:
        raise ValueError(f"its compressed data is broken ({error})") from None

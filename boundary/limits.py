"""How much memory a file may ask for: its claims are looked at before memory is taken.

A few kilobytes can claim gigabytes: a compressed picture, an array that was never stored, a count
in a header. Two limits hold. Pictures have at most `max_pixels()` pixels; the environment variable
FUSENET_MAX_PIXELS, or the option --max-pixels of the commands that have it, sets another number.
Other arrays have at most `MAX_BYTES`, or four times what the file really stores; FUSENET_MAX_BYTES
sets another number of bytes.
"""

from __future__ import annotations

import os
import re

from boundary.errors import InputError

MAX_PIXELS = 2**26  # 8192 x 8192
MAX_BYTES = 2**29
GROWTH = 4  # an array's size in memory, in shares of its size in the file

PIXELS_VARIABLE = "FUSENET_MAX_PIXELS"
BYTES_VARIABLE = "FUSENET_MAX_BYTES"


def max_pixels() -> int:
    """The largest number of pixels that a picture may have. Raises InputError if the variable holds
    anything but a number.
    """
    return _setting(PIXELS_VARIABLE, MAX_PIXELS)


def max_bytes() -> int:
    """The bytes that an array may take, whatever the file stores. Raises as max_pixels does."""
    return _setting(BYTES_VARIABLE, MAX_BYTES)


def _setting(variable: str, default: int) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise InputError(f"{variable}={text}: expected a whole number from 1 up")
    return int(text)


def check_pixels(width: int, height: int, where: str, error: type[InputError]) -> None:
    """Raise `error` if a picture's size is not positive or beyond the limit."""
    if width < 1 or height < 1:
        raise error(f"{where}: a picture of {width}x{height} pixels")
    if width * height > max_pixels():
        raise error(
            f"{where}: a picture of {width}x{height} pixels; at most {max_pixels()} are read "
            f"(see --max-pixels, {PIXELS_VARIABLE})"
        )


def check_bytes(claimed: int, stored: int, where: str, error: type[InputError]) -> None:
    """Raise `error` if an array would take too much memory for what the file stores of it.

    claimed: the array's size in memory, in bytes. stored: what the file holds of it.
    """
    if claimed > max(max_bytes(), GROWTH * stored):
        raise error(
            f"{where}: asks for {_size(claimed)} of memory but stores {_size(stored)}; at most "
            f"{_size(max_bytes())} are read (set {BYTES_VARIABLE} to read more)"
        )


def _size(count: int) -> str:
    for unit, bytes_ in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}" if count < 2**60 else f"{count:.1e} bytes"
    return f"{count} bytes"

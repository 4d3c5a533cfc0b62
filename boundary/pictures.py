"""Decodes pictures, after a look at the size that they claim."""

from __future__ import annotations

import io
import re
import struct
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING

from boundary import limits
from boundary.errors import InputError, reason, shown
from boundary.late import cv2
from boundary.reading import PathLike, read_bytes

if TYPE_CHECKING:
    import numpy as np

_SLACK = 2**24  # bytes


def read_picture(path: PathLike, flags: int, error: type[InputError]) -> np.ndarray:
    """The picture in a file, as cv2.imread gives it: H x W or H x W x channels (BGR).

    flags: OpenCV's, such as cv2.IMREAD_COLOR. Raises `error` if the file cannot be read, is no
    picture, or has more than limits.max_pixels() pixels.
    """
    return decode(read_bytes(path, error, plain=True), flags, shown(path), error)


def decode(data: bytes, flags: int, where: str, error: type[InputError]) -> np.ndarray:
    """The picture in a file's bytes; as read_picture. where: begins the message of an error."""
    import numpy as np

    size = claimed_size(data)
    if size is None:  # OpenCV might read it, and take any amount of memory
        raise error(f"{where}: not a picture that can be read")
    limits.check_pixels(*size, where, error)
    if _claims_too_much(data):
        raise error(f"{where}: not a picture that can be read: a part is longer than the file")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except (cv2.error, MemoryError, ValueError) as problem:
        raise error(f"{where}: not a picture that can be read: {reason(problem)}") from None
    if image is None:
        raise error(f"{where}: not a picture that can be read")
    return image


def orientation(data: bytes) -> int:
    """The orientation in the EXIF data of a picture's bytes, 1 to 8; 1, upright, if there is none.

    A TIFF's is not told: OpenCV turns such a picture, whatever it is asked for.
    """
    if not any(mark in data for mark in (b"Exif", b"eXIf", b"EXIF")):
        return 1
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        try:
            with Image.open(io.BytesIO(data)) as image:
                found = 1 if image.format == "TIFF" else image.getexif().get(0x0112, 1)
        except Exception:  # its plugins raise what they like for damaged metadata
            return 1
    return found if isinstance(found, int) and 1 <= found <= 8 else 1


def _claims_too_much(data: bytes) -> bool:
    """Whether a part of a PNG claims so many bytes that its decoder would take much memory.

    One that is merely cut off is left to the decoder, which may read its beginning.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return False
    place = 8
    while place + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, place)
        if length > len(data) and length > _SLACK:
            return True
        place += 12 + length
    return False


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a picture's bytes; None if they are not found.

    OpenCV reads some pictures that Pillow does not: TIFFs of unusual pixels, Radiance, PFM and PAM
    files, and others whose header is slightly wrong.
    """
    return _plain_size(data) or _tiff_size(data) or _text_size(data) or _pillow_size(data)


def _plain_size(data: bytes) -> tuple[int, int] | None:
    """The size in a PNG, BMP or JPEG."""
    with suppress(struct.error):
        if data.startswith(b"\x89PNG\r\n\x1a\n"):
            return struct.unpack_from(">II", data, 16)
        if data.startswith(b"BM"):
            old = struct.unpack_from("<I", data, 14)[0] == 12
            width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
            return abs(width), abs(height)
        if data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
    return None


def _jpeg_size(data: bytes) -> tuple[int, int]:
    place = 2
    while True:
        mark, kind, length = struct.unpack_from(">BBH", data, place)
        if mark != 0xFF or kind == 0xFF:
            place += 1
        elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # the start of a frame
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        else:
            place += 2 + length


def _tiff_size(data: bytes) -> tuple[int, int] | None:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return None
    found = {}
    with suppress(struct.error):
        (start,) = struct.unpack_from(order + "I", data, 4)
        (count,) = struct.unpack_from(order + "H", data, start)
        for i in range(count):
            tag, kind, _ = struct.unpack_from(order + "HHI", data, start + 2 + 12 * i)
            if tag in (256, 257):  # width and height, as 16 or 32 bits
                form = order + ("H" if kind == 3 else "I")
                found[tag] = struct.unpack_from(form, data, start + 10 + 12 * i)[0]
    return (found[256], found[257]) if len(found) == 2 else None


def _text_size(data: bytes) -> tuple[int, int] | None:
    head = data[:4096]
    for pattern in (rb"P[Ff]\s+(\d+)\s+(\d+)\s", rb"#\?.*[-+]X\s+(\d+)\s+[-+]Y\s+(\d+)",
                    rb"#\?.*[-+]Y\s+(\d+)\s+[-+]X\s+(\d+)",
                    rb"P7.*WIDTH\s+(\d+).*HEIGHT\s+(\d+)",
                    rb"P7.*HEIGHT\s+(\d+).*WIDTH\s+(\d+)"):  # fmt: skip
        match = re.match(pattern, head, re.DOTALL)
        if match:
            return int(match[1][:12]), int(match[2][:12])
    return None


def _pillow_size(data: bytes) -> tuple[int, int] | None:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of large pictures, and of odd metadata
        try:
            with Image.open(io.BytesIO(data)) as image:
                return image.size
        except Image.DecompressionBombError as problem:
            # Beyond Pillow's own limit; its message has only the number of pixels.
            pixels = re.search(r"\d+", str(problem))
            return (int(pixels[0]) if pixels else 2**62, 1)
        except Exception:  # its plugins raise what they like for a damaged header
            return None

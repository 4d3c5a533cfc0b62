"""Decodes pictures, after a look at the size that they claim."""

from __future__ import annotations

import io
import os
import re
import warnings
from typing import TYPE_CHECKING

from boundary import limits
from boundary.errors import InputError, reason, shown
from boundary.reading import PathLike, read_bytes

if TYPE_CHECKING:
    import numpy as np

# OpenCV's own limit, for formats whose header Pillow does not read; it counts if OpenCV is loaded
# after this module.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(limits.max_pixels()))


def read_picture(path: PathLike, flags: int, error: type[InputError]) -> np.ndarray:
    """The picture in a file, as cv2.imread gives it: H x W or H x W x channels (BGR).

    flags: OpenCV's, such as cv2.IMREAD_COLOR. Raises `error` if the file cannot be read, is no
    picture, or has more than limits.max_pixels() pixels.
    """
    return decode(read_bytes(path, error), flags, shown(path), error)


def decode(data: bytes, flags: int, where: str, error: type[InputError]) -> np.ndarray:
    """The picture in a file's bytes; as read_picture. where: begins the message of an error."""
    import cv2
    import numpy as np

    size = claimed_size(data)
    if size is not None:
        limits.check_pixels(*size, where, error)
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags) if data else None
    except (cv2.error, MemoryError, ValueError) as problem:
        raise error(f"{where}: not a picture that can be read: {reason(problem)}") from None
    if image is None:
        raise error(f"{where}: not a picture that can be read")
    return image


def claimed_size(data: bytes) -> tuple[int, int] | None:
    """Width and height in the header of a picture's bytes; None if Pillow does not know it."""
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

"""What a net's data look like: records counted and measured without running anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from caffe.errors import CaffeError
from caffe.proto.caffe_pb2 import Datum


def _open_lmdb(path: str) -> Any:
    # Imported here, because most commands never look into a database.
    import lmdb

    if not Path(path).exists():
        raise CaffeError(f"LMDB {path} does not exist")
    try:
        return lmdb.open(path, readonly=True, lock=False, subdir=Path(path).is_dir())
    except lmdb.Error as error:
        raise CaffeError(f"{path} is not an LMDB that can be read: {error}") from None


def count_records(path: str) -> int:
    """Number of records of an LMDB. Raises CaffeError where it cannot be read."""
    with _open_lmdb(path) as environment:
        return environment.stat()["entries"]


def record_shape(path: str) -> tuple[int, int, int]:
    """Channels, height and width of the first Datum of an LMDB.

    Raises CaffeError where there is none or it cannot be read.
    """
    with _open_lmdb(path) as environment, environment.begin() as transaction:
        record = next(iter(transaction.cursor()), None)
        if record is None:
            raise CaffeError(f"LMDB {path} is empty")
        datum = Datum()
        try:
            datum.ParseFromString(record[1])
        except DecodeError:
            raise CaffeError(f"LMDB {path}: its first record is not a Datum") from None
    if datum.encoded:
        return _picture_shape(datum.data, f"LMDB {path}: its first record")
    return datum.channels, datum.height, datum.width


def picture_shape(path: str) -> tuple[int, int, int]:
    """Channels, height and width of a picture file. Raises CaffeError where it cannot be read."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CaffeError(f"{path}: {error.strerror}") from None
    return _picture_shape(data, path)


def _picture_shape(data: bytes, what: str) -> tuple[int, int, int]:
    import cv2
    import numpy as np

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise CaffeError(f"{what} is not a picture that can be decoded")
    height, width, *channels = picture.shape
    return (*(channels or [1]), height, width)

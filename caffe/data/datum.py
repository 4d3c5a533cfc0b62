"""Opens databases of Datums, parses and decodes them. Imports neither torch nor OpenCV."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from boundary.late import cv2
from boundary.pictures import decode
from caffe.errors import CaffeError
from caffe.formats.db import Database
from caffe.proto import caffe_pb2 as pb


def open_database(path: str, backend: int) -> Database:
    """Open the database of a DataParameter (`source`, `backend`).

    Raises CaffeError if it cannot be read.
    """
    if backend == pb.DataParameter.LEVELDB and (Path(path) / "data.mdb").is_file():
        raise CaffeError(
            f"{path}: this is an LMDB, but the backend is LEVELDB (so it is where none is given); "
            "say backend: LMDB"
        )
    return Database.open(path, pb.DataParameter.DB.Name(backend).lower())


def parse_datum(value: bytes, where: str) -> pb.Datum:
    """The Datum in a database's value. Raises CaffeError, starting with `where`, if it is none."""
    try:
        return pb.Datum.FromString(value)
    except DecodeError:
        raise CaffeError(f"{where}: the record is not a Datum") from None


def datum_values(datum: pb.Datum, color: bool | None = None) -> np.ndarray:
    """A Datum's values, channels x height x width: its bytes as uint8 (read-only, not copied), its
    floats as float32, or its encoded picture, decoded by decode_picture with `color`.

    Raises CaffeError if the picture cannot be decoded, ValueError if the number of values does not
    fit the shape.
    """
    if datum.encoded:
        return decode_picture(datum.data, color)
    if datum.data:
        values = np.frombuffer(datum.data, np.uint8)
    else:
        values = np.array(datum.float_data, np.float32)
    shape = (datum.channels, datum.height, datum.width)
    needed = shape[0] * shape[1] * shape[2]
    if values.size != needed or min(shape) < 0:
        raise ValueError(
            f"the record holds {values.size} values, its shape {' x '.join(map(str, shape))} "
            f"needs {needed}"
        )
    return values.reshape(shape)


def decode_picture(data: bytes, color: bool | None = None) -> np.ndarray:
    """Decode the bytes of a picture file (PNG, JPEG, ...) to channels x height x width, colours as
    B, G, R.

    color: True for three channels, False for one, None for as many as the picture has.

    Raises CaffeError if they cannot be decoded, or hold more pixels than boundary.limits allows.
    """
    flags = {None: cv2.IMREAD_UNCHANGED, True: cv2.IMREAD_COLOR, False: cv2.IMREAD_GRAYSCALE}
    image = decode(data, flags[color], f"encoded Datum of {len(data)} bytes", CaffeError)
    return np.ascontiguousarray(np.atleast_3d(image).transpose(2, 0, 1))


def datum_to_array(datum: pb.Datum) -> np.ndarray:
    """The channels x height x width array in a Datum, uint8 or float64; its label is datum.label.

    An encoded Datum (it holds a PNG, JPEG, ...) is decoded, with colours as B, G, R; pycaffe's
    function cannot do this. Raises CaffeError if the picture cannot be decoded or has more than 8
    bits a channel, ValueError if the number of values does not fit the shape.
    """
    if datum.encoded:
        return decode_datum(datum)
    values = datum_values(datum)
    return values.copy() if values.dtype == np.uint8 else values.astype(float)


def decode_datum(datum: pb.Datum, color: bool | None = None) -> np.ndarray:
    """The picture in an encoded Datum as channels x height x width, uint8, colours as B, G, R.

    color: True for three channels, False for one, None for as many as the picture has.

    Raises CaffeError if it cannot be decoded or has more than 8 bits a channel.
    """
    image = decode_picture(datum.data, color)
    if image.dtype != np.uint8:
        raise CaffeError(f"encoded Datum: the picture has {image.dtype} values; expected uint8")
    return image

"""Converts numpy arrays to Caffe's BlobProto and Datum messages and back (pycaffe's io.py)."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from boundary.reading import reading
from caffe.errors import CaffeError
from caffe.formats.wire import RAW_TYPES
from caffe.proto import caffe_pb2


class _ShapeError(CaffeError, ValueError):
    pass


def blobproto_to_array(blob: caffe_pb2.BlobProto, return_diff: bool = False) -> np.ndarray:
    """The data (or diff) of a BlobProto as a float64 array; old 4-D shapes and NVCaffe's raw bytes
    are understood.

    Raises CaffeError, here also a ValueError, if the number of values does not fit the shape.
    """
    kind = "diff" if return_diff else "data"
    values = getattr(blob, kind) or getattr(blob, f"double_{kind}")
    if not values and blob.HasField(f"raw_{kind}"):
        values = _raw(getattr(blob, f"raw_{kind}"), getattr(blob, f"raw_{kind}_type"))
    if any(blob.HasField(field) for field in ("num", "channels", "height", "width")):
        shape = (blob.num, blob.channels, blob.height, blob.width)
    else:
        shape = tuple(blob.shape.dim)
    array = np.array(values, dtype=float)
    if math.prod(shape) != array.size or min(shape, default=0) < 0:
        raise _ShapeError(
            f"cannot reshape a BlobProto's {array.size} values into {'x'.join(map(str, shape))}"
        )
    return array.reshape(shape)


def _raw(data: bytes, kind: int) -> np.ndarray:
    """The values in NVCaffe's raw bytes of a number type."""
    dtype = RAW_TYPES.get(kind)
    if dtype is None or len(data) % dtype.itemsize:
        raise _ShapeError(f"{len(data)} bytes of raw data cannot be of number type {kind}")
    return np.frombuffer(data, dtype)


def array_to_blobproto(arr: np.ndarray, diff: np.ndarray | None = None) -> caffe_pb2.BlobProto:
    """A BlobProto of an array of any shape and, if given, its diff (same shape)."""
    blob = caffe_pb2.BlobProto()
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(arr.astype(float).ravel().tolist())
    if diff is not None:
        blob.diff.extend(diff.astype(float).ravel().tolist())
    return blob


def arraylist_to_blobprotovector_str(arraylist: Iterable[np.ndarray]) -> bytes:
    """Several arrays as one serialised BlobProtoVector."""
    blobs = [array_to_blobproto(array) for array in arraylist]
    return caffe_pb2.BlobProtoVector(blobs=blobs).SerializeToString()


def blobprotovector_str_to_arraylist(str: bytes) -> list[np.ndarray]:
    """The arrays in a serialised BlobProtoVector. Raises CaffeError if it is none."""
    with reading("the bytes given", "a BlobProtoVector", CaffeError):
        vector = caffe_pb2.BlobProtoVector.FromString(str)
    return [blobproto_to_array(blob) for blob in vector.blobs]


def array_to_datum(arr: np.ndarray, label: int | None = None) -> caffe_pb2.Datum:
    """A Datum of a channels x height x width array, stored as bytes if uint8, else as floats.

    Raises ValueError unless the array has three axes.
    """
    if arr.ndim != 3:
        raise ValueError(f"Incorrect array shape {arr.shape}; expected channels x height x width.")
    datum = caffe_pb2.Datum()
    datum.channels, datum.height, datum.width = arr.shape
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(float).ravel().tolist())
    if label is not None:
        datum.label = label
    return datum

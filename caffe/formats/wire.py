"""Reads and writes binary Caffe messages with the values of their blobs in numpy arrays.

A model of 500 MB is a few kilobytes of structure and a hundred million floats. Reading splits it
into an outline and a list of arrays. The outline is an ordinary protobuf message whose blobs hold
only their shape and their index in the list; the arrays are filled straight from the file. Writing
joins both again, straight from the arrays' memory, into the bytes that C++ protobuf writes.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

import numpy as np
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from boundary.errors import shown
from boundary.reading import check_plain, reading
from caffe.errors import CaffeError
from caffe.proto import caffe_pb2 as pb

M = TypeVar("M", bound=Message)

# Where a message holds its blobs: field number -> plan of that field, None for a BlobProto.
Plan = dict[int, "Plan"] | None  # type: ignore[misc]
NET: Plan = {2: {1: {50: None}, 6: None}, 100: {7: None}}  # V1 (with V0 inside) and today's layers
SOLVER_STATE: Plan = {3: None}
BLOB: Plan = None

MAX_BYTES = 2**31 - 1  # protobuf's limit for one message

_VARINT, _I64, _LEN, _I32 = 0, 1, 2, 5
# BlobProto's field numbers: float data and diff, shape, double data and diff.
_NUMBERS = {5: np.dtype("<f4"), 6: np.dtype("<f4"), 8: np.dtype("<f8"), 9: np.dtype("<f8")}
_C3D_DIFF = 7
# NVCaffe's: raw data and diff as bytes -> the field that names their number type.
_RAW = {12: 10, 13: 11}
RAW_TYPES = {
    pb.DOUBLE: np.dtype("<f8"),
    pb.FLOAT: np.dtype("<f4"),
    pb.FLOAT16: np.dtype("<f2"),
}


@dataclass
class Blob:
    """The values of one BlobProto as flat arrays, float32 or float64; None if the file has none."""

    data: np.ndarray | None = None
    diff: np.ndarray | None = None


def index(blob: pb.BlobProto) -> int | None:
    """The index of an outline's blob in the list of arrays; None if the blob has no index.

    An outline keeps it in double_data.
    """
    return int(blob.double_data[0]) if blob.double_data else None


def set_index(blob: pb.BlobProto, place: int) -> None:
    """Store in an outline's blob the index of its arrays in the list."""
    del blob.double_data[:]
    blob.double_data.append(place)


def shape(blob: pb.BlobProto) -> tuple[int, ...]:
    """The shape of a BlobProto: its `shape`, or num, channels, height, width in old files."""
    if any(blob.HasField(field) for field in ("num", "channels", "height", "width")):
        return blob.num, blob.channels, blob.height, blob.width
    return tuple(blob.shape.dim)


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------


def read(path: str, message_class: type[M], plan: Plan) -> tuple[M, list[Blob]]:
    """The outline and the arrays of a binary message file.

    plan: where the message holds its blobs (NET, SOLVER_STATE or BLOB).

    Raises CaffeError if the file cannot be read, exceeds 2 GiB or is not such a message.
    """
    name = message_class.DESCRIPTOR.name
    check_plain(path, CaffeError)
    with reading(path, f"a binary {name}", CaffeError), open(path, "rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        if size > MAX_BYTES:
            raise CaffeError(
                f"{shown(path)}: {size / 2**30:.1f} GiB; a binary {name} ends at 2 GiB "
                "(the HDF5 format has no such limit)"
            )
        stream = _Stream(file)
        outline = stream.outline(size, plan) if plan is not None else stream.blob(size)
        return _parsed(bytes(outline), message_class, plan), stream.blobs


def _parsed(outline: bytes, message_class: type[M], plan: Plan) -> M:
    """The message of an outline.

    In a fork of Caffe a field's number may be one that has another meaning here. If the outline
    makes no sense for that, the fields that hold blobs are read without their settings.
    """
    try:
        message = message_class.FromString(outline)
        _check_texts(message)
    except (DecodeError, _Malformed):
        if not plan:
            raise
        message = message_class.FromString(_known_part(outline, message_class.DESCRIPTOR, plan))
        _check_texts(message)
    return message


def _known_part(outline: bytes, kind: Descriptor, plan: dict[int, Plan]) -> bytes:
    """An outline without what its layers hold under numbers that make no sense here."""
    stream, out = _Stream(io.BytesIO(outline)), bytearray()
    for key, size in stream.fields(len(outline)):
        field, inner = kind.fields_by_number.get(key >> 3), plan.get(key >> 3)
        if key & 7 != _LEN or field is None:
            out += stream.verbatim(key, size)
            continue
        body = stream.take(size)
        if inner is not None:
            body = _known_part(body, field.message_type, inner)
        if inner is not None or _makes_sense(field, body):
            out += varint(key) + varint(len(body)) + body
    return bytes(out)


def _makes_sense(field: FieldDescriptor, body: bytes) -> bool:
    """Whether these bytes can be the value of a field, if it is one of settings."""
    if field.type != field.TYPE_MESSAGE:
        return True
    try:
        _check_texts(GetMessageClass(field.message_type).FromString(body))
    except (DecodeError, _Malformed):
        return False
    return True


def _check_texts(message: Message) -> None:
    """Raise _Malformed for a text that is no UTF-8; protobuf gives such a text as bytes."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_MESSAGE, field.TYPE_GROUP, field.TYPE_STRING):
            continue
        for inner in [value] if isinstance(value, Message | str | bytes) else value:
            if isinstance(inner, bytes):
                raise _Malformed(f"{field.name} {inner!r} is no UTF-8")
            if isinstance(inner, Message):
                _check_texts(inner)


class _Malformed(Exception):
    """The bytes are not a protobuf message; the text says where."""


class _Stream:
    """Reads protobuf's wire format field by field and collects the blobs on the way."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.at = 0
        self.blobs: list[Blob] = []

    def take(self, count: int) -> bytes:
        data = self.file.read(count)
        if len(data) != count:
            raise _Malformed(f"it ends early, at byte {self.at + len(data)}")
        self.at += count
        return data

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise _Malformed(f"no number at byte {self.at}")

    def fields(self, end: int) -> Iterator[tuple[int, int]]:
        """(key, size) of each field up to `end`; the caller must read each value in turn."""
        while self.at < end:
            key = self.varint()
            wire = key & 7
            if wire == _LEN:
                size = self.varint()
            elif wire in (_I32, _I64):
                size = 4 if wire == _I32 else 8
            elif wire == _VARINT:
                size = 0
            else:
                raise _Malformed(f"no field at byte {self.at}")
            if key < 8 or self.at + size > end:
                raise _Malformed(f"a field overruns its message at byte {self.at}")
            yield key, size
        if self.at != end:
            raise _Malformed(f"a field overruns its message at byte {self.at}")

    def verbatim(self, key: int, size: int) -> bytes:
        wire = key & 7
        if wire == _VARINT:
            return varint(key) + varint(self.varint())
        return varint(key) + (varint(size) if wire == _LEN else b"") + self.take(size)

    def outline(self, end: int, plan: dict[int, Plan]) -> bytearray:
        """The message up to `end`, without the values of its blobs."""
        out = bytearray()
        for key, size in self.fields(end):
            if key & 7 == _LEN and key >> 3 in plan:
                inner = plan[key >> 3]
                stop = self.at + size
                body = self.blob(stop) if inner is None else self.outline(stop, inner)
                out += varint(key) + varint(len(body)) + body
            else:
                out += self.verbatim(key, size)
        return out

    def blob(self, end: int) -> bytearray:
        """The BlobProto up to `end`, with its index in `blobs` in place of its values.

        C3D's first version has five sizes, under the numbers 1 to 5, and then data and diff. A
        size under the number 5 tells it from Caffe, which has its data there.
        """
        out = bytearray()
        sizes: dict[int, int] = {}
        parts: dict[int, list[np.ndarray]] = {n: [] for n in (*_NUMBERS, _C3D_DIFF)}
        raw: dict[int, bytes | int] = {}
        for key, size in self.fields(end):
            number = key >> 3
            if number <= 5 and key & 7 == _VARINT:
                sizes[number] = self.varint()
            elif 5 in sizes and number == 7 and key & 7 == _LEN:
                parts[_C3D_DIFF].append(self.packed(size, _NUMBERS[5]))
            elif number in _RAW and key & 7 == _LEN:
                raw[number] = self.take(size)
            elif number in _RAW.values() and key & 7 == _VARINT:
                raw[number] = self.varint()
            elif number not in _NUMBERS:
                out += self.verbatim(key, size)
            elif key & 7 == _LEN:
                parts[number].append(self.packed(size, _NUMBERS[number]))
            else:
                parts[number].append(self.unpacked(key, size, end, _NUMBERS[number]))
        out += _sizes(sizes)
        data, diff, double_data, double_diff = (_join(parts[number]) for number in _NUMBERS)
        if 5 in sizes:
            data, diff = diff, _join(parts[_C3D_DIFF])
        wide = double_data is not None  # as in Caffe, doubles take precedence
        data, diff = double_data if wide else data, diff if double_diff is None else double_diff
        raw_data, raw_diff = (self.raw(raw, number) for number in _RAW)
        self.blobs.append(
            Blob(raw_data if data is None else data, raw_diff if diff is None else diff)
        )
        out += varint(8 << 3 | _I64) + struct.pack("<d", len(self.blobs) - 1)
        return out

    def raw(self, found: dict[int, bytes | int], number: int) -> np.ndarray | None:
        """The values in NVCaffe's field `number`, float32 or float64; None if it is not there.

        Raises _Malformed for a number type that NVCaffe does not have, or bytes that do not fit it.
        """
        data = found.get(number)
        if not isinstance(data, bytes):
            return None
        kind = found.get(_RAW[number])
        if kind not in RAW_TYPES:
            what = "no number type" if kind is None else f"the number type {kind}"
            raise _Malformed(f"a blob of raw data has {what} (before byte {self.at})")
        dtype = RAW_TYPES[kind]
        if len(data) % dtype.itemsize:
            raise _Malformed(f"a blob of {len(data)} bytes before byte {self.at}")
        values = np.frombuffer(data, dtype)
        return values.astype(np.float64 if dtype.itemsize == 8 else np.float32)

    def packed(self, size: int, dtype: np.dtype) -> np.ndarray:
        if size % dtype.itemsize:
            raise _Malformed(f"a blob of {size} bytes at byte {self.at}")
        values = np.empty(size // dtype.itemsize, dtype)
        if size and self.file.readinto(values.view(np.uint8).data) != size:  # type: ignore[attr-defined]
            raise _Malformed("it ends early, inside a blob")
        self.at += size
        return values

    def unpacked(self, key: int, size: int, end: int, dtype: np.dtype) -> np.ndarray:
        """Values with a key before each, as writers other than Caffe may store them."""
        if size != dtype.itemsize:
            raise _Malformed(f"a blob's number of {size} bytes at byte {self.at}")
        parts, step, rows = [], 1 + size, 16
        self.at -= 1  # the key of the first value, which is one byte
        self.file.seek(self.at)
        while self.at < end:
            # Ever more at a time: such values may be few, or a whole blob.
            count = min(rows, (end - self.at) // step)
            found = np.frombuffer(self.take(count * step), np.uint8).reshape(count, step)
            other = np.flatnonzero(found[:, 0] != key)
            good = int(other[0]) if len(other) else count
            parts.append(found[:good, 1:].copy().view(dtype).reshape(-1))
            if good < rows:
                self.at -= (count - good) * step
                self.file.seek(self.at)
                break
            rows *= 2
        return np.concatenate(parts)


def _sizes(found: dict[int, int]) -> bytes:
    """num, channels, height and width of an old BlobProto; C3D's five sizes as a shape."""
    if 5 not in found:
        return b"".join(varint(n << 3 | _VARINT) + varint(size) for n, size in found.items())
    dims = b"".join(varint(found.get(n, 0)) for n in range(1, 6))
    shape = varint(1 << 3 | _LEN) + varint(len(dims)) + dims
    return varint(7 << 3 | _LEN) + varint(len(shape)) + shape


def _join(parts: list[np.ndarray]) -> np.ndarray | None:
    if not parts:
        return None
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


# ---------------------------------------------------------------------------------------------
# Writing
# ---------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """A number in protobuf's variable-length form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def chunks(message: Message, plan: Plan, blobs: list[Blob]) -> list[bytes | memoryview]:
    """The bytes of a message, joined from its outline and arrays, as a list of pieces.

    Arrays are float32 or float64 (others become float32); contiguous ones are not copied.

    Raises CaffeError if the message would exceed protobuf's limit of 2 GiB.
    """
    outline = message.SerializePartialToString()
    pieces: list[bytes | memoryview] = []
    if plan is None:
        size = _add_blob(outline, blobs, pieces)
    else:
        size = _add_message(outline, plan, blobs, pieces)
    if size > MAX_BYTES:
        raise CaffeError(
            f"{size / 2**30:.1f} GiB; a binary {message.DESCRIPTOR.name} ends at 2 GiB "
            "(the HDF5 format has no such limit)"
        )
    return pieces


def _add_message(
    outline: bytes, plan: dict[int, Plan], blobs: list[Blob], pieces: list[bytes | memoryview]
) -> int:
    """Append the pieces of one message; returns their size in bytes."""
    stream = _Stream(io.BytesIO(outline))
    total = 0
    for key, size in stream.fields(len(outline)):
        if key & 7 == _LEN and key >> 3 in plan:
            inner = plan[key >> 3]
            body = stream.take(size)
            inside: list[bytes | memoryview] = []
            if inner is None:
                length = _add_blob(body, blobs, inside)
            else:
                length = _add_message(body, inner, blobs, inside)
            pieces.append(varint(key) + varint(length))
            pieces.extend(inside)
            total += len(varint(key)) + len(varint(length)) + length
        else:
            pieces.append(stream.verbatim(key, size))
            total += len(pieces[-1])
    return total


def _add_blob(outline: bytes, blobs: list[Blob], pieces: list[bytes | memoryview]) -> int:
    """Append the pieces of one BlobProto in the order of field numbers; returns their size."""
    head = pb.BlobProto.FromString(outline)
    place = index(head)
    if place is None:
        pieces.append(outline)
        return len(outline)
    tail = pb.BlobProto()
    if head.HasField("shape"):
        tail.shape.CopyFrom(head.shape)
    head.ClearField("double_data")
    head.ClearField("shape")
    arrays = [_flat(blobs[place].data), _flat(blobs[place].diff)]
    start = len(pieces)
    pieces.append(head.SerializeToString())
    for number, array in zip((5, 6), arrays, strict=True):
        _add_array(number, array, np.dtype("<f4"), pieces)
    pieces.append(tail.SerializeToString())
    for number, array in zip((8, 9), arrays, strict=True):
        _add_array(number, array, np.dtype("<f8"), pieces)
    return sum(len(piece) for piece in pieces[start:])


def _flat(array: np.ndarray | None) -> np.ndarray | None:
    if array is None:
        return None
    dtype = "<f8" if array.dtype == np.float64 else "<f4"
    return np.ascontiguousarray(array, dtype).reshape(-1)


def _add_array(
    number: int, array: np.ndarray | None, dtype: np.dtype, pieces: list[bytes | memoryview]
) -> None:
    if array is not None and array.size and array.dtype == dtype:
        pieces.append(varint(number << 3 | _LEN) + varint(array.nbytes))
        pieces.append(array.view(np.uint8).data)

"""Counts and measures the records of a net's data without running the net."""

from __future__ import annotations

import json
from pathlib import Path

from caffe.data.datum import decode_picture, open_database, parse_datum
from caffe.errors import CaffeError
from caffe.formats.db import Database
from caffe.proto.caffe_pb2 import DataParameter


def count_records(source: DataParameter) -> int:
    """Number of records that a Data layer's source has.

    Raises CaffeError where it is missing, empty or cannot be read.
    """
    return len(_open(source))


def record_shape(source: DataParameter) -> tuple[int, int, int]:
    """Channels, height and width of the first Datum of a Data layer's source.

    Raises CaffeError where it is missing, empty or cannot be read.
    """
    key, value = next(_open(source).items())
    where = f"{source.source}: record {key!r}"
    datum = parse_datum(value, where)
    if datum.encoded:
        return _picture_shape(datum.data, where)
    return datum.channels, datum.height, datum.width


def depth_range(lmdb: str) -> str | None:
    """How depth was scaled in an LMDB of data_tools' making ('valid', '0:8 float', ...), as its
    dataset.json says; None where nothing is known."""
    try:
        options = json.loads((Path(lmdb) / "dataset.json").read_text())["options"]
        return options["depth_range"] + (" float" if options.get("float_depth") else "")
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _open(source: DataParameter) -> Database:
    if not Path(source.source).exists():
        # Sooner than asking for a package that could read it.
        backend = DataParameter.DB.Name(source.backend)
        raise CaffeError(f"{backend} {source.source} does not exist")
    return open_database(source.source, source.backend)


def picture_shape(path: str) -> tuple[int, int, int]:
    """Channels, height and width of a picture file. Raises CaffeError where it cannot be read."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise CaffeError(f"{path}: {error.strerror}") from None
    return _picture_shape(data, path)


def _picture_shape(data: bytes, what: str) -> tuple[int, int, int]:
    picture = decode_picture(data)
    if picture is None:
        raise CaffeError(f"{what} is not a picture that can be decoded")
    channels, height, width = picture.shape
    return channels, height, width

"""Databases of Datums, and the Datum's decoder."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.message import DecodeError

from caffe.errors import CaffeError
from caffe.formats.db import Database
from caffe.proto import caffe_pb2 as pb


def open_database(path: str, backend: int) -> Database:
    """The database of a DataParameter. Raises CaffeError where it cannot be read."""
    if backend == pb.DataParameter.LEVELDB and (Path(path) / "data.mdb").is_file():
        raise CaffeError(
            f"{path}: this is an LMDB, but the backend is LEVELDB (so it is where none is given); "
            "say backend: LMDB"
        )
    return Database.open(path, pb.DataParameter.DB.Name(backend).lower())


def parse_datum(value: bytes, where: str) -> pb.Datum:
    try:
        return pb.Datum.FromString(value)
    except DecodeError:
        raise CaffeError(f"{where}: the record is not a Datum") from None

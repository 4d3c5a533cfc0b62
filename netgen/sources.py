"""Counts and measures the records of a net's data without running the net."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from boundary import dataset_json
from boundary.reading import read_json
from caffe.data.datum import datum_values, open_database, parse_datum
from caffe.errors import CaffeError
from caffe.formats.db import Database
from caffe.proto.caffe_pb2 import DataParameter

CHANNELS = 5  # of a record: blue, green, red, depth, label


def count_records(source: DataParameter) -> int:
    """The number of records in a Data layer's source.

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
    try:
        channels, height, width = datum_values(datum).shape
    except (CaffeError, ValueError) as error:
        raise CaffeError(f"{where}: {error}") from None
    return channels, height, width


def facts(lmdb: str) -> dict[str, Any]:
    """What data_tools wrote of an LMDB into its dataset.json; {} if there is none.

    Raises CaffeError where it cannot be read or a field has another type than expected.
    """
    path = Path(lmdb) / dataset_json.NAME
    return dataset_json.read(path, CaffeError) if path.is_file() else {}


def frame_size(known: dict[str, Any]) -> tuple[int, int] | None:
    """Width and height of all records by a dataset.json; None if it does not say them."""
    _, height, width = known.get("shape", (0, 0, 0))
    return (width, height) if width and height else None


def depth_range(lmdb: str) -> str | None:
    """How data_tools scaled depth in an LMDB ('valid', '0:8 float', ...), by its dataset.json; None
    if that is not known.
    """
    path = Path(lmdb) / dataset_json.NAME
    if not path.is_file():
        return None
    options = read_json(path, CaffeError).get("options")
    rule = options.get("depth_range") if isinstance(options, dict) else None
    if rule is None:
        return None
    # It becomes a comment in a prototxt, which it must not end.
    if not isinstance(rule, str) or not re.fullmatch(r"\S+( m)?", rule):
        raise CaffeError(f"{path}: options.depth_range: expected authors, valid, none or MIN:MAX m")
    return rule + (" float" if options.get("float_depth") else "")


def _open(source: DataParameter) -> Database:
    if not Path(source.source).exists():
        # Otherwise a missing LevelDB would be reported as a missing package.
        backend = DataParameter.DB.Name(source.backend)
        raise CaffeError(f"{backend} {source.source} does not exist")
    return open_database(source.source, source.backend)

"""compute_image_mean [FLAGS] INPUT_DB [OUTPUT_FILE]: the mean of a database's records.

OUTPUT_FILE (.binaryproto) gets the mean of each value, for `mean_file`; the log shows the mean of
each channel, for `mean_value`. Sums are in float32 and in Caffe's order: the bytes are the same.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np

from boundary.late import tqdm
from caffe import io
from caffe.commands.flags import Flag, Usage, run
from caffe.data.datum import parse_datum
from caffe.errors import CaffeError
from caffe.formats import db, files
from caffe.process.log import emit, number
from caffe.proto import caffe_pb2 as pb

PROGRAM = "compute_image_mean"
USAGE = """Compute the mean of the records in a leveldb/lmdb.
Usage:
    compute_image_mean [FLAGS] INPUT_DB [OUTPUT_FILE]"""
FLAGS = (Flag("backend", "lmdb", "The backend {leveldb, lmdb} containing the images"),)


def _log(line: int, message: str) -> None:
    emit(f"{PROGRAM}.cpp:{line}", message)


def _array(value: bytes, where: str) -> np.ndarray:
    """A record's values, channels x height x width, uint8 or float32.

    Raises CaffeError, which names `where` it lies, for a record that is damaged or empty.
    """
    datum = parse_datum(value, where)
    if datum.encoded or datum.data:
        kind, size = np.uint8, len(datum.data)
    else:
        kind, size = np.float32, len(datum.float_data)
    shape = (datum.channels, datum.height, datum.width)
    if size == 0:
        raise CaffeError(f"{where} holds no values; expected a Datum")
    if not datum.encoded and np.prod(shape, dtype=int) != size:
        raise CaffeError(f"{where} has {size} values; its size {shape} asks for another number")
    try:
        return io.datum_to_array(datum).astype(kind, copy=False)
    except (CaffeError, ValueError) as error:
        raise CaffeError(f"{where}: {error}") from None


def mean(database: db.Database) -> np.ndarray:
    """The mean record, channels x height x width, float32.

    Raises CaffeError if the records differ in size.
    """
    total: np.ndarray | None = None
    count = 0
    for key, value in tqdm.tqdm(
        database.items(), total=len(database), unit="records", disable=None
    ):
        array = _array(value, f"{database.path}: record {key!r}")
        if total is None:
            if pb.Datum.FromString(value).encoded:
                _log(57, "Decoding Datum")
            _log(70, "Starting iteration")
            total = np.zeros(array.shape, np.float32)
        if array.shape != total.shape:
            raise CaffeError(
                f"{database.path}: record {key!r} is {array.shape}; expected {total.shape} as the "
                "first"
            )
        total += array
        count += 1
        if count % 10000 == 0:
            _log(95, f"Processed {count} files.")
    if total is None:
        raise CaffeError(f"{database.path}: no records")
    if count % 10000:
        _log(101, f"Processed {count} files.")
    return total / np.float32(count)


def channel_means(mean: np.ndarray) -> list[np.float32]:
    """The mean of each channel, summed one value after the other as Caffe does."""
    flat = mean.reshape(len(mean), -1)
    return [np.cumsum(channel)[-1] / np.float32(channel.size) for channel in flat]


def compute(values: SimpleNamespace, others: list[str], given: set[str]) -> int:
    """Do the tool's work with its flags and arguments; returns the exit status."""
    if len(others) not in (1, 2):
        raise Usage(f"expected INPUT_DB [OUTPUT_FILE], got {len(others)} arguments")
    database = db.Database.open(others[0], values.backend)
    line = 35 if values.backend == "lmdb" else 18
    emit(f"db_{values.backend}.cpp:{line}", f"Opened {values.backend} {others[0]}")
    result = mean(database)
    if len(others) == 2:
        _log(108, f"Write to {others[1]}")
        files.write_blob(others[1], result[np.newaxis], old_form=True)
    _log(114, f"Number of channels: {len(result)}")
    for channel, value in enumerate(channel_means(result)):
        _log(119, f"mean_value channel [{channel}]: {number(value)}")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run(compute, USAGE, FLAGS, arguments, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())

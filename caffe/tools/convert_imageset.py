"""convert_imageset [FLAGS] ROOTFOLDER/ LISTFILE DB_NAME: pictures and labels into a database.

Each line of LISTFILE is a picture's path, added to ROOTFOLDER as it stands, and an integer label
behind the last blank, tab, ';' or ','. Each record is a Datum, B G R uint8, under the key
NUMBER_PATH, as Caffe's own tool writes it, byte for byte.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np

from boundary.late import cv2, tqdm
from boundary.pictures import read_picture
from boundary.reading import read_bytes
from caffe import io
from caffe.commands.flags import Flag, Usage, run
from caffe.errors import CaffeError
from caffe.formats import db
from caffe.formats.lists import read_labelled
from caffe.process.log import ERROR, INFO, WARNING, emit
from caffe.proto import caffe_pb2 as pb

PROGRAM = "convert_imageset"
USAGE = """Convert a set of pictures to the lmdb/leveldb format that Data layers read.
Usage:
    convert_imageset [FLAGS] ROOTFOLDER/ LISTFILE DB_NAME
Each line of LISTFILE: a picture's path below ROOTFOLDER, a space, an integer label."""
FLAGS = (
    Flag("backend", "lmdb", "The backend {lmdb, leveldb} for storing the result"),
    Flag("check_size", False, "Stop unless all pictures have the same size"),
    Flag("encode_type", "", "What type to encode the pictures as ('png','jpg',...)"),
    Flag("encoded", False, "Save the pictures encoded, as their file name says"),
    Flag("gray", False, "Treat pictures as grayscale ones"),
    Flag("resize_height", 0, "Height pictures are resized to, if resize_width is given too"),
    Flag("resize_width", 0, "Width pictures are resized to, if resize_height is given too"),
    Flag("shuffle", False, "Shuffle the order of pictures and their labels"),
)

Line = tuple[int, str, int]  # place in the list, path, label


def _log(line: int, message: str, severity: int = INFO) -> None:
    emit(f"{PROGRAM}.cpp:{line}", message, severity)


def encoding(name: str, values: SimpleNamespace) -> str:
    """The format in which to store a picture: '' for raw pixels, else a file extension."""
    if values.encode_type or not values.encoded:
        return values.encode_type
    _, dot, extension = name.rpartition(".")
    if not dot:
        _log(117, f"Failed to guess the encoding of '{name}'", WARNING)
    return extension.lower()


def picture_to_datum(path: str, label: int, code: str, values: SimpleNamespace) -> pb.Datum | None:
    """The record of a picture; None, with a log line, if it cannot be read."""
    flags = cv2.IMREAD_GRAYSCALE if values.gray else cv2.IMREAD_COLOR
    try:
        image = read_picture(path, flags, CaffeError)
    except CaffeError as error:
        emit("io.cpp:80", f"Could not open or find file {error}", ERROR)
        return None
    if values.resize_height > 0 and values.resize_width > 0:
        image = cv2.resize(image, (values.resize_width, values.resize_height))
    if code:
        return pb.Datum(data=_encode(path, image, code, values), label=label, encoded=True)
    datum = io.array_to_datum(np.atleast_3d(image).transpose(2, 0, 1), label)
    datum.encoded = False  # Caffe's records contain the field
    return datum


def _encode(path: str, image: np.ndarray, code: str, values: SimpleNamespace) -> bytes:
    extension = os.path.basename(path).rpartition(".")[2].lower()
    if extension == "jpeg" and code.lower() == "jpg":
        extension = "jpg"
    if extension == code.lower() and not (values.resize_height or values.resize_width):
        return read_bytes(path, CaffeError, plain=True)  # stored unchanged
    try:
        done, data = cv2.imencode(f".{code}", image)
    except cv2.error:
        done = False
    if not done:
        raise CaffeError(f"{path}: cannot be encoded as {code!r}; expected png, jpg, bmp, ...")
    return data.tobytes()


def records(
    root: str, entries: Sequence[tuple[str, int]], values: SimpleNamespace
) -> Iterator[tuple[bytes, pb.Datum]]:
    """(key, Datum) of each picture that can be read.

    Raises CaffeError with check_size for a picture of another size than the first.
    """
    first: tuple[int, ...] | None = None
    for number, (name, label) in enumerate(tqdm.tqdm(entries, unit="pictures", disable=None)):
        code = encoding(name, values)
        datum = picture_to_datum(root + name, label, code, values)
        if datum is None:
            continue
        if values.check_size:
            shape = io.datum_to_array(datum).shape
            first = first or shape
            if shape != first:
                raise CaffeError(
                    f"{root + name}: {_size(shape)}; expected {_size(first)} as the first picture "
                    "(-check_size)"
                )
        yield os.fsencode(f"{number:08d}_{name}"), datum


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def convert(values: SimpleNamespace, others: list[str], given: set[str]) -> int:
    """Do the tool's work with its flags and arguments; returns the exit status."""
    if len(others) != 3:
        raise Usage(f"expected ROOTFOLDER/ LISTFILE DB_NAME, got {len(others)} arguments")
    root, listed, target = others
    entries = read_labelled(listed)
    if values.shuffle:
        _log(86, "Shuffling data")
        order = np.random.default_rng().permutation(len(entries))
        entries = [entries[i] for i in order]
    _log(89, f"A total of {len(entries)} images.")
    if values.encode_type and not values.encoded:
        _log(92, "encode_type specified, assuming encoded=true.")
    count = 0
    with db.create(target, values.backend) as put:
        emit(
            f"db_{values.backend}.cpp:{35 if values.backend == 'lmdb' else 18}",
            f"Opened {values.backend} {target}",
        )
        for key, datum in records(root, entries, values):
            put(key, datum.SerializeToString())
            count += 1
            if count % 1000 == 0:
                _log(147, f"Processed {count} files.")
        if not count:
            raise CaffeError(f"{listed}: none of its {len(entries)} pictures could be read")
    if count % 1000:
        _log(153, f"Processed {count} files.")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    return run(convert, USAGE, FLAGS, arguments, PROGRAM)


if __name__ == "__main__":
    sys.exit(main())

"""compute_image_mean: the reference's mean, to the byte."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from caffe import io
from caffe.formats import db, files
from caffe.proto import caffe_pb2 as pb
from caffe.tools.compute_image_mean import main

INTEROP = Path(__file__).parents[2] / "golden" / "interop"


def make(path: Path, datums: list[pb.Datum]) -> str:
    with db.create(path) as put:
        for i, datum in enumerate(datums):
            put(b"%08d" % i, datum.SerializeToString())
    return str(path)


def test_mean_equals_the_references(tmp_path: Path, capfd) -> None:
    out = tmp_path / "mean.binaryproto"
    assert main([str(INTEROP / "train_lmdb"), str(out)]) == 0
    assert out.read_bytes() == (INTEROP / "mean.binaryproto").read_bytes()
    said = [line.partition("] ")[2] for line in capfd.readouterr().err.splitlines()]
    assert said[1:3] == ["Starting iteration", "Processed 6 files."]
    channels = files.read_blob(out)[0].mean(axis=(1, 2))
    assert said[-4:] == ["Number of channels: 3"] + [
        f"mean_value channel [{c}]: {value:.6g}" for c, value in enumerate(channels)
    ]


def test_floats_and_encoded_records(tmp_path: Path) -> None:
    """(1.5 + 2.5) / 2 = 2, and an encoded picture counts by its pixels."""
    floats = [io.array_to_datum(np.full((2, 1, 3), value)) for value in (1.5, 2.5)]
    out = tmp_path / "m"
    assert main([make(tmp_path / "f", floats), str(out)]) == 0
    np.testing.assert_array_equal(files.read_blob(out), np.full((1, 2, 1, 3), 2))
    picture = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    encoded = pb.Datum(encoded=True, data=cv2.imencode(".png", picture)[1].tobytes())
    assert main([make(tmp_path / "e", [encoded]), str(out)]) == 0
    np.testing.assert_array_equal(files.read_blob(out)[0], picture.transpose(2, 0, 1))


def test_without_output_file(tmp_path: Path, capfd) -> None:
    lmdb = make(tmp_path / "l", [io.array_to_datum(np.full((1, 2, 2), 7, np.uint8))])
    assert main([lmdb]) == 0
    assert capfd.readouterr().err.splitlines()[-1].endswith("mean_value channel [0]: 7")
    assert [p.name for p in tmp_path.iterdir()] == ["l"]


@pytest.mark.parametrize(
    ("datums", "error"),
    [
        (
            [io.array_to_datum(np.zeros((1, 2, n), np.uint8)) for n in (3, 4)],
            "record b'00000001' is (1, 2, 4); expected (1, 2, 3) as the first",
        ),
        ([pb.Datum(channels=1, height=2, width=2, data=b"abc")], "b'00000000' has 3 values"),
        ([pb.Datum(encoded=True, data=b"abc")], "b'00000000': encoded Datum of 3 bytes"),
        ([pb.Datum(channels=1)], "b'00000000' holds no values"),
        ([pb.BlobProto(shape=pb.BlobShape(dim=[1]))], "b'00000000' holds no values"),
        ([], "no records"),
    ],
)
def test_bad_records(tmp_path: Path, capfd, datums: list, error: str) -> None:
    assert main([make(tmp_path / "l", datums), str(tmp_path / "m")]) == 1
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("compute_image_mean: ")
    assert error in last
    assert not (tmp_path / "m").exists()


def test_bad_usage(tmp_path: Path, capfd) -> None:
    assert main([]) == 2
    assert main([str(tmp_path / "none")]) == 1
    assert "none: No such file or directory" in capfd.readouterr().err

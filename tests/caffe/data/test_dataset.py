"""LMDBDataset: records as tensors, in a DataLoader's workers, too."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

import caffe
from caffe.data.dataset import LMDBDataset
from caffe.formats.db import create

RECORDED = Path(__file__).parents[2] / "golden" / "train" / "lmdb"


@pytest.fixture
def lmdb(tmp_path):
    """Three records: bytes, floats, and a picture."""
    import cv2

    pixels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    picture = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    encoded = caffe.io.array_to_datum(pixels, 9)
    encoded.encoded, encoded.data = True, cv2.imencode(".png", picture)[1].tobytes()
    datums = [
        caffe.io.array_to_datum(pixels, 7),
        caffe.io.array_to_datum(pixels / 8, 8),
        encoded,
    ]
    path = tmp_path / "lmdb"
    with create(path) as put:
        for i, datum in enumerate(datums):
            put(b"%08d" % i, datum.SerializeToString())
        put(b"x", b"\xff")
    return path, pixels, picture


def test_items(lmdb):
    path, pixels, picture = lmdb
    dataset = LMDBDataset(path)
    assert len(dataset) == 4
    assert [dataset[i][1] for i in range(3)] == [7, 8, 9]
    assert [dataset[i][0].dtype for i in range(3)] == [torch.uint8, torch.float32, torch.uint8]
    assert torch.equal(dataset[0][0], torch.from_numpy(pixels))
    assert torch.equal(dataset[1][0], torch.from_numpy(pixels / 8).float())
    assert torch.equal(dataset[2][0], torch.from_numpy(picture.transpose(2, 0, 1)))


def test_transform_makes_the_item(lmdb):
    dataset = LMDBDataset(lmdb[0], transform=lambda values, label: (values.shape[0], label + 1))
    assert dataset[0] == (2, 8)


def test_pickled_and_read_again(lmdb):
    dataset = pickle.loads(pickle.dumps(LMDBDataset(lmdb[0])))
    assert dataset[1][1] == 8


def test_errors_name_the_record(lmdb, tmp_path):
    with pytest.raises(caffe.CaffeError, match=r"lmdb: record b'x': the record is not a Datum"):
        LMDBDataset(lmdb[0])[3]
    with pytest.raises(IndexError):
        LMDBDataset(lmdb[0])[4]
    with pytest.raises(caffe.CaffeError, match="nothing"):
        LMDBDataset(tmp_path / "nothing")


@pytest.mark.parametrize("workers", [0, 2])
def test_data_loader(workers):
    """The records that `caffe train` reads, in its order."""
    dataset = LMDBDataset(RECORDED)
    loader = torch.utils.data.DataLoader(dataset, batch_size=3, num_workers=workers)
    batches = list(loader)
    assert [tuple(values.shape) for values, _ in batches] == [(3, 5, 24, 32)] * 2 + [(1, 5, 24, 32)]
    net = caffe.proto.caffe_pb2.NetParameter()
    layer = net.layer.add(name="data", type="Data", top=["data"])
    layer.data_param.source, layer.data_param.batch_size = str(RECORDED), 3
    layer.data_param.backend = layer.data_param.LMDB
    read = caffe.Net(net, caffe.TEST).forward()["data"]
    np.testing.assert_array_equal(batches[0][0].numpy(), read)

"""Records in LMDBs and data layers that read them, for tests of data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from google.protobuf import text_format

import caffe
from caffe.formats import db
from caffe.proto import caffe_pb2 as pb

COUNT = 12


def make_lmdb(path: Path, arrays: list[np.ndarray]) -> str:
    """An LMDB of these arrays, channels x height x width, whose labels are their numbers."""
    with db.create(path) as put:
        for i, array in enumerate(arrays):
            put(b"%04d" % i, make_datum(array, i).SerializeToString())
    return str(path)


def make_datum(array: np.ndarray, label: int = 0) -> pb.Datum:
    """A Datum that holds bytes for uint8 and numbers for other types."""
    datum = pb.Datum(label=label)
    datum.channels, datum.height, datum.width = array.shape
    if array.dtype == np.uint8:
        datum.data = array.tobytes()
    else:
        datum.float_data.extend(array.ravel().tolist())
    return datum


def data_net(
    source: str, batch: int = 4, phase: int = caffe.TRAIN, more: str = "", name: str = "data"
):
    """A net of one Data layer."""
    text = f"""layer {{ name: "{name}" type: "Data" top: "x" top: "label"
      data_param {{ source: "{source}" backend: LMDB batch_size: {batch} {more} }} }}"""
    return caffe.Net(text_format.Parse(text, pb.NetParameter()), phase)


def labels(net: caffe.Net, passes: int) -> list[int]:
    """The labels of the next batches."""
    return [int(v) for _ in range(passes) for v in net.forward()["label"]]

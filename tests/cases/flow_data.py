"""Cases of the layers in caffe/layers/flow_data.py."""

from __future__ import annotations

import functools
import random
import shutil

import numpy as np

import caffe
from caffe.formats.db import create
from caffe.proto import caffe_pb2 as pb
from cases import Case, row

RECORDS, SIZE = 4, (3, 5)


def encoded(flow: np.ndarray, mask: np.ndarray) -> bytes:
    """A flow (2, H, W), whose NaN is 32767, and a mask (H, W) as FlowNet2 stores them."""
    values = np.where(np.isnan(flow), 32767, flow * 32).astype("<i2")
    return values.tobytes() + np.packbits(mask.ravel(), bitorder="little").tobytes()


def write_records(plain: bool) -> None:
    """The database "lmdb" of an image, and unless it is plain a flow and a mask; "split.txt"."""
    rng = np.random.default_rng(0)
    shutil.rmtree("lmdb", ignore_errors=True)
    with create("lmdb") as put:
        for i in range(RECORDS):
            datum = pb.Datum(channels=3 if plain else 6, height=SIZE[0], width=SIZE[1], label=i)
            datum.data = rng.integers(0, 256, (3, *SIZE), np.uint8).tobytes()
            if not plain:
                flow = rng.integers(-99, 99, (2, *SIZE)) / 4
                datum.data += encoded(flow, rng.random(SIZE) < 0.5)
            put(b"%08d" % i, datum.SerializeToString())
    with open("split.txt", "w") as file:
        file.write("1 2 1 1\n")


@row(
    "CustomData",
    'data_param { source: "train_lmdb" backend: LMDB batch_size: 8 rand_permute: true '
    "slice_point: 3 slice_point: 6 encoding: UINT8 encoding: UINT8 encoding: UINT16FLOW }",
    (),
    False,
)
def custom_data(rng: random.Random, name: str) -> Case:
    plain = rng.random() < 0.3
    text = f'source: "lmdb" backend: LMDB batch_size: {rng.randint(1, 3)}'
    text += f" rand_permute: {str(rng.random() < 0.5).lower()}"
    text += rng.choice(
        [
            "",
            " range_start: 1 range_end: 2",
            ' preselection_file: "split.txt" preselection_label: 1',
        ]
    )
    if plain:
        text += rng.choice(["", " subtract: 1 subtract: 2 subtract: 3", " scale: 0.5"])
        tops = rng.randint(1, 2)
    else:
        text += " slice_point: 3 slice_point: 5 encoding: UINT8 encoding: UINT16FLOW"
        text += " encoding: BOOL1"
        tops = 3
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    return Case(
        f"data_param {{ {text} }} {names}",
        phase=rng.choice([caffe.TRAIN, caffe.TEST]),
        files=functools.partial(write_records, plain),
    )


@row("FLOWriter", 'writer_param { folder: "flows" prefix: "flow-" }', (), False)
def flow_writer(rng: random.Random, name: str) -> Case:
    return Case('writer_param { folder: "nowhere" }', [[rng.randint(1, 2), 2, 3, 4]])

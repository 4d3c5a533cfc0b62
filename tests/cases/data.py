"""Cases of the layers in caffe/layers/data.py."""

from __future__ import annotations

import functools
import random
import shutil
from pathlib import Path

import cv2
import numpy as np

import caffe
from caffe.formats import db
from caffe.proto import caffe_pb2 as pb
from cases import Case, row, shape

RECORDS = 5


def dims(sizes: list[int]) -> str:
    """A shape as text."""
    return "shape { " + " ".join(f"dim: {size}" for size in sizes) + " }"


def more_tops(count: int) -> str:
    """`top` fields for as many tops."""
    return " ".join(f'top: "top{i}"' for i in range(count))


@row("Input", "input_param { shape { dim: 1 dim: 3 dim: 224 dim: 224 } }", (), False)
def given_by_the_user(rng: random.Random, name: str) -> Case:
    tops = rng.randint(1, 3)
    given = [dims(shape(rng, 0, 5)) for _ in range(rng.choice([0, 1, tops]))]
    return Case(f"{more_tops(tops)} input_param {{ {' '.join(given)} }}")


FILLERS = (
    "",
    "value: 0.5",
    'type: "gaussian" mean: 1 std: 2',
    'type: "uniform" min: -1 max: 2',
    'type: "xavier"',
    'type: "msra" variance_norm: AVERAGE',
    'type: "positive_unitball"',
)


@row("DummyData", "dummy_data_param { shape { dim: 8 dim: 10 } }", (), False)
def filled(rng: random.Random, name: str) -> Case:
    tops = rng.randint(1, 3)
    if rng.random() < 0.3:  # the fields of older nets
        fields = [
            f"{field}: {rng.randint(1, 4)}"
            for field in ("num", "channels", "height", "width")
            for _ in range(rng.choice([1, tops]))
        ]
    else:
        fields = [dims(shape(rng, 1, 5)) for _ in range(rng.choice([1, tops]))]
    for _ in range(rng.choice([0, 1, tops])):
        fields.append(f"data_filler {{ {rng.choice(FILLERS)} }}")
    return Case(f"{more_tops(tops)} dummy_data_param {{ {' '.join(fields)} }}")


def transformation(rng: random.Random, channels: int, size: int) -> str:
    """The fields of a transform_param for records of these channels, at least size x size."""
    fields = [f"mirror: {rng.choice(['true', 'false'])}"]
    if rng.random() < 0.5:
        fields.append(f"crop_size: {rng.randint(1, size)}")
    if rng.random() < 0.5:
        fields.append(f"scale: {rng.uniform(0.01, 2)}")
    for _ in range(rng.choice([0, 1, channels])):
        fields.append(f"mean_value: {rng.randint(0, 99)}")
    return " ".join(fields)


def augmentation(rng: random.Random, channels: int) -> str:
    """The fields of a transform_param that zooms, turns, crops freely and changes values."""
    fields = [f"min_scale: {rng.uniform(0.5, 1)} max_scale: {rng.uniform(1, 2)}"]
    if rng.random() < 0.7:
        fields.append(f"crop_h: {rng.randint(1, 8)} crop_w: {rng.randint(1, 8)}")
    if rng.random() < 0.5:
        fields.append(f"max_angle: {rng.uniform(0, 180)}")
    if channels == 3:
        fields.append("color_channel: 0 color_channel: 1 color_channel: 2")
        fields.append("brightness: 0.2 contrast: 0.2 saturation: 0.2 hue: 0.1")
    else:
        fields.append(f"label_channel: {channels - 1} ignore_label: 255 pad_value: 1")
    if channels == 2:
        fields.append("depth_channel: 0 min_depth_scale: 0.9 max_depth_scale: 1.1")
    return f"augmentation_param {{ {' '.join(fields)} }}"


@row(
    "Data",
    'transform_param { crop_size: 224 mirror: true } data_param { source: "train_lmdb" '
    "batch_size: 32 backend: LMDB }",
    (),
    False,
)
def stored(rng: random.Random, name: str) -> Case:
    channels, size = rng.choice([1, 3]), rng.randint(3, 6)
    kind = rng.choice(["bytes", "numbers", "pictures"])
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    one_size = not (phase == caffe.TRAIN and rng.random() < 0.3)
    transform = transformation(rng, channels, size) if one_size else augmentation(rng, channels)
    if one_size and kind == "pictures" and rng.random() < 0.5:
        transform += f" force_{'color' if channels == 3 else 'gray'}: true"
    read = [
        'source: "records"',
        "backend: LMDB",
        f"batch_size: {rng.randint(1, RECORDS + 2)}",
        f"shuffle: {rng.choice(['true', 'false'])}",
        f"rand_skip: {rng.randint(0, RECORDS)}",
        f"prefetch: {rng.randint(1, 4)}",
    ]
    text = f"{more_tops(rng.randint(1, 2))} transform_param {{ {transform} }} "
    text += f"data_param {{ {' '.join(read)} }}"
    write = functools.partial(write_records, Path("records"), (channels, size, size + 2), kind)
    return Case(text, phase=phase, files=write)


def write_records(path: Path, shape: tuple[int, int, int], kind: str) -> None:
    """An LMDB of RECORDS Datums of one shape, channels x height x width."""
    shutil.rmtree(path, ignore_errors=True)
    rng = np.random.default_rng(0)
    with db.create(path) as put:
        for i in range(RECORDS):
            values = rng.integers(0, 256, shape, np.uint8)
            datum = pb.Datum(label=i)
            if kind == "pictures":
                datum.encoded = True
                datum.data = cv2.imencode(".png", values.transpose(1, 2, 0))[1].tobytes()
            else:
                datum.channels, datum.height, datum.width = shape
                if kind == "bytes":
                    datum.data = values.tobytes()
                else:
                    datum.float_data.extend(values.ravel() / 7)
            put(f"{i:04}".encode(), datum.SerializeToString())


@row(
    "MemoryData",
    "memory_data_param { batch_size: 32 channels: 3 height: 224 width: 224 }",
    (),
    False,
)
def in_memory(rng: random.Random, name: str) -> Case:
    sizes = (f"{f}: {rng.randint(1, 4)}" for f in ("batch_size", "channels", "height", "width"))
    return Case(f"{more_tops(2)} memory_data_param {{ {' '.join(sizes)} }}")

"""Cases of AnnotatedData."""

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
from cases import Case, row
from cases.data import more_tops

RECORDS = 5
SAMPLER = (
    "batch_sampler { max_sample: 1 max_trials: 20 sampler { min_scale: 0.3 min_aspect_ratio: 0.5 "
    "max_aspect_ratio: 2 } sample_constraint { min_jaccard_overlap: 0.3 } }"
)
STEPS = (
    "distort_param { brightness_prob: 0.5 brightness_delta: 32 contrast_prob: 0.5 "
    "contrast_lower: 0.5 contrast_upper: 1.5 saturation_prob: 0.5 saturation_lower: 0.5 "
    "saturation_upper: 1.5 hue_prob: 0.5 hue_delta: 18 random_order_prob: 0.5 }",
    "expand_param { prob: 0.5 max_expand_ratio: 4 }",
    "emit_constraint { emit_type: CENTER }",
    "noise_param { gauss_blur: true inverse: true }",
    "mirror: true",
    "mean_value: 104 mean_value: 117 mean_value: 123",
    "crop_h: 5 crop_w: 7",
)


@row(
    "AnnotatedData",
    "transform_param { mirror: true resize_param { height: 300 width: 300 } } "
    'data_param { source: "voc0712_lmdb" batch_size: 32 backend: LMDB }',
    (),
    False,
)
def annotated(rng: random.Random, name: str) -> Case:
    phase = rng.choice([caffe.TRAIN, caffe.TEST])
    mode = rng.choice(["WARP", "FIT_LARGE_SIZE_AND_PAD"])
    steps = [f"resize_param {{ height: 8 width: 9 resize_mode: {mode} }}"]
    steps += [step for step in STEPS if rng.random() < 0.4]
    read = f'source: "records" backend: LMDB batch_size: {rng.randint(1, RECORDS + 2)}'
    text = f"{more_tops(rng.randint(1, 2))} transform_param {{ {' '.join(steps)} }} "
    text += f"data_param {{ {read} }}"
    if rng.random() < 0.5:
        text += f" annotated_data_param {{ {SAMPLER} }}"
    write = functools.partial(write_annotated, Path("records"), rng.choice([True, False]))
    return Case(text, phase=phase, files=write)


def write_annotated(path: Path, encoded: bool = True, count: int = RECORDS) -> None:
    """An LMDB of AnnotatedDatums of pictures of several sizes; picture i has i boxes."""
    shutil.rmtree(path, ignore_errors=True)
    rng = np.random.default_rng(0)
    with db.create(path) as put:
        for i in range(count):
            record = pb.AnnotatedDatum(type=pb.AnnotatedDatum.BBOX)
            values = rng.integers(0, 256, (12 + i, 14, 3), np.uint8)
            datum = record.datum
            datum.height, datum.width, datum.channels = values.shape
            datum.encoded = encoded
            if encoded:
                datum.data = cv2.imencode(".png", values)[1].tobytes()
            else:
                datum.data = np.ascontiguousarray(values.transpose(2, 0, 1)).tobytes()
            for k in range(i):
                group = record.annotation_group.add(group_label=k + 1)
                x, y = rng.uniform(0, 0.5, 2)
                box = group.annotation.add(instance_id=k).bbox
                box.xmin, box.ymin, box.xmax, box.ymax = x, y, x + 0.3, y + 0.4
            put(f"{i:04}".encode(), record.SerializeToString())

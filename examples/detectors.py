"""What examples/ssd.py and examples/faster_rcnn.py share: scenes, layers, training, pictures.

The scenes are rendered by data_tools.synth, which puts boxes around cabinets, fridges and columns.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

import caffe
from boundary.late import cv2
from boundary.lmdb_file import LmdbFile
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2

CLASSES = ("background", "cabinet", "fridge", "column")
MEAN, SCALE = (110, 115, 120), 1 / 64  # of the pictures that the nets take
DISTANCE = 10_000  # of the seeds of training and test
SHOWN = 0.4  # the least score of a box that is drawn


def make_data(out: Path, train: int, test: int, size: tuple[int, int]) -> None:
    """Renders so many scenes of `size` (width, height) to train/ and test/, which have different
    seeds. What is there stays.
    """
    for name, count, seed in (("train", train, 0), ("test", test, DISTANCE)):
        if not (out / name / "data.mdb").exists():
            command = [sys.executable, "-m", "data_tools.synth", str(out / f"{name}_scenes")]
            command += ["--force", "--boxes", str(out / name), "--count", str(count)]
            command += ["--seed", str(seed), "--size", f"{size[0]}x{size[1]}"]
            subprocess.run(command, check=True)


def annotated(source: Path, batch: int, size: tuple[int, int], mirror: bool, **more):
    """Pictures (batch, 3, height, width) and their boxes, from an LMDB that make_data wrote.

    more: further fields of annotated_data_param.
    """
    width, height = size
    resize = {"prob": 1, "resize_mode": P.Resize.WARP, "height": height, "width": width}
    return L.AnnotatedData(
        ntop=2,
        data_param={"source": str(source), "batch_size": batch, "backend": P.Data.LMDB},
        transform_param={
            "mean_value": list(MEAN),
            "scale": SCALE,
            "mirror": mirror,
            "resize_param": resize,
            "emit_constraint": {"emit_type": caffe_pb2.EmitConstraint.CENTER},
        },
        annotated_data_param={"label_map_file": str(source / "labelmap.prototxt"), **more},
    )


def block(n: caffe.NetSpec, name: str, bottom, channels: int, stride: int = 1):
    """A 3 x 3 convolution with BatchNorm, Scale and ReLU."""
    n[name] = L.Convolution(
        bottom,
        num_output=channels,
        kernel_size=3,
        pad=1,
        stride=stride,
        bias_term=False,
        weight_filler={"type": "msra"},
    )
    n[f"{name}/bn"] = L.BatchNorm(n[name], in_place=True)
    n[f"{name}/scale"] = L.Scale(n[f"{name}/bn"], bias_term=True, in_place=True)
    n[f"{name}/relu"] = L.ReLU(n[f"{name}/scale"], in_place=True)
    return n[f"{name}/relu"]


def evaluated(n: caffe.NetSpec, found, label) -> None:
    """DetectionEvaluate: what the solver makes mAP of. Difficult boxes do not count."""
    n.detection_eval = L.DetectionEvaluate(
        found,
        label,
        num_classes=len(CLASSES),
        background_label_id=0,
        overlap_threshold=0.5,
        evaluate_difficult_gt=False,
    )


def solver(out: Path, prefix: str, iterations: int, tests: Sequence[int], more: str) -> str:
    """The solver's text: Adam, and mAP by 11 points. tests: the batches and the number of tests.

    more: its further lines.
    """
    batches, times = tests
    return f"""\
train_net: "{out}/train.prototxt"
test_net: "{out}/test.prototxt"
test_iter: {batches}
test_interval: {max(1, iterations // times)}
test_initialization: false
eval_type: "detection"
ap_version: "11point"
show_per_class_result: true
type: "Adam"
momentum: 0.9
momentum2: 0.999
weight_decay: 0.0005
lr_policy: "multistep"
gamma: 0.2
stepvalue: {iterations * 2 // 3}
stepvalue: {iterations * 9 // 10}
max_iter: {iterations}
display: {max(1, iterations // 20)}
average_loss: 20
snapshot_prefix: "{out}/{prefix}"
random_seed: 1
{more}"""


def write_texts(out: Path, nets: dict[str, caffe_pb2.NetParameter], solver_text: str) -> None:
    """Writes the nets as NAME.prototxt, and solver.prototxt."""
    out.mkdir(parents=True, exist_ok=True)
    for name, net in nets.items():
        (out / f"{name}.prototxt").write_text(str(net), encoding="utf-8")
    (out / "solver.prototxt").write_text(solver_text, encoding="utf-8")


def train(out: Path) -> None:
    """Runs the solver; Python layers of the examples are found."""
    command = [sys.executable, "-m", "caffe", "train", "-solver", str(out / "solver.prototxt")]
    here = str(Path(__file__).resolve().parent)
    paths = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": paths})


def draw(out: Path, weights: Path, count: int) -> None:
    """Writes the first test scenes with the boxes that the deploy net finds to pictures/."""
    net = caffe.Net(str(out / "deploy.prototxt"), str(weights), caffe.TEST)
    (out / "pictures").mkdir(exist_ok=True)
    records = LmdbFile(out / "test", RuntimeError).every(0, 1)
    for number, (_, value) in enumerate(islice(records, count)):
        datum = caffe_pb2.AnnotatedDatum.FromString(value).datum
        picture = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_COLOR)
        shown = with_boxes(cv2.resize(picture, None, fx=4, fy=4), detect(net, picture))
        cv2.imwrite(str(out / "pictures" / f"{number:03d}.png"), shown)


def detect(net: caffe.Net, picture: np.ndarray) -> np.ndarray:
    """The rows of detection_out for a picture (H, W, 3): image, label, score, left, top, right,
    bottom, the sides as fractions of the picture's. Without a find, one row of -1.
    """
    data = net.blobs["data"]
    height, width = data.shape[2:]
    small = cv2.resize(picture, (width, height)).astype(np.float32)
    data.data[0] = ((small - MEAN) * SCALE).transpose(2, 0, 1)
    return net.forward()["detection_out"][0, 0]


def with_boxes(picture: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The picture with the boxes that are surer than SHOWN."""
    height, width = picture.shape[:2]
    for _, label, score, *sides in rows:
        if score > SHOWN:
            pixels = np.array(sides) * (width, height, width, height)
            left, top, right, bottom = pixels.astype(int).tolist()
            cv2.rectangle(picture, (left, top), (right, bottom), (0, 255, 0), 2)
            text = f"{CLASSES[int(label)]} {score:.2f}"
            cv2.putText(picture, text, (left, top + 14), 0, 0.5, (0, 0, 255), 1)
    return picture

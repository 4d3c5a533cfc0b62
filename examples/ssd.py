"""Trains a small SSD detector on rendered scenes and tests it on others.

    python examples/ssd.py OUT            # data, nets, training, mAP and pictures: about 10 minutes
    python examples/ssd.py OUT --nets     # the nets and the solver alone

The net is SSD's (Liu et al., 2016) on a backbone that is small enough for two processor cores: 3 x
3 convolutions with BatchNorm, four sources of 15 x 15 to 2 x 2 places, four or six boxes at each.
OUT gets train/ and test/ (LMDBs of pictures with boxes), train.prototxt, test.prototxt,
deploy.prototxt, solver.prototxt, snapshots and pictures/ with the boxes found.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2

SIZE = 120  # pixels of a side
CLASSES = ("background", "cabinet", "fridge", "column")
CHANNELS = (16, 32, 64, 96, 128, 128, 128)
# Of each source: the sides of its boxes in pixels, and whether they are 3:1, too.
SIDES = ((14, 30, False), (30, 54, True), (54, 84, True), (84, 114, False))
MEAN = (110, 115, 120)


def block(n: caffe.NetSpec, name: str, bottom, channels: int, stride: int = 1):
    """A 3 x 3 convolution with BatchNorm, Scale and ReLU."""
    conv = L.Convolution(
        bottom,
        num_output=channels,
        kernel_size=3,
        pad=1,
        stride=stride,
        bias_term=False,
        weight_filler={"type": "msra"},
    )
    n[name] = conv
    n[f"{name}/bn"] = L.BatchNorm(conv, in_place=True)
    n[f"{name}/scale"] = L.Scale(n[f"{name}/bn"], bias_term=True, in_place=True)
    n[f"{name}/relu"] = L.ReLU(n[f"{name}/scale"], in_place=True)
    return n[f"{name}/relu"]


def sources(n: caffe.NetSpec, data) -> list:
    """The four maps that boxes are found in: 15, 8, 4 and 2 places a side."""
    x, found = data, []
    for i, channels in enumerate(CHANNELS):
        x = block(n, f"conv{i + 1}", x, channels, stride=2 if i in (0, 1, 2, 4, 5, 6) else 1)
        if i == 3 or i > 3:
            found.append(x)
    return found


def heads(n: caffe.NetSpec, data) -> tuple:
    """Offsets (N, 4 B), scores (N, C B) and priors (1, 2, 4 B) of all B boxes."""
    offsets, scores, priors = [], [], []
    for i, (source, (least, largest, wide)) in enumerate(zip(sources(n, data), SIDES, strict=True)):
        ratios = [2, 3] if wide else [2]
        count = 2 + 2 * len(ratios)
        for kind, numbers, into in (("loc", 4, offsets), ("conf", len(CLASSES), scores)):
            name = f"source{i + 1}_{kind}"
            n[name] = L.Convolution(
                source,
                num_output=count * numbers,
                kernel_size=3,
                pad=1,
                weight_filler={"type": "xavier"},
            )
            n[f"{name}_perm"] = L.Permute(n[name], order=[0, 2, 3, 1])
            n[f"{name}_flat"] = L.Flatten(n[f"{name}_perm"])
            into.append(n[f"{name}_flat"])
        n[f"source{i + 1}_priors"] = L.PriorBox(
            source,
            data,
            min_size=least,
            max_size=largest,
            aspect_ratio=ratios,
            flip=True,
            variance=[0.1, 0.1, 0.2, 0.2],
        )
        priors.append(n[f"source{i + 1}_priors"])
    n.mbox_loc = L.Concat(*offsets)
    n.mbox_conf = L.Concat(*scores)
    n.mbox_priorbox = L.Concat(*priors, axis=2)
    return n.mbox_loc, n.mbox_conf, n.mbox_priorbox


def detections(n: caffe.NetSpec, offsets, scores, priors):
    """DetectionOutput behind the heads."""
    count = len(CLASSES)
    n.mbox_conf_reshape = L.Reshape(scores, shape={"dim": [0, -1, count]})
    n.mbox_conf_softmax = L.Softmax(n.mbox_conf_reshape, axis=2)
    n.mbox_conf_flatten = L.Flatten(n.mbox_conf_softmax)
    n.detection_out = L.DetectionOutput(
        offsets,
        n.mbox_conf_flatten,
        priors,
        detection_output_param={
            "num_classes": count,
            "nms_param": {"nms_threshold": 0.45, "top_k": 200},
            "code_type": P.PriorBox.CENTER_SIZE,
            "keep_top_k": 100,
            "confidence_threshold": 0.01,
        },
    )
    return n.detection_out


def annotated(source: Path, batch: int, train: bool):
    """The pictures and boxes of an LMDB; in training mirrored, and cut as SSD does."""
    samplers = [{"max_sample": 1, "max_trials": 1}]
    for overlap in (0.3, 0.5, 0.7, 0.9) if train else ():
        samplers.append(
            {
                "sampler": {
                    "min_scale": 0.4,
                    "max_scale": 1,
                    "min_aspect_ratio": 0.6,
                    "max_aspect_ratio": 1.6,
                },
                "sample_constraint": {"min_jaccard_overlap": overlap},
                "max_sample": 1,
                "max_trials": 20,
            }
        )
    transform = {
        "mean_value": list(MEAN),
        "scale": 1 / 64,
        "mirror": train,
        "resize_param": {"prob": 1, "resize_mode": P.Resize.WARP, "height": SIZE, "width": SIZE},
        "emit_constraint": {"emit_type": caffe_pb2.EmitConstraint.CENTER},
    }
    if not train:
        del transform["emit_constraint"]
    return L.AnnotatedData(
        ntop=2,
        data_param={"source": str(source), "batch_size": batch, "backend": P.Data.LMDB},
        transform_param=transform,
        annotated_data_param={
            "batch_sampler": samplers if train else [],
            "label_map_file": str(source / "labelmap.prototxt"),
        },
    )


def train_net(data: Path, batch: int) -> caffe_pb2.NetParameter:
    """The net that learns: heads and MultiBoxLoss."""
    n = caffe.NetSpec()
    n.data, n.label = annotated(data, batch, train=True)
    n.mbox_loss = L.MultiBoxLoss(
        *heads(n, n.data),
        n.label,
        loc_loss_type=P.MultiBoxLoss.SMOOTH_L1,
        conf_loss_type=P.MultiBoxLoss.SOFTMAX,
        num_classes=len(CLASSES),
        match_type=P.MultiBoxLoss.PER_PREDICTION,
        overlap_threshold=0.5,
        use_prior_for_matching=True,
        use_difficult_gt=True,
        neg_pos_ratio=3,
        neg_overlap=0.5,
        code_type=P.PriorBox.CENTER_SIZE,
        mining_type=P.MultiBoxLoss.MAX_NEGATIVE,
        loss_param={"normalization": P.Loss.VALID},
        propagate_down=[True, True, False, False],
    )
    return n.to_proto()


def test_net(data: Path, batch: int) -> caffe_pb2.NetParameter:
    """The net whose detections are scored: DetectionEvaluate behind DetectionOutput."""
    n = caffe.NetSpec()
    n.data, n.label = annotated(data, batch, train=False)
    found = detections(n, *heads(n, n.data))
    n.detection_eval = L.DetectionEvaluate(
        found,
        n.label,
        num_classes=len(CLASSES),
        background_label_id=0,
        overlap_threshold=0.5,
        evaluate_difficult_gt=False,
    )
    return n.to_proto()


def deploy_net() -> caffe_pb2.NetParameter:
    """The net for use: data (1, 3, SIZE, SIZE) -> detection_out (1, 1, n, 7)."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, SIZE, SIZE]})
    detections(n, *heads(n, n.data))
    return n.to_proto()


def solver(out: Path, iterations: int, pictures: int, batch: int) -> str:
    """The solver's text: Adam, with mAP by 11 points each quarter of the training."""
    return f"""\
train_net: "{out}/train.prototxt"
test_net: "{out}/test.prototxt"
test_iter: {pictures // batch}
test_interval: {max(1, iterations // 4)}
test_initialization: false
eval_type: "detection"
ap_version: "11point"
show_per_class_result: true
type: "Adam"
base_lr: 0.002
lr_policy: "multistep"
gamma: 0.2
stepvalue: {iterations * 2 // 3}
stepvalue: {iterations * 9 // 10}
momentum: 0.9
momentum2: 0.999
weight_decay: 0.0005
max_iter: {iterations}
display: {max(1, iterations // 20)}
snapshot_prefix: "{out}/ssd"
random_seed: 1
"""


def write_nets(out: Path, iterations: int, batch: int, pictures: int) -> None:
    """Writes the four texts."""
    out.mkdir(parents=True, exist_ok=True)
    for name, net in (
        ("train", train_net(out / "train", batch)),
        ("test", test_net(out / "test", batch)),
        ("deploy", deploy_net()),
    ):
        (out / f"{name}.prototxt").write_text(str(net))
    (out / "solver.prototxt").write_text(solver(out, iterations, pictures, batch))


def make_data(out: Path, train: int, test: int) -> None:
    """Renders the scenes; the test's have another seed."""
    for name, count, seed in (("train", train, 0), ("test", test, 10_000)):
        if not (out / name / "data.mdb").exists():
            words = [
                "--count",
                str(count),
                "--seed",
                str(seed),
                "--size",
                f"{SIZE}x{SIZE * 3 // 4}",
            ]
            command = [sys.executable, "-m", "data_tools.synth", str(out / f"{name}_scenes")]
            subprocess.run([*command, "--force", "--boxes", str(out / name), *words], check=True)


def draw(out: Path, weights: Path, count: int) -> None:
    """Writes pictures of the first test scenes with the boxes whose score is above a half."""
    from boundary.lmdb_file import LmdbFile

    net = caffe.Net(str(out / "deploy.prototxt"), str(weights), caffe.TEST)
    (out / "pictures").mkdir(exist_ok=True)
    for number, (_, value) in zip(range(count), LmdbFile(out / "test", RuntimeError).every(0, 1)):
        datum = caffe_pb2.AnnotatedDatum.FromString(value).datum
        picture = cv2.imdecode(np.frombuffer(datum.data, np.uint8), cv2.IMREAD_COLOR)
        small = cv2.resize(picture, (SIZE, SIZE)).astype(np.float32)
        net.blobs["data"].data[0] = ((small - MEAN) / 64).transpose(2, 0, 1)
        large = cv2.resize(picture, None, fx=4, fy=4)
        height, width = large.shape[:2]
        for _, label, score, *sides in net.forward()["detection_out"][0, 0]:
            if score > 0.5:
                left, top, right, bottom = (
                    np.array(sides) * (width, height, width, height)
                ).astype(int)
                cv2.rectangle(large, (left, top), (right, bottom), (0, 255, 0), 2)
                text = f"{CLASSES[int(label)]} {score:.2f}"
                cv2.putText(large, text, (left, top + 14), 0, 0.5, (0, 0, 255), 1)
        cv2.imwrite(str(out / "pictures" / f"{number:03d}.png"), large)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--nets", action="store_true", help="write the nets and the solver only")
    parser.add_argument("--iterations", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--scenes", type=int, default=2000, help="for training")
    parser.add_argument("--test-scenes", type=int, default=320)
    args = parser.parse_args()
    out = args.out.resolve()
    write_nets(out, args.iterations, args.batch, args.test_scenes)
    if args.nets:
        return
    make_data(out, args.scenes, args.test_scenes)
    command = [sys.executable, "-m", "caffe", "train", "-solver", str(out / "solver.prototxt")]
    subprocess.run(command, check=True, env=dict(os.environ))
    draw(out, out / f"ssd_iter_{args.iterations}.caffemodel", 8)


if __name__ == "__main__":
    main()

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
from pathlib import Path

import detectors
from detectors import CLASSES, block, evaluated

import caffe
from caffe import layers as L
from caffe import params as P
from caffe.proto import caffe_pb2

SIZE = 120  # pixels of a side
CHANNELS = (16, 32, 64, 96, 128, 128, 128)
# Of each source: the sides of its boxes in pixels, and whether they are 3:1, too.
SIDES = ((14, 30, False), (30, 54, True), (54, 84, True), (84, 114, False))


def sources(n: caffe.NetSpec, data) -> list:
    """The four maps that boxes are found in: 15, 8, 4 and 2 places a side."""
    x, found = data, []
    for i, channels in enumerate(CHANNELS):
        x = block(n, f"conv{i + 1}", x, channels, stride=2 if i in (0, 1, 2, 4, 5, 6) else 1)
        if i >= 3:
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


def samplers() -> list[dict]:
    """How the training's pictures are cut: as they are, and around boxes by their overlap."""
    found = [{"max_sample": 1, "max_trials": 1}]
    shapes = {"min_scale": 0.4, "max_scale": 1, "min_aspect_ratio": 0.6, "max_aspect_ratio": 1.6}
    for overlap in (0.3, 0.5, 0.7, 0.9):
        found.append(
            {
                "sampler": shapes,
                "sample_constraint": {"min_jaccard_overlap": overlap},
                "max_sample": 1,
                "max_trials": 20,
            }
        )
    return found


def train_net(data: Path, batch: int) -> caffe_pb2.NetParameter:
    """The net that learns: heads and MultiBoxLoss."""
    n = caffe.NetSpec()
    n.data, n.label = detectors.annotated(
        data, batch, (SIZE, SIZE), mirror=True, batch_sampler=samplers()
    )
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
    n.data, n.label = detectors.annotated(data, batch, (SIZE, SIZE), mirror=False)
    evaluated(n, detections(n, *heads(n, n.data)), n.label)
    return n.to_proto()


def deploy_net() -> caffe_pb2.NetParameter:
    """The net for use: data (1, 3, SIZE, SIZE) -> detection_out (1, 1, n, 7)."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, SIZE, SIZE]})
    detections(n, *heads(n, n.data))
    return n.to_proto()


def write_texts(out: Path, iterations: int, batch: int, pictures: int) -> None:
    """Writes the three nets and the solver; `pictures` are tested four times."""
    nets = {
        "train": train_net(out / "train", batch),
        "test": test_net(out / "test", batch),
        "deploy": deploy_net(),
    }
    text = detectors.solver(out, "ssd", iterations, (pictures // batch, 4), "base_lr: 0.002\n")
    detectors.write_texts(out, nets, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--nets", action="store_true", help="write the nets and the solver only")
    parser.add_argument("--iterations", type=int, default=900)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--scenes", type=int, default=1500, help="for training")
    parser.add_argument("--test-scenes", type=int, default=320)
    args = parser.parse_args()
    out = args.out.resolve()
    write_texts(out, args.iterations, args.batch, args.test_scenes)
    if args.nets:
        return
    detectors.make_data(out, args.scenes, args.test_scenes, (SIZE, SIZE * 3 // 4))
    detectors.train(out)
    detectors.draw(out, out / f"ssd_iter_{args.iterations}.caffemodel", 8)


if __name__ == "__main__":
    main()

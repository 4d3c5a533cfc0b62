"""Trains a small Faster R-CNN on rendered scenes and tests it on others.

    python examples/faster_rcnn.py OUT         # data, nets, training, mAP and pictures
    python examples/faster_rcnn.py OUT --nets  # the nets and the solver alone

The net is that of Ren et al. (2015) on a backbone that is small enough for two processor cores: a
region proposal network, ROIPooling, and a head that classifies and refines each region. The layers
that give anchors and regions their targets are written in Python, as py-faster-rcnn's are: the nets
name the classes of faster_rcnn_layers.py in python_param.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import detectors
from detectors import CLASSES, block, evaluated
from regions import ANCHORS, BASE, HEIGHT, RATIOS, SCALES, STRIDE, WIDTH

import caffe
from caffe import layers as L
from caffe.proto import caffe_pb2

POOLED = 5  # cells of a side that a region becomes


def python(layer: str, *bottoms, ntop: int, **settings):
    """A layer of faster_rcnn_layers.py: only nets that are run load it, and torch with it."""
    where = {"module": "faster_rcnn_layers", "layer": layer, "param_str": json.dumps(settings)}
    return L.Python(*bottoms, ntop=ntop, python_param=where)


def backbone(n: caffe.NetSpec, x):
    """Features at a stride of 8: convolutions with BatchNorm."""
    for i, (channels, stride) in enumerate(((16, 2), (32, 2), (64, 1), (64, 2), (96, 1), (96, 1))):
        x = block(n, f"conv{i + 1}", x, channels, stride)
    return x


def gaussian(std: float) -> dict:
    return {"type": "gaussian", "std": std}


def proposals(n: caffe.NetSpec, features):
    """The region proposal network: scores (1, 2 A, H, W), shifts (1, 4 A, H, W), regions (R, 5)."""
    n.rpn = L.Convolution(
        features, num_output=96, kernel_size=3, pad=1, weight_filler={"type": "msra"}
    )
    n.rpn_relu = L.ReLU(n.rpn, in_place=True)
    n.rpn_score = L.Convolution(
        n.rpn_relu, num_output=2 * ANCHORS, kernel_size=1, weight_filler=gaussian(0.01)
    )
    n.rpn_shift = L.Convolution(
        n.rpn_relu, num_output=4 * ANCHORS, kernel_size=1, weight_filler=gaussian(0.01)
    )
    n.rpn_pair = L.Reshape(n.rpn_score, shape={"dim": [0, 2, -1, 0]})
    n.rpn_prob = L.Softmax(n.rpn_pair)
    n.rpn_prob_back = L.Reshape(n.rpn_prob, shape={"dim": [0, 2 * ANCHORS, -1, 0]})
    n.im_info = info(n)
    n.proposals = L.Proposal(
        n.rpn_prob_back,
        n.rpn_shift,
        n.im_info,
        feat_stride=STRIDE,
        base_size=BASE,
        ratio=list(RATIOS),
        scale=list(SCALES),
        min_size=6,
        pre_nms_topn=600,
        post_nms_topn=100,
        nms_thresh=0.7,
    )
    return n.rpn_score, n.rpn_shift, n.rpn_pair, n.proposals


def info(n: caffe.NetSpec):
    """The image's height, width and scale, (1, 3)."""
    tops = L.DummyData(
        shape=[{"dim": [1, 1]}] * 3,
        data_filler=[{"value": HEIGHT}, {"value": WIDTH}, {"value": 1}],
        ntop=3,
    )
    n.im_height, n.im_width, n.im_scale = tops
    return L.Concat(*tops, axis=1)


def head(n: caffe.NetSpec, features, regions):
    """Scores (R, C) and shifts (R, 4 C) of regions."""
    n.pooled = L.ROIPooling(
        features, regions, pooled_h=POOLED, pooled_w=POOLED, spatial_scale=1 / STRIDE
    )
    n.fc = L.InnerProduct(n.pooled, num_output=128, weight_filler={"type": "msra"})
    n.fc_relu = L.ReLU(n.fc, in_place=True)
    n.score = L.InnerProduct(n.fc_relu, num_output=len(CLASSES), weight_filler=gaussian(0.01))
    n.shift = L.InnerProduct(n.fc_relu, num_output=4 * len(CLASSES), weight_filler=gaussian(0.001))
    return n.score, n.shift


def train_net(data: Path) -> caffe_pb2.NetParameter:
    """Both parts learn together, from one picture a pass."""
    n = caffe.NetSpec()
    n.data, n.label = detectors.annotated(data, 1, (WIDTH, HEIGHT), mirror=True)
    features = backbone(n, n.data)
    scores, shift, pair, regions = proposals(n, features)
    targets = python("AnchorTarget", scores, n.label, ntop=4, seed=1)
    n.rpn_label, n.rpn_goal, n.rpn_inside, n.rpn_outside = targets
    n.rpn_score_loss = L.SoftmaxWithLoss(
        pair, n.rpn_label, loss_param={"ignore_label": -1}, propagate_down=[True, False]
    )
    n.rpn_shift_loss = L.SmoothL1Loss(
        shift, n.rpn_goal, n.rpn_inside, n.rpn_outside, sigma=3, loss_weight=1
    )
    sampled = python("ProposalTarget", regions, n.label, ntop=5, seed=2)
    n.rois, n.roi_label, n.roi_goal, n.roi_inside, n.roi_outside = sampled
    score, by = head(n, features, n.rois)
    n.score_loss = L.SoftmaxWithLoss(score, n.roi_label, propagate_down=[True, False])
    n.shift_loss = L.SmoothL1Loss(
        by, n.roi_goal, n.roi_inside, n.roi_outside, sigma=1, loss_weight=1
    )
    return n.to_proto()


def found(n: caffe.NetSpec, data):
    """The boxes found in a picture."""
    features = backbone(n, data)
    regions = proposals(n, features)[-1]
    score, by = head(n, features, regions)
    n.prob = L.Softmax(score)
    n.detection_out = python("Detections", regions, n.prob, by, ntop=1)
    return n.detection_out


def test_net(data: Path) -> caffe_pb2.NetParameter:
    """The net whose detections SSD's DetectionEvaluate scores."""
    n = caffe.NetSpec()
    n.data, n.label = detectors.annotated(data, 1, (WIDTH, HEIGHT), mirror=False)
    evaluated(n, found(n, n.data), n.label)
    return n.to_proto()


def deploy_net() -> caffe_pb2.NetParameter:
    """The net for use: data (1, 3, HEIGHT, WIDTH) -> detection_out (1, 1, n, 7)."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, HEIGHT, WIDTH]})
    found(n, n.data)
    return n.to_proto()


def write_texts(out: Path, iterations: int, pictures: int) -> None:
    """Writes the three nets and the solver, whose steps take four pictures."""
    nets = {
        "train": train_net(out / "train"),
        "test": test_net(out / "test"),
        "deploy": deploy_net(),
    }
    more = "base_lr: 0.001\niter_size: 4\n"
    text = detectors.solver(out, "faster_rcnn", iterations, (pictures, 3), more)
    detectors.write_texts(out, nets, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--nets", action="store_true", help="write the nets and the solver only")
    parser.add_argument("--iterations", type=int, default=500)
    parser.add_argument("--scenes", type=int, default=2000, help="for training")
    parser.add_argument("--test-scenes", type=int, default=200)
    args = parser.parse_args()
    out = args.out.resolve()
    write_texts(out, args.iterations, args.test_scenes)
    if args.nets:
        return
    detectors.make_data(out, args.scenes, args.test_scenes, (WIDTH, HEIGHT))
    detectors.train(out)
    detectors.draw(out, out / f"faster_rcnn_iter_{args.iterations}.caffemodel", 8)


if __name__ == "__main__":
    main()

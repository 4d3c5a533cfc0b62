"""Trains a small Faster R-CNN on rendered scenes and tests it on others.

    python examples/faster_rcnn.py OUT         # data, nets, training, mAP and pictures
    python examples/faster_rcnn.py OUT --nets  # the nets and the solver alone

The net is that of Ren et al. (2015) on a backbone that is small enough for two processor cores: a
region proposal network, ROIPooling, and a head that classifies and refines each region. The layers
that give anchors and regions their targets are written in Python, as py-faster-rcnn's are: the
classes AnchorTarget, ProposalTarget and Detections below, which the nets name in python_param.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import detectors
import numpy as np
from detectors import CLASSES, block, evaluated

import caffe
from caffe import layers as L
from caffe.proto import caffe_pb2

HEIGHT, WIDTH = 120, 160
STRIDE = 8
BASE, RATIOS, SCALES = 16, (0.5, 1, 2), (1, 2, 4, 6)
ANCHORS = len(RATIOS) * len(SCALES)
SPREAD = np.array([0.1, 0.1, 0.2, 0.2], np.float32)  # of the targets of the head
SAMPLES, FOREGROUND = 64, 0.25  # regions that the head learns from, and the share of objects
POOLED = 5


# -- boxes ------------------------------------------------------------------------------------


def anchors() -> np.ndarray:
    """The A boxes around one place, (A, 4): left, top, right, bottom, as Proposal's."""
    found = []
    for ratio in RATIOS:
        width = round(np.sqrt(BASE * BASE / ratio))
        height = round(width * ratio)
        for scale in SCALES:
            half = np.array([width * scale - 1, height * scale - 1]) / 2
            middle = (BASE - 1) / 2
            found.append([*(middle - half), *(middle + half)])
    return np.array(found, np.float32)


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of each box (N, 4) with each other (M, 4), (N, M)."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:4], others[None, :, 2:4])
    both = np.clip(high - low + 1, 0, None).prod(2)
    areas = [(b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1) for b in (boxes, others)]
    return both / (areas[0][:, None] + areas[1][None] - both)


def middles(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The middles (N, 2) and sizes (N, 2) of boxes."""
    size = boxes[:, 2:4] - boxes[:, :2] + 1
    return boxes[:, :2] + size / 2, size


def shifts(boxes: np.ndarray, goals: np.ndarray) -> np.ndarray:
    """What moves each box to its goal, (N, 4): of the middle, in sizes; logarithms of the sizes."""
    (middle, size), (goal, wanted) = middles(boxes), middles(goals)
    return np.hstack([(goal - middle) / size, np.log(wanted / size)]).astype(np.float32)


def shifted(boxes: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The boxes moved by shifts."""
    middle, size = middles(boxes)
    middle, size = middle + by[:, :2] * size, size * np.exp(np.clip(by[:, 2:], -4, 4))
    return np.hstack([middle - size / 2, middle + size / 2 - 1])


def objects(label: np.ndarray) -> np.ndarray:
    """AnnotatedData's rows of one picture as (n, 5): sides in pixels, and the label."""
    rows = label.reshape(-1, 8)
    rows = rows[rows[:, 0] >= 0]
    return np.hstack([rows[:, 3:7] * (WIDTH, HEIGHT, WIDTH, HEIGHT), rows[:, 1:2]])


# -- layers -----------------------------------------------------------------------------------


class AnchorTarget(caffe.Layer):
    """What the region proposal network is to say of each anchor.

    Bottoms: its scores (1, 2 A, H, W), for their size; AnnotatedData's boxes. Tops: labels (1, 1,
    A H, W): 1 an object, 0 none, -1 not counted; shifts (1, 4 A, H, W), and their two weights.
    """

    def setup(self, bottom, top):
        self.random = np.random.default_rng(json.loads(self.param_str or "{}").get("seed", 0))

    def reshape(self, bottom, top):
        height, width = bottom[0].data.shape[2:]
        top[0].reshape(1, 1, ANCHORS * height, width)
        for blob in top[1:]:
            blob.reshape(1, 4 * ANCHORS, height, width)

    def forward(self, bottom, top):
        height, width = bottom[0].data.shape[2:]
        x, y = np.meshgrid(np.arange(width) * STRIDE, np.arange(height) * STRIDE)
        places = np.stack([x, y, x, y], -1).reshape(-1, 1, 4)
        boxes = (places + anchors()).reshape(-1, 4)
        inside = (
            (boxes[:, :2] >= -8).all(1) & (boxes[:, 2] < WIDTH + 8) & (boxes[:, 3] < HEIGHT + 8)
        )
        labels = np.full(len(boxes), -1, np.float32)
        goals = np.zeros((len(boxes), 4), np.float32)
        found = objects(bottom[1].data)
        if len(found):
            share = np.where(inside[:, None], overlaps(boxes, found), -1)
            best = share.max(1)
            labels[inside & (best < 0.3)] = 0
            labels[(share == share.max(0)).any(1) & (best > 0)] = 1
            labels[best >= 0.6] = 1
            goals = shifts(boxes, found[share.argmax(1)])
        else:
            labels[inside] = 0
        self._keep(labels, 1, 64)
        self._keep(labels, 0, 128 - int((labels == 1).sum()))
        counted = max(1, int((labels >= 0).sum()))
        weights = (labels == 1)[:, None] * np.ones(4, np.float32)

        def arranged(values: np.ndarray) -> np.ndarray:
            return values.reshape(height, width, -1).transpose(2, 0, 1)[None]

        top[0].data[...] = arranged(labels[:, None]).reshape(top[0].data.shape)
        for blob, values in zip(top[1:], (goals, weights, weights / counted), strict=True):
            blob.data[...] = arranged(values)

    def _keep(self, labels: np.ndarray, kind: int, most: int) -> None:
        """Let at most so many of one kind count."""
        places = np.flatnonzero(labels == kind)
        if len(places) > most:
            labels[self.random.choice(places, len(places) - most, replace=False)] = -1

    def backward(self, top, propagate_down, bottom):
        pass


class ProposalTarget(caffe.Layer):
    """The regions that the head learns from, and what it is to say of them.

    Bottoms: proposals (R, 5); AnnotatedData's boxes. Tops: regions (n, 5); labels (n); shifts
    (n, 4 C), and their two weights.
    """

    def setup(self, bottom, top):
        self.random = np.random.default_rng(json.loads(self.param_str or "{}").get("seed", 0))
        self._shape(top, 1)

    def _shape(self, top, count: int) -> None:
        top[0].reshape(count, 5)
        top[1].reshape(count)
        for blob in top[2:]:
            blob.reshape(count, 4 * len(CLASSES))

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        found = objects(bottom[1].data)
        boxes = np.vstack([bottom[0].data[:, 1:5], found[:, :4]])
        share = overlaps(boxes, found) if len(found) else np.zeros((len(boxes), 1))
        best, which = share.max(1), share.argmax(1)
        good, bad = np.flatnonzero(best >= 0.5), np.flatnonzero(best < 0.5)
        good = self._some(good, int(SAMPLES * FOREGROUND))
        bad = self._some(bad, SAMPLES - len(good))
        chosen = np.concatenate([good, bad]).astype(int)
        count = max(1, len(chosen))
        self._shape(top, count)
        for blob in top:
            blob.data[...] = 0
        top[0].data[: len(chosen), 1:] = boxes[chosen]
        for i, place in enumerate(good):
            label = int(found[which[place], 4])
            goal = shifts(boxes[place : place + 1], found[which[place] : which[place] + 1])
            top[1].data[i] = label
            top[2].data[i, 4 * label : 4 * label + 4] = goal[0] / SPREAD
            for blob in top[3:]:
                blob.data[i, 4 * label : 4 * label + 4] = 1

    def _some(self, places: np.ndarray, most: int) -> np.ndarray:
        return self.random.choice(places, most, replace=False) if len(places) > most else places

    def backward(self, top, propagate_down, bottom):
        pass


class Detections(caffe.Layer):
    """Boxes, as SSD's DetectionOutput gives them, (1, 1, n, 7): image, label, score, four sides.

    Bottoms: regions (R, 5), probabilities (R, C), shifts (R, 4 C).
    """

    def setup(self, bottom, top):
        top[0].reshape(1, 1, 1, 7)

    def reshape(self, bottom, top):
        pass

    def forward(self, bottom, top):
        regions, probabilities, by = (blob.data for blob in bottom)
        rows = []
        for label in range(1, len(CLASSES)):
            boxes = shifted(regions[:, 1:5], by[:, 4 * label : 4 * label + 4] * SPREAD)
            boxes = np.clip(boxes, 0, (WIDTH - 1, HEIGHT - 1, WIDTH - 1, HEIGHT - 1))
            scores = probabilities[:, label]
            order = np.argsort(-scores)
            order = order[scores[order] > 0.02]
            while len(order):
                first, order = order[0], order[1:]
                sides = boxes[first] / (WIDTH, HEIGHT, WIDTH, HEIGHT)
                rows.append([0, label, scores[first], *sides])
                order = order[overlaps(boxes[first : first + 1], boxes[order])[0] < 0.4]
        rows = rows or [[0, -1, -1, -1, -1, -1, -1]]
        top[0].reshape(1, 1, len(rows), 7)
        top[0].data[...] = np.array(rows, np.float32)

    def backward(self, top, propagate_down, bottom):
        pass


# -- nets -------------------------------------------------------------------------------------


def python(layer: str, *bottoms, ntop: int, **settings):
    """A layer of this module."""
    where = {"module": Path(__file__).stem, "layer": layer, "param_str": json.dumps(settings)}
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

"""Layers in Python of examples/faster_rcnn.py: targets of anchors and regions, and detections."""

from __future__ import annotations

import json

import numpy as np
from detectors import CLASSES
from regions import ANCHORS, HEIGHT, STRIDE, WIDTH, anchors, objects, overlaps, shifted, shifts

import caffe

SPREAD = np.array([0.1, 0.1, 0.2, 0.2], np.float32)  # of the targets of the head
SAMPLES, FOREGROUND = 64, 0.25  # regions that the head learns from, and the share of objects


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

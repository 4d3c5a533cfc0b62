"""Boxes from DetectNet's grids: the Python layers ClusterDetections and ClusterGroundtruth.

A net names them in python_param: module "caffe.layers.detectnet.clustering" (NVCaffe; Tao et al.,
2016). Both take the coverage (N, classes, rows, columns) and boxes (N, 4, rows, columns), which are
left, top, right and bottom in pixels from their cell's corner. They make a top (N, 50, 5) for each
class: left, top, right, bottom and confidence of each box, and zeros behind.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from caffe.blob import Blob
from caffe.layers.python_layer import Layer

MAX_BOXES = 50


class _Cluster(Layer):
    """What both layers share: the parameters and the grid.

    param_str: "width,height,stride", further numbers of the class, and perhaps the number of
    classes, default 1. Raises ValueError if they do not fit, or the tops' number differs from it.
    """

    numbers: tuple[type, ...] = ()

    def setup(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        kinds = (int, int, int, *self.numbers)
        words = self.param_str.split(",")
        if not len(kinds) <= len(words) <= len(kinds) + 1:
            raise ValueError(
                f"param_str is {self.param_str!r}, expected {len(kinds)} numbers and perhaps the "
                "number of classes"
            )
        given = [kind(word) for kind, word in zip(kinds, words, strict=False)]
        (self.width, self.height, self.stride), self.rest = given[:3], given[3:]
        self.classes = int(words[len(kinds)]) if len(words) > len(kinds) else 1
        if min(self.width, self.height) < self.stride or self.stride < 1:
            raise ValueError(
                f"param_str is {self.param_str!r}, expected an image of one cell or more"
            )
        if len(top) != self.classes:
            raise ValueError(
                f"has {len(top)} top(s), expected one for each of {self.classes} classes"
            )

    def reshape(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        samples, classes = bottom[0].data.shape[:2]
        if classes != self.classes:
            raise ValueError(
                f"bottom 0 has the shape {bottom[0].data.shape}, expected {self.classes} classes"
            )
        for blob in top:
            blob.reshape(samples, MAX_BOXES, 5)

    def forward(self, bottom: Sequence[Blob], top: Sequence[Blob]) -> None:
        for label, blob in enumerate(top):
            blob.data[...] = 0
            for n, coverage in enumerate(bottom[0].data[:, label]):
                boxes = self.found(*self._covered(coverage, bottom[1].data[n]))
                # NVCaffe keeps half precision.
                kept = np.asarray(boxes[:MAX_BOXES], np.float16).reshape(-1, 5)
                blob.data[n, : len(kept)] = kept

    def backward(
        self, top: Sequence[Blob], propagate_down: Sequence[bool], bottom: Sequence[Blob]
    ) -> None:
        """There is no gradient."""

    def _covered(self, coverage: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Coverage and boxes (K, 4) in pixels of the cells within the image."""
        rows, columns = self.height // self.stride, self.width // self.stride
        coverage, boxes = coverage[:rows, :columns], boxes[:, :rows, :columns]
        y, x = np.mgrid[: coverage.shape[0], : coverage.shape[1]]
        corner = np.stack([x * (self.width / columns), y * (self.height / rows)] * 2)
        return coverage.ravel(), (boxes + corner).reshape(4, -1).T

    def found(self, coverage: np.ndarray, boxes: np.ndarray) -> list[list[float]]:
        """The boxes of a picture, each with its confidence."""
        raise AssertionError("set by the subclass")


class ClusterDetections(_Cluster):
    """Groups the boxes of cells of enough coverage, as OpenCV 4's groupRectangles does.

    param_str: "width,height,stride,coverage,group,eps,least height", perhaps the number of classes.
    Boxes whose edges differ by at most eps times their mean size are one group, also by way of
    others; groups of no more than `group` boxes, and those that lie in a larger one, are left out.
    A group gives its mean box; the confidence is the logarithm of its number of boxes.
    """

    numbers = (float, int, float, int)

    def found(self, coverage: np.ndarray, boxes: np.ndarray) -> list[list[float]]:
        least, threshold, eps, height = self.rest
        chosen = boxes[coverage >= least].astype(np.float64)
        if not chosen.any():
            return []
        chosen[:, 2:] -= chosen[:, :2]
        groups = grouped(chosen.astype(int), threshold, eps)
        return [
            [x, y, x + w, y + h, math.log(count)] for x, y, w, h, count in groups if h >= height
        ]


def grouped(rects: np.ndarray, threshold: int, eps: float) -> list[tuple[int, ...]]:
    """The groups of rectangles (K, 4), left, top, width and height: mean rectangle and number."""
    if threshold <= 0:
        return [(*map(int, rect), 1) for rect in rects]
    marks = _marks(rects, eps)
    counts = np.bincount(marks)
    sums = np.stack([np.bincount(marks, column) for column in rects.T], 1)
    means = np.rint(sums / counts[:, None]).astype(int)
    kept = []
    for i, (mean, count) in enumerate(zip(means, counts, strict=True)):
        others = [j for j in np.flatnonzero(counts > threshold) if j != i]
        if count > threshold and not any(
            _within(mean, means[j], eps) and (counts[j] > max(3, count) or count < 3)
            for j in others
        ):
            kept.append((*map(int, mean), int(count)))
    return kept


def _marks(rects: np.ndarray, eps: float) -> np.ndarray:
    """The number of each rectangle's group, in the order in which they first appear."""
    sizes = np.minimum(rects[:, None, 2:], rects[None, :, 2:]).sum(2)
    low, high = rects[:, :2], rects[:, :2] + rects[:, 2:]
    edges = np.concatenate([low, high], 1)
    near = (np.abs(edges[:, None] - edges[None]) <= eps / 2 * sizes[:, :, None]).all(2)
    marks = np.full(len(rects), -1)
    for i in range(len(rects)):
        if marks[i] < 0:
            mark, border = marks.max() + 1, [i]
            marks[i] = mark
            while border:
                fresh = np.flatnonzero(near[border].any(0) & (marks < 0))
                marks[fresh], border = mark, fresh.tolist()
    return marks


def _within(a: np.ndarray, b: np.ndarray, eps: float) -> bool:
    """Whether rectangle a lies in b, which eps of its size widens."""
    more = np.rint(b[2:] * eps)
    inside = (a[:2] >= b[:2] - more) & (a[:2] + a[2:] <= b[:2] + b[2:] + more)
    return bool(inside.all())


class ClusterGroundtruth(_Cluster):
    """The different boxes of the cells that are covered at all; their confidence is 0.

    param_str: "width,height,stride", perhaps the number of classes.
    """

    def found(self, coverage: np.ndarray, boxes: np.ndarray) -> list[list[float]]:
        return [[*box, 0.0] for box in np.unique(boxes[coverage > 0], axis=0).tolist()]

"""DetectionEvaluate: which found boxes are true, for the mean average precision (SSD)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from caffe.formats.detection import read_sizes
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.detection_files import in_pixels
from caffe.layers.look import OUTPUT

MOST_CLASSES = 10**6  # each has a row in the top


@register("DetectionEvaluate")
class DetectionEvaluate(Layer):
    """Says of each found box whether it is a true or a false positive.

    Bottoms: found boxes (1, 1, D, 7) as DetectionOutput's; ground truth (1, 1, G, 8) as
    MultiBoxLoss's. Top: (1, 1, rows, 5): first a row for each class but the background, -1, label,
    number of true boxes, -1, -1; then a row for each found box, by image and label: image, label,
    confidence, true, false. A box is true if the ground truth of its label that it overlaps most,
    at least by overlap_threshold, was not found before by a more confident one; without
    evaluate_difficult_gt boxes at difficult ground truth are neither true nor false.

    name_size_file: boxes are compared in pixels of the pictures, which stand there in the order of
    the records (detection_evaluate_layer.cpp).
    """

    bottoms = (2, 2)
    measures = True
    labels = (0, 1)
    in_place = False
    varying = 2
    look = OUTPUT
    fork = "SSD, NVCaffe, MobileNet-YOLO"
    judge = "recorded"
    reads = ("detection_evaluate_param",)
    takes = tuple(
        f"detection_evaluate_param.{f}"
        for f in (
            *("num_classes", "background_label_id", "overlap_threshold", "evaluate_difficult_gt"),
            *("name_size_file", "resize_param"),
        )
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.p = self.layer_param.detection_evaluate_param
        self.check(
            1 <= p.num_classes <= MOST_CLASSES,
            f"num_classes is {p.num_classes}, expected 1 to {MOST_CLASSES}",
        )
        self.check(
            p.overlap_threshold > 0, f"overlap_threshold is {p.overlap_threshold:g}, expected > 0"
        )
        self.counted = [c for c in range(p.num_classes) if c != p.background_label_id]
        self.sizes: list[tuple[str, int, int]] = []
        if p.HasField("name_size_file"):
            with self.named():
                self.sizes = read_sizes(p.name_size_file)
        self._image = 0  # the number of the next image among the sizes

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        for i, (shape, fields) in enumerate(zip(shapes, (7, 8), strict=True)):
            self.check(
                len(shape) == 4 and tuple(shape[:2]) == (1, 1) and shape[3] == fields,
                f"bottom {i} has the shape {tuple(shape)}, expected 1, 1, boxes, {fields}",
            )
        return [(1, 1, len(self.counted) + shapes[0][2], 5)]

    def reset(self) -> None:
        self._image = 0

    def position(self) -> dict[str, Any] | None:
        return {"image": self._image} if self.sizes else None

    def go_on(self, position: dict[str, Any]) -> None:
        image = position.get("image")
        self.check(
            type(image) is int and 0 <= image < len(self.sizes),
            f"the position {position} is none in a list of {len(self.sizes)} pictures",
        )
        self._image = image

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (shape,) = self.top_shapes(bottom)
        if bottom[0].is_meta:
            return bottom[0].new_empty(shape)
        found, truth = (x.detach().float().cpu().numpy()[0, 0] for x in bottom)
        found, truth = found[found[:, 0] != -1], self._until_end(truth)
        found, truth = _whole(found), _whole(truth)
        background = self.p.background_label_id
        for rows, what in ((found, "found boxes"), (truth, "ground truth")):
            self.check(
                not (rows[:, 1] == background).any(),
                f"label {background} of the {what} is out of range: it is the background's",
            )
        rows = [self._totals(truth)]
        for image in np.unique(found[:, 0]):
            rows += self._of_image(found[found[:, 0] == image], truth[truth[:, 0] == image])
            if self.sizes:
                self._image = (self._image + 1) % len(self.sizes)
        return torch.from_numpy(np.concatenate(rows)).to(bottom[0].device)[None, None]

    @staticmethod
    def _until_end(truth: np.ndarray) -> np.ndarray:
        """The rows before the first of image -1."""
        ends = np.flatnonzero(truth[:, 0] == -1)
        return truth[: ends[0]] if len(ends) else truth

    def _totals(self, truth: np.ndarray) -> np.ndarray:
        """The rows of the classes."""
        counts = truth if self.p.evaluate_difficult_gt else truth[truth[:, 7] == 0]
        rows = np.full((len(self.counted), 5), -1, np.float32)
        rows[:, 1] = self.counted
        rows[:, 2] = [(counts[:, 1] == label).sum() for label in self.counted]
        return rows

    def _of_image(self, found: np.ndarray, truth: np.ndarray) -> list[np.ndarray]:
        """The rows of one image, an array for each label."""
        rows = []
        for label in np.unique(found[:, 1]):
            if label == -1:  # stands for an image without boxes
                continue
            of_label, true = found[found[:, 1] == label], truth[truth[:, 1] == label]
            made = np.zeros((len(of_label), 5), np.float32)
            if len(true):
                of_label = of_label[np.argsort(-of_label[:, 2], kind="stable")]
                made[:, 3:] = self._judged(of_label[:, 3:7], true)
            else:
                made[:, 4] = 1
            made[:, :3] = of_label[:, :3]
            rows.append(made)
        return rows

    def _judged(self, boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """(true, false) of each box of one image and label, the most confident first."""
        true = truth[:, 3:7]
        if self.sizes:
            _, height, width = self.sizes[self._image]
            resize = self.p.resize_param if self.p.HasField("resize_param") else None
            boxes, true = (in_pixels(x, height, width, resize) for x in (boxes, true))
        ratio = _overlaps(boxes, true, 1 if self.sizes else 0)
        best = ratio.argmax(1)
        judged = np.zeros((len(boxes), 2), np.float32)
        seen: set[int] = set()
        for k, j in enumerate(best):
            if ratio[k, j] < self.p.overlap_threshold:
                judged[k, 1] = 1
            elif self.p.evaluate_difficult_gt or truth[j, 7] == 0:
                judged[k, int(j in seen)] = 1
                seen.add(int(j))
        return judged


def _whole(rows: np.ndarray) -> np.ndarray:
    """The rows with image and label as whole numbers."""
    rows = rows.copy()
    rows[:, :2] = np.trunc(rows[:, :2])
    return rows


def _overlaps(a: np.ndarray, b: np.ndarray, plus: int) -> np.ndarray:
    """Intersection over union, (A, B). SSD's function takes boxes in pixels (plus 1) that lie apart
    for such as share one pixel, which counts where boxes have a few pixels only.
    """
    start = np.maximum(a[:, None, :2], b[None, :, :2])
    end = np.minimum(a[:, None, 2:], b[None, :, 2:])
    apart = (end < start).any(2)
    sides = np.where(apart[..., None], 0, end - start) + np.float32(plus)
    shared = sides[..., 0] * sides[..., 1]
    areas = [_areas(x, plus) for x in (a, b)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _areas(boxes: np.ndarray, plus: int) -> np.ndarray:
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.where((sides >= 0).all(1), (sides + np.float32(plus)).prod(1), 0)

"""DetectNetTransformation: pictures and boxes as DetectNet trains on them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from boundary.late import cv2
from caffe.formats.files import read_blob
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.look import Look
from caffe.proto import caffe_pb2 as pb

LABEL = 16  # numbers of a box in the labels: left, top, width, height, angle, class, ...
EPSILON = float(np.finfo(np.float32).eps)


@dataclass
class _Changes:
    """How a picture is changed. size: what it is scaled to, width and height. angle: in degrees.
    corner: of the part that is kept, x and y.
    """

    size: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    hue: float = 0.0
    saturation: float = 1.0
    flip: bool = False
    angle: float = 0.0


@register("DetectNetTransformation")
class DetectNetTransformation(Layer):
    """Scales pictures to a size and subtracts a mean; makes a grid of the boxes. In TRAIN both are
    changed at random: hue, saturation, mirroring, scale, rotation and place.

    Bottoms: pictures (N, 3, H, W), 0..255, blue first; labels (N, 1, M, 16), whose first row is the
    number of boxes and 16, then a row for each box: left, top, width, height, angle, class, three
    more, share that is cut off, .... Tops: pictures (N, 3, image_size_y, image_size_x); (N, 8 + C,
    rows, columns), with a cell for each `stride` pixels: whether there is an object, left, top,
    right and bottom of its box in pixels from the cell's corner, 1 / width, 1 / height, the share
    of the object's cells that one cell is, and a coverage of each class (NVCaffe's
    detectnet_transform_layer.cpp; Tao et al., 2016).
    """

    fork = "NVCaffe"
    judge = "worked cases"
    bottoms = (2, 2)
    tops = (2, 2)
    labels = (0, 1)
    in_place = False
    reads = ("detectnet_groundtruth_param", "detectnet_augmentation_param", "transform_param")
    takes = tuple(
        f"detectnet_augmentation_param.{name}"
        for name in (
            *("crop_prob", "shift_x", "shift_y", "scale_prob", "scale_min", "scale_max"),
            *("flip_prob", "rotation_prob", "max_rotate_degree", "hue_rotation_prob"),
            *("hue_rotation", "desaturation_prob", "desaturation_max"),
        )
    ) + tuple(
        f"detectnet_groundtruth_param.{name}"
        for name in (
            *("stride", "scale_cvg", "gridbox_type", "max_cvg_len", "min_cvg_len"),
            *("coverage_type", "image_size_x", "image_size_y", "obj_norm", "crop_bboxes"),
            "object_class",
        )
    )
    differs = "Of transform_param only mean_file and mean_value count, as in the fork."
    look = Look(open=True)

    def setup(self, shapes: Sequence[Shape]) -> None:
        g, t = self.layer_param.detectnet_groundtruth_param, self.layer_param.transform_param
        self.check(
            0 < g.stride <= min(g.image_size_x, g.image_size_y),
            f"stride is {g.stride}, expected at least 1, and at most image_size_x and image_size_y",
        )
        self.check(
            len(t.mean_value) in (0, 1, 3),
            f"mean_value is given {len(t.mean_value)} time(s), expected none, one or three",
        )
        a = self.layer_param.detectnet_augmentation_param
        self.check(
            math.isfinite(a.scale_min) and math.isfinite(a.scale_max),
            f"scale_min is {a.scale_min:g} and scale_max {a.scale_max:g}, expected numbers",
        )
        self.classes = {c.src: c.dst for c in g.object_class} or {1: 0}
        self.check(max(self.classes.values()) < 4096, "a class (dst) exceeds 4095")
        self.mean: np.ndarray | None = None
        if t.HasField("mean_file"):
            with self.named():
                mean = read_blob(t.mean_file)
            self.check(
                mean.ndim >= 3 and mean.shape[-3] == 3,
                f"the mean in {t.mean_file} has the shape {mean.shape}, expected three channels",
            )
            self.mean = mean.reshape(3, *mean.shape[-2:]).transpose(1, 2, 0).astype(np.float32)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        g = self.layer_param.detectnet_groundtruth_param
        pictures, labels = (tuple(shape) for shape in shapes)
        self.check(
            len(pictures) == 4 and pictures[1] == 3 and min(pictures[2:]) > 0,
            f"pictures (bottom 0) have the shape {pictures}, expected (N, 3, H, W)",
        )
        self.check(
            len(labels) == 4
            and labels[:2] == (pictures[0], 1)
            and labels[3] == LABEL
            and labels[2] > 0,
            f"labels (bottom 1) have the shape {labels}, expected ({pictures[0]}, 1, M, {LABEL})",
        )
        grid = (g.image_size_y // g.stride, g.image_size_x // g.stride)
        numbers = 8 + max(self.classes.values()) + 1
        image = (g.image_size_y, g.image_size_x)
        return [(pictures[0], 3, *image), (pictures[0], numbers, *grid)]

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The values of a picture as large as the largest scale makes it."""
        scale = self.layer_param.detectnet_augmentation_param.scale_max
        return int(math.prod(shapes[0][1:]) * max(1.0, scale) ** 2)

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        shapes = self.top_shapes(bottom)
        images, grids = (np.zeros(shape, np.float32) for shape in shapes)
        pictures, labels = (x.detach().float().cpu().numpy() for x in bottom)
        for i, (picture, rows) in enumerate(zip(pictures, labels[:, 0], strict=True)):
            count = rows[0, 0]
            self.check(
                0 <= count < max(1, len(rows)),
                f"number of boxes {count:g} is out of range, expected at most {len(rows) - 1}",
            )
            image = picture.transpose(1, 2, 0)
            changes = self._changes(image.shape[1], image.shape[0])
            images[i] = self._image(image, changes).transpose(2, 0, 1)
            boxes = self._boxes(rows[1 : 1 + int(count)], changes, image.shape[1::-1])
            self._fill(grids[i], boxes)
        return [torch.from_numpy(images).to(bottom[0]), torch.from_numpy(grids).to(bottom[0])]

    def _changes(self, width: int, height: int) -> _Changes:
        """How a picture of this size is changed."""
        g, a = self.layer_param.detectnet_groundtruth_param, None
        if self.phase == pb.TEST:
            return _Changes((g.image_size_x, g.image_size_y))
        a = self.layer_param.detectnet_augmentation_param
        rng = np.random.default_rng(int(torch.randint(2**62, (1,))))
        changes = _Changes((width, height))
        if rng.random() <= a.hue_rotation_prob:
            changes.hue = float(np.clip(rng.uniform(-1, 1) * a.hue_rotation, -180, 180))
        if rng.random() <= a.desaturation_prob:
            changes.saturation = 1 - rng.random() * a.desaturation_max
        changes.flip = rng.random() <= a.flip_prob
        if rng.random() <= a.scale_prob:
            scale = a.scale_min + (a.scale_max - a.scale_min) * rng.random()
            changes.size = (max(1, round(width * scale)), max(1, round(height * scale)))
        if rng.random() <= a.rotation_prob:
            changes.angle = rng.uniform(-1, 1) * a.max_rotate_degree
        size = _turned(changes.size, changes.angle)[1] if _turns(changes) else changes.size
        share, shift = np.array([0.5, 0.5]), np.zeros(2)
        if rng.random() <= a.crop_prob:
            share, shift = rng.random(2), np.array([a.shift_x, a.shift_y])
        free = np.array(size) - (g.image_size_x, g.image_size_y) + shift
        changes.corner = tuple(int(n) for n in np.rint(share * free - shift // 2))
        return changes

    def _image(self, image: np.ndarray, changes: _Changes) -> np.ndarray:
        """The picture (H, W, 3), changed."""
        image = np.ascontiguousarray(image / 255, np.float32)
        if abs(changes.hue) > EPSILON or changes.saturation < 1 - 1 / 255:
            colors = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
            colors[..., 0] += changes.hue
            colors[..., 1] *= changes.saturation
            image = cv2.cvtColor(colors, cv2.COLOR_HSV2BGR)
        image = image - self._mean(image.shape[1::-1])
        if changes.flip:
            image = image[:, ::-1]
        if image.shape[1::-1] != changes.size:
            image = cv2.resize(
                np.ascontiguousarray(image), changes.size, interpolation=cv2.INTER_CUBIC
            )
        if _turns(changes):
            matrix, size = _turned(changes.size, changes.angle)
            image = cv2.warpAffine(np.ascontiguousarray(image), matrix, size)
        return self._cut(image, changes.corner) * 255

    def _mean(self, size: tuple[int, int]) -> np.ndarray | float:
        """What is subtracted from a picture of this size, 0..1."""
        values = self.layer_param.transform_param.mean_value
        if self.mean is None:
            return np.array(values, np.float32) / 255 if values else 0.0
        return cv2.resize(self.mean, size, interpolation=cv2.INTER_CUBIC) / 255

    def _cut(self, image: np.ndarray, corner: tuple[int, int]) -> np.ndarray:
        """The part of the picture from a corner on, with zeros outside."""
        g = self.layer_param.detectnet_groundtruth_param
        out = np.zeros((g.image_size_y, g.image_size_x, 3), np.float32)
        x, y = corner
        part = image[max(0, y) : y + len(out), max(0, x) : x + out.shape[1]]
        if part.size and y + len(out) > 0 and x + out.shape[1] > 0:
            top, left = max(0, -y), max(0, -x)
            out[top : top + part.shape[0], left : left + part.shape[1]] = part
        return out

    def _boxes(
        self, rows: np.ndarray, changes: _Changes, size: tuple[int, int]
    ) -> list[tuple[np.ndarray, int]]:
        """The boxes that count, left, top, width and height in the new picture, and their class."""
        boxes = rows[:, :4].astype(np.float64)
        if changes.flip:
            boxes[:, 0] = size[0] - boxes[:, 0] - boxes[:, 2] - 1
        boxes *= np.tile(np.array(changes.size) / size, 2)
        if _turns(changes):
            matrix, _ = _turned(changes.size, changes.angle)
            center = boxes[:, :2] + boxes[:, 2:] / 2
            boxes[:, :2] = center @ matrix[:, :2].T + matrix[:, 2] - boxes[:, 2:] / 2
        boxes[:, :2] -= changes.corner
        g = self.layer_param.detectnet_groundtruth_param
        if g.crop_bboxes:
            low = np.maximum(boxes[:, :2], 0)
            high = np.minimum(boxes[:, :2] + boxes[:, 2:], (g.image_size_x, g.image_size_y))
            boxes = np.concatenate([low, np.maximum(high - low, 0)], 1)
        labels = rows[:, 5].astype(int)
        return [
            (box, self.classes[label])
            for box, label in zip(boxes, labels, strict=True)
            if label in self.classes and box[2] * box[3] >= EPSILON
        ]

    def _fill(self, grid: np.ndarray, boxes: list[tuple[np.ndarray, int]]) -> None:
        """Write the boxes into a grid (numbers, rows, columns)."""
        g = self.layer_param.detectnet_groundtruth_param
        stride, extent = g.stride, np.array(grid.shape[:0:-1])
        for box, label in boxes:
            size = box[2:] * g.scale_cvg
            if g.gridbox_type == pb.DetectNetGroundTruthParameter.GRIDBOX_MIN:
                size = np.minimum(box[2:], np.maximum(g.min_cvg_len, size))
            else:
                size = np.minimum(g.max_cvg_len, size)
            low = box[:2] + (box[2:] - size) / 2
            share = stride**2 / max(size.prod(), EPSILON)
            first = np.maximum(np.floor(low / stride), 0).astype(int)
            last = np.minimum(np.ceil((low + size) / stride), extent).astype(int)
            for y in range(first[1], last[1]):
                for x in range(first[0], last[0]):
                    corner = np.array([x, y]) * stride
                    common = np.minimum(low + size, corner + stride) - np.maximum(low, corner)
                    if common.min() > 0 and common.prod() / stride**2 > EPSILON:
                        grid[8:, y, x] = 0
                        grid[8 + label, y, x] = 1
                        grid[:8, y, x] = (
                            *(1, *(box[:2] - corner), *(box[:2] + box[2:] - corner)),
                            *(*(1 / box[2:]), max(0.0 if g.obj_norm else 1.0, share)),
                        )


def _turns(changes: _Changes) -> bool:
    return abs(changes.angle) > EPSILON


def _turned(size: tuple[int, int], angle: float) -> tuple[np.ndarray, tuple[int, int]]:
    """The matrix (2, 3) that turns a picture of this size, and the size that holds all of it."""
    center = (size[0] / 2, size[1] / 2)
    before, after = (cv2.boxPoints((center, size, turn)) for turn in (0.0, angle))
    low, high = np.floor(after.min(0)), np.ceil(after.max(0))
    matrix = cv2.getAffineTransform(before[:3], after[:3] - low.astype(np.float32))
    return matrix, tuple(int(n) for n in high - low + 1)

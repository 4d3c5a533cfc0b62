"""YOLO's outputs: boxes from the predictions of a grid's cells."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from caffe.formats.onnx import Graph, Value
from caffe.kernels.center_boxes import edges, suppress
from caffe.layers import yolo_onnx
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.look import OUTPUT

RAW = "; its bottoms are given out in its place with --raw-detections"


def anchors_of(layer: Layer, biases: Sequence[float]) -> torch.Tensor:
    """The anchors (A, 2), width and height, that `biases` lists. Raises CaffeError for an odd
    number.
    """
    layer.check(
        len(biases) % 2 == 0 and len(biases) > 0,
        f"biases are {len(biases)} numbers, expected a width and a height for each anchor",
    )
    return torch.tensor(list(biases)).reshape(-1, 2)


def by_anchor(x: torch.Tensor, anchors: int) -> torch.Tensor:
    """Predictions (N, A L, H, W) as (N, A, L, H W)."""
    n, channels, h, w = x.shape
    return x.reshape(n, anchors, channels // anchors, h * w)


def in_grid(
    center: torch.Tensor, size: torch.Tensor, anchors: torch.Tensor, grid: tuple[int, int]
) -> torch.Tensor:
    """Boxes (N, A, H W, 4), as fractions of the image, that the cells of a grid (H, W) predict.

    center: (N, A, 2, H W), within the cell. size: (N, A, 2, H W), logarithms of multiples of the
    anchors (A, 2), which are fractions of the image.
    """
    h, w = grid
    cells = torch.arange(h * w, device=center.device)
    corner = torch.stack([cells % w, cells // w]).to(center)
    extent = center.new_tensor([w, h])[:, None]
    middle = (corner + center) / extent
    return torch.cat([middle, size.exp() * anchors.to(center)[:, :, None]], 2).mT


class _Detections(Layer):
    """A layer that finds boxes: top (1, 1, K, 7), a row each: picture (always 0), label, score,
    left, top, right, bottom, as fractions of the image.

    Labels count from 1. Without any box there is a row for each picture n: n and -1 six times. The
    number of boxes is known after the forward pass; until then the top has one row.
    """

    fork = "MobileNet-YOLO, Caffe-YOLOv3-Windows"
    judge = "recorded"
    in_place = False
    raw_bottoms = None
    varying = 2
    look = OUTPUT

    def fit(self, shapes: Sequence[Shape], anchors: int, numbers: int) -> list[Shape]:
        """The top's shape. Raises CaffeError unless each bottom has `anchors` times `numbers`
        channels on a grid.
        """
        for i, shape in enumerate(shapes):
            self.check(
                len(shape) == 4 and shape[1] == anchors * numbers,
                f"bottom {i} has the shape {tuple(shape)}, expected (N, {anchors * numbers}, H, "
                f"W), {anchors} boxes of {numbers} numbers a cell",
            )
        return [(1, 1, 1, 7)]

    def rows(
        self, boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, threshold: float
    ) -> torch.Tensor:
        """The rows of the boxes (K, 4) that no better one suppresses, the best first."""
        scores, order = scores.cpu().sort(descending=True, stable=True)
        boxes, labels = boxes.cpu()[order], labels.cpu()[order]
        kept = suppress(boxes, threshold)
        low, high = edges(boxes[kept])
        first = torch.stack([torch.zeros_like(scores[kept]), labels[kept] + 1, scores[kept]], 1)
        return torch.cat([first, low, high], 1)[None, None]

    def top_of(
        self, boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, x: torch.Tensor
    ) -> torch.Tensor:
        """The top, on the device of x."""
        if not len(scores):
            rows = x.new_full((x.shape[0], 7), -1)
            rows[:, 0] = torch.arange(x.shape[0])
            return rows[None, None]
        return self.rows(boxes, scores, labels.to(scores), self.nms_threshold).to(x)

    def onnx_top(
        self,
        graph: Graph,
        found: Sequence[tuple[str, str, str]],
        threshold: float,
        bottoms: Sequence[Value],
    ) -> str:
        """The top in ONNX, from boxes, scores and labels of each bottom, all of its cells'."""
        self.check(
            graph.target.selects,
            f"files for {graph.target.title} cannot hold a number of rows that values tell" + RAW,
        )
        self.check(not graph.dynamic_batch, "has an ONNX form for a fixed batch size only")
        self.check(
            self.nms_threshold < 1, "has no ONNX form with an nms_threshold of 1 or more" + RAW
        )
        limits = threshold, self.nms_threshold
        return yolo_onnx.top(graph, found, limits, bottoms[0].shape[0])


@register("YoloDetectionOutput")
class YoloDetectionOutput(_Detections):
    """YOLOv2's boxes: of each cell and anchor the best class, if its probability times the
    objectness is confidence_threshold or more, less those that overlap a better one.

    Bottoms: (N, num_box (5 + num_classes), S, S), once or twice. Top: (1, 1, K, 7), a row each:
    0, label from 1 on, score, left, top, right, bottom. Boxes of all classes and pictures suppress
    each other. Without any box there is a row n, -1, ... for each picture n (Redmon and Farhadi,
    2017; yolo_detection_output_layer.cpp).
    """

    bottoms = (1, 2)
    labels = (0, 1)
    reads = ("yolo_detection_output_param",)
    differs = "`side` and `label_map_file` are accepted and without effect, as in the fork."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.yolo_detection_output_param
        self.check(p.coords == 4, f"coords is {p.coords}, expected 4")
        self.check(p.num_classes > 0, "num_classes must be positive")
        self.nms_threshold = p.nms_threshold
        anchors = anchors_of(self, p.biases)
        self.check(
            0 < p.num_box <= len(anchors),
            f"num_box is {p.num_box}, expected 1 to {len(anchors)}, the anchors in biases",
        )
        self.anchors = anchors[: p.num_box]

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.yolo_detection_output_param
        tops = self.fit(shapes, p.num_box, 5 + p.num_classes)
        for i, shape in enumerate(shapes):
            self.check(
                shape[2] == shape[3],
                f"bottom {i} has the shape {tuple(shape)}, expected as many rows as columns",
            )
        return tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p = self.layer_param.yolo_detection_output_param
        found = []
        for x in bottom:
            grid = (x.shape[2], x.shape[3])
            cells = by_anchor(x.detach(), p.num_box)
            anchors = self.anchors / max(grid[0], 1)
            boxes = in_grid(cells[:, :, :2].sigmoid(), cells[:, :, 2:4], anchors, grid)
            best, labels = cells[:, :, 5:].softmax(2).max(2)
            scores = cells[:, :, 4].sigmoid() * best
            chosen = scores >= p.confidence_threshold
            found.append((boxes[chosen], scores[chosen], labels[chosen]))
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self.top_of(boxes, scores, labels, bottom[0])

    def onnx(self, graph: Graph, *bottoms: Value) -> str:
        p = self.layer_param.yolo_detection_output_param
        found = []
        for x in bottoms:
            cells = yolo_onnx.Cells(graph, x, p.num_box)
            boxes = cells.boxes((self.anchors / max(x.shape[2], 1)).numpy())
            classes = graph.add("Softmax", cells.numbers(range(5, 5 + p.num_classes)), axis=2)
            best, labels = cells.best(classes)
            scores = graph.add("Mul", cells.objects(4), best)
            found.append((boxes, scores, labels))
        # NonMaxSuppression takes scores above its threshold.
        least = float(np.nextafter(np.float32(p.confidence_threshold), np.float32(-np.inf)))
        return self.onnx_top(graph, found, least, bottoms)


@register("Yolov3DetectionOutput")
class Yolov3DetectionOutput(_Detections):
    """YOLOv3's boxes: of each cell, anchor and class the box, if the class's probability times the
    objectness exceeds confidence_threshold, less those that overlap a better one.

    Bottoms: mask_group_num of (N, num_box (5 + num_classes), H, W). Bottom i takes the i-th part of
    `mask`, the numbers of its anchors in `biases`; a cell has anchors_scale[i] pixels. With
    gaussian_box a box has 8 numbers, each followed by its uncertainty (Choi et al., 2019). Top:
    (1, 1, K, 7), a row each: 0, label from 1 on, score, left, top, right, bottom. Boxes of all
    classes and pictures suppress each other. Without any box there is a row n, -1, ... for each
    picture n (Redmon and Farhadi, 2018; yolov3_detection_output_layer.cpp).
    """

    bottoms = (1, None)
    reads = ("yolov3_detection_output_param",)
    differs = (
        "With gaussian_box it computes what the fork's GPU code does; its CPU code is at fault."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.yolov3_detection_output_param
        self.labels = tuple(range(len(shapes)))
        self.nms_threshold = p.nms_threshold
        anchors, groups = anchors_of(self, p.biases), p.mask_group_num
        self.check(p.num_classes > 0, "num_classes must be positive")
        self.check(
            len(shapes) == groups,
            f"has {len(shapes)} bottom(s), expected mask_group_num, {groups}",
        )
        self.check(
            len(p.anchors_scale) >= groups,
            f"anchors_scale is given {len(p.anchors_scale)} time(s), expected one for each bottom",
        )
        each = len(p.mask) // groups
        self.check(
            0 < p.num_box <= len(p.mask) - (groups - 1) * each,
            f"num_box is {p.num_box}, but mask has {len(p.mask)} numbers for {groups} bottom(s)",
        )
        self.check(
            max(p.mask) < len(anchors),
            f"mask has the number {max(p.mask)}, expected 0 to {len(anchors) - 1}, as biases has "
            f"{len(anchors)} anchors",
        )
        self.anchors = [
            anchors[list(p.mask[i * each : i * each + p.num_box])] for i in range(groups)
        ]

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.yolov3_detection_output_param
        return self.fit(shapes, p.num_box, (9 if p.gaussian_box else 5) + p.num_classes)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        found = [self._found(i, x.detach()) for i, x in enumerate(bottom)]
        boxes, scores, labels = (torch.cat(parts) for parts in zip(*found, strict=True))
        return self.top_of(boxes, scores, labels, bottom[0])

    def _pixels(self, i: int, shape: Sequence[int]) -> torch.Tensor:
        """Width and height of the image that bottom i, of this shape, stands for."""
        scale = self.layer_param.yolov3_detection_output_param.anchors_scale[i]
        return torch.tensor([float(max(1, n * scale)) for n in (shape[3], shape[2])])

    def _found(self, i: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Boxes, scores and labels of bottom i that exceed the threshold."""
        p = self.layer_param.yolov3_detection_output_param
        grid = (x.shape[2], x.shape[3])
        cells = by_anchor(x, p.num_box)
        step = 2 if p.gaussian_box else 1
        objects = cells[:, :, 4 * step].sigmoid()
        if p.gaussian_box:
            # The fork counts the uncertainty of x twice.
            unsure = cells[:, :, (1, 1, 3, 5, 7)].sigmoid().sum(2)
            objects = objects * (4 - unsure) / 4
        center, size = cells[:, :, 0 : 2 * step : step], cells[:, :, 2 * step : 4 * step : step]
        boxes = in_grid(center.sigmoid(), size, self.anchors[i] / self._pixels(i, x.shape), grid)
        scores = cells[:, :, 4 * step + 1 :].sigmoid() * objects[:, :, None]
        if p.nms_threshold < 1:
            # A box suppresses itself with its other classes, so that only its best class counts.
            scores, labels = scores.max(2, keepdim=True)
        else:
            labels = torch.arange(p.num_classes, device=x.device)[:, None].expand_as(scores)
        chosen = scores > p.confidence_threshold
        boxes = boxes[:, :, None].expand(*scores.shape, 4)
        return boxes[chosen], scores[chosen], labels[chosen]

    def onnx(self, graph: Graph, *bottoms: Value) -> str:
        p = self.layer_param.yolov3_detection_output_param
        step = 2 if p.gaussian_box else 1
        found = []
        for i, x in enumerate(bottoms):
            cells = yolo_onnx.Cells(graph, x, p.num_box)
            objects = cells.objects(4 * step)
            if p.gaussian_box:
                unsure = graph.add("Sigmoid", cells.numbers((1, 1, 3, 5, 7)))
                axes = graph.constant([2], np.int64)
                total = graph.add("ReduceSum", unsure, axes, keepdims=1)
                sure = graph.affine(graph.affine(total, -1, 4), 0.25, 0)
                objects = graph.add("Mul", objects, sure)
            boxes = cells.boxes((self.anchors[i] / self._pixels(i, x.shape)).numpy(), step)
            first = 4 * step + 1
            classes = graph.add("Sigmoid", cells.numbers(range(first, first + p.num_classes)))
            scores, labels = cells.best(graph.add("Mul", classes, objects))
            found.append((boxes, scores, labels))
        return self.onnx_top(graph, found, p.confidence_threshold, bottoms)

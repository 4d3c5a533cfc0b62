"""EvalDetection: which boxes of a YOLO net find objects, as rows for a mean average precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.kernels.center_boxes import iou, suppress
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.look import OUTPUT
from caffe.layers.yolo import anchors_of, by_anchor, in_grid
from caffe.proto import caffe_pb2 as pb

Boxes = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@register("EvalDetection")
class EvalDetection(Layer):
    """For each picture the number of objects of each class, and whether each predicted box finds
    one.

    Bottoms: predictions of a grid of `side` x `side` cells, (N, ...); labels; perhaps pictures,
    which have no effect. Top: (N, num_class +
    4 side^2 num_object): the numbers of objects of the classes that are not difficult, then rows of
    class, score, hit, false alarm, class by class, the best first, and zeros behind. A box hits
    the object of its class that it overlaps most, by `threshold` or more, once; further ones are
    false alarms. Before, boxes that overlap a better one by nms or more are left out, if nms is
    not negative.

    caffe-yolo's predictions are (N, (num_class + 5 num_object) side^2), as DetectionLoss takes
    them, with its labels. Intel Caffe's are YOLOv2's, (N, num_object (5 + num_class), side, side),
    with `biases` as anchors, and labels (1, 1, M, 8) as those of RegionLoss; boxes that hit nothing
    are no false alarms there (eval_detection_layer.cpp).
    """

    fork = "caffe-yolo, Intel Caffe"
    judge = "recorded"
    bottoms = (2, 3)
    measures = True
    labels = (0, 1, 2)
    reads = ("eval_detection_param",)
    look = OUTPUT

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.eval_detection_param
        self.check(
            min(p.side, p.num_class, p.num_object) > 0,
            "side, num_class and num_object must be positive",
        )
        self.anchors = anchors_of(self, p.biases) if p.biases else None
        self.check(
            self.anchors is None or len(self.anchors) == p.num_object,
            f"biases are {len(p.biases)} numbers, expected two for each of num_object, "
            f"{p.num_object} anchors",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.eval_detection_param
        x, labels = (tuple(shape) for shape in shapes[:2])
        cells = p.side**2
        if self.anchors is None:
            wanted = cells * (p.num_class + 5 * p.num_object)
            self.check(
                len(x) > 0 and math.prod(x[1:]) == wanted,
                f"bottom 0 has the shape {x}, expected {wanted} values a picture",
            )
            self.check(
                labels[:1] == x[:1] and math.prod(labels[1:]) == 7 * cells,
                f"labels (bottom 1) have the shape {labels}, expected {7 * cells} a picture",
            )
        else:
            channels = p.num_object * (5 + p.num_class)
            self.check(
                len(x) == 4 and x[1:] == (channels, p.side, p.side),
                f"bottom 0 has the shape {x}, expected (N, {channels}, {p.side}, {p.side})",
            )
            self.check(
                len(labels) == 4 and labels[3] == 8,
                f"labels (bottom 1) have the shape {labels}, expected (1, 1, M, 8)",
            )
        return [(x[0], p.num_class + 4 * cells * p.num_object)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (shape,) = self.top_shapes(bottom)
        p = self.layer_param.eval_detection_param
        x, labels = (b.detach().float().cpu() for b in bottom[:2])
        top = torch.zeros(shape)
        for i, out in enumerate(top):
            if self.anchors is None:
                objects = grid_objects(labels[i].reshape(-1), p.side**2)
                found = self._of_grid(x[i].reshape(-1))
            else:
                objects, found = self._of_rows(labels.reshape(-1, 8), i), self._of_anchors(x[i])
            self.check_range(objects[0].long(), p.num_class, "label")
            self._write(out, found, objects)
        return top.to(bottom[0])

    def _of_grid(self, x: torch.Tensor) -> Boxes:
        """caffe-yolo's boxes (B cells, 4), their scores and their classes, box by box of a cell."""
        p = self.layer_param.eval_detection_param
        classes, objects, boxes = split_grid(x[None], p.side, p.num_class, p.num_object)
        boxes = absolute(boxes[0], p.side, p.constriant, p.sqrt)
        best, labels = classes[0].max(0)
        scores = self._score(objects[0], best.expand_as(objects[0]))
        return (
            boxes.permute(2, 0, 1).reshape(-1, 4),
            scores.mT.reshape(-1),
            labels.repeat_interleave(p.num_object),
        )

    def _of_anchors(self, x: torch.Tensor) -> Boxes:
        """Intel Caffe's boxes, their scores and their classes, in the order of cells."""
        p = self.layer_param.eval_detection_param
        cells = by_anchor(x[None], p.num_object)
        grid = (p.side, p.side)
        anchors = self.anchors / p.side
        boxes = in_grid(cells[:, :, :2].sigmoid(), cells[:, :, 2:4], anchors, grid)[0]
        best, labels = cells[0, :, 5:].softmax(1).max(1)
        scores = self._score(cells[0, :, 4].sigmoid(), best)
        return boxes.transpose(0, 1).reshape(-1, 4), scores.t().reshape(-1), labels.t().reshape(-1)

    def _score(self, objectness: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
        kind = self.layer_param.eval_detection_param.score_type
        if kind == pb.EvalDetectionParameter.OBJ:
            return objectness
        return probability if kind == pb.EvalDetectionParameter.PROB else objectness * probability

    @staticmethod
    def _of_rows(rows: torch.Tensor, picture: int) -> Boxes:
        """The objects of a picture in rows of eight numbers: classes, boxes, whether difficult."""
        own = rows[rows[:, 0] == picture]
        low, high = own[:, 3:5], own[:, 5:7]
        boxes = torch.cat([(low + high) / 2, high - low], 1)
        return own[:, 1] - 1, boxes, torch.zeros(len(own), dtype=torch.bool)

    def _write(self, out: torch.Tensor, found: Boxes, objects: Boxes) -> None:
        """Write a picture's numbers and rows into `out`."""
        p = self.layer_param.eval_detection_param
        boxes, scores, labels = found
        classes, truths, difficult = objects
        for label in classes[~difficult].long():
            out[label] += 1
        order = scores.sort(descending=True, stable=True).indices
        if p.nms >= 0:
            order = order[suppress(boxes[order], p.nms)]
        elif self.anchors is not None:
            order = order[:0]  # Intel Caffe's code then finds nothing
        order = order[labels[order].sort(stable=True).indices]
        rows = out[p.num_class :].view(-1, 4)
        taken = torch.zeros(len(classes), dtype=torch.bool)
        for row, k in zip(rows, order, strict=False):
            row[0], row[1] = labels[k], scores[k]
            row[2:] = self._hit(boxes[k], classes == labels[k], truths, difficult, taken)

    def _hit(
        self,
        box: torch.Tensor,
        same: torch.Tensor,
        truths: torch.Tensor,
        difficult: torch.Tensor,
        taken: torch.Tensor,
    ) -> torch.Tensor:
        """(hit, false alarm) of one box; marks the object that it hits as taken."""
        if not same.any():
            return torch.tensor([0.0, 1.0])
        fits = torch.where(same, iou(box, truths), -1)
        best = int(fits.argmax())
        if not fits[best] >= self.layer_param.eval_detection_param.threshold:
            return torch.tensor([0.0, 1.0 if self.anchors is None else 0.0])
        if difficult[best]:
            return torch.zeros(2)
        first, taken[best] = not taken[best], True
        return torch.tensor([1.0, 0.0] if first else [0.0, 1.0])


def split_grid(
    x: torch.Tensor, side: int, classes: int, objects: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """caffe-yolo's predictions (N, ...) as classes (N, C, cells), objectness (N, B, cells), boxes
    (N, B, 4, cells).
    """
    n, cells = x.shape[0], side**2
    x = x.reshape(n, classes + 5 * objects, cells)
    boxes = x[:, classes + objects :].reshape(n, objects, 4, cells)
    return x[:, :classes], x[:, classes : classes + objects], boxes


def absolute(boxes: torch.Tensor, side: int, in_cell: bool, roots: bool) -> torch.Tensor:
    """Boxes (..., 4, cells) as fractions of the picture.

    in_cell: their centres are places in their cells. roots: their sizes are square roots.
    """
    center, size = boxes[..., :2, :], boxes[..., 2:, :]
    if in_cell:
        cells = torch.arange(side**2, device=boxes.device)
        corner = torch.stack([cells % side, cells // side]).to(boxes)
        center = (corner + center) / side
    return torch.cat([center, size**2 if roots else size], -2)


def grid_objects(labels: torch.Tensor, cells: int) -> Boxes:
    """The objects in caffe-yolo's labels of a picture: classes, boxes, whether difficult."""
    held = labels[cells : 2 * cells] != 0
    boxes = labels[3 * cells :].reshape(cells, 4)
    return labels[2 * cells : 3 * cells][held].trunc(), boxes[held], (labels[:cells] == 1)[held]

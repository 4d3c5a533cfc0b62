"""Boxes that convolutions predict at each place: outputs, losses, accuracies (MS-CNN, Cascade)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from caffe.formats.onnx import Graph, Value
from caffe.kernels.boxes import paired_overlaps, suppress
from caffe.layers import anchor_onnx
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.look import OUTPUT
from caffe.layers.loss import LOG_FLT_MIN
from caffe.layers.region_boxes import NormalizedBoxes
from caffe.layers.region_loss import smooth_l1
from caffe.layers.yolo_loss import GridLoss

NO_BOX = (0, 1, 1, 10, 10)  # the region that stands for none


class Field(NamedTuple):
    """The boxes that one map predicts: their sides before the prediction moves them, in pixels of
    the net's input, and the pixels between the map's places. sides: (K, 2), width and height, for
    the K maps that are samples of the batch in turn.
    """

    sides: torch.Tensor
    stride: float


class AtPlaces(NormalizedBoxes):
    """A layer of maps whose places predict boxes: shifts of the middle in sides of the field, and
    the logarithms of the sides over the field's, normalised by bbox_reg_param.
    """

    def limits(self, xyr: float, whr: float) -> tuple[float, float]:
        """The largest shift and logarithm of sides; their negatives are the least ones."""
        self.check(
            xyr > 0 and whr >= 1,
            f"field_xyr is {xyr:g} and field_whr {whr:g}, expected more than 0 and at least 1",
        )
        return 1 / xyr, math.log(whr)

    def middles(self, shape: Shape, stride: float, like: torch.Tensor) -> torch.Tensor:
        """The middles of the places of maps (..., H, W): (2, H, W), x and y."""
        line, column = (
            (torch.arange(n, device=like.device, dtype=like.dtype) + 0.5) * stride
            for n in shape[-2:]
        )
        return torch.stack(torch.meshgrid(column, line, indexing="xy"))

    def _by_map(self, field: Field, codes: torch.Tensor) -> torch.Tensor:
        """The field's sides for each map (N, 2, 1, 1)."""
        sides = field.sides.to(codes)
        return sides.repeat(len(codes) // len(sides), 1)[..., None, None]

    def decoded(
        self, codes: torch.Tensor, field: Field, limits: tuple[float, float]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """First corners and sides, (N, 2, H, W) each, that codes (N, 4, H, W) give."""
        shape = (1, 4, 1, 1)
        codes = codes * self.std.to(codes).view(shape) + self.mean.to(codes).view(shape)
        sides = self._by_map(field, codes)
        shift, size = codes[:, :2].clamp(-limits[0], limits[0]), codes[:, 2:4]
        middle = shift * sides + self.middles(tuple(codes.shape), field.stride, codes)
        size = sides * size.clamp(-limits[1], limits[1]).exp()
        return middle - size / 2, size

    def encoded(self, boxes: torch.Tensor, field: Field) -> torch.Tensor:
        """The normalised codes (N, 4, H, W) of boxes (N, 4, H, W): middles and sides."""
        sides = self._by_map(field, boxes)
        middle = self.middles(tuple(boxes.shape), field.stride, boxes)
        codes = [(boxes[:, :2] - middle) / sides, (boxes[:, 2:].clamp(min=2) / sides).log()]
        shape = (1, 4, 1, 1)
        mean, std = (x.to(boxes).view(shape) for x in (self.mean, self.std))
        return (torch.cat(codes, 1) - mean) / std

    def normalized_limits(self, limits: tuple[float, float]) -> torch.Tensor:
        """The least and the largest normalised codes, (2, 4)."""
        found = []
        for at, limit in ((0, limits[0]), (2, limits[1])):
            mean = self.mean[at : at + 2].mean()
            std = self.std[at : at + 2].prod().sqrt()
            found.append(torch.stack([-limit - mean, limit - mean]) / std)
        return torch.stack([found[0], found[0], found[1], found[1]], 1)

    def overlap(
        self, corner: torch.Tensor, size: torch.Tensor, boxes: torch.Tensor, plus: float
    ) -> torch.Tensor:
        """Overlaps (N, H, W) of decoded with true boxes (N, 4, H, W): middles and sides."""
        first = boxes[:, :2] - boxes[:, 2:] / 2
        found = torch.cat([corner, corner + size - plus], 1).movedim(1, -1)
        truth = torch.cat([first, first + boxes[:, 2:] - plus], 1).movedim(1, -1)
        return paired_overlaps(found, truth, plus)


class _Output(AtPlaces):
    """Non-maximum suppression of the boxes of all maps, image by image."""

    bottoms = (1, None)
    tops = (1, 2)
    varying = 0
    look = OUTPUT
    plus = 0.0

    def kept(self, image: int, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """The rows (K, 6) of one image: its number, the corners and the score."""
        p = getattr(self.layer_param, self.reads[0])
        chosen = suppress(
            boxes,
            scores,
            p.iou_thr,
            top_k=p.max_nms_num or -1,
            most=p.max_post_nms_num or -1,
            plus=self.plus,
            over=p.nms_type,
        )
        number = np.full((len(chosen), 1), image, boxes.dtype)
        return np.concatenate([number, boxes[chosen], scores[chosen, None]], 1)

    def rows(self, found: Sequence[np.ndarray], like: torch.Tensor) -> list[torch.Tensor]:
        """The tops."""
        rows = torch.from_numpy(np.concatenate(found)).to(like)
        regions = rows[:, :5] if len(rows) else rows.new_tensor([NO_BOX])
        rows = rows if len(rows) else rows.new_zeros(1, 6)
        return [x[..., None, None] for x in (regions, rows)][: self.num_tops]


@register("BoxOutput")
class BoxOutput(_Output):
    """The regions that MS-CNN's proposal network finds.

    Bottoms: maps (N, C + 4, H, W): scores of background and classes, and codes; each has a field_w,
    field_h and downsample_rate. Tops: regions (K, 5, 1, 1): image and corners; with their scores
    (K, 6, 1, 1). A score is that of the best class less the background's; fg_thr is its least
    value. If there is none, one small region stands for it (box_output_layer.cpp; Cai et al.,
    2016).
    """

    fork = "MS-CNN"
    reads = ("box_output_param", "bbox_reg_param")

    def setup(self, shapes: Sequence[Shape]) -> None:
        super().setup(shapes)
        p = self.layer_param.box_output_param
        counts = len(p.field_w), len(p.field_h), len(p.downsample_rate)
        self.check(
            set(counts) == {len(shapes)},
            f"field_w, field_h and downsample_rate are given {counts} times, expected one for each "
            f"of {len(shapes)} bottoms",
        )
        self.check(min(*p.field_w, *p.field_h) > 0, "field_w or field_h is 0")
        self.bounds = self.limits(p.field_xyr, p.field_whr)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        for i, shape in enumerate(shapes):
            self.check(
                len(shape) == 4 and shape[1] >= 6 and shape[0] == shapes[0][0] > 0,
                f"bottom {i} has the shape {shape}, expected (N, C + 4, H, W), one N for all",
            )
        return [(1, 5, 1, 1), (1, 6, 1, 1)][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        p = self.layer_param.box_output_param
        maps = [self._boxes(i, x.detach()) for i, x in enumerate(bottom)]
        boxes, scores = (torch.cat(x, 1).cpu().numpy() for x in zip(*maps, strict=True))
        found = []
        for image in range(len(scores)):
            mine, values = boxes[image], scores[image]
            size = mine[:, 2:] - mine[:, :2]
            good = (values >= p.fg_thr) & (size >= p.min_size).all(1)
            # Of equal scores the later one counts.
            found.append(self.kept(image, mine[good][::-1], values[good][::-1]))
        return self.rows(found, bottom[0])

    def _boxes(self, index: int, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (N, H * W, 4) and scores (N, H * W) of one map."""
        p = self.layer_param.box_output_param
        stride = p.downsample_rate[index]
        field = Field(torch.tensor([[p.field_w[index], p.field_h[index]]]).float(), stride)
        corner, size = self.decoded(x[:, -4:], field, self.bounds)
        corner = corner.clamp(min=0)
        high, wide = x.shape[2:]
        limit = x.new_tensor([wide * stride, high * stride]).view(1, 2, 1, 1)
        size = torch.minimum(size, limit - corner)
        boxes = torch.cat([corner, corner + size], 1)
        scores = x[:, 1:-4].amax(1) - x[:, 0]
        return boxes.flatten(2).mT, scores.flatten(1)

    def onnx(self, graph: Graph, *bottoms: Value) -> list[str]:
        p, images = self.layer_param.box_output_param, bottoms[0].shape[0]
        maps = [self._in_onnx(graph, i, x) for i, x in enumerate(bottoms)]
        return anchor_onnx.tops(self, graph, p, maps, images, NO_BOX)

    def _in_onnx(self, graph: Graph, index: int, x: Value) -> tuple[str, str]:
        """Boxes and scores of one map."""
        p = self.layer_param.box_output_param
        (images, channels, high, wide), stride = x.shape, p.downsample_rate[index]
        sides = torch.tensor([[p.field_w[index], p.field_h[index]]]).float()
        middles = self.middles(x.shape, stride, sides)
        codes = graph.slice(x, [1], [channels - 4], [channels])
        corner, size = anchor_onnx.decoded(self, graph, codes, sides, middles, images)
        corner = graph.add("Max", corner, graph.constant(0))
        limit = graph.constant([[wide * stride], [high * stride]])
        size = graph.add("Min", size, graph.add("Sub", limit, corner))
        boxes = graph.add("Concat", corner, graph.add("Add", corner, size), axis=2)
        best = graph.slice(x, [1], [1], [channels - 4])
        best = graph.add("ReduceMax", best, axes=[1], keepdims=1)
        scores = graph.add("Sub", best, graph.slice(x, [1], [0], [1]))
        scores = graph.reshape(scores, (images, high * wide, 1), keeps_batch=False)
        return anchor_onnx.by_box(graph, boxes, images, 4), scores


@register("BoxGroupOutput")
class BoxGroupOutput(_Output):
    """The regions that Cascade R-CNN's proposal network finds.

    Bottoms, in pairs: probabilities (N G, C, H, W), of which the first is the background's, and
    codes (N G, 4, H, W), for G kinds of boxes; each pair has a box_group_param with G field_w and
    field_h and a stride. Tops: regions (K, 5, 1, 1): image and corners; with their scores
    (K, 6, 1, 1). If there is none, one small region stands for it (box_group_output_layer.cpp; Cai
    and Vasconcelos, 2018).
    """

    fork = "Cascade R-CNN"
    bottoms = (2, None)
    plus = 1.0
    reads = ("box_group_output_param", "bbox_reg_param")

    def setup(self, shapes: Sequence[Shape]) -> None:
        super().setup(shapes)
        p = self.layer_param.box_group_output_param
        self.check(
            len(shapes) == 2 * len(p.box_group_param),
            f"{len(p.box_group_param)} box_group_param need as many pairs of bottoms, got "
            f"{len(shapes)} bottoms",
        )
        self.fields = []
        for group in p.box_group_param:
            self.fields.append(group_field(self, group))
        self.bounds = self.limits(p.field_xyr, p.field_whr)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        images = shapes[0][0] // len(self.fields[0].sides) if shapes[0] else 0
        for i, field in enumerate(self.fields):
            scores, codes = shapes[2 * i : 2 * i + 2]
            maps = images * len(field.sides)
            self.check(
                len(scores) == 4
                and scores[1] > 0
                and codes == (scores[0], 4, *scores[2:])
                and scores[0] == maps > 0,
                f"bottoms {2 * i} and {2 * i + 1} have the shapes {scores} and {codes}, expected "
                f"(N, C, H, W) and (N, 4, H, W), N being {len(field.sides)} for each image",
            )
        return [(1, 5, 1, 1), (1, 6, 1, 1)][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        p = self.layer_param.box_group_output_param
        maps = [self._boxes(i, bottom) for i in range(len(self.fields))]
        boxes, scores = (torch.cat(x, 1).cpu().numpy() for x in zip(*maps, strict=True))
        found = []
        for image in range(len(scores)):
            mine, values = boxes[image], scores[image]
            size = mine[:, 2:] - mine[:, :2] + 1
            good = (values >= p.fg_thr) & (size >= p.min_size).all(1)
            found.append(self.kept(image, mine[good], values[good]))
        return self.rows(found, bottom[0])

    def _boxes(self, index: int, bottom: Tensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes (N, G * H * W, 4) and scores (N, G * H * W) of one pair."""
        scores, codes = (x.detach() for x in bottom[2 * index : 2 * index + 2])
        field = self.fields[index]
        images = len(codes) // len(field.sides)
        corner, size = self.decoded(codes, field, self.bounds)
        high, wide = codes.shape[2:]
        limit = codes.new_tensor([wide, high]).view(1, 2, 1, 1) * field.stride
        last = torch.minimum(corner + size - 1, limit)
        boxes = torch.cat([corner.clamp(min=0), last], 1).flatten(2).mT
        return boxes.reshape(images, -1, 4), (1 - scores[:, 0]).reshape(images, -1)

    def onnx(self, graph: Graph, *bottoms: Value) -> list[str]:
        p = self.layer_param.box_group_output_param
        images = bottoms[0].shape[0] // len(self.fields[0].sides)
        maps = [
            self._in_onnx(graph, field, *bottoms[2 * i : 2 * i + 2], images)
            for i, field in enumerate(self.fields)
        ]
        return anchor_onnx.tops(self, graph, p, maps, images, NO_BOX)

    def _in_onnx(
        self, graph: Graph, field: Field, scores: Value, codes: Value, images: int
    ) -> tuple[str, str]:
        """Boxes and scores of one pair."""
        high, wide = codes.shape[2:]
        middles = self.middles(codes.shape, field.stride, field.sides)
        corner, size = anchor_onnx.decoded(self, graph, codes, field.sides, middles, images)
        limit = graph.constant(np.array([[wide], [high]]) * field.stride)
        last = graph.affine(graph.add("Add", corner, size), 1, -1)
        last = graph.add("Min", last, limit)
        corner = graph.add("Max", corner, graph.constant(0))
        boxes = graph.add("Concat", corner, last, axis=2)
        objects = graph.affine(graph.slice(scores, [1], [0], [1]), -1, 1)
        objects = graph.reshape(objects, (images, -1, 1), keeps_batch=False)
        return anchor_onnx.by_box(graph, boxes, images, 4), objects


def group_field(layer: Layer, param: object) -> Field:
    """The field of a message with field_w, field_h and stride."""
    widths, heights = list(param.field_w), list(param.field_h)  # type: ignore[attr-defined]
    layer.check(
        len(widths) == len(heights) > 0 and min(*widths, *heights) > 0,
        f"{len(widths)} field_w and {len(heights)} field_h are given, expected as many, above 0",
    )
    sides = torch.tensor([widths, heights], dtype=torch.float32).T
    return Field(sides, param.stride)  # type: ignore[attr-defined]


class Truth(NamedTuple):
    """Maps (N, H, W) of labels, int64, and overlaps, and (N, 4, H, W) of boxes: middles, sides."""

    labels: torch.Tensor
    boxes: torch.Tensor
    overlaps: torch.Tensor


class _WithTruth(AtPlaces):
    """Maps of scores and codes, and of labels, true boxes and overlaps, (N, 6, H, W)."""

    def truth(self, x: torch.Tensor, objectness: bool) -> Truth:
        """The maps of truth; with objectness all objects have the label 1."""
        x = x.detach()
        labels = x[:, 0].long()
        return Truth(labels.clamp(max=1) if objectness else labels, x[:, 1:5], x[:, 5])

    @property
    def ignored(self) -> int | None:
        """The label that does not count."""
        p = self.layer_param.loss_param
        return p.ignore_label if p.HasField("ignore_label") else None

    def counted(self, labels: torch.Tensor) -> torch.Tensor:
        """Where labels are not the ignored one."""
        return (
            torch.ones_like(labels, dtype=torch.bool)
            if self.ignored is None
            else (labels != self.ignored)
        )

    def check_maps(
        self, scores: Shape, codes: Shape, truth: Shape, classes: int, objectness: bool
    ) -> None:
        """Raise CaffeError unless the maps fit each other."""
        self.check(classes > 0, "cls_num is 0, expected at least 1")
        self.check(
            len(scores) == 4
            and math.prod(scores) > 0
            and scores[1] == classes
            and codes == (scores[0], 4, *scores[2:])
            and truth == (scores[0], 6, *scores[2:]),
            f"scores {scores}, codes {codes} and truth {truth}: expected (N, {classes}, H, W), "
            "(N, 4, H, W) and (N, 6, H, W)",
        )
        self.check(not objectness or classes == 2, f"objectness needs cls_num 2, got {classes}")

    def accuracies(
        self, right: torch.Tensor, truth: Truth, threshold: float, like: torch.Tensor
    ) -> torch.Tensor:
        """The shares of right labels (1, 1, 1, 2): of all that count, and of objects; or -1."""
        background = truth.labels == 0
        counted = self.counted(truth.labels) & ~(background & (truth.overlaps >= threshold))
        return torch.stack(
            [mean(right[mask].to(like)) for mask in (counted, counted & ~background)]
        ).view(1, 1, 1, 2)


def mean(x: torch.Tensor) -> torch.Tensor:
    """The mean, or -1 of nothing."""
    return x.mean() if x.numel() else x.new_tensor(-1.0)


@register("DetectionAccuracy")
class DetectionAccuracy(_WithTruth):
    """How many places have the right label, and how much their boxes overlap the true ones.

    Bottoms: maps (N, C + 4, H, W) of scores and codes; truth (N, 6, H, W): label, the box's middle
    and sides, overlap. Tops: the shares of right labels, of all and of objects, (1, 1, 1, 2); the
    mean overlap (1, 1, 1, 1). Background that overlaps an object by bg_threshold does not count; a
    label is right among the top_k highest scores (MS-CNN's detection_accuracy_layer.cpp).
    """

    fork = "MS-CNN"
    bottoms = (2, 2)
    tops = (1, 2)
    measures = True
    look = OUTPUT
    reads = ("detection_accuracy_param", "bbox_reg_param", "loss_param")

    def setup(self, shapes: Sequence[Shape]) -> None:
        super().setup(shapes)
        p = self.layer_param.detection_accuracy_param
        self.check(p.coord_num == 4, f"coord_num is {p.coord_num}, expected 4")
        self.check(min(p.field_w, p.field_h) > 0, "field_w and field_h must be given")
        self.check(
            1 <= p.top_k <= p.cls_num, f"top_k is {p.top_k}, expected 1 to cls_num {p.cls_num}"
        )
        self.field = Field(torch.tensor([[p.field_w, p.field_h]]).float(), p.downsample_rate)
        self.bounds = self.limits(p.field_xyr, p.field_whr)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.detection_accuracy_param
        check_joined(self, shapes, p.cls_num, p.objectness)
        return [(1, 1, 1, 2), (1, 1, 1, 1)][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        p = self.layer_param.detection_accuracy_param
        scores, codes = bottom[0].detach().split([p.cls_num, 4], 1)
        truth = self.truth(bottom[1], p.objectness)
        label = truth.labels.clamp(0, p.cls_num - 1)[:, None]
        own = scores.gather(1, label)
        later = torch.arange(p.cls_num, device=label.device).view(1, -1, 1, 1) > label
        better = ((scores > own) | ((scores == own) & later)).sum(1)
        right = (better < p.top_k) & (label[:, 0] == truth.labels)
        overlap = self.overlap(*self.decoded(codes, self.field, self.bounds), truth.boxes, 0)
        objects = self.counted(truth.labels) & (truth.labels != 0)
        shares = self.accuracies(right, truth, p.bg_threshold, scores)
        return [shares, mean(overlap[objects]).view(1, 1, 1, 1)][: self.num_tops]


def check_joined(
    layer: _WithTruth, shapes: Sequence[Shape], classes: int, objectness: bool
) -> None:
    """Raise CaffeError unless MS-CNN's maps of scores and codes in one, and the truth, fit."""
    maps, truth = shapes
    scores = (maps[0], maps[1] - 4, *maps[2:]) if len(maps) == 4 else maps
    layer.check_maps(scores, (*maps[:1], 4, *maps[2:]), truth, classes, objectness)


@register("DetectionGroupAccuracy")
class DetectionGroupAccuracy(_WithTruth):
    """DetectionAccuracy for G kinds of boxes.

    Bottoms: scores (N G, C, H, W); codes (N G, 4, H, W); truth (N G, 6, H, W): label, the box's
    middle and sides, overlap. Tops: the shares of right labels, of all and of objects,
    (1, 1, 1, 2); the mean overlap (1, 1, 1, 1) (Cascade R-CNN's
    detection_group_accuracy_layer.cpp).
    """

    fork = "Cascade R-CNN"
    bottoms = (3, 3)
    tops = (1, 2)
    measures = True
    look = OUTPUT
    reads = ("detection_group_accuracy_param", "bbox_reg_param", "loss_param")

    def setup(self, shapes: Sequence[Shape]) -> None:
        super().setup(shapes)
        p = self.layer_param.detection_group_accuracy_param
        self.field = group_field(self, p)
        self.bounds = self.limits(p.field_xyr, p.field_whr)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.detection_group_accuracy_param
        self.check_maps(*shapes, p.cls_num, p.objectness)
        check_groups(self, shapes[0], self.field)
        return [(1, 1, 1, 2), (1, 1, 1, 1)][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        p = self.layer_param.detection_group_accuracy_param
        scores, codes = (x.detach() for x in bottom[:2])
        truth = self.truth(bottom[2], p.objectness)
        right = scores.argmax(1) == truth.labels
        overlap = self.overlap(*self.decoded(codes, self.field, self.bounds), truth.boxes, 1)
        objects = self.counted(truth.labels) & (truth.labels != 0)
        shares = self.accuracies(right, truth, p.bg_threshold, scores)
        return [shares, mean(overlap[objects]).view(1, 1, 1, 1)][: self.num_tops]


def check_groups(layer: Layer, scores: Shape, field: Field) -> None:
    """Raise CaffeError unless each image has a map for each kind of boxes."""
    layer.check(
        scores[0] % len(field.sides) == 0,
        f"there are {scores[0]} maps, expected {len(field.sides)} for each image",
    )


class DetectionLosses(_WithTruth):
    """Softmax of the labels and smooth L1 of the codes at the places that are kept.

    The top, (1, 1, 1, 2), holds the sum, and the codes' part without a gradient.
    """

    auto_tops = True
    loss = True
    look = OUTPUT

    def losses(
        self,
        scores: torch.Tensor,
        codes: torch.Tensor,
        truth: Truth,
        kept: torch.Tensor,
        weights: torch.Tensor,
        field: Field,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Means over the places that count: of the labels (kept (N, H, W), with weights) and of the
        differences of codes (those of kept objects).
        """
        counted = kept & self.counted(truth.labels)
        labels = torch.where(counted, truth.labels, 0)
        self.check_range(labels, scores.shape[1], "label")
        chosen = scores.log_softmax(1).gather(1, labels[:, None])[:, 0]
        each = -with_gradient_of(chosen.clamp(min=LOG_FLT_MIN), chosen) * weights
        each = torch.where(counted, each, torch.zeros_like(each))
        objects = counted & (truth.labels != 0)
        target = self.encoded(truth.boxes, field)
        off = torch.where(objects[:, None], codes - target, torch.zeros_like(codes))
        return (
            each.sum() / counted.sum().clamp(min=1),
            self.distance(off).sum() / (4 * objects.sum()).clamp(min=1),
        )

    def distance(self, x: torch.Tensor) -> torch.Tensor:
        """The loss of each difference."""
        raise AssertionError("set by the subclass")

    def limited(self, codes: torch.Tensor, limits: torch.Tensor) -> torch.Tensor:
        """Codes within limits (2, 4), with the gradient of the codes."""
        low, high = (x.to(codes).view(1, 4, 1, 1) for x in limits)
        return with_gradient_of(codes.clamp(low, high), codes)

    def top(self, labels: torch.Tensor, codes: torch.Tensor, factor: float) -> torch.Tensor:
        """The top of both losses."""
        codes = factor * codes
        return torch.stack([labels + codes, codes.detach()]).view(1, 1, 1, 2)

    def balanced(
        self,
        weights: torch.Tensor,
        objects: torch.Tensor,
        kept: torch.Tensor,
        multiple: int,
        needs_objects: bool,
    ) -> torch.Tensor:
        """Weights with which the kept objects weigh 1 / (1 + multiple) of all that are kept.

        needs_objects: without objects the weights stay.
        """
        share = 1 / (1 + multiple)
        total, other = weights[kept & objects].sum(), weights[kept & ~objects].sum()
        if needs_objects and total == 0:
            return weights
        count = kept.sum()
        inner = share * count / total if total else weights.new_ones(())
        outer = (1 - share) * count / other if other else weights.new_ones(())
        return weights * torch.where(objects, inner, outer)


@register("DetectionLoss")
class DetectionLoss(DetectionLosses):
    """MS-CNN's loss of a map of scores and codes; or YOLO's, of a grid of boxes.

    With cls_num (MS-CNN): bottoms are maps (N, C + 4, H, W) and truth (N, 6, H, W): label, the
    box's middle and sides, overlap. The top, (1, 1, 1, 2), holds the softmax loss of the labels
    plus lambda times that of the codes, and the latter. Background that overlaps an object by less
    than bg_threshold is sampled by sample_mode: "random", "bootstrap" (the highest scores),
    "mixture" of both, or else all (detection_loss_layer.cpp; Cai et al., 2016).
    Without (caffe-yolo): bottoms are predictions (N, side^2 (num_class + 5 num_object)) and labels
    (N, 7 side^2) of a grid of cells, and the top is YOLO's first loss, a number: the squares of
    what classes, objectness and boxes miss (Redmon et al., 2016).
    """

    fork = "MS-CNN, caffe-yolo"
    bottoms = (2, 2)
    labels = (1,)
    reads = ("detection_loss_param", "bbox_reg_param", "loss_param")
    differs = (
        "caffe-yolo's gradient is not the derivative, but the fork's own; a batch without objects "
        "has a loss there, where the fork's is NaN."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.detection_loss_param
        self.grid = None if p.HasField("cls_num") else GridLoss(self.layer_param)
        if self.grid is not None:
            self.grid.setup(shapes)
            return
        super().setup(shapes)
        self.check(p.coord_num == 4, f"coord_num is {p.coord_num}, expected 4")
        self.check(min(p.field_w, p.field_h) > 0, "field_w and field_h must be given")
        self.field = Field(torch.tensor([[p.field_w, p.field_h]]).float(), p.downsample_rate)
        self.bounds = self.limits(p.field_xyr, p.field_whr)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.detection_loss_param
        if self.grid is not None:
            return self.grid.infer_shapes(shapes)
        check_joined(self, shapes, p.cls_num, p.objectness)
        return [(1, 1, 1, 2)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        if self.grid is not None:
            return self.grid.forward(bottom, blobs)
        p = self.layer_param.detection_loss_param
        scores, codes = bottom[0].split([p.cls_num, 4], 1)
        truth = self.truth(bottom[1], p.objectness)
        objects = truth.labels != 0
        rest = self._sampled(scores.detach(), truth)
        weights = torch.ones_like(truth.overlaps)
        if p.iou_weighted:
            weights = torch.where(objects, truth.overlaps, weights)
        if p.pos_neg_weighted:
            weights = self.balanced(weights, objects, objects | rest, p.bg_multiple, True)
        codes = self.limited(codes, self.normalized_limits(self.bounds))
        found = self.losses(scores, codes, truth, objects | rest, weights, self.field)
        return self.top(*found, getattr(p, "lambda"))

    def distance(self, x: torch.Tensor) -> torch.Tensor:
        smooth = self.layer_param.detection_loss_param.bb_smooth
        return smooth_l1(x) if smooth else x.square() / 2

    def _sampled(self, scores: torch.Tensor, truth: Truth) -> torch.Tensor:
        """Which places (N, H, W) are samples of background."""
        p = self.layer_param.detection_loss_param
        fit = (truth.labels == 0) & (truth.overlaps < p.bg_threshold)
        if p.sample_mode not in ("random", "bootstrap", "mixture"):
            return fit
        kept = torch.zeros_like(fit).flatten(1)
        share = p.bg_multiple * (0.5 if p.sample_mode == "mixture" else 1.0)
        for i, mine in enumerate(fit.flatten(1)):
            labels = truth.labels[i].flatten()
            if p.sample_mode != "bootstrap":
                draws = max(int((labels != 0).sum() * share), 4 * (p.cls_num - 1))
                draws = min(draws, 64 * len(mine))  # more find no place that is left
                kept[i, torch.randint(len(mine), (draws,)).to(mine.device)] = True
            if p.sample_mode != "random":
                for k in range(1, p.cls_num):
                    most = max(4, int((labels == k).sum() * share))
                    ranked = torch.where(mine, scores[i, k].flatten(), -torch.inf)
                    # Of equal scores the later place counts.
                    order = ranked.flip(0).argsort(descending=True, stable=True)
                    kept[i, len(mine) - 1 - order[:most]] = True
            kept[i] &= mine
        return kept.view_as(fit)


@register("DetectionGroupLoss")
class DetectionGroupLoss(DetectionLosses):
    """Cascade R-CNN's loss of the scores and codes of G kinds of boxes.

    Bottoms: scores (N G, C, H, W); codes (N G, 4, H, W); truth (N G, 6, H, W): label, the box's
    middle and sides, overlap. The top, (1, 1, 1, 2), holds the softmax loss of the labels plus
    lambda times that of the codes, and the latter. Background that overlaps an object by less than
    bg_threshold is sampled, bg_multiple for each object of an image, by neg_mining_type: "random",
    "bootstrap" (the largest neg_ranking_type) or "mixture" (detection_group_loss_layer.cpp).
    """

    fork = "Cascade R-CNN"
    bottoms = (3, 3)
    labels = (2,)
    reads = ("detection_group_loss_param", "bbox_reg_param", "loss_param")

    def setup(self, shapes: Sequence[Shape]) -> None:
        super().setup(shapes)
        p = self.layer_param.detection_group_loss_param
        self.field = group_field(self, p)
        for name, choices in (
            ("neg_mining_type", ("random", "bootstrap", "mixture")),
            ("neg_ranking_type", ("conf_prob", "conf_loss")),
            ("bbox_loss_type", ("Smooth_L1", "Euclidean_L2")),
        ):
            given = getattr(p, name)
            self.check(
                given in choices, f"{name} is {given!r}, expected one of {', '.join(choices)}"
            )
        self.check(
            p.batch_size == -1 or p.batch_size > 0,
            f"batch_size is {p.batch_size}, expected -1 or more than 0",
        )
        self.bounds = None
        if p.HasField("field_xyr") and p.HasField("field_whr"):
            self.bounds = self.limits(p.field_xyr, p.field_whr)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.detection_group_loss_param
        self.check_maps(*shapes, p.cls_num, p.objectness)
        check_groups(self, shapes[0], self.field)
        return [(1, 1, 1, 2)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p = self.layer_param.detection_group_loss_param
        scores, codes = bottom[:2]
        truth = self.truth(bottom[2], p.objectness)
        objects = truth.labels > 0
        kept = self._sampled(self._rank(scores.detach(), truth), truth)
        weights = torch.ones_like(truth.overlaps)
        if p.pos_neg_weighted:
            weights = self.balanced(weights, objects, kept, p.bg_multiple, False)
        if self.bounds is not None:
            codes = self.limited(codes, self.normalized_limits(self.bounds))
        found = self.losses(scores, codes, truth, kept, weights, self.field)
        return self.top(*found, getattr(p, "lambda"))

    def distance(self, x: torch.Tensor) -> torch.Tensor:
        kind = self.layer_param.detection_group_loss_param.bbox_loss_type
        return smooth_l1(x) if kind == "Smooth_L1" else x.square() / 2

    def _rank(self, scores: torch.Tensor, truth: Truth) -> torch.Tensor:
        """How hard the places are, (N G, H, W)."""
        kind = self.layer_param.detection_group_loss_param.neg_ranking_type
        logs = scores.log_softmax(1)
        if kind == "conf_prob":
            return 1 - logs[:, 0].exp()
        labels = truth.labels.clamp(0, scores.shape[1] - 1)
        return -logs.gather(1, labels[:, None])[:, 0].clamp(min=LOG_FLT_MIN)

    def _sampled(self, rank: torch.Tensor, truth: Truth) -> torch.Tensor:
        """Which places (N G, H, W) are samples: objects, and background that fits."""
        p = self.layer_param.detection_group_loss_param
        shape = (len(rank) // len(self.field.sides), -1)
        labels, overlap, rank = (x.reshape(shape) for x in (truth.labels, truth.overlaps, rank))
        kept = torch.zeros_like(labels, dtype=torch.bool)
        for i in range(len(kept)):
            objects = (labels[i] > 0).nonzero().flatten()
            rest = ((labels[i] == 0) & (overlap[i] < p.bg_threshold)).nonzero().flatten()
            if p.batch_size == -1:
                most, others = len(objects), max(len(objects) * p.bg_multiple, p.min_num_neg)
            else:
                most = math.floor(p.batch_size / (1 + p.bg_multiple) + 0.5)
                most = min(most, len(objects))
                others = p.batch_size - most
            if len(objects) > most:
                objects = objects[torch.randperm(len(objects))[:most].to(objects.device)]
            kept[i, objects] = True
            kept[i, self._negatives(rest, rank[i], others)] = True
        return kept.view_as(truth.labels)

    def _negatives(self, rest: torch.Tensor, rank: torch.Tensor, most: int) -> torch.Tensor:
        """At most so many of the places `rest`."""
        if len(rest) <= most:
            return rest
        kind = self.layer_param.detection_group_loss_param.neg_mining_type
        hard = {"random": 0, "bootstrap": most, "mixture": math.floor(most * 0.5 + 0.5)}[kind]
        if hard:
            # Of equal ranks the later place counts.
            order = rank[rest].flip(0).argsort(descending=True, stable=True)
            rest = rest[len(rest) - 1 - order]
        drawn = torch.randperm(len(rest) - hard)[: most - hard].to(rest.device)
        return torch.cat([rest[:hard], rest[hard:][drawn]])

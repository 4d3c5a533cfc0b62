"""Boxes between the stages of MS-CNN and Cascade R-CNN: decoding, sampling, routing, the output."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from caffe.formats.onnx import Graph, Value
from caffe.kernels.boxes import areas, overlaps, paired_overlaps, suppress
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.look import OUTPUT
from caffe.layers.region_loss import four
from caffe.proto import caffe_pb2 as pb

ALMOST_TRUE = 0.975  # BboxAccuracy: a region with such an overlap is the true box itself
TRIES = 1000  # ProposalTarget: draws of a box without an object


class OfRows(Layer):
    """A layer whose bottoms have one row for each box. It has no gradient."""

    in_place = False
    judge = "recorded"

    def check_rows(self, shapes: Sequence[Shape], *widths: tuple[str, int | None]) -> list[Shape]:
        """The bottoms as (R, C, H, W). Raises CaffeError unless they have one number of rows and
        these numbers of channels (None: any).
        """
        found = [four(shape) for shape in shapes]
        for i, ((name, width), shape) in enumerate(zip(widths, found, strict=False)):
            self.check(
                1 <= len(shapes[i]) <= 4
                and math.prod(shape[1:]) > 0
                and (width is None or shape[1:] == (width, 1, 1)),
                f"{name} (bottom {i}) have the shape {shapes[i]}, expected (R, {width or 'C'})",
            )
            self.check(
                shape[0] == found[0][0],
                f"bottom {i} has {shape[0]} rows, bottom 0 has {found[0][0]}",
            )
        return found


class NormalizedBoxes(OfRows):
    """A layer whose box codes are normalised by bbox_reg_param's bbox_mean and bbox_std."""

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.mean, self.std = self.normalization()

    def normalization(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the four numbers; 0 and 1 unless both are given."""
        p = self.layer_param.bbox_reg_param
        mean, std = list(p.bbox_mean), list(p.bbox_std)
        if not (mean and std):
            mean, std = [0.0] * 4, [1.0] * 4
        self.check(
            len(mean) == len(std) == 4,
            f"{len(mean)} bbox_mean and {len(std)} bbox_std are given, expected 4 of each",
        )
        self.check(min(std) > 0, f"bbox_std is {min(std):g}, expected more than 0")
        return torch.tensor(mean), torch.tensor(std)

    def moved(self, codes: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Boxes (R, 4) moved by normalised codes (R, K, 4): (R, K, 4)."""
        codes = codes * self.std.to(codes) + self.mean.to(codes)
        first, last = boxes[:, None, :2], boxes[:, None, 2:4]
        side = last - first + 1
        middle = codes[..., :2] * side + 0.5 * (first + last)
        size = side * codes[..., 2:].exp()
        start = middle - (size - 1) / 2
        return torch.cat([start, start + size - 1], -1)


@register("DecodeBBox")
class DecodeBBox(NormalizedBoxes):
    """The boxes that predictions make of the boxes of the stage before.

    Bottoms: codes (R, 8), of which the last four count; boxes (R, 5), the first number being the
    image's; in TRAIN perhaps the true boxes that they are matched to, (R, C), whose last number is
    the overlap. Top: (K, 5, 1, 1). In TRAIN boxes with corners the wrong way round are left out,
    and those that overlap a true box by gt_iou_thr (Cascade R-CNN's decode_bbox_layer.cpp; Cai and
    Vasconcelos, 2018).
    """

    fork = "Cascade R-CNN, MS-CNN"
    bottoms = (2, 3)
    varying = 0
    reads = ("bbox_reg_param", "decode_bbox_param")
    takes = ("bbox_reg_param.bbox_mean", "bbox_reg_param.bbox_std")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        found = self.check_rows(shapes, ("codes", 8), ("boxes", 5), ("true boxes", None))
        return [found[1]]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        codes, boxes, *truth = (x.detach().flatten(1) for x in bottom)
        moved = self.moved(codes[:, None, 4:], boxes[:, 1:])[:, 0]
        kept = torch.ones(len(moved), dtype=torch.bool, device=moved.device)
        if self.phase == pb.TRAIN:
            kept = (moved[:, :2] <= moved[:, 2:]).all(1)
            if truth:
                kept &= truth[0][:, -1] < self.layer_param.decode_bbox_param.gt_iou_thr
        self.check(bool(kept.any()), "all boxes are out of range, none is left")
        return torch.cat([boxes[kept, :1], moved[kept]], 1)[..., None, None]

    def onnx(self, graph: Graph, *bottoms: Value) -> str:
        codes, boxes = (graph.add("Flatten", x) for x in bottoms[:2])
        codes = graph.slice(codes, [1], [4], [8])
        for op, values in (("Mul", self.std), ("Add", self.mean)):
            codes = graph.add(op, codes, graph.constant(values.numpy()))
        shift, scale = (graph.slice(codes, [1], [i], [i + 2]) for i in (0, 2))
        first, last = (graph.slice(boxes, [1], [i], [i + 2]) for i in (1, 3))
        side = graph.affine(graph.add("Sub", last, first), 1, 1)
        middle = graph.affine(graph.add("Add", first, last), 0.5, 0)
        middle = graph.add("Add", graph.add("Mul", shift, side), middle)
        size = graph.affine(graph.add("Mul", side, graph.add("Exp", scale)), 1, -1)
        start = graph.add("Sub", middle, graph.affine(size, 0.5, 0))
        number = graph.slice(boxes, [1], [0], [1])
        rows = graph.add("Concat", number, start, graph.add("Add", start, size), axis=1)
        return graph.add("Unsqueeze", rows, graph.constant([2, 3], np.int64))


@register("BboxAccuracy")
class BboxAccuracy(NormalizedBoxes):
    """The mean overlap of predicted with true boxes, and of the regions with these.

    Bottoms: codes (R, 4 K), four for each class; regions (R, 5); true boxes (R, 6): label, corners
    and overlap with the region. Tops: the mean after the shift; before it; both (1, 1, 1, 1) and -1
    if nothing counts. Regions of label 0 and true boxes themselves do not count. Without cls_aware
    codes 4 to 7 are those of all classes (MS-CNN's bbox_accuracy_layer.cpp).
    """

    fork = "Cascade R-CNN, MS-CNN"
    bottoms = (3, 3)
    tops = (1, 2)
    measures = True
    look = OUTPUT
    reads = ("bbox_reg_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        aware = self.layer_param.bbox_reg_param.cls_aware
        found = self.check_rows(shapes, ("codes", None), ("regions", 5), ("true boxes", 6))
        self.check(
            math.prod(found[0][2:]) == 1 and found[0][1] % 4 == 0 and (aware or found[0][1] == 8),
            f"codes (bottom 0) have the shape {shapes[0]}, expected (R, {'4 K' if aware else 8})",
        )
        return [(1, 1, 1, 1)] * self.num_tops

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        codes, regions, truth = (x.detach().flatten(1) for x in bottom)
        label = truth[:, 0].long()
        counted = (label > 0) & ~(truth[:, -1] > ALMOST_TRUE)
        codes, regions, truth, label = (x[counted] for x in (codes, regions, truth, label))
        if not self.layer_param.bbox_reg_param.cls_aware:
            label = label.clamp(max=1)
        codes = codes.view(len(codes), codes.shape[1] // 4, 4)
        self.check_range(label, codes.shape[1], "label")
        chosen = codes[torch.arange(len(codes), device=label.device), label]
        moved = self.moved(chosen[:, None], regions[:, 1:5])[:, 0]
        tops = [
            paired_overlaps(boxes, truth[:, 1:5], plus=1).mean()
            if len(label)
            else codes.new_tensor(-1.0)
            for boxes in (moved, regions[:, 1:5])
        ]
        return [x.view(1, 1, 1, 1) for x in tops[: self.num_tops]]


@register("ProposalTarget")
class ProposalTarget(NormalizedBoxes):
    """Samples regions for training, with their labels and the codes of the true boxes.

    Bottoms: regions (R, 5); true boxes (G, 7): image, corners, label and whether it is ignored;
    rows of image -1 are empty. The true boxes are regions, too, if append_gtbox. Tops, K rows each,
    (K, ..., 1, 1): regions (5); labels (1); codes, their inside and outside weights (four for each
    of cls_num classes; without cls_aware 8); true boxes (6): label, corners, overlap; perhaps the
    weights of the samples (1). batch_size -1 keeps all. A region is an object if its overlap with a
    true box reaches fg_thr, background within bg_thr_lw to bg_thr_hg; if there are too few, others
    are background, too, if pickup_discard (Cascade R-CNN's proposal_target_layer.cpp).
    """

    fork = "Cascade R-CNN, MS-CNN"
    bottoms = (2, 2)
    tops = (6, 7)
    varying = 0
    reads = ("proposal_target_param", "bbox_reg_param")
    differs = (
        "MS-CNN fills a batch that is too small with random boxes; here, as in Cascade R-CNN, it "
        "stays small, and only an empty one gets a box."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        super().setup(shapes)
        p = self.layer_param.proposal_target_param
        self.check(p.cls_num > 0, "cls_num is 0, expected at least 1")
        self.check(
            p.batch_size == -1 or p.batch_size > 0,
            f"batch_size is {p.batch_size}, expected -1 or more than 0",
        )
        self.check(
            p.fg_thr >= p.bg_thr_hg and p.fg_thr > 0,
            f"fg_thr is {p.fg_thr:g}, expected more than 0 and at least bg_thr_hg",
        )
        self.check(0 <= p.fg_fraction <= 1, f"fg_fraction is {p.fg_fraction:g}, expected 0 to 1")
        self.aware = self.layer_param.bbox_reg_param.cls_aware
        self.numbers = 4 * p.cls_num if self.aware else 8

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        regions, truth = shapes
        self.check_rows([regions], ("regions", 5))
        self.check(
            1 <= len(truth) <= 4 and truth[1:2] >= (7,) and math.prod(truth[2:]) == 1,
            f"true boxes (bottom 1) have the shape {truth}, expected (G, 7)",
        )
        batch = self.layer_param.proposal_target_param.batch_size
        count = max(1, regions[0]) if batch == -1 else min(batch, max(1, regions[0] + truth[0]))
        widths = (5, 1, *(self.numbers,) * 3, 6, 1)
        return [(count, width, 1, 1) for width in widths[: self.num_tops]]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        p = self.layer_param.proposal_target_param
        regions, truth = (x.detach().flatten(1) for x in bottom)
        truth = truth[truth[:, 0] != -1]
        if p.append_gtbox:
            regions = torch.cat([regions, truth[:, :5]])
        for images in (regions[:, 0], truth[:, 0]):
            self.check_range(images.long(), p.num_img_per_batch, "image number")
        overlap, match = self._matches(regions, truth)
        objects, rest = self._sampled(truth, overlap, match)
        if not len(objects) + len(rest):
            rest = torch.tensor([len(regions)], device=regions.device)
            regions = torch.cat([regions, self._anywhere(truth)[None]])
        kept = torch.cat([objects, rest])
        tops = [regions[kept], *self._targets(regions, truth, overlap, match, objects, len(kept))]
        return [x.reshape(len(kept), -1, 1, 1) for x in tops[: self.num_tops]]

    def _matches(
        self, regions: torch.Tensor, truth: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The largest overlap of each region with a true box of its image, and that box; or -1."""
        if not len(truth):
            nothing = torch.full((len(regions),), -1, device=regions.device)
            return torch.zeros(len(regions)).to(regions), nothing
        ratio = overlaps(regions[:, 1:], truth[:, 1:5], plus=1)
        ratio = torch.where(regions[:, :1] == truth[None, :, 0], ratio, -1.0)
        overlap, match = ratio.max(1)
        return overlap.clamp(min=0), torch.where(overlap < 0, -1, match)

    def _sampled(
        self, truth: torch.Tensor, overlap: torch.Tensor, match: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The regions that are sampled as objects, and as background."""
        p = self.layer_param.proposal_target_param
        near = overlap >= p.fg_thr
        ignored = truth[match[near], 6] != 0
        objects = near.nonzero().flatten()[~ignored]
        labels = truth[match[objects], 5]
        self.check_range(labels.long() - 1, max(1, p.cls_num - 1), "label less 1")
        middle = ~near & (overlap >= p.bg_thr_lw) & (overlap < p.bg_thr_hg)
        rest, others = middle.nonzero().flatten(), (~near & ~middle).nonzero().flatten()
        size, most = p.batch_size, math.floor(p.fg_fraction * p.batch_size + 0.5)
        if size == -1:
            size, most = len(objects) + len(rest), len(objects)
        if len(objects) > most:
            objects = objects[torch.randperm(len(objects))[:most].to(objects.device)]
        left = size - len(objects)
        if len(rest) > left:
            rest = rest[torch.randperm(len(rest))[:left].to(rest.device)]
        elif p.pickup_discard:
            rest = torch.cat([rest, others[: left - len(rest)]])
        return objects, rest

    def _anywhere(self, truth: torch.Tensor) -> torch.Tensor:
        """A random box (5) that is no object, for a batch that would be empty."""
        p = self.layer_param.proposal_target_param
        self.check(
            min(p.img_width, p.img_height) > 32,
            "no region is left, and img_width and img_height do not tell where to draw one: they "
            f"are {p.img_width} and {p.img_height}, which is out of range",
        )
        for _ in range(TRIES):
            draws = torch.rand(5, dtype=torch.float64)
            image = int(draws[0] * p.num_img_per_batch)
            x, y = int(draws[1] * (p.img_width - 32)), int(draws[2] * (p.img_height - 32))
            width = max(32, int(draws[3] * (p.img_width - x)))
            height = max(32, int(draws[4] * (p.img_height - y)))
            box = truth.new_tensor([image, x, y, x + width - 1, y + height - 1])
            same = truth[truth[:, 0] == image]
            if not (overlaps(box[None, 1:], same[:, 1:5], plus=1) >= p.fg_thr).any():
                return box
        self.check(False, "no region is left, and the objects leave no room for one: out of range")
        raise AssertionError

    def _targets(
        self,
        regions: torch.Tensor,
        truth: torch.Tensor,
        overlap: torch.Tensor,
        match: torch.Tensor,
        objects: torch.Tensor,
        count: int,
    ) -> list[torch.Tensor]:
        """All tops but the regions; the objects come first among `count` rows."""
        p = self.layer_param.proposal_target_param
        number = len(objects)
        labels, codes, inside = (
            regions.new_zeros(count, n) for n in (1, self.numbers, self.numbers)
        )
        matched = regions.new_zeros(count, 6)
        true, ratio = truth[match[objects]], overlap[objects]
        labels[:number, 0] = true[:, 5].trunc()
        matched[:number] = torch.cat([labels[:number], true[:, 1:5], ratio[:, None]], 1)
        label = labels[:number, 0].long()
        column = 4 * (label if self.aware else label.clamp(max=1))[:, None]
        column = column + torch.arange(4, device=column.device)
        codes[:number].scatter_(1, column, self._codes(regions[objects, 1:5], true[:, 1:5]))
        fit = (ratio >= p.bbox_thr_lw) & (ratio <= p.bbox_thr_hg)
        inside[:number].scatter_(1, column, fit[:, None].expand(-1, 4).to(inside))
        weights = self._weights(labels[:, 0] > 0, matched[:, 5])
        return [labels, codes, inside, inside.clone(), matched, weights]

    def _codes(self, boxes: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The normalised codes (K, 4) that move boxes to the true ones."""
        sides = [x[:, 2:] - x[:, :2] + 1 for x in (boxes, truth)]
        middles = [x[:, :2] + 0.5 * side for x, side in zip((boxes, truth), sides, strict=True)]
        codes = [(middles[1] - middles[0]) / sides[0], (sides[1] / sides[0]).log()]
        return (torch.cat(codes, 1) - self.mean.to(boxes)) / self.std.to(boxes)

    def _weights(self, objects: torch.Tensor, overlap: torch.Tensor) -> torch.Tensor:
        """The weights of the samples: objects weigh fg_fraction of all."""
        p = self.layer_param.proposal_target_param
        weights = torch.ones_like(overlap)
        if p.iou_weighted:
            weights = torch.where(objects, overlap, weights)
        sums = [weights[mask].sum() for mask in (objects, ~objects)]
        if not sums[0] > 0:
            return weights
        shares = (p.fg_fraction, 1 - p.fg_fraction)
        factors = [
            share * len(weights) / total.clamp(min=torch.finfo(weights.dtype).tiny)
            for share, total in zip(shares, sums, strict=True)
        ]
        return weights * torch.where(objects, *factors)


@register("ScaleRoute")
class ScaleRoute(OfRows):
    """The rows whose regions have a size within low_scale to high_scale.

    Bottoms: regions (R, 5), the first number being the image's; perhaps more, (R, C, H, W). Tops:
    their rows (K, C, H, W). A size is the root of the area. If there is none, the row nearest to
    the middle of the two is kept (Cascade R-CNN's scale_route_layer.cpp).
    """

    fork = "Cascade R-CNN"
    bottoms = (1, None)
    tops = (1, None)
    one_top_each = True
    varying = 0
    reads = ("scale_route_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.scale_route_param
        self.low = p.low_scale if p.HasField("low_scale") else 0.0
        self.high = p.high_scale if p.HasField("high_scale") else math.inf
        for name, value in (("low_scale", self.low), ("high_scale", self.high)):
            self.check(
                value > 0 or not p.HasField(name), f"{name} is {value:g}, expected more than 0"
            )
        self.check(self.high >= self.low, f"high_scale {self.high:g} is below {self.low:g}")
        ends = [x for x in (self.low, self.high) if 0 < x < math.inf] or [256.0]
        self.middle = math.sqrt(ends[0] * ends[-1])

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        found = self.check_rows(shapes, ("regions", 5), *(("rows", None),) * (len(shapes) - 1))
        self.check(found[0][0] > 0, "there is no region to choose from")
        return found

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        shapes = self.top_shapes(bottom)
        size = areas(bottom[0].detach().flatten(1)[:, 1:5], plus=1).sqrt()
        kept = ((size >= self.low) & (size < self.high)).nonzero().flatten()
        if not len(kept):
            kept = (size / self.middle).log2().abs().argmin()[None]
        rows = (x.detach().view(shape) for x, shape in zip(bottom, shapes, strict=True))
        return [x[kept] for x in rows]


def _table(x: torch.Tensor) -> torch.Tensor:
    """Rows (R, ...) as (R, numbers of each), without gradient; (R) has one each."""
    return x.detach().reshape(x.shape[0], math.prod(x.shape[1:]))


@register("HardMining")
class HardMining(OfRows):
    """The rows of the num_roi_per_image highest scores in each of num_image images.

    Bottoms: scores (R); regions (R, 5), the first number being the image's; perhaps more rows.
    Tops: rows of all bottoms but the first, (K, C, H, W), K = num_image num_roi_per_image or R.
    Where an image has too few, the highest scores of the others fill up (Cascade R-CNN's
    hard_mining_layer.cpp).
    """

    fork = "Cascade R-CNN"
    bottoms = (2, None)
    tops = (1, None)
    reads = ("hard_mining_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.hard_mining_param
        self.check(
            min(p.num_roi_per_image, p.num_image) > 0,
            f"num_roi_per_image is {p.num_roi_per_image} and num_image {p.num_image}, expected at "
            "least 1",
        )
        self.check(
            len(shapes) == self.num_tops + 1,
            f"{len(shapes)} bottoms need {len(shapes) - 1} tops, got {self.num_tops}",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.hard_mining_param
        names = ("scores", 1), ("regions", 5), *(("rows", None),) * (len(shapes) - 2)
        scores, *rows = self.check_rows(shapes, *names)
        count = min(p.num_image * p.num_roi_per_image, scores[0])
        return [(count, *shape[1:]) for shape in rows]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        shapes = self.top_shapes(bottom)
        p = self.layer_param.hard_mining_param
        image = _table(bottom[1])[:, 0].long()
        self.check_range(image, p.num_image, "image number of a region")
        # Of equal scores the later one counts.
        order = bottom[0].detach().flatten().flip(0).argsort(descending=True, stable=True)
        order = len(order) - 1 - order
        hard, left = [], []
        for number in image.unique().tolist() or [0]:
            mine = order[image[order] == number]
            hard.append(mine[: p.num_roi_per_image])
            left.append(mine[p.num_roi_per_image :])
        kept, others = torch.cat(hard), torch.cat(left)
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)).to(order))
        others = others[rank[others].argsort()]
        count = min(p.num_image * p.num_roi_per_image, len(image))
        kept = torch.cat([kept, others[: count - len(kept)]]).sort()[0]
        return [
            x.detach().reshape(x.shape[0], *shape[1:])[kept]
            for x, shape in zip(bottom[1:], shapes, strict=True)
        ]


@register("FrcnnOutput")
class FrcnnOutput(NormalizedBoxes):
    """The detections of one image, class by class, after non-maximum suppression.

    Bottoms: probabilities (R, C) of background and classes; codes (R, 4 C), without cls_aware
    (R, 8); regions (R, 5 or 6) of image 0; the image's height and width (1, 2). Top: (K + 1, 7, 1,
    1): image, corners, label, score. The first row stands for the image: all is -1 behind the 0.
    At most max_det_num are left, the highest scores (Cascade R-CNN's frcnn_output_layer.cpp).
    """

    fork = "Cascade R-CNN"
    bottoms = (4, 4)
    varying = 0
    look = OUTPUT
    reads = ("frcnn_output_param", "bbox_reg_param")
    takes = (
        *(f"frcnn_output_param.{x}" for x in ("conf_thr", "iou_thr", "nms_type", "max_det_num")),
        *(f"bbox_reg_param.{x}" for x in ("bbox_mean", "bbox_std", "cls_aware")),
    )
    differs = "`save_output_param` has no effect: no files are written."

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        found = self.check_rows(
            shapes[:3], ("probabilities", None), ("codes", None), ("regions", None)
        )
        classes = found[0][1]
        expected = 4 * classes if self.layer_param.bbox_reg_param.cls_aware else 8
        self.check(
            found[0][2:] == (1, 1) and found[1][1:] == (expected, 1, 1),
            f"probabilities {shapes[0]} and codes {shapes[1]}: expected (R, C) and (R, {expected})",
        )
        self.check(
            found[2][1] in (5, 6) and found[2][2:] == (1, 1),
            f"regions (bottom 2) have the shape {shapes[2]}, expected (R, 5) or (R, 6)",
        )
        self.check(
            math.prod(shapes[3]) == 2,
            f"the image's size (bottom 3) has the shape {shapes[3]}, expected (1, 2)",
        )
        return [(1, 7, 1, 1)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p = self.layer_param.frcnn_output_param
        scores, codes, regions = map(_table, bottom[:3])
        height, width = bottom[3].detach().flatten().tolist()
        self.check_range(regions[:, 0].long(), 1, "image number of a region")
        boxes = self.moved(codes.view(len(codes), codes.shape[1] // 4, 4), regions[:, 1:5])
        first = boxes[..., :2].clamp(min=0)
        last = torch.minimum(boxes[..., 2:], boxes.new_tensor([width, height]))
        boxes = torch.cat([first, last], -1)
        found = [boxes.new_tensor([[0.0, *[-1.0] * 6]])]
        for label in range(1, scores.shape[1]):
            column = label if self.layer_param.bbox_reg_param.cls_aware else 1
            found.append(self._of_class(label, scores[:, label], boxes[:, column]))
        top = torch.cat(found)
        if 0 < p.max_det_num < len(top) - 1:
            best = top[1:, 6].argsort(descending=True, stable=True)[: p.max_det_num]
            best = best[top[1:, 5][best].argsort(stable=True)]
            top = torch.cat([top[:1], top[1:][best]])
        return top[..., None, None]

    def _of_class(self, label: int, scores: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """The rows of one class."""
        p = self.layer_param.frcnn_output_param
        good = scores >= p.conf_thr
        scores, boxes = scores[good], boxes[good]
        kept = suppress(
            boxes.cpu().numpy(), scores.cpu().numpy(), p.iou_thr, plus=1, over=p.nms_type
        )
        chosen = torch.from_numpy(kept).to(boxes.device)
        start = boxes.new_zeros(len(chosen), 1)
        parts = [start, boxes[chosen], start + label, scores[chosen, None]]
        return torch.cat(parts, 1)

"""Proposal: regions from the scores and shifts that a net gives each anchor."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.kernels.boxes import from_center_size, suppress, to_center_size
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.look import OUTPUT


def anchors(base: int, ratios: Sequence[float], scales: Sequence[float]) -> np.ndarray:
    """Boxes (ratios * scales, 4), float32, about the middle of a square of `base` pixels.

    A ratio gives whole sides with the square's area, which a scale multiplies.
    """
    one, half = np.float32(1), np.float32(0.5)
    middle = half * np.float32(base - 1)
    area = np.float32(float(base) ** 2)
    boxes = []
    for ratio in np.asarray(ratios, np.float32):
        width = np.floor(np.sqrt(area / ratio) + half)
        height = np.floor(width * ratio + half)
        for scale in np.asarray(scales, np.float32):
            w, h = half * (width * scale - one), half * (height * scale - one)
            boxes.append([middle - w, middle - h, middle + w, middle + h])
    return np.array(boxes, np.float32)


@register("Proposal")
class Proposal(Layer):
    """The regions of highest score of a region proposal network, without those that overlap.

    Bottoms: scores (1, 2 A, H, W), of which the last A channels are the objects'; shifts of the
    anchors (1, 4 A, H, W); the image's height, width and scale, perhaps one for each side. Tops:
    regions (R, 5), the first number being the image's, 0; their scores (R). A box counts its last
    pixel; one with a side below min_size times the scale gets the score 0. Of pre_nms_topn
    boxes non-maximum suppression leaves at most post_nms_topn (PVANet's and mini-caffe's
    proposal_layer.cpp; Ren et al., 2015). It has no gradient.
    """

    fork = "PVANet, mini-caffe"
    judge = "recorded"
    bottoms = (3, 3)
    tops = (1, 2)
    in_place = False
    varying = 0
    look = OUTPUT
    reads = ("proposal_param",)
    differs = (
        "caffe-windows' Proposal, which divides the scales by base_size, is not here. Of equal "
        "scores the first counts; the forks' order depends on their sorting."
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.proposal_param
        self.check(bool(p.ratio and p.scale), "proposal_param must give ratio and scale")
        for name in ("ratio", "scale"):
            least = min(getattr(p, name))
            self.check(least > 0, f"{name} is {least:g}, expected more than 0")
        for name in ("feat_stride", "base_size", "pre_nms_topn", "post_nms_topn"):
            self.check(getattr(p, name) > 0, f"{name} is 0, expected at least 1")
        self.check(
            len(p.ratio) * len(p.scale) <= 10000,
            f"{len(p.ratio)} ratios and {len(p.scale)} scales are more than 10000 anchors",
        )
        self.anchors = torch.from_numpy(anchors(p.base_size, p.ratio, p.scale))

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        scores, shifts, info = shapes
        count = len(self.anchors)
        for name, i, shape, each in (("scores", 0, scores, 2), ("shifts", 1, shifts, 4)):
            self.check(
                len(shape) == 4 and shape[:2] == (1, each * count),
                f"{name} (bottom {i}) have the shape {shape}, expected (1, {each * count}, H, W) "
                f"for {count} anchors",
            )
        self.check(
            scores[2:] == shifts[2:] and math.prod(scores) > 0,
            f"scores {scores} and shifts {shifts} must have one height and width, not 0",
        )
        self.check(
            math.prod(info) >= 3,
            f"the image's size (bottom 2) has the shape {info}, expected height, width and scale",
        )
        most = min(self.layer_param.proposal_param.post_nms_topn, count * math.prod(scores[2:]))
        return [(most, 5), (most,)][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        p = self.layer_param.proposal_param
        scores, shifts, info = (x.detach() for x in bottom)
        height, width, *scale = info.flatten().tolist()[:4]
        boxes = self.boxes(shifts)
        limit = boxes.new_tensor([width, height, width, height]) - 1
        boxes = torch.minimum(boxes, limit).clamp(min=0)
        least = p.min_size * boxes.new_tensor([scale[-1], scale[0]])
        large = (boxes[:, 2:] - boxes[:, :2] + 1 >= least).all(1)
        values = scores[0, len(self.anchors) :].permute(1, 2, 0).flatten() * large
        order = values.argsort(descending=True, stable=True)[: p.pre_nms_topn]
        boxes, values = boxes[order], values[order]
        kept = suppress(
            boxes.cpu().numpy(),
            values.cpu().numpy(),
            p.nms_thresh,
            plus=1,
            most=p.post_nms_topn,
        )
        chosen = torch.from_numpy(kept).to(boxes.device)
        regions = torch.nn.functional.pad(boxes[chosen], (1, 0))
        return [regions, values[chosen]][: self.num_tops]

    def boxes(self, shifts: torch.Tensor) -> torch.Tensor:
        """The anchors of all places, moved: (H * W * A, 4)."""
        _, _, high, wide = shifts.shape
        stride = self.layer_param.proposal_param.feat_stride
        line, column = (torch.arange(n, device=shifts.device) * stride for n in (high, wide))
        grid = torch.stack(torch.meshgrid(column, line, indexing="xy"), -1)
        corner = torch.cat([grid, grid], -1)[:, :, None].to(shifts)
        center, size = to_center_size(corner + self.anchors.to(shifts), plus=1)
        moved = shifts.reshape(-1, 4, high, wide).permute(2, 3, 0, 1)
        center, size = moved[..., :2] * size + center, moved[..., 2:].exp() * size
        return from_center_size(center, size).reshape(-1, 4)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return _InOnnx(graph, self, *bottoms).tops()


class _InOnnx:
    """Proposal in ONNX: decoding by arithmetic, then TopK and NonMaxSuppression."""

    def __init__(
        self, graph: Graph, layer: Proposal, scores: Value, shifts: Value, info: Value
    ) -> None:
        self.graph, self.layer, self.scores, self.shifts = graph, layer, scores, shifts
        self.count = len(layer.anchors)
        self.info = graph.reshape(info, [-1], keeps_batch=False)
        self.scales = min(2, math.prod(info.shape) - 2)  # one scale, or one a side

    def tops(self) -> list[str]:
        """The regions and, if asked for, their scores."""
        graph, p = self.graph, self.layer.layer_param.proposal_param
        boxes = self._clipped(self._moved())
        values = graph.add("Mul", self._objects(), graph.to_float(self._large(boxes)))
        high, wide = self.scores.shape[2:]
        most = min(p.pre_nms_topn, self.count * high * wide)
        values, order = graph.add("TopK", values, self._whole([most]), outputs=2)
        boxes = graph.add("Gather", boxes, order)
        # A box counts its last pixel; ONNX's does not.
        wider = graph.add("Add", boxes, graph.constant([0, 0, 1, 1]))
        chosen = graph.add(
            "NonMaxSuppression",
            graph.reshape(wider, [1, -1, 4], keeps_batch=False),
            graph.reshape(values, [1, 1, -1], keeps_batch=False),
            self._whole([min(p.post_nms_topn, most)]),
            graph.constant([p.nms_thresh]),
        )
        place = graph.reshape(graph.slice(chosen, [1], [2], [3]), [-1], keeps_batch=False)
        boxes = graph.add("Gather", boxes, place)
        padding = graph.constant([0, 1, 0, 0], np.int64)
        tops = [graph.add("Pad", boxes, padding), graph.add("Gather", values, place)]
        return tops[: self.layer.num_tops]

    def _whole(self, values: Sequence[int]) -> str:
        return self.graph.constant(values, np.int64)

    def _by_place(self, x: str, channels: int) -> str:
        """(1, A * channels, H, W) as (H * W * A, channels), or (H * W * A) for one channel."""
        graph, (high, wide) = self.graph, self.scores.shape[2:]
        shape = [self.count, channels, high, wide]
        x = graph.reshape(x, shape, keeps_batch=False)
        x = graph.add("Transpose", x, perm=[2, 3, 0, 1])
        return graph.reshape(x, [-1, channels] if channels > 1 else [-1], keeps_batch=False)

    def _objects(self) -> str:
        """The scores of the objects, (H * W * A)."""
        channels = self.graph.slice(self.scores, [1], [self.count], [2 * self.count])
        return self._by_place(channels, 1)

    def _moved(self) -> str:
        """The anchors, moved: (H * W * A, 4)."""
        graph, layer = self.graph, self.layer
        still = layer.boxes(torch.zeros(self.shifts.shape))
        center, size = to_center_size(still)
        shifts = self._by_place(self.shifts.name, 4)
        sides = graph.constant(size.numpy())
        shift = graph.add("Mul", graph.slice(shifts, [1], [0], [2]), sides)
        middle = graph.add("Add", shift, graph.constant(center.numpy()))
        half = graph.add("Exp", graph.slice(shifts, [1], [2], [4]))
        half = graph.affine(graph.add("Mul", half, sides), 0.5, 0)
        ends = (graph.add(way, middle, half) for way in ("Sub", "Add"))
        return graph.add("Concat", *ends, axis=1)

    def _clipped(self, boxes: str) -> str:
        """Boxes cut at the image's last pixels."""
        graph = self.graph
        size = graph.add("Gather", self.info, self._whole([1, 0, 1, 0]))
        boxes = graph.add("Min", boxes, graph.affine(size, 1, -1))
        return graph.add("Max", boxes, graph.constant(0))

    def _large(self, boxes: str) -> str:
        """Whether both sides are large enough, (H * W * A)."""
        graph = self.graph
        first, last = (graph.slice(boxes, [1], [i], [i + 2]) for i in (0, 2))
        sides = graph.affine(graph.add("Sub", last, first), 1, 1)
        scale = graph.add("Gather", self.info, self._whole([1 + self.scales, 2]))
        least = graph.affine(scale, self.layer.layer_param.proposal_param.min_size, 0)
        large = graph.to_float(graph.add("GreaterOrEqual", sides, least))
        both = graph.add("ReduceMin", large, axes=[1], keepdims=0)
        return graph.to_bool(both)

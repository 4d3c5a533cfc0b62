"""AnchorEmbeddingExtractor: the vectors of detections, out of grids."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.layers.base import Layer, Shape, Tensors, register

# Places in a row of eleven numbers.
ITEM, BOX, ANCHOR, TRACK, ACTION, COLUMN, ROW, NUMBERS = 0, slice(2, 6), 6, 7, 8, 9, 10, 11


@register("AnchorEmbeddingExtractor")
class AnchorEmbeddingExtractor(Layer):
    """The channels of each detection's place in its anchor's grid.

    Bottoms: detections (1, 1, K, 11), picture, a number, left, top, right, bottom, anchor, track,
    action, column and row of each; num_anchors grids (N, C, H, W). Detections of picture -1 do not
    count, nor do actions from num_valid_actions on. Tops: the channels (K', C); number
    label_src_pos of the detections (K'); with output_instance_weights one over the number of
    detections of the same track and picture (K'), with output_proposals the picture and box
    (K', 5). Without any detection there is one row, channels of 0 and -1 in the others (OpenCV's
    training toolbox, anchor_embedding_extractor_layer.cpp).
    """

    fork = "OpenCV training toolbox"
    judge = "recorded"
    bottoms = (2, None)
    tops = (2, 3)
    labels = (0,)
    in_place = False
    varying = 0
    reads = ("embedding_extractor_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.embedding_extractor_param
        self.check(
            p.num_anchors == len(shapes) - 1,
            f"num_anchors is {p.num_anchors}, but there are {len(shapes) - 1} grids",
        )
        self.check(
            0 <= p.label_src_pos < NUMBERS,
            f"label_src_pos is {p.label_src_pos}, expected 0 to {NUMBERS - 1}",
        )
        third = p.output_instance_weights + p.output_proposals
        self.check(
            self.num_tops == 2 or third == 1,
            "a third top needs output_instance_weights or output_proposals, not both",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        found, first = tuple(shapes[0]), tuple(shapes[1])
        self.check(
            len(found) == 4 and found[:2] == (1, 1) and found[3] == NUMBERS,
            f"detections (bottom 0) have the shape {found}, expected (1, 1, K, {NUMBERS})",
        )
        for i, shape in enumerate(shapes[1:], 1):
            self.check(
                tuple(shape) == first and len(first) == 4 and math.prod(first) > 0,
                f"bottom {i} has the shape {tuple(shape)}, bottom 1 {first}; they must be equal, "
                "(N, C, H, W)",
            )
        third = (5,) if self.layer_param.embedding_extractor_param.output_proposals else ()
        return [(1, first[1]), (1,), (1, *third)][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        p = self.layer_param.embedding_extractor_param
        found, grids = bottom[0].detach().reshape(-1, NUMBERS), torch.stack(list(bottom[1:]))
        counted = found[:, ITEM].trunc() >= 0
        if p.HasField("num_valid_actions"):
            counted = counted & (found[:, ACTION].trunc() < p.num_valid_actions)
        found = found[counted]
        if not len(found):
            empty = [grids.new_zeros(1, grids.shape[2]), grids.new_full((1,), -1)]
            third = (1, 5) if p.output_proposals else (1,)
            return [*empty, grids.new_full(third, -1)][: self.num_tops]
        places = [found[:, i].long() for i in (ANCHOR, ITEM, ROW, COLUMN)]
        extents = (grids.shape[0], grids.shape[1], grids.shape[3], grids.shape[4])
        names = ("anchor", "picture", "row", "column")
        for name, place, extent in zip(names, places, extents, strict=True):
            self.check_range(place, extent, f"{name} of a detection")
        anchor, item, row, column = places
        tops = [grids[anchor, item, :, row, column], found[:, p.label_src_pos].trunc()]
        if p.output_proposals:
            tops.append(torch.cat([item[:, None].to(found), found[:, BOX]], 1))
        else:
            track = found[:, TRACK].long() * 1000 + item
            _, own, counts = track.unique(return_inverse=True, return_counts=True)
            tops.append(1 / counts[own].to(found))
        return tops[: self.num_tops]

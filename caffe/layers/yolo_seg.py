"""Masks of roads and lanes beside a detector (MobileNet-YOLO): their loss and their evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.look import OUTPUT


@register("YoloSeg")
class YoloSeg(Layer):
    """Squared distance of the scores' sigmoid to masks, summed and divided by the samples.

    Bottoms: scores (N, C, H, W); masks of that shape, 0 or 1; perhaps the pixels of each mask
    (N, C). The distance is multiplied by `object_scale` a; inside of masks, with the third bottom,
    by a (2 - s), s the ratio of a class's pixels to the others. The gradient is the multiplied
    distance over N, as if it were that of the scores (yolo_seg.cpp of eric612/MobileNet-YOLO).
    """

    fork = "MobileNet-YOLO"
    judge = "worked cases"
    bottoms = (2, 3)
    auto_tops = True
    loss = True
    labels = (1, 2)
    reads = ("yolo_seg_param",)
    takes = ("yolo_seg_param.object_scale",)
    look = OUTPUT

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        scores, masks = shapes[:2]
        self.check(
            len(scores) == 4 and scores[0] > 0 and masks == scores,
            f"bottoms of shapes {scores} and {masks} must be equal, (N, C, H, W)",
        )
        if len(shapes) == 3:
            counts = scores[0] * scores[1]
            self.check(
                math.prod(shapes[2]) == counts,
                f"bottom 2 has the shape {shapes[2]}, expected a number for each of {counts} masks",
            )
        return [()]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        scores, masks = bottom[0], bottom[1].detach()
        n, classes, height, width = scores.shape
        scale = self.layer_param.yolo_seg_param.object_scale
        weights = scores.new_full((1, 1, 1, 1), scale)
        if len(bottom) == 3:
            inside = bottom[2].detach().reshape(n, classes).sum(0)
            share = inside / (n * height * width - inside)
            weights = torch.where(masks > 0.5, scale * (2 - share.view(1, -1, 1, 1)), weights)
        distance = (scores.detach().sigmoid() - masks) * weights
        value = distance.square().sum() / n
        return with_gradient_of(value, (scores * distance).sum() / n)


@register("SegmentationEvaluate")
class SegmentationEvaluate(Layer):
    """Intersection over union of each mask of the first sample, at a threshold.

    Bottoms: masks and true masks, both (N, C, ...) of values 0 to 1. Top: (1, 1, 1, C). Masks of
    another size are resized to the true ones' as pictures of bytes, and then a class without true
    pixels is -1 (segmentation_evaluate_layer.cpp of eric612/MobileNet-YOLO).
    """

    fork = "MobileNet-YOLO"
    judge = "worked cases"
    bottoms = (2, 2)
    labels = (0, 1)
    reads = ("segmentation_evaluate_param",)
    look = OUTPUT

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        masks, truth = shapes
        self.check(
            len(masks) == len(truth) == 4 and masks[1] == truth[1] and min(*masks, *truth) > 0,
            f"bottoms of shapes {masks} and {truth} must be (N, C, H, W) of the same classes",
        )
        return [(1, 1, 1, truth[1])]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        threshold = self.layer_param.segmentation_evaluate_param.threshold
        masks, truth = (x[0].detach() for x in bottom)
        true, resized = truth > threshold, masks.shape != truth.shape
        if resized:
            found = _resized(masks, truth.shape[1:]) > int(threshold * 255)
        else:
            found = masks > threshold
        both = (true & found).sum((1, 2)).to(masks.dtype)
        union = (true | found).sum((1, 2)).to(masks.dtype)
        scores = torch.where(both > 0, both / union.clamp(min=1), 0.0)
        if resized:
            scores = torch.where(true.any(2).any(1), scores, -1.0)
        return scores.reshape(1, 1, 1, -1)


def _resized(masks: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Masks (C, H, W) of 0 to 1 as bytes in another size."""
    import cv2  # not above: 16 MB that most nets do without

    planes = (masks.nan_to_num().clamp(0, 1) * 255).to(torch.uint8).cpu().numpy()
    changed = [cv2.resize(plane, (int(size[1]), int(size[0]))) for plane in planes]
    return torch.from_numpy(np.stack(changed)).to(masks.device)

"""Arithmetic of boxes (x, y, width, height) around their centre, as darknet and YOLO have them.

Boxes are the last axis of a tensor, of extent 4; the axes before broadcast.
"""

from __future__ import annotations

import torch

IOU, GIOU, MSE, DIOU, CIOU = range(5)  # Yolov3Parameter.IOU_LOSS


def edges(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(left, top) and (right, bottom) of boxes."""
    half = boxes[..., 2:] / 2
    return boxes[..., :2] - half, boxes[..., :2] + half


def shared(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Width and height of the intersections, negative where boxes are apart."""
    (low_a, high_a), (low_b, high_b) = edges(a), edges(b)
    return torch.minimum(high_a, high_b) - torch.maximum(low_a, low_b)


def enclosing(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Width and height of the smallest boxes around each pair."""
    (low_a, high_a), (low_b, high_b) = edges(a), edges(b)
    return torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)


def iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union."""
    common = shared(a, b).clamp(min=0).prod(-1)
    return common / (a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - common)


def overlap(a: torch.Tensor, b: torch.Tensor, kind: int) -> torch.Tensor:
    """How well boxes a fit boxes b: IoU for IOU and MSE, else GIoU (Rezatofighi et al., 2019),
    DIoU or CIoU (Zheng et al., 2020), with darknet's power of 0.6 in DIoU.
    """
    fit = iou(a, b)
    if kind in (IOU, MSE):
        return fit
    around = enclosing(a, b)
    if kind == GIOU:
        area = around.prod(-1)
        common = shared(a, b).clamp(min=0).prod(-1)
        union = a[..., 2] * a[..., 3] + b[..., 2] * b[..., 3] - common
        return torch.where(area == 0, fit, fit - (area - union) / area)
    diagonal = around.square().sum(-1)
    distance = (a[..., :2] - b[..., :2]).square().sum(-1) / diagonal
    if kind == DIOU:
        return torch.where(diagonal == 0, fit, fit - distance**0.6)
    shape, weight = _aspect(a, b, fit)
    return torch.where(diagonal == 0, fit, fit - distance - weight * shape)


def _aspect(
    a: torch.Tensor, b: torch.Tensor, fit: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """CIoU's penalty for another ratio of width and height, and its weight."""
    turn = (b[..., 2] / b[..., 3]).atan() - (a[..., 2] / a[..., 3]).atan()
    shape = 4 / torch.pi**2 * turn.square()
    return shape, shape / (1 - fit + shape + 1e-6)


def slope(a: torch.Tensor, b: torch.Tensor, kind: int) -> torch.Tensor:
    """How `overlap` grows with (x, y, width, height) of a, as darknet computes it (yolo_layer.c).

    It is twice the derivative for width and height, and for DIOU and CIOU some signs differ.
    Where boxes are apart, only the terms of the enclosing box count.
    """
    (low_a, high_a), (low_b, high_b) = edges(a), edges(b)
    common, size = shared(a, b), high_a - low_a
    inner, union = common.prod(-1, keepdim=True), size.prod(-1, keepdim=True)
    union = union + (high_b - low_b).prod(-1, keepdim=True) - inner
    # Of the intersection and the union, by the low and the high edges.
    inner_low = torch.where(low_a > low_b, -common.flip(-1), 0)
    inner_high = torch.where(high_a < high_b, common.flip(-1), 0)
    union_low, union_high = -size.flip(-1) - inner_low, size.flip(-1) - inner_high
    low = (union * inner_low - inner * union_low) / union**2
    high = (union * inner_high - inner * union_high) / union**2
    low, high = (torch.where(union > 0, x, 0) for x in (low, high))
    apart = (common <= 0).any(-1, keepdim=True)
    around = torch.maximum(high_a, high_b) - torch.minimum(low_a, low_b)
    lowest, highest = (low_a < low_b).to(a), (high_a > high_b).to(a)
    if kind == GIOU:
        area = around.prod(-1, keepdim=True)
        low_term = (area * union_low + union * lowest * around.flip(-1)) / area**2
        high_term = (area * union_high - union * highest * around.flip(-1)) / area**2
        low = torch.where(apart, low_term, low + low_term)
        high = torch.where(apart, high_term, high + high_term)
    center, extent = low + high, high - low
    if kind in (DIOU, CIOU):
        diagonal = around.square().sum(-1, keepdim=True)
        gap = b[..., :2] - a[..., :2]
        distance = gap.square().sum(-1, keepdim=True)
        center_term = 2 * (gap * diagonal - around * (highest - lowest) * distance) / diagonal**2
        extent_term = around * (highest + lowest) * distance / diagonal**2
        if kind == CIOU:
            extent_term = extent_term + _aspect_slope(a, b, inner / union)
        center = torch.where(apart, center_term, center + center_term)
        extent = torch.where(apart, extent_term, extent + extent_term)
    return torch.cat([center, extent], -1)


def _aspect_slope(a: torch.Tensor, b: torch.Tensor, fit: torch.Tensor) -> torch.Tensor:
    """The part of `slope` by width and height that comes from the ratio of these."""
    _, weight = _aspect(a, b, fit[..., 0])
    turn = (b[..., 2] / b[..., 3]).atan() - (a[..., 2] / a[..., 3]).atan()
    factor = 8 / torch.pi**2 * turn * weight
    return torch.stack([factor * a[..., 3], -factor * a[..., 2]], -1)


def suppress(boxes: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which of the boxes (K, 4), sorted from the best on, overlap no better one that is kept: IoU
    of `threshold` or more; their places, ascending.
    """
    kept, left = [], torch.arange(len(boxes))
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        left = left[~(iou(boxes[best], boxes[left]) >= threshold)]
    return torch.tensor(kept, dtype=torch.long)

"""Arithmetic of boxes (xmin, ymin, xmax, ymax): area, overlap, codes, matching, suppression.

Boxes are the last axis of a tensor, of extent 4. Coordinates are fractions of the image in SSD, and
pixels in Faster R-CNN. There a box covers its last pixel, too, so its width is xmax - xmin + 1:
`plus` is that 1.
"""

from __future__ import annotations

import numpy as np
import torch

CORNER, CENTER_SIZE, CORNER_SIZE = 1, 2, 3  # PriorBoxParameter.CodeType
IGNORED = -2  # in match(): a box that is neither matched nor a negative
_LEAST_OVERLAP = 1e-6  # below it, match() takes boxes for disjoint (bbox_util.cpp)


def areas(boxes: torch.Tensor, plus: float = 0.0) -> torch.Tensor:
    """The areas of boxes (..., 4); 0 where a box ends before it starts."""
    width, height = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    valid = (width >= 0) & (height >= 0)
    return torch.where(valid, (width + plus) * (height + plus), 0.0)


def overlaps(a: torch.Tensor, b: torch.Tensor, plus: float = 0.0) -> torch.Tensor:
    """Intersection over union of each box of a (A, 4) with each of b (B, 4): (A, B)."""
    start = torch.maximum(a[:, None, :2], b[None, :, :2])
    end = torch.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = (end - start + plus).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    union = areas(a, plus)[:, None] + areas(b, plus)[None, :] - shared
    return torch.where(shared > 0, shared / union, 0.0)


def paired_overlaps(a: torch.Tensor, b: torch.Tensor, plus: float = 0.0) -> torch.Tensor:
    """Intersection over union of boxes in the same places of a and b, both (..., 4): (...)."""
    start, end = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    sides = (end - start + plus).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    return torch.where(shared > 0, shared / (areas(a, plus) + areas(b, plus) - shared), 0.0)


def clip(boxes: torch.Tensor, width: float = 1.0, height: float = 1.0) -> torch.Tensor:
    """Boxes (..., 4) cut to 0..width and 0..height."""
    high = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes, high).clamp(min=0)


def to_center_size(boxes: torch.Tensor, plus: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres and sizes, each (..., 2), of boxes (..., 4)."""
    size = boxes[..., 2:] - boxes[..., :2] + plus
    return boxes[..., :2] + size / 2, size


def from_center_size(center: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Boxes (..., 4) from centres and sizes, each (..., 2)."""
    return torch.cat([center - size / 2, center + size / 2], -1)


def encode(
    boxes: torch.Tensor, priors: torch.Tensor, variances: torch.Tensor | None, code: int
) -> torch.Tensor:
    """What a net should predict, (..., 4), where a prior is to become a box.

    CORNER: the differences of the corners; CORNER_SIZE: these over the prior's size; CENTER_SIZE:
    the difference of the centres over the prior's size, and the logarithm of the ratio of sizes.
    All are divided by the variances (..., 4), if given (EncodeBBox in SSD's bbox_util.cpp).
    """
    if code == CENTER_SIZE:
        center, size = to_center_size(boxes)
        prior_center, prior_size = to_center_size(priors)
        codes = torch.cat([(center - prior_center) / prior_size, (size / prior_size).log()], -1)
    else:
        codes = boxes - priors
        if code == CORNER_SIZE:
            codes = codes / _twice(to_center_size(priors)[1])
    return codes if variances is None else codes / variances


def decode(
    codes: torch.Tensor, priors: torch.Tensor, variances: torch.Tensor | None, code: int
) -> torch.Tensor:
    """The boxes (..., 4) that predictions make of priors; the inverse of encode (DecodeBBox)."""
    if variances is not None:
        codes = codes * variances
    if code == CENTER_SIZE:
        center, size = to_center_size(priors)
        return from_center_size(codes[..., :2] * size + center, codes[..., 2:].exp() * size)
    if code == CORNER_SIZE:
        codes = codes * _twice(to_center_size(priors)[1])
    return priors + codes


def _twice(size: torch.Tensor) -> torch.Tensor:
    """(width, height, width, height) of sizes (..., 2)."""
    return torch.cat([size, size], -1)


def match(
    overlap: torch.Tensor, threshold: float | None, ignored: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ground truth that each prediction is matched to (MatchBBox in SSD's bbox_util.cpp).

    overlap: (predictions, ground truths). First each ground truth gets the prediction that overlaps
    it most, the largest overlap first; then, unless threshold is None, each prediction that is left
    gets the ground truth that it overlaps most, if that is at least the threshold. ignored: a mask
    of predictions that take no part. Returns the indices, -1 for none and IGNORED, and for each
    prediction its overlap with its match, or else the largest.
    """
    count, truths = overlap.shape
    indices = torch.full((count,), -1, dtype=torch.long, device=overlap.device)
    if count == 0 or truths == 0:
        return indices, overlap.new_zeros(count)
    overlap = torch.where(overlap > _LEAST_OVERLAP, overlap, 0.0)
    if ignored is not None:
        overlap = torch.where(ignored[:, None], 0.0, overlap)
        indices[ignored] = IGNORED
    best, truth = overlap.max(1)
    if threshold is not None:
        good = (best >= threshold) & (best > 0)
        indices = torch.where(good, truth, indices)
    _match_each_truth(overlap, indices, best)
    return indices, best


def _match_each_truth(overlap: torch.Tensor, indices: torch.Tensor, best: torch.Tensor) -> None:
    """Give each ground truth its prediction; writes to indices and best."""
    left = overlap.clone()
    for _ in range(overlap.shape[1]):
        place = int(left.argmax())
        prediction, truth = divmod(place, overlap.shape[1])
        value = left[prediction, truth]
        if value <= 0:
            return
        indices[prediction], best[prediction] = truth, value
        left[prediction], left[:, truth] = 0, 0


@np.errstate(invalid="ignore", over="ignore")  # boxes of an untrained net may be infinite
def suppress(
    boxes: np.ndarray,
    scores: np.ndarray,
    threshold: float,
    *,
    top_k: int = -1,
    most: int = -1,
    eta: float = 1.0,
    plus: float = 0.0,
    over: str = "IOU",
) -> np.ndarray:
    """Indices of the boxes that non-maximum suppression keeps, the highest score first.

    boxes (N, 4) and scores (N), of which the top_k highest are looked at (-1: all); it ends when
    `most` are kept. A box is kept
    unless it overlaps a kept one by more than the threshold. Below an eta of 1 each kept box makes
    the threshold smaller by that factor as long as it is above 0.5 (ApplyNMSFast in SSD's
    bbox_util.cpp). Equal scores keep their order. It works on the host.
    over: what the intersection is divided by: the union ("IOU"), or as in MS-CNN the smaller area
    ("IOMU") or the area of the kept box ("IOFU").
    """
    order = np.argsort(-scores, kind="stable")
    order = order if top_k < 0 else order[:top_k]
    ordered = boxes[order]
    start, end = ordered[:, :2].T, ordered[:, 2:].T
    sides = end - start
    area = np.where((sides >= 0).all(0), (sides[0] + plus) * (sides[1] + plus), 0)
    worst = np.zeros(len(order), boxes.dtype)  # the largest overlap with a kept box
    kept, k = [], 0
    while k < len(order):
        kept.append(k)
        if len(kept) == most:
            break
        rest = slice(k + 1, None)
        low = np.maximum(start[:, rest], start[:, k : k + 1])
        high = np.minimum(end[:, rest], end[:, k : k + 1])
        width, height = np.maximum(high - low + plus, 0)
        shared = width * height
        whole = area[rest] + area[k] - shared
        if over != "IOU":
            whole = np.minimum(area[rest], area[k]) if over == "IOMU" else area[k]
        ratio = np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)
        np.maximum(worst[rest], ratio, out=worst[rest])
        if eta < 1 and threshold > 0.5:
            threshold *= eta
        free = np.flatnonzero(worst[rest] <= threshold)
        if not len(free):
            break
        k += 1 + int(free[0])
    return order[np.array(kept, np.intp)]

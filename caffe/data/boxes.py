"""The boxes of a picture as it is cropped, resized, padded and mirrored; random crops (SSD).

Boxes are rows of an array (n, 7), float32: label, instance, xmin, ymin, xmax, ymax, difficult;
coordinates are fractions of the picture. A window is (xmin, ymin, xmax, ymax), too, and may lie
partly outside.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caffe.errors import CaffeError
from caffe.proto import caffe_pb2 as pb

CORNERS = slice(2, 6)
WHOLE = (0.0, 0.0, 1.0, 1.0)
Window = Sequence[float] | np.ndarray


def projected(rows: np.ndarray, window: Window, emit: pb.EmitConstraint | None) -> np.ndarray:
    """The boxes as fractions of a window, cut to it; those without area there are left out.

    emit: which boxes stay: those whose centre is within, or those of which more than emit_overlap
    is (TransformAnnotation in SSD's data_transformer.cpp).
    """
    window = np.asarray(window, np.float32)
    boxes = rows[:, CORNERS]
    keep = ((boxes[:, :2] < window[2:]) & (boxes[:, 2:] > window[:2])).all(1)
    if emit is not None:
        if emit.emit_type == pb.EmitConstraint.CENTER:
            center = (boxes[:, :2] + boxes[:, 2:]) / 2
            keep &= ((center >= window[:2]) & (center <= window[2:])).all(1)
        else:
            keep &= covered(boxes, window[None])[:, 0] > emit.emit_overlap
    rows = rows[keep]
    size = np.tile(window[2:] - window[:2], 2)
    moved = ((rows[:, CORNERS] - np.tile(window[:2], 2)) / size).clip(0, 1)
    found = rows.copy()
    found[:, CORNERS] = moved
    return found[(moved[:, 2:] > moved[:, :2]).all(1)]


def mirrored(rows: np.ndarray) -> np.ndarray:
    """The boxes of the picture seen in a mirror."""
    found = rows.copy()
    found[:, 2], found[:, 4] = 1 - rows[:, 4], 1 - rows[:, 2]
    return found


def resized(rows: np.ndarray, p: pb.ResizeParameter, height: int, width: int) -> np.ndarray:
    """The boxes after a picture of this size was resized (UpdateBBoxByResizePolicy)."""
    if p.resize_mode != pb.ResizeParameter.FIT_LARGE_SIZE_AND_PAD:
        found = rows.copy()
        found[:, CORNERS] = rows[:, CORNERS].clip(0, 1)
        return found
    aspect, new = np.float32(width / height), np.array([p.width, p.height], np.float32)
    border = np.zeros(2, np.float32)
    if aspect > new[0] / new[1]:
        border[1] = (new[1] - new[0] / aspect) / 2
    else:
        border[0] = (new[0] - aspect * new[1]) / 2
    inner = np.tile((new - 2 * border) / new, 2)
    start = np.tile(border / new, 2)
    moved = rows[:, CORNERS] * inner
    moved[:, :2] = moved[:, :2].clip(0, None)
    moved[:, 2:] = moved[:, 2:].clip(None, 1)
    found = rows.copy()
    found[:, CORNERS] = moved + start
    return found


def new_size(p: pb.ResizeParameter, height: int, width: int) -> tuple[int, int]:
    """(height, width) of a picture of this size after it was resized (InferNewSize)."""
    if p.resize_mode == pb.ResizeParameter.FIT_SMALL_SIZE:
        aspect = np.float32(width / height)
        if aspect < np.float32(p.width / p.height):
            return int(p.width / aspect), p.width
        return p.height, int(aspect * p.height)
    return p.height, p.width


def extrapolated(
    rows: np.ndarray, p: pb.ResizeParameter, height: int, width: int, window: Window
) -> np.ndarray:
    """With height_scale and width_scale, boxes as multiples of these (ExtrapolateBBox)."""
    fits = p.resize_mode == pb.ResizeParameter.FIT_SMALL_SIZE
    if not (fits and p.height_scale and p.width_scale):
        return rows
    high, wide = new_size(p, height, width)
    sides = np.array([wide * (window[2] - window[0]), high * (window[3] - window[1])], np.float32)
    least = np.array([p.width_scale, p.height_scale], np.float32)
    if (sides < least).any():
        raise CaffeError("resize_param: width_scale and height_scale exceed the cropped picture")
    found = rows.copy()
    found[:, CORNERS] *= np.tile(sides / least, 2)
    return found


def sampled(
    samplers: Sequence[pb.BatchSampler], boxes: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """A random window that one of the samplers allows for these boxes (n, 4); None if there is
    none (sampler.cpp).
    """
    found = [_allowed(sampler, boxes, rng) for sampler in samplers if sampler.use_original_image]
    windows = np.concatenate(found) if found else np.zeros((0, 4))
    return windows[rng.integers(len(windows))] if len(windows) else None


def jittered(jitter: float, square: bool, rng: np.random.Generator) -> np.ndarray:
    """A random window whose sides are shorter by up to `jitter`, by half of it, or the whole
    picture, with probabilities of 0.6, 0.2 and 0.2. square: both sides by as much
    (GenerateJitterSamples in MobileNet-YOLO's sampler.cpp).
    """
    least = 1 - jitter * rng.choice([0, 0.5, 1], p=[0.2, 0.2, 0.6])
    size = rng.uniform(least, 1, 2)
    size = size[[0, 0]] if square else size
    start = rng.uniform(size=2) * (1 - size)
    return np.concatenate([start, start + size])


def check_sampler(sampler: pb.Sampler) -> None:
    """Raise CaffeError unless windows can be drawn."""
    if not 0 < sampler.min_scale <= sampler.max_scale <= 1:
        raise CaffeError(
            f"sampler: min_scale {sampler.min_scale:g} and max_scale {sampler.max_scale:g}, "
            "expected 0 < min_scale <= max_scale <= 1"
        )
    low, high = sampler.min_aspect_ratio, sampler.max_aspect_ratio
    if not 0 < low <= high < np.finfo(np.float32).max:
        raise CaffeError(
            f"sampler: min_aspect_ratio {low:g} and max_aspect_ratio {high:g}, expected "
            "0 < min_aspect_ratio <= max_aspect_ratio"
        )


def _allowed(sampler: pb.BatchSampler, boxes: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The windows of max_trials that meet the constraint, at most max_sample."""
    p, count = sampler.sampler, min(sampler.max_trials, _MOST_TRIALS)
    scale = rng.uniform(p.min_scale, p.max_scale, count)
    ratio = rng.uniform(p.min_aspect_ratio, p.max_aspect_ratio, count)
    ratio = ratio.clip(scale**2, 1 / scale**2)  # so that both sides fit
    size = np.stack([scale * np.sqrt(ratio), scale / np.sqrt(ratio)], 1)
    start = rng.uniform(size=(count, 2)) * (1 - size)
    windows = np.concatenate([start, start + size], 1)
    good = windows[_meet(windows, boxes, sampler.sample_constraint)]
    return good[: sampler.max_sample] if sampler.HasField("max_sample") else good


_MOST_TRIALS = 10000  # windows are drawn at once


def _meet(windows: np.ndarray, boxes: np.ndarray, p: pb.SampleConstraint) -> np.ndarray:
    """Which windows meet a constraint with some box. As in SatisfySampleConstraint, of several
    kinds of constraints only the first counts.
    """
    kinds = ("jaccard_overlap", "sample_coverage", "object_coverage")
    for kind in kinds:
        low, high = (p.HasField(f"{end}_{kind}") for end in ("min", "max"))
        if not (low or high):
            continue
        if kind == "jaccard_overlap":
            value = overlaps(windows, boxes)
        elif kind == "sample_coverage":
            value = covered(windows, boxes)
        else:
            value = covered(boxes, windows).T
        good = np.ones(value.shape, bool)
        if low:
            good &= value >= getattr(p, f"min_{kind}")
        if high:
            good &= value <= getattr(p, f"max_{kind}")
        return good.any(1)
    return np.ones(len(windows), bool)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2]).clip(0, None).prod(1)


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The area that each box of a (A, 4) shares with each of b (B, 4)."""
    start = np.maximum(a[:, None, :2], b[None, :, :2])
    end = np.minimum(a[:, None, 2:], b[None, :, 2:])
    return (end - start).clip(0, None).prod(2)


def covered(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The share of each box of a that each of b covers, (A, B)."""
    shared, area = _shared(a, b), _areas(a)[:, None]
    return np.divide(shared, area, out=np.zeros_like(shared), where=shared > 0)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of each box of a with each of b, (A, B)."""
    shared = _shared(a, b)
    union = _areas(a)[:, None] + _areas(b)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)

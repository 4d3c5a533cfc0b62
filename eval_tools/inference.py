"""Labels frames with a net: resolution, test-time augmentation, refinement, the best class."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from boundary.late import cv2
from data_tools.cli import DataError
from data_tools.fit import Placement, pixels
from data_tools.record import bilinear, nearest
from eval_tools.network import Network
from eval_tools.records import Record


@dataclass(frozen=True)
class Options:
    """Options of inference.

    size: (width, height) of the label maps; frames are then resized to the net's inputs, and its
        scores are resized bilinearly; what a cropped frame did not show gets label 0. None: the net
        is reshaped to the frames.
    flip: average with the frame mirrored left to right.
    scales: average over the frame at these multiples of its size.
    crf: refine with a dense CRF on the frame's colours (those of its guide, if it has one).
    labels: the labels to choose from; None for all that the net scores.
    """

    size: tuple[int, int] | None = None
    flip: bool = False
    scales: tuple[float, ...] = (1.0,)
    crf: bool = False
    labels: tuple[int, ...] | None = None

    @property
    def augments(self) -> bool:
        """Whether several views of a frame are averaged."""
        return self.flip or self.scales != (1.0,)


@dataclass(frozen=True)
class Segmented:
    """A frame's labels, uint8 (H, W); the probability of each, float32; its scene, from 0.

    probabilities: of all labels, float32 (labels, H, W).
    """

    label: np.ndarray
    confidence: np.ndarray | None = None
    scene: int | None = None
    probabilities: np.ndarray | None = None


def segment(
    network: Network,
    frames: Sequence[Record],
    options: Options,
    confidence: bool = False,
    every: bool = False,
) -> list[Segmented]:
    """Labels a batch of frames of one size.

    confidence, every: whether the probability of each pixel's label, of all labels is asked for.

    The label of a pixel is the first with the highest score. The softmax probabilities of several
    views are averaged at the net's resolution before they are resized.

    Raises:
        DataError: the net does not accept frames of that size, or its scores are not finite.
    """
    labels = np.array(options.labels or range(network.values), np.uint8)
    height, width = network.size if options.size else frames[0].size
    color = [at_size(bilinear, frame.color, (width, height)) for frame in frames]
    depth = [at_size(nearest, frame.depth, (width, height)) for frame in frames]
    if options.augments:
        maps, scenes = _average(network, color, depth, options, labels)
    else:
        maps = network.scores(color, depth)
        scenes = network.scene_scores() if network.scene else None
    size = options.size or (width, height)
    results = []
    for n, frame in enumerate(frames):
        placed = frame.placement if options.size else Placement()
        inner = pixels(placed.source, size)
        scores = resize_maps(cut(maps[n], pixels(placed.target, (width, height))), inner[2:])
        found = scores if options.augments else scores[labels]
        if options.crf:
            from eval_tools.crf import refine  # needs torch, which may be missing with pycaffe

            found = found if options.augments else probabilities(scores, labels)
            picture = at_size(bilinear, frame.picture, size).transpose(2, 0, 1)
            found = refine(found, np.ascontiguousarray(cut(picture, inner).transpose(1, 2, 0)))
        index, best = first_highest(found)
        if not np.isfinite(best).all():
            raise DataError(f"{network.name}: the scores of frame {frame.key} are not finite")
        # Labels come from the scores themselves, because rounding in softmax can make ties.
        if (confidence or every) and not (options.crf or options.augments):
            found = probabilities(scores, labels)
        results.append(
            Segmented(
                spread(labels[index], inner, size),
                spread(found.max(0), inner, size) if confidence else None,
                None if scenes is None else int(scenes[n].argmax()),
                spread(found, inner, size) if every else None,
            )
        )
    return results


Window = tuple[int, int, int, int]  # left, top, width, height in pixels


def cut(maps: np.ndarray, window: Window) -> np.ndarray:
    """The window of maps (values, H, W)."""
    left, top, width, height = window
    return maps[:, top : top + height, left : left + width]


def spread(plane: np.ndarray, window: Window, size: tuple[int, int]) -> np.ndarray:
    """A plane (..., H, W) in its window of a plane of `size` that is 0 elsewhere."""
    left, top, width, height = window
    if (width, height) == size:
        return plane
    result = np.zeros((*plane.shape[:-2], *size[::-1]), plane.dtype)
    result[..., top : top + height, left : left + width] = plane
    return result


def _average(
    network: Network,
    color: list[np.ndarray],
    depth: list[np.ndarray],
    options: Options,
    labels: np.ndarray,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Mean probabilities (N, labels, H, W) and scene scores (N, scenes) over all views."""
    height, width = depth[0].shape
    total = np.zeros((len(depth), len(labels), height, width), np.float32)
    scenes = np.zeros((len(depth), network.scenes), np.float32) if network.scene else None
    for scale in options.scales:
        size = tuple(max(1, round(side * scale)) for side in (width, height))
        scaled = [at_size(bilinear, c, size) for c in color]
        scaled_depth = [at_size(nearest, d, size) for d in depth]
        for step in (1, -1) if options.flip else (1,):
            maps = network.scores(
                [c[:, ::step] for c in scaled], [d[:, ::step] for d in scaled_depth]
            )
            for n, scores in enumerate(maps):
                found = probabilities(scores, labels)[:, :, ::step]
                total[n] += resize_maps(found, (width, height))
            if scenes is not None:
                scenes += network.scene_scores()
    return total / (len(options.scales) * (1 + options.flip)), scenes


def batches(
    frames: Iterable[Record], count: int, kind: Callable[[Record], Any] = lambda frame: frame.size
) -> Iterator[list[Record]]:
    """Batches of at most `count` successive frames of one kind (by default of one size)."""
    batch: list[Record] = []
    for frame in frames:
        if batch and (len(batch) == count or kind(batch[0]) != kind(frame)):
            yield batch
            batch = []
        batch.append(frame)
    if batch:
        yield batch


def at_size(resize: Callable, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """image (H, W[, 3]) at size (width, height); unchanged if it has that size."""
    return image if image.shape[1::-1] == size else resize(np.ascontiguousarray(image), size)


def resize_maps(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """maps (values, H, W) resized bilinearly, pixel centres at halves, to (width, height)."""
    if maps.shape[:0:-1] == size:
        return maps
    planes = np.ascontiguousarray(maps)
    return np.stack([cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in planes])


def probabilities(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Softmax over some labels of scores (values, H, W): float32 (labels, H, W).

    Scores that are already probabilities (of a net that ends in Softmax) are only normalised.
    """
    found = scores[labels]
    if scores.min() < 0 or np.abs(scores.sum(0) - 1).max() > 1e-3:
        found = np.exp(found - found.max(0))
    found /= np.maximum(found.sum(0), np.finfo(np.float32).tiny)
    return found


def first_highest(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first index of the highest value in (values, H, W), uint8 (H, W), and that value.

    It gives the same as numpy.argmax, three times faster. If a value is NaN, so is the highest.
    """
    best = maps[0].copy()
    index = np.zeros(best.shape, np.uint8)
    for value in range(1, len(maps)):
        index[maps[value] > best] = value
        np.maximum(best, maps[value], out=best)
    return index, best

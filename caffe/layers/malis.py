"""MALIS: a loss of neighbouring pixels that counts what is joined wrongly, and what it needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from boundary.late import cv2
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.look import OUTPUT


@register("Affinity")
class Affinity(Layer):
    """How strongly each pixel is tied to the one below and the one to its right: the smaller value.

    Bottoms: (N, C, H, W), of which the first sample counts. Tops: (1, 2, H, W), one for each; the
    last row and column are 0. `offset` names the channel of each bottom (0). As in the fork, the
    gradient goes to the pixel itself, whichever of the two is smaller, and its negative to the same
    pixel of channel 1 - offset, if there is one (Project Greentea's affinity_layer.cpp).
    """

    fork = "Project Greentea"
    judge = "worked cases"
    bottoms = (1, None)
    tops = (1, None)
    one_top_each = True
    in_place = False
    reads = ("affinity_param",)

    def _channel(self, i: int) -> int:
        offsets = self.layer_param.affinity_param.offset
        return offsets[i] if i < len(offsets) else 0

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        for i, shape in enumerate(shapes):
            self.check(
                len(shape) == 4 and shape[0] > 0,
                f"bottom {i} has the shape {shape}, expected (N, C, H, W)",
            )
            channel = self._channel(i)
            self.check(
                0 <= channel < shape[1],
                f"offset {channel} is no channel of bottom {i}, which has {shape[1]}",
            )
        return [(1, 2, *shape[2:]) for shape in shapes]

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        return [self._tie(x, self._channel(i)) for i, x in enumerate(bottom)]

    @staticmethod
    def _tie(x: torch.Tensor, channel: int) -> torch.Tensor:
        plane = x[0, channel]
        top = x.new_zeros(2, *plane.shape)
        here = plane.detach()[:-1, :-1]
        top[0, :-1, :-1] = torch.minimum(here, plane.detach()[1:, :-1])
        top[1, :-1, :-1] = torch.minimum(here, plane.detach()[:-1, 1:])
        other = (channel + 1) % 2
        source = plane - x[0, other] if other < x.shape[1] else plane
        inside = torch.zeros_like(top)
        inside[:, :-1, :-1] = 1
        return with_gradient_of(top, source * inside)[None]


@register("ConnectedComponent")
class ConnectedComponent(Layer):
    """Gives each connected region of one value in a plane a number of its own.

    Bottom and top: (N, C, H, W), whole numbers. 0 stays 0; regions, joined along rows and columns,
    are numbered from the plane's largest value + 1 on, in the order of their first pixels (Project
    Greentea's connected_component_layer.cpp).
    """

    fork = "Project Greentea"
    judge = "worked cases"
    labels = (0,)
    look = OUTPUT

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        self.check(len(shapes[0]) == 4, f"bottom has the shape {shapes[0]}, expected (N, C, H, W)")
        return [shapes[0]]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        x = bottom[0].detach()
        planes = x.nan_to_num().flatten(0, 1).cpu().numpy().astype(np.int64)
        top = np.stack([_numbered(plane) for plane in planes]) if planes.size else planes
        return torch.from_numpy(top).to(x).reshape(x.shape)


def _numbered(plane: np.ndarray) -> np.ndarray:
    """The numbers of a plane's regions."""
    largest, marks = max(int(plane.max()), 0), (plane & 255).astype(np.uint8)
    total, regions = 0, np.zeros(plane.shape, np.int64)
    for value in np.unique(marks):
        if value:
            count, found = cv2.connectedComponents((marks == value).view(np.uint8), connectivity=4)
            regions += np.where(found > 0, found + total, 0)
            total += count - 1
    seen, first = np.unique(regions, return_index=True)
    order = np.zeros(total + 1, np.int64)
    inside = seen > 0
    order[seen[inside][np.argsort(first[inside])]] = np.arange(1, inside.sum() + 1)
    return np.where(regions > 0, order[regions] + largest, 0)


@register("MalisLoss")
class MalisLoss(Layer):
    """For all pairs of pixels, how wrongly the path between them joins or parts them.

    Bottoms: predicted ties (N, E, [[Z,] Y,] X), true ties of this shape, the segments (N, 1 or 2,
    ...; 0: none; of two channels the second is for pairs of one segment), and perhaps the E edges
    as steps along Z, Y and X; else E of +Z, +Y, +X, the last ones first. Two pixels are as strongly
    tied as the weakest edge of the best path between them; pairs of one segment should have 1,
    others 0. Tops: half of the mean square of what is missing and what is too much; the predicted
    ties. As in the fork the gradient does not see the loss weight, nor the number of samples
    (Turaga et al., 2009; Project Greentea's malis_loss_layer.cpp).
    """

    fork = "Project Greentea"
    judge = "worked cases"
    bottoms = (3, 4)
    tops = (1, 2)
    auto_tops = True
    loss = True
    labels = (1, 2, 3)
    look = OUTPUT
    differs = "Every sample of a batch has its gradient; in the fork the last one's alone is kept."

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        ties, truth, segments = shapes[:3]
        self.check(
            3 <= len(ties) <= 5 and ties[0] > 0,
            f"predicted ties have the shape {ties}, expected (N, E, X) to (N, E, Z, Y, X)",
        )
        self.check(truth == ties, f"true ties have the shape {truth}, expected {ties}")
        self.check(
            len(segments) == len(ties)
            and segments[:1] == ties[:1]
            and segments[1] in (1, 2)
            and segments[2:] == ties[2:],
            f"segments have the shape {segments}, expected ({ties[0]}, 1 or 2, ...) as {ties}",
        )
        edges = ties[1]
        if len(shapes) == 4:
            self.check(
                math.prod(shapes[3]) == 3 * edges,
                f"edges have the shape {shapes[3]}, expected 3 numbers for each of {edges}",
            )
        else:
            self.check(1 <= edges <= 3, f"{edges} edges need a bottom that says which they are")
        return [(), ties][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.top_shapes(bottom)
        ties, edges = bottom[0], bottom[0].shape[1]
        steps = np.eye(3, dtype=np.int64)[3 - edges :] if len(bottom) == 3 else None
        if steps is None:
            steps = bottom[3].detach().cpu().numpy().astype(np.int64).reshape(edges, 3)
        image = (*[1] * (5 - ties.dim()), *ties.shape[2:])
        ends = _ends(steps, image)
        total, slopes = 0.0, []
        for own, true, segments in zip(*bottom[:3], strict=True):
            predicted, actual, marks = (
                v.detach().cpu().double().flatten(1).numpy() for v in (own, true, segments)
            )
            slope = np.zeros(predicted.shape)
            for joined, tie in ((False, np.maximum), (True, np.minimum)):
                labels = marks[-1 if joined else 0].astype(np.int64)
                loss, more = _malis(tie(predicted, actual), labels, ends, joined)
                total += 0.5 * loss
                slope -= 0.5 * more
            slopes.append(torch.from_numpy(slope).to(own).reshape(own.shape))
        value = ties.new_tensor(total / ties.shape[0])
        loss = _Fixed.apply(ties, value, torch.stack(slopes))
        return loss if self.num_tops == 1 else [loss, ties.detach().clone()]


class _Fixed(torch.autograd.Function):
    """A value whose gradient is given, whatever comes from behind."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, value: torch.Tensor, slope: torch.Tensor):
        ctx.save_for_backward(slope)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor):
        return ctx.saved_tensors[0], None, None


def _ends(steps: np.ndarray, image: Shape) -> np.ndarray:
    """The pixel at the other end of each edge, (E, pixels); -1 beyond the image."""
    places = np.indices(image).reshape(3, -1)
    found = []
    for step in steps:
        other = places + step[:, None]
        inside = ((other >= 0) & (other < np.array(image)[:, None])).all(0)
        flat = (other[0] * image[1] + other[1]) * image[2] + other[2]
        found.append(np.where(inside, flat, -1))
    return np.array(found)


def _malis(
    ties: np.ndarray, labels: np.ndarray, ends: np.ndarray, joined: bool
) -> tuple[float, np.ndarray]:
    """The mean square error of pairs, and how much each tie lacks, (E, pixels), weighted by pairs.

    joined: pairs of one segment, which should have 1; else pairs of different ones, which should
    have 0.
    """
    pairs = _pairs(labels, joined)
    lacks = np.zeros(ties.size)
    if not pairs:
        return 0.0, lacks.reshape(ties.shape)
    edges = np.flatnonzero(ends.ravel() >= 0)
    edges = edges[np.argsort(-ties.ravel()[edges], kind="stable")]
    parent = list(range(len(labels)))
    sizes = [{label: 1} if label else {} for label in labels.tolist()]
    total, others, strengths = 0.0, ends.ravel(), ties.ravel()
    for edge in edges.tolist():
        a, b = _root(parent, edge % len(labels)), _root(parent, int(others[edge]))
        if a == b:
            continue
        first, second = sizes[a], sizes[b]
        if len(first) < len(second):
            a, b, first, second = b, a, second, first
        same = sum(count * first.get(label, 0) for label, count in second.items())
        count = same if joined else sum(first.values()) * sum(second.values()) - same
        lack = (1.0 if joined else 0.0) - strengths[edge]
        total += lack * lack * count
        lacks[edge] = lack * count / pairs
        for label, size in second.items():
            first[label] = first.get(label, 0) + size
        parent[b], sizes[b] = a, {}
    return total / pairs, lacks.reshape(ties.shape)


def _pairs(labels: np.ndarray, joined: bool) -> int:
    """How many pairs of labelled pixels are of one segment, or of different ones."""
    counts = np.unique(labels[labels != 0], return_counts=True)[1].tolist()
    same = sum(n * (n - 1) // 2 for n in counts)
    whole = sum(counts)
    return same if joined else whole * (whole - 1) // 2 - same


def _root(parent: list[int], place: int) -> int:
    while parent[place] != place:
        parent[place] = place = parent[parent[place]]
    return place

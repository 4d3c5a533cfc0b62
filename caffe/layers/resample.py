"""Layers that give images another size, as FlowNet2 does: Resample, Downsample, Accum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.proto import caffe_pb2 as pb

F32 = np.float32
Curve = Callable[[np.ndarray], np.ndarray]  # distances -> weights


@dataclass
class Taps:
    """How one axis of the result comes from one of the image: weighted sums of neighbours.

    places: (result, taps) of int64, within the image. weights: (result, taps), float32; zero for
    neighbours beyond the image.
    """

    places: np.ndarray
    weights: np.ndarray

    @classmethod
    def around(cls, centres: np.ndarray, radius: int, size: int, weigh: Curve) -> Taps:
        """The points up to `radius` away from the centres, rounded half away from zero, in an
        image of `size` points. weigh: distances (result, taps) -> weights.
        """
        middle = np.sign(centres) * np.floor(np.abs(centres.astype(float)) + 0.5)
        places = middle.astype(np.int64)[:, None] + np.arange(-radius, radius + 1)
        weights = weigh(places.astype(F32) - centres[:, None])
        good = (places >= 0) & (places < size)
        return cls(places.clip(0, size - 1), np.where(good, weights, 0).astype(F32))

    def matrix(self, size: int) -> np.ndarray:
        """The sums as a matrix (result, size)."""
        rows = np.zeros((len(self.places), size), F32)
        np.add.at(rows, (np.arange(len(rows))[:, None], self.places), self.weights)
        return rows


def apply(x: torch.Tensor, axis: int, taps: Taps) -> torch.Tensor:
    """x with one axis replaced by its weighted sums, tap by tap."""
    places = torch.from_numpy(taps.places).to(x.device)
    weights = torch.from_numpy(taps.weights).to(x)
    shape = [1] * x.dim()
    shape[axis] = -1
    total = torch.zeros(())
    for tap in range(places.shape[1]):
        total = x.index_select(axis, places[:, tap]) * weights[:, tap].view(shape) + total
    return total


class _Resizing(Layer):
    """An image in another size, which is given or another bottom's.

    Bottoms: (N, C, H, W); optionally (..., h, w), which gives the size. Top: (N, C, h, w). It has
    no gradient.
    """

    bottoms = (1, 2)
    labels = (0, 1)
    fork = "FlowNet2"
    judge = "recorded"

    def size(self) -> tuple[int, int]:
        """The height and width that the parameters ask for."""
        raise AssertionError("set by the subclass")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        image = shapes[0]
        self.check(
            all(len(shape) == 4 for shape in shapes) and min(image[2:]) > 0,
            f"bottoms have the shapes {', '.join(map(str, shapes))}, expected 4 axes each, and at "
            "least one pixel in bottom 0",
        )
        h, w = shapes[1][2:] if len(shapes) > 1 else self.size()
        self.check(h > 0 and w > 0, f"the top's height and width are {h} and {w}, not positive")
        return [(*image[:2], h, w)]


@register("Resample")
class Resample(_Resizing):
    """An image in another size: the nearest pixel, or a linear or cubic filter, which is widened
    where the image shrinks unless `antialias` is false (FlowNet2's resample_layer.cu).

    Weights are divided by their sum. As in FlowNet2 the half pixel's shift of each axis is the
    other axis's, and AREA is not there.
    """

    reads = ("resample_param",)
    takes = tuple(f"resample_param.{n}" for n in ("width", "height", "type", "antialias"))
    differs = "NEAREST stays within the image; FlowNet2 may read beyond it if the scales differ."

    def setup(self, shapes: Sequence[Shape]) -> None:
        kind = self.layer_param.resample_param.type
        self.check(
            kind != pb.ResampleParameter.AREA,
            "type AREA is not implemented, as in FlowNet2: expected NEAREST, LINEAR or CUBIC",
        )

    def size(self) -> tuple[int, int]:
        p = self.layer_param.resample_param
        return p.height, p.width

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The image with the top's width."""
        (top,) = self.infer_shapes(shapes)
        return shapes[0][0] * shapes[0][1] * shapes[0][2] * top[3]

    def _centres(self, image: Shape, top: Shape) -> list[tuple[np.ndarray, np.float32]]:
        """For rows and columns: where in the image the top's points lie, and the scale."""
        scales = [F32(a) / F32(b) for a, b in zip(image[2:], top[2:], strict=True)]
        found = []
        for n, scale, other in zip(top[2:], scales, scales[::-1], strict=True):
            found.append((np.arange(n, dtype=F32) * scale + other / F32(2) - F32(0.5), scale))
        return found

    def _taps(self, image: Shape, top: Shape) -> list[Taps]:
        """The weighted sums of rows and of columns."""
        p, found = self.layer_param.resample_param, []
        cubic = p.type == pb.ResampleParameter.CUBIC
        centres = self._centres(image, top)
        widen = p.antialias and any(scale > 1 for _, scale in centres)
        for (places, scale), size in zip(centres, image[2:], strict=True):
            if p.type == pb.ResampleParameter.NEAREST:
                found.append(Taps.around(places, 0, size, np.ones_like))
                continue
            a = F32(1) / scale if widen else F32(1)
            radius = 2 if scale < 1 else int(np.ceil(F32(4 if cubic else 2) / a))
            curve = partial(_cubic if cubic else _triangle, narrow=a)
            found.append(Taps.around(places, min(radius, 2 * size), size, curve))
        for taps in found:
            total = taps.weights.sum(1, keepdims=True)
            taps.weights = np.divide(
                taps.weights, total, np.zeros_like(taps.weights), where=total != 0
            )
        return found

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        x = bottom[0].detach()
        rows, columns = self._taps(tuple(x.shape), top)
        if self.layer_param.resample_param.type == pb.ResampleParameter.NEAREST:
            for axis, taps in ((2, rows), (3, columns)):
                x = x.index_select(axis, torch.from_numpy(taps.places[:, 0]).to(x.device))
            return x
        return apply(apply(x, 3, columns), 2, rows)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (top,) = self.infer_shapes([x.shape for x in bottoms])
        rows, columns = self._taps(bottoms[0].shape, top)
        if self.layer_param.resample_param.type == pb.ResampleParameter.NEAREST:
            y = graph.add("Gather", bottoms[0], graph.constant(rows.places[:, 0], np.int64), axis=2)
            return graph.add("Gather", y, graph.constant(columns.places[:, 0], np.int64), axis=3)
        return _matrices(graph, bottoms[0].name, bottoms[0].shape, rows, columns)


def _matrices(graph: Graph, x: str, image: Shape, rows: Taps, columns: Taps) -> str:
    """Weighted sums of rows and columns in ONNX, as products with matrices."""
    y = graph.add("MatMul", x, graph.constant(columns.matrix(image[3]).T))
    return graph.add("MatMul", graph.constant(rows.matrix(image[2])), y)


def _triangle(x: np.ndarray, narrow: np.float32) -> np.ndarray:
    return np.maximum(1 - np.abs(narrow * x), 0)


def _cubic(x: np.ndarray, narrow: np.float32) -> np.ndarray:
    x = np.abs(narrow * x)
    near = x * x * (1.5 * x - 2.5) + 1
    far = x * (x * (-0.5 * x + 2.5) - 4) + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0)).astype(F32)


@register("Downsample")
class Downsample(_Resizing):
    """A smaller image whose corners are the image's: mean values under a triangle as wide as the
    scale (FlowNet2's downsample_layer.cu).

    NaN marks pixels without a value: they do not count, and where they weigh more than half as
    much as the others the result is NaN. An image that has the size already stays as it is.
    """

    reads = ("downsample_param",)

    def size(self) -> tuple[int, int]:
        p = self.layer_param.downsample_param
        return p.top_height, p.top_width

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        (top,) = super().infer_shapes(shapes)
        self.check(
            top == shapes[0] or min(top[2:]) > 1,
            f"the top's height and width are {top[2]} and {top[3]}, expected at least 2, as the "
            "corners of top and bottom lie on each other",
        )
        return [top]

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The image with the top's width, and its weights."""
        (top,) = self.infer_shapes(shapes)
        return 2 * shapes[0][0] * shapes[0][1] * shapes[0][2] * top[3]

    def _taps(self, image: Shape, top: Shape) -> list[Taps]:
        found = []
        for size, n in zip(image[2:], top[2:], strict=True):
            scale = F32(size - 1) / F32(n - 1)
            centres = np.arange(n, dtype=F32) / F32(n - 1) * F32(size - 1)
            radius = int(np.ceil(scale))

            def weigh(distance: np.ndarray, scale: np.float32 = scale) -> np.ndarray:
                with np.errstate(invalid="ignore"):
                    return np.fmax(1 - np.abs(distance) / scale, 0)

            found.append(Taps.around(centres, radius, size, weigh))
        return found

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        x = bottom[0].detach()
        if top == tuple(x.shape):
            return x.clone()
        rows, columns = self._taps(tuple(x.shape), top)
        known = ~x.isnan()
        total, weight, missing = (
            apply(apply(y.to(x.dtype), 3, columns), 2, rows)
            for y in (torch.where(known, x, 0), known, ~known)
        )
        return torch.where(missing / weight > 0.5, torch.nan, total / weight)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (top,) = self.infer_shapes([x.shape for x in bottoms])
        x = bottoms[0]
        if top == x.shape:
            return graph.add("Identity", x)
        taps = self._taps(x.shape, top)
        unknown = graph.add("IsNaN", x)
        known = graph.to_float(graph.add("Not", unknown))
        x_known = graph.add("Where", unknown, graph.constant(0.0), x)
        total, weight, missing = (
            _matrices(graph, y, x.shape, *taps) for y in (x_known, known, graph.to_float(unknown))
        )
        lost = graph.add("Greater", graph.add("Div", missing, weight), graph.constant(0.5))
        return graph.add("Where", lost, graph.constant(np.nan), graph.add("Div", total, weight))


@register("Accum")
class Accum(Layer):
    """Images joined along the channels after each is drawn to one size, bilinearly, corners on
    corners (FlowNet2's accum_layer.cu).

    Bottoms: (N, C, H, W) each; with have_reference the last one gives the size alone. The size is
    otherwise the bottoms' greatest height and width, raised to a multiple of size_divisible_by or
    to top_height and top_width if both are larger. Top: (N, all channels, h, w).
    """

    bottoms = (1, None)
    fork = "FlowNet2"
    judge = "recorded"
    reads = ("accum_param",)
    differs = "An extent of 1 takes the first pixel; FlowNet2 divides zero by zero there."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.accum_param
        if p.have_reference:
            self.check(len(shapes) > 1, "have_reference needs a bottom besides the reference")
        self.check(
            not p.HasField("size_divisible_by") or p.size_divisible_by > 0,
            "size_divisible_by is 0, expected at least 1",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.accum_param
        images = shapes[:-1] if p.have_reference else shapes
        self.check(
            all(len(shape) == 4 and min(shape[2:]) > 0 for shape in images)
            and all(len(shape) == 4 for shape in shapes)
            and len({shape[0] for shape in images}) == 1,
            f"bottoms have the shapes {', '.join(map(str, shapes))}, expected images (N, C, H, W) "
            "for one N",
        )
        channels = sum(shape[1] for shape in images)
        return [(images[0][0], channels, *self._size(shapes))]

    def _size(self, shapes: Sequence[Shape]) -> Sequence[int]:
        p = self.layer_param.accum_param
        if p.have_reference:
            return shapes[-1][2:]
        greatest = [max(shape[axis] for shape in shapes) for axis in (2, 3)]
        if p.HasField("size_divisible_by"):
            asked = [-(-n // p.size_divisible_by) * p.size_divisible_by for n in greatest]
        else:
            asked = [p.top_height, p.top_width]
        larger = all(a > b for a, b in zip(asked, greatest, strict=True))
        return asked if larger else greatest

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        images = bottom[:-1] if self.layer_param.accum_param.have_reference else bottom
        return torch.cat([_drawn(x, top[2:]) for x in images], 1)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (top,) = self.infer_shapes([x.shape for x in bottoms])
        images = bottoms[:-1] if self.layer_param.accum_param.have_reference else bottoms
        parts = []
        for x in images:
            if x.shape[2:] == top[2:]:
                parts.append(x.name)
                continue
            taps = [_corner_taps(a, b) for a, b in zip(x.shape[2:], top[2:], strict=True)]
            parts.append(_matrices(graph, x.name, x.shape, *taps))
        return graph.add("Concat", *parts, axis=1)


def _drawn(x: torch.Tensor, size: Shape) -> torch.Tensor:
    if 0 in x.shape or 0 in size:
        return x.new_zeros(*x.shape[:2], *size)
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def _corner_taps(size: int, n: int) -> Taps:
    """Bilinear weights along one axis, corners on corners."""
    places = np.arange(n, dtype=F32) * (F32(size - 1) / F32(n - 1) if n > 1 else F32(0))
    low = np.floor(places).astype(np.int64).clip(0, size - 1)
    part = (places - low.astype(F32)).astype(F32)
    return Taps(np.stack([low, (low + 1).clip(max=size - 1)], 1), np.stack([1 - part, part], 1))

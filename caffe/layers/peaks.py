"""Heat maps enlarged, and the places of people's joints in them (OpenPose's first code)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.look import OUTPUT, Look

REACH = 3  # a peak's place is the centre of mass of so many pixels on each side


@register("ImResize")
class ImResize(Layer):
    """The mean of heat maps of several scales, each brought to one size by cubic interpolation.

    Bottom: (scales, C, H, W); map n has its values in its middle, 1 - start_scale + n scale_gap of
    the image less. Top: (1, C, height, width): `factor` times the bottom's size, or with factor: 0
    target_spatial_height and target_spatial_width (Cao et al., 2017; imresize_layer.cu).
    """

    fork = "caffe_rtpose"
    judge = "recorded"
    in_place = False
    reads = ("imresize_param",)
    differs = (
        "It has a gradient, the derivative. The fork's CPU code, OpenCV's resize, is not here."
    )
    look = Look("Upsample")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        [shape] = shapes
        p = self.layer_param.imresize_param
        self.check(
            len(shape) == 4 and min(shape) > 0,
            f"the bottom has the shape {shape}, expected (scales, C, H, W)",
        )
        for name in ("start_scale", "scale_gap"):
            value = getattr(p, name)
            self.check(abs(value) < 1e6, f"{name} is {value:g}, expected a number below 1e6")
        size = (p.target_spatial_height, p.target_spatial_width)
        if p.factor:
            self.check(0 < p.factor <= 1024, f"factor is {p.factor:g}, expected 0 to 1024")
            size = tuple(int(np.float32(side) * np.float32(p.factor)) for side in shape[2:])
        self.check(min(size) > 0, f"the top would have the size {size}, expected at least 1 x 1")
        for n in range(shape[0]):
            least = min(side - 2 * self.border(n, side) for side in shape[2:])
            inside = all(self.border(n, side) >= 0 for side in shape[2:])
            self.check(
                least > 0 and inside,
                f"start_scale {p.start_scale:g} and scale_gap {p.scale_gap:g} leave nothing of map "
                f"{n} of the bottom {shape}, or more than it has",
            )
        return [(1, shape[1], *size)]

    def border(self, n: int, side: int) -> int:
        """How many rows or columns map n lacks at each end."""
        p = self.layer_param.imresize_param
        less = np.float32(1) - np.float32(p.start_scale) + np.float32(n) * np.float32(p.scale_gap)
        return int(np.floor(np.float32(side // 2) * less))

    def weights(self, n: int, side: int, size: int) -> torch.Tensor:
        """What each of `size` places takes of each of `side` values of map n, (size, side)."""
        border = self.border(n, side)
        inner = side - 2 * border
        start = np.float32(size / np.float32(inner) / 2 - 0.5)
        step = np.float32(inner) / np.float32(size)
        place = ((np.arange(size, dtype=np.float32) - start) * step).astype(np.float32)
        first = np.maximum((place + 1e-5).astype(np.int64), 0)
        last = np.minimum(first + 1, inner - 1)
        near = [np.where(first > 0, first - 1, first), first, last, np.minimum(last + 1, inner - 1)]
        t = torch.from_numpy(place - first.astype(np.float32)).double()
        shares = [
            -0.5 * t**3 + t**2 - 0.5 * t,
            1.5 * t**3 - 2.5 * t**2 + 1,
            -1.5 * t**3 + 2 * t**2 + 0.5 * t,
            0.5 * t**3 - 0.5 * t**2,
        ]
        matrix = torch.zeros(size, side, dtype=torch.float64)
        for index, share in zip(near, shares, strict=True):
            matrix.scatter_add_(1, torch.from_numpy(index + border)[:, None], share[:, None])
        return matrix

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        [(_, _, height, width)] = self.top_shapes(bottom)
        x = bottom[0]
        total = x.new_zeros(())
        for n, maps in enumerate(x):
            rows = self.weights(n, x.shape[2], height).to(x)
            columns = self.weights(n, x.shape[3], width).to(x)
            total = total + rows @ maps @ columns.T
        return (total / len(x))[None]

    def scratch(self, shapes: Sequence[Shape]) -> int:
        [(_, channels, height, width)] = self.infer_shapes(shapes)
        h, w = shapes[0][2:]
        return channels * height * max(w, width) + 2 * (height * h + width * w)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        shape = bottoms[0].shape
        self.check(shape[0] == 1, "only maps of one scale have an ONNX form")
        [(_, _, height, width)] = self.infer_shapes([shape])
        rows = graph.constant(self.weights(0, shape[2], height).numpy())
        columns = graph.constant(self.weights(0, shape[3], width).T.numpy())
        return graph.add("MatMul", graph.add("MatMul", rows, bottoms[0]), columns)


@register("Nms")
class Nms(Layer):
    """The peaks of heat maps: values above `threshold` and above their eight neighbours.

    Bottom: (N, C, H, W); its first num_parts maps count. Top: (N, num_parts, max_peaks + 1, 3). Row
    0 begins with the number of peaks, which may be more than max_peaks; each row behind it has a
    peak's x, y and value, peaks in the order of their places. x and y are the centre of mass of the
    positive values at most 3 pixels away that are in no row or column 0 (Cao et al., 2017;
    nms_layer.cu).
    """

    fork = "caffe_rtpose"
    judge = "worked cases"
    in_place = False
    labels = (0,)
    reads = ("nms_param",)
    takes = ("nms_param.threshold", "nms_param.max_peaks", "nms_param.num_parts")
    differs = (
        "Neighbours are within the map; the fork takes the width for the height there. Rows "
        "without a peak are 0; there they are what an earlier pass left. The fork's CPU code is "
        "not here."
    )
    look = OUTPUT

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        [shape] = shapes
        p = self.layer_param.nms_param
        self.check(
            len(shape) == 4 and 0 < p.num_parts <= shape[1],
            f"the bottom has the shape {shape}, expected (N, C, H, W) with C at least num_parts, "
            f"{p.num_parts}",
        )
        return [(shape[0], p.num_parts, p.max_peaks + 1, 3)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        [shape] = self.top_shapes(bottom)
        p = self.layer_param.nms_param
        maps = bottom[0].detach()[:, : p.num_parts].flatten(0, 1)
        top = maps.new_zeros(shape).flatten(0, 1)
        plane, y, x = self._peaks(maps).nonzero(as_tuple=True)
        counts = torch.bincount(plane, minlength=len(maps))
        top[:, 0, 0] = counts.to(top)
        rank = torch.arange(len(plane), device=plane.device) - (counts.cumsum(0) - counts)[plane]
        kept = rank < p.max_peaks
        plane, y, x, rank = plane[kept], y[kept], x[kept], rank[kept]
        values = maps[plane, y, x]
        top[plane, rank + 1] = torch.stack([*self._centres(maps, plane, y, x), values], 1)
        return top.reshape(shape)

    def _peaks(self, maps: torch.Tensor) -> torch.Tensor:
        """Where the maps (planes, H, W) have peaks; there are none on the border."""
        peaks = torch.zeros_like(maps, dtype=torch.bool)
        height, width = maps.shape[1:]
        if min(height, width) < 3:
            return peaks
        inner = maps[:, 1:-1, 1:-1]
        good = inner > self.layer_param.nms_param.threshold
        for dy in (0, 1, 2):
            for dx in (0, 1, 2):
                if (dy, dx) != (1, 1):
                    good &= inner > maps[:, dy : dy + height - 2, dx : dx + width - 2]
        peaks[:, 1:-1, 1:-1] = good
        return peaks

    @staticmethod
    def _centres(
        maps: torch.Tensor, plane: torch.Tensor, y: torch.Tensor, x: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The x and y of the centres of mass around places."""
        steps = torch.arange(-REACH, REACH + 1, device=maps.device)
        rows, columns = (at[:, None] + steps for at in (y, x))
        inside = ((rows > 0) & (rows < maps.shape[1]))[:, :, None]
        inside = inside & ((columns > 0) & (columns < maps.shape[2]))[:, None]
        at_rows = rows.clamp(0, maps.shape[1] - 1)[:, :, None]
        at_columns = columns.clamp(0, maps.shape[2] - 1)[:, None]
        mass = maps[plane[:, None, None], at_rows, at_columns]
        mass = torch.where(inside & (mass > 0), mass, torch.zeros_like(mass))
        whole = mass.sum((1, 2))
        return (mass.sum(1) * columns).sum(1) / whole, (mass.sum(2) * rows).sum(1) / whole

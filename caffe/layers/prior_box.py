"""PriorBox and PriorBoxClustered: default boxes in each place of a feature map (SSD)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.look import Look

_MOST = 64  # boxes in a row of FaceBoxes' density


class _PriorBoxes(Layer):
    """Boxes around the centre of each place of a feature map.

    Bottoms: the feature map and the image, both (N, C, H, W), of which only the sizes count. Top:
    (1, 2, H W boxes 4): xmin, ymin, xmax, ymax of each box as fractions of the image, row by row;
    then the variances of the four.
    """

    bottoms = (2, 2)
    labels = (0, 1)
    in_place = False
    look = Look("Output")
    reads = ("prior_box_param",)
    cut = False  # corners that leave the image on their own side are moved to its edge

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.sides = self._sides()
        self.moves = np.zeros((len(self.sides), 2), np.float32)
        self.variances = self._variances()
        p = self.layer_param.prior_box_param
        self.image = self._pair(p, "img_size", "img_h", "img_w")
        self.step = self._pair(p, "step", "step_h", "step_w")

    def _sides(self) -> np.ndarray:
        """(width, height) of each box of a place, in pixels; moves: how far its centre is from the
        place's.
        """
        raise AssertionError("set by the subclass")

    @property
    def offsets(self) -> list[tuple[float, float]]:
        """(x, y) of each box's centre in its place, as fractions of a step, in the boxes' order."""
        offset = self.layer_param.prior_box_param.offset
        return [(offset, offset)] * len(self.sides)

    def _variances(self) -> list[float]:
        given = list(self.layer_param.prior_box_param.variance)
        self.check(len(given) in (0, 1, 4), f"has {len(given)} variances, expected one or four")
        self.check(all(v > 0 for v in given), f"variance is {given}, expected positive numbers")
        return given * 4 if len(given) == 1 else given or [0.1] * 4

    def _pair(self, p: object, both: str, high: str, wide: str) -> tuple[float, float] | None:
        """(height, width) from the field for both or the fields for each; None if not given."""
        if p.HasField(high) or p.HasField(wide):
            self.check(not p.HasField(both), f"give either {both} or {high} and {wide}, not both")
            names = (high, wide)
        elif p.HasField(both):
            names = (both, both)
        else:
            return None
        pair = tuple(getattr(p, name) for name in names)
        for name, value in zip(names, pair, strict=True):
            self.check(0 < value < math.inf, f"{name} is {value:g}, expected more than 0")
        return pair

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        for i, shape in enumerate(shapes):
            self.check(
                len(shape) <= 4, f"bottom {i} has the shape {tuple(shape)}, expected at most 4 axes"
            )
        height, width = _size(shapes[0])
        self.check(
            height * width > 0 and min(_size(shapes[1])) > 0,
            f"bottoms have the shapes {tuple(shapes[0])} and {tuple(shapes[1])}: one has no values",
        )
        return [(1, 2, height * width * len(self.sides) * 4)]

    def boxes(self, feature_map: Shape, image: Shape) -> np.ndarray:
        """The top's values for bottoms of these shapes."""
        height, width = _size(feature_map)
        image_size = np.array(self.image or _size(image), np.float32)
        step = np.array(self.step or image_size / (height, width), np.float32)
        offsets = np.array(self.offsets, np.float32)
        y = (np.arange(height)[:, None, None] + offsets[:, 1]) * step[0]
        x = (np.arange(width)[None, :, None] + offsets[:, 0]) * step[1]
        x, y = (v.astype(np.float32) for v in np.broadcast_arrays(x, y))
        x, y = x + self.moves[:, 0], y + self.moves[:, 1]
        half = self.sides / 2
        corners = [x - half[:, 0], y - half[:, 1], x + half[:, 0], y + half[:, 1]]
        found = np.stack(corners, -1) / image_size[[1, 0, 1, 0]]
        if self.cut:
            found[..., :2], found[..., 2:] = found[..., :2].clip(0), found[..., 2:].clip(None, 1)
        if self.layer_param.prior_box_param.clip:
            found = found.clip(0, 1)
        variances = np.broadcast_to(np.array(self.variances), found.shape)
        return np.stack([found, variances]).reshape(1, 2, -1).astype(np.float32)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        feature_map, image = (tuple(x.shape) for x in bottom)
        if bottom[0].is_meta:
            return bottom[0].new_empty(self.infer_shapes([feature_map, image])[0])
        return torch.from_numpy(self.boxes(feature_map, image)).to(bottom[0].device)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        feature_map, image = bottoms
        return graph.constant(self.boxes(feature_map.shape, image.shape))


@register("PriorBox")
class PriorBox(_PriorBoxes):
    """For each min_size of s pixels: a square of s; with max_size m a square of sqrt(s m); and for
    each aspect ratio a other than 1, with flip also 1/a, a box of s sqrt(a) x s / sqrt(a).

    Bottoms and top: as _PriorBoxes says. Whole pixels: fractions of sizes are cut off, as in SSD's
    prior_box_layer.cpp (Liu et al., 2016). offset_h and offset_w (OpenCV): each box once for each
    pair. reduce_boxes (chuanqi305/ssd): the first square has half the side.

    denser_prior_boxes (TextBoxes++): each box a second time half a step lower. TextBoxes' layer
    always does that; where the field is not set, it is on with TextBoxes' aspect ratios 2, 3, 5, 7
    and 10 without flip. sides_by_ratio (ours, for SSTD, whose layer is another in this): boxes are
    s a x s, then with flip s x s a, and fractions of sizes count; where it is not set, it is on
    with flip, a ratio beside its reciprocal, and one of 7 or more, as SSTD's nets have them.

    fixed_size and density d (zihaozhang9/FaceBoxes): d x d boxes of that size, or of its
    fixed_ratios or aspect ratios, spread over it. dense_faces (ours, for sfzhang15/FaceBoxes):
    4 x 4 boxes of 32 pixels and 2 x 2 of 64; sides are a pixel less.
    """

    fork = "SSD, NVCaffe, TextBoxes, TextBoxes++, chuanqi305/ssd, SSTD, OpenCV, FaceBoxes"
    judge = "recorded"

    takes = tuple(
        f"prior_box_param.{f}"
        for f in (
            *("min_size", "max_size", "aspect_ratio", "flip", "clip", "variance", "offset"),
            *("img_size", "img_h", "img_w", "step", "step_h", "step_w"),
            *("reduce_boxes", "denser_prior_boxes", "sides_by_ratio", "offset_h", "offset_w"),
            *("fixed_size", "density", "fixed_ratio", "dense_faces"),
        )
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        super().setup(shapes)
        p = self.layer_param.prior_box_param
        moved = self._fixed() if p.fixed_size else self._faces() if p.dense_faces else None
        if moved is None:
            return
        self.check(len(self._shifts) == 1, "FaceBoxes' fields and denser boxes exclude each other")
        sides, moves = (np.array(v, np.float32).reshape(-1, 2) for v in zip(*moved, strict=True))
        if p.fixed_size:  # the boxes of min_size follow
            self.cut = True
            sides = np.concatenate([sides, self.sides])
            moves = np.concatenate([moves, self.moves])
        self.sides, self.moves = sides, moves

    def _fixed(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        """(sides, move) of each box of fixed_size (zihaozhang9/FaceBoxes)."""
        p = self.layer_param.prior_box_param
        self.check(
            len(p.fixed_size) == len(p.density),
            f"has {len(p.fixed_size)} fixed_size and {len(p.density)} density, expected as many",
        )
        self.check(
            not (p.fixed_ratio and p.aspect_ratio), "give fixed_ratio or aspect_ratio, not both"
        )
        ratios, boxes = list(p.fixed_ratio) or [1.0, *self._ratios()], []
        for size, density in zip(p.fixed_size, p.density, strict=True):
            self.check(
                1 <= size < 2**31 and 1 <= density <= min(size, _MOST),
                f"fixed_size is {size:g} and density {density:g}, expected 1 <= density <= size",
            )
            step = int(size / int(density))
            shifts = [step / 2 + k * step - int(size) // 2 for k in range(int(density))]
            for ratio in ratios:
                self.check(0 < ratio < math.inf, f"a ratio is {ratio:g}, expected more than 0")
                sides = size * math.sqrt(ratio), size / math.sqrt(ratio)
                boxes += [(sides, (x, y)) for y in shifts for x in shifts]
        return boxes

    def _faces(self) -> list[tuple[tuple[float, float], tuple[float, float]]]:
        """(sides, move) of each box of sfzhang15/FaceBoxes."""
        p, boxes = self.layer_param.prior_box_param, []
        self.check(
            not p.max_size and not p.aspect_ratio, "dense_faces takes no max_size and aspect_ratio"
        )
        for size in map(math.trunc, p.min_size):
            step, count = {32: (8, 2), 64: (16, 1)}.get(size, (0, 0))
            shifts = [k * step for k in range(-count, count)] or [0]
            boxes += [((size - 1, size - 1), (x, y)) for y in shifts for x in shifts]
        return boxes

    def _sides(self) -> np.ndarray:
        p = self.layer_param.prior_box_param
        sizes, largest = list(p.min_size), list(p.max_size)
        self.check(bool(sizes or p.fixed_size), "has no min_size")
        for size in (*sizes, *largest):
            self.check(0 < size < 2**31, f"a size is {size:g}, expected more than 0 pixels")
        self.check(
            len(largest) in (0, len(sizes)),
            f"has {len(sizes)} min_size and {len(largest)} max_size, expected as many or none",
        )
        for small, large in zip(sizes, largest, strict=False):
            self.check(large > small, f"max_size {large:g} is not larger than min_size {small:g}")
        boxes = []
        for i, size in enumerate(sizes):
            boxes += self._sides_of(size, largest[i] if largest else None)
        sides = np.array(boxes, np.float32).reshape(-1, 2)
        return np.repeat(sides, len(self._shifts), 0)

    def _sides_of(self, size: float, largest: float | None) -> list[tuple[float, float]]:
        """The boxes of one min_size."""
        p = self.layer_param.prior_box_param
        size = size if self._by_ratio else math.trunc(size)
        first = size / 2 if p.reduce_boxes else size
        boxes = [(first, first)]
        if largest is not None:
            boxes.append((math.sqrt(size * math.trunc(largest)),) * 2)
        ratios = self._ratios()
        if self._by_ratio:
            flipped = [(size, size * ratio) for ratio in ratios] if p.flip else []
            return [*boxes, *((size * ratio, size) for ratio in ratios), *flipped]
        return [*boxes, *((size * math.sqrt(a), size / math.sqrt(a)) for a in ratios)]

    def _ratios(self) -> list[float]:
        """The aspect ratios beside 1, each once."""
        p = self.layer_param.prior_box_param
        ratios = [1.0]
        for ratio in p.aspect_ratio:
            self.check(0 < ratio < math.inf, f"aspect_ratio is {ratio:g}, expected more than 0")
            if all(abs(ratio - known) >= 1e-6 for known in ratios):
                ratios += [ratio, 1 / ratio] if p.flip and not self._by_ratio else [ratio]
        return ratios[1:]

    @property
    def _by_ratio(self) -> bool:
        p = self.layer_param.prior_box_param
        if p.HasField("sides_by_ratio"):
            return p.sides_by_ratio
        ratios = [ratio for ratio in p.aspect_ratio if ratio > 0]
        both = any(abs(a * b - 1) < 1e-5 for a in ratios for b in ratios if a > 1)
        return p.flip and both and max(ratios) >= 7

    @property
    def _shifts(self) -> list[tuple[float, float]]:
        """(x, y) of the centres of each box in a place."""
        p = self.layer_param.prior_box_param
        if p.offset_h or p.offset_w:
            self.check(
                len(p.offset_h) == len(p.offset_w),
                f"has {len(p.offset_h)} offset_h and {len(p.offset_w)} offset_w, expected as many",
            )
            return [*zip(p.offset_w, p.offset_h, strict=True)]
        denser = p.denser_prior_boxes
        if not p.HasField("denser_prior_boxes"):
            denser = not p.flip and sorted(p.aspect_ratio) == [2, 3, 5, 7, 10]
        return [(p.offset, p.offset), (p.offset, 1.0)] if denser else [(p.offset, p.offset)]

    @property
    def offsets(self) -> list[tuple[float, float]]:
        shifts = self._shifts
        return shifts * (len(self.sides) // len(shifts))


@register("PriorBoxClustered")
class PriorBoxClustered(_PriorBoxes):
    """Boxes of the given widths and heights in pixels, found by clustering the training set's.

    Bottoms and top: as _PriorBoxes says (OpenCV's training_toolbox_caffe,
    prior_box_clustered_layer.cpp).
    """

    fork = "OpenCV training toolbox"
    judge = "recorded"
    takes = tuple(
        f"prior_box_param.{f}"
        for f in (
            *("width", "height", "clip", "variance", "offset"),
            *("img_size", "img_h", "img_w", "step", "step_h", "step_w"),
        )
    )

    def _sides(self) -> np.ndarray:
        p = self.layer_param.prior_box_param
        self.check(bool(p.width), "has no width")
        self.check(
            len(p.width) == len(p.height),
            f"has {len(p.width)} width and {len(p.height)} height, expected as many of both",
        )
        for side in (*p.width, *p.height):
            self.check(0 < side < math.inf, f"a side is {side:g}, expected more than 0 pixels")
        return np.array([*zip(p.width, p.height, strict=True)], np.float32)


def _size(shape: Shape) -> tuple[int, int]:
    """Height and width of a blob of up to four axes; 1 where the axis is missing."""
    height, width = (*shape[2:], 1, 1)[:2]
    return height, width

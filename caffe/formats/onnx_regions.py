"""Regions of interest in ONNX: rows of an image's number and the corners x1, y1, x2, y2."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from caffe.formats.onnx import Graph, Value


def grown(graph: Graph, regions: str, ratio: float) -> str:
    """Regions (R, 5) in ONNX, grown by a share of their sides."""
    # x1 - r (x2 - x1 + 1) = (1 + r) x1 - r x2 - r, and so on.
    grow = np.zeros((5, 5))
    grow[0, 0] = 1
    for a, b in ((1, 3), (2, 4)):
        grow[a, a] = grow[b, b] = 1 + ratio
        grow[b, a] = grow[a, b] = -ratio
    shift = [0, -ratio, -ratio, ratio, ratio]
    moved = graph.add("MatMul", regions, graph.constant(grow))
    return graph.add("Add", moved, graph.constant(shift))


def rounded(graph: Graph, x: str) -> str:
    """x rounded, halves away from zero."""
    size = graph.add("Floor", graph.affine(graph.add("Abs", x), 1, 0.5))
    return graph.add("Mul", size, graph.add("Sign", x))


def scaled(graph: Graph, regions: str, start: int, end: int, scale: float, shift: float) -> str:
    """Columns of regions (R, 5) times a scale, plus a shift."""
    return graph.affine(graph.slice(regions, [1], [start], [end]), scale, shift)


def grid(
    graph: Graph,
    images: Value,
    regions: str,
    first: Sequence[str],
    last: Sequence[str],
    counts: tuple[int, int],
    extra: int,
) -> str:
    """Values at grids from `first` on: x and y, (R, 1) each, in steps of a count-th of the way to
    `last`, rows and columns being the counts plus `extra`.
    """
    places, corners = [], {}
    for axis, start, end, count, extent in zip(
        (0, 1), first, last, reversed(counts), reversed(images.shape[2:]), strict=True
    ):
        step = graph.affine(graph.add("Sub", end, start), 1 / count, 0)
        # RoiAlign samples the middles of its bins, half a pixel further.
        corners[axis] = graph.affine(graph.add("Sub", start, graph.affine(step, 0.5, 0)), 1, 0.5)
        size = graph.affine(step, count + extra, 0)
        corners[axis + 2] = graph.add("Add", corners[axis], size)
        steps = graph.constant([np.arange(count + extra)])
        place = graph.add("Add", start, graph.add("Mul", step, steps))
        near = graph.add("GreaterOrEqual", place, graph.constant(-0.5))
        near = graph.add("And", near, graph.add("LessOrEqual", place, graph.constant(extent - 0.5)))
        if extra:  # regions without an area count as outside
            near = graph.add("And", near, graph.add("Greater", step, graph.constant(0)))
        shape = [-1, 1, 1, count + extra] if axis == 0 else [-1, 1, count + extra, 1]
        places.append(graph.reshape(near, shape, keeps_batch=False))
    image = graph.to_int(graph.slice(regions, [1], [0], [1]))
    image = graph.reshape(image, [-1], keeps_batch=False)
    top = graph.add(
        "RoiAlign",
        images,
        graph.add("Concat", *(corners[i] for i in range(4)), axis=1),
        image,
        output_height=counts[0] + extra,
        output_width=counts[1] + extra,
        sampling_ratio=1,
    )
    return graph.add("Mul", top, graph.to_float(graph.add("And", *places)))


class PositionSensitive:
    """The ONNX form of PSROIPooling: sums from the corner on, gathered at the windows' corners."""

    def __init__(self, graph: Graph, images: Value, count: int, scale: float) -> None:
        """images: (N, C, H, W). count: windows along each side. scale: of the images."""
        self.graph, self.images, self.count, self.scale = graph, images, count, scale

    def mean(self, regions: Value) -> str:
        """The top."""
        graph, (_, _, high, wide) = self.graph, self.images.shape
        rows = graph.reshape(regions, (-1, 5), keeps_batch=False)
        whole = rounded(graph, rows)
        tall, broad = self._ends(whole, 2, high), self._ends(whole, 1, wide)
        plane = self._planes(rows)
        sums = self._sums()

        def corner(line: str, column: str) -> str:
            at = graph.add("Mul", graph.add("Add", plane, line), self._whole(wide + 1))
            return graph.add("Gather", sums, graph.add("Add", at, column))

        (top, end), (left, right) = tall, broad
        more = graph.add("Add", corner(end, right), corner(top, left))
        less = graph.add("Add", corner(top, right), corner(end, left))
        area = graph.add("Mul", graph.add("Sub", end, top), graph.add("Sub", right, left))
        area = graph.to_float(graph.add("Max", area, self._whole(1)))
        # An empty window's corners coincide, or are taken the other way round.
        full = graph.add("And", graph.add("Less", top, end), graph.add("Less", left, right))
        total = graph.to_float(graph.add("Sub", more, less))
        return graph.add("Where", full, graph.add("Div", total, area), graph.constant(0))

    def _whole(self, number: int) -> str:
        return self.graph.constant(number, "int64")

    def _ends(self, regions: str, column: int, extent: int) -> tuple[str, str]:
        """The windows' first positions and ends along the height (column 2) or width (column 1), in
        the shape of the top.
        """
        graph, scale, count = self.graph, self.scale, self.count
        first = graph.affine(graph.slice(regions, [1], [column], [column + 1]), scale, 0)
        last = graph.slice(regions, [1], [column + 2], [column + 3])
        last = graph.affine(graph.affine(last, 1, 1), scale, 0)
        size = graph.add("Max", graph.add("Sub", last, first), graph.constant(0.1))
        each = graph.add("Div", size, graph.constant(count))
        shape = [-1, 1, 1, count] if column == 1 else [-1, 1, count, 1]
        ends = []
        for begin, way in ((0, "Floor"), (1, "Ceil")):
            steps = graph.constant([np.arange(begin, begin + count)])
            place = graph.add("Add", graph.add("Mul", steps, each), first)
            limits = graph.constant(0), graph.constant(extent)
            place = graph.add("Clip", graph.add(way, place), *limits)
            ends.append(graph.reshape(graph.to_int(place), shape, keeps_batch=False))
        return ends[0], ends[1]

    def _planes(self, regions: str) -> str:
        """Where each value's channel starts, in lines."""
        graph, (_, channels, high, _) = self.graph, self.images.shape
        image = graph.to_int(graph.slice(regions, [1], [0], [1]))
        image = graph.reshape(image, [-1, 1, 1, 1], keeps_batch=False)
        plane = np.arange(channels).reshape(1, -1, self.count, self.count)
        at = graph.add("Mul", image, self._whole(channels))
        at = graph.add("Add", at, graph.constant(plane, "int64"))
        return graph.add("Mul", at, self._whole(high + 1))

    def _sums(self) -> str:
        """The sums of all pixels above and left, float64, as one line."""
        from onnx import TensorProto

        graph = self.graph
        x = graph.add("Cast", self.images, to=TensorProto.DOUBLE)
        for axis in (2, 3):
            x = graph.add("CumSum", x, self._whole(axis))
        x = graph.add("Pad", x, graph.constant([0, 0, 1, 1, 0, 0, 0, 0], "int64"))
        return graph.reshape(x, [-1], keeps_batch=False)

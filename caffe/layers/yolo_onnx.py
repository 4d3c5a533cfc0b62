"""YOLO's outputs as ONNX operators: boxes from a grid's cells, NonMaxSuppression over all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from caffe.formats.onnx import Graph, Value
from caffe.layers.detection_onnx import ALL, or_nothing


class Cells:
    """Predictions (N, A L, H, W) as (N, A, L, H W): L numbers for each cell and anchor."""

    def __init__(self, graph: Graph, x: Value, anchors: int) -> None:
        n, channels, self.height, self.width = x.shape
        self.graph = graph
        shape = (n, anchors, channels // anchors, self.height * self.width)
        self.all = graph.reshape(x, shape, keeps_batch=False)

    def numbers(self, places: Iterable[int]) -> str:
        """Some of the L numbers: (N, A, len(places), H W)."""
        return self.graph.add(
            "Gather", self.all, self.graph.constant(list(places), np.int64), axis=2
        )

    def objects(self, place: int) -> str:
        """The sigmoid of one number, (N, A, 1, H W)."""
        return self.graph.add("Sigmoid", self.numbers([place]))

    def best(self, scores: str) -> tuple[str, str]:
        """The largest of the scores (N, A, classes, H W) and its class, both (N, A, 1, H W)."""
        return (
            self.graph.add("ReduceMax", scores, axes=[2], keepdims=1),
            self.graph.add("ArgMax", scores, axis=2, keepdims=1),
        )

    def boxes(self, anchors: np.ndarray, step: int = 1) -> str:
        """The corners (N, A, 4, H W), as fractions of the image, as the anchors (A, 2) are.

        The numbers 0, step, ... 3 step of a cell tell its box.
        """
        graph, count = self.graph, np.arange(self.height * self.width)
        corner = np.stack([count % self.width, count // self.width])
        extent = graph.constant([[self.width], [self.height]])
        center = graph.add("Sigmoid", self.numbers((0, step)))
        center = graph.add("Add", center, graph.constant(corner))
        center = graph.add("Div", center, extent)
        size = graph.add("Exp", self.numbers((2 * step, 3 * step)))
        size = graph.add("Mul", size, graph.constant(anchors[:, :, None]))
        half = graph.affine(size, 0.5, 0)
        ends = (graph.add("Sub", center, half), graph.add("Add", center, half))
        return graph.add("Concat", *ends, axis=2)


def top(
    graph: Graph,
    found: Sequence[tuple[str, str, str]],
    thresholds: tuple[float, float],
    images: int,
) -> str:
    """The rows (1, 1, K, 7) of the boxes that no better one suppresses, the best first.

    found: for each bottom boxes (N, A, 4, H W), scores and labels (N, A, 1, H W). thresholds: of
    the scores, which must be more, and of the overlap.
    """
    parts = [
        [_rows(graph, boxes, 4), _rows(graph, scores, 1), _rows(graph, graph.to_float(labels), 1)]
        for boxes, scores, labels in found
    ]
    boxes, scores, labels = (
        graph.add("Concat", *same, axis=0) if len(same) > 1 else same[0]
        for same in zip(*parts, strict=True)
    )
    chosen = graph.add(
        "NonMaxSuppression",
        graph.reshape(boxes, (1, -1, 4), False),
        graph.reshape(scores, (1, 1, -1), False),
        graph.constant(ALL, np.int64),
        graph.constant(thresholds[1]),
        graph.constant(thresholds[0]),
    )
    index = graph.reshape(graph.slice(chosen, [1], [2], [3]), (-1,), False)
    boxes, scores, labels = (graph.add("Gather", x, index, axis=0) for x in (boxes, scores, labels))
    number = graph.add("Mul", scores, graph.constant(0))
    rows = graph.add("Concat", number, graph.affine(labels, 1, 1), scores, boxes, axis=1)
    return or_nothing(graph, rows, images, 7)


def _rows(graph: Graph, x: str, width: int) -> str:
    """(N, A, width, H W) as (N A H W, width)."""
    return graph.reshape(graph.add("Transpose", x, perm=[0, 1, 3, 2]), (-1, width), False)

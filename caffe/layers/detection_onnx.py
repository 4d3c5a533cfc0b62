"""DetectionOutput as ONNX operators: decoding, NonMaxSuppression, the best rows of each image.

Programs that do not take sizes which depend on values get keep_top_k rows for each image; those
that hold no box are -1 throughout. OpenCV's NonMaxSuppression takes no threshold below 0, so these
files leave out boxes whose score is 0 or less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from caffe.formats.onnx import Graph, Value
from caffe.kernels import boxes as box

ALL = 2**31 - 1


class Detector(Protocol):
    """What this module asks of the layer (caffe/layers/detection_output.py)."""

    layer_param: Any
    classes: int
    background: int
    least: float
    top_k: int
    fields: int

    def check(self, condition: bool, message: str) -> None: ...

    def onnx_origin(self, graph: Graph, index: str) -> list[str]: ...


def write(
    layer: Detector, graph: Graph, locations: Value, confidences: Value, priors: Value
) -> str:
    """The nodes of a DetectionOutput that shares locations; returns the name of its top.

    What NonMaxSuppression cannot do, keeping the top_k best before it, is done by taking the other
    scores away: they become less than any score that counts.
    """
    images, classes = locations.shape[0], layer.classes
    count = math.prod(locations.shape[1:]) // 4
    boxes = _decoded(layer, graph, locations, priors, (images, count, 4))
    wide = graph.reshape(confidences, (images, count, classes))
    found = [label for label in range(classes) if label != layer.background]
    scores = graph.add("Transpose", wide, perm=[0, 2, 1])
    scores = graph.add("Gather", scores, graph.constant(found, np.int64), axis=1)
    rows = [
        _rows_of(layer, graph, i, found, *(_image(graph, x, i) for x in (boxes, scores)), count)
        for i in range(images)
    ]
    joined = graph.add("Concat", *rows, axis=0) if images > 1 else rows[0]
    if not graph.target.selects:
        most = layer.layer_param.detection_output_param.keep_top_k
        return graph.reshape(joined, (1, 1, images * most, layer.fields), False)
    return or_nothing(graph, joined, images, layer.fields)


def _image(graph: Graph, x: str, image: int) -> str:
    """One image of (N, ...), as (1, ...)."""
    return graph.slice(x, [0], [image], [image + 1])


def _decoded(
    layer: Detector, graph: Graph, locations: Value, priors: Value, shape: Sequence[int]
) -> str:
    """The boxes (N, priors, 4); as caffe.kernels.boxes.decode."""
    p = layer.layer_param.detection_output_param
    codes = graph.reshape(locations, shape)
    both = graph.reshape(priors, (2, shape[1], 4), keeps_batch=False)
    prior = graph.slice(both, [0], [0], [1])
    if not p.variance_encoded_in_target:
        codes = graph.add("Mul", codes, graph.slice(both, [0], [1], [2]))
    low, high = (graph.slice(prior, [2], [a], [a + 2]) for a in (0, 2))
    size = graph.add("Sub", high, low)
    if p.code_type == box.CENTER_SIZE:
        center = graph.add("Add", low, graph.affine(size, 0.5, 0))
        shift, ratio = (graph.slice(codes, [2], [a], [a + 2]) for a in (0, 2))
        center = graph.add("Add", graph.add("Mul", shift, size), center)
        half = graph.affine(graph.add("Mul", graph.add("Exp", ratio), size), 0.5, 0)
        ends = (graph.add("Sub", center, half), graph.add("Add", center, half))
        return graph.add("Concat", *ends, axis=2)
    if p.code_type == box.CORNER_SIZE:
        codes = graph.add("Mul", codes, graph.add("Concat", size, size, axis=2))
    return graph.add("Add", prior, codes)


def _rows_of(
    layer: Detector,
    graph: Graph,
    image: int,
    labels: list[int],
    boxes: str,
    scores: str,
    count: int,
) -> str:
    """The rows (n, fields) of one image, boxes (1, priors, 4), scores (1, classes, priors)."""
    p = layer.layer_param.detection_output_param
    fixed = not graph.target.selects
    layer.check(
        not fixed or p.keep_top_k > 0,
        f"files for {graph.target.title} need a keep_top_k, the number of their rows"
        "; its bottoms are given out in its place with --raw-detections",
    )
    index = _suppressed(layer, graph, boxes, scores, count)
    if fixed:
        index, there = _filled(graph, index, p.keep_top_k)
    values = graph.add("GatherND", graph.reshape(scores, (len(labels), count), False), index)
    if fixed:
        last = graph.add("Where", there, values, graph.constant(-3e38))
        best = graph.add("TopK", last, graph.constant([p.keep_top_k], np.int64), outputs=2, axis=0)
        index, values, there = (
            graph.add("Gather", x, best[1], axis=0) for x in (index, values, there)
        )
    elif p.keep_top_k >= 0:
        best = _first(graph, values, p.keep_top_k)
        index, values = (graph.add("Gather", x, best, axis=0) for x in (index, values))
    label = graph.add("Gather", graph.constant(labels), graph.slice(index, [1], [0], [1]))
    prior = graph.slice(index, [1], [1], [2])
    flat = graph.reshape(prior, (-1,), False)
    corners = graph.add("Gather", graph.reshape(boxes, (count, 4), False), flat, axis=0)
    column = graph.reshape(values, (-1, 1), False)
    number = graph.affine(graph.add("Mul", column, graph.constant(0)), 1, image)
    origin = layer.onnx_origin(graph, prior)
    rows = graph.add("Concat", number, label, column, corners, *origin, axis=1)
    if not fixed:
        return rows
    return graph.add("Where", graph.reshape(there, (-1, 1), False), rows, graph.constant(-1))


def _suppressed(layer: Detector, graph: Graph, boxes: str, scores: str, count: int) -> str:
    """Class and prior (n, 2) of the boxes that NonMaxSuppression keeps."""
    p = layer.layer_param.detection_output_param
    least = layer.least if graph.target.selects else max(layer.least, 0)
    threshold = [graph.constant(least)] if math.isfinite(least) else []
    counted = scores
    if -1 < layer.top_k < count:
        layer.check(layer.top_k > 0, "has no ONNX form with a top_k of 0")
        counted = _best(graph, scores, layer.top_k)
        threshold = threshold or [graph.constant(-1e38)]
    limits = [graph.constant(ALL, np.int64), graph.constant(p.nms_param.nms_threshold)]
    chosen = graph.add("NonMaxSuppression", boxes, counted, *limits, *threshold)
    return graph.slice(chosen, [1], [1], [3])


def _filled(graph: Graph, index: str, more: int) -> tuple[str, str]:
    """The rows (n, 2) with `more` of zeros behind them, and whether each was there before."""
    ones = graph.affine(graph.to_float(graph.slice(index, [1], [0], [1])), 0, 1)
    marks = graph.add("Concat", ones, graph.constant(np.zeros((more, 1))), axis=0)
    filler = graph.constant(np.zeros((more, 2)), np.int64)
    longer = graph.add("Concat", index, filler, axis=0)
    return longer, graph.to_bool(graph.reshape(marks, (-1,), False))


def _best(graph: Graph, scores: str, top_k: int) -> str:
    """The scores (1, classes, priors), those after the top_k best of a class far below all."""
    best, _ = graph.add("TopK", scores, graph.constant([top_k], np.int64), outputs=2, axis=2)
    last = graph.slice(best, [2], [top_k - 1], [top_k])
    worse = graph.add("Less", scores, last)
    return graph.add("Where", worse, graph.constant(-3e38), scores)


def _first(graph: Graph, values: str, most: int) -> str:
    """The places of the `most` largest of the values (n), in their order."""
    count = graph.add("Min", graph.add("Shape", values), graph.constant([most], np.int64))
    _, best = graph.add("TopK", values, count, outputs=2, axis=0)
    places, _ = graph.add("TopK", best, count, outputs=2, axis=0, largest=0)
    return places


def or_nothing(graph: Graph, rows: str, images: int, fields: int) -> str:
    """The rows as (1, 1, n, fields); where there are none, a row of -1 for each image."""
    nothing = np.full((images, fields), -1.0)
    nothing[:, 0] = np.arange(images)
    shown = first_or(graph, rows, nothing)
    return graph.add("Unsqueeze", shown, graph.constant([0, 1], np.int64))


def first_or(graph: Graph, rows: str, nothing: np.ndarray) -> str:
    """The rows (n, fields), or those of `nothing` where there are none."""
    count = graph.slice(graph.add("Shape", rows), [0], [0], [1])
    none = graph.add("Equal", count, graph.constant([0], np.int64))
    end = graph.add("Where", none, graph.constant([len(nothing)], np.int64), count)
    longer = graph.add("Concat", rows, graph.constant(nothing), axis=0)
    return graph.add(
        "Slice", longer, graph.constant([0], np.int64), end, graph.constant([0], np.int64)
    )

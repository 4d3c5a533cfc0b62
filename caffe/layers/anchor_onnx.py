"""The outputs of MS-CNN's and Cascade R-CNN's proposal networks as ONNX operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from caffe.formats.onnx import Graph, Value
from caffe.layers.detection_onnx import ALL, first_or

WORST = -3e38  # the score of what does not count


class Output(Protocol):
    """What this module asks of the layer (caffe/layers/anchor_boxes.py)."""

    mean: Any
    std: Any
    bounds: tuple[float, float]
    plus: float
    num_tops: int

    def check(self, condition: bool, message: str) -> None: ...

    def middles(self, shape: Sequence[int], stride: float, like: Any) -> Any: ...


def decoded(
    layer: Output, graph: Graph, codes: Value | str, sides: Any, middles: Any, images: int
) -> tuple[str, str]:
    """First corners and sides, (images, K, 2, H W) each, that codes (images K, 4, H, W) give.

    sides: (K, 2), of the field. middles: (2, H, W), of the places.
    """
    kinds, places = len(sides), middles[0].numel()
    codes = graph.reshape(codes, (images, kinds, 4, places), keeps_batch=False)
    for op, values in (("Mul", layer.std), ("Add", layer.mean)):
        codes = graph.add(op, codes, graph.constant(values.numpy()[:, None]))
    shift, size = (
        graph.add("Clip", graph.slice(codes, [2], [at], [at + 2]), *_ends(graph, limit))
        for at, limit in ((0, layer.bounds[0]), (2, layer.bounds[1]))
    )
    field = graph.constant(sides.numpy()[:, :, None])
    middle = graph.constant(middles.reshape(2, places).numpy())
    middle = graph.add("Add", graph.add("Mul", shift, field), middle)
    size = graph.add("Mul", field, graph.add("Exp", size))
    return graph.add("Sub", middle, graph.affine(size, 0.5, 0)), size


def _ends(graph: Graph, limit: float) -> list[str]:
    return [graph.constant(-limit), graph.constant(limit)]


def by_box(graph: Graph, x: str, images: int, width: int) -> str:
    """(images, K, width, H W) as (images, K H W, width)."""
    x = graph.add("Transpose", x, perm=[0, 1, 3, 2])
    return graph.reshape(x, (images, -1, width), keeps_batch=False)


def tops(
    layer: Output,
    graph: Graph,
    p: Any,
    maps: Sequence[tuple[str, str]],
    images: int,
    no_box: Sequence[float],
) -> list[str]:
    """The tops, from boxes (images, n, 4) and scores (images, n, 1) of each map.

    p: the layer's message, with fg_thr, iou_thr, min_size and limits of numbers. no_box: the region
    that stands for none.
    """
    layer.check(
        graph.target.selects,
        f"files for {graph.target.title} cannot hold a number of rows that values tell",
    )
    layer.check(not graph.dynamic_batch, "has an ONNX form for a fixed batch size only")
    layer.check(
        p.nms_type == "IOU" and 0 <= p.iou_thr <= 1,
        "has an ONNX form for nms_type IOU and an iou_thr of 0 to 1 only",
    )
    boxes, scores = (
        graph.add("Concat", *same, axis=1) if len(same) > 1 else same[0]
        for same in zip(*maps, strict=True)
    )
    scores = _counted(layer, graph, p, boxes, scores)
    found = [_of_image(layer, graph, p, i, boxes, scores) for i in range(images)]
    rows = graph.add("Concat", *found, axis=0) if images > 1 else found[0]
    regions = first_or(graph, graph.slice(rows, [1], [0], [5]), np.array([no_box]))
    made = [regions, first_or(graph, rows, np.zeros((1, 6)))][: layer.num_tops]
    return [graph.add("Unsqueeze", x, graph.constant([2, 3], np.int64)) for x in made]


def _counted(layer: Output, graph: Graph, p: Any, boxes: str, scores: str) -> str:
    """The scores, WORST where they or the boxes' sides are too small."""
    first, last = (graph.slice(boxes, [2], [at], [at + 2]) for at in (0, 2))
    side = graph.affine(graph.add("Sub", last, first), 1, layer.plus)
    side = graph.add("ReduceMin", side, axes=[2], keepdims=1)
    good = graph.add(
        "And",
        graph.add("GreaterOrEqual", scores, graph.constant(p.fg_thr)),
        graph.add("GreaterOrEqual", side, graph.constant(p.min_size)),
    )
    return graph.add("Where", good, scores, graph.constant(WORST))


def _of_image(layer: Output, graph: Graph, p: Any, image: int, boxes: str, scores: str) -> str:
    """The rows (n, 6) of one image: its number, the corners and the score."""
    boxes, scores = (graph.slice(x, [0], [image], [image + 1]) for x in (boxes, scores))
    boxes = graph.reshape(boxes, (-1, 4), keeps_batch=False)
    scores = graph.reshape(scores, (-1,), keeps_batch=False)
    if p.max_nms_num:
        most = graph.constant([p.max_nms_num], np.int64)
        most = graph.add("Min", most, graph.add("Shape", scores))
        scores, order = graph.add("TopK", scores, most, outputs=2)
        boxes = graph.add("Gather", boxes, order, axis=0)
    # A box may count its last pixel; ONNX's does not.
    wider = graph.add("Add", boxes, graph.constant([0, 0, layer.plus, layer.plus]))
    chosen = graph.add(
        "NonMaxSuppression",
        graph.reshape(wider, (1, -1, 4), keeps_batch=False),
        graph.reshape(scores, (1, 1, -1), keeps_batch=False),
        graph.constant(p.max_post_nms_num or ALL, np.int64),
        graph.constant(p.iou_thr),
        graph.constant(WORST / 3),
    )
    place = graph.reshape(graph.slice(chosen, [1], [2], [3]), (-1,), keeps_batch=False)
    boxes = graph.add("Gather", boxes, place, axis=0)
    scores = graph.add("Gather", scores, place, axis=0)
    column = graph.reshape(scores, (-1, 1), keeps_batch=False)
    number = graph.affine(graph.add("Mul", column, graph.constant(0)), 1, image)
    return graph.add("Concat", number, boxes, column, axis=1)

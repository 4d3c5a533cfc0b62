"""The size of records that a net with Unpooling layers takes, for the error where they do not fit.

Such a net is made for one size: an odd size that is halved and doubled again is one pixel too
large, so its Unpooling layers state what they give out. Without this, records of another size
would end in an error about the shape of a mask, deep in the net.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

from caffe.errors import CaffeError
from caffe.graph.unpooling import pooled_blobs
from caffe.proto import caffe_pb2 as pb

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


def explain(
    error: CaffeError,
    layers: Sequence[pb.LayerParameter],
    shapes: Shapes,
    follow: Callable[[Shapes], tuple[Shapes, bool]],
) -> None:
    """Raise CaffeError, from `error`, with the records' size and the net's if these do not agree.

    layers: the net's, of one phase. shapes: at least those of its sources' tops, by name. follow:
    from the sources' tops to the shapes of all blobs up to a layer that does not fit, and whether
    there is none.
    """
    source = next((layer for layer in layers if layer.type == "Data" and layer.top), None)
    shape = shapes.get(source.top[0], ()) if source else ()
    if len(shape) != 4 or 0 in shape:
        return
    tops = {top: shapes[top] for layer in layers if not layer.bottom for top in layer.top
            if top in shapes}  # fmt: skip
    known, whole = follow(tops)
    for words, size in () if whole else _sizes(layers, known, shape[2:]):
        if size != shape[2:] and follow(_resized(tops, shape[2:], size))[1]:
            where, (height, width) = source.data_param.source, shape[2:]
            raise CaffeError(
                f"{where}: records are {width}x{height}, the net takes {words} ({error})"
            ) from error


def _sizes(
    layers: Sequence[pb.LayerParameter], shapes: Shapes, data: Shape
) -> Iterator[tuple[str, Shape]]:
    """Sizes (height, width) that the net may be made for, with their words, the likeliest first.

    data: the height and width of the records.
    """
    pooled = pooled_blobs(layers)
    step = 1
    for layer in layers:
        at = shapes.get(pooled.get(layer.bottom[-1], "")) if layer.type == "Unpooling" else None
        if at is None or len(at) != 4 or 0 in at:
            continue
        param = layer.unpooling_param
        # How often the records were halved up to this pooling, which may have rounded up.
        ratios = [2 ** round(math.log2(a / b)) for a, b in zip(data, at[2:], strict=True)]
        stated = (param.output_h, param.output_w)
        if all(stated):
            height, width = (side * ratio for side, ratio in zip(stated, ratios, strict=True))
            yield f"{width}x{height}", (height, width)
        elif param.scale:
            step = max(step, *(ratio * param.scale for ratio in ratios))
    if step > 1:
        height, width = (-(-side // step) * step for side in data)
        yield f"multiples of {step}", (height, width)


def _resized(tops: Shapes, old: Shape, new: Shape) -> dict[str, Shape]:
    """The shapes with the size `new` where they have `old`."""
    return {
        top: (*shape[:2], *new) if len(shape) == 4 and shape[2:] == old else shape
        for top, shape in tops.items()
    }

"""A net as a table: shapes, parameters, multiply-adds and memory, layer by layer."""

from __future__ import annotations

import math

from boundary.text import shown
from caffe import TRAIN
from caffe.graph.sketch import LayerSketch, Shape
from caffe.proto.caffe_pb2 import NetParameter

_BYTES = 4  # float32
_HEADER = ("layer", "type", "tops", "parameter shapes", "parameters", "multiply-adds", "memory")


def summary(net: NetParameter, phase: int, layers: list[LayerSketch]) -> str:
    """The table of a net with its sketches.

    Multiply-adds are those of a whole batch. Memory is that of the tops as float32; layers that
    work in place or hand on their bottom's memory need none.
    """
    rows = [_HEADER, *(tuple(map(shown, _row(item))) for item in layers)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    name = shown(net.name) or "net without a name"
    lines = [f"{name}, phase {'TRAIN' if phase == TRAIN else 'TEST'}"]
    for row in rows:
        cells = [
            cell.ljust(width) if i < 4 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, "", *_totals(layers)]) + "\n"


def parameters(layers: list[LayerSketch]) -> int:
    """The number of parameters; blobs that layers share by name count once."""
    total, seen = 0, set()
    for item in layers:
        for i, shape in enumerate(item.params):
            name = item.layer.param[i].name if i < len(item.layer.param) else ""
            if name not in seen:
                total += math.prod(shape)
            if name:
                seen.add(name)
    return total


def activation_bytes(layers: list[LayerSketch]) -> int:
    """The bytes of all blobs as float32, without gradients."""
    return sum(map(_memory, layers))


def show(shape: Shape | None) -> str:
    """A shape as 1x3x240x320; a single value, which has no axes, as 1; "?" if it is not known."""
    return "?" if shape is None else "x".join(map(str, shape)) or "1"


def _memory(item: LayerSketch) -> int:
    return sum(math.prod(shape) for shape in item.own_tops) * _BYTES


def _row(item: LayerSketch) -> tuple[str, ...]:
    top, bottom = set(item.layer.top), set(item.layer.bottom)
    return (
        item.layer.name,
        item.layer.type,
        "in place" if top and top <= bottom else " ".join(map(show, item.tops)),
        " ".join(map(show, item.params)),
        f"{sum(map(math.prod, item.params)):,}" if item.params else "",
        f"{item.macs:,}" if item.macs else "",
        mebibytes(_memory(item)) if item.own_tops else "",
    )


def _totals(layers: list[LayerSketch]) -> list[str]:
    count = parameters(layers)
    activations = activation_bytes(layers)
    lines = [
        f"layers         {len(layers)}",
        f"parameters     {count:,} ({mebibytes(count * _BYTES)} as float32)",
        f"multiply-adds  {sum(item.macs for item in layers):,} a batch, forward",
        f"activations    {mebibytes(activations)}; with their gradients, as training keeps them, "
        f"{mebibytes(2 * activations)}",
    ]
    unknown = [item.layer.name for item in layers if item.problem]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        lines.append(
            f"not counted    unknown parts of {len(unknown)} layer{'s' * (len(unknown) > 1)}: "
            f"{shown(', '.join(unknown[:5]))}{more}"
        )
    return lines


def mebibytes(count: int) -> str:
    """Bytes as MiB; values below 1 have two decimals."""
    size = count / 2**20
    return f"{size:.2f} MiB" if size < 1 else f"{size:,.1f} MiB"

"""A net as boxes and arrows. Normalisation, activation and dropout are folded into a box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from caffe.layers import class_of
from caffe.layers.look import OUTPUT, Look
from caffe.proto.caffe_pb2 import LayerParameter


def look_of(layer: LayerParameter) -> Look:
    """How a layer is drawn. A type without a look of its own is a loss if its name ends in Loss."""
    look = class_of(layer.type).look
    return OUTPUT if look == Look() and layer.type.endswith("Loss") else look


@dataclass(eq=False)
class Box:
    """A layer and the layers folded into it, in order."""

    layer: LayerParameter
    folded: list[LayerParameter] = field(default_factory=list)


@dataclass(eq=False)
class Arrow:
    """A blob's way from one box to another. kind: "data", "mask" (into Unpooling) or "label" (from
    the net's data straight into a loss or a measure such as accuracy).
    """

    source: Box
    target: Box
    kind: str


def build(layers: Iterable[LayerParameter], fold: bool = True) -> tuple[list[Box], list[Arrow]]:
    """Boxes in the layers' order, and the arrows between them.

    layers: those of one phase. fold: False gives every layer a box of its own.
    """
    layers = list(layers)
    takers = _takers(layers)
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    maker: dict[str, Box] = {}
    version: Counter[str] = Counter()
    for layer in layers:
        found = [(maker[name], name) for name in layer.bottom if name in maker]
        look = look_of(layer)
        # A box that only ends blobs (Silence) shows no more than a missing arrow does.
        if fold and look.open and class_of(layer.type).tops == (0, 0):
            continue
        box = found[0][0] if len(found) == 1 else None
        if (
            fold
            and box is not None
            and look.stripe
            and not look_of(box.layer).open
            and takers[found[0][1], version[found[0][1]]] == 1
        ):
            box.folded.append(layer)
        else:
            box = Box(layer)
            boxes.append(box)
            arrows += [
                Arrow(source, box, _kind(source, layer, index))
                for index, (source, _) in enumerate(found)
            ]
        for name in layer.top:
            maker[name] = box
            version[name] += 1
    return boxes, arrows


def _takers(layers: list[LayerParameter]) -> Counter[tuple[str, int]]:
    """How many layers take each version of each blob; a layer in place makes a new version."""
    takers: Counter[tuple[str, int]] = Counter()
    version: Counter[str] = Counter()
    for layer in layers:
        takers.update((name, version[name]) for name in layer.bottom)
        version.update(layer.top)
    return takers


def _kind(source: Box, target: LayerParameter, index: int) -> str:
    look = look_of(target)
    if index == look.mask:
        return "mask"
    if index and look.family == "Output" and look_of(source.layer).open:
        return "label"
    return "data"

"""A net as boxes and arrows: layers that only touch up their bottom are folded into its box."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from caffe.proto.caffe_pb2 import LayerParameter

# Layers that are part of the box before them if nothing else takes their bottom.
FOLDED = {
    "BatchNorm": "norm",
    "Scale": "norm",
    "Bias": "norm",
    "LRN": "norm",
    "MVN": "norm",
    "ReLU": "activation",
    "PReLU": "activation",
    "ELU": "activation",
    "Sigmoid": "activation",
    "TanH": "activation",
    "Swish": "activation",
    "Clip": "activation",
    "BNLL": "activation",
    "Dropout": "dropout",
}
# Boxes that hand out data rather than compute; nothing is folded into them.
_SOURCES = {"Input", "Data", "DummyData", "ImageData", "MemoryData", "HDF5Data", "WindowData"}
_OPEN = {*_SOURCES, "Slice", "Split", "Python", "Silence"}


@dataclass(eq=False)
class Box:
    """A layer and those folded into it, in order."""

    layer: LayerParameter
    folded: list[LayerParameter] = field(default_factory=list)


@dataclass(eq=False)
class Arrow:
    """A blob's way from one box to another. kind: "data", "mask" (into Unpooling) or "label"
    (from the net's data straight into a loss or figure)."""

    source: Box
    target: Box
    kind: str


def build(layers: Iterable[LayerParameter], fold: bool = True) -> tuple[list[Box], list[Arrow]]:
    """Boxes in the layers' order, and the arrows between them.

    layers: those of one phase. fold: whether to fold; without it every layer has its box.
    """
    layers = list(layers)
    takers = _takers(layers)
    boxes: list[Box] = []
    arrows: list[Arrow] = []
    maker: dict[str, Box] = {}
    version: Counter[str] = Counter()
    for layer in layers:
        found = [(maker[name], name) for name in layer.bottom if name in maker]
        # A box per Silence says nothing that a missing arrow does not say.
        if fold and layer.type == "Silence":
            continue
        box = found[0][0] if len(found) == 1 else None
        if (
            fold
            and box is not None
            and layer.type in FOLDED
            and box.layer.type not in _OPEN
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
    """How many layers take each state of each blob; a layer in place makes a new state."""
    takers: Counter[tuple[str, int]] = Counter()
    version: Counter[str] = Counter()
    for layer in layers:
        takers.update((name, version[name]) for name in layer.bottom)
        version.update(layer.top)
    return takers


def _kind(source: Box, target: LayerParameter, index: int) -> str:
    if target.type == "Unpooling" and index == 1:
        return "mask"
    if (
        index
        and source.layer.type in _OPEN
        and (target.type.endswith("Loss") or target.type == "Accuracy")
    ):
        return "label"
    return "data"

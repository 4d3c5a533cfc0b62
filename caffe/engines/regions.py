"""Region: the layers of a deploy net that an engine can compute, and their ONNX model.

An engine gets what sources make (inputs, records, what fillers draw) and computes all layers from
there on that have an ONNX form and are nothing else than a function of their bottoms. What is left
to the plan are losses and accuracies, boxes, and whatever follows from these.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence, Set
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from caffe.errors import CaffeError
from caffe.export.onnx import write_graph
from caffe.formats.onnx import Graph, Target, Value
from caffe.graph.wiring import Wiring
from caffe.layers import Layer, create_layer
from caffe.net import Net
from caffe.proto import caffe_pb2 as pb

LARGEST = 2**31 - 1  # bytes of a model; protobuf's limit for a message
STATE = ("reset", "at_iteration", "begin_test", "position")  # of layers that remember something


@dataclass(frozen=True)
class Region:
    """The numbers of the layers, and of the blobs that they take of sources and give to others."""

    layers: frozenset[int]
    takes: tuple[int, ...]
    gives: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """A region as a serialized ONNX model. inputs: for each, its name and its place in `takes`."""

    content: bytes
    inputs: tuple[tuple[str, int], ...]


def find(wiring: Wiring, refused: Set[int] = frozenset()) -> Region | None:
    """The region of a net; None if no layer can be taken. refused: layers to be left out."""
    refused = set(refused)
    while True:
        taken = _taken(wiring, refused)
        split = _written_by_both(wiring, taken)
        if not split:
            break
        refused |= split
    taken -= _last_copies(wiring, taken)
    gives = _gives(wiring, taken)
    needed = wiring.needed_for(wiring.names(gives))
    layers = frozenset(i for i, _ in needed if i in taken)
    takes = [
        blob
        for i, names in needed
        if i not in taken
        for blob in wiring.tops[i]
        if wiring.blob_names[blob] in names
    ]
    return Region(layers, tuple(takes), tuple(gives)) if layers and takes else None


def write(net: Net, region: Region, target: Target) -> Model:
    """The model of a region for inputs of the shapes that its sources' tops have now.

    The net's blobs take the shapes that follow from these. Raises CaffeError for shapes that do not
    fit, layers without an ONNX form, and models that are too large.
    """
    wiring = net.wiring
    for i in sorted(region.layers):
        wiring.layers[i].reshape(wiring.bottom_blobs(i), wiring.top_blobs(i))
    model = write_graph(_fed(net), wiring.names(region.gives), target=target)
    if model.ByteSize() > LARGEST:
        raise CaffeError(f"the net takes {model.ByteSize()} bytes; ONNX models hold 2 GiB")
    places = {name: k for k, name in enumerate(wiring.names(region.takes))}
    inputs = tuple((item.name, places[item.name]) for item in model.graph.input)
    return Model(model.SerializeToString(), inputs)


def _fed(net: Net) -> Any:
    """The net as a model of a region sees it: a source that draws its tops is an input like others,
    and has no ONNX form of its own.
    """
    wiring = copy.copy(net.wiring)
    wiring.layers = [
        _as_input(layer) if layer.fillers_of_tops() else layer for layer in wiring.layers
    ]
    return SimpleNamespace(name=net.name, blobs=net.blobs, wiring=wiring)


def _as_input(layer: Layer) -> Layer:
    param = layer.layer_param
    return create_layer(
        pb.LayerParameter(name=param.name, type="Input", top=param.top, phase=param.phase)
    )


def without_form(net: Net, region: Region, target: Target) -> set[int]:
    """The layers of a region that turn out to have no ONNX form for the target: most types have one
    for some of their parameters, or for some shapes.
    """
    wiring = net.wiring
    graph = Graph(target.max_unpool, False, target)
    values = {i: Value(wiring.blob_names[i], wiring.blobs[i].shape) for i in region.takes}
    refused: set[int] = set()
    for i in sorted(region.layers):
        layer, bottoms, tops = wiring.layers[i], wiring.bottoms[i], wiring.tops[i]
        if not all(j in values for j in bottoms):
            continue
        graph.layer = layer.name
        try:
            made = layer.onnx(graph, *(values[j] for j in bottoms))
        except CaffeError:
            refused.add(i)
            for j in tops:
                values.pop(j, None)
            continue
        names = [made] if isinstance(made, str) else made
        for j, name in zip(tops, names, strict=False):
            values[j] = Value(name, wiring.blobs[j].shape)
    return refused


def _taken(wiring: Wiring, refused: Set[int]) -> set[int]:
    """The layers that can be taken, as all that they take comes from sources and such layers."""
    known: set[int] = set()  # blobs that an engine can have at this point
    taken: set[int] = set()
    for i, (layer, bottoms, tops) in enumerate(wiring):
        if _feeds(layer):
            known.update(tops)
        elif i not in refused and _can_be_taken(layer) and known.issuperset(bottoms):
            known.update(tops)
            taken.add(i)
        else:
            known.difference_update(tops)
    return taken


def _feeds(layer: Layer) -> bool:
    """Whether a layer's tops are inputs of the net's model."""
    return layer.source and layer.shown is layer


def _can_be_taken(layer: Layer) -> bool:
    """Whether a layer may have an ONNX form and does no more than it says: boxes come in other rows
    there, and tops of open size are not those of the net.
    """
    kind = type(layer)
    return (
        kind.onnx is not Layer.onnx
        and layer.raw_bottoms == 0
        and layer.varying is None
        and not layer.changes_blobs
        and not any(layer.loss_weights)
        and layer.num_tops == len(layer.layer_param.top)  # else some tops have no name
        and not any(getattr(kind, name) is not getattr(Layer, name) for name in STATE)
    )


def _written_by_both(wiring: Wiring, taken: Set[int]) -> set[int]:
    """The taken layers that write a blob which another layer overwrites later: a model has the last
    value of each blob only.
    """
    writers: dict[int, list[int]] = {}
    for i, (_, _, tops) in enumerate(wiring):
        for blob in tops:
            writers.setdefault(blob, []).append(i)
    mixed = [w for w in writers.values() if taken.intersection(w) and w[-1] not in taken]
    return {i for found in mixed for i in found if i in taken}


def _last_copies(wiring: Wiring, taken: Set[int]) -> set[int]:
    """The taken layers at the end that only copy, as a Split before losses."""
    takers: dict[int, set[int]] = {}
    for i in taken:
        for blob in wiring.bottoms[i]:
            takers.setdefault(blob, set()).add(i)
    last: set[int] = set()
    for i in sorted(taken, reverse=True):
        # What works in place takes its own top, and stays.
        others = {k for blob in wiring.tops[i] for k in takers.get(blob, ())} - last
        if not others and wiring.layers[i].copies():
            last.add(i)
    return last


def _gives(wiring: Wiring, taken: Set[int]) -> Sequence[int]:
    """The blobs of taken layers that others take, or that are outputs of the net."""
    made = {blob for i in taken for blob in wiring.tops[i]}
    wanted = dict.fromkeys(wiring.outputs)
    for i, (_, bottoms, _) in enumerate(wiring):
        if i not in taken:
            wanted.update(dict.fromkeys(bottoms))
    return [blob for blob in wanted if blob in made]

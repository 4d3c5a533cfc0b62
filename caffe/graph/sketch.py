"""Sketch: the shapes of a net's layers and parameters, without building the net.

Nothing is filled or allocated, no Python layer is imported, and connections are not logged. The
caller may give the shapes of layers whose type is unknown or whose data is missing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.graph.rules import layers_in, second_maker, unknown_bottom
from caffe.graph.sizes import explain
from caffe.graph.unpooling import free_sizes
from caffe.layers import REGISTRY, Layer, class_of, create_layer, unknown_type
from caffe.layers.data import PrefetchingLayer
from caffe.proto import caffe_pb2 as pb

Shape = tuple[int, ...]
Makers = dict[str, tuple[Layer, int]]  # of a blob: a layer, and which of its tops


@dataclass
class LayerSketch:
    """A layer with its shapes.

    tops: one shape per top, None if not known. params: the parameter blobs' shapes. macs:
    multiply-adds of a forward pass. problem: why tops, parameters or multiply-adds are not known;
    empty if all are. unknown: whether the layer's own type is the reason.
    """

    layer: pb.LayerParameter
    tops: list[Shape | None]
    params: list[Shape] = field(default_factory=list)
    macs: int = 0
    problem: str = ""
    unknown: bool = False

    @property
    def own_tops(self) -> list[Shape]:
        """Known shapes of the tops for which the layer needs memory of its own."""
        if class_of(self.layer.type).shares_memory and not self.params:
            return []
        pairs = zip(self.layer.top, self.tops, strict=True)
        return [s for name, s in pairs if name not in self.layer.bottom and s is not None]


class UnknownShape(CaffeError):
    """The shape of a net's data is needed but not known; the message names the blob."""


def sketch(
    net: pb.NetParameter, phase: int, inputs: Mapping[str, Shape] | None = None
) -> list[LayerSketch]:
    """The layers of a net in a phase, in order, with their shapes.

    inputs: shapes of blobs by name, for sources, for layers of an unknown type and for the layers
    behind these. The name "" stands for the inputs that have no shape, and for the first top of
    data layers whose data is missing.

    Layers of an unknown type, Python layers and the layers behind them have no known shapes unless
    `inputs` gives them. Raises UnknownShape for inputs without a shape and for missing data, and
    CaffeError, naming the layer, if a layer does not fit its bottoms or `inputs` names a blob whose
    shape cannot be given.
    """
    given = dict(inputs or {})
    net = _for_sizes(net, given)
    blobs: dict[str, Blob | None] = {}
    sketches: list[LayerSketch] = []
    try:
        _follow(net, phase, given, blobs, sketches)
    except UnknownShape:
        raise
    except CaffeError as error:
        if given:
            raise
        explain(error, layers_in(net, phase), _known(blobs), lambda tops: follow(net, phase, tops))
        raise
    told = {top for made in sketches for top in made.layer.top
            if not made.layer.bottom or made.problem}  # fmt: skip
    for name in given:
        if name and name not in told:
            raise CaffeError(f"{name!r} is not an input of the net: its shape cannot be given")
    return sketches


def _for_sizes(net: pb.NetParameter, given: Mapping[str, Shape]) -> pb.NetParameter:
    """The net for inputs of these shapes: Unpooling follows where they are not the prototxt's."""
    stated = {
        top: shape.dim
        for layer in net.layer
        if layer.type == "Input"
        for top, shape in zip(layer.top, layer.input_param.shape, strict=False)
    }
    if all([*stated[name]][2:] == [*given[name]][2:] for name in stated.keys() & given.keys()):
        return net
    freed = pb.NetParameter()
    freed.CopyFrom(net)
    free_sizes(freed)
    return freed


def follow(
    net: pb.NetParameter, phase: int, inputs: Mapping[str, Shape]
) -> tuple[dict[str, Shape], bool]:
    """The shapes of a net's blobs, by name, if its sources' tops have these shapes: up to a layer
    that does not fit, and whether there is none.
    """
    blobs: dict[str, Blob | None] = {}
    try:
        _follow(net, phase, inputs, blobs, [])
    except CaffeError:
        return _known(blobs), False
    return _known(blobs), True


def _known(blobs: Mapping[str, Blob | None]) -> dict[str, Shape]:
    return {name: blob.shape for name, blob in blobs.items() if blob is not None}


def _follow(
    net: pb.NetParameter,
    phase: int,
    given: Mapping[str, Shape],
    blobs: dict[str, Blob | None],
    sketches: list[LayerSketch],
) -> None:
    """Add the layers and their blobs, in order, until one does not fit: raises CaffeError."""
    makers: Makers = {}
    for param in layers_in(net, phase):
        param.phase = param.phase if param.HasField("phase") else phase
        _check_names(param, blobs.keys())
        made = _sketch_layer(param, [blobs[name] for name in param.bottom], given, makers)
        blobs.update(
            (name, None if shape is None else Blob(shape))
            for name, shape in zip(param.top, made.tops, strict=True)
        )
        sketches.append(made)


def _check_names(param: pb.LayerParameter, made: Collection[str]) -> None:
    """Raise CaffeError unless the bottoms are made already, and the tops are new or in place."""
    for i, name in enumerate(param.bottom):
        if name not in made:
            raise unknown_bottom(param, i)
    for i, name in enumerate(param.top):
        in_place = name in param.bottom[i : i + 1]
        if (name in made or name in param.top[:i]) and not in_place:
            raise second_maker(param, i)


def _is_known(param: pb.LayerParameter) -> bool:
    """Whether the type is known and can be sketched without running a user's code."""
    return param.type in REGISTRY and param.type != "Python"


def _sketch_layer(
    param: pb.LayerParameter,
    bottoms: list[Blob | None],
    given: Mapping[str, Shape],
    makers: Makers,
) -> LayerSketch:
    told = [given.get(name) for name in param.top]
    if not _is_known(param):
        tops = told if bottoms else _with_labels(told, given.get(""))
        own = "its Python class is not run here" if param.type == "Python" else unknown_type(param)
        return LayerSketch(param, tops, problem=own, unknown=True)
    unknown = [blob is None for blob in bottoms]
    if any(unknown):
        name = param.bottom[unknown.index(True)]
        return LayerSketch(param, told, problem=f"the shape of its bottom {name!r} is not known")
    if not bottoms and told and None not in told:
        return LayerSketch(param, told)
    layer_class = REGISTRY[param.type]
    if layer_class.is_input and not param.input_param.shape:
        return LayerSketch(param, _inputs(param, told, given.get("")))
    try:
        layer, tops = _attach(param, bottoms, makers)
    except CaffeError as error:
        if not issubclass(layer_class, PrefetchingLayer):
            raise
        found = _with_labels(told, given.get(""))
        if None in found or not found:
            raise _unknown_shape(param, found, str(error)) from None
        return LayerSketch(param, found)
    found = [blob.shape for blob in tops]
    if not bottoms:
        found = [own if s is None else s for s, own in zip(told, found, strict=True)]
    shapes = [blob.shape for blob in bottoms if blob is not None]
    params = [blob.shape for blob in layer.blobs]
    return LayerSketch(param, found, params, layer.macs(shapes))


def _with_labels(told: list[Shape | None], first: Shape | None) -> list[Shape | None]:
    """A data layer's top shapes: the first top may have `first`; the others hold one label each."""
    if told and told[0] is not None:
        first = told[0]
    if first is None:
        return told
    return [first if i == 0 else first[:1] if s is None else s for i, s in enumerate(told)]


def _inputs(
    param: pb.LayerParameter, told: list[Shape | None], one: Shape | None
) -> list[Shape | None]:
    """The top shapes of an Input layer that states none; `one` is for a single top not told."""
    found = [one if s is None and told.count(None) == 1 else s for s in told]
    if None in found or not found:
        problem = f"layer {param.name!r} ({param.type}): its shape is not in the net"
        raise _unknown_shape(param, found, problem)
    return found


def _unknown_shape(
    param: pb.LayerParameter, tops: list[Shape | None], problem: str
) -> UnknownShape:
    name = param.top[tops.index(None)] if tops else "its top"
    return UnknownShape(f"{problem}; give the shape of {name}")


def _attach(
    param: pb.LayerParameter, bottoms: list[Blob | None], makers: Makers
) -> tuple[Layer, list[Blob]]:
    """The layer, attached to its bottoms, and its tops; in-place tops are the bottoms' blobs.

    makers: who made the bottoms; gets who made the tops.
    """
    layer = create_layer(param)
    for i, name in enumerate(param.bottom):
        if name in makers:
            layer.meet(i, *makers[name])
    first = makers.get(param.bottom[0]) if param.bottom else None
    for i, name in enumerate(param.top):
        makers[name] = first if param.type == "Split" and first else (layer, i)
    attached = [blob for blob in bottoms if blob is not None]
    tops = [
        attached[i] if i < len(attached) and param.bottom[i] == name else Blob()
        for i, name in enumerate(param.top)
    ]
    hidden = layer.tops[0] - len(tops) if layer.auto_tops else 0
    layer.attach(attached, [*tops, *(Blob() for _ in range(hidden))])
    return layer, tops

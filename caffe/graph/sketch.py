"""Sketch: the shapes of a net's layers and parameters, without building the net.

Nothing is filled or allocated, no Python layer is imported and nothing is logged of how layers are
connected; layers that are unknown, or whose data is not at hand, can be told their shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.graph.rules import layers_in
from caffe.layers import REGISTRY, Layer, create_layer, unknown_type
from caffe.proto import caffe_pb2 as pb

Shape = tuple[int, ...]


@dataclass
class LayerSketch:
    """A layer with its shapes.

    tops: one a top; None where it is not known. params: of the parameter blobs. macs: multiply-adds
    of a forward pass. problem: why shapes are not known; empty if all are.
    """

    layer: pb.LayerParameter
    tops: list[Shape | None]
    params: list[Shape] = field(default_factory=list)
    macs: int = 0
    problem: str = ""

    @property
    def own_tops(self) -> list[Shape]:
        """Known shapes of the tops for which the layer needs memory of its own."""
        made_by = REGISTRY.get(self.layer.type)
        if made_by is not None and made_by.shares_memory and not self.params:
            return []
        pairs = zip(self.layer.top, self.tops, strict=True)
        return [s for name, s in pairs if name not in self.layer.bottom and s is not None]


class UnknownShape(CaffeError):
    """The shape of a net's data is needed and cannot be found; the message names the blob."""


def sketch(
    net: pb.NetParameter, phase: int, inputs: Mapping[str, Shape] | None = None
) -> list[LayerSketch]:
    """Every layer that a net has in a phase, in order.

    inputs: shapes of blobs by name, for sources and for layers of an unknown type; under the name
    "" the shape of the first top of data layers whose data is not at hand.

    A layer of an unknown type, and a Python layer, has unknown shapes unless told, and so have the
    layers behind it. Raises UnknownShape for data that is not at hand, and CaffeError, naming the
    layer, where a layer does not fit its bottoms or `inputs` names a blob that cannot be told.
    """
    given = dict(inputs or {})
    blobs: dict[str, Blob | None] = {}
    sketches = []
    told: set[str] = set()
    for param in layers_in(net, phase):
        param.phase = param.phase if param.HasField("phase") else phase
        missing = [name for name in param.bottom if name not in blobs]
        if missing:
            raise CaffeError(
                f"layer {param.name!r}: no layer before it makes its bottom {missing[0]!r}"
            )
        bottoms = [blobs[name] for name in param.bottom]
        made = _sketch_layer(param, bottoms, given)
        if not param.bottom or not _is_known(param) or made.problem:
            told |= set(param.top)
        blobs.update(
            (name, None if shape is None else Blob(shape))
            for name, shape in zip(param.top, made.tops, strict=True)
        )
        sketches.append(made)
    for name in given:
        if name and name not in told:
            raise CaffeError(f"{name!r} is not an input of the net: its shape cannot be given")
    return sketches


def _is_known(param: pb.LayerParameter) -> bool:
    """Whether the type is known, and sketched without running a user's code."""
    return param.type in REGISTRY and param.type != "Python"


def _sketch_layer(
    param: pb.LayerParameter, bottoms: list[Blob | None], given: Mapping[str, Shape]
) -> LayerSketch:
    told = [given.get(name) for name in param.top]
    unknown = [blob is None for blob in bottoms]
    if all(told) and told and (not bottoms or not _is_known(param) or any(unknown)):
        return LayerSketch(param, told)
    if not _is_known(param):
        own = "its Python class is not run here" if param.type == "Python" else unknown_type(param)
        return LayerSketch(param, told, problem=own)
    if any(unknown):
        name = param.bottom[unknown.index(True)]
        return LayerSketch(param, told, problem=f"the shape of its bottom {name!r} is not known")
    if not param.top and not param.bottom:
        return LayerSketch(param, [])
    try:
        layer, tops = _attach(param, bottoms)
    except CaffeError as error:
        if param.bottom:
            raise
        if "" not in given:
            name = param.top[0] if param.top else "its top"
            raise UnknownShape(f"{error}; give the shape of {name}") from None
        # The further tops of a data layer are labels, one a record.
        first = given[""]
        return LayerSketch(param, [first, *[first[:1]] * (len(param.top) - 1)])
    shapes = [blob.shape for blob in bottoms if blob is not None]
    params = [blob.shape for blob in layer.blobs]
    return LayerSketch(param, [blob.shape for blob in tops], params, layer.macs(shapes))


def _attach(param: pb.LayerParameter, bottoms: list[Blob | None]) -> tuple[Layer, list[Blob]]:
    """The layer on its bottoms, and its tops; those in place are its bottoms."""
    layer = create_layer(param)
    attached = [blob for blob in bottoms if blob is not None]
    tops = [
        attached[i] if i < len(attached) and param.bottom[i] == name else Blob()
        for i, name in enumerate(param.top)
    ]
    hidden = layer.tops[0] - len(tops) if layer.auto_tops else 0
    layer.attach(attached, [*tops, *(Blob() for _ in range(hidden))])
    return layer, tops

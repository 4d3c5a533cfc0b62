"""A net's learned parameters: their multipliers, and which layers share one by name."""

from __future__ import annotations

import math
from collections.abc import Sequence

from caffe.blob import Blob, shape_string
from caffe.errors import CaffeError
from caffe.layers import Layer
from caffe.process.ranks import announce
from caffe.proto import caffe_pb2 as pb


class Parameter:
    """A blob that learns: the layer that owns it, and its multipliers of rate and decay."""

    def __init__(self, layer: Layer, index: int, spec: pb.ParamSpec) -> None:
        self.layer, self.index, self.spec = layer, index, pb.ParamSpec()
        self.spec.CopyFrom(spec)

    @property
    def blob(self) -> Blob:
        return self.layer.blobs[self.index]

    @property
    def lr_mult(self) -> float:
        return self.spec.lr_mult

    @property
    def decay_mult(self) -> float:
        return self.spec.decay_mult


class Parameters:
    """All parameter blobs of a net, and which of them are shared by name."""

    def __init__(self) -> None:
        self.learnable: list[Parameter] = []
        self._named: dict[str, Parameter] = {}
        self._sharers: list[tuple[Layer, int, Parameter]] = []

    def add(self, layer: Layer, rates: Sequence[float]) -> bool:
        """Take in a layer's blobs; True if any of them learns.

        rates: lr_mult as the prototxt gives it. Caffe uses these to find the layers that need a
        gradient, which includes BatchNorm: it sets lr_mult 0 for its own blobs only later. Raises
        CaffeError for too many param entries, and for blobs that cannot be shared.
        """
        specs = list(layer.layer_param.param)
        if len(specs) > len(layer.blobs):
            raise CaffeError(
                f"{layer.where}: {len(specs)} param entries are given, it has "
                f"{len(layer.blobs)} parameter blob(s)"
            )
        for i, spec in enumerate(specs):
            for field in ("lr_mult", "decay_mult"):
                value = getattr(spec, field)
                if not math.isfinite(value):
                    what = f"{field} of param {i} is {value:g}, expected a finite number"
                    raise CaffeError(f"{layer.where}: {what}")
        specs += [pb.ParamSpec()] * (len(layer.blobs) - len(specs))
        rates = [*rates, *[1.0] * (len(specs) - len(rates))]
        layer.param_propagate_down = [rate != 0 for rate in rates]
        for i, spec in enumerate(specs):
            owner = self._named.get(spec.name) if spec.name else None
            if owner is not None:
                self._share(layer, i, spec, owner)
                continue
            param = Parameter(layer, i, spec)
            self.learnable.append(param)
            if spec.name:
                self._named[spec.name] = param
        return any(layer.param_propagate_down)

    def _share(self, layer: Layer, i: int, spec: pb.ParamSpec, owner: Parameter) -> None:
        announce(
            "net.cpp:467",
            f"Sharing parameters '{spec.name}' owned by layer '{owner.layer.name}', param "
            f"index {owner.index}",
        )
        mine, theirs = layer.blobs[i], owner.blob
        permissive = spec.share_mode == pb.ParamSpec.PERMISSIVE
        if mine.count != theirs.count or (not permissive and mine.shape != theirs.shape):
            raise CaffeError(
                f"{layer.where}: cannot share param {spec.name!r} of layer {owner.layer.name!r}: "
                f"its shape is {shape_string(theirs.shape)}, this layer's "
                f"{shape_string(mine.shape)}"
            )
        for field in ("lr_mult", "decay_mult"):
            if not spec.HasField(field):
                continue
            if owner.spec.HasField(field) and getattr(owner.spec, field) != getattr(spec, field):
                raise CaffeError(f"{layer.where}: shared param {spec.name!r} has another {field}")
            setattr(owner.spec, field, getattr(spec, field))
        self._sharers.append((layer, i, owner))

    def share(self) -> None:
        for layer, i, owner in self._sharers:
            layer.blobs[i].share_data(owner.blob)
            layer.blobs[i].share_diff(owner.blob)

    def is_shared(self, layer: Layer, i: int) -> bool:
        """Whether another layer owns this blob."""
        return any(s is layer and k == i for s, k, _ in self._sharers)

    @staticmethod
    def display_name(layer: Layer, i: int) -> str:
        specs = layer.layer_param.param
        return (specs[i].name if i < len(specs) else "") or str(i)

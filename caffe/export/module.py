"""to_module: a net as a plain torch.nn.Module, for whatever PyTorch can do with one."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from google.protobuf.message import Message

from boundary import trust
from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.graph.rules import filter_net
from caffe.graph.unpooling import free_sizes
from caffe.layers.base import Layer
from caffe.layers.fillers import fill
from caffe.net import Net
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb

Shapes = Mapping[str, Sequence[int]]


def to_module(
    prototxt: str | os.PathLike[str] | pb.NetParameter | Net,
    weights: str | os.PathLike[str] | None = None,
    phase: int = pb.TEST,
    *,
    inputs: Shapes | None = None,
    outputs: Sequence[str] | None = None,
    level: int = 0,
    stages: Sequence[str] | None = None,
) -> NetModule:
    """A net as a torch.nn.Module: its layers as submodules, its parameters under their names.

    prototxt: a file, a message, or a caffe.Net, whose phase and weights are copied.
    weights: .caffemodel or .caffemodel.h5; None leaves the fillers' values.
    phase: caffe.TEST gives a module in eval mode, caffe.TRAIN one in training mode.
    inputs: blob name -> shape. Such a blob becomes an input of that shape; the layer that makes it
        (a data layer whose source is missing, say) is dropped.
    outputs: blobs to return; default: the net's outputs. Layers that none of them needs are
        dropped.

    Raises CaffeError for a net or weights that cannot be used, or a name that the net lacks.
    """
    if isinstance(prototxt, Net):
        return NetModule(_copy(prototxt, inputs or {}), outputs)
    state = pb.NetState(phase=phase, level=level, stage=stages or [])
    return NetModule(load_net(prototxt, weights, state, inputs), outputs)


def load_net(
    prototxt: str | os.PathLike[str] | pb.NetParameter,
    weights: str | os.PathLike[str] | None,
    state: pb.NetState,
    inputs: Shapes | None = None,
    trusted: bool = True,
    complete: bool = False,
) -> Net:
    """A net whose blobs named in `inputs` are inputs of these shapes, whatever made them before.

    trusted: whether layers may run Python code and write files; if not, CaffeError names the first
    that would, before any layer is made. complete: as Net.copy_from's.
    """
    param = pb.NetParameter()
    if isinstance(prototxt, pb.NetParameter):
        param.CopyFrom(prototxt)
    else:
        param = files.read_net(prototxt, emit)
    param.state.MergeFrom(state)
    param = _with_inputs(param, inputs or {})
    if not trusted:
        where = "net" if isinstance(prototxt, pb.NetParameter) else prototxt
        trust.check(filter_net(param, quiet=True), where, CaffeError)
    net = Net.from_state(param)
    if weights is not None:
        net.copy_from(weights, complete)
    return net


def _copy(net: Net, inputs: Shapes) -> Net:
    """A net of the same structure and weights."""
    param = net.to_proto()
    param.state.phase = net.phase
    for layer in param.layer:  # applied already, and not for this state
        layer.ClearField("include")
        layer.ClearField("exclude")
    copied = Net.from_state(_with_inputs(param, inputs))
    for layer, original in zip(copied.wiring.layers, net.wiring.layers, strict=True):
        for mine, theirs in zip(layer.blobs, original.blobs, strict=False):  # inputs have none
            mine.tensor().copy_(theirs.tensor())
    return copied


class NetModule(torch.nn.Module):
    """The module that to_module makes from `net`, whose layers it takes over.

    Call it with tensors for `inputs`, in that order or by name; tops of DummyData layers may be
    given by name. It returns the tensor of its one output, or a dict of all outputs by name. The
    batch may have any size, and so may images where the layers allow it.

    inputs, outputs: names of blobs; input_shapes: the shapes that the prototxt gives; loss_weights:
    those that are not 0, by name of top. Submodules have the layers' names ('.' becomes '_'); the
    state_dict's keys are LAYER.0, LAYER.1, ... train() and eval() switch the layers that depend on
    the phase: Dropout, and BatchNorm unless use_global_stats is given. Parameters with lr_mult 0
    require no gradient; BatchNorm's statistics are buffers. Recurrent layers start each call with a
    fresh state, unless the state is exposed (expose_hidden) and the caller carries it on.
    """

    def __init__(self, net: Net, outputs: Sequence[str] | None = None) -> None:
        super().__init__()
        self.name = net.name
        self.outputs = list(net.outputs if outputs is None else outputs)
        self.inputs: list[str] = []
        self.input_shapes: dict[str, tuple[int, ...]] = {}
        self.loss_weights: dict[str, float] = {}
        self._defaults: dict[str, pb.FillerParameter] = {}
        self._steps: list[Step] = []
        self._copies: dict[str, str] = {}  # top of a Split -> its bottom
        owners: dict[object, torch.nn.Parameter] = {}
        for i, needed in net.wiring.needed_for(self.outputs):
            self._add(net, i, needed, owners)
        self.loss_weights = {
            self._copies.get(top, top): w for top, w in net.blob_loss_weights.items() if w
        }
        self._forget_early()
        self.train(net.phase == pb.TRAIN)

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> Any:
        values = self._gather(inputs, named)
        for step in self._steps:
            tops = getattr(self, step.key)(*[values[name] for name in step.bottoms])
            for name, top in zip(step.tops, tops):  # noqa: B905 - dynamo lacks strict
                values[name] = top
            for name in step.last_use:
                del values[name]
        answers = {name: values[self._copies.get(name, name)] for name in self.outputs}
        return answers[self.outputs[0]] if len(answers) == 1 else answers

    def extra_repr(self) -> str:
        return f"inputs={self.inputs}, outputs={self.outputs}"

    # -- building -------------------------------------------------------------------------------

    def _add(
        self, net: Net, i: int, needed: set[str], owners: dict[object, torch.nn.Parameter]
    ) -> None:
        wiring = net.wiring
        layer = wiring.layers[i]
        bottoms, tops = wiring.names(wiring.bottoms[i]), wiring.names(wiring.tops[i])
        bottoms = [self._copies.get(name, name) for name in bottoms]
        if layer.type == "Split":
            self._copies.update(dict.fromkeys(tops, bottoms[0]))
        elif fillers := layer.fillers_of_tops():
            for top, filler in zip(tops, fillers, strict=True):
                self._defaults[top] = filler
                self.input_shapes[top] = net.blobs[top].shape
        elif not bottoms and layer.source and not layer.blobs:
            self.inputs += [top for top in tops if top in needed]
            self.input_shapes.update({top: net.blobs[top].shape for top in self.inputs})
        else:
            key = self._free_name(layer.name.replace(".", "_") or "layer")
            self.add_module(key, LayerModule(layer, owners))
            self._steps.append(Step(key, bottoms, tops))

    def _free_name(self, name: str) -> str:
        """The name of a submodule: the layer's, unless torch or another layer has it already."""
        free = name
        while hasattr(self, free):
            free += "_"
        return free

    def _forget_early(self) -> None:
        """Set last_use of the steps: forward frees a blob after the last step that takes it."""
        seen = {self._copies.get(name, name) for name in self.outputs}
        for step in reversed(self._steps):
            step.last_use = sorted({*step.bottoms, *step.tops} - seen)
            seen |= {*step.bottoms}

    def _gather(
        self, inputs: Sequence[torch.Tensor], named: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        if len(inputs) > len(self.inputs):
            raise TypeError(f"{len(inputs)} inputs are given, the net has {self.inputs}")
        values = {**dict(zip(self.inputs, inputs)), **named}  # noqa: B905 - dynamo lacks strict
        for name in self.inputs:
            if name not in values:
                raise TypeError(f"input {name!r} is missing; the net has {self.inputs}")
        known = {*self.inputs, *self._defaults}
        for name in values:
            if name not in known:
                raise TypeError(f"the net has no input {name!r}; it has {self.inputs}")
        for name, filler in self._defaults.items():
            if name not in values:
                like = next(self.parameters(), torch.empty(0))
                values[name] = torch.empty(self.input_shapes[name], device=like.device)
                fill(values[name], filler)
        return values


@dataclass
class Step:
    """One call of a layer: its submodule's name, bottoms and tops, and the blobs to free then."""

    key: str
    bottoms: list[str]
    tops: list[str]
    last_use: Sequence[str] = ()


class LayerModule(torch.nn.Module):
    """One layer as a module; its parameters are called 0, 1, ... Returns a list of its tops."""

    def __init__(self, layer: Layer, owners: dict[object, torch.nn.Parameter]) -> None:
        super().__init__()
        self.layer = layer
        self.shapes = [blob.shape for blob in layer.blobs]
        self.detached = [not down for down in layer.layer_param.propagate_down]
        for i, (blob, learns) in enumerate(
            zip(layer.blobs, layer.param_propagate_down, strict=True)
        ):
            values = blob.tensor(torch.device("cpu"))
            if layer.statistic(i):
                self.register_buffer(str(i), values.clone())
                continue
            shared = blob.data_key  # the same for parameters that are shared by name
            if shared not in owners:
                owners[shared] = torch.nn.Parameter(values.clone(), requires_grad=learns)
            self.register_parameter(str(i), owners[shared])
        if layer.shown is layer:  # a Python layer keeps the user's own blobs
            layer.blobs = [Blob(shape) for shape in self.shapes]  # allocated only when read
            layer.layer_param = plain(layer.layer_param)

    def forward(self, *bottoms: torch.Tensor) -> Sequence[torch.Tensor]:
        bottom = list(bottoms)
        for i, detached in enumerate(self.detached):
            if detached:
                bottom[i] = bottom[i].detach()
        blobs = [getattr(self, str(i)) for i in range(len(self.shapes))]
        for i, shape in enumerate(self.shapes):
            if blobs[i].shape != shape:  # shared under share_mode PERMISSIVE
                blobs[i] = blobs[i].view(shape)
        self.layer.reset()
        tops = self.layer.forward(bottom, blobs)
        return [tops] if isinstance(tops, torch.Tensor) else list(tops)

    def train(self, mode: bool = True) -> LayerModule:
        self.layer.phase = self.layer.shown.phase = pb.TRAIN if mode else pb.TEST
        return super().train(mode)

    def _get_name(self) -> str:
        return self.layer.type

    def extra_repr(self) -> str:
        return ", ".join("x".join(map(str, shape)) or "scalar" for shape in self.shapes)


class Plain:
    """A message's fields as plain attributes, which torch.compile can read, with HasField."""

    def __init__(self, fields: dict[str, Any], present: frozenset[str]) -> None:
        self.__dict__.update(fields)
        self._present = present

    def HasField(self, name: str) -> bool:
        return name in self._present


def plain(message: Message) -> Plain:
    """A copy of a message that holds only Python's own objects."""
    fields: dict[str, Any] = {}
    present = set()
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        if hasattr(value, "extend"):
            items = list(value)
            fields[field.name] = [plain(v) for v in items] if field.message_type else items
        elif message.HasField(field.name):
            present.add(field.name)
            fields[field.name] = plain(value) if field.message_type else value
        else:
            fields[field.name] = _default(type(value)) if field.message_type else value
    return Plain(fields, frozenset(present))


@functools.cache
def _default(kind: type[Message]) -> Plain:
    return plain(kind())


def _with_inputs(param: pb.NetParameter, inputs: Shapes) -> pb.NetParameter:
    """The net with the layers that make the given blobs replaced by Input layers."""
    param = filter_net(param)
    found, other_sizes = set(), False
    for layer in param.layer:
        given = {top for top in layer.top if top in inputs and top not in layer.bottom}
        if not given:
            continue
        found |= given
        shapes = dict.fromkeys(layer.top)
        if layer.type == "Input":
            old = list(layer.input_param.shape)
            old = old * len(layer.top) if len(old) == 1 else old
            shapes = {top: shape.dim for top, shape in zip(layer.top, old, strict=True)}
        sized = [(shapes[top], inputs[top]) for top in given]
        other_sizes |= any(old is None or [*old][2:] != [*new][2:] for old, new in sized)
        shapes.update({top: inputs[top] for top in given})
        for top, shape in shapes.items():
            if shape is None:
                raise CaffeError(
                    f"inputs: layer {layer.name!r} makes {list(layer.top)}; give a shape for "
                    f"{top!r}, too"
                )
        made = pb.LayerParameter(name=layer.name, type="Input", top=layer.top)
        made.input_param.shape.extend(pb.BlobShape(dim=shape) for shape in shapes.values())
        layer.CopyFrom(made)
    for name in inputs:
        if name not in found:
            raise CaffeError(f"inputs: the net has no blob {name!r}")
    if other_sizes:
        free_sizes(param)
    return param

"""Shapes of a net's blobs and parameters by arithmetic alone, without an engine.

One rule a layer type, each after the Caffe layer of that name. A rule takes the layer and the
shapes of its bottoms and gives those of its tops and parameters, and the multiply-adds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from caffe import TRAIN
from caffe.errors import CaffeError
from caffe.proto.caffe_pb2 import LayerParameter, NetParameter, PoolingParameter
from netgen import filelist
from netgen.phases import layers_in
from netgen.sources import picture_shape, record_shape

Shape = tuple[int, ...]


@dataclass
class Sized:
    """What a rule finds: shapes of the tops and of the parameters, and multiply-adds a batch."""

    tops: list[Shape]
    params: list[Shape] = field(default_factory=list)
    macs: int = 0


@dataclass
class SizedLayer(Sized):
    """A layer with its sizes. `own_tops` are the tops that are not also its bottoms."""

    layer: LayerParameter = field(default_factory=LayerParameter)

    @property
    def own_tops(self) -> list[Shape]:
        """Shapes of the tops for which the layer needs memory of its own."""
        return [
            shape
            for name, shape in zip(self.layer.top, self.tops, strict=True)
            if name not in self.layer.bottom
        ]


class UnknownShape(CaffeError):
    """The shape of a net's input is needed and not to be found; the message names its blob."""


class _Misfit(Exception):
    """A layer that its bottoms do not fit; says why."""


class _NeedsInput(_Misfit):
    """A data layer whose shapes have to be told."""


Rule = Callable[[LayerParameter, list[Shape]], Sized]
RULES: dict[str, Rule] = {}


def _rule(*types: str) -> Callable[[Rule], Rule]:
    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(types, function))
        return function

    return register


def size_net(
    net: NetParameter, phase: int, inputs: Mapping[str, Shape] | None = None
) -> list[SizedLayer]:
    """Every layer of a phase with its shapes, in order.

    inputs: shapes of blobs by name, for layers without bottoms or without a rule; under the name ""
    the shape of the first top of data layers whose records cannot be looked at.

    Raises CaffeError, naming the layer, where a shape cannot be told or does not fit.
    """
    given = dict(inputs or {})
    blobs: dict[str, Shape] = {}
    sized = []
    for layer in layers_in(net, phase):
        missing = [name for name in layer.bottom if name not in blobs]
        if missing:
            raise CaffeError(
                f"layer {layer.name}: no layer before it makes its bottom {missing[0]}"
            )
        bottoms = [blobs[name] for name in layer.bottom]
        result = _size_layer(layer, bottoms, given)
        blobs.update(zip(layer.top, result.tops, strict=True))
        sized.append(SizedLayer(result.tops, result.params, result.macs, layer))
    told = {
        name
        for item in sized
        if not item.layer.bottom or item.layer.type not in RULES
        for name in item.layer.top
    }
    strange = [name for name in given if name and name not in told]
    if strange:
        raise CaffeError(f"{strange[0]} is not an input of the net: its shape cannot be given")
    return sized


def _size_layer(layer: LayerParameter, bottoms: list[Shape], given: Mapping[str, Shape]) -> Sized:
    where = f"layer {layer.name} ({layer.type})"
    told = [given[name] for name in layer.top if name in given]
    if told and len(told) == len(layer.top) and (not bottoms or layer.type not in RULES):
        return Sized(told)
    try:
        result = RULES.get(layer.type, _unknown)(layer, bottoms)
    except _NeedsInput as error:
        if "" not in given:
            name = layer.top[0] if layer.top else "its top"
            raise UnknownShape(f"{where}: {error}; give the shape of {name}") from None
        # The further tops of a data layer are labels, one a record.
        result = Sized([given[""]] + [given[""][:1]] * (len(layer.top) - 1))
    except _Misfit as error:
        raise CaffeError(f"{where}: {error}") from None
    except IndexError:
        shapes = ", ".join(show(shape) for shape in bottoms) or "none"
        found = f"its bottoms are too few or have too few axes: {shapes}"
        raise CaffeError(f"{where}: {found}") from None
    if len(result.tops) < len(layer.top):
        raise CaffeError(f"{where}: it makes {len(result.tops)} tops, the net wants more")
    result.tops = result.tops[: len(layer.top)]
    if any(size < 1 for shape in result.tops for size in shape):
        found = " and ".join(map(show, bottoms)) or "its settings"
        raise CaffeError(f"{where}: {found} leave a top without any values")
    return result


def show(shape: Shape) -> str:
    """A shape as 1x3x240x320; a single value, which has no axes, as 1."""
    return "x".join(map(str, shape)) or "1"


def _axis(axis: int, shape: Shape) -> int:
    if not -len(shape) <= axis < len(shape):
        raise _Misfit(f"axis {axis} is out of range for {show(shape)}")
    return axis % len(shape)


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


# -------------------------------------------------------------------------------------------------
# Data
# -------------------------------------------------------------------------------------------------


@_rule("Input")
def _input(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    return Sized(_one_each(layer, [tuple(s.dim) for s in layer.input_param.shape]))


@_rule("DummyData")
def _dummy(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p = layer.dummy_data_param
    old = list(zip(p.num, p.channels, p.height, p.width, strict=False))
    return Sized(_one_each(layer, [tuple(s.dim) for s in p.shape] or old))


def _one_each(layer: LayerParameter, shapes: list[Shape]) -> list[Shape]:
    if len(shapes) not in (1, len(layer.top)):
        raise _Misfit(f"{len(shapes)} shapes for {len(layer.top)} tops; expected 1 or one a top")
    return shapes if len(shapes) == len(layer.top) else shapes * len(layer.top)


@_rule("Data")
def _data(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p = layer.data_param
    try:
        shape = record_shape(p)
    except CaffeError as error:
        raise _NeedsInput(str(error)) from None
    return _records(layer, p.batch_size, shape, p.crop_size)


@_rule("ImageData")
def _image_data(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p = layer.image_data_param
    channels = 3 if p.is_color else 1
    shape = (channels, p.new_height, p.new_width)
    if not (p.new_height and p.new_width) and not (layer.transform_param.crop_size or p.crop_size):
        try:
            with open(p.source) as lines:
                first = lines.readline().rsplit(maxsplit=1)[0]
            shape = (channels, *picture_shape(p.root_folder + first)[1:])
        except (CaffeError, OSError, IndexError):
            raise _NeedsInput(f"the first picture of {p.source} cannot be looked at") from None
    return _records(layer, p.batch_size, shape, p.crop_size)


def _records(layer: LayerParameter, batch: int, shape: Shape, old_crop: int) -> Sized:
    transform = layer.transform_param
    crop, free = transform.crop_size or old_crop, transform.augmentation_param
    if crop:
        shape = (shape[0], crop, crop)
    elif free.crop_h and free.crop_w and _trains(layer):
        shape = (shape[0], free.crop_h, free.crop_w)
    return Sized([(batch, *shape), (batch,)])


def _trains(layer: LayerParameter) -> bool:
    """Whether a layer is for training alone, as augmentation is."""
    return any(rule.HasField("phase") and rule.phase == TRAIN for rule in layer.include)


@_rule("MemoryData")
def _memory_data(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p = layer.memory_data_param
    crop = layer.transform_param.crop_size
    size = (crop, crop) if crop else (p.height, p.width)
    return Sized([(p.batch_size, p.channels, *size), (p.batch_size,)])


@_rule("WindowData")
def _window_data(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p = layer.window_data_param
    crop = layer.transform_param.crop_size or p.crop_size
    return Sized([(p.batch_size, 3, crop, crop), (p.batch_size,)])


@_rule("HDF5Data")
def _hdf5_data(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    raise _NeedsInput("its shapes are not in the net")


def _unknown(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    settings = filelist.settings(layer)
    if settings is not None and settings.get("size"):
        batch, (width, height) = settings.get("batch_size", 1), settings["size"]
        planes = [(batch, channels, height, width) for channels in (3, 1, 1)]
        return Sized([*planes, (batch,)])
    why = "there is no rule for the shapes of this layer type"
    if bottoms:
        raise _Misfit(f"{why}; give the shapes of {', '.join(layer.top)} by name")
    raise _NeedsInput(why)


@_rule("Parameter")
def _parameter(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    shape = tuple(layer.parameter_param.shape.dim)
    return Sized([shape], [shape])


# -------------------------------------------------------------------------------------------------
# The same shape as the bottom
# -------------------------------------------------------------------------------------------------


@_rule("AbsVal", "BNLL", "Clip", "Dropout", "ELU", "Exp", "LRN", "Log", "MVN", "Power", "ReLU")
@_rule("Sigmoid", "Softmax", "Swish", "TanH", "Threshold")
def _same(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    return Sized([bottoms[0]])


@_rule("Split")
def _split(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    return Sized([bottoms[0]] * len(layer.top))


@_rule("PReLU")
def _prelu(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    return Sized(bottoms[:1], [() if layer.prelu_param.channel_shared else bottoms[0][1:2]])


@_rule("BatchNorm")
def _batch_norm(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    channels = bottoms[0][1:2] or (1,)
    return Sized(bottoms[:1], [channels, channels, (1,)])


@_rule("Scale", "Bias")
def _scale(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    bottom = bottoms[0]
    p = layer.scale_param if layer.type == "Scale" else layer.bias_param
    if len(bottoms) == 1:
        start = _axis(p.axis, bottom)
        shape = bottom[start:] if p.num_axes == -1 else bottom[start : start + p.num_axes]
        if p.num_axes > len(shape):
            raise _Misfit(f"{p.num_axes} axes from {p.axis} on reach beyond {show(bottom)}")
        params = [shape]
    else:
        start = _axis(p.axis, bottom) if bottoms[1] else 0
        shape, params = bottoms[1], []
        if bottom[start : start + len(shape)] != shape:
            raise _Misfit(f"bottoms {show(bottom)} and {show(shape)} do not fit at axis {p.axis}")
    if layer.type == "Scale" and p.bias_term:
        params.append(shape)
    return Sized([bottom], params)


@_rule("Eltwise")
def _eltwise(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    for name, shape in zip(layer.bottom, bottoms, strict=True):
        if shape != bottoms[0]:
            raise _Misfit(
                f"bottom {name} is {show(shape)}, bottom {layer.bottom[0]} {show(bottoms[0])}"
            )
    return Sized(bottoms[:1])


# -------------------------------------------------------------------------------------------------
# Windows
# -------------------------------------------------------------------------------------------------


@dataclass
class _Window:
    """Kernel, stride, padding and dilation of a convolution, one value a spatial axis."""

    axis: int
    kernel: Shape
    stride: Shape
    pad: Shape
    dilation: Shape

    @property
    def extent(self) -> Shape:
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True))


def _window(p: Any, bottom: Shape) -> _Window:
    axis = _axis(p.axis, bottom)
    count = len(bottom) - axis - 1

    def values(name: str, default: int) -> Shape:
        pair = {"kernel_size": "kernel"}.get(name, name)
        if name != "dilation" and (p.HasField(f"{pair}_h") or p.HasField(f"{pair}_w")):
            found = [getattr(p, f"{pair}_h"), getattr(p, f"{pair}_w")]
        else:
            found = list(getattr(p, name)) or [default]
        if len(found) not in (1, count):
            raise _Misfit(f"{len(found)} values of {name} for {count} spatial axes")
        return tuple(found * count if len(found) == 1 else found)

    window = _Window(
        axis, values("kernel_size", 0), values("stride", 1), values("pad", 0), values("dilation", 1)
    )
    if 0 in window.kernel or 0 in window.stride:
        raise _Misfit("kernel_size and stride must be above 0")
    return window


def _convolved(window: _Window, spatial: Shape) -> Shape:
    return tuple(
        (size + 2 * pad - extent) // stride + 1
        for size, pad, extent, stride in zip(
            spatial, window.pad, window.extent, window.stride, strict=True
        )
    )


@_rule("Convolution", "Deconvolution")
def _convolution(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p, bottom = layer.convolution_param, bottoms[0]
    window = _window(p, bottom)
    inputs, spatial = bottom[window.axis], bottom[window.axis + 1 :]
    if not p.num_output:
        raise _Misfit("num_output is not set")
    if not p.group or inputs % p.group or p.num_output % p.group:
        raise _Misfit(f"{inputs} inputs and {p.num_output} outputs are no multiples of {p.group}")
    if layer.type == "Convolution":
        size = _convolved(window, spatial)
        weight = (p.num_output, inputs // p.group, *window.kernel)
        uses = math.prod(size)
    else:
        size = tuple(
            stride * (n - 1) + extent - 2 * pad
            for n, stride, extent, pad in zip(
                spatial, window.stride, window.extent, window.pad, strict=True
            )
        )
        weight = (inputs, p.num_output // p.group, *window.kernel)
        uses = math.prod(spatial)
    top = (*bottom[: window.axis], p.num_output, *size)
    params = [weight, (p.num_output,)] if p.bias_term else [weight]
    macs = math.prod(bottom[: window.axis]) * uses * math.prod(weight) * len(bottoms)
    return Sized([top] * len(bottoms), params, macs)


@_rule("Im2col")
def _im2col(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    bottom = bottoms[0]
    window = _window(layer.convolution_param, bottom)
    size = _convolved(window, bottom[window.axis + 1 :])
    channels = bottom[window.axis] * math.prod(window.kernel)
    return Sized([(*bottom[: window.axis], channels, *size)] * len(bottoms))


@_rule("Pooling")
def _pooling(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p = layer.pooling_param
    if len(bottoms[0]) != 4:
        raise _Misfit(f"bottom {show(bottoms[0])} has not 4 axes")
    size = []
    for axis, n in (("h", bottoms[0][2]), ("w", bottoms[0][3])):
        own = p.HasField(f"kernel_{axis}")
        kernel = n if p.global_pooling else getattr(p, f"kernel_{axis}") if own else p.kernel_size
        own = p.HasField(f"stride_{axis}")
        stride = getattr(p, f"stride_{axis}") if own else p.stride
        pad = getattr(p, f"pad_{axis}") or p.pad
        if not kernel or not stride:
            raise _Misfit("kernel_size and stride must be above 0")
        room = n + 2 * pad - kernel
        out = (room if p.round_mode == PoolingParameter.FLOOR else room + stride - 1) // stride + 1
        # A last window that would lie in the padding alone is dropped.
        if pad and (out - 1) * stride >= n + pad:
            out -= 1
        size.append(out)
    return Sized([(*bottoms[0][:2], *size)] * 2)


@_rule("Unpooling")
def _unpooling(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p, bottom, mask = layer.unpooling_param, bottoms[0], bottoms[1]
    if bottom != mask:
        raise _Misfit(f"bottom {show(bottom)} and mask {show(mask)} are not of one shape")
    if p.output_h and p.output_w:
        size = (p.output_h, p.output_w)
    elif p.scale:
        size = (bottom[2] * p.scale, bottom[3] * p.scale)
    else:
        raise _Misfit("neither output_h and output_w nor scale are set")
    return Sized([(*bottom[:2], *size)])


@_rule("SPP")
def _spp(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    # Level l cuts the plane into 2^l x 2^l bins.
    bins = sum(4**level for level in range(layer.spp_param.pyramid_height))
    return Sized([(bottoms[0][0], bottoms[0][1] * bins)])


# -------------------------------------------------------------------------------------------------
# Rearranged
# -------------------------------------------------------------------------------------------------


@_rule("Concat")
def _concat(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p = layer.concat_param
    axis = p.concat_dim if p.HasField("concat_dim") else _axis(p.axis, bottoms[0])
    for name, shape in zip(layer.bottom, bottoms, strict=True):
        if len(shape) <= axis or _with(shape, axis, 1) != _with(bottoms[0], axis, 1):
            raise _Misfit(
                f"bottom {name} is {show(shape)}, bottom {layer.bottom[0]} {show(bottoms[0])}: "
                f"they may differ on axis {axis} alone"
            )
    return Sized([_with(bottoms[0], axis, sum(shape[axis] for shape in bottoms))])


@_rule("Slice")
def _slice(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p, bottom, count = layer.slice_param, bottoms[0], len(layer.top)
    axis = p.slice_dim if p.HasField("slice_dim") else _axis(p.axis, bottom)
    size = bottom[axis]
    if not count:
        raise _Misfit("it has no tops")
    if p.slice_point:
        points = [0, *p.slice_point, size]
    else:
        points = [size * i // count for i in range(count + 1)]
    if (
        len(points) != count + 1
        or points != sorted(set(points))
        or (not p.slice_point and size % count)
    ):
        cuts = f"at {', '.join(map(str, p.slice_point))}" if p.slice_point else "evenly"
        raise _Misfit(f"{size} on axis {axis} cannot be cut {cuts} into {count} tops")
    return Sized([_with(bottom, axis, b - a) for a, b in pairwise(points)])


@_rule("Flatten")
def _flatten(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p, bottom = layer.flatten_param, bottoms[0]
    start, end = _axis(p.axis, bottom), _axis(p.end_axis, bottom) + 1
    return Sized([(*bottom[:start], math.prod(bottom[start:end]), *bottom[end:])])


@_rule("Reshape")
def _reshape(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p, bottom = layer.reshape_param, bottoms[0]
    start = p.axis if p.axis >= 0 else len(bottom) + p.axis + 1
    end = len(bottom) if p.num_axes == -1 else start + p.num_axes
    middle = [bottom[start + i] if dim == 0 else dim for i, dim in enumerate(p.shape.dim)]
    top = [*bottom[:start], *middle, *bottom[end:]]
    if -1 in top:
        known = math.prod(dim for dim in top if dim != -1)
        top[top.index(-1)] = math.prod(bottom) // known
    if math.prod(top) != math.prod(bottom):
        raise _Misfit(f"{show(bottom)} cannot become {show(tuple(p.shape.dim))}")
    return Sized([tuple(top)])


@_rule("Crop")
def _crop(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    axis = _axis(layer.crop_param.axis, bottoms[0])
    if len(bottoms[0]) != len(bottoms[1]):
        raise _Misfit(f"{show(bottoms[0])} and {show(bottoms[1])} differ in their number of axes")
    top = (*bottoms[0][:axis], *bottoms[1][axis:])
    if any(a < b for a, b in zip(bottoms[0], top, strict=True)):
        raise _Misfit(f"{show(bottoms[0])} is smaller than {show(bottoms[1])}, which it is cut to")
    return Sized([top])


@_rule("Tile")
def _tile(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    axis = _axis(layer.tile_param.axis, bottoms[0])
    return Sized([_with(bottoms[0], axis, bottoms[0][axis] * layer.tile_param.tiles)])


@_rule("BatchReindex")
def _batch_reindex(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    return Sized([(bottoms[1][0], *bottoms[0][1:])])


@_rule("Reduction")
def _reduction(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    return Sized([bottoms[0][: _axis(layer.reduction_param.axis, bottoms[0])]])


@_rule("ArgMax")
def _arg_max(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p, bottom = layer.argmax_param, bottoms[0]
    if p.HasField("axis"):
        return Sized([_with(bottom, _axis(p.axis, bottom), p.top_k)])
    ones = (1,) * max(0, len(bottom) - 3)
    return Sized([(bottom[0], 2 if p.out_max_val else 1, p.top_k, *ones)])


@_rule("Silence", "HDF5Output")
def _no_tops(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    return Sized([])


# -------------------------------------------------------------------------------------------------
# Inner products and recurrence
# -------------------------------------------------------------------------------------------------


@_rule("InnerProduct")
def _inner_product(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p, bottom = layer.inner_product_param, bottoms[0]
    axis = _axis(p.axis, bottom)
    inputs = math.prod(bottom[axis:])
    weight = (inputs, p.num_output) if p.transpose else (p.num_output, inputs)
    params = [weight, (p.num_output,)] if p.bias_term else [weight]
    return Sized(
        [(*bottom[:axis], p.num_output)], params, math.prod(bottom[:axis]) * math.prod(weight)
    )


@_rule("Embed")
def _embed(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p = layer.embed_param
    weight = (p.input_dim, p.num_output)
    return Sized(
        [(*bottoms[0], p.num_output)], [weight, (p.num_output,)] if p.bias_term else [weight]
    )


@_rule("LSTM", "RNN")
def _recurrent(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    p = layer.recurrent_param
    steps, batch = bottoms[0][0], bottoms[0][1]
    n, inputs = p.num_output, math.prod(bottoms[0][2:])
    # An LSTM has four gates; a plain RNN has a second inner product, from state to output.
    rows, states = (4 * n, 2) if layer.type == "LSTM" else (n, 1)
    params: list[Shape] = [(rows, inputs), (rows,)]
    # With the states exposed, the last bottoms are their initial values.
    static = len(bottoms) - 2 - (states if p.expose_hidden else 0)
    if static:
        params.append((rows, math.prod(bottoms[2][1:])))
    params.append((rows, n))
    if layer.type == "RNN":
        params += [(n, n), (n,)]
    once = math.prod(params[2]) * batch if static else 0
    each = sum(math.prod(s) for i, s in enumerate(params) if len(s) == 2 and (i != 2 or not static))
    tops = [(steps, batch, n), *[(1, batch, n)] * (states if p.expose_hidden else 0)]
    return Sized(tops, params, each * steps * batch + once)


@_rule("LSTMUnit")
def _lstm_unit(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    return Sized([bottoms[0], bottoms[0]])


# -------------------------------------------------------------------------------------------------
# Losses and figures: a single value, which has no axes
# -------------------------------------------------------------------------------------------------


@_rule("ContrastiveLoss", "EuclideanLoss", "HingeLoss", "InfogainLoss")
@_rule("MultinomialLogisticLoss", "SigmoidCrossEntropyLoss", "SoftmaxWithLoss")
def _loss(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    # SoftmaxWithLoss and InfogainLoss may give the probabilities too.
    return Sized([(), bottoms[0]])


@_rule("Accuracy")
def _accuracy(layer: LayerParameter, bottoms: list[Shape]) -> Sized:
    return Sized([(), (bottoms[0][_axis(layer.accuracy_param.axis, bottoms[0])],)])

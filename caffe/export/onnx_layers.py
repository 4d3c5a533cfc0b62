"""What each layer type becomes in ONNX: one function each, in the order of the layers' files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe.export.onnx import Graph, Value, array, onnx_layer
from caffe.layers.base import Layer
from caffe.layers.pooling import LOWEST, Windows
from caffe.proto import caffe_pb2 as pb

Names = str | Sequence[str]

# -- each value by itself ---------------------------------------------------------------------

for _type, _op in {
    "AbsVal": "Abs",
    "BNLL": "Softplus",
    "Sigmoid": "Sigmoid",
    "TanH": "Tanh",
}.items():

    def _same(g: Graph, layer: Layer, x: Value, op: str = _op) -> str:
        return g.add(op, x)

    onnx_layer(_type)(_same)


@onnx_layer("Dropout", "Split")
def identity(g: Graph, layer: Layer, x: Value) -> Names:
    return [x.name] * layer.num_tops


@onnx_layer("ReLU")
def relu(g: Graph, layer: Layer, x: Value) -> str:
    slope = layer.layer_param.relu_param.negative_slope
    return g.add("LeakyRelu", x, alpha=slope) if slope else g.add("Relu", x)


@onnx_layer("PReLU")
def prelu(g: Graph, layer: Layer, x: Value) -> str:
    slope = array(layer, 0)
    slope = slope.reshape(-1, *[1] * (len(x.shape) - 2))
    return g.add("PRelu", x, g.constant(slope, name=f"{layer.name}.0"))


@onnx_layer("ELU")
def elu(g: Graph, layer: Layer, x: Value) -> str:
    return g.add("Elu", x, alpha=layer.layer_param.elu_param.alpha)


@onnx_layer("Swish")
def swish(g: Graph, layer: Layer, x: Value) -> str:
    beta = layer.layer_param.swish_param.beta
    return g.add("Mul", x, g.add("Sigmoid", _affine(g, x, beta, 0)))


@onnx_layer("Clip")
def clip(g: Graph, layer: Layer, x: Value) -> str:
    p = layer.layer_param.clip_param
    limited = g.add("Min", x, g.constant(p.max))
    return g.add("Max", limited, g.constant(p.min))


@onnx_layer("Threshold")
def threshold(g: Graph, layer: Layer, x: Value) -> str:
    limit = g.constant(layer.layer_param.threshold_param.threshold)
    return _to_float(g, g.add("Greater", x, limit))


@onnx_layer("Power")
def power(g: Graph, layer: Layer, x: Value) -> str:
    p = layer.layer_param.power_param
    y = _affine(g, x, p.scale, p.shift)
    return y if p.power == 1 else g.add("Pow", y, g.constant(p.power))


@onnx_layer("Exp")
def exp(g: Graph, layer: Layer, x: Value) -> str:
    p = layer.layer_param.exp_param
    log_base = 1.0 if p.base == -1 else math.log(p.base)
    return g.add("Exp", _affine(g, x, log_base * p.scale, log_base * p.shift))


@onnx_layer("Log")
def log(g: Graph, layer: Layer, x: Value) -> str:
    p = layer.layer_param.log_param
    log_base = 1.0 if p.base == -1 else math.log(p.base)
    y = g.add("Log", _affine(g, x, p.scale, p.shift))
    return _affine(g, y, 1 / log_base, 0)


def _affine(g: Graph, x: Value | str, scale: float, shift: float) -> str:
    """scale x + shift, in no more nodes than it takes."""
    y = x.name if isinstance(x, Value) else x
    if scale != 1:
        y = g.add("Mul", y, g.constant(scale))
    return g.add("Add", y, g.constant(shift)) if shift else y


def _to_float(g: Graph, x: str) -> str:
    from onnx import TensorProto

    return g.add("Cast", x, to=TensorProto.FLOAT)


def _to_int(g: Graph, x: Value | str) -> str:
    from onnx import TensorProto

    return g.add("Cast", x, to=TensorProto.INT64)


# -- convolution ------------------------------------------------------------------------------


@onnx_layer("Convolution", "Deconvolution")
def convolution(g: Graph, layer: Any, *bottoms: Value) -> Names:
    layer.check(
        layer.channel_axis == 1 and layer.spatial >= 1,
        f"ONNX convolves behind axis 1 only; the channels are on axis {layer.channel_axis}, with "
        f"{layer.spatial} axes behind",
    )
    op = "Conv" if layer.type == "Convolution" else "ConvTranspose"
    blobs = [g.blob(layer, i) for i in range(len(layer.blobs))]
    return [
        g.add(op, x, *blobs, group=layer.group, **_kernels(layer, _filling(layer, x)))
        for x in bottoms
    ]


@onnx_layer("Im2col")
def im2col(g: Graph, layer: Any, x: Value) -> str:
    layer.check(layer.channel_axis == 1, "ONNX convolves behind axis 1 only")
    size = math.prod(layer.kernel)
    # Each filter picks one place of the window.
    picks = np.tile(
        np.eye(size).reshape(size, 1, *layer.kernel), (layer.channels, *[1] * (layer.spatial + 1))
    )
    return g.add(
        "Conv", x, g.constant(picks), group=layer.channels, **_kernels(layer, _filling(layer, x))
    )


def _filling(layer: Any, x: Value) -> list[int]:
    """Zeros behind the image where the kernel is larger, as the layer adds them."""
    if layer.type == "Deconvolution":
        return [0] * layer.spatial
    extents = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel, strict=True)]
    sizes = zip(extents, x.shape[2:], layer.pad, strict=True)
    return [max(extent - size - 2 * pad, 0) for extent, size, pad in sizes]


def _kernels(layer: Any, filling: Sequence[int]) -> dict[str, list[int]]:
    behind = [pad + more for pad, more in zip(layer.pad, filling, strict=True)]
    return {
        "kernel_shape": list(layer.kernel),
        "strides": list(layer.stride),
        "dilations": list(layer.dilation),
        "pads": [*layer.pad, *behind],
    }


@onnx_layer("Crop")
def crop(g: Graph, layer: Layer, x: Value, size: Value) -> str:
    p = layer.layer_param.crop_param
    start = p.axis % len(x.shape)
    axes = list(range(start, len(x.shape)))
    offsets = list(p.offset) if len(p.offset) == len(axes) else (list(p.offset) or [0]) * len(axes)
    ends = [offset + size.shape[axis] for axis, offset in zip(axes, offsets, strict=True)]
    return _slice(g, x, axes, offsets, ends)


def _slice(
    g: Graph, x: Value | str, axes: Sequence[int], starts: Sequence[int], ends: Sequence[int]
) -> str:
    return g.add("Slice", x, *(g.constant(v, np.int64) for v in (starts, ends, axes)))


# -- pooling ----------------------------------------------------------------------------------


@onnx_layer("Pooling")
def pooling(g: Graph, layer: Any, x: Value) -> Names:
    p = layer.layer_param.pooling_param
    kernel = tuple(x.shape[2:]) if p.global_pooling else layer.kernel
    floor = p.round_mode == pb.PoolingParameter.FLOOR
    windows = Windows(kernel, layer.stride, layer.pad, floor)
    if p.pool == pb.PoolingParameter.MAX and layer.num_tops == 2:
        return _masked_maximum(g, layer, x, windows)
    return _pool(g, layer, x, windows, p.pool)


@onnx_layer("SPP")
def spp(g: Graph, layer: Any, x: Value) -> str:
    p = layer.layer_param.spp_param
    levels = []
    for level in range(p.pyramid_height):
        bins = 2**level
        sides = ((-(-n // bins), (-n % bins + 1) // 2) for n in x.shape[2:])
        kernel, pad = tuple(zip(*sides, strict=True))
        levels.append(_pool(g, layer, x, Windows(kernel, kernel, pad), p.pool))
    if len(levels) == 1:
        return levels[0]
    return g.add("Concat", *(g.add("Flatten", y, axis=1) for y in levels), axis=1)


def _pool(g: Graph, layer: Layer, x: Value, windows: Windows, method: int) -> str:
    attributes = _attributes(layer, x, windows)
    if method == pb.PoolingParameter.MAX:
        return g.add("MaxPool", x, **attributes)
    if method == pb.PoolingParameter.AVE:
        return _average(g, x, windows, attributes)
    # STOCHASTIC in TEST: the mean weighted by the values themselves.
    total = _average(g, x, windows, attributes)
    weighted = _average(g, g.add("Mul", x, x), windows, attributes, x.shape)
    some = g.add("Greater", total, g.constant(0))
    divisor = g.add("Where", some, total, g.constant(1))
    return g.add("Where", some, g.add("Div", weighted, divisor), g.constant(0))


def _attributes(layer: Layer, x: Value, windows: Windows) -> dict[str, list[int]]:
    """What makes ONNX see just Caffe's windows: padding as far as the last ones reach."""
    sides = zip(
        windows.count(x.shape[2:]), windows.stride, windows.kernel, windows.pad, strict=True
    )
    reach = [(n - 1) * stride + kernel - pad for n, stride, kernel, pad in sides]
    behind = [max(end - size, 0) for end, size in zip(reach, x.shape[2:], strict=True)]
    layer.check(
        all(pad < kernel for pad, kernel in zip(behind, windows.kernel, strict=True)),
        f"a window lies wholly beyond the image {x.shape[2:]}, which ONNX does not have",
    )
    return {
        "kernel_shape": list(windows.kernel),
        "strides": list(windows.stride),
        "pads": [*windows.pad, *behind],
    }


def _average(
    g: Graph,
    x: Value | str,
    windows: Windows,
    attributes: dict[str, list[int]],
    shape: Sequence[int] = (),
) -> str:
    """The mean of windows clipped to the padded image; `shape` is x's, for one that is a name."""
    size = x.shape[2:] if isinstance(x, Value) else shape[2:]
    if not any(windows.pad):  # what hangs over the image does not count
        return g.add("AveragePool", x, count_include_pad=0, **attributes)
    y = g.add("AveragePool", x, count_include_pad=1, **attributes)
    lengths = []
    for axis, n in enumerate(windows.count(size)):
        start = np.arange(n) * windows.stride[axis] - windows.pad[axis]
        end = np.minimum(start + windows.kernel[axis], size[axis] + windows.pad[axis])
        lengths.append(end - start)
    share = np.outer(*lengths) / math.prod(windows.kernel)
    return y if (share == 1).all() else g.add("Div", y, g.constant(share))


@dataclass
class Mask:
    """Where a pooling mask comes from: the image, its windows, and either the chosen places in
    the whole tensor, as ONNX counts them, or (max_unpool off) what is 1 at the chosen place of
    each window and else 0, in the form of `_tiles`.
    """

    image: Value
    windows: Windows
    places: str = ""
    chosen: str = ""


def _masked_maximum(g: Graph, layer: Layer, x: Value, windows: Windows) -> Names:
    """The maxima, and the mask in Caffe's form: places in each channel's plane."""
    if g.max_unpool:
        y, places = g.add("MaxPool", x, outputs=2, **_attributes(layer, x, windows))
        plane = g.constant(math.prod(x.shape[2:]), np.int64)
        mask = _to_float(g, g.add("Mod", places, plane))
        g.masks[mask] = Mask(x, windows, places=places)
        return y, mask
    count, (rows, columns) = windows.count(x.shape[2:]), windows.kernel
    layer.check(
        windows.kernel == windows.stride and not any(windows.pad),
        "its windows overlap or are padded: there is no form without MaxPool's indices",
    )
    tiles = _tiles(g, x, windows)
    maximum = g.add("ReduceMax", tiles, axes=[3, 5], keepdims=1)
    # Of several largest the first counts: it has the highest rank.
    rank = np.arange(rows * columns, 0, -1).reshape(1, 1, 1, rows, 1, columns)
    ranks = g.add("Mul", _to_float(g, g.add("Equal", tiles, maximum)), g.constant(rank))
    first = g.add("ReduceMax", ranks, axes=[3, 5], keepdims=1)
    chosen = _to_float(g, g.add("Equal", ranks, first))
    shape = (x.shape[0], x.shape[1], *count)
    plane = np.arange(count[0] * rows)[:, None] * x.shape[3] + np.arange(count[1] * columns)
    place = g.constant(plane.reshape(1, 1, count[0], rows, count[1], columns))
    places = g.add("ReduceSum", g.add("Mul", chosen, place), g.constant([3, 5], np.int64))
    mask = g.reshape(places, shape)
    g.masks[mask] = Mask(x, windows, chosen=chosen)
    return g.reshape(maximum, shape), mask


def _tiles(g: Graph, x: Value, windows: Windows) -> str:
    """An image cut into its windows: samples, channels, rows, height, columns, width."""
    count, behind, y = windows.count(x.shape[2:]), [], x.name
    for n, kernel, size in zip(count, windows.kernel, x.shape[2:], strict=True):
        behind.append(n * kernel - size)
    if any(behind):
        edges = g.constant([0, 0, 0, 0, 0, 0, *behind], np.int64)
        y = g.add("Pad", y, edges, g.constant(LOWEST))
    (rows, columns), (height, width) = count, windows.kernel
    return g.reshape(y, (*x.shape[:2], rows, height, columns, width))


@onnx_layer("Unpooling")
def unpooling(g: Graph, layer: Any, x: Value, mask: Value) -> str:
    height, width = layer.size
    if layer.scale:
        height, width = x.shape[2] * layer.scale, x.shape[3] * layer.scale
    shape = (*x.shape[:2], height, width)
    origin = g.masks.get(mask.name)
    fits = origin is not None and tuple(origin.image.shape[2:]) == (height, width)
    if fits and origin.chosen:
        return _untile(g, x, origin, shape)
    if fits and origin.places:
        size = _shape_like(g, x, shape)
        attributes = _attributes(layer, origin.image, origin.windows)
        return g.add("MaxUnpool", x, origin.places, size, **attributes)
    zeros = g.add("Expand", g.constant(0), _shape_like(g, x, (*shape[:2], height * width)))
    flat = (*x.shape[:2], math.prod(x.shape[2:]))
    places = _to_int(g, g.reshape(mask, flat))
    filled = g.add("ScatterElements", zeros, places, g.reshape(x, flat), axis=2)
    return g.reshape(filled, shape)


def _untile(g: Graph, x: Value, origin: Mask, shape: Sequence[int]) -> str:
    """Unpooling without MaxUnpool: every value spread over its window, times what was chosen."""
    (rows, columns), (height, width) = origin.windows.count(shape[2:]), origin.windows.kernel
    spread = g.reshape(x, (*shape[:2], rows, 1, columns, 1))
    image = g.add("Mul", origin.chosen, spread)
    image = g.reshape(image, (*shape[:2], rows * height, columns * width))
    if (rows * height, columns * width) == tuple(shape[2:]):
        return image
    return _slice(g, image, [2, 3], [0, 0], shape[2:])


def _shape_like(g: Graph, x: Value, shape: Sequence[int]) -> str:
    """A shape as a tensor, of x's batch size, whatever that is."""
    if not g.dynamic_batch:
        return g.constant(shape, np.int64)
    batch = g.add("Shape", x, start=0, end=1)
    return g.add("Concat", batch, g.constant(shape[1:], np.int64), axis=0)


# -- normalisation ----------------------------------------------------------------------------


@onnx_layer("BatchNorm")
def batch_norm(g: Graph, layer: Any, x: Value) -> str:
    if not layer.use_global:
        axes = [axis for axis in range(len(x.shape)) if axis != 1]
        centred = g.add("Sub", x, g.add("ReduceMean", x, axes=axes, keepdims=1))
        variance = g.add("ReduceMean", g.add("Mul", centred, centred), axes=axes, keepdims=1)
        return g.add("Div", centred, g.add("Sqrt", _affine(g, variance, 1, layer.eps)))
    layer.check(len(x.shape) >= 2, "ONNX normalises axis 1; the bottom has one axis")
    mean, variance, factor = (array(layer, i) for i in range(3))
    scale = 0 if factor[0] == 0 else 1 / factor[0]
    return g.add(
        "BatchNormalization",
        x,
        g.constant(np.ones(layer.channels), name=f"{layer.name}.gain"),
        g.constant(np.zeros(layer.channels), name=f"{layer.name}.offset"),
        g.constant(mean * scale, name=f"{layer.name}.mean"),
        g.constant(variance * scale, name=f"{layer.name}.variance"),
        epsilon=layer.eps,
    )


@onnx_layer("Scale")
def scale(g: Graph, layer: Layer, x: Value, factor: Value | None = None) -> str:
    p = layer.layer_param.scale_param
    if factor is None and (joined := _join_batch_norm(g, layer, x)):
        return joined
    y = g.add("Mul", x, _spread(g, layer, x, p.axis, 0, factor))
    if not p.bias_term:
        return y
    return g.add("Add", y, _spread(g, layer, x, p.axis, len(layer.blobs) - 1))


def _join_batch_norm(g: Graph, layer: Layer, x: Value) -> str | None:
    """A Scale behind a BatchNorm is the gain and the offset that ONNX has in one with it."""
    node = next((n for n in g.nodes if x.name in n.output), None)
    if node is None or node.op_type != "BatchNormalization":
        return None
    p = layer.layer_param.scale_param
    if p.axis not in (1, 1 - len(x.shape)) or layer.blobs[0].shape != (x.shape[1],):
        return None
    image, _, offset, mean, variance = node.input
    if p.bias_term:
        offset = g.blob(layer, 1)
    epsilon = node.attribute[0].f
    return g.add(
        "BatchNormalization", image, g.blob(layer, 0), offset, mean, variance, epsilon=epsilon
    )


@onnx_layer("Bias")
def bias(g: Graph, layer: Layer, x: Value, term: Value | None = None) -> str:
    return g.add("Add", x, _spread(g, layer, x, layer.layer_param.bias_param.axis, 0, term))


def _spread(
    g: Graph, layer: Layer, x: Value, axis: int, index: int, given: Value | None = None
) -> str:
    """A blob, or the second bottom, with axes of one behind it so that it broadcasts over x."""
    shape = given.shape if given else layer.blobs[index].shape
    start = axis % len(x.shape) if shape else 0
    wide = (*shape, *[1] * (len(x.shape) - start - len(shape)))
    if given is None:
        return g.constant(array(layer, index).reshape(wide), name=f"{layer.name}.{index}")
    return g.reshape(given, wide, keeps_batch=start == 0 and bool(shape))


@onnx_layer("MVN")
def mvn(g: Graph, layer: Layer, x: Value) -> str:
    p = layer.layer_param.mvn_param
    axes = [axis for axis in ((1, 2, 3) if p.across_channels else (2, 3)) if axis < len(x.shape)]
    if not axes:
        axes = [len(x.shape)]
        x = Value(g.add("Unsqueeze", x, g.constant(axes, np.int64)), (*x.shape, 1))
    centred = g.add("Sub", x, g.add("ReduceMean", x, axes=axes, keepdims=1))
    if p.normalize_variance:
        variance = g.add("ReduceMean", g.add("Mul", centred, centred), axes=axes, keepdims=1)
        centred = g.add("Div", centred, _affine(g, g.add("Sqrt", variance), 1, p.eps))
    return centred


@onnx_layer("LRN")
def lrn(g: Graph, layer: Layer, x: Value) -> str:
    p = layer.layer_param.lrn_param
    if p.norm_region == pb.LRNParameter.ACROSS_CHANNELS:
        return g.add("LRN", x, size=p.local_size, alpha=p.alpha, beta=p.beta, bias=p.k)
    squares = g.add(
        "AveragePool", g.add("Mul", x, x), count_include_pad=1,
        kernel_shape=[p.local_size] * 2, pads=[p.local_size // 2] * 4,
    )  # fmt: skip
    return g.add("Mul", x, g.add("Pow", _affine(g, squares, p.alpha, 1), g.constant(-p.beta)))


# -- joining, cutting, rearranging ------------------------------------------------------------


@onnx_layer("Concat")
def concat(g: Graph, layer: Layer, *bottoms: Value) -> str:
    p = layer.layer_param.concat_param
    axis = p.concat_dim if p.HasField("concat_dim") else p.axis
    return g.add("Concat", *bottoms, axis=axis)


@onnx_layer("Slice")
def slice_(g: Graph, layer: Any, x: Value) -> Names:
    p = layer.layer_param.slice_param
    axis = (p.slice_dim if p.HasField("slice_dim") else p.axis) % len(x.shape)
    points = list(p.slice_point)
    if not points:
        part = x.shape[axis] // layer.num_tops
        points = [part * i for i in range(1, layer.num_tops)]
    sizes = np.diff([0, *points, x.shape[axis]])
    parts = g.add("Split", x, g.constant(sizes, np.int64), outputs=layer.num_tops, axis=axis)
    return [parts] if isinstance(parts, str) else parts


@onnx_layer("Eltwise")
def eltwise(g: Graph, layer: Layer, *bottoms: Value) -> str:
    p, ops = layer.layer_param.eltwise_param, pb.EltwiseParameter
    op = {ops.PROD: "Mul", ops.SUM: "Add", ops.MAX: "Max"}[p.operation]
    coefficients = list(p.coeff) or [1.0] * len(bottoms)
    terms = [_affine(g, x, c, 0) for x, c in zip(bottoms, coefficients, strict=True)]
    total = terms[0]
    for term in terms[1:]:
        total = g.add(op, total, term)
    return total


@onnx_layer("InnerProduct")
def inner_product(g: Graph, layer: Layer, x: Value) -> str:
    p = layer.layer_param.inner_product_param
    start = p.axis % len(x.shape)
    if start == 1:
        blobs = [g.blob(layer, i) for i in range(len(layer.blobs))]
        flat = x if len(x.shape) == 2 else g.add("Flatten", x, axis=1)
        return g.add("Gemm", flat, *blobs, transB=int(not p.transpose))
    weight = array(layer, 0) if p.transpose else array(layer, 0).T
    flat = g.reshape(x, (*x.shape[:start], len(weight)), keeps_batch=start > 0)
    y = g.add("MatMul", flat, g.constant(weight, name=f"{layer.name}.0"))
    return g.add("Add", y, g.blob(layer, 1)) if p.bias_term else y


@onnx_layer("Embed")
def embed(g: Graph, layer: Layer, index: Value) -> str:
    y = g.add("Gather", g.blob(layer, 0), _to_int(g, index))
    return g.add("Add", y, g.blob(layer, 1)) if len(layer.blobs) > 1 else y


@onnx_layer("Parameter")
def parameter(g: Graph, layer: Layer) -> str:
    return g.blob(layer, 0)


@onnx_layer("DummyData")
def dummy_data(g: Graph, layer: Any) -> Names:
    layer.check(
        all(filler.type == "constant" for filler in layer.fillers),
        "only constant fillers have an ONNX form",
    )
    shapes = layer.infer_shapes([])
    return [
        g.constant(np.full(shape, filler.value))
        for shape, filler in zip(shapes, layer.fillers, strict=True)
    ]


@onnx_layer("Reduction")
def reduction(g: Graph, layer: Layer, x: Value) -> str:
    p, ops = layer.layer_param.reduction_param, pb.ReductionParameter
    axes = list(range(p.axis % len(x.shape), len(x.shape)))
    if p.operation == ops.MEAN:
        y = g.add("ReduceMean", x, axes=axes, keepdims=0)
    elif p.operation == ops.SUM:
        y = g.add("ReduceSum", x, g.constant(axes, np.int64), keepdims=0)
    else:
        op = "ReduceL1" if p.operation == ops.ASUM else "ReduceSumSquare"
        y = g.add(op, x, axes=axes, keepdims=0)
    return _affine(g, y, p.coeff, 0)


@onnx_layer("Softmax")
def softmax(g: Graph, layer: Layer, x: Value) -> str:
    return g.add("Softmax", x, axis=layer.layer_param.softmax_param.axis)


@onnx_layer("ArgMax")
def argmax(g: Graph, layer: Layer, x: Value) -> str:
    p = layer.layer_param.argmax_param
    if p.HasField("axis"):
        place, value = _largest(g, x.name, p.axis % len(x.shape), p.top_k, x.shape[p.axis])
        return value if p.out_max_val else place
    count = math.prod(x.shape[1:])
    flat = g.reshape(x, (x.shape[0], 1, count))
    place, value = _largest(g, flat, 2, p.top_k, count)
    top = g.add("Concat", place, value, axis=1) if p.out_max_val else place
    shape = (x.shape[0], 2 if p.out_max_val else 1, p.top_k, *[1] * (len(x.shape) - 3))
    return g.reshape(top, shape)


def _largest(g: Graph, x: str, axis: int, k: int, extent: int) -> tuple[str, str]:
    """Places and values of the k largest; ONNX takes the first of equals, Caffe the last."""
    if k == 1:
        place = g.add("ArgMax", x, axis=axis, keepdims=1, select_last_index=1)
        return _to_float(g, place), g.add("ReduceMax", x, axes=[axis], keepdims=1)
    ends = [[-1], [-extent - 1], [axis], [-1]]
    flipped = g.add("Slice", x, *(g.constant(v, np.int64) for v in ends))
    value, place = g.add("TopK", flipped, g.constant([k], np.int64), outputs=2, axis=axis)
    return _affine(g, g.add("Neg", _to_float(g, place)), 1, extent - 1), value


@onnx_layer("Flatten", "Reshape")
def reshape(g: Graph, layer: Any, x: Value) -> str:
    (shape,) = layer.infer_shapes([x.shape])
    keeps_batch = bool(shape) and shape[0] == x.shape[0]
    if g.dynamic_batch and not keeps_batch:
        layer.check(False, "mixes the samples, whose number is to be free")
    return g.reshape(x, shape, keeps_batch)


@onnx_layer("Tile")
def tile(g: Graph, layer: Layer, x: Value) -> str:
    p = layer.layer_param.tile_param
    repeats = [1] * len(x.shape)
    repeats[p.axis] = p.tiles
    return g.add("Tile", x, g.constant(repeats, np.int64))


@onnx_layer("BatchReindex")
def batch_reindex(g: Graph, layer: Layer, x: Value, index: Value) -> str:
    return g.add("Gather", x, _to_int(g, index), axis=0)


@onnx_layer("Filter")
def filter_(g: Graph, layer: Layer, *bottoms: Value) -> Names:
    from onnx import TensorProto

    *items, selector = bottoms
    flat = g.add("Reshape", selector, g.constant([-1], np.int64))
    chosen = g.add("Cast", flat, to=TensorProto.BOOL)
    return [g.add("Compress", x, chosen, axis=0) for x in items]


# -- recurrence: the steps are written out, as Caffe unrolls them -----------------------------


@onnx_layer("LSTMUnit")
def lstm_unit(g: Graph, layer: Layer, state: Value, gates: Value, cont: Value) -> Names:
    keep = g.add("Unsqueeze", cont, g.constant([2], np.int64))
    return _lstm_step(g, state.name, gates.name, keep)


def _lstm_step(g: Graph, cell: str, gates: str, keep: str) -> tuple[str, str]:
    """The new cell and the output from the gates i, f, o, g; keep is 0 where a sequence begins."""
    i, f, o, new = g.add("Split", gates, outputs=4, axis=2)
    i, f, o = (g.add("Sigmoid", gate) for gate in (i, f, o))
    kept = g.add("Mul", g.add("Mul", keep, f), cell)
    cell = g.add("Add", kept, g.add("Mul", i, g.add("Tanh", new)))
    return cell, g.add("Mul", o, g.add("Tanh", cell))


@onnx_layer("LSTM")
def lstm(g: Graph, layer: Any, x: Value, cont: Value, *others: Value) -> Names:
    steps = _Steps(g, layer, x, cont, others)
    recurrent = steps.weight()
    hidden, cell = steps.states(2)
    tops = []
    for gates, keep in steps:
        gates = g.add("Add", g.add("MatMul", g.add("Mul", keep, hidden), recurrent), gates)
        cell, hidden = _lstm_step(g, cell, gates, keep)
        tops.append(hidden)
    return [g.add("Concat", *tops, axis=0), hidden, cell][: layer.num_tops]


@onnx_layer("RNN")
def rnn(g: Graph, layer: Any, x: Value, cont: Value, *others: Value) -> Names:
    steps = _Steps(g, layer, x, cont, others)
    recurrent, out, offset = steps.weight(), steps.weight(), g.blob(layer, len(layer.blobs) - 1)
    (hidden,) = steps.states(1)
    tops = []
    for gates, keep in steps:
        kept = g.add("MatMul", g.add("Mul", keep, hidden), recurrent)
        hidden = g.add("Tanh", g.add("Add", kept, gates))
        tops.append(hidden)
    y = g.add("MatMul", g.add("Concat", *tops, axis=0), out)
    return [g.add("Tanh", g.add("Add", y, offset)), hidden][: layer.num_tops]


class _Steps:
    """A sequence taken apart: for each step the gates' inputs (1, N, ...) and keep (1, N, 1)."""

    def __init__(
        self, g: Graph, layer: Any, x: Value, cont: Value, others: Sequence[Value]
    ) -> None:
        self.g, self.layer, self.used = g, layer, 0
        self.count = x.shape[0]
        layer.check(not g.dynamic_batch, "its steps are written out: their number cannot be free")
        flat = g.reshape(x, (*x.shape[:2], math.prod(x.shape[2:])))
        gates = g.add("MatMul", flat, self.weight())
        gates = g.add("Add", gates, g.blob(layer, 1))
        self.used = 2
        if layer.static:
            still = g.reshape(others[0], (1, x.shape[1], math.prod(others[0].shape[1:])))
            gates = g.add("Add", gates, g.add("MatMul", still, self.weight()))
        self.initial = others[1:] if layer.static else others
        keep = g.add("Unsqueeze", cont, g.constant([2], np.int64))
        self.parts = [self._split(gates), self._split(keep)]

    def weight(self) -> str:
        """The next parameter, transposed."""
        index, self.used = self.used, self.used + 1
        name = f"{self.layer.name}.{index}"
        return self.g.constant(array(self.layer, index).T, name=name)

    def states(self, count: int) -> list[str]:
        """The states to begin with: those given, or zeros."""
        if self.initial:
            return [state.name for state in self.initial]
        return [self.g.constant(np.zeros((1, 1, self.layer.size))) for _ in range(count)]

    def __iter__(self) -> Any:
        return zip(*self.parts, strict=True)

    def _split(self, values: str) -> list[str]:
        parts = self.g.add("Split", values, outputs=self.count, axis=0)
        return [parts] if self.count == 1 else parts

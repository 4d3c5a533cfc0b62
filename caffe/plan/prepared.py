"""Convolutions of nets that only predict: what follows from the parameters is computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F

from caffe.blob import Blob, Mark
from caffe.kernels import finite, winograd
from caffe.kernels.fused import Convolving
from caffe.kernels.geometry import Geometry
from caffe.kernels.winograd import F2, F4, Filtering
from caffe.layers.activation import ReLU
from caffe.layers.base import Layer, Tensors
from caffe.layers.common import Eltwise
from caffe.layers.normalization import BatchNorm, Scale
from caffe.layers.vision import Deconvolution
from caffe.plan.ir import Circumstances
from caffe.plan.operations import by_layer, caffe_order
from caffe.process import memory
from caffe.process.device import current_device

# Numbers of F4's tiles in a batch. Below FEW, large weights do without Winograd's algorithm; from
# MANY on, it pays to compute F4's filters, which are larger still.
FEW, MANY = 40, 128

# From the convolution's bottom, and the other term of the sum if there is one.
Run = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]


class Watch:
    """Tells whether parameters changed since it last looked.

    The engine's own writes change the tensors' versions. Writes through a numpy view of a blob do
    not, so a blob of which a view was handed out is compared with a copy.
    """

    def __init__(self, blobs: Sequence[Blob]) -> None:
        self.blobs = blobs
        self._marks: list[Mark] | None = None
        self._copies: dict[int, np.ndarray] = {}

    def changed(self) -> bool:
        """Whether a parameter has changed, or may have, since the last call."""
        marks = self._marks
        if marks is None or not all(map(Blob.is_at, self.blobs, marks)):
            return self._look(current_device())
        return False

    def _look(self, device: torch.device) -> bool:
        """The same, where the marks alone do not tell."""
        same, before = self._marks is not None, self._marks or []
        for i, blob in enumerate(self.blobs):
            if blob.viewed:
                same &= self._same_as_copy(i, blob.data)
        self._marks = [blob.mark(device) for blob in self.blobs]
        return not (same and all(map(_is_same, before, self._marks)))

    def _same_as_copy(self, i: int, values: np.ndarray) -> bool:
        copy = self._copies.get(i)
        if copy is not None and np.array_equal(copy, values, equal_nan=True):
            return True
        self._copies[i] = values.copy()
        return False


def _is_same(a: Mark, b: Mark) -> bool:
    """Whether two marks tell of the same values in the same place."""
    return a[0] is b[0] and a[1].data_ptr() == b[1].data_ptr() and a[2] == b[2]


class Growth:
    """How large values can get on their way through layers that multiply and add, by channels."""

    def __init__(self, slope: torch.Tensor) -> None:
        self._slope, self._offset = slope, torch.zeros_like(slope)
        self._most = math.inf  # the bound from which on something on the way may be too large
        self.steps: list[tuple[float, float]] = []  # slope and offset, the largest of all channels
        self._note()

    def add(self, term: torch.Tensor) -> None:
        """The layers add `term` to the channels."""
        self._offset = self._offset + term.abs()
        self._note()

    def multiply(self, factor: torch.Tensor) -> None:
        """The layers multiply the channels by `factor`."""
        self._slope, self._offset = self._slope * factor.abs(), self._offset * factor.abs()
        self._note()

    def _note(self) -> None:
        slope, offset = self._slope.max().item(), self._offset.max().item()
        self.steps.append((slope, offset))
        if not (slope < math.inf and offset < finite.LIMIT):  # NaN is below nothing
            self._most = -math.inf
        elif slope:
            self._most = min(self._most, (finite.LIMIT - offset) / slope)

    def limit(self, bound: float) -> float:
        """What the top does not exceed if the bottom does not exceed `bound`; infinity if something
        on the way is not finite, or perhaps too large.
        """
        slope, offset = self.steps[-1]
        return slope * bound + offset if bound < self._most else math.inf  # NaN, too

    def top(self, x: torch.Tensor) -> float:
        """What the top does not exceed for the bottom x; infinity if the layers must run one by
        one.
        """
        known = finite.bound(x)
        limit = math.inf if known is None else self.limit(known)
        # Bounds grow from layer to layer, much faster than values do.
        return self.limit(size(x)) if limit == math.inf else limit


def size(x: torch.Tensor) -> float:
    """The largest magnitude in x. On a GPU x is not looked at: nothing loses NaN or spreads it
    there.
    """
    return finite.largest(x) if x.device.type == "cpu" else 0.0


def channel_steps(
    layers: Sequence[Layer], blobs: Tensors
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """What each BatchNorm on gathered statistics and each Scale among the layers multiplies the
    channels by, and adds then. blobs: the layers' parameters, in order.
    """
    rest = list(blobs)
    for layer in layers:
        mine, rest = rest[: len(layer.blobs)], rest[len(layer.blobs) :]
        if isinstance(layer, BatchNorm):
            mean, variance, factor = mine[:3]
            share = torch.where(factor == 0, torch.zeros_like(factor), 1 / factor)
            gain = torch.rsqrt(variance * share + layer.eps)
            yield gain, -mean * share * gain
            if layer.affine:
                yield mine[3], mine[4]
        elif isinstance(layer, Scale):
            yield mine[0], mine[1] if len(mine) == 2 else torch.zeros_like(mine[0])


class PreparedConvolution:
    """An operation of a plan: a 2-D (de)convolution, then optionally BatchNorm, Scale, a sum with
    one more bottom, and ReLU.

    It runs layer by layer where parameters or values are not finite, or may overflow.
    even: equal pixels with equal neighbours are to have equal results, for which Winograd's
    algorithm does not care: it rounds differently at each place of its tiles.
    """

    def __init__(
        self, layers: Sequence[Layer], made_for: Circumstances, even: bool = False
    ) -> None:
        self.even = even
        self.overwrites = False  # whether the sum may be written to the other term's memory
        self.layers = layers
        self.conv = layers[0]
        self.transposed = isinstance(self.conv, Deconvolution)
        self.sum = next((layer for layer in layers if isinstance(layer, Eltwise)), None)
        self.relu = isinstance(layers[-1], ReLU)
        self.how = Convolving(
            self.conv.kernel_geometry, self.transposed, made_for.dtype, made_for.channels_last
        )
        self._watch = Watch([blob for layer in layers for blob in layer.blobs])
        self._shape: torch.Size | None = None  # of the bottom for which it is prepared
        self._term: torch.Size | None = None  # of the other term
        self._run: Run = self._unprepared
        self._fills = False  # whether zeros are put around the bottom
        self._growth: Growth | None = None
        self.preparations = 0  # so far
        self._direct = False  # whether oneDNN's own convolution computes it
        self._plain = [by_layer(layer, made_for) for layer in layers]

    def __call__(self, bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x, other = bottom[0], bottom[1] if self.sum else None
        changed = self._watch.changed()
        if changed or x.shape != self._shape or (other is not None and other.shape != self._term):
            # Free the old weights before new ones are made, also where the bottoms do not fit.
            self._run, self._shape = self._unprepared, None
            self.preparations += 1
            self._check(bottom)
            self._growth = self._grow(blobs)
            self._fills = not self.transposed and self.conv.filled(x) is not x
            with memory.lasting_memory():
                self._run = self._prepare(self.conv.filled(x) if self._fills else x, blobs)
            self._shape, self._term = x.shape, None if other is None else other.shape
        if self._fills:
            x = self.conv.filled(x)
        limit = self.growth.top(x)
        if other is not None:
            known = finite.bound(other)
            limit += size(other) if known is None else known
            limit = limit if limit < finite.LIMIT else math.inf  # NaN is not below it either
        if limit == math.inf:
            return [self._layer_by_layer(bottom[0], other, blobs)]
        return [finite.carry(self._run(self.how.convert(x), other), limit)]

    # -- for segments (caffe/plan/segments.py) -----------------------------------------------------

    @property
    def is_direct(self) -> bool:
        """Whether it is prepared as a plain convolution that adds up in any order."""
        return self._shape is not None and self._direct and not self._fills and not self.even

    @property
    def macs(self) -> int:
        """Multiply-adds of a pass on the bottom for which it is prepared."""
        assert self._shape is not None
        return self.conv.macs([tuple(self._shape)])

    @property
    def growth(self) -> Growth:
        """How values grow in it, once it is prepared."""
        assert self._growth is not None
        return self._growth

    def plain(self) -> tuple[object, ...]:
        """What F.conv2d takes besides the bottom, for all layers but the sum and ReLU."""
        blobs = [blob.tensor() for layer in self.layers for blob in layer.blobs]
        gain, bias = self._affine(blobs)
        weight = blobs[0] if gain is None else self._times(blobs[0], gain)
        g = self.conv.kernel_geometry
        return weight, bias, g.stride, g.pad, g.dilation, g.group

    def forget(self) -> None:
        """Free what is prepared; the next pass prepares it again."""
        self._run, self._shape = self._unprepared, None

    # -- a pass --------------------------------------------------------------------------------

    def _check(self, bottom: Tensors) -> None:
        """Raise CaffeError, as the layers do, if bottoms do not fit."""
        shapes = self.conv.top_shapes(bottom[:1])
        if self.sum is not None:
            self.sum.infer_shapes([*shapes, tuple(bottom[1].shape)])

    def numbers(self, bottoms: Sequence[torch.dtype]) -> list[torch.dtype]:
        """The top's number type: that of the convolution, or float32 if the other term has that."""
        same = all(number == self.how.dtype for number in bottoms[1:])
        return [self.how.dtype if same else torch.float32]

    def _layer_by_layer(
        self, x: torch.Tensor, other: torch.Tensor | None, blobs: Tensors
    ) -> torch.Tensor:
        (number,) = self.numbers([x.dtype] if other is None else [x.dtype, other.dtype])
        rest, x = list(blobs), caffe_order(x)
        for layer, run in zip(self.layers, self._plain, strict=True):
            mine, rest = rest[: len(layer.blobs)], rest[len(layer.blobs) :]
            terms = [caffe_order(other)] if layer is self.sum and other is not None else []
            (x,) = run([x.float(), *terms], mine)
        return x.to(number)

    @staticmethod
    def _unprepared(x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        raise AssertionError("prepared before it runs")

    def _affine(self, blobs: Tensors) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """(gain, shift), one of each per channel, that do the work of bias, BatchNorm and Scale on
        the convolution's output without bias: gain * output + shift. None: 1 and 0.
        """
        total, bias = None, blobs[1] if len(self.conv.blobs) == 2 else None
        for gain, shift in self._steps(blobs):
            total = gain if total is None else total * gain
            bias = shift if bias is None else bias * gain + shift
        return total, bias

    def _steps(self, blobs: Tensors) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """(gain, shift) of BatchNorm and of Scale."""
        return channel_steps(self.layers[1:], blobs[len(self.conv.blobs) :])

    def _grow(self, blobs: Tensors) -> Growth:
        """How large values get on the way through the layers."""
        weight = blobs[0].detach().abs()
        if self.transposed:  # (inputs, outputs / group, ...): inputs of a group add up
            weight = weight.unflatten(0, (self.conv.group, -1)).transpose(1, 2).flatten(0, 1)
        growth = Growth(weight.flatten(1).sum(1))
        if len(self.conv.blobs) == 2:
            growth.add(blobs[1])
        for gain, shift in self._steps(blobs):
            growth.multiply(gain)
            growth.add(shift)
        return growth

    def _times(self, weight: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        """The weight of the convolution that multiplies its output channels by `gain`."""
        if not self.transposed:
            return weight * gain.view(-1, 1, 1, 1)
        # (inputs, outputs / group, ...): gains repeat by group along the inputs
        group, inputs = self.conv.group, weight.shape[0]
        per = gain.view(group, 1, -1).expand(-1, inputs // group, -1)
        return weight * per.reshape(inputs, -1, 1, 1)

    def _prepare(self, x: torch.Tensor, blobs: Tensors) -> Run:
        """A function from x, in the layout and number type of `how`, to the top."""
        weight, (gain, bias) = blobs[0], self._affine(blobs)
        bias = None if bias is None else bias.to(self.how.dtype)
        filtering = self._filtering(x, weight)
        self._direct = filtering is None and not self.transposed
        if filtering is None:
            weight = weight if gain is None else self._times(weight, gain)
            weight, geometry, transposed = self._as_convolution(weight)
            weight, relu = self.how.convert(weight), self.relu
            return _packed(x.shape, weight, bias, geometry, transposed, relu, self.overwrites)
        relu = self.relu and self.sum is None
        if filtering is F4:  # filters are larger than weights: making them in each pass is faster
            chosen = F4 if _tiles(x) >= MANY else F2

            def run(x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
                filters = self.how.filters(chosen, weight)
                y = winograd.convolve(chosen, x, filters, bias, relu, gain)
                return y if other is None else _add(y, other, self.relu)

            return run
        # In bfloat16.
        filters = self.how.filters(filtering, weight if gain is None else self._times(weight, gain))

        def run_filtered(x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
            y = winograd.convolve(filtering, x, filters, bias, relu)
            return y if other is None else _add(y, other, self.relu)

        return run_filtered

    def _filtering(self, x: torch.Tensor, weight: torch.Tensor) -> Filtering | None:
        """Winograd's algorithm for the convolution, None for PyTorch's."""
        heavy = weight.numel() > 4 * x.numel() and self.how.dtype == weight.dtype
        if self.even or (heavy and _tiles(x) < FEW):
            return None
        return self.how.filtering("forward", x, weight)

    def _as_convolution(self, weight: torch.Tensor) -> tuple[torch.Tensor, Geometry, bool]:
        """Where possible, a transposed convolution as a plain one with its kernel turned by 180
        degrees; this needs stride 1. Returns weight, geometry and whether it is still transposed.
        """
        g = self.conv.kernel_geometry
        extent = [d * (k - 1) for d, k in zip(g.dilation, weight.shape[2:], strict=True)]
        pad = [e - p for e, p in zip(extent, g.pad, strict=True)]
        if not self.transposed or g.group > 1 or max(g.stride) > 1 or min(pad) < 0:
            return weight, g, self.transposed
        return weight.transpose(0, 1).flip(2, 3), g._replace(pad=tuple(pad)), False


def _tiles(x: torch.Tensor) -> int:
    """The number of F4's tiles in a batch of images."""
    rows, columns = F4.tiles(*x.shape[2:])
    return x.shape[0] * rows * columns


def _add(y: torch.Tensor, other: torch.Tensor, relu: bool) -> torch.Tensor:
    """The sum of both, rectified if relu, in y's memory if the number types are the same."""
    y = y.add_(other) if y.dtype == other.dtype else y + other
    return F.relu_(y) if relu else y


def _is_point(weight: torch.Tensor, g: Geometry) -> bool:
    """Whether a kernel looks at single pixels, and at none of the padding."""
    return all(n == 1 for n in weight.shape[2:]) and not any(g.pad)


def _packed(
    shape: Sequence[int],
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    g: Geometry,
    transposed: bool,
    relu: bool,
    overwrites: bool,
) -> Run:
    """A convolution with its weights in oneDNN's own layout, where PyTorch offers that."""
    # A 1x1 kernel with a stride takes a part of the pixels: oneDNN is slower than to copy these.
    rows, columns = g.stride if _is_point(weight, g) else (1, 1)
    strides = (1, 1) if (rows, columns) != (1, 1) else g.stride
    size = (*shape[:2], -(-shape[2] // rows), -(-shape[3] // columns))
    packable = (
        weight.device.type == "cpu"
        and not transposed
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
    )
    if packable:
        try:
            packed = torch._C._nn.mkldnn_reorder_conv2d_weight(
                weight.to_mkldnn(), g.pad, strides, g.dilation, g.group, list(size)
            )
        except (
            RuntimeError,
            AttributeError,
            TypeError,
        ):  # not in every PyTorch or on every CPU
            packable = False
    how = (g.pad, strides, g.dilation, g.group)
    ops = torch.ops.mkldnn
    convolve, add = (
        (ops._convolution_pointwise, ops._convolution_pointwise_) if packable else (None, None)
    )
    after, grouped = "relu" if relu else "none", g.group > 1

    def by_onednn(x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        if (rows, columns) != (1, 1):
            x = x[:, :, ::rows, ::columns].contiguous(memory_format=torch.channels_last)
        if other is None:
            return convolve.default(x, packed, bias, *how, after, [], "")
        alike = other.dtype == x.dtype and other.is_contiguous(memory_format=torch.channels_last)
        if not alike or (grouped and x.dtype == torch.bfloat16):  # PyTorch raises for these
            y = convolve.default(x, packed, bias, *how, "none", [], "")
            return _add(y, other, relu)
        after_sum = "add", None, "relu" if relu else None, [], None
        if overwrites:
            return add.binary(other, x, packed, bias, *how, *after_sum)
        return convolve.binary(x, other, packed, bias, *how, *after_sum)

    def plain(x: torch.Tensor, other: torch.Tensor | None) -> torch.Tensor:
        y = torch.ops.aten.convolution(
            x, weight, bias, g.stride, g.pad, g.dilation, transposed, (0, 0), g.group
        )
        if other is not None:
            return _add(y, other, relu)
        return F.relu_(y) if relu else y

    return by_onednn if packable else plain

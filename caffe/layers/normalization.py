"""Layers that shift and scale: by statistics (BatchNorm, MVN, LRN), or by blobs (Scale, Bias)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from caffe.formats.onnx import Graph, Value
from caffe.kernels.sync_bn import sync_batch_norm
from caffe.layers.base import ENGINE, Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.coordinates import IDENTITY, Map
from caffe.layers.look import NORM
from caffe.process import ranks
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb

NVCAFFE_EPS = 1e-5  # the least that NVCaffe takes


class Normalizing(Layer):
    """A layer that shifts and scales values, which keep their places."""

    look = NORM

    @classmethod
    def coordinates(cls, params: Mapping[str, Any]) -> Map:
        return IDENTITY


@register("BatchNorm")
class BatchNorm(Normalizing):
    """Normalisation per channel (axis 1), without gain and bias: those are Scale's.

    Bottom and top: (N, C, ...), or (N) as one channel. Blobs: the sum of means (C), the sum of
    variances (C), and the factor (1) that divides both (batch_norm_layer.cpp; Ioffe and Szegedy,
    2015). The running variance is unbiased, m / (m - 1); the batch's is not.

    NVCaffe's has gain and offset, too, with `scale_bias`, `scale_filler` or `bias_filler`: blobs 3
    and 4, (C). Its mean and variance are averages, of which `moving_average_fraction` stays (the
    first batch's count whole), its factor is 1, and its eps is at least 1e-5.
    """

    gathers = True
    fresh = True
    reads = ("batch_norm_param",)
    takes = (
        *("batch_norm_param.scale_bias", "batch_norm_param.scale_filler"),
        "batch_norm_param.bias_filler",
    )
    differs = (
        "Also takes a bottom of one axis, as one channel. NVCaffe's running variance is that of "
        "its GPU code; runs that go on from weights do not let the first batch count whole again."
    )
    torch_names: Mapping[str, int] = {"running_mean": 0, "running_var": 1}
    torch_affine = "Scale"
    # PyTorch keeps means and variances; Caffe keeps sums of them, and the factor (blob 2).
    torch_defaults: Mapping[int, float] = {2: 1.0}

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.batch_norm_param
        self.fraction, self.eps = p.moving_average_fraction, p.eps
        self.channels = self._channels(shapes[0])
        for shape in ((self.channels,), (self.channels,), (1,)):
            self.add_blob(shape, pb.FillerParameter())
        fillers = ("scale_filler", "bias_filler")
        self.affine = p.scale_bias or any(p.HasField(name) for name in fillers)
        if self.affine:
            self.eps = max(self.eps, NVCAFFE_EPS)
            for name, value in zip(fillers, (1, 0), strict=True):
                given = p.HasField(name)
                filler = getattr(p, name) if given else pb.FillerParameter(value=value)
                self.add_blob((self.channels,), filler)
        self._fix_learning_rates()

    def _channels(self, shape: Shape) -> int:
        self.check(len(shape) > 0, "bottom has no axes, expected samples, channels, ...")
        return shape[1] if len(shape) > 1 else 1

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        channels = self._channels(shapes[0])
        self.check(
            channels == self.channels,
            f"bottom has {channels} channels on axis 1, expected {self.channels}",
        )
        return [shapes[0]]

    @property
    def use_global(self) -> bool:
        """Whether the gathered statistics normalise, and not the batch's own."""
        p = self.layer_param.batch_norm_param
        given = p.HasField("use_global_stats")
        return p.use_global_stats if given else self.phase == pb.TEST

    def lacks_statistics(self) -> bool:
        return self.use_global and not self.blobs[2].data.any()  # their factor

    @property
    def changes_blobs(self) -> bool:
        return not self.use_global

    def _fix_learning_rates(self) -> None:
        """The blobs are statistics, so the solver must leave them alone."""
        specs = self.layer_param.param
        for i in range(len(self.blobs)):
            if i == len(specs):
                specs.add(lr_mult=0)
            if self.affine:  # NVCaffe sets them, whatever the net says
                specs[i].lr_mult = specs[i].decay_mult = 0 if i < 3 else 1
                continue
            self.check(
                specs[i].lr_mult == 0,
                f"its blobs are statistics and cannot learn: set lr_mult 0 (param {i} has "
                f"{specs[i].lr_mult:g})",
            )

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        x = bottom[0]
        flat = x.dim() == 1
        x = x[:, None] if flat else x
        y = self._by_global(x, blobs) if self.use_global else self._by_batch(x, blobs)
        if self.affine:
            wide = (1, -1, *[1] * (y.dim() - 2))
            y = y * blobs[3].view(wide) + blobs[4].view(wide)
        return y[:, 0] if flat else y

    def statistic(self, index: int) -> bool:
        return index < 3

    def _by_global(self, x: torch.Tensor, blobs: Tensors) -> torch.Tensor:
        mean, variance, factor = (b.detach() for b in blobs[:3])
        # The factor is 0 until the first batch was gathered.
        scale = torch.where(factor == 0, torch.zeros_like(factor), 1 / factor)
        return torch.batch_norm(
            x, None, None, mean * scale, variance * scale, False, 0.0, self.eps, True
        )

    @property
    def concurrent(self) -> bool:
        return not self.synchronous

    @property
    def synchronous(self) -> bool:
        """Whether the batches of all processes count as one; tests run on one process alone."""
        return ranks.sync_bn() and self.phase == pb.TRAIN

    def _by_batch(self, x: torch.Tensor, blobs: Tensors) -> torch.Tensor:
        mean, variance = x.new_zeros(self.channels), x.new_zeros(self.channels)
        if self.synchronous:
            y, mean, variance = sync_batch_norm(x, eps=self.eps)
        elif x.numel() == self.channels:  # one value a channel: torch has no unbiased variance
            y, mean = x - x, x.detach().reshape(self.channels)
        else:  # with momentum 1, torch writes this batch's mean and unbiased variance to these two
            y = torch.batch_norm(x, None, None, mean, variance, True, 1.0, self.eps, True)
        with torch.no_grad():
            new = (mean, variance, torch.ones_like(blobs[2]))
            if self.affine:
                share = torch.where(blobs[2] == 0, 1, 1 - self.fraction)  # 1 for the first batch
                for blob, value in zip(blobs[:3], new, strict=True):
                    blob.mul_(1 - share).add_(value * share)
            else:
                for blob, value in zip(blobs, new, strict=True):
                    blob.mul_(self.fraction).add_(value)
        return y

    def onnx(self, graph: Graph, x: Value) -> str:
        if not self.use_global:
            axes = [axis for axis in range(len(x.shape)) if axis != 1]
            centred = graph.add("Sub", x, graph.add("ReduceMean", x, axes=axes, keepdims=1))
            square = graph.add("Mul", centred, centred)
            variance = graph.add("ReduceMean", square, axes=axes, keepdims=1)
            deviation = graph.add("Sqrt", graph.affine(variance, 1, self.eps))
            y = graph.add("Div", centred, deviation)
            if not self.affine:
                return y
            wide = (1, -1, *[1] * (len(x.shape) - 2))[-len(x.shape) :]
            gain, offset = (graph.constant(self.array(i).reshape(wide)) for i in (3, 4))
            return graph.add("Add", graph.add("Mul", y, gain), offset)
        if len(x.shape) == 1:  # ONNX normalises axis 1
            column = graph.reshape(x, (*x.shape, 1))
            return graph.reshape(self._onnx_by_global(graph, column), x.shape)
        return self._onnx_by_global(graph, x)

    def _onnx_by_global(self, graph: Graph, x: Value | str) -> str:
        mean, variance, factor = (self.array(i) for i in range(3))
        scale = 0 if factor[0] == 0 else 1 / factor[0]
        gain, offset = np.ones(self.channels), np.zeros(self.channels)
        if self.affine:
            gain, offset = self.array(3), self.array(4)
        return graph.add(
            "BatchNormalization",
            x,
            graph.constant(gain, name=f"{self.name}.gain"),
            graph.constant(offset, name=f"{self.name}.offset"),
            graph.constant(mean * scale, name=f"{self.name}.mean"),
            graph.constant(variance * scale, name=f"{self.name}.variance"),
            epsilon=self.eps,
        )


@register("MVN")
class MVN(Normalizing):
    """Each sample's channel (or whole sample) to a mean of 0 and, on demand, a variance of 1.

    Bottom: up to 4 axes. Top: the same values with 4 axes, (N, C, H, W). eps is added to the
    standard deviation (mvn_layer.cpp).
    """

    reads = ("mvn_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = shapes[0]
        self.check(len(shape) <= 4, f"bottom has the shape {shape}, expected at most 4 axes")
        return [(*shape, *[1] * (4 - len(shape)))]

    @property
    def _axes(self) -> list[int]:
        """The axes of the top that are normalised together."""
        return [1, 2, 3] if self.layer_param.mvn_param.across_channels else [2, 3]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p, axes = self.layer_param.mvn_param, self._axes
        x = bottom[0].reshape(self.top_shapes(bottom)[0])
        centred = x - x.mean(axes, keepdim=True)
        if not p.normalize_variance:
            return centred
        deviation = centred.detach().square().mean(axes, keepdim=True).sqrt() + p.eps
        y = centred / deviation
        # Caffe's gradient, (g - mean g - y mean(g y)) / deviation, does not depend on where eps is
        # added, so it is finite where all values are equal. With respect to y it is that of:
        half = y.square().mean(axes, keepdim=True) / 2
        return with_gradient_of(y, y * (1 - half + half.detach()))

    def onnx(self, graph: Graph, x: Value) -> str:
        p, (shape,) = self.layer_param.mvn_param, self.infer_shapes([x.shape])
        y, axes, keeps_batch = x.name, self._axes, bool(x.shape)
        if p.across_channels:  # as one axis: OpenCV's classic engine is wrong about three
            y, axes = graph.reshape(x, (shape[0], -1), keeps_batch), [1]
        elif x.shape != shape:
            y = graph.reshape(x, shape, keeps_batch)
        y = graph.add("Sub", y, graph.add("ReduceMean", y, axes=axes, keepdims=1))
        if p.normalize_variance:
            square = graph.add("Mul", y, y)
            deviation = graph.add("Sqrt", graph.add("ReduceMean", square, axes=axes, keepdims=1))
            y = graph.add("Div", y, graph.affine(deviation, 1, p.eps))
        return graph.reshape(y, shape, keeps_batch) if p.across_channels else y


@register("LRN")
class LRN(Normalizing):
    """x / (k + alpha s)^beta, s the mean of squares over local_size neighbouring channels, or over
    a local_size x local_size window of the own channel, where k is always 1 (Krizhevsky, 2012).

    Bottom and top: (N, C, H, W) (lrn_layer.cpp).
    """

    concurrent = True
    reads = ("lrn_param",)
    differs = ENGINE

    def setup(self, shapes: Sequence[Shape]) -> None:
        size = self.layer_param.lrn_param.local_size
        self.check(size % 2 == 1, f"local_size is {size}, expected an odd number")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        self.check(
            len(shapes[0]) == 4,
            f"bottom has the shape {shapes[0]}, expected 4 axes: samples, channels, height, width",
        )
        self.check(
            all(shapes[0][1:]), f"bottom has the shape {shapes[0]}: its samples have no values"
        )
        return [shapes[0]]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, x = self.layer_param.lrn_param, bottom[0]
        size, pad = p.local_size, p.local_size // 2
        if p.norm_region == pb.LRNParameter.WITHIN_CHANNEL:
            return x * (1 + p.alpha * F.avg_pool2d(x.square(), size, 1, pad)).pow(-p.beta)
        n, c, h, w = x.shape
        planes = x.square().reshape(n, 1, c, h * w)  # channels as rows
        squares = F.avg_pool2d(planes, (size, 1), 1, (pad, 0)).reshape(x.shape)
        return x * (p.k + p.alpha * squares).pow(-p.beta)

    def onnx(self, graph: Graph, x: Value) -> str:
        p = self.layer_param.lrn_param
        size, pad = p.local_size, p.local_size // 2
        if p.norm_region == pb.LRNParameter.ACROSS_CHANNELS:
            return graph.add("LRN", x, size=size, alpha=p.alpha, beta=p.beta, bias=p.k)
        square = graph.add("Mul", x, x)
        squares = graph.average(square, [pad] * 4, kernel_shape=[size] * 2)
        total = graph.affine(squares, p.alpha, 1)
        return graph.add("Mul", x, graph.add("Pow", total, graph.constant(-p.beta)))


class _Broadcast(Normalizing):
    """Values, learned or the second bottom, that are broadcast over the first bottom from `axis`.

    Bottoms: any shape, and perhaps the values; their shape is a run of the first bottom's axes.
    Top: the shape of the first bottom.
    """

    bottoms = (1, 2)
    first_axis = 1

    def declare(self, shape: Shape, num_axes: int, filler: pb.FillerParameter) -> None:
        """One more parameter: as large as num_axes of the bottom's axes (-1: all) from `axis`."""
        start = self.axis(self.first_axis, shape)
        self.check(num_axes >= -1, f"num_axes is {num_axes}, expected at least -1")
        self.check(
            num_axes == -1 or start + num_axes <= len(shape),
            f"axis {start} and num_axes {num_axes} reach beyond the bottom's shape {shape}",
        )
        self.add_blob(shape[start:] if num_axes == -1 else shape[start : start + num_axes], filler)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        for values in (*shapes[1:], *(blob.shape for blob in self.blobs)):
            start, end = self._span(values, shapes[0])
            self.check(
                shapes[0][start:end] == values,
                f"shape {values} does not fit the bottom's {shapes[0]} from axis {start} on",
            )
        return [shapes[0]]

    def _span(self, values: Shape, shape: Shape) -> tuple[int, int]:
        """The axes of the bottom that the values are for: first .. before last."""
        start = self.axis(self.first_axis, shape) if values else 0
        return start, start + len(values)

    def _wide(self, values: Shape, shape: Shape) -> Shape:
        """The values' shape with axes of one behind it, so that they broadcast over the bottom."""
        return (*values, *[1] * (len(shape) - self._span(values, shape)[1]))

    def spread(self, values: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        """`values` in the shape that broadcasts over x."""
        return values.view(self._wide(tuple(values.shape), tuple(x.shape)))

    def onnx_spread(self, graph: Graph, x: Value, values: int | Value) -> str:
        """A parameter, or the second bottom, in the shape that broadcasts over x."""
        if isinstance(values, Value):
            starts_at_batch = bool(values.shape) and self._span(values.shape, x.shape)[0] == 0
            return graph.reshape(values, self._wide(values.shape, x.shape), starts_at_batch)
        array = self.array(values)
        wide = array.reshape(self._wide(array.shape, x.shape))
        return graph.constant(wide, name=f"{self.name}.{values}")


@register("Scale")
class Scale(_Broadcast):
    """bottom * scale (+ bias); scale is learned, or the second bottom.

    Blobs: scale, if it is learned, and bias, both of a run of the bottom's axes (scale_layer.cpp).
    With `min_value` or `max_value` (caffe-windows) each pass first brings the learned scale between
    these.
    """

    fresh = True
    concurrent = True
    reads = ("scale_param",)
    takes = ("scale_param.min_value", "scale_param.max_value")

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.scale_param
        self.first_axis = p.axis
        learned = len(shapes) == 1
        self.limited = p.HasField("min_value") or p.HasField("max_value")
        self.check(learned or not self.limited, "min_value and max_value are for a learned scale")
        self.gathers = self.limited  # forward changes the scale
        if learned:
            unit = pb.FillerParameter(type="constant", value=1)
            self.declare(shapes[0], p.num_axes, p.filler if p.HasField("filler") else unit)
        if p.bias_term:
            emit("layer_factory.hpp:77", f"Creating layer {self.name}")  # Caffe's inner Bias
            num_axes = p.num_axes if learned else len(shapes[1])
            self.declare(shapes[0], num_axes, p.bias_filler)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        x = bottom[0]
        if self.limited:
            with torch.no_grad():
                blobs[0].copy_(self._within(blobs[0]))
        y = x * self.spread(bottom[1] if len(bottom) == 2 else blobs[0], x)
        return y + self.spread(blobs[-1], x) if self.layer_param.scale_param.bias_term else y

    def _within(self, scale: Any) -> Any:
        """The scale, a tensor or an array, between min_value and max_value."""
        p = self.layer_param.scale_param
        scale = scale.clip(min=p.min_value) if p.HasField("min_value") else scale
        return scale.clip(max=p.max_value) if p.HasField("max_value") else scale

    def statistic(self, index: int) -> bool:
        return False

    def array(self, index: int) -> np.ndarray:
        values = super().array(index)
        return self._within(values) if self.limited and index == 0 else values

    def onnx(self, graph: Graph, x: Value, factor: Value | None = None) -> str:
        if factor is None and (joined := self._join_batch_norm(graph, x)):
            return joined
        y = graph.add("Mul", x, self.onnx_spread(graph, x, 0 if factor is None else factor))
        if not self.layer_param.scale_param.bias_term:
            return y
        return graph.add("Add", y, self.onnx_spread(graph, x, len(self.blobs) - 1))

    def _join_batch_norm(self, graph: Graph, x: Value) -> str | None:
        """A Scale behind a BatchNorm: ONNX's BatchNormalization has its own gain and offset."""
        node = next((n for n in graph.nodes if x.name in n.output), None)
        if node is None or node.op_type != "BatchNormalization":
            return None
        if self.first_axis not in (1, 1 - len(x.shape)) or self.blobs[0].shape != (x.shape[1],):
            return None
        image, one, offset, mean, variance = node.input
        arrays = graph.constants[one], graph.constants[offset]
        if (arrays[0] != 1).any() or arrays[1].any():  # it has them already
            return None
        if self.layer_param.scale_param.bias_term:
            offset = graph.blob(self, 1)
        gain, epsilon = graph.blob(self, 0), node.attribute[0].f
        return graph.add("BatchNormalization", image, gain, offset, mean, variance, epsilon=epsilon)


@register("Bias")
class Bias(_Broadcast):
    """bottom + bias; the bias is learned, or the second bottom.

    Blobs: the bias, if it is learned, of a run of the bottom's axes (bias_layer.cpp).
    """

    reads = ("bias_param",)
    torch_names: Mapping[str, int] = {"bias": 0}

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.bias_param
        self.first_axis = p.axis
        if len(shapes) == 1:
            self.declare(shapes[0], p.num_axes, p.filler)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        return bottom[0] + self.spread(bottom[1] if len(bottom) == 2 else blobs[0], bottom[0])

    def onnx(self, graph: Graph, x: Value, term: Value | None = None) -> str:
        return graph.add("Add", x, self.onnx_spread(graph, x, 0 if term is None else term))

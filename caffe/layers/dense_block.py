"""DenseBlock: a whole block of a DenseNet as one layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.layers.look import Look
from caffe.proto import caffe_pb2 as pb

EPS = 1e-5
FILTER, GAIN, OFFSET, MEAN, VARIANCE = range(5)  # the kinds of blobs, numTransition of each


@register("DenseBlock")
class DenseBlock(Layer):
    """numTransition steps, each of which appends growthRate channels to what it got.

    A step is BN, ReLU and a 3x3 convolution without a bias; with use_BC it is BN, ReLU, a 1x1
    convolution to 4 growthRate channels, and BN, ReLU and the 3x3 convolution of these. Bottom:
    (N, initChannel, H, W). Top: (N, initChannel + numTransition growthRate, H, W). Blobs, a row of
    numTransition of each: the 3x3 filters, BN's gains, offsets, means and variances; with use_BC
    then the 1x1 filters and the second BN's four; a last one that the fork's CPU code counts with.
    Filters are convolved, not correlated: they lie turned by 180 degrees. Of a bottom with more
    channels (caffe_ocr's nets) the first N initChannel H W values of its memory are taken. In
    TRAIN, use_dropout drops a share dropout_amount of each step's channels' values, and
    moving_average_fraction is the share of the new in the running statistics (Huang et al.,
    2017; DenseBlock_layer.cu).
    """

    fork = "Tongcheng/DN_CaffeScript, senlinuc/caffe_ocr"
    judge = "recorded"
    in_place = False
    gathers = True
    reads = ("denseblock_param",)
    takes = tuple(
        f"denseblock_param.{name}"
        for name in (
            *("numTransition", "initChannel", "growthRate", "Filter_Filler", "BN_Scaler_Filler"),
            *("BN_Bias_Filler", "use_dropout", "dropout_amount", "use_BC"),
            *("moving_average_fraction", "gpuIdx", "BC_ultra_space_efficient", "workspace_MB"),
        )
    )
    differs = (
        "It is the fork's GPU code: its CPU code normalises by the unbiased variance in TRAIN, and "
        "counts running statistics as BatchNorm does. `gpuIdx`, `workspace_MB` and "
        "`BC_ultra_space_efficient` are without effect. The gradient in TEST is the derivative."
    )
    look = Look("Convolution", color="#FF5050")

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.denseblock_param
        self.steps, self.first, self.growth = p.numTransition, p.initChannel, p.growthRate
        for name in ("numTransition", "initChannel", "growthRate"):
            self.check(getattr(p, name) > 0, f"{name} is {getattr(p, name)}, expected at least 1")
        self.check(
            0 <= p.dropout_amount < 1,
            f"dropout_amount is {p.dropout_amount:g}, expected 0 <= amount < 1",
        )
        self.check(self.steps <= 10_000, f"numTransition is {self.steps}, expected at most 10000")
        into = [self.first + i * self.growth for i in range(self.steps)]
        middle = [4 * self.growth] * self.steps
        self._declare([(self.growth, n, 3, 3) for n in (middle if p.use_BC else into)], into)
        if p.use_BC:
            shapes_1x1 = [(4 * self.growth, n, 1, 1) for n in into]
            self._declare(shapes_1x1, middle)
        self.add_blob((1,), pb.FillerParameter())
        self._fix_learning_rates()

    def _declare(self, filters: Sequence[Shape], channels: Sequence[int]) -> None:
        """Declare a row of filters, and rows of BN's blobs for so many channels."""
        p = self.layer_param.denseblock_param
        for shape in filters:
            self.add_blob(shape, p.Filter_Filler)
        one, zero = pb.FillerParameter(value=1), pb.FillerParameter()
        for filler in (p.BN_Scaler_Filler, p.BN_Bias_Filler, zero, one):
            for n in channels:
                self.add_blob((1, n, 1, 1), filler)

    def _fix_learning_rates(self) -> None:
        """The solver leaves statistics alone."""
        specs = self.layer_param.param
        while len(specs) < len(self.blobs):
            specs.add()
        for i, spec in enumerate(specs):
            if self.statistic(i):
                spec.lr_mult = spec.decay_mult = 0

    @property
    def changes_blobs(self) -> bool:
        return self.phase != pb.TEST

    def statistic(self, index: int) -> bool:
        kind = index // self.steps % 5
        return index == len(self.blobs) - 1 or kind in (MEAN, VARIANCE)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        [shape] = shapes
        self.check(
            len(shape) == 4 and shape[1] >= self.first,
            f"the bottom has the shape {shape}, expected (N, {self.first}, H, W), or more channels",
        )
        return [(shape[0], self.first + self.steps * self.growth, *shape[2:])]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p, x = self.layer_param.denseblock_param, self._taken(bottom[0])
        if x.numel() == 0:
            return x.new_zeros(self.top_shapes(bottom)[0])
        for i in range(self.steps):
            y = F.relu(self._normalized(x, self._step(blobs, i, 0)))
            if p.use_BC:
                second = self._step(blobs, i, 5)
                y = F.relu(self._normalized(F.conv2d(y, second[FILTER]), second))
            y = F.conv2d(y, self._step(blobs, i, 0)[FILTER].flip(2, 3), padding=1)
            if p.use_dropout and self.phase == pb.TRAIN:
                y = F.dropout(y, p.dropout_amount)
            x = torch.cat([x, y], 1)
        return x

    def _taken(self, x: torch.Tensor) -> torch.Tensor:
        """What the fork reads of a bottom with more channels: the start of its memory."""
        if x.shape[1] == self.first:
            return x
        shape = (x.shape[0], self.first, *x.shape[2:])
        return x.reshape(-1)[: math.prod(shape)].reshape(shape)

    def _step(self, blobs: Tensors, index: int, row: int) -> list[torch.Tensor]:
        """Filter, gain, offset, mean and variance of a step; row 5: of its 1x1 convolution."""
        return [blobs[(row + kind) * self.steps + index] for kind in range(5)]

    def _normalized(self, x: torch.Tensor, step: Sequence[torch.Tensor]) -> torch.Tensor:
        gain, offset, mean, variance = (blob.reshape(-1) for blob in step[1:])
        if self.phase == pb.TEST:
            return torch.batch_norm(x, gain, offset, mean, variance, False, 0.0, EPS, True)
        fraction = self.layer_param.denseblock_param.moving_average_fraction
        with torch.no_grad():
            count = x.numel() // x.shape[1]
            spread, centre = torch.var_mean(x, (0, 2, 3), correction=0)
            mean.mul_(1 - fraction).add_(centre, alpha=fraction)
            variance.mul_(1 - fraction).add_(spread, alpha=fraction * count / max(1, count - 1))
        return torch.batch_norm(x, gain, offset, None, None, True, 0.0, EPS, True)

    def macs(self, shapes: Sequence[Shape]) -> int:
        [shape] = shapes
        places = shape[0] * math.prod(shape[2:])
        filters = self.blobs[: self.steps]
        if self.layer_param.denseblock_param.use_BC:
            filters = [*filters, *self.blobs[5 * self.steps : 6 * self.steps]]
        return places * sum(math.prod(blob.shape) for blob in filters)

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p, x, shape = self.layer_param.denseblock_param, bottoms[0].name, bottoms[0].shape
        if shape[1] != self.first:
            self.check(shape[0] == 1, "more channels than initChannel: one sample has an ONNX form")
            x = graph.slice(x, [1], [0], [self.first])
        for i in range(self.steps):
            y = self._onnx_normalized(graph, x, i, 0)
            if p.use_BC:
                y = graph.add("Conv", y, graph.blob(self, 5 * self.steps + i), kernel_shape=[1, 1])
                y = self._onnx_normalized(graph, y, i, 5)
            weight = np.ascontiguousarray(self.array(i)[:, :, ::-1, ::-1])
            weight = graph.constant(weight, name=f"{self.name}.{i}")
            y = graph.add("Conv", y, weight, kernel_shape=[3, 3], pads=[1] * 4)
            x = graph.add("Concat", x, y, axis=1)
        return x

    def _onnx_normalized(self, graph: Graph, x: str, index: int, row: int) -> str:
        """BN and ReLU."""
        places = [(row + kind) * self.steps + index for kind in range(1, 5)]
        blobs = [graph.constant(self.array(n).reshape(-1), name=f"{self.name}.{n}") for n in places]
        return graph.add("Relu", graph.add("BatchNormalization", x, *blobs, epsilon=EPS))

"""BN: batch normalisation with its own gain and offset, in the three kinds that forks know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from caffe.formats.onnx import Graph, Value
from caffe.kernels.sync_bn import sync_batch_norm
from caffe.layers.base import Layer, Shape, Tensors, register, with_gradient_of
from caffe.layers.coordinates import IDENTITY, Map
from caffe.layers.look import NORM
from caffe.process import ranks
from caffe.proto import caffe_pb2 as pb

SEGNET_EPS = 1e-9  # a constant in SegNet's code
AVERAGED, BATCH, AFFINE = "averaged", "batch", "affine"


@register("BN")
class BN(Layer):
    """Normalisation per channel (axis 1) with a learned gain and offset.

    Bottom and top: (N, C, ...). Blobs are (1, C, 1, 1); a file's may also be (1, C). Three forks'
    layers have this name, and the fields of bn_param tell them apart:

    - With `scale_filler`, `shift_filler` or `bn_mode` it is SegNet's, ENet's and DeconvNet's.
      Blobs: gain, offset. LEARN (the default) takes the batch's statistics in both phases; further
      tops hold its mean and variance, (1, C, 1, 1). INFERENCE is top = gain * bottom + offset: a
      script of theirs folds statistics of the training set into the blobs.
    - With `moving_average`, `decay` or `var_eps` it is the first caffe-windows'. Blobs: gain,
      offset, mean, variance. TEST takes the last two with `moving_average`, else the batch's own.
    - Otherwise it is that of TSN, PSPNet, DORN and others. Blobs: gain, offset, running mean and
      running variance, which is not unbiased; `momentum` is the share of the old that stays. TEST
      and `frozen` take the running ones; `frozen` also keeps gain and offset as they are.

    A layer that says none of this and carries two blobs is SegNet's. The blob 3 of happynear's
    branch `experiment` holds 1 / standard deviation under the same names: that is not seen.
    Source: bn_layer.cpp of yjxiong/caffe, alexgkendall/caffe-segnet, ChenglongChen/caffe-windows.
    """

    fork = "TSN, PSPNet; SegNet, ENet, DeconvNet; caffe-windows"
    judge = "recorded"
    tops = (1, 3)
    gathers = True
    unit_axes = True
    reads = ("bn_param",)
    look = NORM
    differs = (
        "With one value a channel, variances are 0, as in the forks. Gradients of several backward "
        "passes add up; in SegNet's the last one replaces them. `engine` is without effect."
    )
    torch_names: Mapping[str, int] = {
        "weight": 0,
        "bias": 1,
        "running_mean": 2,
        "running_var": 3,
    }

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.bn_param
        self.check(len(shapes[0]) > 1, f"bottom has the shape {shapes[0]}, expected (N, C, ...)")
        self.channels = shapes[0][1]
        self.check(self.channels > 0, f"bottom {shapes[0]} has no channels")
        self.read_kind()
        if self.segnet:
            fillers = [p.scale_filler, p.shift_filler]
        elif self.windows:
            fillers = [p.scale_filler, p.shift_filler, pb.FillerParameter(), pb.FillerParameter()]
        else:
            variance = pb.FillerParameter(value=float(p.frozen))
            fillers = [p.slope_filler, p.bias_filler, pb.FillerParameter(), variance]
        for filler in fillers:
            self.add_blob((1, self.channels, 1, 1), filler)
        self.check(
            self.num_tops == 1 or (self.segnet and self.statistics() == BATCH),
            "only SegNet's BN in mode LEARN has further tops, the batch's mean and variance",
        )
        self._fix_learning_rates()

    def read_kind(self) -> None:
        """Set which fork's layer it is, and its constants."""
        p = self.layer_param.bn_param
        given = {field.name for field, _ in p.ListFields()}
        self.windows = bool(given & {"moving_average", "decay", "var_eps"})
        names = given & {"scale_filler", "shift_filler", "bn_mode"}
        self.segnet = not self.windows and bool(
            names or (not given and len(self.layer_param.blobs) == 2)
        )
        self.eps = SEGNET_EPS if self.segnet else p.var_eps if self.windows else p.eps
        self.fraction = p.decay if self.windows else p.momentum

    def statistics(self) -> str:
        """What normalises: the BATCH's statistics, the AVERAGED ones, or nothing (AFFINE)."""
        p, test = self.layer_param.bn_param, self.phase == pb.TEST
        if self.segnet:
            return AFFINE if p.bn_mode == pb.BNParameter.INFERENCE else BATCH
        if self.windows:
            return AVERAGED if test and p.moving_average else BATCH
        return AVERAGED if test or p.frozen else BATCH

    def _fix_learning_rates(self) -> None:
        """The solver leaves statistics alone, and with `frozen` gain and offset, as the fork."""
        if self.segnet:
            return
        specs = self.layer_param.param
        while len(specs) < 4:
            specs.add()
        frozen = self.layer_param.bn_param.frozen and not self.windows
        for spec in specs[0 if frozen else 2 :]:
            spec.lr_mult = spec.decay_mult = 0

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = shapes[0]
        self.check(
            len(shape) > 1 and shape[1] == self.channels,
            f"bottom has the shape {shape}, expected {self.channels} channels on axis 1",
        )
        return [shape, *[(1, self.channels, 1, 1)] * (self.num_tops - 1)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        self.top_shapes(bottom)
        x, kind = bottom[0], self.statistics()
        gain, offset = blobs[0].flatten(), blobs[1].flatten()
        if kind == AVERAGED:
            return self._by_average(x, gain, offset, blobs)
        if kind == AFFINE:
            return self._affine(x, gain, offset)
        y, mean, variance = self._by_batch(x)
        self._gather(blobs, mean, variance)
        tops = [self._affine(y, gain, offset), mean, variance][: self.num_tops]
        return [tops[0], *(t.reshape(1, -1, 1, 1) for t in tops[1:])]

    def _affine(self, x: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        wide = (1, -1, *[1] * (x.dim() - 2))
        return x * gain.view(wide) + offset.view(wide)

    def _by_batch(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The normalised batch, and its mean and biased variance, which have no gradient."""
        count = x.numel() // self.channels
        if ranks.sync_bn() and self.phase == pb.TRAIN:
            y, mean, unbiased = sync_batch_norm(x, eps=self.eps)
            count *= ranks.solver_count()
            return y, mean, unbiased * ((count - 1) / count)
        axes = [axis for axis in range(x.dim()) if axis != 1]
        if count == 0:
            return x, x.new_zeros(self.channels), x.new_zeros(self.channels)
        variance, mean = torch.var_mean(x.detach(), axes, correction=0)
        if count <= 1:
            return x - x, mean, variance
        return (
            torch.batch_norm(x, None, None, None, None, True, 0.0, self.eps, True),
            mean,
            variance,
        )

    def _gather(self, blobs: Tensors, mean: torch.Tensor, variance: torch.Tensor) -> None:
        if self.segnet or self.phase != pb.TRAIN:
            return
        with torch.no_grad():
            for blob, new in zip(blobs[2:], (mean, variance), strict=True):
                blob.mul_(self.fraction).add_(new.view(blob.shape), alpha=1 - self.fraction)

    def _by_average(
        self, x: torch.Tensor, gain: torch.Tensor, offset: torch.Tensor, blobs: Tensors
    ) -> torch.Tensor:
        mean, variance = (b.detach().flatten() for b in blobs[2:])
        frozen = self.layer_param.bn_param.frozen
        if frozen and not self.windows:  # gain and offset have no gradient then
            gain, offset = gain.detach(), offset.detach()
        if frozen or not x.requires_grad:
            return torch.batch_norm(x, gain, offset, mean, variance, False, 0.0, self.eps, True)
        inverse = (variance + self.eps).rsqrt()
        y = self._affine(x, inverse, -mean * inverse)
        # The forks' gradient in TEST treats the running statistics as if they were the batch's.
        axes = [axis for axis in range(x.dim()) if axis != 1]
        fixed = y.detach()
        centred = x - x.mean(axes, keepdim=True) - fixed * (x * fixed).mean(axes, keepdim=True)
        stand_in = self._affine(centred, inverse, torch.zeros_like(inverse))
        return self._affine(with_gradient_of(y, stand_in), gain, offset)

    @property
    def changes_blobs(self) -> bool:
        return self.phase == pb.TRAIN

    def statistic(self, index: int) -> bool:
        return index >= 2

    def onnx(self, graph: Graph, x: Value) -> str | list[str]:
        kind = self.statistics()
        if kind == AVERAGED:
            blobs = [
                graph.constant(self.array(i).reshape(-1), name=f"{self.name}.{i}") for i in range(4)
            ]
            return graph.add("BatchNormalization", x, *blobs, epsilon=self.eps)
        wide = (1, self.channels, *[1] * (len(x.shape) - 2))
        gain, offset = (
            graph.constant(self.array(i).reshape(wide), name=f"{self.name}.{i}") for i in (0, 1)
        )
        if kind == AFFINE:
            return graph.add("Add", graph.add("Mul", x, gain), offset)
        axes = [axis for axis in range(len(x.shape)) if axis != 1]
        mean = graph.add("ReduceMean", x, axes=axes, keepdims=1)
        centred = graph.add("Sub", x, mean)
        square = graph.add("Mul", centred, centred)
        variance = graph.add("ReduceMean", square, axes=axes, keepdims=1)
        y = graph.add("Div", centred, graph.add("Sqrt", graph.affine(variance, 1, self.eps)))
        top = graph.add("Add", graph.add("Mul", y, gain), offset)
        one = (1, self.channels, 1, 1)
        more = [graph.reshape(v, one, keeps_batch=False) for v in (mean, variance)]
        return [top, *more][: self.num_tops]

    @classmethod
    def coordinates(cls, params: Mapping[str, object]) -> Map:
        return IDENTITY

"""Normalize: values divided by a norm. Two forks have a type of this name."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Shape, Tensors, register, with_gradient_of
from caffe.layers.normalization import Normalizing
from caffe.proto import caffe_pb2 as pb


@register("Normalize")
class Normalize(Normalizing):
    """Values over the L2 norm of their sample or of their place, in two meanings.

    With `norm_param`, or with `param`s for its blob, it is SSD's (normalize_layer.cpp; Liu et al.,
    2015, "ParseNet"): x / sqrt(sum of squares + eps) * scale. across_spatial: the sum is over a
    sample, and not over the channels of each place. Bottom and top: (N, C), (N, C, H) or
    (N, C, H, W). Blob: scale, one number (channel_shared) or one a channel (C).

    Otherwise it is caffe-windows' (normalize_param): each place over its channels' L2 norm,
    sqrt(sum of squares + 1e-6), or L1 norm, without a blob. The first top always has four axes,
    (N, C, H, W); the second, if there is one, is the norm (N, 1, H, W), with a gradient if bp_norm.
    With fix_gradient the gradient is not divided by the norm.
    """

    tops = (1, 2)
    in_place = False
    fork = "SSD; caffe-windows"
    judge = "recorded"
    reads = ("norm_param", "normalize_param")
    takes = (
        *(f"norm_param.{f}" for f in ("across_spatial", "scale_filler", "channel_shared", "eps")),
        *(f"normalize_param.{f}" for f in ("normalize_type", "fix_gradient", "bp_norm")),
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        message, p = self.layer_param, self.layer_param.norm_param
        self.check(
            not (message.HasField("norm_param") and message.HasField("normalize_param")),
            "give either norm_param (SSD's layer) or normalize_param (caffe-windows'), not both",
        )
        self.scaled = message.HasField("norm_param") or bool(message.param or message.blobs)
        if not self.scaled:
            kind = message.normalize_param.normalize_type
            self.check(kind in ("L1", "L2"), f"normalize_type is {kind!r}, expected 'L2' or 'L1'")
            return
        self.check(self.num_tops == 1, "has one top with norm_param")
        self.check(p.eps >= 0, f"eps is {p.eps:g}, expected at least 0")
        self._check_axes(shapes[0])
        self.channels = shapes[0][1]
        unit = pb.FillerParameter(type="constant", value=1)
        filler = p.scale_filler if p.HasField("scale_filler") else unit
        self.add_blob(() if p.channel_shared else (self.channels,), filler)

    def _check_axes(self, shape: Shape) -> None:
        least = 2 if self.scaled else 0
        self.check(
            least <= len(shape) <= 4,
            f"bottom has the shape {tuple(shape)}, expected {least} to 4 axes: samples, channels, "
            "height, width",
        )

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = tuple(shapes[0])
        self._check_axes(shape)
        if self.scaled:
            self.check(
                shape[1] == self.channels,
                f"bottom has {shape[1]} channels on axis 1, expected {self.channels}",
            )
            return [shape]
        n, c, h, w = _four(shape)
        return [(n, c, h, w), (n, 1, h, w)][: self.num_tops]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor | Tensors:
        (shape, *_) = self.top_shapes(bottom)
        if self.scaled:
            return self._scaled(bottom[0], blobs[0])
        return self._plain(bottom[0].reshape(shape))

    def _scaled(self, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        if self.layer_param.norm_param.channel_shared:
            return self._over_norm(x) * scale
        # SSD's gradient takes the scales of the channels after the sum over channels, not before
        # it: it is that of unit with respect to the scaled x.
        wide = scale.view(-1, *[1] * (x.dim() - 2))
        unit = self._over_norm(with_gradient_of(x, x * wide.detach()))
        return with_gradient_of(unit * wide, unit + unit.detach() * wide)

    def _over_norm(self, x: torch.Tensor) -> torch.Tensor:
        p = self.layer_param.norm_param
        axes = list(range(1, x.dim())) if p.across_spatial else [1]
        norm = (x.square().sum(axes, keepdim=True) + p.eps).sqrt()
        return x / norm

    def _plain(self, x: torch.Tensor) -> torch.Tensor | Tensors:
        p = self.layer_param.normalize_param
        if p.normalize_type == "L2":
            norm = (x.square().sum(1, keepdim=True) + 1e-6).sqrt()
        else:
            norm = x.abs().sum(1, keepdim=True) + 1e-6
        y = x / norm
        if p.fix_gradient:  # normalize_layer.cu leaves the division out
            y = with_gradient_of(y, y * norm.detach())
        if self.num_tops == 1:
            return y
        return y, norm if p.bp_norm else norm.detach()

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        (x,) = bottoms
        return self._onnx_scaled(graph, x) if self.scaled else self._onnx_plain(graph, x)

    def _onnx_scaled(self, graph: Graph, x: Value) -> str:
        p = self.layer_param.norm_param
        y, shape = x.name, x.shape
        if p.across_spatial:  # as one axis: OpenCV's classic engine is wrong about several
            shape = (shape[0], -1)
            y = graph.reshape(x, shape)
        squares = graph.constant([1], "int64")
        total = graph.add("ReduceSum", graph.add("Mul", y, y), squares, keepdims=1)
        y = graph.add("Div", y, graph.add("Sqrt", graph.affine(total, 1, p.eps)))
        if p.across_spatial:
            y = graph.reshape(y, x.shape)
        scale = self.array(0)
        if scale.ndim:
            scale = scale.reshape(-1, *[1] * (len(x.shape) - 2))
        return graph.add("Mul", y, graph.constant(scale, name=f"{self.name}.0"))

    def _onnx_plain(self, graph: Graph, x: Value) -> Names:
        shape, y, axis = _four(x.shape), x.name, graph.constant([1], "int64")
        if shape != x.shape:
            y = graph.reshape(x, shape, keeps_batch=bool(x.shape))
        if self.layer_param.normalize_param.normalize_type == "L2":
            total = graph.add("ReduceSum", graph.add("Mul", y, y), axis, keepdims=1)
            norm = graph.add("Sqrt", graph.affine(total, 1, 1e-6))
        else:
            total = graph.add("ReduceSum", graph.add("Abs", y), axis, keepdims=1)
            norm = graph.affine(total, 1, 1e-6)
        quotient = graph.add("Div", y, norm)
        return quotient if self.num_tops == 1 else (quotient, norm)


def _four(shape: Shape) -> Shape:
    """The shape with axes of one behind it, four in all."""
    return (*shape, *[1] * (4 - len(shape)))

"""Layers that combine, cut and rearrange blobs, and the fully connected layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from caffe.layers.base import Layer, Shape, Tensors, register
from caffe.proto import caffe_pb2 as pb


@register("Split")
class Split(Layer):
    """The bottom, once for each layer that takes it; its gradient is the sum of theirs."""

    tops = (1, None)
    shares_memory = True

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        return [bottom[0]] * self.num_tops


@register("Silence")
class Silence(Layer):
    """Takes blobs that nobody needs, so that they are no outputs; their gradient is zero."""

    bottoms = (1, None)
    tops = (0, 0)

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        return []


@register("Concat")
class Concat(Layer):
    """Joins the bottoms along an axis."""

    bottoms = (1, None)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.concat_param
        shape = tuple(bottom[0].shape)
        if p.HasField("concat_dim"):
            self.check(not p.HasField("axis"), "give either axis or concat_dim, not both")
            axis = self.axis(p.concat_dim, shape)
        else:
            axis = self.axis(p.axis, shape)
        for i, x in enumerate(bottom):
            fits = x.dim() == len(shape) and all(
                a == b for k, (a, b) in enumerate(zip(x.shape, shape, strict=True)) if k != axis
            )
            self.check(
                fits,
                f"bottom {i} has the shape {tuple(x.shape)}; all but axis {axis} must be as in "
                f"bottom 0, {shape}",
            )
        return torch.cat(list(bottom), axis) if len(bottom) > 1 else bottom[0]


@register("Slice")
class Slice(Layer):
    """Cuts the bottom along an axis, at slice_point or into equal parts."""

    tops = (1, None)

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        p = self.layer_param.slice_param
        x, shape = bottom[0], tuple(bottom[0].shape)
        if p.HasField("slice_dim"):
            self.check(not p.HasField("axis"), "give either axis or slice_dim, not both")
            axis = self.axis(p.slice_dim, shape)
        else:
            axis = self.axis(p.axis, shape)
        return torch.split(x, self._sizes(list(p.slice_point), shape[axis], axis), axis)

    def _sizes(self, points: list[int], extent: int, axis: int) -> list[int]:
        tops = self.num_tops
        if not points:
            self.check(
                extent % tops == 0, f"axis {axis} of {extent} cannot be cut into {tops} equal parts"
            )
            return [extent // tops] * tops
        self.check(
            len(points) == tops - 1,
            f"{tops} tops need {tops - 1} slice_point(s), got {len(points)}",
        )
        edges = [0, *points, extent]
        sizes = [b - a for a, b in itertools.pairwise(edges)]
        self.check(
            min(sizes) > 0,
            f"slice_point {points} must rise and stay below the {extent} of axis {axis}",
        )
        return sizes


class _LastMaximum(torch.autograd.Function):
    """Maximum of bottoms with Caffe's choice on a tie: of the first two the second, then the older.

    The gradient goes to the chosen one alone; torch.maximum would halve it.
    """

    @staticmethod
    def forward(ctx, *bottom: torch.Tensor) -> torch.Tensor:
        best = torch.where(bottom[0] > bottom[1], bottom[0], bottom[1])
        chosen = (bottom[0] <= bottom[1]).to(torch.int32)
        for i, x in enumerate(bottom[2:], 2):
            chosen = torch.where(x > best, i, chosen)
            best = torch.where(x > best, x, best)
        ctx.save_for_backward(chosen)
        return best

    @staticmethod
    def backward(ctx, grad: torch.Tensor):
        (chosen,) = ctx.saved_tensors
        return tuple(
            torch.where(chosen == i, grad, 0) if need else None
            for i, need in enumerate(ctx.needs_input_grad)
        )


@register("Eltwise")
class Eltwise(Layer):
    """Product, weighted sum or maximum of bottoms of one shape."""

    bottoms = (2, None)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.eltwise_param
        for i, x in enumerate(bottom):
            self.check(
                x.shape == bottom[0].shape,
                f"bottom {i} has the shape {tuple(x.shape)}, bottom 0 {tuple(bottom[0].shape)}; "
                "they must be equal",
            )
        if p.operation == pb.EltwiseParameter.MAX:
            return _LastMaximum.apply(*bottom)
        if p.operation == pb.EltwiseParameter.PROD:
            return math.prod(bottom[1:], start=bottom[0])
        total = bottom[0] * p.coeff[0] if p.coeff else bottom[0]
        for i, x in enumerate(bottom[1:], 1):
            total = torch.add(total, x, alpha=p.coeff[i] if p.coeff else 1)
        return total

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.eltwise_param
        self.check(
            not p.coeff or len(p.coeff) == len(shapes),
            f"coeff is given {len(p.coeff)} time(s), expected none or one for each of "
            f"{len(shapes)} bottoms",
        )
        self.check(not p.coeff or p.operation == pb.EltwiseParameter.SUM, "coeff is for SUM only")


@register("InnerProduct")
class InnerProduct(Layer):
    """The fully connected layer: axes from `axis` on are one vector."""

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.inner_product_param
        self.start = self.axis(p.axis, shapes[0])
        self.features = math.prod(shapes[0][self.start :])
        self.check(p.num_output > 0, "num_output must be positive")
        shape = (p.num_output, self.features)
        self.add_blob(shape[::-1] if p.transpose else shape, p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.inner_product_param
        x = bottom[0]
        lead = x.shape[: self.start]
        features = math.prod(x.shape[self.start :])
        self.check(
            features == self.features,
            f"bottom {tuple(x.shape)} has {features} values from axis {self.start} on, "
            f"expected {self.features}",
        )
        weight = blobs[0].t() if p.transpose else blobs[0]
        bias = blobs[1] if p.bias_term else None
        y = torch.nn.functional.linear(x.reshape(math.prod(lead), features), weight, bias)
        return y.reshape(*lead, p.num_output)


@register("Softmax")
class Softmax(Layer):
    """e^x / sum e^x along an axis."""

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        axis = self.axis(self.layer_param.softmax_param.axis, tuple(bottom[0].shape))
        return bottom[0].softmax(axis)


@register("ArgMax")
class ArgMax(Layer):
    """The places (and values) of the top_k largest; of equals the highest place comes first."""

    labels = (0,)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.argmax_param
        axis = self.axis(p.axis, shapes[0]) if p.HasField("axis") else None
        extent = shapes[0][axis] if axis is not None else math.prod(shapes[0][1:])
        self.check(
            1 <= p.top_k <= extent, f"top_k is {p.top_k}, expected 1 to {extent}, the values"
        )

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.argmax_param
        x = bottom[0]
        if p.HasField("axis"):
            axis = self.axis(p.axis, tuple(x.shape))
            place, value = self._largest(x, axis, p.top_k)
            return value if p.out_max_val else place
        place, value = self._largest(x.reshape(x.shape[0], 1, -1), 2, p.top_k)
        top = torch.cat([place, value], 1) if p.out_max_val else place
        # Caffe keeps the bottom's number of axes: (N, 1 or 2, top_k, 1, ...)
        return top.reshape(*top.shape, *[1] * (x.dim() - 3))

    @staticmethod
    def _largest(x: torch.Tensor, axis: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        flipped = x.flip(axis)  # so that the first of equals is the highest place
        if k == 1:
            index = flipped.argmax(axis, keepdim=True)
            value = flipped.gather(axis, index)
        else:
            value, index = flipped.sort(dim=axis, descending=True, stable=True)
            value, index = value.narrow(axis, 0, k), index.narrow(axis, 0, k)
        return (x.shape[axis] - 1 - index).to(x.dtype), value

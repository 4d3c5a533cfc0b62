"""Layers that combine, cut and rearrange blobs, and the fully connected layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from caffe.layers.base import ENGINE, Layer, Shape, Tensors, register, with_gradient_of
from caffe.proto import caffe_pb2 as pb


@register("Split")
class Split(Layer):
    """The bottom, once for each layer that takes it; its gradient is the sum of theirs."""

    tops = (1, None)
    in_place = False
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
    reads = ("concat_param",)

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
        if bottom[0].is_meta:
            total = sum(x.shape[axis] for x in bottom)
            return bottom[0].new_empty(*shape[:axis], total, *shape[axis + 1 :])
        return torch.cat(list(bottom), axis) if len(bottom) > 1 else bottom[0]


@register("Slice")
class Slice(Layer):
    """Cuts the bottom along an axis, at slice_point or into equal parts."""

    tops = (1, None)
    reads = ("slice_param",)

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
            min(sizes[:-1]) > 0 and sizes[-1] >= 0 and tops <= extent,
            f"slice_point {points} must rise within the {extent} of axis {axis}",
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
    reads = ("eltwise_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.eltwise_param
        self.check(
            not p.coeff or len(p.coeff) == len(shapes),
            f"coeff is given {len(p.coeff)} time(s), expected none or one for each of "
            f"{len(shapes)} bottoms",
        )
        product = p.operation == pb.EltwiseParameter.PROD
        self.check(not (p.coeff and product), "coeff is for SUM, not for PROD")

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.eltwise_param
        for i, x in enumerate(bottom):
            self.check(
                x.shape == bottom[0].shape,
                f"bottom {i} has the shape {tuple(x.shape)}, bottom 0 {tuple(bottom[0].shape)}; "
                "they must be equal",
            )
        if bottom[0].is_meta:
            return bottom[0]
        if p.operation == pb.EltwiseParameter.MAX:
            return _LastMaximum.apply(*bottom)
        if p.operation == pb.EltwiseParameter.PROD:
            return self._product(bottom)
        total = bottom[0] * p.coeff[0] if p.coeff else bottom[0]
        for i, x in enumerate(bottom[1:], 1):
            total = torch.add(total, x, alpha=p.coeff[i] if p.coeff else 1)
        return total

    def _product(self, bottom: Tensors) -> torch.Tensor:
        product = math.prod(bottom[1:], start=bottom[0])
        if self.layer_param.eltwise_param.stable_prod_grad:
            return product
        # On demand Caffe divides the product by each bottom, and has no gradient where one is 0.
        return with_gradient_of(product, sum(x * (product / x).detach() for x in bottom))


@register("InnerProduct")
class InnerProduct(Layer):
    """The fully connected layer: axes from `axis` on are one vector."""

    multiplies = True
    reads = ("inner_product_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.inner_product_param
        self.features = math.prod(shapes[0][self.axis(p.axis, shapes[0]) :])
        self.check(p.num_output > 0, "num_output must be positive")
        shape = (p.num_output, self.features)
        self.add_blob(shape[::-1] if p.transpose else shape, p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.inner_product_param
        x = bottom[0]
        start = self.axis(p.axis, tuple(x.shape))
        lead, features = x.shape[:start], math.prod(x.shape[start:])
        self.check(
            features == self.features,
            f"bottom {tuple(x.shape)} has {features} values from axis {start} on, "
            f"expected {self.features}",
        )
        if x.is_meta:
            return x.new_empty(*lead, p.num_output)
        weight = blobs[0].t() if p.transpose else blobs[0]
        bias = blobs[1] if p.bias_term else None
        y = torch.nn.functional.linear(x.reshape(math.prod(lead), features), weight, bias)
        return y.reshape(*lead, p.num_output)


@register("Embed")
class Embed(Layer):
    """A row of a learned table for each index, along a new last axis."""

    reads = ("embed_param",)
    labels = (0,)
    differs = "An index outside the table is an error; a release build of Caffe reads stray memory."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.embed_param
        self.check(p.num_output > 0, "num_output must be positive")
        self.check(p.input_dim > 0, "input_dim must be positive")
        self.add_blob((p.input_dim, p.num_output), p.weight_filler)
        if p.bias_term:
            self.add_blob((p.num_output,), p.bias_filler)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        index = bottom[0].detach().long()
        self.check_range(index, blobs[0].shape[0], "index")
        y = torch.nn.functional.embedding(index, blobs[0])
        return y + blobs[1] if len(blobs) > 1 else y


@register("Parameter")
class Parameter(Layer):
    """A learned blob as a top."""

    bottoms = (0, 0)
    shares_memory = True
    reads = ("parameter_param",)
    differs = "Gradients of several backward passes add up; in Caffe the last one replaces them."

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.add_blob(self.layer_param.parameter_param.shape.dim, pb.FillerParameter())

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return blobs[0]


@register("Reduction")
class Reduction(Layer):
    """Sum, sum of magnitudes, sum of squares or mean of all axes from `axis` on, times coeff."""

    reads = ("reduction_param",)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p, ops = self.layer_param.reduction_param, pb.ReductionParameter
        x = bottom[0].flatten(self.axis(p.axis, tuple(bottom[0].shape)))
        if p.operation == ops.ASUM:
            x = x.abs()
        elif p.operation == ops.SUMSQ:
            x = x.square()
        total = x.mean(-1) if p.operation == ops.MEAN else x.sum(-1)
        return total if p.coeff == 1 else total * p.coeff


@register("Softmax")
class Softmax(Layer):
    """e^x / sum e^x along an axis."""

    reads = ("softmax_param",)
    differs = ENGINE

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        axis = self.axis(self.layer_param.softmax_param.axis, tuple(bottom[0].shape))
        return bottom[0] if bottom[0].is_meta else bottom[0].softmax(axis)


@register("ArgMax")
class ArgMax(Layer):
    """The places (and values) of the top_k largest; of equals the highest place comes first."""

    labels = (0,)
    reads = ("argmax_param",)

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


@register("Flatten")
class Flatten(Layer):
    """Axes axis .. end_axis become one."""

    in_place = False
    shares_memory = True
    reads = ("flatten_param",)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.flatten_param
        shape = tuple(bottom[0].shape)
        start, end = self.axis(p.axis, shape), self.axis(p.end_axis, shape)
        self.check(start <= end + 1, f"axis {p.axis} lies behind end_axis {p.end_axis} of {shape}")
        flat = math.prod(shape[start : end + 1])
        return bottom[0].reshape(*shape[:start], flat, *shape[end + 1 :])


@register("Reshape")
class Reshape(Layer):
    """A new shape for the same values: 0 keeps an axis, -1 is inferred.

    Only num_axes axes from `axis` on are replaced; a negative `axis` counts from behind the last.
    """

    in_place = False
    shares_memory = True
    reads = ("reshape_param",)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        shape = tuple(bottom[0].shape)
        new = self._new_shape(shape)
        self.check(
            math.prod(new) == math.prod(shape),
            f"bottom {shape} has {math.prod(shape)} values, the new shape {new} {math.prod(new)}",
        )
        return bottom[0].reshape(new)

    def _new_shape(self, shape: Shape) -> Shape:
        p = self.layer_param.reshape_param
        axes, dims = len(shape), list(p.shape.dim)
        start = p.axis if p.axis >= 0 else axes + p.axis + 1
        end = axes if p.num_axes == -1 else start + p.num_axes
        self.check(0 <= start <= axes, f"axis {p.axis} is out of range for the bottom's {shape}")
        self.check(
            p.num_axes >= -1 and end <= axes,
            f"num_axes {p.num_axes} from axis {start} on is out of range for the bottom's {shape}",
        )
        self.check(
            dims.count(-1) <= 1 and min(dims, default=0) >= -1,
            f"shape {dims} may hold one -1, and no other negative number",
        )
        for i, dim in enumerate(dims):
            if dim == 0:
                self.check(start + i < axes, f"shape {dims}: there is no axis {start + i} to keep")
                dims[i] = shape[start + i]
        new = (*shape[:start], *dims, *shape[end:])
        if -1 not in dims:
            return new
        open_axis = new.index(-1)
        before, behind = new[:open_axis], new[open_axis + 1 :]
        known, count = math.prod(before) * math.prod(behind), math.prod(shape)
        self.check(
            known > 0 and count % known == 0,
            f"the {count} values of {shape} cannot be divided among the {known} of shape {new}",
        )
        return (*before, count // known, *behind)


@register("Tile")
class Tile(Layer):
    """Repeats the bottom along an axis."""

    reads = ("tile_param",)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.tile_param
        axis = self.axis(p.axis, tuple(bottom[0].shape))
        self.check(p.tiles > 0, f"tiles is {p.tiles}, expected a positive number")
        return bottom[0].repeat([p.tiles if i == axis else 1 for i in range(bottom[0].dim())])


@register("BatchReindex")
class BatchReindex(Layer):
    """The samples of bottom 0 that bottom 1 names, in its order and as often as it does."""

    bottoms = (2, 2)
    labels = (1,)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        x, index = bottom
        self.check(
            index.dim() == 1 and x.dim() > 0,
            f"the indices (bottom 1) have the shape {tuple(index.shape)}, expected one axis",
        )
        index = index.detach().long()
        self.check_range(index, x.shape[0], "index", ", the samples of bottom 0")
        return x.index_select(0, index)


@register("Filter")
class Filter(Layer):
    """The samples of all bottoms but the last for which the last, the selector, is not zero."""

    bottoms = (2, None)
    tops = (1, None)
    differs = "If nothing is selected, backward gives zeros, where Caffe divides by zero."

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.labels = (self.num_bottoms - 1,)
        self.check(
            self.num_tops == self.num_bottoms - 1,
            f"makes one top for each bottom but the selector, got {self.num_bottoms} bottoms "
            f"and {self.num_tops} top(s)",
        )

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        *items, selector = bottom
        count = selector.numel()
        self.check(
            selector.dim() > 0 and selector.shape[0] == count,
            f"the selector has the shape {tuple(selector.shape)}; all axes but the first must be 1",
        )
        for i, x in enumerate(items):
            self.check(
                x.dim() > 0 and x.shape[0] == count,
                f"bottom {i} has the shape {tuple(x.shape)}, expected the {count} samples of the "
                "selector",
            )
        if selector.is_meta:  # nothing is known so far: Caffe, too, starts from all
            return items
        index = selector.detach().reshape(-1).nonzero()[:, 0]
        return [x.index_select(0, index) for x in items]

"""Layers that combine values: sums and products, the fully connected layer, reductions, choices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import ENGINE, Layer, Shape, Tensors, register, resized, with_gradient_of
from caffe.layers.coordinates import IDENTITY, Map
from caffe.layers.look import OUTPUT, Look
from caffe.proto import caffe_pb2 as pb


class _LastMaximum(torch.autograd.Function):
    """The maximum of the bottoms, with Caffe's choice among equals: bottom 1 beats bottom 0, and
    later bottoms must be larger.

    The whole gradient goes to the chosen bottom; torch.maximum would halve it.
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

    bottoms = (1, None)
    concurrent = True
    reads = ("eltwise_param",)
    differs = "One bottom is enough, as in FlowNet2; BVLC's Caffe wants two."
    look = Look("Fusion")

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.eltwise_param
        self.check(
            not p.coeff or len(p.coeff) == len(shapes),
            f"coeff is given {len(p.coeff)} time(s), expected none or one for each of "
            f"{len(shapes)} bottoms",
        )
        product = p.operation == pb.EltwiseParameter.PROD
        self.check(not (p.coeff and product), "coeff is for SUM, not for PROD")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        first = tuple(shapes[0])
        for i, shape in enumerate(shapes):
            self.check(
                tuple(shape) == first,
                f"bottom {i} has the shape {tuple(shape)}, bottom 0 {first}; they must be equal",
            )
        return [first]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        p = self.layer_param.eltwise_param
        if p.operation == pb.EltwiseParameter.MAX:
            return _LastMaximum.apply(*bottom) if len(bottom) > 1 else bottom[0]
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
        # Without stable_prod_grad, Caffe divides the product by each bottom: where one is 0, there
        # is no gradient.
        return with_gradient_of(product, sum(x * (product / x).detach() for x in bottom))

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p, ops = self.layer_param.eltwise_param, pb.EltwiseParameter
        op = {ops.PROD: "Mul", ops.SUM: "Add", ops.MAX: "Max"}[p.operation]
        terms = [x.name for x in bottoms]
        if p.operation == ops.SUM and p.coeff:
            terms = [graph.affine(x, c, 0) for x, c in zip(bottoms, p.coeff, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = graph.add(op, total, term)
        return total

    @classmethod
    def coordinates(cls, params: Mapping[str, Any]) -> Map:
        return IDENTITY

    @classmethod
    def symbol(cls, param: pb.LayerParameter) -> str:
        operations = {pb.EltwiseParameter.PROD: "\u00d7", pb.EltwiseParameter.MAX: "max"}
        return operations.get(param.eltwise_param.operation, "+")


@register("Axpy")
class Axpy(Layer):
    """a x + y, with a number a for each sample and channel.

    Bottoms: a (N, C) or (N, C, 1, 1); x and y (N, C, ...). Top: (N, C, ...) (Hu et al., 2018;
    axpy_layer.cpp).
    """

    fork = "SENet, NVCaffe, Intel Caffe, caffe-windows"
    judge = "recorded"
    bottoms = (3, 3)
    in_place = False
    look = Look("Fusion")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        a, x, y = (tuple(shape) for shape in shapes)
        self.check(
            x == y and len(x) >= 2,
            f"bottoms 1 and 2 have the shapes {x} and {y}; they must be equal, of 2 axes or more",
        )
        self.check(
            a[:2] == x[:2] and math.prod(a) == math.prod(x[:2]),
            f"bottom 0 has the shape {a}, expected {x[:2]}, perhaps with axes of 1 behind",
        )
        return [x]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (shape,) = self.top_shapes(bottom)
        a, x, y = bottom
        return torch.addcmul(y, a.reshape(*shape[:2], *[1] * (len(shape) - 2)), x)

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        a, x, y = bottoms
        ones = [1] * (len(x.shape) - 2)
        factors = a if len(a.shape) == len(x.shape) else graph.reshape(a, (*x.shape[:2], *ones))
        return graph.add("Add", graph.add("Mul", factors, x), y)


@register("InnerProduct")
class InnerProduct(Layer):
    """The fully connected layer. The axes from `axis` on are one vector, which becomes one axis of
    num_output values.

    With `normalize` (caffe-windows, OpenCV's training toolbox) each pass first brings the weights
    of each output to a length of 1; the gradient does not see that. In these forks bottom 1 may be
    the weights, (outputs, ...), and bottom 2 the bias.
    """

    bottoms = (1, 3)
    multiplies = True
    concurrent = True
    reads = ("inner_product_param",)
    takes = ("inner_product_param.normalize",)
    look = Look("InnerProduct", color="#CC33FF")

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.inner_product_param
        self.features = math.prod(shapes[0][self.axis(p.axis, shapes[0]) :])
        self.outputs = p.num_output if len(shapes) == 1 else (*shapes[1], 0)[0]
        self.check(self.outputs > 0, "num_output must be positive")
        self.gathers = p.normalize and len(shapes) == 1  # forward changes the weights
        if len(shapes) == 1:
            shape = (p.num_output, self.features)
            self.add_blob(shape[::-1] if p.transpose else shape, p.weight_filler)
        self.check(len(shapes) == 1 or not p.transpose, "transpose is for weights of its own")
        self.check(len(shapes) < 3 or p.bias_term, "bottom 2 is a bias, but bias_term is false")
        if p.bias_term and len(shapes) < 3:
            self.add_blob((self.outputs,), p.bias_filler)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p, shape = self.layer_param.inner_product_param, tuple(shapes[0])
        start = self.axis(p.axis, shape)
        features = math.prod(shape[start:])
        self.check(
            features == self.features,
            f"bottom {shape} has {features} values from axis {start} on, expected {self.features}",
        )
        for i, size in enumerate((self.outputs * self.features, self.outputs), 1):
            given = tuple(shapes[i]) if i < len(shapes) else (self.outputs, size // self.outputs)
            self.check(
                given[:1] == (self.outputs,) and math.prod(given) == size,
                f"bottom {i} has the shape {given}, expected {size} values for {self.outputs} "
                "outputs",
            )
        return [(*shape[:start], self.outputs)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.inner_product_param
        (shape,) = self.top_shapes(bottom)
        if self.gathers:
            with torch.no_grad():
                blobs[0].copy_(self._unit(blobs[0]))
        weight, *bias = (*bottom[1:], *blobs)
        weight = weight.t() if p.transpose else weight.reshape(self.outputs, self.features)
        bias = bias[0].reshape(-1) if bias else None
        rows = bottom[0].reshape(math.prod(shape[:-1]), self.features)
        return torch.nn.functional.linear(rows, weight, bias).reshape(shape)

    @staticmethod
    def _unit(weight: torch.Tensor) -> torch.Tensor:
        """The weights with rows of length 1, as the forks compute them."""
        return weight / (weight.square().sum(1, keepdim=True) + 1e-6).sqrt()

    def statistic(self, index: int) -> bool:
        return False

    def macs(self, shapes: Sequence[Shape]) -> int:
        (shape,) = self.infer_shapes(shapes)
        return math.prod(shape) * self.features

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p, x = self.layer_param.inner_product_param, bottoms[0]
        start = self.axis(p.axis, x.shape)
        if len(bottoms) > 1:
            return self._onnx_of_bottoms(graph, start, *bottoms)
        weight = self.array(0)
        if p.normalize:
            weight = self._unit(torch.from_numpy(weight)).numpy()
        if start == 1:
            blobs = [graph.constant(weight, name=f"{self.name}.0")]
            blobs += [graph.blob(self, i) for i in range(1, len(self.blobs))]
            flat = x if len(x.shape) == 2 else graph.add("Flatten", x, axis=1)
            return graph.add("Gemm", flat, *blobs, transB=int(not p.transpose))
        weight = weight if p.transpose else weight.T
        flat = graph.reshape(x, (*x.shape[:start], self.features), keeps_batch=start > 0)
        y = graph.add("MatMul", flat, graph.constant(weight, name=f"{self.name}.0"))
        return graph.add("Add", y, graph.blob(self, 1)) if p.bias_term else y

    def _onnx_of_bottoms(
        self, graph: Graph, start: int, x: Value, weight: Value, *bias: Value
    ) -> Names:
        """The ONNX form for weights that are a bottom."""
        flat = graph.reshape(x, (*x.shape[:start], self.features), keeps_batch=start > 0)
        columns = graph.reshape(weight, (self.outputs, self.features), keeps_batch=False)
        y = graph.add("MatMul", flat, graph.add("Transpose", columns, perm=[1, 0]))
        if not self.layer_param.inner_product_param.bias_term:
            return y
        row = graph.reshape(bias[0], (self.outputs,), keeps_batch=False) if bias else None
        return graph.add("Add", y, row or graph.blob(self, 0))

    def from_torch(self, index: int, values: torch.Tensor) -> torch.Tensor:
        p = self.layer_param.inner_product_param
        return values.t() if p.transpose and index == 0 and values.dim() == 2 else values

    @classmethod
    def detail(cls, param: pb.LayerParameter) -> str:
        return str(param.inner_product_param.num_output)

    @classmethod
    def edge(cls, param: pb.LayerParameter) -> str:
        return str(param.inner_product_param.num_output)


@register("Embed")
class Embed(Layer):
    """Looks each index up in a learned table of input_dim rows: its row of num_output values lies
    along a new last axis.
    """

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

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [(*shapes[0], self.layer_param.embed_param.num_output)]

    def choices(self, index: int, shapes: Sequence[Shape]) -> int:
        return self.blobs[0].shape[0]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        index = bottom[0].detach().long()
        self.check_range(index, blobs[0].shape[0], "index")
        y = torch.nn.functional.embedding(index, blobs[0])
        return y + blobs[1] if len(blobs) > 1 else y

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        y = graph.add("Gather", graph.blob(self, 0), graph.to_int(bottoms[0]))
        return graph.add("Add", y, graph.blob(self, 1)) if len(self.blobs) > 1 else y


@register("Parameter")
class Parameter(Layer):
    """A learned blob of any shape as a top; `filler` and `blob_filler` are forks'."""

    bottoms = (0, 0)
    shares_memory = True
    reads = ("parameter_param",)
    takes = ("parameter_param.filler", "parameter_param.blob_filler")
    differs = "Gradients of several backward passes add up; in Caffe the last one replaces them."

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.parameter_param
        self.add_blob(p.shape.dim, p.blob_filler if p.HasField("blob_filler") else p.filler)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        return [self.blobs[0].shape]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        return blobs[0]

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        return graph.blob(self, 0)


@register("Reduction")
class Reduction(Layer):
    """Sum, sum of magnitudes, sum of squares or mean over all axes from `axis` on, times coeff.
    The top has the axes before.
    """

    reads = ("reduction_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = tuple(shapes[0])
        return [shape[: self.axis(self.layer_param.reduction_param.axis, shape)]]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p, ops = self.layer_param.reduction_param, pb.ReductionParameter
        x = bottom[0].flatten(self.axis(p.axis, tuple(bottom[0].shape)))
        if p.operation == ops.ASUM:
            x = x.abs()
        elif p.operation == ops.SUMSQ:
            x = x.square()
        total = x.mean(-1) if p.operation == ops.MEAN else x.sum(-1)
        return total if p.coeff == 1 else total * p.coeff

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p, ops = self.layer_param.reduction_param, pb.ReductionParameter
        (x,) = bottoms
        axis = self.axis(p.axis, x.shape)
        # As one axis: OpenCV's classic engine is wrong about several.
        flat = graph.reshape(x, (*x.shape[:axis], -1), keeps_batch=axis > 0)
        if p.operation == ops.SUM:  # takes its axes as an input in opset 17, the others do not
            y = graph.add("ReduceSum", flat, graph.constant([axis], np.int64), keepdims=0)
        else:
            op = {ops.MEAN: "ReduceMean", ops.ASUM: "ReduceL1", ops.SUMSQ: "ReduceSumSquare"}
            y = graph.add(op[p.operation], flat, axes=[axis], keepdims=0)
        return graph.affine(y, p.coeff, 0)


@register("BatchReduction")
class BatchReduction(Layer):
    """Sum or mean along one axis, of all of it, or of parts of level^2 each, one behind the other.

    The axis is reduction_param.axis. With the one level 1, its default, the axis goes; else it
    becomes one of a value for each level. `pos`, with one level, reduces an axis of level^2
    parts of which part t is seen through place t of the next axis, which goes as well
    (TSN's batch_reduction_layer.cpp).
    """

    fork = "TSN"
    judge = "recorded"
    reads = ("batch_reduction_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p = self.layer_param.batch_reduction_param
        self.levels = list(p.level) or [1]
        self.check(min(self.levels) > 0, f"levels are {self.levels}, expected positive numbers")
        self.check(not p.pos or len(self.levels) == 1, "pos needs one level")
        ops = pb.ReductionParameter
        known = {ops.SUM, ops.MEAN}
        self.check(p.reduction_param.operation in known, "operation must be SUM or MEAN")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p, shape = self.layer_param.batch_reduction_param, tuple(shapes[0])
        axis = self.axis(p.reduction_param.axis, shape)
        behind = shape[axis + 1 :]
        parts = self._parts(shape)
        self.check(
            sum(parts) == shape[axis],
            f"axis {axis} of bottom {shape} has {shape[axis]} places, expected {sum(parts)} for "
            f"the levels {self.levels}",
        )
        if p.pos:
            self.check(
                len(behind) > 0 and behind[0] == shape[axis],
                f"bottom has the shape {shape}, expected equal axes {axis} and {axis + 1} for pos",
            )
            behind = behind[1:]
        kept = () if self.levels == [1] else (len(self.levels),)
        return [(*shape[:axis], *kept, *behind)]

    def _parts(self, shape: Shape) -> list[int]:
        """How many places each level takes of the axis."""
        if self.levels == [1]:
            axis = self.layer_param.batch_reduction_param.reduction_param.axis
            return [shape[self.axis(axis, shape)]]
        return [level**2 for level in self.levels]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p, x = self.layer_param.batch_reduction_param, bottom[0]
        (shape,) = self.top_shapes(bottom)
        axis = self.axis(p.reduction_param.axis, tuple(x.shape))
        parts = self._parts(tuple(x.shape))
        if p.pos:
            x = x.diagonal(0, axis, axis + 1).movedim(-1, axis)
        means = p.reduction_param.operation == pb.ReductionParameter.MEAN
        sums = [part.mean(axis) if means else part.sum(axis) for part in x.split(parts, axis)]
        return torch.stack(sums, axis).reshape(shape)


@register("Softmax")
class Softmax(Layer):
    """e^x / sum e^x along an axis."""

    reads = ("softmax_param",)
    differs = ENGINE
    look = OUTPUT

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        shape = tuple(shapes[0])
        self.axis(self.layer_param.softmax_param.axis, shape)
        return [shape]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        axis = self.axis(self.layer_param.softmax_param.axis, tuple(bottom[0].shape))
        return bottom[0].softmax(axis)

    def onnx(self, graph: Graph, x: Value) -> str:
        return graph.softmax(x, self.layer_param.softmax_param.axis)


@register("ArgMax")
class ArgMax(Layer):
    """The places (and values) of the top_k largest; among equals the highest place comes first.

    With `axis`, each line of values along it has its own, and the axis becomes one of top_k places,
    or values with out_max_val. Without, each sample of a bottom (N, ...) has its own, and the top
    is (N, 1, top_k, 1, ...), or (N, 2, top_k, 1, ...) with the values behind the places.
    """

    labels = (0,)
    reads = ("argmax_param",)
    look = OUTPUT

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p, shape = self.layer_param.argmax_param, tuple(shapes[0])
        axis = self.axis(p.axis if p.HasField("axis") else 0, shape)
        extent = shape[axis] if p.HasField("axis") else math.prod(shape[1:])
        self.check(
            1 <= p.top_k <= extent, f"top_k is {p.top_k}, expected 1 to {extent}, the values"
        )
        if p.HasField("axis"):
            return [resized(shape, axis, p.top_k)]
        # Caffe keeps the bottom's number of axes, from 3 on.
        return [(shape[0], 2 if p.out_max_val else 1, p.top_k, *[1] * (len(shape) - 3))]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        p = self.layer_param.argmax_param
        x, (shape,) = bottom[0], self.top_shapes(bottom)
        if p.HasField("axis"):
            place, value = self._largest(x, p.axis % x.dim(), p.top_k)
            return value if p.out_max_val else place
        flat = x.reshape(x.shape[0], 1, math.prod(x.shape[1:]))
        place, value = self._largest(flat, 2, p.top_k)
        top = torch.cat([place, value], 1) if p.out_max_val else place
        return top.reshape(shape)

    @staticmethod
    def _largest(x: torch.Tensor, axis: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
        flipped = x.flip(axis)  # torch finds the first of equals, Caffe the last
        if k == 1:
            index = flipped.argmax(axis, keepdim=True)
            value = flipped.gather(axis, index)
        else:
            value, index = flipped.sort(dim=axis, descending=True, stable=True)
            value, index = value.narrow(axis, 0, k), index.narrow(axis, 0, k)
        return (x.shape[axis] - 1 - index).to(x.dtype), value

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        p, (x,) = self.layer_param.argmax_param, bottoms
        if p.HasField("axis"):
            place, value = self._write_largest(graph, x, self.axis(p.axis, x.shape))
            return value if p.out_max_val else place
        flat = (x.shape[0], 1, math.prod(x.shape[1:]))
        place, value = self._write_largest(graph, Value(graph.reshape(x, flat), flat), 2)
        top = graph.add("Concat", place, value, axis=1) if p.out_max_val else place
        return graph.reshape(top, *self.infer_shapes([x.shape]))

    def _write_largest(self, graph: Graph, x: Value, axis: int) -> tuple[str, str]:
        """Write _largest; returns the names of the places and the values."""
        k, extent = self.layer_param.argmax_param.top_k, x.shape[axis]
        if k == 1:
            place = graph.add("ArgMax", x, axis=axis, keepdims=1, select_last_index=1)
            return graph.to_float(place), graph.add("ReduceMax", x, axes=[axis], keepdims=1)
        backwards = graph.constant(range(extent - 1, -1, -1), np.int64)
        flipped = graph.add("Gather", x, backwards, axis=axis)
        count = graph.constant([k], np.int64)
        value, place = graph.add("TopK", flipped, count, outputs=2, axis=axis)
        return graph.affine(graph.add("Neg", graph.to_float(place)), 1, extent - 1), value

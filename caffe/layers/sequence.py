"""Sequences in forks' nets: Lstm, and layers that turn, reverse and mark them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, can_look, register, with_gradient_of
from caffe.layers.states import KeepsStates
from caffe.process.device import current_device


class _BoundGradient(torch.autograd.Function):
    """The value itself; its gradient within -limit and limit."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, limit: float) -> torch.Tensor:
        ctx.limit = limit
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad.clamp(-ctx.limit, ctx.limit), None


@register("Lstm")
class Lstm(KeepsStates):
    """Long short-term memory with gates i f o g, over whole sequences (lstm_layer.cu).

    CTPN's takes x (T, N, ...) and gives (T, N, D). caffe-lstm's (junhyukoh), meant where batch_size
    is set or x has two axes, takes the steps of N = batch_size streams one after another, (T N,
    ...), and gives (T N, D). Optional second bottom: an indicator (T N) for each step, 0 where a
    sequence begins; then a batch goes on from the states of the one before, else each batch begins
    from zeros. As in both forks, the indicator of step t and stream n is number t + n.
    Blobs: W_i (4 D, inputs), W_h (4 D, D), b (4 D).
    """

    bottoms = (1, 2)
    labels = (1,)
    fork = "CTPN, caffe-lstm"
    differs = "As the forks' GPU code; their CPU code gives all streams the first one's recurrence."
    judge = "recorded"
    reads = ("lstm_param",)

    def setup(self, shapes: Sequence[Shape]) -> None:
        p, shape = self.layer_param.lstm_param, shapes[0]
        self.size = p.num_output
        self.check(self.size > 0, "num_output must be positive")
        self.check(p.batch_size > 0, "batch_size must be positive")
        self.check(
            p.clipping_threshold >= 0,
            f"clipping_threshold is {p.clipping_threshold:g}, expected at least 0",
        )
        self.check(
            len(shape) >= 2, f"bottom 0 has the shape {shape}, expected at least steps and values"
        )
        self.flat = p.HasField("batch_size") or len(shape) == 2
        self.inputs = math.prod(shape[1 if self.flat else 2 :])
        self.add_blob((4 * self.size, self.inputs), p.weight_filler)
        self.add_blob((4 * self.size, self.size), p.weight_filler)
        self.add_blob((4 * self.size,), p.bias_filler)

    def _counts(self, shape: Shape) -> tuple[int, int]:
        """The numbers of steps and streams."""
        if not self.flat:
            return shape[0], shape[1]
        streams = self.layer_param.lstm_param.batch_size
        return shape[0] // streams, streams

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        x, streams = shapes[0], self.layer_param.lstm_param.batch_size
        lead = 1 if self.flat else 2
        self.check(
            len(x) >= lead and x[0] > 0 and math.prod(x[lead:]) == self.inputs,
            f"bottom 0 has the shape {x}, expected at least one step, and {self.inputs} values "
            "for each stream",
        )
        self.check(
            not self.flat or x[0] % streams == 0,
            f"bottom 0 has the shape {x}, expected a multiple of batch_size, {streams}, first",
        )
        steps, streams = self._counts(x)
        self.check(
            len(shapes) == 1 or math.prod(shapes[1]) == steps * streams,
            f"indicators (bottom 1) have the shape {shapes[-1]}, expected {steps * streams} values",
        )
        return [(x[0], self.size) if self.flat else (steps, streams, self.size)]

    def macs(self, shapes: Sequence[Shape]) -> int:
        steps, streams = self._counts(shapes[0])
        return 4 * steps * streams * self.size * (self.inputs + self.size)

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        (top,) = self.top_shapes(bottom)
        steps, streams = self._counts(tuple(bottom[0].shape))
        weight, recurrent, bias = blobs
        x = bottom[0].reshape(steps * streams, self.inputs)
        gates = (x @ weight.t() + bias).view(steps, streams, 4 * self.size)
        goes_on = self._continues(bottom, steps, streams)
        hidden, cell = self._initial(bottom, streams)
        tops = []
        for t in range(steps):
            gate = gates[t] + self._recur(hidden, recurrent, goes_on[t], first=t == 0)
            if limit := self.layer_param.lstm_param.clipping_threshold:
                gate = _BoundGradient.apply(gate, limit)
            i, f, o, g = gate.chunk(4, 1)
            cell = goes_on[t] * f.sigmoid() * cell + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            tops.append(hidden)
        if len(bottom) > 1 and can_look(x):
            self.keep_states(hidden, cell)
        return torch.stack(tops).view(top)

    def _recur(
        self, hidden: torch.Tensor, weight: torch.Tensor, goes_on: torch.Tensor, first: bool
    ) -> torch.Tensor:
        """The hidden state's share of the gates (N, 4 D), zero where a sequence begins.

        The fork's gradient of the weight does not ask whether a sequence goes on, and takes the
        state before the first step of the first stream only.
        """
        value = goes_on * (hidden @ weight.t())
        before = hidden.detach()
        if first:
            before = torch.cat([before[:1], torch.zeros_like(before[1:])])
        stand_in = goes_on * (hidden @ weight.detach().t()) + before @ weight.t()
        return with_gradient_of(value, stand_in)

    def _continues(self, bottom: Tensors, steps: int, streams: int) -> torch.Tensor:
        """(T, N, 1): 0 where a sequence begins, else 1."""
        x = bottom[0]
        place = torch.arange(steps, device=x.device)[:, None].expand(steps, streams)
        if len(bottom) == 1:
            return (place > 0).to(x.dtype)[..., None]
        place = place + torch.arange(streams, device=x.device)
        return bottom[1].detach().flatten()[place].to(x.dtype)[..., None]

    def _initial(self, bottom: Tensors, streams: int) -> list[torch.Tensor]:
        """The states before the first step, each (N, D)."""
        shape = (streams, self.size)
        if len(bottom) > 1:
            return self.kept_states(bottom[0], shape)
        return [bottom[0].new_zeros(shape)] * 2

    def onnx(self, graph: Graph, x: Value, *indicators: Value) -> Names:
        """ONNX's LSTM, whose gates are i o f g."""
        self.check(not indicators, "has no ONNX form with sequence indicators")
        self.check(
            not (self.flat and graph.dynamic_batch),
            "its steps are one axis with its streams, "
            "so that the batch has no ONNX form with an open size",
        )
        steps, streams = self._counts(x.shape)
        parts = [self.array(i).reshape(4, self.size, -1)[[0, 2, 1, 3]] for i in range(3)]
        weight, recurrent, bias = (part.reshape(1, 4 * self.size, -1) for part in parts)
        both = np.concatenate([bias[..., 0], np.zeros_like(bias[..., 0])], 1)
        sequence = graph.reshape(x, (steps, streams, self.inputs), keeps_batch=False)
        y, _, _ = graph.add(
            "LSTM",
            sequence,
            *(graph.constant(values) for values in (weight, recurrent, both)),
            outputs=3,
            hidden_size=self.size,
        )
        (top,) = self.infer_shapes([x.shape])
        return graph.reshape(y, top, keeps_batch=False)


@register("Reverse")
class Reverse(Layer):
    """The bottom with one axis from its end to its start (reverse_layer.cpp)."""

    fork = "CTPN, TextBoxes++"
    judge = "recorded"
    in_place = False
    bounded = True
    reads = ("reverse_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        axis = self.layer_param.reverse_param.axis
        self.check(axis >= 0, f"axis is {axis}, expected at least 0")
        self.axis(axis, shapes[0])
        return [tuple(shapes[0])]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        return bottom[0].flip(self.layer_param.reverse_param.axis)

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        axis = self.layer_param.reverse_param.axis
        values = ([-1], [np.iinfo(np.int64).min], [axis], [-1])
        return graph.add("Slice", bottoms[0], *(graph.constant(v, np.int64) for v in values))


@register("ReverseTime")
class ReverseTime(Layer):
    """Each stream's steps from the last to the first (reverse_time_layer.cpp).

    Bottoms: x (T, N, ...); the number of steps of each stream (N). Top: as x; the steps behind a
    stream's end are copied with copy_remaining, and zero without.
    """

    bottoms = (2, 2)
    labels = (1,)
    fork = "caffe_ocr"
    judge = "recorded"
    in_place = False
    bounded = True
    reads = ("reverse_time_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        x, lengths = shapes
        self.check(
            len(x) >= 2 and lengths == x[1:2],
            f"bottoms have the shapes {x} and {lengths}, expected (T, N, ...) and (N)",
        )
        return [tuple(x)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        x, lengths = bottom[0], bottom[1].detach().long()
        self.check_range(lengths, x.shape[0] + 1, "number of steps")
        step = torch.arange(x.shape[0], device=x.device)[:, None]
        inside = step < lengths
        place = torch.where(inside, lengths - 1 - step, step)
        view = (...,) + (None,) * (x.dim() - 2)
        top = x.gather(0, place[view].expand_as(x))
        if self.layer_param.reverse_time_param.copy_remaining:
            return top
        return torch.where(inside[view], top, 0)

    def onnx(self, graph: Graph, x: Value, lengths: Value) -> Names:
        count = graph.to_int(lengths)
        top = graph.add("ReverseSequence", x, count, time_axis=0, batch_axis=1)
        if self.layer_param.reverse_time_param.copy_remaining:
            return top
        step = graph.constant(np.arange(x.shape[0])[:, None], np.int64)
        inside = graph.add("Less", step, count)
        if more := list(range(2, len(x.shape))):
            inside = graph.add("Unsqueeze", inside, graph.constant(more, np.int64))
        return graph.add("Where", inside, top, graph.constant(0.0))


@register("Transpose")
class Transpose(Layer):
    """The bottom with its axes in another order: axis i of the top is the bottom's `dim` number i
    (transpose_layer.cpp).
    """

    fork = "CTPN"
    judge = "recorded"
    in_place = False
    bounded = True
    reads = ("transpose_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        (shape,), order = shapes, list(self.layer_param.transpose_param.dim)
        self.check(
            sorted(order) == list(range(len(shape))),
            f"dim is {order}, expected each of the axes of the bottom {shape} once",
        )
        return [tuple(shape[axis] for axis in order)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        self.top_shapes(bottom)
        return bottom[0].permute(*self.layer_param.transpose_param.dim).contiguous()

    def takes_bfloat16(self) -> bool:
        return True

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        order = list(self.layer_param.transpose_param.dim)
        self.check(
            not graph.dynamic_batch or order[:1] in ([], [0]),
            "moves the batch, whose size cannot be free in ONNX then",
        )
        return graph.add("Transpose", bottoms[0], perm=order)


@register("ContinuationIndicator")
class ContinuationIndicator(Layer):
    """The sequence indicators of whole sequences: (T, N), 0 in the first step, else 1
    (continuation_indicator_layer.cpp).
    """

    bottoms = (0, 0)
    fork = "warpctc-caffe"
    judge = "recorded"
    reads = ("continuation_indicator_param",)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        p = self.layer_param.continuation_indicator_param
        self.check(
            p.time_step > 0 and p.batch_size > 0,
            f"time_step and batch_size are {p.time_step} and {p.batch_size}, not positive",
        )
        return [(p.time_step, p.batch_size)]

    def forward(self, bottom: Tensors, blobs: Tensors) -> torch.Tensor:
        top = torch.ones(self.infer_shapes([])[0], device=current_device())
        top[0] = 0
        return top

    def onnx(self, graph: Graph, *bottoms: Value) -> Names:
        values = np.ones(self.infer_shapes([])[0])
        values[0] = 0
        return graph.constant(values)

"""Layers that step through time: RNN, LSTM, and LSTM's unit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.layers.base import Layer, Shape, Tensors, can_look, register, with_gradient_of
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb


@register("LSTMUnit")
class LSTMUnit(Layer):
    """One step of an LSTM: from the cell's state (1, N, D), the gates' inputs i f o g (1, N, 4 D)
    and the sequence indicator (1, N) to the new state and the output.

    Tops: both (1, N, D) (lstm_unit_layer.cpp).
    """

    bottoms = (3, 3)
    tops = (2, 2)
    labels = (2,)

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        state, gates, cont = shapes
        self.check(
            len(state) == 3
            and state[0] == 1
            and gates == (*state[:2], 4 * state[2])
            and cont == state[:2],
            f"bottoms have the shapes {', '.join(map(str, shapes))}, expected (1, N, D), "
            "(1, N, 4 D) and (1, N)",
        )
        return [state, state]

    def choices(self, index: int, shapes: Sequence[Shape]) -> int:
        return 2 if index == 2 else 0

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        return lstm_step(*bottom)

    def onnx(self, graph: Graph, state: Value, gates: Value, cont: Value) -> Names:
        keep = graph.add("Unsqueeze", cont, graph.constant([2], np.int64))
        return onnx_lstm_step(graph, state.name, gates.name, keep)


def lstm_step(
    state: torch.Tensor, gates: torch.Tensor, cont: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """New state and output, both (..., D), from state (..., D), gates (..., 4 D) and cont (...)."""
    i, f, o, g = gates.chunk(4, -1)
    keep = cont.detach()[..., None] * f.sigmoid()
    # Where cont is 0 a sequence begins. Elsewhere Caffe's gradient treats cont * sigmoid(f) as if
    # it were the sigmoid itself.
    keep = with_gradient_of(keep, f * (keep * (1 - keep)).detach())
    new = keep * state + i.sigmoid() * g.tanh()
    return new, o.sigmoid() * new.tanh()


def onnx_lstm_step(graph: Graph, state: str, gates: str, keep: str) -> tuple[str, str]:
    """lstm_step in ONNX: state (1, N, D), gates (1, N, 4 D), keep (1, N, 1), 0 where a sequence
    begins.
    """
    i, f, o, g = graph.add("Split", gates, outputs=4, axis=2)
    i, f, o = (graph.add("Sigmoid", gate) for gate in (i, f, o))
    kept = graph.add("Mul", graph.add("Mul", keep, f), state)
    new = graph.add("Add", kept, graph.add("Mul", i, graph.tanh(g)))
    return new, graph.add("Mul", o, graph.tanh(new))


class _Recurrent(Layer):
    """A layer that steps through sequences: RNN or LSTM (recurrent_layer.cpp).

    Bottoms: x (T, N, ...); sequence indicators (T, N), 0 where a sequence begins; optionally a
    static input (N, ...); with expose_hidden the initial states, each (1, N, D). Tops: the outputs
    (T, N, D); with expose_hidden the final states, each (1, N, D). Without expose_hidden a layer
    keeps its final states for the next batch.
    """

    states = 0
    bottoms = (2, None)
    tops = (1, None)
    labels = (1,)
    reads = ("recurrent_param",)
    differs = "`debug_info` is accepted and without effect: there is no inner net to look into."

    def __init__(self, param: pb.LayerParameter) -> None:
        super().__init__(param)
        p = param.recurrent_param
        self.exposed = self.states if p.expose_hidden else 0
        self.bottoms = (2 + self.exposed, 3 + self.exposed)
        self.tops = (1 + self.exposed, 1 + self.exposed)
        self.size = p.num_output
        self._kept: list[torch.Tensor] = []
        self._kept_before: list[torch.Tensor] = []

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.check(self.size > 0, "num_output must be positive")
        self.static = len(shapes) > 2 + self.exposed
        self.check(
            len(shapes[0]) >= 3,
            f"bottom 0 has the shape {shapes[0]}, expected (steps, streams, values ...)",
        )
        self.steps, streams = shapes[0][:2]
        self.check(
            self.steps > 0, f"bottom 0 has the shape {shapes[0]}, expected at least one step"
        )
        emit(
            "recurrent_layer.cpp:20",
            "Initializing recurrent layer: assuming input batch contains "
            f"{self.steps} timesteps of {streams} independent streams.",
        )
        # Values of each stream: in a step of x, and in the static input.
        self.inputs = math.prod(shapes[0][2:])
        self.static_inputs = math.prod(shapes[2][1:]) if self.static else 0
        self.infer_shapes(shapes)
        self.make_blobs()

    def make_blobs(self) -> None:
        """Declare the parameters in the order of Caffe's unrolled net."""
        raise AssertionError("set by the subclass")

    def add_transform(self, name: str, outputs: int, inputs: int, bias: str = "") -> None:
        """Declare a weight, and a bias if it has a name; Caffe's log shows both names."""
        p = self.layer_param.recurrent_param
        for blob, shape, filler in (
            (name, (outputs, inputs), p.weight_filler),
            (bias, (outputs,), p.bias_filler),
        ):
            if blob:
                number = len(self.blobs)
                self.add_blob(shape, filler)
                emit("recurrent_layer.cpp:150", f"Adding parameter {number}: {blob}")

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        x, cont = shapes[:2]
        self.check(
            len(x) >= 3 and x[0] == self.steps,
            f"bottom 0 has the shape {x}, expected {self.steps} steps as at the start",
        )
        streams = x[1]
        self.check(
            cont == x[:2],
            f"sequence indicators (bottom 1) have the shape {cont}, expected {x[:2]}, one for each "
            "step and stream",
        )
        if self.static:
            self.check(
                len(shapes[2]) >= 2 and shapes[2][0] == streams,
                f"static input (bottom 2) has the shape {shapes[2]}, expected ({streams}, values)",
            )
            self._check_values(2, shapes[2], math.prod(shapes[2][1:]), self.static_inputs)
        self._check_values(0, x, math.prod(x[2:]), self.inputs)
        state = (1, streams, self.size)
        for i in range(2 + self.static, len(shapes)):
            self.check(
                shapes[i] == state,
                f"initial state (bottom {i}) has the shape {shapes[i]}, expected {state}",
            )
        return [(self.steps, streams, self.size), *[state] * self.exposed]

    def _check_values(self, bottom: int, shape: Shape, values: int, expected: int) -> None:
        """Refuse streams with another number of values than the weights take."""
        self.check(
            values == expected,
            f"bottom {bottom} has the shape {shape}, expected {expected} values a stream as at the "
            "start",
        )

    def macs(self, shapes: Sequence[Shape]) -> int:
        steps, streams = shapes[0][:2]
        weights = [(i, math.prod(b.shape)) for i, b in enumerate(self.blobs) if len(b.shape) == 2]
        # The static input is multiplied once for all steps.
        return streams * sum(n if self.static and i == 2 else steps * n for i, n in weights)

    def choices(self, index: int, shapes: Sequence[Shape]) -> int:
        return 2 if index == 1 else 0

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self.top_shapes(bottom)
        x, cont = bottom[0], bottom[1].detach()
        states = self._initial(bottom)
        given = iter(blobs)
        # One product for all steps of x, and one for the static input.
        gates = x.flatten(2) @ next(given).t() + next(given)
        if self.static:
            gates = gates + bottom[2].flatten(1) @ next(given).t()
        top, states = self.run(gates, cont, states, list(given))
        final = [s.detach()[None] for s in states]
        if self.exposed:
            return [top, *final]  # Caffe does not carry gradients into or out of exposed states
        if can_look(x):
            self._kept_before, self._kept = self._kept, final
        return [top]

    def run(
        self, gates: torch.Tensor, cont: torch.Tensor, states: list[torch.Tensor], blobs: Tensors
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Run all steps; returns the outputs (T, N, D) and the final states, each (N, D).

        gates (T, N, ...): the input's share of the gates. states: the initial ones, each (N, D).
        blobs: the parameters after those that made `gates`.
        """
        raise AssertionError("set by the subclass")

    def reset(self) -> None:
        """Forget the states: the next batch starts from zeros."""
        self._kept = []

    def record(self, inputs: Tensors) -> Tensors:
        """Run the last batch again: from the states that it started with."""
        kept, self._kept = self._kept, self._kept_before
        tops = super().record(inputs)
        self._kept = kept
        return tops

    def _initial(self, bottom: Tensors) -> list[torch.Tensor]:
        """The states before the first step: given, kept from the batch before, or zeros."""
        shape = (1, bottom[0].shape[1], self.size)
        if self.exposed:
            return [x.detach()[0] for x in bottom[-self.exposed :]]
        fits = self._kept and self._kept[0].shape == shape
        kept = self._kept if fits else [bottom[0].new_zeros(shape)] * self.states
        return [s.to(bottom[0])[0] for s in kept]


class _OnnxSteps:
    """A sequence taken apart in ONNX, which Caffe, too, unrolls into single steps.

    Iterating gives, for each step, the input's share of the gates (1, N, ...) and keep (1, N, 1),
    0 where a sequence begins.
    """

    def __init__(
        self, graph: Graph, layer: _Recurrent, x: Value, cont: Value, others: Sequence[Value]
    ) -> None:
        layer.check(
            not graph.dynamic_batch, "its steps are written out: their number cannot be free"
        )
        self.graph, self.layer, self.used = graph, layer, 0
        flat = graph.reshape(x, (*x.shape[:2], math.prod(x.shape[2:])))
        gates = graph.add("MatMul", flat, self.weight())
        gates = graph.add("Add", gates, self.bias())
        if layer.static:
            still = graph.reshape(others[0], (1, x.shape[1], math.prod(others[0].shape[1:])))
            gates = graph.add("Add", gates, graph.add("MatMul", still, self.weight()))
        self.initial = others[1:] if layer.static else others
        keep = graph.add("Unsqueeze", cont, graph.constant([2], np.int64))
        self.parts = [self._split(gates), self._split(keep)]

    def weight(self) -> str:
        """The next parameter, transposed."""
        index, self.used = self.used, self.used + 1
        return self.graph.constant(self.layer.array(index).T, name=f"{self.layer.name}.{index}")

    def bias(self) -> str:
        """The next parameter as it is."""
        index, self.used = self.used, self.used + 1
        return self.graph.blob(self.layer, index)

    def states(self) -> list[str]:
        """The states before the first step: those given, or zeros."""
        if self.initial:
            return [state.name for state in self.initial]
        zeros = np.zeros((1, 1, self.layer.size))
        return [self.graph.constant(zeros) for _ in range(self.layer.states)]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return zip(*self.parts, strict=True)

    def _split(self, values: str) -> list[str]:
        parts = self.graph.add("Split", values, outputs=self.layer.steps, axis=0)
        return [parts] if self.layer.steps == 1 else parts


@register("RNN")
class RNN(_Recurrent):
    """h_t = tanh(W_hh h_t-1 + W_xh x_t + b_h), o_t = tanh(W_ho h_t + b_o).

    Blobs: W_xh (D, inputs), b_h (D), W_xh_static (D, static inputs) if there is a static input,
    W_hh (D, D), W_ho (D, D), b_o (D) (rnn_layer.cpp).
    """

    states = 1

    def make_blobs(self) -> None:
        self.add_transform("W_xh", self.size, self.inputs, "b_h")
        if self.static:
            self.add_transform("W_xh_static", self.size, self.static_inputs)
        self.add_transform("W_hh", self.size, self.size)
        self.add_transform("W_ho", self.size, self.size, "b_o")

    def run(
        self, gates: torch.Tensor, cont: torch.Tensor, states: list[torch.Tensor], blobs: Tensors
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        recurrent, out, bias = blobs
        hidden, steps = states[0], []
        for t in range(self.steps):
            hidden = ((cont[t][:, None] * hidden) @ recurrent.t() + gates[t]).tanh()
            steps.append(hidden)
        return (torch.stack(steps) @ out.t() + bias).tanh(), [hidden]

    def onnx(self, graph: Graph, x: Value, cont: Value, *others: Value) -> Names:
        steps = _OnnxSteps(graph, self, x, cont, others)
        recurrent, out, bias = steps.weight(), steps.weight(), steps.bias()
        (hidden,), tops = steps.states(), []
        for gates, keep in steps:
            kept = graph.add("MatMul", graph.add("Mul", keep, hidden), recurrent)
            hidden = graph.tanh(graph.add("Add", kept, gates))
            tops.append(hidden)
        y = graph.add("MatMul", graph.add("Concat", *tops, axis=0), out)
        return [graph.tanh(graph.add("Add", y, bias)), hidden][: self.num_tops]


@register("LSTM")
class LSTM(_Recurrent):
    """Long short-term memory with gates i f o g (Donahue et al., 2015, after Zaremba).

    Blobs: W_xc (4 D, inputs), b_c (4 D), W_xc_static (4 D, static inputs) if there is a static
    input, W_hc (4 D, D). States: h, c (lstm_layer.cpp).
    """

    states = 2

    def make_blobs(self) -> None:
        self.add_transform("W_xc", 4 * self.size, self.inputs, "b_c")
        if self.static:
            self.add_transform("W_xc_static", 4 * self.size, self.static_inputs)
        self.add_transform("W_hc", 4 * self.size, self.size)

    def run(
        self, gates: torch.Tensor, cont: torch.Tensor, states: list[torch.Tensor], blobs: Tensors
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        (recurrent,) = blobs
        (hidden, cell), steps = states, []
        for t in range(self.steps):
            gate = (cont[t][:, None] * hidden) @ recurrent.t() + gates[t]
            cell, hidden = lstm_step(cell, gate, cont[t])
            steps.append(hidden)
        return torch.stack(steps), [hidden, cell]

    def onnx(self, graph: Graph, x: Value, cont: Value, *others: Value) -> Names:
        steps = _OnnxSteps(graph, self, x, cont, others)
        recurrent = steps.weight()
        (hidden, cell), tops = steps.states(), []
        for gates, keep in steps:
            kept = graph.add("MatMul", graph.add("Mul", keep, hidden), recurrent)
            cell, hidden = onnx_lstm_step(graph, cell, graph.add("Add", kept, gates), keep)
            tops.append(hidden)
        return [graph.add("Concat", *tops, axis=0), hidden, cell][: self.num_tops]

"""Layers that step through time: RNN, LSTM, and LSTM's unit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caffe.layers.base import Layer, Shape, Tensors, can_look, register, with_gradient_of
from caffe.process.log import emit
from caffe.proto import caffe_pb2 as pb


@register("LSTMUnit")
class LSTMUnit(Layer):
    """One step of an LSTM: from the cell's state (1, N, D), the gates' inputs i f o g (1, N, 4 D)
    and the sequence indicator (1, N) to the new state and the output.
    """

    bottoms = (3, 3)
    tops = (2, 2)
    labels = (2,)

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        state, gates, cont = bottom
        shapes = ", ".join(str(tuple(x.shape)) for x in bottom)
        self.check(
            state.dim() == 3
            and state.shape[0] == 1
            and gates.shape == (*state.shape[:2], 4 * state.shape[2])
            and cont.shape == state.shape[:2],
            f"bottoms have the shapes {shapes}, expected (1, N, D), (1, N, 4 D) and (1, N)",
        )
        return lstm_step(state, gates, cont)


def lstm_step(
    state: torch.Tensor, gates: torch.Tensor, cont: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """New state and output from state (..., D), gates (..., 4 D) and cont (...)."""
    i, f, o, g = gates.chunk(4, -1)
    keep = cont.detach()[..., None] * f.sigmoid()
    # cont 0 cuts a sequence off. Elsewhere Caffe's gradient takes cont and gate for one gate.
    keep = with_gradient_of(keep, f * (keep * (1 - keep)).detach())
    new = keep * state + i.sigmoid() * g.tanh()
    return new, o.sigmoid() * new.tanh()


class _Recurrent(Layer):
    """What RNN and LSTM share (recurrent_layer.cpp).

    Bottoms: x (T, N, ...), sequence indicators (T, N), 0 where a sequence begins; perhaps a static
    input (N, ...); with expose_hidden the initial states, each (1, N, D). Tops: the outputs
    (T, N, D); with expose_hidden the final states. Without it a layer keeps its final states for
    the next batch.
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
        p = self.layer_param.recurrent_param
        self.check(p.num_output > 0, "num_output must be positive")
        self.static = len(shapes) > 2 + self.exposed
        self.check(
            len(shapes[0]) >= 3,
            f"bottom 0 has the shape {shapes[0]}, expected (steps, streams, values ...)",
        )
        self.steps, streams = shapes[0][:2]
        emit(
            "recurrent_layer.cpp:20",
            "Initializing recurrent layer: assuming input batch contains "
            f"{self.steps} timesteps of {streams} independent streams.",
        )
        self._check_shapes(shapes)
        inputs = math.prod(shapes[0][2:])
        self.make_blobs(inputs, math.prod(shapes[2][1:]) if self.static else None)

    def make_blobs(self, inputs: int, static: int | None) -> None:
        """The parameters in the order of Caffe's unrolled net."""
        raise AssertionError("set by the subclass")

    def add_transform(self, name: str, outputs: int, inputs: int, bias: str = "") -> None:
        """A weight and perhaps a bias, under the names that Caffe's log gives them."""
        p = self.layer_param.recurrent_param
        for blob, shape, filler in (
            (name, (outputs, inputs), p.weight_filler),
            (bias, (outputs,), p.bias_filler),
        ):
            if blob:
                number = len(self.blobs)
                self.add_blob(shape, filler)
                emit("recurrent_layer.cpp:150", f"Adding parameter {number}: {blob}")

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        self._check_shapes([tuple(x.shape) for x in bottom])
        x, cont = bottom[0], bottom[1].detach()
        states = self._initial(bottom)
        given = iter(blobs)
        # All steps of the input, and the static one for every step, through one product each.
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
        """All steps: the tops (T, N, D) and the final states, each (N, D)."""
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
        shape = (1, bottom[0].shape[1], self.size)
        if self.exposed:
            return [x.detach()[0] for x in bottom[-self.exposed :]]
        fits = self._kept and self._kept[0].shape == shape and not bottom[0].is_meta
        kept = self._kept if fits else [bottom[0].new_zeros(shape)] * self.states
        return [s.to(bottom[0])[0] for s in kept]

    def _check_shapes(self, shapes: Sequence[Shape]) -> None:
        self.check(
            len(shapes[0]) >= 3 and shapes[0][0] == self.steps,
            f"bottom 0 has the shape {shapes[0]}, expected {self.steps} steps as at the start",
        )
        streams = shapes[0][1]
        self.check(
            shapes[1] == shapes[0][:2],
            f"sequence indicators (bottom 1) have the shape {shapes[1]}, expected "
            f"{shapes[0][:2]}, one for each step and stream",
        )
        if self.static:
            self.check(
                len(shapes[2]) >= 2 and shapes[2][0] == streams,
                f"static input (bottom 2) has the shape {shapes[2]}, expected ({streams}, values)",
            )
        for i in range(2 + self.static, len(shapes)):
            self.check(
                shapes[i] == (1, streams, self.size),
                f"initial state (bottom {i}) has the shape {shapes[i]}, expected "
                f"{(1, streams, self.size)}",
            )


@register("RNN")
class RNN(_Recurrent):
    """h_t = tanh(W_hh h_t-1 + W_xh x_t + b_h), o_t = tanh(W_ho h_t + b_o).

    Blobs: W_xh, b_h, (W_xh_static,) W_hh, W_ho, b_o.
    """

    states = 1

    def make_blobs(self, inputs: int, static: int | None) -> None:
        self.add_transform("W_xh", self.size, inputs, "b_h")
        if static is not None:
            self.add_transform("W_xh_static", self.size, static)
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


@register("LSTM")
class LSTM(_Recurrent):
    """Long short-term memory with gates i f o g (Donahue et al., 2015, after Zaremba).

    Blobs: W_xc, b_c, (W_xc_static,) W_hc, each of 4 D rows. States: h, c.
    """

    states = 2

    def make_blobs(self, inputs: int, static: int | None) -> None:
        self.add_transform("W_xc", 4 * self.size, inputs, "b_c")
        if static is not None:
            self.add_transform("W_xc_static", 4 * self.size, static)
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

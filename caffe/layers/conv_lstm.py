"""ConvLSTM: long short-term memory whose states are images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import numpy as np
import torch

from caffe.formats.onnx import Graph, Names, Value
from caffe.kernels.geometry import Geometry, convolve
from caffe.layers.base import Layer, Shape, Tensors, can_look, register, with_gradient_of
from caffe.layers.states import KeepsStates
from caffe.proto import caffe_pb2 as pb


class _Kernel:
    """One convolution over images (N, C, H, W), as an LSTMConvolutionParameter describes it."""

    def __init__(self, layer: Layer, param: pb.LSTMConvolutionParameter) -> None:
        self.size = self._pair(layer, "kernel_size", param.kernel_size, 0)
        self.stride = self._pair(layer, "stride", param.stride, 1)
        self.pad = self._pair(layer, "pad", param.pad, 0)
        self.dilation = self._pair(layer, "dilation", param.dilation, 1)
        self.group = param.group
        layer.check(
            min(*self.size, *self.stride, *self.dilation, self.group) > 0,
            "kernel_size, stride, dilation and group must be positive",
        )

    @staticmethod
    def _pair(layer: Layer, name: str, values: Sequence[int], default: int) -> tuple[int, int]:
        """One number for each axis, from a field that is given never, once or twice."""
        layer.check(
            len(values) <= 2, f"{name} is given {len(values)} times, expected once or twice"
        )
        values = list(values) or [default]
        return values[0], values[-1]

    def extents(self, image: Shape) -> Shape:
        """The rows and columns of the result."""
        axes = zip(image, self.size, self.stride, self.pad, self.dilation, strict=True)
        return tuple(
            (n + 2 * pad - dilation * (size - 1) - 1) // stride + 1
            for n, size, stride, pad, dilation in axes
        )

    def apply(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        return convolve(x, weight, bias, Geometry(self.stride, self.pad, self.dilation, self.group))

    def onnx(self, graph: Graph, x: str, *weights: str) -> str:
        return graph.add(
            "Conv",
            x,
            *weights,
            strides=self.stride,
            pads=[*self.pad, *self.pad],
            dilations=self.dilation,
            group=self.group,
        )


@register("ConvLSTM")
class ConvLSTM(KeepsStates):
    """Long short-term memory whose states are images: gates i f o g by convolutions of the input
    and the hidden state, and from the cell's state by a weight for each pixel (Shi et al., 2015;
    DAVSOD's conv_lstm_layer.cpp, by agethen).

    Bottoms: x (T, N, C, H, W); sequence indicators (T, N), 0 where a sequence begins; optionally a
    static input (1, N, C', H, W); with expose_hidden the initial states h and c, (1, N, D, H, W)
    each. Tops: the outputs (T, N, D, H, W); with expose_hidden the final states h and c. Without
    expose_hidden a layer keeps its final states for the next batch. lstm_conv_param is given once,
    or once each with the types "input" and "hidden"; a kernel must keep the image's size.
    Blobs: W_x (4 D, C, ...) unless ignore_x, W_static (4 D, C', ...) with a static input, two of
    one value that is not used, W_h (4 D, D, ...), b (4 D), unless disable_hadamard the pixels'
    weights for i, f and o, of the axes that axis_hadamard and num_axes_hadamard name, and two more
    of one value.
    """

    bottoms = (2, 5)
    tops = (1, 3)
    labels = (1,)
    in_place = False
    fork = "DAVSOD"
    judge = "recorded"
    reads = ("recurrent_param", "lstm_conv_param", "lstm_debug_param")
    takes = (
        *(f"lstm_conv_param.{n}" for n in ("num_output", "bias_term", "pad", "kernel_size")),
        *(f"lstm_conv_param.{n}" for n in ("group", "stride", "weight_filler", "bias_filler")),
        *("lstm_conv_param.dilation", "lstm_conv_param.type"),
        *(f"lstm_debug_param.{n}" for n in ("disable_hadamard", "axis_hadamard")),
        *(f"lstm_debug_param.{n}" for n in ("num_axes_hadamard", "ignore_x")),
    )

    def setup(self, shapes: Sequence[Shape]) -> None:
        self.exposed = 2 if self.layer_param.recurrent_param.expose_hidden else 0
        self.static = len(shapes) - self.exposed == 3
        self.check(
            len(shapes) - self.exposed in (2, 3) and self.num_tops == 1 + self.exposed,
            f"has {len(shapes)} bottoms and {self.num_tops} tops, expected x, indicators and "
            "perhaps a static input, and with expose_hidden two states more on both sides",
        )
        self.check(
            not self.layer_param.lstm_debug_param.expose,
            "lstm_debug_param.expose is not implemented",
        )
        params = self._params()
        self.kernels = [_Kernel(self, param) for param in params]
        self.size = params[0].num_output
        self.check(self.size > 0, "num_output must be positive")
        self.check(
            len(shapes[0]) == 5 and min(shapes[0]) > 0,
            f"x (bottom 0) has the shape {shapes[0]}, expected (T, N, C, H, W)",
        )
        self.steps, self.channels, self.image = shapes[0][0], shapes[0][2], shapes[0][3:]
        self._make_blobs(shapes, *params)

    def _params(self) -> tuple[pb.LSTMConvolutionParameter, pb.LSTMConvolutionParameter]:
        """The convolutions of the input and of the hidden state."""
        given = self.layer_param.lstm_conv_param
        self.check(
            len(given) in (1, 2) and given[0].num_output == given[-1].num_output,
            f"lstm_conv_param is given {len(given)} time(s), expected once or twice with one "
            "num_output",
        )
        of_x = given[-1] if given[0].type == "hidden" else given[0]
        of_hidden = given[-1] if given[0].type == "input" else given[0]
        self.check(of_hidden.bias_term, "bias_term must be true")
        return of_x, of_hidden

    def _make_blobs(
        self,
        shapes: Sequence[Shape],
        of_x: pb.LSTMConvolutionParameter,
        of_hidden: pb.LSTMConvolutionParameter,
    ) -> None:
        debug = self.layer_param.lstm_debug_param
        inputs = [(of_x, self.kernels[0], self.channels)] if not debug.ignore_x else []
        if self.static:
            still = shapes[2]
            self.check(
                len(still) == 5 and not debug.ignore_x,
                f"static input (bottom 2) has the shape {still}, expected (1, N, C, H, W), and no "
                "ignore_x",
            )
            inputs.append((of_x, self.kernels[0], still[2]))
        for param, kernel, channels in inputs:
            self._add_weight(param, kernel, channels)
        self._add_idle()
        self._add_weight(of_hidden, self.kernels[1], self.size)
        self.add_blob((4 * self.size,), of_hidden.bias_filler)
        if not debug.disable_hadamard:
            ones = pb.FillerParameter(type="constant", value=1)
            for _ in "ifo":
                self.add_blob(self._hadamard(shapes[0][1]), ones)
        self._add_idle()

    def _add_weight(
        self, param: pb.LSTMConvolutionParameter, kernel: _Kernel, channels: int
    ) -> None:
        self.check(
            channels % kernel.group == 0 and 4 * self.size % kernel.group == 0,
            f"{channels} channels and {4 * self.size} gates cannot be shared by {kernel.group} "
            "groups",
        )
        shape = (4 * self.size, channels // kernel.group, *kernel.size)
        self.add_blob(shape, param.weight_filler)

    def _add_idle(self) -> None:
        """Two blobs that the fork's unrolled net has, too, and does not use."""
        for _ in range(2):
            self.add_blob((1,), pb.FillerParameter())

    def _hadamard(self, streams: int) -> Shape:
        """The axes of the weights that multiply the cell's state."""
        debug = self.layer_param.lstm_debug_param
        state = (1, streams, self.size, *self.image)
        first, count = debug.axis_hadamard, debug.num_axes_hadamard
        self.check(
            first + count <= 5,
            f"axis_hadamard {first} and num_axes_hadamard {count} exceed the 5 axes of a state",
        )
        return state[first : first + count]

    def infer_shapes(self, shapes: Sequence[Shape]) -> list[Shape]:
        x, cont = shapes[:2]
        self.check(
            len(x) == 5 and (x[0], *x[2:]) == (self.steps, self.channels, *self.image),
            f"x (bottom 0) has the shape {x}, expected {self.steps} steps of images "
            f"{(self.channels, *self.image)} as at the start",
        )
        self.check(cont == x[:2], f"indicators (bottom 1) have the shape {cont}, expected {x[:2]}")
        for kernel in self.kernels:
            self.check(
                kernel.extents(self.image) == self.image,
                f"kernel {kernel.size} with pad {kernel.pad}, stride {kernel.stride} and dilation "
                f"{kernel.dilation} does not keep the image's size {self.image}",
            )
        state = (1, x[1], self.size, *self.image)
        if self.static:
            still, channels = shapes[2], self._channels_of_static()
            self.check(
                still == (1, x[1], channels, *self.image),
                f"static input (bottom 2) has the shape {still}, expected "
                f"{(1, x[1], channels, *self.image)}",
            )
        for i in range(len(shapes) - self.exposed, len(shapes)):
            self.check(
                shapes[i] == state,
                f"initial state (bottom {i}) has the shape {shapes[i]}, expected {state}",
            )
        if not self.layer_param.lstm_debug_param.disable_hadamard:
            hadamard = self._hadamard(x[1])
            self.check(
                self.blobs[-3].shape == hadamard,
                f"the cell's weights have the shape {self.blobs[-3].shape}, expected {hadamard}",
            )
        return [(self.steps, *state[1:]), *[state] * self.exposed]

    def _channels_of_static(self) -> int:
        return self.blobs[1].shape[1] * self.kernels[0].group

    def macs(self, shapes: Sequence[Shape]) -> int:
        pixels = shapes[0][1] * math.prod(self.image)
        counts = [math.prod(b.shape) for b in self.blobs if len(b.shape) == 4]
        once = counts.pop(1) if self.static else 0
        return pixels * (self.steps * sum(counts) + once)

    def scratch(self, shapes: Sequence[Shape]) -> int:
        """The gates of all steps."""
        return 4 * self.size * self.steps * shapes[0][1] * math.prod(self.image)

    def forward(self, bottom: Tensors, blobs: Tensors) -> Tensors:
        (top, *_) = self.top_shapes(bottom)
        debug, given = self.layer_param.lstm_debug_param, list(blobs[:-2])
        x, cont = bottom[0], bottom[1].detach()[..., None, None, None]
        gates: torch.Tensor | int = 0
        if not debug.ignore_x:
            gates = self.kernels[0].apply(x.flatten(0, 1), given.pop(0)).unflatten(0, x.shape[:2])
        if self.static:
            gates = gates + self.kernels[0].apply(bottom[2][0], given.pop(0))
        _, _, weight, bias, *peepholes = given
        hidden, cell = self._initial(bottom)
        tops = []
        for t in range(self.steps):
            gate = self.kernels[1].apply(cont[t] * hidden, weight, bias)
            if not debug.ignore_x:
                gate = gate + gates[t]
            hidden, cell = self._step(gate, cell, cont[t], peepholes)
            tops.append(hidden)
        if self.exposed:
            return [torch.stack(tops), hidden[None], cell[None]]
        if can_look(x):
            self.keep_states(hidden, cell)
        return [torch.stack(tops).view(top)]

    def _step(
        self, gate: torch.Tensor, cell: torch.Tensor, cont: torch.Tensor, peepholes: Tensors
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The new states from the gates (N, 4 D, H, W) and the cell's state (N, D, H, W)."""
        i, f, o, g = gate.chunk(4, 1)
        if peepholes:
            state = cell[None]
            i, f, o = (
                x + (state * self._aligned(weight))[0]
                for x, weight in zip((i, f, o), peepholes, strict=True)
            )
        keep = cont * f.sigmoid()
        # As in LSTMUnit, the gradient treats cont * sigmoid(f) as if it were the sigmoid itself.
        keep = with_gradient_of(keep, f * (keep * (1 - keep)).detach())
        cell = keep * cell + i.sigmoid() * g.tanh()
        return o.sigmoid() * cell.tanh(), cell

    def _aligned(self, weight: torch.Tensor) -> torch.Tensor:
        """A weight of the cell's state with axes of one behind its own."""
        behind = 5 - self.layer_param.lstm_debug_param.axis_hadamard - weight.dim()
        return weight[(..., *[None] * behind)]

    def _initial(self, bottom: Tensors) -> list[torch.Tensor]:
        """The states before the first step, (N, D, H, W) each: given, kept or zeros."""
        if self.exposed:
            return [x[0] for x in bottom[-2:]]
        return self.kept_states(bottom[0], (bottom[0].shape[1], self.size, *self.image))

    def onnx(self, graph: Graph, x: Value, cont: Value, *others: Value) -> Names:
        """All steps, one after another."""
        self.check(
            not graph.dynamic_batch, "its steps are written out: their number cannot be free"
        )
        self.check(not self.static, "has no ONNX form with a static input")
        debug, (streams, *_) = self.layer_param.lstm_debug_param, x.shape[1:]
        shape, used = (streams, self.size, *self.image), iter(range(len(self.blobs) - 2))
        gates: list[str] = []
        if not debug.ignore_x:
            frames = graph.reshape(x, (-1, *x.shape[2:]), keeps_batch=False)
            y = self.kernels[0].onnx(graph, frames, graph.blob(self, next(used)))
            y = graph.add("Split", y, outputs=self.steps, axis=0)
            gates = [y] if self.steps == 1 else y
        weights = [graph.blob(self, index) for index in list(islice(used, 4))[2:]]
        peepholes = [graph.constant(self._peephole(index)) for index in used]
        if others:
            hidden, cell = (graph.reshape(v, shape, keeps_batch=False) for v in others)
        else:
            hidden, cell = (graph.constant(np.zeros(shape)) for _ in range(2))
        marks = graph.reshape(cont, (self.steps, streams, 1, 1, 1), keeps_batch=False)
        tops = []
        for t in range(self.steps):
            keep = graph.add("Gather", marks, graph.constant(t, np.int64), axis=0)
            gate = self.kernels[1].onnx(graph, graph.add("Mul", keep, hidden), *weights)
            if gates:
                gate = graph.add("Add", gate, gates[t])
            hidden, cell = self._onnx_step(graph, gate, cell, keep, peepholes)
            tops.append(graph.add("Unsqueeze", hidden, graph.constant([0], np.int64)))
        states = [graph.add("Unsqueeze", v, graph.constant([0], np.int64)) for v in (hidden, cell)]
        return [graph.add("Concat", *tops, axis=0), *states][: self.num_tops]

    def _peephole(self, index: int) -> np.ndarray:
        weight = torch.from_numpy(self.array(index))
        whole = self._aligned(weight).numpy()
        return whole.reshape((1,) * (5 - whole.ndim) + whole.shape)[0]

    def _onnx_step(
        self, graph: Graph, gate: str, cell: str, keep: str, peepholes: Sequence[str]
    ) -> tuple[str, str]:
        i, f, o, g = graph.add("Split", gate, outputs=4, axis=1)
        if peepholes:
            i, f, o = (
                graph.add("Add", x, graph.add("Mul", cell, weight))
                for x, weight in zip((i, f, o), peepholes, strict=True)
            )
        i, f, o = (graph.add("Sigmoid", x) for x in (i, f, o))
        kept = graph.add("Mul", graph.add("Mul", keep, f), cell)
        cell = graph.add("Add", kept, graph.add("Mul", i, graph.add("Tanh", g)))
        return graph.add("Mul", o, graph.add("Tanh", cell)), cell

"""Part: the layers of a deploy net that a delegate computes, run as a plan runs them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.graph.wiring import Wiring
from caffe.layers.base import Tensors
from caffe.plan.build import build_part
from caffe.plan.delegates import Delegate
from caffe.plan.ir import Program, circumstances, run_nodes


class Part:
    """Computes the blobs that a delegate gives from those that it takes.

    It is for passes in which the delegate fails, and tells what the delegate's values should be.
    What it has prepared takes as much memory as the parameters, until free() is called.
    """

    def __init__(self, wiring: Wiring, delegate: Delegate) -> None:
        self._wiring, self._delegate = wiring, delegate
        self._program: Program | None = None

    def __call__(self, bottom: Tensors) -> Sequence[torch.Tensor]:
        """The values of delegate.gives, float32 in C order; the bottoms are not changed."""
        program = self._current()
        program.nodes[0].run = lambda _, blobs: bottom
        values: dict[int, torch.Tensor] = {}
        with torch.no_grad():
            run_nodes(program.nodes, values, program.outputs)
        program.nodes[0].run = lambda _, blobs: ()
        layout = torch.contiguous_format
        return [values[i].to(torch.float32, memory_format=layout) for i in program.outputs]

    def free(self) -> None:
        """Forget what was prepared; the next call prepares it again."""
        self._program = None

    def _current(self) -> Program:
        now = circumstances()
        if self._program is None or self._program.circumstances != now:
            self._program = build_part(self._wiring, now, self._delegate)
        return self._program

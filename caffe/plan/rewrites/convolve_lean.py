"""convolve_lean: 2-D (de)convolutions keep nothing that can be recomputed, and multiply less.

caffe/kernels/fused.py computes them, with Winograd's algorithm where that is faster.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.kernels import finite, fused
from caffe.layers.base import Tensors
from caffe.layers.vision import Convolution, Deconvolution
from caffe.plan.ir import Circumstances, Node, Operation, Program, always
from caffe.plan.operations import by_layer, caffe_order
from caffe.plan.rewrites.patterns import image_misfit
from caffe.plan.rewrites.rewrite import Match, Rewrite


def _pattern(program: Program, node: Node) -> Match | None:
    return [node] if node.is_a(Convolution, Deconvolution) else None


def _check(program: Program, match: Match) -> str:
    return image_misfit(match[0])


def _action(program: Program, match: Match) -> None:
    (node,) = match
    node.run, node.any_number = _lean(node.layer, program.circumstances), True
    node.numbers = always(program.circumstances.dtype, 1)


def _lean(layer: Convolution | Deconvolution, made_for: Circumstances) -> Operation:
    transposed = isinstance(layer, Deconvolution)
    how = fused.Convolving(
        layer.kernel_geometry, transposed, made_for.dtype, made_for.channels_last
    )
    plain, recompute = by_layer(layer, made_for), made_for.settings.recompute
    on_cpu = made_for.device.type == "cpu"

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        x = bottom[0]
        layer.top_shapes(bottom)  # raises CaffeError if the bottom does not fit
        filled = not transposed and layer.filled(x) is not x
        # oneDNN multiplies the padding by the weights in the layers' layout only.
        if filled or (on_cpu and not finite.all_finite(blobs[0])):
            return plain([caffe_order(x)], blobs)
        y = fused.convolve(x, blobs[0], blobs[1] if len(blobs) > 1 else None, how, recompute)
        # Winograd's algorithm spreads NaN and infinity; of the latter, sums in another order may
        # make NaN.
        if on_cpu and not finite.first_finite(y.detach(), layer.group):
            return plain([caffe_order(x)], blobs)
        return [y]

    return run


CONVOLVE_LEAN = Rewrite("convolve_lean", _pattern, _check, _action, deploy=False)

"""Layers as operations of a plan."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.kernels import finite
from caffe.layers import Layer
from caffe.layers.base import Tensors
from caffe.plan.ir import Circumstances, Operation


def pure(layer: Layer, circumstances: Circumstances) -> Operation:
    """The layer's own forward; layers that multiply do so in the plan's number type."""
    arranges = layer.channels_last and circumstances.channels_last
    on_cpu, as_it_is = circumstances.device.type == "cpu", by_layer(layer, circumstances)

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        # oneDNN multiplies the padding by the weights in one layout and not in the other.
        if arranges and not (on_cpu and not finite.all_finite(*blobs)):
            bottom = [channels_last(x) for x in bottom]
        return as_it_is(bottom, blobs)

    def carrying(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        tops, bounds = run(bottom, blobs), [finite.bound(x) for x in bottom]
        known = max(bounds, default=None) if None not in bounds else None
        return [finite.carry(top, known) for top in tops]

    return carrying if layer.bounded else run


def by_layer(layer: Layer, circumstances: Circumstances) -> Operation:
    """The same in the layout in which the bottoms come; to the bit what an observed net does, if
    they come in Caffe's.
    """
    kind, dtype = circumstances.device.type, circumstances.dtype
    in_bfloat16 = dtype == torch.bfloat16 and layer.multiplies

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        with torch.autocast(kind, torch.bfloat16, enabled=in_bfloat16):
            tops = layer.forward(bottom, blobs)
        return [tops] if isinstance(tops, torch.Tensor) else tops

    return run


def caffe_order(x: torch.Tensor) -> torch.Tensor:
    """x as float32 in the layout that layers get it in; a copy, as strides of 1 tell too little."""
    return x.to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """x, with its channels innermost in memory if it has 4 axes."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def from_source(layer: Layer, tops: Sequence[Blob]) -> Operation:
    """Lets a source fill its own blobs, as in the layer loop, and returns their values."""

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        layer.forward_blobs([], tops, False)
        return [blob.tensor() for blob in tops]

    return run

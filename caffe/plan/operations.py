"""Layers as operations of a plan."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from caffe.blob import Blob
from caffe.layers import Layer
from caffe.layers.base import Tensors
from caffe.plan.ir import Circumstances, Operation


def pure(layer: Layer, circumstances: Circumstances) -> Operation:
    """The layer's own forward; layers that multiply do so in the plan's number type."""
    kind, dtype = circumstances.device.type, circumstances.dtype
    in_bfloat16 = dtype == torch.bfloat16 and layer.multiplies
    arranges = layer.channels_last and circumstances.channels_last

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        if arranges:
            bottom = [channels_last(x) for x in bottom]
        with torch.autocast(kind, torch.bfloat16, enabled=in_bfloat16):
            tops = layer.forward(bottom, blobs)
        return [tops] if isinstance(tops, torch.Tensor) else tops

    return run


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """x, with its channels innermost in memory if it has 4 axes."""
    return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x


def from_source(layer: Layer, tops: Sequence[Blob]) -> Operation:
    """Lets a source fill its own blobs, as in the layer loop, and returns their values."""

    def run(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        layer.forward_blobs([], tops, False)
        return [blob.tensor() for blob in tops]

    return run

"""Convolutions and their transposes over any number of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

_CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_DECONV = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


class Geometry(NamedTuple):
    """Stride, padding and dilation of a kernel, one per spatial axis, and the number of groups."""

    stride: Sequence[int]
    pad: Sequence[int]
    dilation: Sequence[int]
    group: int

    @property
    def behind(self) -> Geometry:
        """The geometry without the first spatial axis."""
        return Geometry(self.stride[1:], self.pad[1:], self.dilation[1:], self.group)


def convolve(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, g: Geometry
) -> torch.Tensor:
    """The cross-correlation of x (N, C, ...) with weight (outputs, C / group, ...).

    weight may have any number of spatial axes; PyTorch's own convolutions have one to three.
    """
    spatial = weight.dim() - 2
    if spatial in _CONV:
        return _CONV[spatial](x, weight, bias, g.stride, g.pad, g.dilation, g.group)
    if spatial == 0:
        point = Geometry((1,), (0,), (1,), g.group)
        return convolve(x[..., None], weight[..., None], bias, point)[..., 0]
    # Each position on the first kernel axis is a convolution over the other axes; we add them up.
    # In these, rows of the first spatial axis count as samples.
    stride, dilation = g.stride[0], g.dilation[0]
    x = F.pad(x, [0, 0] * (spatial - 1) + [g.pad[0], g.pad[0]])
    size = (x.shape[2] - dilation * (weight.shape[2] - 1) - 1) // stride + 1
    total: torch.Tensor | float = 0.0
    for k in range(weight.shape[2]):
        start = k * dilation
        rows = x[:, :, start : start + (size - 1) * stride + 1 : stride].transpose(1, 2)
        y = convolve(rows.flatten(0, 1), weight[:, :, k], bias if k == 0 else None, g.behind)
        total = total + y.unflatten(0, (x.shape[0], size)).transpose(1, 2)
    return total


def deconvolve(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, g: Geometry
) -> torch.Tensor:
    """The transpose of convolve: x (N, C, ...), weight (C, outputs / group, ...)."""
    spatial = weight.dim() - 2
    if spatial in _DECONV:
        return _DECONV[spatial](x, weight, bias, g.stride, g.pad, 0, g.group, g.dilation)
    if spatial == 0:
        point = Geometry((1,), (0,), (1,), g.group)
        return deconvolve(x[..., None], weight[..., None], bias, point)[..., 0]
    # Position k on the first kernel axis adds to row k * dilation and every stride-th row after it.
    stride, dilation, count = g.stride[0], g.dilation[0], x.shape[2]
    size = stride * (count - 1) + dilation * (weight.shape[2] - 1) + 1
    rows = x.transpose(1, 2).flatten(0, 1)
    total: torch.Tensor | None = None
    for k in range(weight.shape[2]):
        y = deconvolve(rows, weight[:, :, k], None, g.behind)
        y = y.unflatten(0, (x.shape[0], count)).transpose(1, 2)
        if total is None:
            total = y.new_zeros(*y.shape[:2], size, *y.shape[3:])
        places = torch.arange(count, device=x.device) * stride + k * dilation
        total = total.index_add(2, places, y)
    assert total is not None
    total = total.narrow(2, g.pad[0], size - 2 * g.pad[0])
    return total if bias is None else total + bias.view(-1, *[1] * spatial)

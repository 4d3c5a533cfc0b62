"""Fillers: the initial values of parameter blobs (Caffe's filler.hpp)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from caffe.errors import CaffeError
from caffe.proto import caffe_pb2 as pb

_FILLERS: dict[str, Callable[[torch.Tensor, pb.FillerParameter], None]] = {}
_FINITE = {"uniform": ("min", "max"), "gaussian": ("mean", "std")}  # a constant may be anything
_LARGEST = torch.finfo(torch.float32).max


def fill(values: torch.Tensor, param: pb.FillerParameter) -> None:
    """Fill `values` in place as `param` says. Raises CaffeError for an unknown or unfit filler."""
    filler = _FILLERS.get(param.type)
    if filler is None:
        raise CaffeError(
            f"unknown filler type {param.type!r}; expected one of {', '.join(sorted(_FILLERS))}"
        )
    if param.sparse != -1 and param.type != "gaussian":
        raise CaffeError(f"filler {param.type}: sparse is only supported by gaussian")
    for name in _FINITE.get(param.type, ()):
        if not math.isfinite(getattr(param, name)):
            raise CaffeError(
                f"filler {param.type}: {name} is {getattr(param, name):g}, expected a finite number"
            )
    if values.numel():
        with torch.no_grad():
            filler(values, param)


def _filler(function: Callable[[torch.Tensor, pb.FillerParameter], None]):
    _FILLERS[function.__name__] = function
    return function


@_filler
def constant(values: torch.Tensor, param: pb.FillerParameter) -> None:
    values.fill_(param.value)


@_filler
def uniform(values: torch.Tensor, param: pb.FillerParameter) -> None:
    if param.min > param.max:
        raise CaffeError(f"filler uniform: min {param.min:g} exceeds max {param.max:g}")
    if max(-param.min, param.max, param.max - param.min) > _LARGEST:
        raise CaffeError(
            f"filler uniform: from {param.min:g} to {param.max:g} is more than float32 spans"
        )
    values.uniform_(param.min, param.max)


@_filler
def gaussian(values: torch.Tensor, param: pb.FillerParameter) -> None:
    if param.std < 0:
        raise CaffeError(f"filler gaussian: std is {param.std:g}, expected at least 0")
    values.normal_(param.mean, param.std)
    if param.sparse < -1:
        raise CaffeError(f"filler gaussian: sparse is {param.sparse}, expected at least 0, or -1")
    if param.sparse >= 0:
        _check_axes(values)
        # On average `sparse` weights of each output are not zero.
        share = param.sparse / values.shape[0]
        if not 0 <= share <= 1:
            raise CaffeError(
                f"filler gaussian: sparse is {param.sparse}, expected at most the "
                f"{values.shape[0]} outputs"
            )
        values.mul_(torch.empty_like(values).bernoulli_(share))


@_filler
def positive_unitball(values: torch.Tensor, param: pb.FillerParameter) -> None:
    """Positive values whose sum is 1 for each output."""
    _check_axes(values)
    values.uniform_(0, 1)
    rows = values.view(values.shape[0], -1)
    rows.div_(rows.sum(1, keepdim=True))


@_filler
def xavier(values: torch.Tensor, param: pb.FillerParameter) -> None:
    """Uniform within sqrt(3 / fan) of 0 (Glorot and Bengio, 2010)."""
    scale = math.sqrt(3 / _fan(values, param.variance_norm))
    values.uniform_(-scale, scale)


@_filler
def msra(values: torch.Tensor, param: pb.FillerParameter) -> None:
    """Gaussian with variance 2 / fan (He et al., 2015)."""
    values.normal_(0, math.sqrt(2 / _fan(values, param.variance_norm)))


@_filler
def bilinear(values: torch.Tensor, param: pb.FillerParameter) -> None:
    """Kernels that interpolate linearly, for a Deconvolution that upsamples (filler.hpp)."""
    if values.dim() != 4 or values.shape[2] != values.shape[3]:
        raise CaffeError(
            f"filler bilinear: the blob's shape is {tuple(values.shape)}, "
            "expected 4 axes with a square kernel"
        )
    size = values.shape[3]
    f = math.ceil(size / 2)
    centre = (size - 1) / (2 * f)
    line = 1 - (torch.arange(size, dtype=torch.float64) / f - centre).abs()
    values.copy_(torch.outer(line, line).expand(values.shape))


_FILLERS["bilinear_upsampling"] = bilinear  # as CCNN calls it


@_filler
def gaussian_unitball(values: torch.Tensor, param: pb.FillerParameter) -> None:
    """A random direction for each output: gaussian values of length 1 (caffe-windows)."""
    _check_axes(values)
    rows = values.normal_(0, 1).view(values.shape[0], -1)
    rows.div_((rows.square().sum(1, keepdim=True) + 1e-12).sqrt())


@_filler
def identity(values: torch.Tensor, param: pb.FillerParameter) -> None:
    """1 from each input to its own output, 0 elsewhere (caffe-windows)."""
    rows = values.shape[0] if values.dim() else 0
    if values.dim() < 2 or not rows == values.shape[1] == values.numel() / rows:
        raise CaffeError(
            f"filler identity: the blob's shape is {tuple(values.shape)}, expected as many inputs "
            "as outputs and no kernel"
        )
    values.zero_().view(values.shape[0], -1).fill_diagonal_(1)


@_filler
def diagonal(values: torch.Tensor, param: pb.FillerParameter) -> None:
    """diag_val (default 1) times the mean over the kernel, from each input to its output."""
    if values.dim() < 2:
        raise CaffeError(
            f"filler diagonal: the blob's shape is {tuple(values.shape)}, too few axes"
        )
    area = math.prod(values.shape[2:])
    values.zero_()
    for i in range(min(values.shape[:2])):
        gain = param.diag_val[i] if i < len(param.diag_val) else 1.0
        values[i, i] = gain / area


def _check_axes(values: torch.Tensor) -> None:
    if not values.dim():
        raise CaffeError("the filler needs to know inputs from outputs, and the blob has no axes")


def _fan(values: torch.Tensor, norm: int) -> float:
    """Caffe's fan: count / shape[0] is 'in' and count / shape[1] is 'out', whatever the layer."""
    _check_axes(values)
    fan_in = values.numel() / values.shape[0]
    fan_out = values.numel() / values.shape[1] if values.dim() > 1 else values.numel()
    kinds = pb.FillerParameter
    if norm == kinds.AVERAGE:
        return (fan_in + fan_out) / 2
    return fan_out if norm == kinds.FAN_OUT else fan_in

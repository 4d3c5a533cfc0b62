"""Maps of coordinates: where a position of a layer's bottom lies in its top.

A map is (axis, scale, shift): position i of the bottom lies at scale * i + shift in the top. `axis`
is the one before the first mapped axis (1 for N x C x H x W), None where every axis is mapped onto
itself; scale and shift hold one number, or one for each mapped axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.message import Message

Map = tuple[int | None, Any, Any]
IDENTITY: Map = (None, 1, 0)
_ONE_SIDED = {f"{what}_{side}" for what in ("pad", "kernel", "stride") for side in "hw"}


class UndefinedMapException(Exception):
    """A layer that has no map of coordinates."""


def kernel_of(
    type_name: str, params: Mapping[str, Any]
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """(axis, stride, dilated kernel size, padding) of a layer that slides a kernel.

    params: NetSpec's. Raises AssertionError for kernels given as kernel_h and kernel_w, and the
    like, and UndefinedMapException for global pooling.
    """
    params = params.get("convolution_param", params)
    params = params.get("pooling_param", params)
    found = _ONE_SIDED & params.keys()
    assert not found, f"{type_name}: {min(found)} is not supported; give one list for all axes"
    if "hole" in params:  # DeepLab's older name
        params = {"dilation": params["hole"], **params}
    if "kernel_size" not in params:  # global pooling
        raise UndefinedMapException(f"{type_name} without kernel_size")
    kernel, stride, pad, dilation = (
        np.array(params.get(name, default), ndmin=1)
        for name, default in (("kernel_size", 1), ("stride", 1), ("pad", 0), ("dilation", 1))
    )
    return params.get("axis", 1), stride, (kernel - 1) * dilation + 1, pad


def spec_of(param: Message) -> dict[str, Any]:
    """NetSpec's parameters of a layer's message: the fields that are given, messages as dicts.

    Kernels given as kernel_h and kernel_w, and the like, become one list for both axes.
    """
    found: dict[str, Any] = {}
    for field, value in param.ListFields():
        inner = isinstance(value, Message)
        found[field.name] = spec_of(value) if inner else value
    for name in ("kernel_size", "stride", "pad"):
        sides = [found.pop(f"{name.removesuffix('_size')}_{side}", None) for side in "hw"]
        if None not in sides:
            found[name] = sides
    return found


def crop_of(params: Mapping[str, Any]) -> tuple[int, np.ndarray]:
    """(axis, offset) of a Crop layer, given NetSpec's parameters."""
    params = params.get("crop_param", params)
    return params.get("axis", 2), np.array(params.get("offset", 0), ndmin=1)


def windowed(type_name: str, params: Mapping[str, Any]) -> Map:
    """The map of a layer whose top has one value for each place of a kernel."""
    axis, stride, kernel, pad = kernel_of(type_name, params)
    return axis, 1 / stride, (pad - (kernel - 1) / 2) / stride


def transposed(type_name: str, params: Mapping[str, Any]) -> Map:
    """The map of a transposed convolution."""
    axis, stride, kernel, pad = kernel_of(type_name, params)
    return axis, stride, (kernel - 1) / 2 - pad

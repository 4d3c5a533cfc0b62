"""Maps between the coordinates of two blobs, to crop one blob onto the other.

A map is (axis, scale, shift): a position i of the blob that a layer takes lies at scale * i + shift
in the blob that it makes. `axis` is the one before the first mapped axis (1 for N x C x H x W),
None for layers that map every axis onto itself; scale and shift hold one number, or one for each
mapped axis.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from caffe.net_spec import Function, Top, layers

# Each layer class knows its map. Importing the classes loads torch, so functions do it when called.
if TYPE_CHECKING:
    from caffe.layers.coordinates import Map


def __getattr__(name: str) -> Any:
    if name == "PASS_THROUGH_LAYERS":
        return _pass_through_layers()
    if name in ("IDENTITY", "Map", "UndefinedMapException"):
        from caffe.layers import coordinates

        return getattr(coordinates, name)
    raise AttributeError(f"module 'caffe.coord_map' has no attribute {name!r}")


class AxisMismatchException(Exception):
    """Two maps that begin at different axes."""


def conv_params(fn: Function) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """(axis, stride, dilated kernel size, padding) of a layer that slides a kernel.

    Raises AssertionError for kernels given as kernel_h and kernel_w, and the like, and
    UndefinedMapException for global pooling.
    """
    from caffe.layers.coordinates import kernel_of

    return kernel_of(fn.type_name, fn.params)


def crop_params(fn: Function) -> tuple[int, np.ndarray]:
    """(axis, offset) of a Crop layer."""
    from caffe.layers.coordinates import crop_of

    return crop_of(fn.params)


@functools.cache
def _pass_through_layers() -> list[str]:
    """The types that map every axis onto itself. It is one list: scripts may add names to it."""
    from caffe.layers.base import REGISTRY
    from caffe.layers.coordinates import IDENTITY, UndefinedMapException

    def passes_through(name: str) -> bool:
        try:
            return REGISTRY[name].coordinates({}) == IDENTITY
        except UndefinedMapException:  # it needs parameters
            return False

    return [name for name in sorted(REGISTRY) if passes_through(name)]


def coord_map(fn: Function) -> Map:
    """The map from a layer's bottoms to its tops. Raises UndefinedMapException without one."""
    from caffe.layers import class_of
    from caffe.layers.coordinates import IDENTITY, UndefinedMapException

    if fn.type_name in _pass_through_layers():
        return IDENTITY
    found = class_of(fn.type_name).coordinates(fn.params)
    if found is None:
        raise UndefinedMapException(f"{fn.type_name} has no map of coordinates")
    return found


def compose(base_map: Map, next_map: Map) -> Map:
    """The map that applies next_map first and base_map to its result.

    Raises AxisMismatchException if both have an axis, and not the same.
    """
    (base_axis, base_scale, base_shift), (axis, scale, shift) = base_map, next_map
    if None not in (base_axis, axis) and base_axis != axis:
        raise AxisMismatchException(f"maps of axis {base_axis} and of axis {axis}")
    joined = axis if base_axis is None else base_axis
    return joined, base_scale * scale, base_scale * shift + base_shift


def inverse(coord_map: Map) -> Map:
    """The map back."""
    axis, scale, shift = coord_map
    return axis, 1 / scale, -shift / scale


def coord_map_from_to(top_from: Top, top_to: Top) -> Map:
    """The map from one blob's coordinates to another's, through an ancestor of both.

    Raises RuntimeError if no chain of layers with maps joins the two.
    """
    from_maps = _ancestor_maps(top_from)
    to_maps = _ancestor_maps(top_to)
    for top, to_map in to_maps.items():
        if top in from_maps:
            return compose(to_map, inverse(from_maps[top]))
    raise RuntimeError("no map between the two blobs: no layers that keep coordinates join them")


def _ancestor_maps(top: Top) -> dict[Top, Map]:
    """For `top` and every blob that it is made of, the map from that blob to `top`."""
    from caffe.layers.coordinates import IDENTITY, UndefinedMapException

    maps = {top: IDENTITY}
    waiting = [top]
    while waiting:
        top = waiting.pop(0)
        bottoms = top.fn.inputs
        if top.fn.type_name == "Crop":  # the second bottom only lends its size
            bottoms = bottoms[:1]
        try:
            for bottom in bottoms:
                if bottom not in maps:
                    maps[bottom] = compose(maps[top], coord_map(top.fn))
                    waiting.append(bottom)
        except UndefinedMapException:
            continue
    return maps


def crop(top_from: Top, top_to: Top) -> Top:
    """A Crop layer that cuts `top_from` to the size and place of `top_to`.

    Raises AssertionError where they differ in scale, or the offset is negative or no whole number.
    """
    axis, scale, shift = coord_map_from_to(top_from, top_to)
    shift = np.atleast_1d(shift)
    assert np.all(scale == 1), f"cannot crop: the blobs differ in scale by {scale}"
    assert np.all(shift <= 0), f"cannot crop at a negative offset, {-shift}"
    assert np.all(shift == np.round(shift)), f"cannot crop at {-shift}: not whole pixels"
    first = 2 if axis is None else axis + 1
    offset = [int(value) for value in -shift]
    return layers.Crop(top_from, top_to, crop_param={"axis": first, "offset": offset})

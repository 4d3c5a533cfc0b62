"""The catalogue: one class a layer type, found by the name that prototxts use.

In pycaffe `caffe.layers` is net_spec's maker of layers. It is here, too: `layers.Convolution(...)`
and all other types are looked up there.
"""

from __future__ import annotations

import difflib
import importlib.util
from typing import Any

from caffe import net_spec
from caffe.errors import CaffeError
from caffe.layers.base import REGISTRY, Layer, register
from caffe.proto import caffe_pb2 as pb

FAMILIES = (
    "activation",
    "common",
    "data",
    "hdf5_data",
    "image_data",
    "loss",
    "normalization",
    "pooling",
    "python_layer",
    "recurrent",
    "vision",
)

for _family in FAMILIES:
    importlib.import_module(f"caffe.layers.{_family}")

__all__ = ["Layer", "create_layer", "layer_type_list", "register"]


def layer_type_list() -> list[str]:
    """The names of all layer types, as pycaffe's function of this name."""
    return sorted(REGISTRY)


def create_layer(param: pb.LayerParameter) -> Layer:
    """The layer that `param` describes. Raises CaffeError for a type that does not exist."""
    layer_class = REGISTRY.get(param.type)
    if layer_class is None:
        near = difflib.get_close_matches(param.type, REGISTRY, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise CaffeError(f"layer {param.name!r}: unknown layer type {param.type!r}{hint}")
    return layer_class(param)


def __getattr__(name: str) -> Any:
    if name[:1].islower() and importlib.util.find_spec(f"{__name__}.{name}"):
        raise AttributeError(name)  # a module of this package that is not imported so far
    return getattr(net_spec.layers, name)

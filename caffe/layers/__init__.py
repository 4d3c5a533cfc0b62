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
from caffe.formats import unknown
from caffe.formats.forks import FORK_TYPES
from caffe.layers.base import REGISTRY, Layer, register
from caffe.process.permission import refusal
from caffe.proto import caffe_pb2 as pb

FAMILIES = (
    "activation",
    "adaptation",
    "anchor_boxes",
    "anchor_embedding",
    "annotated_data",
    "bn",
    "common",
    "conv_lstm",
    "crf",
    "ctc",
    "data",
    "deformable",
    "dense_block",
    "detection_evaluate",
    "detection_output",
    "detectnet_transform",
    "edge_loss",
    "eval_detection",
    "flow",
    "flow_augmentation",
    "flow_data",
    "flow_loss",
    "fused_types",
    "hdf5_data",
    "image_data",
    "joint_face_loss",
    "loss",
    "malis",
    "margin",
    "metric",
    "multibox_loss",
    "normalization",
    "peaks",
    "pointwise",
    "pooling",
    "prior_box",
    "proposal",
    "python_layer",
    "rearrange",
    "recurrent",
    "region_activation",
    "region_boxes",
    "region_loss",
    "region_scores",
    "resample",
    "resize",
    "roi",
    "roi_turned",
    "scene_data",
    "segmentation",
    "segmentation_data",
    "sequence",
    "special_loss",
    "tiles",
    "unit_norm",
    "video_data",
    "vision",
    "volume",
    "yolo",
    "yolo_loss",
)

# Types that cannot be had here, and why.
REFUSED = {
    "TRT": "NVCaffe's layer runs an engine of TensorRT; give the net that the engine was made from"
}

for _family in FAMILIES:
    importlib.import_module(f"caffe.layers.{_family}")
unknown.set_types(REGISTRY)

__all__ = [
    "REGISTRY",
    "Layer",
    "class_of",
    "create_layer",
    "layer_type_list",
    "register",
    "unknown_type",
]


def layer_type_list() -> list[str]:
    """The names of all layer types, as pycaffe's function of this name."""
    return sorted(REGISTRY)


def create_layer(param: pb.LayerParameter) -> Layer:
    """The layer that `param` describes. Raises CaffeError for a type that does not exist.

    Where the type is not known so far, python_param.module names the module that registers it.
    """
    if param.type not in REGISTRY and param.python_param.module:
        _import_module_of(param)
    layer_class = REGISTRY.get(param.type)
    if layer_class is None:
        raise CaffeError(f"layer {param.name!r}: {unknown_type(param)}")
    return layer_class(param)


def class_of(layer_type: str) -> type[Layer]:
    """The class of a type; Layer, which holds the defaults, for types without a class."""
    return REGISTRY.get(layer_type, Layer)


def unknown_type(param: pb.LayerParameter) -> str:
    """'unknown layer type ...', with the fork that has it, or the nearest known one."""
    if fork := FORK_TYPES.get(param.type):
        return f"unknown layer type {param.type!r}, which is of {fork}"
    if reason := REFUSED.get(param.type):
        return f"layer type {param.type!r} is refused: {reason}"
    known = {name.lower(): name for name in REGISTRY}
    near = difflib.get_close_matches(param.type.lower(), known, n=1)
    hint = f" (did you mean {known[near[0]]}?)" if near and param.type not in REGISTRY else ""
    return f"unknown layer type {param.type!r}{hint}"


def _import_module_of(param: pb.LayerParameter) -> None:
    from caffe.layers.python_layer import import_user_module

    module = param.python_param.module
    where = f"layer {param.name!r} ({param.type}): python_param.module"
    if refused := refusal(module):
        raise CaffeError(f"{where}: {refused}")
    try:
        import_user_module(module)
    except CaffeError as error:
        raise CaffeError(f"{where}: {error}") from error
    except Exception as error:
        raise CaffeError(
            f"{where}: importing {module!r}: {type(error).__name__}: {error}"
        ) from error
    if param.type not in REGISTRY:
        raise CaffeError(f"{where}: {module!r} registers no layer type {param.type!r}")


def __getattr__(name: str) -> Any:
    if name[:1].islower() and importlib.util.find_spec(f"{__name__}.{name}"):
        raise AttributeError(name)  # a module of this package that is not imported so far
    return getattr(net_spec.layers, name)

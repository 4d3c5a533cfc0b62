"""A deploy net at another input size than the one it was written for.

Most nets take any size by reshaping. A net with Unpooling layers does not: netgen tells those whose
output is odd its size in the prototxt. Here such a net is written anew, each Unpooling given the
size that its mask was pooled from, and shares the weights of the first.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2


def read_deploy(path: str | Path) -> caffe_pb2.NetParameter | None:
    """The net of a prototxt if it has Unpooling layers and Input layers to resize, else None."""
    param = caffe_pb2.NetParameter()
    try:
        text_format.Parse(Path(path).read_text(), param)
    except (text_format.ParseError, UnicodeDecodeError):
        return None  # the engine says what is wrong with it
    types = {layer.type for layer in param.layer}
    return param if {"Unpooling", "Input"} <= types else None


def at_input_size(param: caffe_pb2.NetParameter, size: tuple[int, int], source: Any) -> Any:
    """A Net like `source` (whose net `param` is) for inputs of size (height, width).

    Raises:
        RuntimeError: the engine's, where the net cannot have that size.
    """
    resized = caffe_pb2.NetParameter()
    resized.CopyFrom(param)
    for layer in resized.layer:
        _drop_fillers(layer)
        if layer.type == "Input":
            for shape in layer.input_param.shape:
                shape.dim[2:] = size
    pooled = _pooled_sizes(resized)
    for layer in resized.layer:
        if layer.type == "Unpooling" and len(layer.bottom) > 1 and layer.bottom[1] in pooled:
            layer.unpooling_param.ClearField("scale")
            height, width = pooled[layer.bottom[1]]
            layer.unpooling_param.output_h, layer.unpooling_param.output_w = height, width
    net = _build(resized)
    net.share_with(source)
    return net


def _pooled_sizes(param: caffe_pb2.NetParameter) -> dict[str, tuple[int, int]]:
    """Mask -> (height, width) of what was pooled, by running shapes up to the first Unpooling."""
    encoder = caffe_pb2.NetParameter(name=param.name)
    for layer in param.layer:
        if layer.type == "Unpooling":
            break
        encoder.layer.add().CopyFrom(layer)
    blobs = _build(encoder).blobs
    return {
        layer.top[1]: tuple(blobs[layer.bottom[0]].data.shape[2:])
        for layer in encoder.layer
        if layer.type == "Pooling" and len(layer.top) > 1
    }


def _build(param: caffe_pb2.NetParameter) -> Any:
    # pycaffe builds nets from files alone.
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text_format.MessageToString(param))
        file.flush()
        return caffe.Net(file.name, caffe.TEST)


def _drop_fillers(layer: caffe_pb2.LayerParameter) -> None:
    """The weights come from elsewhere, and drawing random ones takes its time."""
    for _, value in layer.ListFields():
        if hasattr(value, "DESCRIPTOR"):
            for field in value.DESCRIPTOR.fields:
                if field.name.endswith("filler") and field.message_type is not None:
                    value.ClearField(field.name)

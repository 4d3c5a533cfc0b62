"""Variants of a deploy net: at another input size, or only for its scores."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import text_format

import caffe
from boundary.reading import read_text
from caffe.proto import caffe_pb2
from data_tools.cli import DataError


def read_deploy(path: str | Path) -> caffe_pb2.NetParameter | None:
    """The net of a prototxt; None if it has no Input layers, as in old formats."""
    param = caffe_pb2.NetParameter()
    try:
        text_format.Parse(read_text(path, DataError), param)
    except (text_format.ParseError, DataError):
        return None  # the engine reports the error
    return param if any(layer.type == "Input" for layer in param.layer) else None


def scores_only(
    param: caffe_pb2.NetParameter, net: Any, wanted: set[str]
) -> tuple[caffe_pb2.NetParameter, Any]:
    """The net without Softmax layers at its end, and without keeping blobs other than its outputs.

    On this project's engine it then needs less time and memory. On other engines, or if the wanted
    blobs do not become outputs, `param` and `net` are returned unchanged.
    """
    taken = {bottom for layer in param.layer for bottom in layer.bottom}
    ends = [
        layer for layer in param.layer if layer.type == "Softmax" and not taken & set(layer.top)
    ]
    wanted = {blob for blob in wanted if not any(blob in layer.top for layer in ends)}
    if not hasattr(net, "observed") or not wanted:
        return param, net
    lean = caffe_pb2.NetParameter(name=param.name)
    lean.layer.extend(layer for layer in param.layer if layer not in ends)
    found = _like(lean, net)
    if not wanted <= set(found.outputs):
        return param, net
    found.observed = False
    return lean, found


def at_input_size(param: caffe_pb2.NetParameter, size: tuple[int, int], source: Any) -> Any:
    """A net like `source`, whose prototxt is `param`, for inputs of size (height, width).

    Most nets can be reshaped to any size. A net with Unpooling layers cannot, because netgen writes
    fixed output sizes into those of odd size. Here each gets the size from which its mask was
    pooled.

    Raises:
        RuntimeError: the engine's error, if the net does not allow that size.
    """
    resized = caffe_pb2.NetParameter()
    resized.CopyFrom(param)
    for layer in resized.layer:
        if layer.type == "Input":
            for shape in layer.input_param.shape:
                shape.dim[2:] = size
    pooled = _pooled_sizes(resized)
    for layer in resized.layer:
        if layer.type == "Unpooling" and len(layer.bottom) > 1 and layer.bottom[1] in pooled:
            layer.unpooling_param.ClearField("scale")
            height, width = pooled[layer.bottom[1]]
            layer.unpooling_param.output_h, layer.unpooling_param.output_w = height, width
    return _like(resized, source)


def has_unpooling(param: caffe_pb2.NetParameter) -> bool:
    """Whether the net needs `at_input_size`."""
    return any(layer.type == "Unpooling" for layer in param.layer)


def _pooled_sizes(param: caffe_pb2.NetParameter) -> dict[str, tuple[int, int]]:
    """Mask -> (height, width) of the pooled blob, from a net of the layers up to Unpooling."""
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


def _like(param: caffe_pb2.NetParameter, source: Any) -> Any:
    """A net with the weights of `source` and the same `observed` setting."""
    net = _build(param)
    net.share_with(source)
    if hasattr(source, "observed"):
        net.observed = source.observed
    return net


def _build(param: caffe_pb2.NetParameter) -> Any:
    bare = caffe_pb2.NetParameter()
    bare.CopyFrom(param)
    for layer in bare.layer:
        _drop_fillers(layer)
    # pycaffe can build nets only from files.
    with tempfile.NamedTemporaryFile("wb", suffix=".prototxt") as file:
        file.write(text_format.MessageToString(bare).encode())
        file.flush()
        return caffe.Net(file.name, caffe.TEST)


def _drop_fillers(layer: caffe_pb2.LayerParameter) -> None:
    """Removes fillers: weights are shared from another net, and drawing random ones takes time."""
    for _, value in layer.ListFields():
        if hasattr(value, "DESCRIPTOR"):
            for field in value.DESCRIPTOR.fields:
                if field.name.endswith("filler") and field.message_type is not None:
                    value.ClearField(field.name)

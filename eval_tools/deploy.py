"""Deploy nets other than the one in the file: at another input size, or for its scores alone."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import text_format

import caffe
from caffe.proto import caffe_pb2


def read_deploy(path: str | Path) -> caffe_pb2.NetParameter | None:
    """The net of a prototxt; None if it has no Input layers, as those of old formats."""
    param = caffe_pb2.NetParameter()
    try:
        text_format.Parse(Path(path).read_text(), param)
    except (text_format.ParseError, UnicodeDecodeError):
        return None  # the engine says what is wrong with it
    return param if any(layer.type == "Input" for layer in param.layer) else None


def scores_only(
    param: caffe_pb2.NetParameter, net: Any, wanted: set[str]
) -> tuple[caffe_pb2.NetParameter, Any]:
    """The net without the Softmax layers that end it, and free to forget all but its outputs.

    An engine that can do so (this project's) then needs less time and memory; on others, or if the
    wanted blobs are not outputs even so, `param` and `net` come back as they are.
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
    """A net like `source` (whose net `param` is) for inputs of size (height, width).

    Most nets take any size by reshaping. A net with Unpooling layers does not: netgen tells those
    whose output is odd its size. Here each is given the size that its mask was pooled from.

    Raises:
        RuntimeError: the engine's, where the net cannot have that size.
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


def _like(param: caffe_pb2.NetParameter, source: Any) -> Any:
    """A net with the weights of `source`, as watched as that is."""
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
    # pycaffe builds nets from files alone.
    with tempfile.NamedTemporaryFile("w", suffix=".prototxt") as file:
        file.write(text_format.MessageToString(bare))
        file.flush()
        return caffe.Net(file.name, caffe.TEST)


def _drop_fillers(layer: caffe_pb2.LayerParameter) -> None:
    """The weights come from elsewhere, and drawing random ones takes its time."""
    for _, value in layer.ListFields():
        if hasattr(value, "DESCRIPTOR"):
            for field in value.DESCRIPTOR.fields:
                if field.name.endswith("filler") and field.message_type is not None:
                    value.ClearField(field.name)

"""Unpooling: what its masks come from, and sizes other than the one a prototxt is made for."""

from __future__ import annotations

from collections.abc import Iterable

from caffe.proto import caffe_pb2 as pb


def pooled_blobs(layers: Iterable[pb.LayerParameter]) -> dict[str, str]:
    """Mask -> the blob that was pooled; layers: in a net's order, with or without its Splits."""
    found: dict[str, str] = {}
    for layer in layers:
        if layer.type == "Pooling" and len(layer.top) > 1 and layer.bottom:
            found[layer.top[1]] = layer.bottom[0]
        elif layer.type == "Split" and layer.bottom and layer.bottom[0] in found:
            found |= dict.fromkeys(layer.top, found[layer.bottom[0]])
    return found


def free_sizes(param: pb.NetParameter) -> None:
    """Have Unpooling layers take their size from the image that was pooled: what the prototxt
    states belongs to its own input size.
    """
    masks = pooled_blobs(param.layer).keys()
    for layer in param.layer:
        if layer.type == "Unpooling" and masks & {*layer.bottom[1:]}:
            for field in ("output_h", "output_w", "scale"):
                layer.unpooling_param.ClearField(field)

"""Unpooling at other image sizes than the one for which a prototxt states its size."""

from __future__ import annotations

from caffe.proto import caffe_pb2 as pb


def free_sizes(param: pb.NetParameter) -> None:
    """Have Unpooling layers take their size from the image that was pooled: what the prototxt
    states belongs to its own input size.
    """
    masks: set[str] = set()
    for layer in param.layer:
        if layer.type == "Pooling":
            masks |= {*layer.top[1:]}
        elif layer.type == "Split" and masks & {*layer.bottom}:
            masks |= {*layer.top}
        elif layer.type == "Unpooling" and masks & {*layer.bottom[1:]}:
            for field in ("output_h", "output_w", "scale"):
                layer.unpooling_param.ClearField(field)

"""Short ways to a net or a layer from prototxt text."""

from collections.abc import Sequence

import pytest

import caffe
from caffe.blob import Blob
from caffe.layers import Layer, create_layer
from caffe.proto import caffe_pb2 as pb
from caffe.prototext import parse


def net_of(layers: str, phase: int = caffe.TRAIN, **inputs: Sequence[int]) -> caffe.Net:
    """A net of these layers on Input layers of the given shapes; all gradients are computed."""
    text = "force_backward: true\n"
    for name, shape in inputs.items():
        dims = " ".join(f"dim: {d}" for d in shape)
        text += f'layer {{ name: "{name}" type: "Input" top: "{name}" '
        text += f"input_param {{ shape {{ {dims} }} }} }}\n"
    return caffe.Net(parse((text + layers).encode(), pb.NetParameter, "net"), phase=phase)


def layer_of(text: str, *shapes: Sequence[int], phase: int = caffe.TRAIN) -> Layer:
    """A layer set up on bottoms of these shapes; `text` need not name bottoms and tops."""
    param = parse(f'name: "l" {text}'.encode(), pb.LayerParameter, "layer")
    param.phase = phase
    if not param.bottom:
        param.bottom.extend(f"bottom{i}" for i in range(len(shapes)))
    if not param.top:
        param.top.append("top")
    layer = create_layer(param)
    layer.set_up([Blob(shape) for shape in shapes], [Blob() for _ in param.top])
    return layer


@pytest.fixture(name="net_of")
def net_of_fixture():
    return net_of


@pytest.fixture(name="layer_of")
def layer_of_fixture():
    return layer_of

"""Short ways to a net or a layer from prototxt text."""

import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest

import caffe
from caffe.blob import Blob
from caffe.formats.prototext import parse
from caffe.layers import Layer, create_layer
from caffe.proto import caffe_pb2 as pb


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
    layer.attach([Blob(shape) for shape in shapes], [Blob() for _ in param.top])
    layer.fill_blobs()
    return layer


@pytest.fixture(name="net_of")
def net_of_fixture():
    return net_of


@pytest.fixture(name="layer_of")
def layer_of_fixture():
    return layer_of


def goes_on(make: Callable[[], caffe.Net], passes: int = 3) -> None:
    """Check that a new net, given the position of another's first layer, goes on as that one.

    Both before and after it has handed out batches itself, and under another seed.
    """
    caffe.set_random_seed(5)
    net = make()
    for _ in range(passes):
        net.forward()
    position = json.loads(json.dumps(net.wiring.layers[0].position()))
    expected = [[b.data.copy() for b in net.blobs.values()] for _ in range(9) if net.forward()]
    assert len({values[0].tobytes() for values in expected}) > 1
    caffe.set_random_seed(6)
    for used in (0, 2):
        other = make()
        for _ in range(used):
            other.forward()
        other.wiring.layers[0].go_on(position)
        for values in expected:
            other.forward()
            for blob, value in zip(other.blobs.values(), values, strict=True):
                np.testing.assert_array_equal(blob.data, value)


@pytest.fixture(name="goes_on")
def goes_on_fixture():
    return goes_on

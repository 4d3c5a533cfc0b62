"""The inputs on which a net is compared with what was made of it."""

from __future__ import annotations

import numpy as np
from google.protobuf import text_format

import caffe
from caffe.export import probes
from caffe.proto import caffe_pb2 as pb


def net_of(text: str, **inputs) -> caffe.Net:
    param = text_format.Parse(text, pb.NetParameter())
    for i, (name, shape) in enumerate(inputs.items()):
        layer = pb.LayerParameter(name=name, type="Input", top=[name])
        layer.input_param.shape.add(dim=shape)
        param.layer.insert(i, layer)
    return caffe.Net(param, caffe.TEST)


def test_pictures_have_different_values_far_apart():
    net = net_of('layer { name: "r" type: "ReLU" bottom: "x" top: "y" }', x=(1, 3, 20, 20))
    *drawn, zeros = (feeds["x"] for feeds in probes.draws(net, ["x"]))
    for values, high in zip(drawn, probes.HIGHEST, strict=True):
        assert values.shape == (1, 3, 20, 20)
        assert values.min() == 0
        assert values.max() == high
        gaps = np.diff(np.sort(values.ravel()))
        assert gaps.min() > 0.99 * high / 1199  # they lie evenly
    assert not (drawn[0] == drawn[1]).all()
    assert not zeros.any()


def test_sequence_indicators_are_0_or_1_and_begin_with_0():
    """Also where the input reaches the layer through others that hand it on."""
    text = (
        'layer { name: "v" type: "Reshape" bottom: "c" top: "d" '
        "reshape_param { shape { dim: 6 dim: 4 } } }"
        'layer { name: "l" type: "%s" bottom: "x" bottom: "d" top: "y" '
        "recurrent_param { num_output: 2 } }"
        'layer { name: "m" type: "%s" bottom: "x" bottom: "d" top: "z" '
        "recurrent_param { num_output: 2 } }"
    )
    for kind in ("LSTM", "RNN"):
        net = net_of(text % (kind, kind), x=(6, 4, 3), c=(6, 4))
        feeds = next(probes.draws(net, ["x", "c"]))
        assert set(np.unique(feeds["c"])) == {0, 1}
        assert not feeds["c"][0].any()
        assert len(np.unique(feeds["x"])) == 72


def test_indices_are_those_that_there_are():
    embed = (
        'layer { name: "e" type: "Embed" bottom: "i" top: "y" embed_param '
        "{ num_output: 2 input_dim: 4 } }"
    )
    pick = 'layer { name: "b" type: "BatchReindex" bottom: "x" bottom: "j" top: "z" }'
    unpool = (
        'layer { name: "u" type: "Unpooling" bottom: "p" bottom: "m" top: "q" '
        "unpooling_param { output_h: 2 output_w: 3 } }"
    )
    shapes = {"i": (90,), "x": (5, 2), "j": (90,), "p": (1, 1, 9, 9), "m": (1, 1, 9, 9)}
    net = net_of(embed + pick + unpool, **shapes)
    feeds = next(probes.draws(net, list(shapes)))
    for name, count in (("i", 4), ("j", 5), ("m", 6)):
        assert set(np.unique(feeds[name])) == set(range(count))


def test_more_samples_and_scalars():
    net = net_of(
        'layer { name: "s" type: "Scale" bottom: "x" bottom: "k" top: "y" '
        "scale_param { axis: 0 } }",
        x=(2, 3),
        k=(),
    )
    feeds = next(probes.draws(net, ["x", "k"], more_samples=1))
    assert feeds["x"].shape == (3, 3)
    assert feeds["k"].shape == ()


def test_only_inputs_that_the_outputs_depend_on():
    text = (
        'layer { name: "a" type: "ReLU" bottom: "x" top: "y" }'
        'layer { name: "b" type: "ReLU" bottom: "z" top: "w" }'
    )
    net = net_of(text, x=(1,), z=(1,), unused=(1,))
    assert probes.inputs_of(net, ["y"]) == ["x"]
    assert probes.inputs_of(net, ["w", "y"]) == ["x", "z"]

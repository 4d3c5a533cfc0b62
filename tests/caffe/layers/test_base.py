"""What all layers have in common: the registry, counts, weights given in the net, gradients."""

import gc
import weakref

import numpy as np
import pytest
import torch

import caffe
from caffe.layers import base, create_layer
from caffe.proto import caffe_pb2 as pb


@pytest.fixture
def registry(monkeypatch):
    monkeypatch.setattr(base, "REGISTRY", dict(base.REGISTRY))
    return base.REGISTRY


def test_a_name_is_given_once(registry):
    with pytest.raises(caffe.CaffeError, match=r"'ReLU' is taken by caffe.layers.activation.ReLU"):

        @base.register("ReLU")
        class Mine(base.Layer):
            pass


def test_a_module_that_is_loaded_anew_may_register_anew(registry):
    for _ in range(2):

        @base.register("Mine")
        class Mine(base.Layer):
            pass

        assert registry["Mine"] is Mine


def test_only_layers_are_registered(registry):
    with pytest.raises(caffe.CaffeError, match="is no class derived from"):
        base.register("Mine")(dict)


def test_an_unknown_type_is_met_with_the_nearest():
    with pytest.raises(caffe.CaffeError, match=r"'l': unknown layer type 'Relu' .*ReLU"):
        create_layer(pb.LayerParameter(name="l", type="Relu"))


@pytest.mark.parametrize(
    ("text", "shapes", "cause"),
    [
        ('type: "ReLU"', [(1,), (1,)], "takes exactly 1 bottom blob.s., got 2"),
        ('type: "ReLU" top: ["a", "b"]', [(1,)], "takes exactly 1 top blob.s., got 2"),
        ('type: "Scale"', [(1, 1)] * 3, "takes at most 2 bottom"),
        ('type: "Crop"', [(1, 1)], "takes exactly 2 bottom"),
        (
            'type: "Convolution" convolution_param { num_output: 1 kernel_size: 1 }',
            [(1, 1, 1)] * 2,
            "one top for each bottom",
        ),
        ('type: "Split" bottom: "a" top: "a"', [(1,)], "cannot work in place"),
        ('type: "Filter" bottom: "a" bottom: "b" top: "a"', [(2, 1), (2,)], "cannot work in place"),
        (
            'type: "Bias" bias_param { filler { type: "x" } }',
            [(1, 1)],
            "unknown filler type 'x'",
        ),
        (
            'type: "Bias" bias_param { num_axes: 0 filler { type: "xavier" } }',
            [(1, 1)],
            "the blob has no axes",
        ),
        ('type: "Bias" blobs { } blobs { }', [(1, 1)], "has 1 parameter blob.s., but the net"),
        ('type: "Bias" blobs { shape { dim: 1 } data: 1 }', [(1, 2)], "given with the shape"),
        ('type: "Bias" blobs { shape { dim: 2 } data: 1 }', [(1, 2)], "parameter 0: "),
    ],
)
def test_counts_fillers_and_given_weights(layer_of, text, shapes, cause):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer_of(text, *shapes)


def test_a_net_may_carry_its_weights(layer_of):
    layer = layer_of('type: "Bias" blobs { shape { dim: 2 } data: 3 data: 4 }', (1, 2))
    assert layer.blobs[0].data.tolist() == [3, 4]


def test_a_value_may_have_anothers_gradient():
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = base.with_gradient_of(x.sign() * float("inf"), x.square())
    assert y.tolist() == [float("inf")] * 2
    (gradient,) = torch.autograd.grad(y, x, torch.tensor([1.0, 10.0]))
    assert gradient.tolist() == [2, 40]


def test_parameter_gradients_add_up_and_blob_gradients_do_not(net_of):
    net = net_of('layer { name: "b" type: "Bias" bottom: "x" top: "y" }', x=(4, 2))
    net.forward()
    net.blobs["y"].diff[...] = 1
    for _ in range(2):
        net.backward()
    assert net.params["b"][0].diff.tolist() == [8, 8]
    assert (net.blobs["x"].diff == 1).all()


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4)])
@pytest.mark.parametrize(
    "text",
    [
        'type: "ReLU"',
        'type: "PReLU"',
        'type: "Eltwise"',
        'type: "Concat"',
        'type: "InnerProduct" inner_product_param { num_output: 2 }',
        'type: "Softmax"',
        'type: "Scale"',
        'type: "Tile" tile_param { tiles: 2 }',
        'type: "Flatten"',
        'type: "Reduction"',
    ],
)
def test_blobs_may_be_empty(layer_of, text, shape):
    count = 2 if "Eltwise" in text or "Concat" in text else 1
    layer = layer_of(text, *[shape] * count)
    tops = layer.forward([torch.zeros(shape)] * count, [b.tensor() for b in layer.blobs])
    assert [tuple(tops.shape)] == layer.infer_shapes([shape] * count)


def test_memory_is_given_back(net_of):
    net = net_of(
        'layer { name: "c" type: "Convolution" bottom: "x" top: "y" '
        "convolution_param { num_output: 1 kernel_size: 1 } }",
        x=(1, 1, 2, 2),
    )
    net.forward()
    net.backward()
    layer = weakref.ref(net.layers[1])
    del net
    gc.collect()
    assert layer() is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_layers_compute_in_the_precision_they_are_given(layer_of, dtype):
    for text, shape in (
        ('type: "Pooling" pooling_param { kernel_size: 2 pad: 1 pool: AVE }', (1, 2, 3, 3)),
        ('type: "Pooling" pooling_param { kernel_size: 2 pad: 1 }', (1, 2, 3, 3)),
        ('type: "BatchNorm"', (2, 2, 3, 3)),
        ('type: "Scale" scale_param { bias_term: true }', (1, 2, 3, 3)),
        ('type: "Convolution" convolution_param { num_output: 1 kernel_size: 2 }', (1, 2, 3, 3)),
        ('type: "MVN"', (1, 2, 3, 3)),
        ('type: "LRN"', (1, 2, 3, 3)),
    ):
        layer = layer_of(text, shape)
        blobs = [b.tensor().to(dtype) for b in layer.blobs]
        top = layer.forward([torch.randn(shape, dtype=dtype)], blobs)
        assert (top if isinstance(top, torch.Tensor) else top[0]).dtype == dtype


def test_every_value_that_a_release_build_would_read_astray_is_checked_before_use(net_of):
    """The process goes on after each error, and so does the net."""
    net = net_of(
        'layer { name: "e" type: "Embed" bottom: "x" top: "y" '
        "embed_param { input_dim: 2 num_output: 1 } }",
        x=(3,),
    )
    for bad in (2, -1, 1e9):
        net.blobs["x"].data[...] = bad
        with pytest.raises(caffe.CaffeError, match=r"layer 'e' .*out of range"):
            net.forward()
    net.blobs["x"].data[...] = 1
    net.forward()
    assert np.isfinite(net.blobs["y"].data).all()

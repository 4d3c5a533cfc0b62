"""Layers that combine, cut and rearrange, where Caffe has its own way."""

import numpy as np
import pytest
import torch

import caffe


def test_eltwise_max_gives_a_tie_to_the_second_and_a_later_one_must_exceed(net_of):
    net = net_of(
        'layer { name: "l" type: "Eltwise" bottom: "a" bottom: "b" bottom: "c" top: "y" '
        "eltwise_param { operation: MAX } }",
        **dict.fromkeys("abc", (3,)),
    )
    for name, values in {"a": [1, 5, 2], "b": [1, 5, 3], "c": [1, 6, 3]}.items():
        net.blobs[name].data[...] = values
    net.forward()
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert net.blobs["y"].data.tolist() == [1, 6, 3]
    assert [net.blobs[n].diff.tolist() for n in "abc"] == [[0, 0, 0], [1, 0, 1], [0, 1, 0]]


def test_eltwise_product_divides_on_demand_and_has_no_gradient_at_zero(layer_of):
    a, b = (torch.tensor(v, requires_grad=True) for v in ([0.0, 2.0], [3.0, 4.0]))
    for stable, expected in (("true", [3, 4]), ("false", [float("nan"), 4])):
        param = f"eltwise_param {{ operation: PROD stable_prod_grad: {stable} }}"
        layer = layer_of(f'type: "Eltwise" {param}', (2,), (2,))
        (gradient,) = torch.autograd.grad(layer.forward([a, b], []).sum(), a)
        np.testing.assert_array_equal(gradient, expected)


def test_eltwise_in_place_does_not_mix_up_the_bottoms_gradients(net_of):
    net = net_of(
        'layer { name: "p" type: "Power" bottom: "a" top: "h" power_param { scale: 2 } }'
        'layer { name: "l" type: "Eltwise" bottom: "h" bottom: "b" top: "h" '
        "eltwise_param { coeff: 3 coeff: 1 } }",
        a=(2,),
        b=(2,),
    )
    net.blobs["h"].data[...] = 0  # somebody looks: the gradient lies in memory that is kept
    net.forward()
    net.blobs["h"].diff[...] = [1, 10]
    net.backward()
    assert net.blobs["b"].diff.tolist() == [1, 10]
    assert net.blobs["a"].diff.tolist() == [6, 60]


def test_argmax_takes_the_highest_place_of_equals(layer_of):
    x = torch.tensor([[1.0, 3.0, 3.0, 0.0], [2.0, 2.0, 2.0, 2.0]])
    layer = layer_of('type: "ArgMax" argmax_param { top_k: 2 out_max_val: true }', (2, 4))
    top = layer.forward([x], [])
    assert top.tolist() == [[[2, 1], [3, 3]], [[3, 2], [2, 2]]]
    layer = layer_of('type: "ArgMax" argmax_param { axis: 1 out_max_val: true }', (2, 4))
    assert layer.forward([x], []).tolist() == [[3], [2]]


@pytest.mark.parametrize("values", ["true", "false"])
def test_argmax_takes_a_batch_of_none(layer_of, values):
    """A Filter before it may choose nothing."""
    layer = layer_of(f'type: "ArgMax" argmax_param {{ out_max_val: {values} }}', (2, 3, 4))
    (shape,) = layer.infer_shapes([(0, 3, 4)])
    assert layer.forward([torch.zeros(0, 3, 4)], []).shape == shape
    assert shape == (0, 2 if values == "true" else 1, 1)


def test_parameter_is_a_learned_blob(net_of):
    net = net_of(
        'layer { name: "w" type: "Parameter" top: "w" parameter_param { shape { dim: 2 } } }'
        'layer { name: "l" type: "Bias" bottom: "x" bottom: "w" top: "y" }',
        x=(3, 2),
    )
    net.params["w"][0].data[...] = [1, 2]
    net.forward()
    assert net.blobs["y"].data[0].tolist() == [1, 2]
    net.blobs["y"].diff[...] = 1
    net.backward()
    assert net.params["w"][0].diff.tolist() == [3, 3]


@pytest.mark.parametrize(
    ("text", "shapes", "cause"),
    [
        ('type: "Concat"', [(2, 3), (3, 3)], "bottom 1 has the shape .3, 3."),
        ('type: "Concat" concat_param { axis: 2 }', [(2, 3)], "axis 2 is out of range"),
        ('type: "Concat" concat_param { axis: 0 concat_dim: 0 }', [(2,)], "not both"),
        ('type: "Slice" top: "a" top: "b"', [(2, 3)], "3 cannot be cut into 2 equal parts"),
        (
            'type: "Slice" slice_param { slice_point: 2 slice_point: 1 } top: ["a", "b", "c"]',
            [(1, 3)],
            "must rise",
        ),
        ('type: "Eltwise"', [(2,), (3,)], "bottom 1 has the shape"),
        (
            'type: "Eltwise" eltwise_param { operation: PROD coeff: 1 coeff: 1 }',
            [(2,), (2,)],
            "coeff is for SUM",
        ),
        ('type: "InnerProduct"', [(2, 3)], "num_output must be positive"),
        ('type: "Embed" embed_param { num_output: 1 }', [(2,)], "input_dim must be positive"),
        ('type: "ArgMax" argmax_param { top_k: 4 }', [(2, 3)], "top_k is 4, expected 1 to 3"),
        ('type: "Reshape" reshape_param { shape { dim: 5 } }', [(2, 3)], "6 values"),
        ('type: "Reshape" reshape_param { shape { dim: -1 dim: -1 } }', [(6,)], "one -1"),
        ('type: "Reshape" reshape_param { shape { dim: -1 dim: 4 } }', [(6,)], "cannot be divided"),
        ('type: "Reshape" reshape_param { shape { dim: 6 dim: 0 } }', [(6,)], "no axis 1 to keep"),
        ('type: "Reshape" reshape_param { axis: 2 shape { dim: 1 } }', [(6,)], "axis 2 is out"),
        ('type: "Reshape" reshape_param { num_axes: 2 shape { dim: 6 } }', [(6,)], "num_axes 2"),
        ('type: "Tile"', [(2, 3)], "tiles is 0"),
        ('type: "Flatten" flatten_param { axis: 2 end_axis: 0 }', [(1, 2, 3)], "behind end_axis"),
        ('type: "Filter"', [(2, 3), (3,)], "expected the 3 samples"),
        ('type: "Filter"', [(2, 3), (2, 2)], "all axes but the first must be 1"),
        ('type: "BatchReindex"', [(2, 3), (2, 1)], "expected one axis"),
        ('type: "BatchReindex"', [(), (2,)], "bottom 0 has the shape .., expected at least 1 axis"),
        ('type: "ArgMax"', [()], "axis 0 is out of range for a bottom of 0 axes"),
        (
            'type: "Parameter" parameter_param { shape { dim: -1 } }',
            [],
            "parameter 0: .* not be negative",
        ),
        ('type: "Reduction" reduction_param { axis: 1 }', [(2,)], "axis 1 is out of range"),
        ('type: "Softmax" softmax_param { axis: 3 }', [(2, 3)], "axis 3 is out of range"),
    ],
)
def test_what_does_not_fit_is_refused(layer_of, text, shapes, cause):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer_of(text, *shapes)


@pytest.mark.parametrize(
    ("text", "shapes", "others", "cause"),
    [
        ('type: "PReLU"', [(2, 3)], [(2, 4)], "4 channels on axis 1, expected 3"),
        ('type: "Concat"', [(2, 3), (2, 3)], [(2, 3), (1, 3)], "bottom 1 has the shape"),
        ('type: "Slice" top: "a" top: "b"', [(2, 4)], [(2, 3)], "cannot be cut into 2"),
        ('type: "Eltwise"', [(2,), (2,)], [(2,), (1,)], "they must be equal"),
        (
            'type: "InnerProduct" inner_product_param { num_output: 2 }',
            [(2, 3)],
            [(2, 4)],
            "4 values from axis 1 on, expected 3",
        ),
        ('type: "ArgMax" argmax_param { top_k: 3 }', [(2, 3)], [(2, 2)], "expected 1 to 2"),
        ('type: "Softmax"', [(2, 3)], [(2,)], "axis 1 is out of range"),
        ('type: "Reshape" reshape_param { shape { dim: 6 } }', [(2, 3)], [(2, 4)], "8 values"),
        ('type: "BatchReindex"', [(2, 3), (2,)], [(2, 3), (2, 1)], "expected one axis"),
        ('type: "Filter"', [(2, 3), (2,)], [(2, 3), (3,)], "the 3 samples"),
    ],
)
def test_forward_refuses_what_came_to_fit_no_longer(layer_of, text, shapes, others, cause):
    layer = layer_of(text, *shapes)
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer.forward([torch.zeros(s) for s in others], [b.tensor() for b in layer.blobs])


def test_multiply_adds_of_a_fully_connected_layer(layer_of):
    param = "inner_product_param { num_output: 5 axis: 2 }"
    layer = layer_of(f'type: "InnerProduct" {param}', (2, 3, 4, 6))
    assert layer.macs([(2, 3, 4, 6)]) == (2 * 3) * (4 * 6) * 5


def test_indices_out_of_range_are_named(layer_of):
    layer = layer_of('type: "BatchReindex"', (2, 3), (4,))
    with pytest.raises(caffe.CaffeError, match="index 2 is out of range, expected 0 to 1"):
        layer.forward([torch.zeros(2, 3), torch.tensor([0.0, 1, 2, 0])], [])
    layer = layer_of('type: "Embed" embed_param { num_output: 1 input_dim: 3 }', (2,))
    blobs = [b.tensor() for b in layer.blobs]
    with pytest.raises(caffe.CaffeError, match="index -1 is out of range, expected 0 to 2"):
        layer.forward([torch.tensor([-1.0, 2])], blobs)


def test_a_weighted_sum_of_one(layer_of):
    layer = layer_of('type: "Eltwise" eltwise_param { coeff: 0.5 }', (2,))
    assert layer.forward([torch.tensor([2.0, 4.0])], []).tolist() == [1, 2]

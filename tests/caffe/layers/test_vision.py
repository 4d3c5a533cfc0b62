"""Convolutions, Im2col and Crop: geometry, any number of axes, what is refused."""

import numpy as np
import pytest
import torch

import caffe


def convolution(layer_of, param, *shapes, kind="Convolution"):
    filler = 'weight_filler { type: "uniform" min: -1 }'
    tops = " ".join(f'top: "t{i}"' for i in range(len(shapes)))
    return layer_of(f'type: "{kind}" convolution_param {{ {param} {filler} }} {tops}', *shapes)


def run(layer, *bottoms):
    return layer.forward(list(bottoms), [b.tensor() for b in layer.blobs])


@pytest.mark.parametrize(
    ("kind", "shape"), [("Convolution", (4, 3, 2, 3)), ("Deconvolution", (6, 2, 2, 3))]
)
def test_weights_of_groups(layer_of, kind, shape):
    param = "num_output: 4 group: 2 kernel_h: 2 kernel_w: 3"
    layer = convolution(layer_of, param, (1, 6, 5, 5), kind=kind)
    assert [b.shape for b in layer.blobs] == [shape, (4,)]


@pytest.mark.parametrize("axes", [1, 2, 3, 4])
def test_deconvolution_is_the_transpose_of_convolution(layer_of, axes):
    param = "kernel_size: 2 stride: 2 pad: 1 dilation: 2 group: 2 bias_term: false"
    down = convolution(layer_of, f"num_output: 6 {param}", (2, 4, *[5] * axes))
    (size,) = down.infer_shapes([(2, 4, *[5] * axes)])
    up = convolution(layer_of, f"num_output: 4 {param}", size, kind="Deconvolution")
    assert up.infer_shapes([size]) == [(2, 4, *[5] * axes)]
    up.blobs[0].data[...] = down.blobs[0].data
    torch.manual_seed(0)
    x, y = torch.randn(2, 4, *[5] * axes), torch.randn(size)
    # <C x, y> = <x, C' y>
    torch.testing.assert_close((run(down, x)[0] * y).sum(), (x * run(up, y)[0]).sum())


@pytest.mark.parametrize("axes", [0, 1, 2, 3, 4])
def test_convolution_is_im2col_and_a_product(layer_of, axes):
    geometry = "kernel_size: 2 stride: 2 pad: 1 dilation: 2" if axes else "kernel_size: 1"
    shape = (2, 3, *range(4, 4 + axes))
    layer = convolution(layer_of, f"num_output: 5 {geometry}", shape)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    weight, bias = (b.tensor() for b in layer.blobs)
    if axes:
        im2col = layer_of(f'type: "Im2col" convolution_param {{ {geometry} }}', shape)
        columns = im2col.forward([x], [])
        assert columns.shape[1] == 3 * 2**axes
    else:
        columns = x
    expected = torch.einsum("oc,nc...->no...", weight.flatten(1), columns)
    expected = expected + bias.view(-1, *[1] * axes)
    torch.testing.assert_close(run(layer, x)[0], expected, rtol=1e-4, atol=1e-5)


def test_axes_before_the_channels_are_samples(layer_of):
    layer = convolution(layer_of, "num_output: 2 kernel_size: 2 axis: 2", (3, 4, 5, 6, 6))
    assert layer.infer_shapes([(3, 4, 5, 6, 6)]) == [(3, 4, 2, 5, 5)]


def test_several_bottoms_share_the_weights(layer_of):
    layer = convolution(layer_of, "num_output: 1 kernel_size: 1", (1, 2, 3, 3), (1, 2, 3, 3))
    ones = torch.ones(1, 2, 3, 3)
    first, second = run(layer, ones, 2 * ones)
    torch.testing.assert_close(second, 2 * first)


def test_a_kernel_larger_than_the_image_by_less_than_a_stride_fits_once(layer_of):
    layer = convolution(layer_of, "num_output: 1 kernel_size: 3 stride: 2", (1, 1, 2, 2))
    ones = torch.ones(1, 1, 2, 2)
    (top,) = run(layer, ones)
    assert top.shape == (1, 1, 1, 1)
    np.testing.assert_allclose(float(top), layer.blobs[0].data[0, 0, :2, :2].sum(), rtol=1e-6)


def test_im2col_orders_channels_then_kernel(layer_of):
    layer = layer_of('type: "Im2col" convolution_param { kernel_size: 2 }', (1, 2, 2, 2))
    x = torch.arange(8.0).view(1, 2, 2, 2)
    assert layer.forward([x], []).flatten().tolist() == list(range(8))


@pytest.mark.parametrize(
    ("param", "first", "top"),
    [
        ("", 0, (2, 3, 2, 2)),
        ("offset: 1", 1 * 5 + 1, (2, 3, 2, 2)),
        ("offset: 1 offset: 3", 1 * 5 + 3, (2, 3, 2, 2)),
        ("axis: 1 offset: 1 offset: 0 offset: 2", 1 * 20 + 2, (2, 2, 2, 2)),
        ("axis: -1 offset: 2", 2, (2, 3, 4, 2)),
    ],
)
def test_crop_starts_at_the_offset(layer_of, param, first, top):
    layer = layer_of(f'type: "Crop" crop_param {{ {param} }}', (2, 3, 4, 5), (1, 2, 2, 2))
    x = torch.arange(120.0).view(2, 3, 4, 5)
    cropped = layer.forward([x, torch.zeros(1, 2, 2, 2)], [])
    assert cropped.shape == top
    assert float(cropped[0, 0, 0, 0]) == first


@pytest.mark.parametrize(
    ("text", "shapes", "cause"),
    [
        ("num_output: 1", [(1, 1, 4, 4)], "kernel_size must be given once"),
        ("num_output: 1 kernel_size: 0", [(1, 1, 4, 4)], "kernel dimensions must not be zero"),
        ("num_output: 1 kernel_h: 2", [(1, 1, 4, 4)], "kernel dimensions must not be zero"),
        ("num_output: 1 kernel_size: 2 stride: 0", [(1, 1, 4, 4)], "stride dimensions must not"),
        ("num_output: 1 kernel_size: 2 kernel_h: 2", [(1, 1, 4, 4)], "not both"),
        ("num_output: 1 kernel_h: 2 kernel_w: 2", [(1, 1, 4)], "for 2-D convolution only"),
        ("num_output: 1 kernel_size: [2, 2, 2]", [(1, 1, 4, 4)], "given 3 times"),
        ("num_output: 1 kernel_size: 2 pad: [1, 1, 1]", [(1, 1, 4, 4)], "pad must be given once"),
        ("kernel_size: 2", [(1, 1, 4, 4)], "num_output must be positive"),
        ("num_output: 2 kernel_size: 2 group: 2", [(1, 3, 4, 4)], "does not divide the 3 input"),
        ("num_output: 3 kernel_size: 2 group: 2", [(1, 2, 4, 4)], "the 3 outputs"),
        ("num_output: 1 kernel_size: 5", [(1, 1, 4, 4)], "too small for kernel"),
        ("num_output: 1 kernel_size: 2", [(1, 1, 4, 4), (1, 1, 4, 5)], "bottom 1 has the shape"),
        ("num_output: 1 kernel_size: 2 axis: 4", [(1, 1, 4, 4)], "axis 4 is out of range"),
        ("num_output: 1 kernel_size: 2", [()], "axis 1 is out of range"),
        ("num_output: 1 kernel_size: 2", [(1, 0, 4, 4)], "has no channels"),
        ("num_output: 1 kernel_size: 2 pad: 1", [(1, 1, 4, 0)], "an empty spatial axis"),
    ],
)
def test_what_cannot_be_convolved_is_refused(layer_of, text, shapes, cause):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        convolution(layer_of, text, *shapes)


def test_another_number_of_channels_is_refused(net_of):
    net = net_of(
        'layer { name: "c" type: "Convolution" bottom: "x" top: "y" '
        "convolution_param { num_output: 1 kernel_size: 1 } }",
        x=(1, 2, 3, 3),
    )
    net.blobs["x"].reshape(1, 3, 3, 3)
    with pytest.raises(caffe.CaffeError, match=r"layer 'c' .*expected 2 channels on axis 1"):
        net.reshape()


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_forward_refuses_bottoms_that_do_not_fit(layer_of, kind):
    layer = convolution(layer_of, "num_output: 1 kernel_size: 2 pad: 1", (1, 2, 3, 3), kind=kind)
    for shape in ((1, 3, 3, 3), (2, 3, 3), (1, 2, 3, 0)):
        with pytest.raises(caffe.CaffeError, match=r"layer 'l' .*bottom"):
            run(layer, torch.zeros(shape))


def test_a_batch_may_be_empty(layer_of):
    layer = convolution(layer_of, "num_output: 1 kernel_size: 2 pad: 1", (0, 2, 3, 3))
    assert run(layer, torch.zeros(0, 2, 3, 3))[0].shape == (0, 1, 4, 4)


@pytest.mark.parametrize(
    ("kind", "uses"),
    # Each weight is used once for each sample and each place: of the top, or of the bottom.
    [("Convolution", 2 * 3 * 2 * 2), ("Deconvolution", 2 * 3 * 5 * 5)],
)
def test_multiply_adds(layer_of, kind, uses):
    layer = convolution(
        layer_of, "num_output: 4 kernel_size: 2 stride: 3 group: 2 axis: 2", (2, 3, 6, 5, 5),
        kind=kind,
    )  # fmt: skip
    assert layer.macs([(2, 3, 6, 5, 5)]) == uses * 6 * 4 // 2 * 2 * 2


@pytest.mark.parametrize(
    ("param", "shapes", "cause"),
    [
        ("", [(1, 1, 4, 4), (1, 1, 5, 4)], "axis 2: 5 from 0 on exceed the 4"),
        ("offset: 3", [(1, 1, 4, 4), (1, 1, 2, 2)], "exceed"),
        ("offset: [1, 1, 1]", [(1, 1, 4, 4), (1, 1, 2, 2)], "offset is given 3 times"),
        ("", [(1, 1, 4, 4), (2, 2)], "expected 4 axes"),
        ("axis: 4", [(1, 1, 4, 4), (1, 1, 2, 2)], "axis 4 is out of range"),
    ],
)
def test_what_cannot_be_cropped_is_refused(layer_of, param, shapes, cause):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer_of(f'type: "Crop" crop_param {{ {param} }}', *shapes)


@pytest.mark.parametrize(
    "text", ["hole: 2", "hole_h: 2 hole_w: 2", "dilation_h: 2 dilation_w: 2", "dilation: 2"]
)
def test_forks_names_of_dilation(layer_of, text):
    layer = layer_of(
        f'type: "Convolution" convolution_param {{ num_output: 1 kernel_size: 3 {text} }}',
        (1, 1, 7, 6),
    )
    assert layer.infer_shapes([(1, 1, 7, 6)]) == [(1, 1, 3, 2)]


def test_one_name_of_dilation_at_a_time(layer_of):
    text = "num_output: 1 kernel_size: 3 hole: 2"
    for more in ("dilation: 2", "dilation_h: 2"):
        with pytest.raises(caffe.CaffeError, match="give "):
            layer_of(f'type: "Convolution" convolution_param {{ {text} {more} }}', (1, 1, 7, 7))

"""Pooling, pyramids and Unpooling where Caffe has its own way."""

import math

import numpy as np
import pytest
import torch

import caffe

LOWEST = np.finfo(np.float32).min


def pool(layer_of, param, x, tops=1, phase=caffe.TRAIN):
    x = torch.as_tensor(x, dtype=torch.float32)[None, None]
    names = " ".join(f'top: "t{i}"' for i in range(tops))
    layer = layer_of(f'type: "Pooling" pooling_param {{ {param} }} {names}', x.shape, phase=phase)
    pooled = layer.forward([x], [])
    first = pooled if tops == 1 else pooled[0]
    assert layer.infer_shapes([tuple(x.shape)])[0] == tuple(first.shape)
    return pooled


@pytest.mark.parametrize(
    ("size", "param", "windows"),
    [
        # ceil((7 - 2) / 2) + 1; FLOOR rounds down
        (7, "kernel_size: 2 stride: 2", 4),
        (7, "kernel_size: 2 stride: 2 round_mode: FLOOR", 3),
        # Without padding the last window may start beyond the image: 6 >= 5.
        (5, "kernel_size: 1 stride: 3", 3),
        # With padding it is dropped: (3 - 1) * 3 = 6 >= 5 + 1.
        (5, "kernel_size: 2 stride: 3 pad: 1", 2),
        (4, "kernel_size: 2 stride: 3 pad: 1", 2),
        (3, "kernel_size: 4 stride: 2", 1),
        (2, "kernel_size: 3 stride: 1 pad: 2", 4),
    ],
)
def test_the_number_of_windows(layer_of, size, param, windows):
    top = pool(layer_of, param, np.zeros((size, size)))
    assert top.shape == (1, 1, windows, windows)


def test_max_takes_the_first_of_equals_and_tells_its_place(layer_of):
    x = [[0, 2, 2], [2, 1, 0], [1, 1, 3]]
    y, mask = pool(layer_of, "kernel_size: 2 stride: 1", x, tops=2)
    assert y[0, 0].tolist() == [[2, 2], [2, 3]]
    assert mask[0, 0].tolist() == [[1, 1], [3, 8]]


def test_padding_never_wins_and_the_mask_leaves_it_out(layer_of):
    y, mask = pool(layer_of, "kernel_size: 3 pad: 2 stride: 2", -np.ones((3, 3)), tops=2)
    assert y.unique().tolist() == [-1]
    assert mask[0, 0].tolist() == [[0, 0, 2], [0, 0, 2], [6, 6, 8]]


def test_nan_and_what_is_below_all_floats_never_win(layer_of):
    x = [[np.nan, 1, np.nan, -np.inf]]
    y, mask = pool(layer_of, "kernel_h: 1 kernel_w: 2 stride: 2", x, tops=2)
    assert y[0, 0].tolist() == [[1, LOWEST]]
    assert mask[0, 0].tolist() == [[1, -1]]


def test_a_window_beyond_the_image_holds_nothing(layer_of):
    y, mask = pool(layer_of, "kernel_size: 1 stride: 3", np.ones((5, 5)), tops=2)
    assert y[0, 0, 2].tolist() == [LOWEST] * 3
    assert mask[0, 0, 2].tolist() == [-1] * 3


def test_average_counts_padding_but_no_overhang(layer_of):
    y = pool(layer_of, "pool: AVE kernel_size: 3 stride: 2 pad: 1", np.ones((4, 4)))
    # Rows -1..1, 1..3 and 3..4, clipped to -1..4: of 3, 3 and 2 rows 2, 3 and 1 are in the image.
    row = np.array([2 / 3, 1, 1 / 2])
    np.testing.assert_allclose(y[0, 0], np.outer(row, row), rtol=1e-6)


def test_global_pooling_follows_the_bottom(layer_of):
    layer = layer_of(
        'type: "Pooling" pooling_param { pool: AVE global_pooling: true }', (1, 1, 2, 3)
    )
    assert layer.infer_shapes([(4, 5, 6, 7)]) == [(4, 5, 1, 1)]


def test_stochastic_draws_by_share_in_train(layer_of):
    torch.manual_seed(0)
    x = np.tile([[0.0, 1], [3, 0]], (100, 100))
    y = pool(layer_of, "pool: STOCHASTIC kernel_size: 2 stride: 2", x)
    assert set(y.unique().tolist()) == {1, 3}
    # 10000 draws of a share of 3/4: standard deviation 0.0043
    assert abs((y == 3).float().mean() - 0.75) < 0.02


def test_stochastic_weighs_by_share_in_test(layer_of):
    x = [[1, 3, 0], [0, 0, 0]]
    y = pool(layer_of, "pool: STOCHASTIC kernel_size: 2 stride: 2", x, phase=caffe.TEST)
    assert y[0, 0].tolist() == [[(1 + 9) / 4, 0]]


def test_stochastic_gradient_goes_to_the_value_drawn(net_of):
    net = net_of(
        'layer { name: "l" type: "Pooling" bottom: "x" top: "y" '
        "pooling_param { pool: STOCHASTIC kernel_size: 2 } }",
        x=(1, 1, 2, 2),
    )
    net.blobs["x"].data[...] = [[1, 2], [3, 4]]
    net.forward()
    net.blobs["y"].diff[...] = 7
    net.backward()
    expected = np.where(net.blobs["x"].data == net.blobs["y"].data, 7, 0)
    assert net.blobs["x"].diff.tolist() == expected.tolist()


def test_pyramid_joins_its_levels(layer_of):
    layer = layer_of('type: "SPP" spp_param { pyramid_height: 2 }', (1, 1, 2, 3))
    top = layer.forward([torch.arange(6.0).view(1, 1, 2, 3)], [])
    # Level 1: 2 x 2 windows of 1 x 2, with a column of padding at the left.
    assert top.tolist() == [[5, 0, 2, 3, 5]]
    alone = layer_of('type: "SPP" spp_param { pyramid_height: 1 }', (1, 1, 2, 3))
    assert alone.infer_shapes([(1, 1, 2, 3)]) == [(1, 1, 1, 1)]


def test_unpooling_follows_a_new_size(layer_of):
    layer = layer_of('type: "Unpooling" unpooling_param { scale: 3 }', *[(1, 1, 2, 2)] * 2)
    assert layer.infer_shapes([(2, 4, 5, 3)] * 2) == [(2, 4, 15, 9)]


def test_unpooling_of_overlapping_windows_reads_the_last_writer_back(layer_of):
    layer = layer_of(
        'type: "Unpooling" unpooling_param { output_h: 1 output_w: 3 }', *[(1, 1, 1, 3)] * 2
    )
    x = torch.tensor([[[[5.0, 6, 7]]]], requires_grad=True)
    top = layer.forward([x, torch.tensor([[[[1.0, 1, 0]]]])], [])
    assert top.tolist() == [[[[7, 6, 0]]]]
    (gradient,) = torch.autograd.grad(top, x, torch.tensor([[[[10.0, 20, 30]]]]))
    assert gradient.tolist() == [[[[20, 20, 10]]]]


@pytest.mark.parametrize(
    ("text", "shapes", "cause"),
    [
        ('type: "Pooling"', [(1, 1, 4, 4)], "give either kernel_size"),
        ('type: "Pooling" pooling_param { kernel_h: 2 }', [(1, 1, 4, 4)], "give either kernel"),
        ('type: "Pooling" pooling_param { kernel_size: 0 }', [(1, 1, 4, 4)], "must not be zero"),
        ('type: "Pooling" pooling_param { kernel_size: 2 stride: 0 }', [(1, 1, 4, 4)], "stride"),
        ('type: "Pooling" pooling_param { kernel_size: 2 pad: 2 }', [(1, 1, 4, 4)], "smaller than"),
        ('type: "Pooling" pooling_param { kernel_size: 2 pad_h: 1 }', [(1, 1, 4, 4)], "pad_w"),
        ('type: "Pooling" pooling_param { kernel_size: 2 }', [(1, 4, 4)], "expected 4 axes"),
        ('type: "Pooling" pooling_param { kernel_size: 6 }', [(1, 1, 4, 4)], "too small"),
        (
            'type: "Pooling" pooling_param { global_pooling: true kernel_size: 2 }',
            [(1, 1, 4, 4)],
            "excludes a kernel size",
        ),
        (
            'type: "Pooling" pooling_param { global_pooling: true pad: 1 }',
            [(1, 1, 4, 4)],
            "only pad 0",
        ),
        (
            'type: "Pooling" pooling_param { pool: AVE kernel_size: 2 } top: "y" top: "mask"',
            [(1, 1, 4, 4)],
            "only MAX pooling has a second top",
        ),
        (
            'type: "Pooling" pooling_param { pool: STOCHASTIC kernel_size: 2 pad: 1 }',
            [(1, 1, 4, 4)],
            "padding is for MAX and AVE only",
        ),
        ('type: "Pooling" pooling_param { kernel_size: 2 }', [(1, 0, 4, 4)], "has no channels"),
        (
            'type: "Pooling" pooling_param { pool: AVE global_pooling: true }',
            [(1, 1, 4, 0)],
            "too small",
        ),
        ('type: "SPP"', [(1, 1, 4, 4)], "pyramid_height must be positive"),
        (
            'type: "SPP" spp_param { pyramid_height: 2 pool: STOCHASTIC }',
            [(1, 1, 3, 4)],
            "padding is for MAX and AVE only",
        ),
        ('type: "SPP" spp_param { pyramid_height: 3 }', [(1, 1, 5, 5)], "too small for level 2"),
        (
            'type: "SPP" spp_param { pyramid_height: 4294967295 }',
            [(1, 1, 3, 4)],
            r"pyramid_height is 4294967295: .*\(1, 1, 3, 4\) is too small for more than 2 levels",
        ),
        ('type: "Unpooling"', [(1, 1, 2, 2)] * 2, "needs output_h and output_w, or scale"),
        (
            'type: "Unpooling" unpooling_param { scale: 2 }',
            [(1, 1, 2, 2), (1, 1, 2, 3)],
            "must be the bottom's",
        ),
    ],
)
def test_what_does_not_fit_is_refused(layer_of, text, shapes, cause):
    with pytest.raises(caffe.CaffeError, match=f"layer 'l' .*{cause}"):
        layer_of(text, *shapes)


def test_a_mask_of_another_plane_is_named(layer_of):
    layer = layer_of(
        'type: "Unpooling" unpooling_param { output_h: 2 output_w: 2 }', *[(1, 1, 1, 1)] * 2
    )
    with pytest.raises(caffe.CaffeError, match="mask value 4 is out of range, expected 0 to 3"):
        layer.forward([torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 4.0)], [])


def test_a_mask_of_a_window_of_nan_is_named(layer_of):
    layer = layer_of('type: "Unpooling" unpooling_param { scale: 2 }', *[(1, 1, 1, 1)] * 2)
    with pytest.raises(caffe.CaffeError, match=r"mask value -1: .* NaN .*rate is too high"):
        layer.forward([torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), -1.0)], [])


def test_windows_agree_with_their_definition_over_many_geometries(layer_of):
    rng = np.random.default_rng(0)
    for _ in range(60):
        kernel, stride = rng.integers(1, 5, 2), rng.integers(1, 5, 2)
        pad = rng.integers(0, kernel)
        x = rng.standard_normal(rng.integers(4, 8, 2)).astype(np.float32)
        param = " ".join(
            f"{name}_h: {pair[0]} {name}_w: {pair[1]}"
            for name, pair in (("kernel", kernel), ("stride", stride), ("pad", pad))
        )
        for method in ("MAX", "AVE"):
            top = pool(layer_of, f"pool: {method} {param}", x)[0, 0]
            expected = by_definition(x, kernel, stride, pad, method)
            np.testing.assert_allclose(top, expected, rtol=1e-5, atol=1e-6)


def by_definition(x, kernel, stride, pad, method):
    """Window by window, as the rules in words say."""
    counts = []
    for n, k, s, p in zip(x.shape, kernel, stride, pad, strict=True):
        count = math.ceil((n + 2 * p - k) / s) + 1
        counts.append(count - (pad.any() and (count - 1) * s >= n + p))
    top = np.empty(counts)
    for place in np.ndindex(*counts):
        start = np.array(place) * stride - pad
        end = np.minimum(start + kernel, np.array(x.shape) + pad)
        inside = tuple(slice(max(a, 0), b) for a, b in zip(start, end, strict=True))
        values = x[inside]
        if method == "MAX":
            top[place] = values.max() if values.size else LOWEST
        else:
            with np.errstate(all="ignore"):
                top[place] = np.float32(values.sum()) / np.prod(end - start)
    return top

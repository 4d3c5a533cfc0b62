"""pool_values: pooling of which only the values are wanted."""

from __future__ import annotations

import numpy as np
import pytest
from nets import acted, conv, image, misfits

import caffe
from caffe.layers.pooling import Windows
from caffe.plan.rewrites import maxima

POOL = """layer {{ name: "p" type: "Pooling" bottom: "{0}" top: "p" {1}
  pooling_param {{ {2} }} }}"""


@pytest.fixture(params=["PyTorch's", "along axes", "along axes, in pieces"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How windows are pooled, in place of the choice by size."""
    if request.param != "PyTorch's":
        monkeypatch.setattr(maxima, "LEAST", 0)
    if "pieces" in request.param:
        monkeypatch.setattr(maxima, "PIECE", 1)
    return request.param


@pytest.mark.parametrize("size", [(9, 10), (8, 7), (3, 4)])
@pytest.mark.parametrize(
    "windows",
    [
        "kernel_size: 3 stride: 2",
        "kernel_size: 3 stride: 1 pad: 1",
        "kernel_size: 3 stride: 2 pad: 1",
        "kernel_size: 3 stride: 2 pad: 1 round_mode: FLOOR",
        "kernel_size: 3 stride: 2 pad: 2",  # more padding than PyTorch takes
        "kernel_size: 1 stride: 2",  # a last window behind the image
        "kernel_h: 2 kernel_w: 3 stride_h: 1 stride_w: 2 pad_h: 1 pad_w: 0",
        "kernel_h: 3 kernel_w: 1",
        "kernel_size: 5 stride: 1 pad: 2",
        "kernel_size: 4 stride: 3 pad: 2",
        "global_pooling: true",
    ],
)
@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_all_windows_pool_alike(
    method: str, windows: str, size: tuple[int, int], way: str, pair, same_passes
) -> None:
    nets = pair(image(3, 5, *size) + POOL.format("x", "", f"pool: {method} {windows}"), caffe.TEST)
    assert acted(nets[1], "pool_values") == 1
    same_passes(nets, backward=False)
    values = np.random.default_rng(3).integers(-2, 2, (3, 5, *size))  # equal ones; all below zero
    for net in nets:
        net.blobs["x"].data[...] = values
    same_passes(nets, backward=False)


def test_largest_values_are_the_same_to_the_bit(way: str, pair) -> None:
    body = image(2, 8, 9, 10) + POOL.format("x", "", "kernel_size: 3 stride: 2 pad: 1")
    first, second = (net.forward()["p"] for net in pair(body, caffe.TEST))
    assert np.array_equal(first, second)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(value: float, way: str, pair) -> None:
    """In Caffe's own code NaN never wins."""
    windows = "kernel_size: 3 stride: 2 pad: 1"
    nets = pair(image(2, 3, 9, 10) + POOL.format("x", "", windows), caffe.TEST)
    for net in nets:
        net.blobs["x"].data[0, 1, 4, 4] = value
        net.blobs["x"].data[1, :, :4, :4] = value  # whole windows
    first, second = (net.forward()["p"] for net in nets)
    np.testing.assert_array_equal(first, second)


def test_another_shape_has_other_windows(way: str, pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + POOL.format("x", "", "kernel_size: 3 stride: 2"), caffe.TEST)
    for shape in ((2, 3, 9, 10), (1, 3, 12, 7), (0, 3, 9, 10), (3, 3, 9, 10)):
        for net in nets:
            net.blobs["x"].reshape(*shape)
            net.blobs["x"].data[...] = np.random.default_rng(1).normal(size=shape)
        outs = [net.forward()["p"] for net in nets]
        np.testing.assert_array_equal(*outs)


def test_overlapping_windows_of_large_images_are_compared_along_the_axes() -> None:
    images = (10, 64, 56, 56)
    assert maxima.maxima(images, Windows((3, 3), (1, 1), (1, 1)))
    assert maxima.maxima(images, Windows((3, 3), (2, 2), (0, 0)))
    assert maxima.maxima(images, Windows((2, 2), (2, 2), (0, 0))) is None
    assert maxima.maxima((1, 4, 56, 56), Windows((3, 3), (1, 1), (1, 1))) is None


def test_in_bfloat16_values_stay_as_they_are(way: str, pair) -> None:
    caffe.set_precision("bf16")
    body = image(2, 3, 9, 10) + conv("c", "x", "y") + POOL.format("y", "", "kernel_size: 3")
    first, second = (net.forward()["p"] for net in pair(body, caffe.TEST))
    assert np.abs(first - second).max() < 0.02 * np.abs(first).max()


def test_where_it_does_not_act(pair, same_passes) -> None:
    text = POOL.format("x", 'top: "mask"', "kernel_size: 3 stride: 2")
    nets = pair(image(2, 3, 9, 10) + text, caffe.TEST)
    assert misfits(nets[1], "pool_values") == {"p": "has a mask"}
    same_passes(nets, backward=False)
    # What pool_by_indices takes, and what neither does:
    for others in ("kernel_size: 2 stride: 2", "pool: STOCHASTIC kernel_size: 3"):
        nets = pair(image(2, 3, 9, 10) + POOL.format("x", "", others), caffe.TEST)
        assert not acted(nets[1], "pool_values")


def test_a_bottom_that_does_not_fit_is_refused_as_by_the_layer(pair, same_refusal) -> None:
    nets = pair(image(2, 3, 9, 10) + POOL.format("x", "", "kernel_size: 3"), caffe.TEST)
    same_refusal(nets, "x", (2, 3, 9, 2))

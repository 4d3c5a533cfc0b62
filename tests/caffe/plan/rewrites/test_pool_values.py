"""pool_values: pooling of which only the values are wanted."""

from __future__ import annotations

import numpy as np
import pytest
from nets import acted, conv, image, misfits

import caffe

POOL = """layer {{ name: "p" type: "Pooling" bottom: "{0}" top: "p" {1}
  pooling_param {{ {2} }} }}"""


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
        "global_pooling: true",
    ],
)
@pytest.mark.parametrize("method", ["MAX", "AVE"])
def test_all_windows_pool_alike(
    method: str, windows: str, size: tuple[int, int], pair, same_passes
) -> None:
    nets = pair(image(2, 5, *size) + POOL.format("x", "", f"pool: {method} {windows}"), caffe.TEST)
    assert acted(nets[1], "pool_values") == 1
    same_passes(nets, backward=False)
    values = np.random.default_rng(3).integers(-2, 2, (2, 5, *size))  # equal ones; all below zero
    for net in nets:
        net.blobs["x"].data[...] = values
    same_passes(nets, backward=False)


def test_largest_values_are_the_same_to_the_bit(pair) -> None:
    body = image(2, 8, 9, 10) + POOL.format("x", "", "kernel_size: 3 stride: 2 pad: 1")
    first, second = (net.forward()["p"] for net in pair(body, caffe.TEST))
    assert np.array_equal(first, second)


def test_in_bfloat16_values_stay_as_they_are(pair) -> None:
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

"""normalize_pixels: LRN across channels in the convolutions' layout."""

from __future__ import annotations

import numpy as np
import pytest
from nets import acted, conv, image, misfits

import caffe
from caffe.plan.rewrites import normalize_pixels

LRN = 'layer {{ name: "n" type: "LRN" bottom: "{0}" top: "n" lrn_param {{ {1} }} }}'


@pytest.mark.parametrize("channels", [1, 3, 8])
@pytest.mark.parametrize(
    "how",
    [
        "",
        "local_size: 1",
        "local_size: 3 alpha: 0.5 beta: 0.75 k: 2",
        "local_size: 5 alpha: 2 beta: 0.5",
        "local_size: 7 alpha: 1 beta: 0 k: 0.5",
        "local_size: 9 alpha: 3",
        "local_size: 11 alpha: 2 beta: 0.6 k: 1.5",
    ],
)
@pytest.mark.parametrize("piece", [1, 50, 1 << 18], ids=["pixels", "some pixels", "whole"])
def test_all_sizes_and_powers(
    how: str, channels: int, piece: int, pair, same_passes, monkeypatch
) -> None:
    monkeypatch.setattr(normalize_pixels, "PIECE", piece)
    nets = pair(image(2, channels, 4, 5) + LRN.format("x", how), caffe.TEST)
    assert acted(nets[1], "normalize_pixels") == 1
    same_passes(nets, backward=False)


def test_between_convolutions(pair, same_passes) -> None:
    body = image(2, 3, 9, 10) + conv("c", "x", "y", 16) + LRN.format("y", "alpha: 0.1")
    nets = pair(body + conv("d", "n", "z"), caffe.TEST)
    assert acted(nets[1], "normalize_pixels") == 1
    same_passes(nets, backward=False)


@pytest.mark.parametrize("others", [False, True], ids=["alone", "with others"])
def test_a_bottom_that_nobody_else_takes_is_written_over(others: bool, pair, same_passes) -> None:
    text = image(2, 3, 9, 10) + conv("c", "x", "y", 16) + LRN.format("y", "alpha: 0.1")
    nets = pair(text + (conv("d", "y", "z") if others else ""), caffe.TEST)
    same_passes(nets, backward=False)
    node = next(node for node in nets[1].plan.nodes if node.name == "n")
    places, run = [], node.run

    def watched(bottom, blobs):
        tops = run(bottom, blobs)
        places.append((bottom[0].data_ptr(), tops[0].data_ptr()))
        return tops

    node.run = watched
    nets[1].forward()
    ((bottom, top),) = places
    assert (bottom == top) is not others


@pytest.mark.parametrize("top", ["x", "y"], ids=["looked at", "of a known bound"])
@pytest.mark.parametrize("size", [3, 5, 7])
def test_no_digit_is_lost(size: int, top: str, pair) -> None:
    """A few roundings of float32, also where a window holds large values beside small ones."""
    body = image(2, 40, 4, 5) + conv("c", "x", "y", 40, "kernel_size: 1 bias_term: false")
    net = pair(body + LRN.format(top, f"local_size: {size} alpha: 0.3"), caffe.TEST)[1]
    net.params["c"][0].data[...] = np.eye(40)[:, :, None, None]
    rng = np.random.default_rng(3)
    x = rng.normal(size=(2, 40, 4, 5)) * 10.0 ** rng.integers(-3, 4, (2, 40, 4, 5))
    x = x.astype(np.float32)
    net.blobs["x"].data[...] = x
    squares = np.pad(x.astype(float) ** 2, ((0, 0), (size // 2,) * 2, (0, 0), (0, 0)))
    sums = sum(squares[:, k : k + 40] for k in range(size))
    exact = x / (1 + 0.3 / size * sums) ** 0.75
    np.testing.assert_allclose(net.forward()["n"], exact, rtol=1e-6)


def test_sums_beyond_float32_give_zero_as_in_the_layer(pair) -> None:
    body = image(2, 3, 9, 10) + conv("c", "x", "y", 8) + LRN.format("y", "alpha: 0.1")
    nets = pair(body, caffe.TEST)
    for net in nets:
        net.blobs["x"].data[...] *= 1e21
    assert not np.any([net.forward()["n"] for net in nets])


def test_other_shapes(pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + LRN.format("x", ""), caffe.TEST)
    for shape in ((2, 3, 9, 10), (0, 3, 9, 10), (1, 7, 2, 3)):
        for net in nets:
            net.blobs["x"].reshape(*shape)
            net.blobs["x"].data[...] = np.random.default_rng(1).normal(size=shape)
        np.testing.assert_allclose(*(net.forward()["n"] for net in nets), rtol=1e-5)


def test_within_channels_it_does_not_fit(pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + LRN.format("x", "norm_region: WITHIN_CHANNEL"), caffe.TEST)
    assert misfits(nets[1], "normalize_pixels") == {"n": "normalizes within channels"}
    same_passes(nets, backward=False)

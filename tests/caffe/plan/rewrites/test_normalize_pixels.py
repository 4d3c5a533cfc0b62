"""normalize_pixels: LRN across channels in the convolutions' layout."""

from __future__ import annotations

import pytest
from nets import acted, conv, image, misfits

import caffe

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
    ],
)
def test_all_sizes_and_powers(how: str, channels: int, pair, same_passes) -> None:
    nets = pair(image(2, channels, 4, 5) + LRN.format("x", how), caffe.TEST)
    assert acted(nets[1], "normalize_pixels") == 1
    same_passes(nets, backward=False)


def test_between_convolutions(pair, same_passes) -> None:
    body = image(2, 3, 9, 10) + conv("c", "x", "y", 16) + LRN.format("y", "alpha: 0.1")
    nets = pair(body + conv("d", "n", "z"), caffe.TEST)
    assert acted(nets[1], "normalize_pixels") == 1
    same_passes(nets, backward=False)


def test_within_channels_it_does_not_fit(pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + LRN.format("x", "norm_region: WITHIN_CHANNEL"), caffe.TEST)
    assert misfits(nets[1], "normalize_pixels") == {"n": "normalizes within channels"}
    same_passes(nets, backward=False)

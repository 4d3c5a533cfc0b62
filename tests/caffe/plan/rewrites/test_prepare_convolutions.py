"""prepare_convolutions: deploy convolutions with all that follows them."""

from __future__ import annotations

import numpy as np
import pytest
from nets import GEOMETRIES, acted, conv, geometry, image, misfits, names, norm, set_statistics

import caffe


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("shape", GEOMETRIES)
def test_convolutions_predict_alike(shape: str, bias: bool, pair, same_passes) -> None:
    before, layer = geometry(shape, bias)
    nets = pair(before + layer + norm("bn", "z"), caffe.TEST)
    set_statistics(nets, "bn")
    assert names(nets[1])[-1] == "conv+bn+bn_s+bn_r"
    assert acted(nets[1], "prepare_convolutions") == 2
    same_passes(nets, backward=False)


@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
@pytest.mark.parametrize("how", ["", "group: 2", "bias_term: false", "stride: 2"])
@pytest.mark.parametrize("after", ["nothing", "ReLU", "BatchNorm"])
def test_weights_larger_than_the_image_predict_alike(
    kind: str, how: str, after: str, pair, same_passes
) -> None:
    text = image(1, 64, 3, 4) + conv("conv", "x", "y", 128, f"pad: 1 kernel_size: 3 {how}", kind)
    text += norm("bn", "y") if after == "BatchNorm" else ""
    text += 'layer { name: "r" type: "ReLU" bottom: "y" top: "y" }' if after == "ReLU" else ""
    nets = pair(text, caffe.TEST)
    if after == "BatchNorm":
        set_statistics(nets, "bn")
    same_passes(nets, backward=False)
    for net in nets:
        net.params["conv"][0].data[...] *= 2
    same_passes(nets, backward=False)


def test_other_convolutions_stay_as_they_are(pair, same_passes) -> None:
    nets = pair(image(2, 3, 9) + conv("one", "x", "y", how="kernel_size: 3"), caffe.TEST)
    reason = "convolves another number of axes than two behind axis 1"
    assert misfits(nets[1], "prepare_convolutions") == {"one": reason}
    same_passes(nets, backward=False)


POOLED = """
layer { name: "p" type: "Pooling" bottom: "y" top: "p" top: "mask"
  pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "u" type: "Unpooling" bottom: "p" bottom: "mask" top: "u"
  unpooling_param { scale: 2 } }
"""


def test_in_flat_parts_of_a_picture_masks_name_the_first_of_equals(pair) -> None:
    """As layer by layer, and as in Caffe: there the sums of equal pixels are the same sums."""
    body = image(1, 64, 96, 128) + conv("c", "x", "y", 128, "pad: 1 kernel_size: 3")
    nets = pair(body + POOLED, caffe.TEST)
    for net in nets:
        net.blobs["x"].data[...] = np.random.default_rng(0).uniform(1, 255, (64, 1, 1))
        net.forward()
    places = [net.blobs["u"].data[:, :, 2:-2, 2:-2] != 0 for net in nets]
    assert places[0][:, :, ::2, ::2].all()
    assert np.array_equal(*places)

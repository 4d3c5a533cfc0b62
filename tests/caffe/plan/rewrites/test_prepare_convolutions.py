"""prepare_convolutions: deploy convolutions with all that follows them."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format
from nets import GEOMETRIES, acted, conv, geometry, image, misfits, names, norm, set_statistics

import caffe
from caffe.proto import caffe_pb2 as pb


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


SUM = 'layer { name: "s" type: "Eltwise" bottom: "%s" bottom: "%s" top: "z" }'
RELU = 'layer { name: "r" type: "ReLU" bottom: "z" top: "z" }'


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("order", [("y", "w"), ("w", "y")], ids=["first", "second"])
@pytest.mark.parametrize(
    "shape", ["plain", "groups", "depthwise", "winograd", "transposed, stride"]
)
def test_a_sum_and_its_relu_become_part(
    shape: str, order: tuple[str, str], precision: str, pair, same_passes
) -> None:
    kind, how, inputs, outputs = GEOMETRIES[shape]
    caffe.set_precision(precision)
    size = (20, 36) if shape == "winograd" else (9, 10)
    body = image(2, inputs, *size) + conv("c", "x", "y", outputs, how, kind)
    net = caffe.Net(text_format.Parse(body, pb.NetParameter()), caffe.TEST)
    other = image(*net.blobs["y"].shape, name="w")
    body += norm("bn", "y", relu=False) + other + SUM % order + RELU
    nets = pair(body, caffe.TEST)
    set_statistics(nets, "bn")
    assert names(nets[1])[-1] == "c+bn+bn_s+s+r"
    if precision == "fp32":
        same_passes(nets, backward=False)
    else:
        layers, plan = (net.forward()["z"] for net in nets)
        assert np.abs(plan - layers).max() < 0.02 * np.abs(layers).max()


def test_both_terms_of_a_sum_may_be_convolutions(pair, same_passes) -> None:
    """The first becomes part of the sum; the other's term is added behind it."""
    body = image(2, 3, 9, 10) + conv("c", "x", "y") + conv("d", "x", "w") + SUM % ("y", "w")
    nets = pair(body + RELU + conv("e", "z", "v"), caffe.TEST)
    assert names(nets[1])[1:] == ["d", "c+s+r", "e"]
    same_passes(nets, backward=False)
    nets[1].blobs["x"].data[...] = nets[0].blobs["x"].data[...] = 1e38  # beyond the bounds
    same_passes(nets, backward=False)


@pytest.mark.parametrize(
    "after",
    [
        SUM % ("y", "y"),
        SUM % ("y", "w") + conv("e", "y", "v") + conv("f", "w", "u"),
        (SUM % ("y", "w")).replace("top", "eltwise_param { coeff: 1 coeff: 2 } top"),
        (SUM % ("y", "w")).replace("top", "eltwise_param { operation: PROD } top"),
    ],
    ids=["with itself", "other takers", "coefficients", "product"],
)
def test_sums_that_stay_as_they_are(after: str, pair, same_passes) -> None:
    nets = pair(image(2, 3, 9, 10) + conv("c", "x", "y") + conv("d", "x", "w") + after, caffe.TEST)
    assert "s" in names(nets[1])
    same_passes(nets, backward=False)


def test_a_term_of_another_shape_is_refused_as_by_the_layer(pair, same_refusal) -> None:
    body = image(2, 3, 9, 10) + conv("c", "x", "y") + image(2, 4, 9, 10, name="w")
    same_refusal(pair(body + SUM % ("y", "w"), caffe.TEST), "w", (2, 4, 9, 11))


@pytest.mark.parametrize("size", [(9, 10), (8, 7), (1, 1)])
@pytest.mark.parametrize("how", ["stride: 2", "stride_h: 1 stride_w: 3", "stride: 2 group: 2"])
def test_points_with_a_stride(how: str, size: tuple[int, int], pair, same_passes) -> None:
    nets = pair(image(2, 4, *size) + conv("c", "x", "y", 6, f"kernel_size: 1 {how}"), caffe.TEST)
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

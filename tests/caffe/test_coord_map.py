"""coord_map: where a pixel of one blob lies in another."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe import coord_map
from caffe import layers as L
from caffe.coord_map import compose, coord_map_from_to, crop, inverse
from caffe.layers.base import REGISTRY


def fcn(pad=100):
    """The outline of FCN-32s: five poolings and one upsampling by 32."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 3, 500, 500]})
    top = L.Convolution(n.data, num_output=2, kernel_size=3, pad=pad)
    for _ in range(5):
        top = L.Pooling(L.ReLU(top), kernel_size=2, stride=2)
    top = L.Convolution(top, num_output=2, kernel_size=7)
    n.score = L.Deconvolution(
        top, convolution_param={"num_output": 2, "kernel_size": 64, "stride": 32}
    )
    return n


def test_fcn_crops_at_19():
    """The offset of the published FCN-32s (Long et al., 2015)."""
    n = fcn()
    axis, scale, shift = coord_map_from_to(n.score, n.data)
    assert (axis, scale, shift) == (1, 1, -19)
    n.cropped = crop(n.score, n.data)
    param = n.to_proto().layer[-1].crop_param
    assert (param.axis, list(param.offset)) == (2, [19])


@pytest.mark.parametrize(("kernel", "stride", "pad"), [(3, 1, 0), (5, 2, 1), (4, 3, 2), (2, 2, 0)])
@pytest.mark.parametrize("kind", ["Convolution", "Deconvolution"])
def test_the_map_is_where_the_weight_is(kind, kernel, stride, pad):
    """A symmetric bump moves as the map says; its middle is found as the centre of mass."""
    n = caffe.NetSpec()
    n.data = L.Input(shape={"dim": [1, 1, 40, 40]})
    ones = {"type": "constant", "value": 1}
    geometry = {"kernel_size": kernel, "stride": stride, "pad": pad}
    param = {"num_output": 1, "weight_filler": ones, **geometry}
    n.top = getattr(L, kind)(n.data, convolution_param=param)
    net = caffe.Net(n.to_proto(), caffe.TEST)
    rows = np.arange(40)
    net.blobs["data"].data[0, 0] = np.maximum(0, 1 - np.abs(rows - 17) / 6.0)[:, None]
    out = net.forward()["top"][0, 0, :, net.blobs["top"].shape[3] // 2]
    middle = (out * np.arange(len(out))).sum() / out.sum()
    axis, scale, shift = coord_map_from_to(n.top, n.data)
    assert axis == 1
    assert (17 - shift) / scale == pytest.approx(middle, abs=1e-4)


def test_both_ways():
    n = fcn()
    there, back = coord_map_from_to(n.score, n.data), coord_map_from_to(n.data, n.score)
    assert compose(there, back) == (1, 1, 0)
    assert inverse(there) == back


def test_axes_must_agree():
    with pytest.raises(coord_map.AxisMismatchException, match="axis 1 and of axis 2"):
        compose((1, 1, 0), (2, 1, 0))
    assert compose((None, 1, 0), (2, 3, 4)) == (2, 3, 4)


def test_layers_without_a_map():
    n = fcn()
    n.ip = L.InnerProduct(n.score, num_output=2)
    with pytest.raises(coord_map.UndefinedMapException, match="InnerProduct"):
        coord_map.coord_map(n.ip.fn)
    n.pooled = L.Pooling(n.data, global_pooling=True)
    with pytest.raises(RuntimeError, match="no map between"):
        coord_map_from_to(n.pooled, n.data)
    n.odd = L.Convolution(n.data, kernel_h=3, kernel_w=1, num_output=1)
    with pytest.raises(AssertionError, match="kernel_h is not supported"):
        coord_map_from_to(n.odd, n.data)


def test_crops_that_cannot_be():
    n = fcn(pad=0)
    with pytest.raises(AssertionError, match="negative offset"):
        crop(n.score, n.data)
    n.half = L.Pooling(n.data, kernel_size=2, stride=2)
    with pytest.raises(AssertionError, match="differ in scale"):
        crop(n.half, n.data)
    n.even = L.Convolution(n.data, kernel_size=2, num_output=1)
    with pytest.raises(AssertionError, match="not whole pixels"):
        crop(n.data, n.even)


def test_many_paths_are_walked_once():
    """A chain of diamonds has 2^40 paths."""
    n = caffe.NetSpec()
    n.data = top = L.Input(shape={"dim": [1, 1, 8, 8]})
    for _ in range(40):
        top = L.Eltwise(L.ReLU(top), L.AbsVal(top))
    assert coord_map_from_to(top, n.data) == (None, 1, 0)
    text_format.MessageToString(caffe.to_proto(crop(top, n.data)))


def test_layers_that_pass_coordinates_through():
    names = coord_map.PASS_THROUGH_LAYERS
    forks = [name for name in names if REGISTRY[name].fork]
    assert {"BN", "Normalize", "ReLU6"} <= set(forks)
    assert [name for name in names if name not in forks] == [
        *("AbsVal", "BNLL", "BatchNorm", "Bias", "Clip", "Dropout", "ELU", "Eltwise", "Exp", "LRN"),
        *("Log", "MVN", "PReLU", "Power", "ReLU", "Scale", "Sigmoid", "Split", "Swish", "TanH"),
        "Threshold",
    ]


def test_scripts_may_add_types_that_pass_coordinates_through():
    n = fcn()
    n.mine = L.TheirLayer(n.score)
    with pytest.raises(coord_map.UndefinedMapException, match="TheirLayer has no map"):
        coord_map.coord_map(n.mine.fn)
    coord_map.PASS_THROUGH_LAYERS.append("TheirLayer")
    try:
        assert coord_map_from_to(n.mine, n.data) == (1, 1, -19)
    finally:
        coord_map.PASS_THROUGH_LAYERS.remove("TheirLayer")


def test_importing_loads_no_torch():
    code = "import sys, caffe.coord_map, caffe.draw; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

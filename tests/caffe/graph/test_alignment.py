"""Crop layers without crop_param: at 0 as in BVLC Caffe, or by coordinates as in forks."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.commands.cli import main
from caffe.proto import caffe_pb2 as pb

DATA = (
    'layer { name: "data" type: "Input" top: "data" '
    "input_param { shape { dim: 1 dim: 2 dim: 20 dim: 26 } } }"
)


def conv(name: str, bottom: str, text: str, kind: str = "Convolution") -> str:
    filler = 'weight_filler { type: "gaussian" std: 1 }'
    return (
        f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{name}" '
        f"convolution_param {{ num_output: 2 {text} {filler} }} }}"
    )


def pool(name: str, bottom: str) -> str:
    return (
        f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" '
        "pooling_param { kernel_size: 2 stride: 2 } }"
    )


def crop(top: str, bottom: str, size: str = "data", param: str = "") -> str:
    return (
        f'layer {{ name: "crop" type: "Crop" bottom: "{bottom}" bottom: "{size}" top: "{top}" '
        f"{param} }}"
    )


RELU = 'layer { name: "relu" type: "ReLU" bottom: "conv1" top: "conv1" }'
# As HED: a wide border at the beginning, side outputs that are scaled up and cut to the image.
HED = (
    DATA
    + conv("conv1", "data", "kernel_size: 3 pad: 35")
    + RELU
    + conv("side1", "conv1", "kernel_size: 1")
    + crop("out1", "side1")
    + pool("pool1", "conv1")
    + conv("conv2", "pool1", "kernel_h: 3 kernel_w: 3 pad: 1")
    + conv("side2", "conv2", "kernel_size: 4 stride: 2", "Deconvolution")
    + crop("out2", "side2")
    + pool("pool2", "conv2")
    + conv("side3", "pool2", "kernel_size: 8 stride: 4", "Deconvolution")
    + crop("out3", "side3")
)


@pytest.fixture(autouse=True)
def unset(monkeypatch):
    monkeypatch.setenv("CAFFE_ALIGN_CROPS", "0")  # what tests set goes at the end


def net_of(text: str) -> caffe.Net:
    return caffe.Net(text_format.Parse(text, pb.NetParameter()), caffe.TEST)


def offsets(net: caffe.Net) -> list[list[int]]:
    crops = [layer.layer_param for layer in net.layers if layer.type == "Crop"]
    return [list(param.crop_param.offset) for param in crops]


def warnings(text: str) -> list[str]:
    return [line for line in text.splitlines() if "without crop_param" in line]


def test_a_net_like_hed():
    """A 3x3 convolution of pad 35 shifts by 35 - 1 = 34. Pooling 2x2 has the map i/2 - 1/4, the
    deconvolution 4x4 of stride 2 the map 2 i + 3/2: (i + 34) - 1/2 + 3/2 = i + 35. Two poolings
    have i/4 - 3/8, the deconvolution 8x8 of stride 4 has 4 i + 7/2: (i + 34) - 3/2 + 7/2 = i + 36.
    """
    caffe.set_crop_alignment(True)
    net = net_of(HED)
    assert offsets(net) == [[34, 34], [35, 35], [36, 36]]
    x = np.random.default_rng(0).normal(size=(1, 2, 20, 26)).astype(np.float32)
    net.forward(data=x)
    for i, start in ((1, 34), (2, 35), (3, 36)):
        whole, cut = net.blobs[f"side{i}"].data, net.blobs[f"out{i}"].data
        np.testing.assert_array_equal(cut, whole[:, :, start : start + 20, start : start + 26])
    copied = net_of(text_format.MessageToString(net.to_proto()))
    assert offsets(copied) == offsets(net)  # what is saved or exported says where it cuts


def test_auto_crop_is_aligned_without_the_setting(capfd):
    net = net_of(HED.replace('"Crop"', '"AutoCrop"'))
    crops = [layer.layer_param for layer in net.layers if layer.type == "AutoCrop"]
    places = [list(param.crop_param.offset) for param in crops]
    assert places == [[34, 34], [35, 35], [36, 36]]  # as above
    assert warnings(capfd.readouterr().err) == []


def test_a_net_like_deconvnets_fcn(tmp_path):
    """Old layer types, and a crop whose size is an upscaled blob: FCN-8s cuts at 5, 9 and 31.

    Here, one level of it: pool1 (i + 100 - 1)/2 - 1/4 = i/2 + 49.25 is cut to the blob that a 7x7
    convolution behind another pooling (i/4 + 24.375 - 3 = i/4 + 21.375) and a deconvolution 4x4 of
    stride 2 (2 i + 3/2) make: i/2 + 44.25, which is 5 before it. Back to the image it is
    2 (i/2 + 44.25) + 3/2 = i + 90.
    """
    text = """
        input: "data" input_dim: 1 input_dim: 2 input_dim: 20 input_dim: 26
        layers { name: "c1" type: CONVOLUTION bottom: "data" top: "c1"
          convolution_param { num_output: 2 kernel_size: 3 pad: 100 } }
        layers { name: "p1" type: POOLING bottom: "c1" top: "p1"
          pooling_param { kernel_size: 2 stride: 2 } }
        layers { name: "p2" type: POOLING bottom: "p1" top: "p2"
          pooling_param { kernel_size: 2 stride: 2 } }
        layers { name: "c7" type: CONVOLUTION bottom: "p2" top: "c7"
          convolution_param { num_output: 2 kernel_size: 7 } }
        layers { name: "d1" type: DECONVOLUTION bottom: "c7" top: "d1"
          convolution_param { num_output: 2 kernel_size: 4 stride: 2 } }
        layers { name: "crop" type: CROP bottom: "p1" bottom: "d1" top: "p1c" }
        layers { name: "fuse" type: ELTWISE bottom: "d1" bottom: "p1c" top: "fuse" }
        layers { name: "d2" type: DECONVOLUTION bottom: "fuse" top: "d2"
          convolution_param { num_output: 2 kernel_size: 4 stride: 2 } }
        layers { name: "crop" type: CROP bottom: "d2" bottom: "data" top: "score" } """
    caffe.set_crop_alignment(True)
    (tmp_path / "fcn.prototxt").write_text(text)
    assert offsets(caffe.Net(str(tmp_path / "fcn.prototxt"), caffe.TEST)) == [[5, 5], [90, 90]]


def test_without_the_setting_a_net_warns_once_and_begins_at_0(capfd):
    net = net_of(HED)
    assert offsets(net) == [[], [], []]
    (line,) = warnings(capfd.readouterr().err)
    assert line.endswith(
        "Nets of HED, CRF-RNN and DeconvNet mean them to be aligned by coordinates (-align_crops, "
        "caffe.set_crop_alignment(True)): 'crop' at 34, 34; 'crop' at 35, 35; 'crop' at 36, 36"
    )
    x = np.random.default_rng(0).normal(size=(1, 2, 20, 26)).astype(np.float32)
    net.forward(data=x)
    np.testing.assert_array_equal(net.blobs["out1"].data, net.blobs["side1"].data[..., :20, :26])
    caffe.to_module(net)  # a copy, whose crops are as they were
    assert not warnings(capfd.readouterr().err)


def test_a_crop_that_says_where_stays_there(capfd):
    given = conv("c", "data", "kernel_size: 3 pad: 9")
    for on in (False, True):
        caffe.set_crop_alignment(on)
        net = net_of(DATA + given + crop("y", "c", param="crop_param { offset: 3 }"))
        assert offsets(net) == [[3]]
        assert offsets(net_of(DATA + given + crop("y", "c", param="crop_param { }"))) == [[]]
    assert not warnings(capfd.readouterr().err)


def test_where_both_agree_nothing_is_said(capfd):
    net_of(DATA + conv("c", "data", "kernel_size: 3 pad: 1") + crop("y", "c"))
    assert not warnings(capfd.readouterr().err)


def test_joined_channels_keep_their_places():
    join = (
        'layer { name: "j" type: "Concat" bottom: "c" bottom: "c" top: "j" }'
        'layer { name: "s" type: "Slice" bottom: "j" top: "s1" top: "s2" }'
    )
    caffe.set_crop_alignment(True)
    net = net_of(DATA + conv("c", "data", "kernel_size: 5 pad: 4") + join + crop("y", "s2"))
    assert offsets(net) == [[2, 2]]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (conv("c", "data", "kernel_size: 3"), "it would begin at -1, -1, which are no pixels"),
        (conv("c", "data", "kernel_size: 2 pad: 2"), "it would begin at 1.5, 1.5, which are no"),
        (conv("c", "data", "kernel_size: 1 stride: 2"), "its bottoms differ in scale by 0.5, 0.5"),
        (DATA.replace('"data"', '"c"'), "its bottoms are not made of one blob"),
        (
            'layer { name: "v" type: "Flatten" bottom: "data" top: "v" }'
            'layer { name: "c" type: "Reshape" bottom: "v" top: "c" '
            "reshape_param { shape { dim: 1 dim: 2 dim: 20 dim: 26 } } }",
            r"layer 'c' \(Reshape\) has no map of coordinates",
        ),
        (
            'layer { name: "g" type: "Pooling" bottom: "data" top: "g" '
            "pooling_param { global_pooling: true } }" + conv("c", "g", "kernel_size: 1 pad: 20"),
            "Pooling without kernel_size",
        ),
    ],
)
def test_what_cannot_be_aligned_is_refused(text, why, capfd):
    bottoms = ("data", "c") if "scale" in why else ("c", "data")
    text = DATA + text + crop("y", *bottoms)
    if "at -1" not in why:  # without the setting it runs
        net_of(text)
        assert warnings(capfd.readouterr().err)
    caffe.set_crop_alignment(True)
    with pytest.raises(
        caffe.CaffeError, match=rf"layer 'crop' \(Crop\): cannot be aligned .*{why}"
    ):
        net_of(text)


def test_the_flag_of_the_command(tmp_path, capfd):
    (tmp_path / "net.prototxt").write_text(HED)
    arguments = ["time", "-model", str(tmp_path / "net.prototxt"), "-iterations", "1"]
    assert main(arguments) == 0
    assert len(warnings(capfd.readouterr().err)) == 1
    assert main([*arguments, "-align_crops"]) == 0
    assert not warnings(capfd.readouterr().err)

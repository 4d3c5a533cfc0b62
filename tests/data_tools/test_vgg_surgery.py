"""data_tools.vgg_surgery on generated models with VGG-16's real names and shapes."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import caffe
from caffe.proto import caffe_pb2
from data_tools import blank_net, vgg_surgery
from data_tools.vgg_surgery import CONVOLUTIONS, MEAN, STD, TORCHVISION


@pytest.fixture(scope="module", autouse=True)
def quiet():
    caffe.init_log(2)


@pytest.fixture(scope="module")
def vgg():
    """Weights of VGG-16's shapes; spread as trained ones, so that activations neither die nor
    blow up."""
    rng, weights, fan_in = np.random.default_rng(0), {}, 3
    for name, outputs in CONVOLUTIONS.items():
        weight = rng.standard_normal((outputs, fan_in, 3, 3), np.float32)
        weight *= np.float32((2 / (9 * fan_in)) ** 0.5)
        weights[name] = weight, rng.standard_normal(outputs, np.float32) * np.float32(0.1)
        fan_in = outputs
    return weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory, vgg):
    """vgg.caffemodel (V1, as of 2014), vgg.pth and prototxts of some nets."""
    root = tmp_path_factory.mktemp("vgg")
    (root / "vgg.caffemodel").write_bytes(v1_model(vgg))
    state = {}
    for index, parts in zip(TORCHVISION, vgg.values(), strict=True):
        for kind, part in zip(("weight", "bias"), parts, strict=True):
            state[f"features.{index}.{kind}"] = torch.from_numpy(part)
    state |= {"classifier.0.weight": torch.zeros(2, 2), "classifier.0.bias": torch.zeros(2)}
    torch.save(state, root / "vgg.pth")
    torch.save(state, root / "old.pth", _use_new_zipfile_serialization=False)
    nets = {
        "sf5": [],
        "df2": ["--size", "321x243"],
        "rgb": ["--deploy", "--size", "160x128"],
        "depth": [],
        "rgbd": [],
        "narrow": ["--width-multiplier", "0.5"],
    }
    for name, options in nets.items():
        net = "sf5" if name == "narrow" else name
        made = subprocess.run([sys.executable, "-m", "netgen", net, *options], check=True,
                              capture_output=True, text=True)  # fmt: skip
        (root / f"{name}.prototxt").write_text(made.stdout)
    return root


def v1_model(vgg):
    """A NetParameter of V1 layers, written byte by byte: floats packed, shapes as four numbers."""
    net = caffe_pb2.NetParameter(name="VGG_ILSVRC_16_layers")
    for name in (*CONVOLUTIONS, "fc6"):
        kind = caffe_pb2.V1LayerParameter.CONVOLUTION
        layer = net.layers.add(name=name, type=kind)
        for part in vgg.get(name, (np.zeros((1, 1, 2, 3), np.float32),)):
            shape = (1,) * (4 - part.ndim) + part.shape
            blob = caffe_pb2.BlobProto()
            packed = part.astype("<f4").tobytes()
            size, length = len(packed), bytearray()
            while size > 127:
                length.append(size & 127 | 128)
                size >>= 7
            blob.ParseFromString(b"\x2a" + bytes(length) + bytes([size]) + packed)
            blob.num, blob.channels, blob.height, blob.width = shape
            layer.blobs.add().CopyFrom(blob)
    return net.SerializeToString()


class Stored:
    """The blobs of a .caffemodel by layer, made arrays when asked for."""

    def __init__(self, path):
        model = caffe_pb2.NetParameter.FromString(path.read_bytes())
        self._blobs = {layer.name: layer.blobs for layer in model.layer}

    def __getitem__(self, layer):
        return [np.fromiter(blob.data, np.float32, len(blob.data)).reshape(tuple(blob.shape.dim))
                for blob in self._blobs[layer]]  # fmt: skip


@pytest.fixture
def model(folder, command, tmp_path):
    """model(source, net, *options) -> the Stored blobs that the command wrote, and its table."""

    def make(source, net, *options):
        result = command("vgg_surgery", folder / source, folder / f"{net}.prototxt",
                         "out.caffemodel", *options)  # fmt: skip
        return Stored(tmp_path / "out.caffemodel"), result.stdout

    return make


def test_both_branches_of_sf5(model, vgg):
    blobs, table = model("vgg.caffemodel", "sf5")
    for name, (weight, bias) in vgg.items():
        assert (blobs[name][0] == weight).all()
        assert (blobs[name][1] == bias).all()
        twin = "conv1_1_pair1ch" if name == "conv1_1" else f"{name}_pair"
        expected = weight.mean(1, keepdims=True) if name == "conv1_1" else weight
        np.testing.assert_allclose(blobs[twin][0], expected, rtol=1e-6)
        assert (blobs[twin][1] == bias).all()
    mean, variance, factor = blobs["conv3_2_bn_pair"]
    assert (mean == 0).all()
    assert (factor == 1).all()
    assert (np.sqrt(variance + np.float32(1e-5)) == 1).all()  # exactly
    gain, shift = blobs["conv5_1_scale"]
    assert (gain == 1).all()
    assert (shift == 0).all()
    # msra: a deviation of sqrt(2 / fan_in), fan_in = 512 * 9.
    assert blobs["conv5_3_D"][0].std() == pytest.approx((2 / 4608) ** 0.5, rel=0.01)
    assert (blobs["conv5_3_D"][1] == 0).all()
    lines = [line.split() for line in table.splitlines()]
    assert ["conv1_1_pair1ch", "conv1_1", "64x1x3x3", "64", "mean", "over", "colour"] in lines
    assert ["score", "-", "41x64x3x3", "41", "by", "its", "fillers"] in lines
    assert "not used of vgg.caffemodel: fc6" in table


def test_sum_and_mirror(model, vgg):
    blobs, _ = model("vgg.caffemodel", "df2", "--reduce", "sum", "--decoder", "mirror")
    weight = vgg["conv1_1"][0]
    np.testing.assert_allclose(
        blobs["conv1_1_pair1ch"][0], weight.sum(1, keepdims=True), rtol=1e-5, atol=1e-6
    )
    for name in ("conv5_3", "conv4_1", "conv1_2"):
        assert (blobs[f"{name}_D"][0] == vgg[name][0]).all()


def test_the_fillers_are_seeded(folder):
    nets = [blank_net.load(folder / "narrow.prototxt", seed) for seed in (1, 1, 2)]
    first, same, other = (net.params["score"][0].data for net in nets)
    assert (first == same).all()
    assert (first != other).any()


def test_a_mirrored_decoder_is_the_transpose(vgg):
    # A deconvolution with a convolution's weight is its transpose: <conv(x), y> = <x, deconv(y)>.
    net = caffe_pb2.NetParameter()
    shape = net.layer.add(name="y", type="Input", top=["y"]).input_param.shape.add()
    shape.dim.extend([1, 128, 6, 5])
    layer = net.layer.add(name="d", type="Deconvolution", bottom=["y"], top=["z"])
    layer.convolution_param.num_output = 64
    layer.convolution_param.kernel_size.append(3)
    layer.convolution_param.pad.append(1)
    layer.convolution_param.bias_term = False
    mirrored = caffe.Net(net, caffe.TEST)
    weight = vgg["conv2_1"][0]
    mirrored.params["d"][0].data[...] = weight
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((1, 64, 6, 5)), rng.standard_normal((1, 128, 6, 5))
    mirrored.blobs["y"].data[...] = y
    z = mirrored.forward()["z"].astype(np.float64)
    conv = F.conv2d(torch.from_numpy(x), torch.from_numpy(weight).double(), padding=1).numpy()
    assert (conv * y).sum() == pytest.approx((x * z).sum(), rel=1e-5)


def test_baselines(model, vgg):
    weight, bias = vgg["conv1_1"]
    blobs, _ = model("vgg.caffemodel", "depth")
    np.testing.assert_allclose(
        blobs["conv1_1_1ch"][0], weight.mean(1, keepdims=True), rtol=1e-5, atol=1e-7
    )
    assert (blobs["conv5_3"][0] == vgg["conv5_3"][0]).all()
    blobs, table = model("vgg.caffemodel", "rgbd")
    assert (blobs["conv1_1_4ch"][0][:, :3] == weight).all()
    np.testing.assert_allclose(blobs["conv1_1_4ch"][0][:, 3], weight.mean(1), rtol=1e-5, atol=1e-7)
    assert (blobs["conv1_1_4ch"][1] == bias).all()
    assert "copied, depth mean" in table


def test_the_old_models_mean_can_be_taken_into_conv1_1(model, vgg):
    mean = [103.939, 116.779, 123.68]
    blobs, _ = model("vgg.caffemodel", "rgb", "--mean", ",".join(map(str, mean)))
    weight, bias = (part.astype(np.float64) for part in vgg["conv1_1"])
    expected = bias - sum(weight[:, c].sum((1, 2)) * mean[c] for c in range(3))
    np.testing.assert_allclose(blobs["conv1_1"][1], expected, rtol=1e-5, atol=1e-4)
    assert (blobs["conv1_1"][0] == vgg["conv1_1"][0]).all()


def activations(vgg, image, border):
    """VGG-16 as torchvision runs it, on RGB 0..255 (H x W x 3): each convolution's, after ReLU.

    border: 'mean' pads the first layer with zeros, as torchvision does; 'black' with what black
    is after normalisation.
    """
    x = torch.from_numpy((image / 255 - MEAN) / STD).permute(2, 0, 1)[None]
    found = {}
    for name, (weight, bias) in vgg.items():
        weight, bias = torch.from_numpy(weight).double(), torch.from_numpy(bias).double()
        if name == "conv1_1" and border == "black":
            black = torch.from_numpy(-MEAN / STD)
            framed = black[None, :, None, None].expand(1, 3, x.shape[2] + 2, x.shape[3] + 2).clone()
            framed[:, :, 1:-1, 1:-1] = x
            x = F.relu(F.conv2d(framed, weight, bias))
        else:
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
        found[name] = x[0].numpy()
        if name in ("conv1_2", "conv2_2", "conv3_3", "conv4_3"):
            x = F.max_pool2d(x, 2)
    return found


def test_old_and_new_pytorch_files_are_read(folder, vgg):
    old, new = (vgg_surgery.read_source(folder / name) for name in ("old.pth", "vgg.pth"))
    for name in CONVOLUTIONS:
        assert (old[0][name][0] == new[0][name][0]).all()
    assert old[1] == new[1] == ["classifier.0"]


def test_the_torchvision_route_computes_the_same_on_bgr_bytes(folder, vgg, model, frames):
    model("vgg.pth", "rgb")
    image = cv2.imread(str(frames / "nyuv2_000464" / "rgb.png"))[100:228, 200:360]
    net = caffe.Net(str(folder / "rgb.prototxt"), "out.caffemodel", caffe.TEST)
    net.blobs["rgb"].reshape(1, 3, *image.shape[:2])
    net.reshape()
    net.blobs["rgb"].data[0] = image.transpose(2, 0, 1)
    net.forward()
    expected = activations(vgg, image[:, :, ::-1], "black")
    for name, values in expected.items():
        ours = net.blobs[f"{name}_scale"].data[0]
        assert np.abs(ours - values).max() < 1e-4 * values.max(), name
    # With torchvision's own padding the outermost pixels of conv1_1 differ, and only those.
    first = activations(vgg, image[:, :, ::-1], "mean")["conv1_1"]
    gap = np.abs(net.blobs["conv1_1_scale"].data[0] - first)
    assert gap[:, 1:-1, 1:-1].max() < 1e-4 * first.max()
    assert gap.max() > 0.01 * first.max()


def test_bad_input_has_its_line(folder, command, tmp_path, vgg):
    net = folder / "sf5.prototxt"

    def line(source, prototxt=net):
        result = command("vgg_surgery", source, prototxt, "out.caffemodel", code=1)
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "out.caffemodel").exists()
        return result.stderr

    def unfilled(name, count):
        model = caffe_pb2.NetParameter()
        layer = model.layer.add(name="conv3_1")
        layer.blobs.add(data=[1] * count).shape.dim.extend([256, 128, 3, 3])
        layer.blobs.add(data=[1] * 256).shape.dim.append(256)
        (tmp_path / f"{name}.caffemodel").write_bytes(model.SerializeToString())
        return f"{name}.caffemodel"

    narrow = line(folder / "vgg.caffemodel", folder / "narrow.prototxt")
    assert "layer conv1_1 is 32x3x3x3 and VGG-16's conv1_1 64x3x3x3" in narrow
    assert "--width-multiplier" in narrow
    assert "nothing: No such file" in line("nothing")
    (tmp_path / "text").write_text("hello")
    assert "text: not a .caffemodel or" in line("text")
    (tmp_path / "cut.caffemodel").write_bytes((folder / "vgg.caffemodel").read_bytes()[:9999])
    assert "cut.caffemodel: not a .caffemodel" in line("cut.caffemodel")
    torch.save({"layer1.0.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    assert "no features.0.weight" in line("resnet.pth")
    torch.save({"features.0.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.pth")
    assert "has no weights of conv1_1" in line("part.pth")
    small = dict(vgg, conv3_1=(np.zeros((4, 4, 3, 3), np.float32), np.zeros(4, np.float32)))
    (tmp_path / "odd.caffemodel").write_bytes(v1_model(small))
    assert "conv3_1 has shape (4, 4, 3, 3), VGG-16's is (256, 128, 3, 3)" in line("odd.caffemodel")
    assert "conv3_1', blob 0: 3 values do not fill the shape 256x128x3x3" in line(
        unfilled("odd", 3)
    )
    assert "conv3_1', blob 0: 0 values do not fill the shape 256x128x3x3" in line(
        unfilled("odd", 0)
    )
    (tmp_path / "bad.prototxt").write_text("layer { nme: 'x' }")
    assert 'bad.prototxt:1:9: LayerParameter has no field "nme"' in line(
        folder / "vgg.caffemodel", "bad.prototxt"
    )
    (tmp_path / "other.prototxt").write_text(
        "layer { name: 'd' type: 'Input' top: 'd' input_param { shape { dim: 1 dim: 3 dim: 8 dim: 8"
        " } } } layer { name: 'c' type: 'Convolution' bottom: 'd' top: 'c' convolution_param {"
        " num_output: 2 kernel_size: 1 } }"
    )
    assert "no layer named as VGG-16's" in line(folder / "vgg.caffemodel", "other.prototxt")


def test_each_of_vggs_convolutions_must_find_a_layer(folder, command, tmp_path):
    text = (folder / "rgb.prototxt").read_text()
    for name in ("conv1_2", "conv5_3"):
        text = text.replace(f'"{name}"', f'"{name}_other"')
    (tmp_path / "other.prototxt").write_text(text)
    arguments = ["vgg_surgery", folder / "vgg.caffemodel", "other.prototxt", "out.caffemodel"]
    said = command(*arguments, code=1).stderr
    assert said.endswith(
        "other.prototxt: has no layers for these of VGG-16's convolutions: conv1_2, conv5_3 "
        "(accepted with --partial)\n"
    )
    assert not (tmp_path / "out.caffemodel").exists()
    result = command(*arguments, "--partial")
    assert "not used of vgg.caffemodel: conv1_2, conv5_3, fc6" in result.stdout

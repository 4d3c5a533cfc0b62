"""data_tools.port_weights: the port's function, run here by torch, is what our net computes."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import caffe

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
CLASSES = 41


def draw_state(seed=0):
    """A state dict of the port's names and shapes; numbers as of a trained network."""
    generator = torch.Generator().manual_seed(seed)
    state = {}

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    def conv(key, inputs, outputs):
        state[f"{key}.weight"] = normal(outputs, inputs, 3, 3) * (2 / (9 * inputs)) ** 0.5
        state[f"{key}.bias"] = 0.1 * normal(outputs)

    def norm(key, channels):
        state[f"{key}.weight"] = torch.exp(0.2 * normal(channels))
        state[f"{key}.bias"] = 0.1 * normal(channels)
        state[f"{key}.running_mean"] = 0.1 * normal(channels)
        state[f"{key}.running_var"] = torch.exp(0.2 * normal(channels))
        state[f"{key}.num_batches_tracked"] = torch.tensor(7)

    for branch, inputs in (("RGB", 3), ("DEPTH", 1)):
        for block, outputs in enumerate(BLOCKS, start=1):
            for i, channels in enumerate(outputs):
                conv(f"CBR{block}_{branch}_ENC.{3 * i}", inputs, channels)
                norm(f"CBR{block}_{branch}_ENC.{3 * i + 1}", channels)
                inputs = channels
    for block in range(5, 0, -1):
        below = BLOCKS[block - 2][-1] if block > 1 else 64
        widths = [*BLOCKS[block - 1][1:], below][: len(BLOCKS[block - 1])]
        if block == 1:
            widths = [64]
        for i, channels in enumerate(widths):
            conv(f"CBR{block}_RGB_DEC.{3 * i}", inputs, channels)
            norm(f"CBR{block}_RGB_DEC.{3 * i + 1}", channels)
            inputs = channels
    conv("CBR1_RGB_DEC.3", 64, CLASSES)
    return state


def run_port(state, rgb, depth):
    """Scores (C x H x W) of the port's network in evaluation mode; rgb 3 x H x W and depth
    1 x H x W are 0..1."""

    def sequence(x, key):
        i = 0
        while f"{key}.{i + 1}.running_mean" in state:
            x = F.conv2d(x, state[f"{key}.{i}.weight"], state[f"{key}.{i}.bias"], padding=1)
            names = ("running_mean", "running_var", "weight", "bias")
            x = F.relu(F.batch_norm(x, *(state[f"{key}.{i + 1}.{name}"] for name in names)))
            i += 3
        return x

    x, features = depth[None], []
    for block in range(1, 6):
        x = sequence(x, f"CBR{block}_DEPTH_ENC")
        features.append(x)
        x = F.max_pool2d(x, 2)
    y, masks = rgb[None], []
    for block in range(1, 6):
        y = (sequence(y, f"CBR{block}_RGB_ENC") + features[block - 1]) / 2
        size = y.shape[2:]
        y, mask = F.max_pool2d(y, 2, return_indices=True)
        masks.append((mask, size))
    for block in range(5, 0, -1):
        mask, size = masks[block - 1]
        y = sequence(F.max_unpool2d(y, mask, 2, output_size=size), f"CBR{block}_RGB_DEC")
    key = "CBR1_RGB_DEC.3"
    return F.conv2d(y, state[f"{key}.weight"], state[f"{key}.bias"], padding=1)[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """port.pth, and our nets: of that size with floor and with ceil pooling, and others."""
    root = tmp_path_factory.mktemp("port")
    torch.save(draw_state(), root / "port.pth")
    nets = {
        "floor": ("sf5", "--size", "160x112", "--pooling", "floor"),
        "ceil": ("sf5", "--size", "160x112"),
        "sf4": ("sf4",),
        "thirteen": ("sf5", "--dataset", "nyuv2-13"),
    }
    for name, (net, *options) in nets.items():
        made = subprocess.run([sys.executable, "-m", "netgen", net, *options, "--deploy"],
                              check=True, capture_output=True, text=True)  # fmt: skip
        (root / f"{name}.prototxt").write_text(made.stdout)
    return root


def test_scores_are_the_ports_on_a_real_frame(folder, command, frames):
    command("port_weights", folder / "port.pth", folder / "floor.prototxt", "sf5.caffemodel")
    color = cv2.imread(str(frames / "nyuv2_000464" / "rgb.png"))
    depth = cv2.imread(str(frames / "nyuv2_000464" / "depth.png"), cv2.IMREAD_UNCHANGED)
    # 160x112: 112 halves to 7, an odd height, which pooling rounds down.
    color = cv2.resize(color, (160, 120))[:112]
    depth = depth[:448:4, ::4] / 26142 * 255
    net = caffe.Net(str(folder / "floor.prototxt"), "sf5.caffemodel", caffe.TEST)
    net.blobs["rgb"].data[0] = color.transpose(2, 0, 1)
    net.blobs["depth"].data[0, 0] = depth
    net.forward()
    ours = net.blobs["score"].data[0]
    state = torch.load(folder / "port.pth", weights_only=True)
    rgb = torch.from_numpy(color[:, :, ::-1].transpose(2, 0, 1).copy()).double() / 255
    state = {key: value.double() for key, value in state.items()}
    theirs = run_port(state, rgb, torch.from_numpy(depth).double()[None] / 255)
    assert theirs.std() > 0.01
    # In single precision rounding decides which of two nearly equal values a pooling takes, and
    # so where it is unpooled: in the port's own network as well. That is a matter of few pixels.
    gap = np.abs(ours - theirs.numpy()).max(axis=0)
    assert np.quantile(gap, 0.97) <= 1e-4 * theirs.abs().max()
    prob = caffe.to_module(net).double()(
        torch.from_numpy(color.transpose(2, 0, 1).copy()).double()[None],
        torch.from_numpy(depth).double()[None, None],
    )
    assert (prob[0] - theirs.softmax(0)).abs().max() <= 1e-8


def test_another_rounding_is_pointed_out(folder, command):
    state = torch.load(folder / "port.pth", weights_only=True)
    torch.save({f"module.{key}": value for key, value in state.items()}, "parallel.pth")
    result = command("port_weights", "parallel.pth", folder / "ceil.prototxt", "out.caffemodel")
    assert "--pooling floor" in result.stderr
    # Two encoders of 13, 12 deconvolutions, score.
    assert "39 layers" in result.stdout
    assert "not used" not in result.stdout


def test_bad_input_has_its_line(folder, command, tmp_path):
    def line(port, net):
        result = command("port_weights", port, folder / f"{net}.prototxt", "out.caffemodel", code=1)
        assert len(result.stderr.splitlines()) == 1
        assert not (tmp_path / "out.caffemodel").exists()
        return result.stderr

    assert "has no layer conv5_1_pair: expected netgen's sf5" in line(folder / "port.pth", "sf4")
    assert "layer score is 14x64x3x3 and the port's CBR1_RGB_DEC.3 41x64x3x3" in line(
        folder / "port.pth", "thirteen"
    )
    state = torch.load(folder / "port.pth", weights_only=True)
    del state["CBR4_RGB_ENC.4.running_var"]
    torch.save(state, tmp_path / "part.pth")
    assert "has no CBR4_RGB_ENC.4.running_var" in line("part.pth", "floor")
    (tmp_path / "x.pth").write_bytes(b"junk")
    assert "x.pth: no state dict" in line("x.pth", "floor")
    assert "y.pth: No such file" in line("y.pth", "floor")


def test_every_layer_and_every_array_must_have_its_partner(folder, command, tmp_path):
    """As caffe.convert wants it of weights; --partial accepts what is left over."""
    text = (folder / "floor.prototxt").read_text()
    text += (
        'layer { name: "more" type: "InnerProduct" bottom: "prob" top: "more" '
        "inner_product_param { num_output: 2 } }"
    )
    (tmp_path / "more.prototxt").write_text(text)
    state = torch.load(folder / "port.pth", weights_only=True)
    state["extra.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "extra.pth")
    for port, net, said in (
        (folder / "port.pth", "more.prototxt", "the port has no weights for these layers: more"),
        ("extra.pth", folder / "floor.prototxt", "fit no layer of the net: extra.weight"),
    ):
        result = command("port_weights", port, net, "out.caffemodel", code=1)
        assert f"{said} (accepted with --partial)" in result.stderr
        assert not (tmp_path / "out.caffemodel").exists()
    result = command("port_weights", "extra.pth", "more.prototxt", "out.caffemodel", "--partial")
    assert "not used: extra.weight" in result.stdout

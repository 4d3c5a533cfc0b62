"""Mode and device; a net on a GPU gives what it gives on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import caffe
from caffe.process import device

pytestmark = pytest.mark.usefixtures("fresh")

NET = """
layer { name: "in" type: "Input" top: "x" top: "l"
  input_param { shape { dim: 2 dim: 3 dim: 6 dim: 6 } shape { dim: 2 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 weight_filler { type: "xavier" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "cut" type: "Slice" bottom: "conv" top: "a" top: "b" }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "sum" }
layer { name: "flat" type: "Flatten" bottom: "sum" top: "flat" }
layer { name: "ip" type: "InnerProduct" bottom: "flat" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "l" top: "loss" }
force_backward: true
"""


def _run(make_net) -> dict[str, np.ndarray]:
    """Train two steps by hand; returns everything that a user can look at afterwards."""
    torch.manual_seed(3)
    net = make_net(NET)
    rng = np.random.default_rng(0)
    weights = [b for blobs in net.params.values() for b in blobs]
    for blob in weights[:2] + weights[-2:]:
        blob.data[...] = rng.normal(0, 0.3, blob.shape)
    for step in range(2):
        net.blobs["x"].data[...] = rng.normal(size=(2, 3, 6, 6))
        net.blobs["l"].data[...] = [step, 2]
        net.clear_param_diffs()
        net.forward()
        net.blobs["sum"].data[0, 0] += 0.5  # between the passes, as a user may
        net.forward(start="flat")
        net.backward()
        for blob in weights:
            blob.data[...] -= 0.1 * blob.diff
    seen = {f"{k}.data": b.data.copy() for k, b in net.blobs.items()}
    seen |= {f"{k}.diff": b.diff.copy() for k, b in net.blobs.items()}
    seen |= {f"{k}/{i}": b.data.copy() for k, v in net.params.items() for i, b in enumerate(v)}
    return seen


def test_a_net_on_a_gpu_shows_what_it_shows_on_the_cpu(make_net, request) -> None:
    on_cpu = _run(make_net)
    request.getfixturevalue("pretend_gpu")
    on_gpu = _run(make_net)
    assert on_gpu.keys() == on_cpu.keys()
    for name, values in on_cpu.items():
        assert np.array_equal(on_gpu[name], values), name


def test_a_net_computes_on_the_gpu(make_net, pretend_gpu) -> None:
    net = make_net(NET)
    net.forward()
    assert net.blobs["ip"].tensor().device == torch.device("cuda", 0)


def test_a_net_follows_the_mode(make_net, request) -> None:
    net = make_net(NET, caffe.TEST)
    net.blobs["x"].data[...] = 1
    before = net.forward(["ip"])["ip"].copy()
    request.getfixturevalue("pretend_gpu")
    assert np.allclose(net.forward(["ip"])["ip"], before, atol=1e-6)
    caffe.set_mode_cpu()
    assert np.allclose(net.forward(["ip"])["ip"], before, atol=1e-6)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("ask", [caffe.set_mode_gpu, lambda: caffe.set_device(0)])
def test_a_missing_gpu_is_said(ask) -> None:
    with pytest.raises(caffe.CaffeError, match=r"GPU 0 was asked for, but PyTorch .* no CUDA"):
        ask()
    assert device.current_device() == torch.device("cpu")


def test_a_gpu_beyond_the_last_is_said(pretend_gpu) -> None:
    with pytest.raises(caffe.CaffeError, match=r"GPU 3 does not exist: .* GPUs 0 to 0"):
        caffe.set_device(3)


def test_full_precision_on_the_gpu(pretend_gpu) -> None:
    # Caffe computes in float32; TF32 keeps 10 bits of the mantissa.
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_using_ends_with_the_mode_before(monkeypatch) -> None:
    monkeypatch.setattr(device, "check_gpu", lambda number: None)
    caffe.set_device(1)
    caffe.set_mode_gpu()
    with device.using(None):
        assert device.current_device().type == "cpu"
        with device.using(3):
            assert str(device.current_device()) == "cuda:3"
        assert device.current_device().type == "cpu"
    assert str(device.current_device()) == "cuda:1"


def test_using_a_gpu_that_does_not_exist_changes_nothing() -> None:
    with pytest.raises(RuntimeError, match="GPU 99"), device.using(99):
        pass
    assert device.current_device().type == "cpu"

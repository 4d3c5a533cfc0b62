"""The values that plans keep during a pass, and what recomputing them changes."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch

import caffe
from caffe.kernels import fused
from caffe.kernels.fused import Convolving, Kept, Recomputed, convolve
from caffe.kernels.geometry import Geometry
from caffe.kernels.winograd import F4

CONV = """
layer {{ name: "{0}" type: "Convolution" bottom: "{1}" top: "{0}" convolution_param {{
  num_output: 8 pad: 1 kernel_size: 3 bias_term: false weight_filler {{ type: "msra" }} }} }}
layer {{ name: "{0}_n" type: "BatchNorm" bottom: "{0}" top: "{0}" }}
layer {{ name: "{0}_s" type: "Scale" bottom: "{0}" top: "{0}" scale_param {{ bias_term: true
  filler {{ type: "gaussian" mean: 1 std: 0.2 }} bias_filler {{ type: "gaussian" }} }} }}
layer {{ name: "{0}_r" type: "ReLU" bottom: "{0}" top: "{0}" }}
"""
NET = (
    """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 8 dim: 8 dim: 10 } } }
layer { name: "t" type: "Input" top: "t" input_param { shape { dim: 2 dim: 8 dim: 8 dim: 10 } } }
"""
    + CONV.format("a", "x")
    + CONV.format("b", "a")
    + """
layer { name: "p" type: "Pooling" bottom: "b" top: "p" top: "k"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
"""
    + CONV.format("c", "p")
    + """
layer { name: "u" type: "Unpooling" bottom: "c" bottom: "k" top: "u" unpooling_param { scale: 2 } }
"""
    + CONV.format("d", "u")
    + 'layer { name: "loss" type: "EuclideanLoss" bottom: "d" bottom: "t" top: "loss" }'
)


@pytest.fixture
def quick_mkl(monkeypatch: pytest.MonkeyPatch) -> None:
    """Algorithms are chosen as on processors on which MKL is as fast as oneDNN."""
    monkeypatch.setattr(fused, "has_slow_mkl", lambda: False)


@pytest.fixture(params=[False, True], ids=["kept", "recompute"])
def recompute(request: pytest.FixtureRequest) -> bool:
    caffe.set_recompute(request.param)
    return request.param


def activations() -> int:
    """How many activations are there to be used in a backward pass, made or to be made."""
    return sum(issubclass(type(o), Recomputed) for o in gc.get_objects())


def watch(net: caffe.Net) -> list[weakref.ref]:
    """Weak references to all tensors that the plan's operations return from now on."""
    seen: list[weakref.ref] = []

    def watched(run):
        def wrapped(bottom, blobs):
            tops = run(bottom, blobs)
            seen.extend(weakref.ref(t) for t in tops)
            return tops

        return wrapped

    for node in net.plan.nodes:
        if node.bottom:
            node.run = watched(node.run)
    return seen


def test_nothing_is_left_after_the_backward_pass(pair, uncollected, recompute: bool) -> None:
    net = pair(NET)[1]
    before = activations()
    seen = watch(net)
    net.forward()
    assert activations() > before
    net.backward()
    assert len(seen) == sum(len(n.top) for n in net.plan.nodes if n.bottom)
    assert [r for r in seen if r() is not None] == []
    assert activations() == before


def test_deploy_keeps_nothing(pair, uncollected) -> None:
    net = pair(NET, caffe.TEST)[1]
    before = activations()
    seen = watch(net)
    net.forward()
    assert [r for r in seen if r() is not None] == []
    assert activations() == before


def test_a_pass_without_backward_is_forgotten_when_the_next_begins(pair, uncollected) -> None:
    net = pair(NET)[1]
    before = activations()
    net.forward()
    first, counts = net.plan.nodes[0], []
    run = first.run

    def counting(bottom, blobs):
        counts.append(activations())
        return run(bottom, blobs)

    first.run = counting
    net.forward()
    assert counts == [before]


def test_what_is_taken_once_is_freed_on_the_way(pair, uncollected) -> None:
    """Between blocks, only the values that gradients need are left."""
    net = pair(NET, caffe.TEST)[1]
    seen = watch(net)
    alive: list[int] = []
    for node in net.plan.nodes:

        def counting(bottom, blobs, run=node.run):
            alive.append(sum(r() is not None for r in seen))
            return run(bottom, blobs)

        node.run = counting
    net.forward()
    # In front of any operation: its own bottom, and the mask on its way to the unpooling.
    assert max(alive) <= 2


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_an_error_in_the_middle_leaves_the_net_usable(phase: int, pair, same_passes) -> None:
    nets = pair(NET, phase)
    node = next(n for n in nets[1].plan.nodes if n.layer.name == "c")
    run = node.run

    def failing(bottom, blobs):
        raise KeyboardInterrupt

    node.run = failing
    with pytest.raises(KeyboardInterrupt):
        nets[1].forward()
    if phase == caffe.TRAIN:
        with pytest.raises(caffe.CaffeError, match="forward"):
            nets[1].backward()
        assert not any(b.diff.any() for blobs in nets[1].params.values() for b in blobs)
    node.run = run
    for name in ("a_n", "b_n"):  # layers before it had gathered statistics
        for mine, theirs in zip(nets[1].params[name], nets[0].params[name], strict=True):
            mine.data[...] = theirs.data
    same_passes(nets, backward=phase == caffe.TRAIN)


def test_an_error_in_the_backward_pass(pair, same_passes) -> None:
    nets = pair(NET)
    node = next(n for n in nets[1].plan.nodes if n.layer.name == "b")
    run = node.run

    def refuse(grad: torch.Tensor) -> None:
        raise RuntimeError("refused")

    def refusing(bottom, blobs):
        tops = run(bottom, blobs)
        tops[0].register_hook(refuse)
        return tops

    node.run = refusing
    nets[1].forward()
    with pytest.raises(RuntimeError, match="refused"):
        nets[1].backward()
    node.run = run
    for name, blobs in nets[1].params.items():
        for mine, theirs in zip(blobs, nets[0].params[name], strict=True):
            mine.data[...], mine.diff[...] = theirs.data, 0
    same_passes(nets, backward=True)


def test_going_back_twice_needs_an_observed_net(pair) -> None:
    nets = pair(NET)
    for net in nets:
        net.forward()
        net.backward()
    once = nets[0].params["a"][0].diff.copy()
    nets[0].backward()
    np.testing.assert_allclose(nets[0].params["a"][0].diff, 2 * once, rtol=1e-5)
    with pytest.raises(caffe.CaffeError, match="observed"):
        nets[1].backward()
    nets[1].forward()
    nets[1].backward()


def test_no_gradients_of_an_unobserved_net_in_test(pair) -> None:
    nets = pair(NET, caffe.TEST)
    for net in nets:
        net.forward()
    nets[0].backward()
    with pytest.raises(caffe.CaffeError, match="observed"):
        nets[1].backward()


def test_recomputing_changes_gradients_by_rounding_alone(pair) -> None:
    """And each way repeats itself to the bit."""
    gradients = []
    for on in (False, False, True, True):
        caffe.set_recompute(on)
        net = pair(NET)[1]
        for _ in range(2):
            net.forward()
            net.backward()
        gradients.append([b.diff.copy() for blobs in net.params.values() for b in blobs])
    for kept, again, made, made_again in zip(*gradients, strict=True):
        assert np.array_equal(kept, again)
        assert np.array_equal(made, made_again)
        np.testing.assert_allclose(made, kept, rtol=0, atol=1e-5 * max(1, np.abs(kept).max()))


def test_recomputing_keeps_less(pair, uncollected) -> None:
    def kept() -> int:
        return sum(o.get().numel() for o in gc.get_objects() if type(o) is Kept)

    counts, before = [], kept()
    for on in (False, True):
        caffe.set_recompute(on)
        net = pair(NET)[1]
        net.forward()
        counts.append(kept() - before)
        net.backward()
    # x and p enter blocks of convolutions; u is made from what follows p.
    large, small = 2 * 8 * 8 * 10, 2 * 8 * 4 * 5
    entering, outputs = large + small, 3 * large + small  # of the convolutions a, b, d; and c
    assert counts == [entering + outputs, entering]


@pytest.mark.parametrize("transposed", [False, True])
def test_weights_of_few_channels_without_avx512(
    transposed: bool, quick_mkl: None, monkeypatch
) -> None:
    how = Convolving(Geometry((1, 1), (1, 1), (1, 1), 1), transposed)
    torch.manual_seed(2)
    x, weight = torch.randn(2, 32, 48, 64), torch.randn(32, 32, 3, 3) / 17
    for avx512, chosen in ((True, None), (False, F4)):
        monkeypatch.setattr(fused, "has_avx512", lambda avx512=avx512: avx512)
        assert how.filtering("weight", x, weight) == chosen
        assert how.filtering("forward", x, weight) is how.filtering("data", x, weight) is None
    assert how.filtering("weight", x[:1], weight) is None  # too few tiles
    assert how.filtering("weight", x[:, :16], weight[:, :16]) is None
    leaf, exact = weight.clone().requires_grad_(), weight.double().requires_grad_()
    grad = torch.randn_like(x)
    convolve(x, leaf, None, how, recompute=False).backward(grad)
    function = torch.conv_transpose2d if transposed else torch.conv2d
    function(x.double(), exact, padding=1).backward(grad.double())
    assert (leaf.grad.double() - exact.grad).norm() < 3e-6 * exact.grad.norm()


@pytest.mark.parametrize(
    ("few", "many", "tiles", "elsewhere", "with_amx"),
    [
        (64, 192, 196, F4, None),
        (128, 128, 1200, F4, None),
        (128, 256, 300, F4, F4),
        (128, 256, 196, F4, None),
        (256, 256, 16, F4, None),
        (256, 256, 49, F4, F4),
        (512, 512, 80, F4, F4),
        (64, 64, 784, None, None),
    ],
)
def test_convolutions_forward_on_processors_with_amx(
    few: int, many: int, tiles: int, elsewhere, with_amx, quick_mkl: None, monkeypatch
) -> None:
    for amx, chosen in ((False, elsewhere), (True, with_amx)):
        monkeypatch.setattr(fused, "has_amx", lambda amx=amx: amx)
        assert fused.choose_fp32("forward", few, many, tiles) == chosen
    assert fused.choose_fp32("data", 128, 128, 64) == F4  # what it does not concern


@pytest.mark.parametrize(
    ("few", "many", "tiles", "tasks"),
    [
        (64, 192, 1960, ["weight"]),
        (128, 128, 160, []),
        (128, 128, 192, ["forward", "data"]),
        (256, 256, 160, []),
        (256, 256, 196, ["forward", "data", "weight"]),
        (256, 512, 64, ["data"]),
        (512, 512, 160, ["data", "weight"]),
        (64, 64, 3600, []),
    ],
)
def test_convolutions_where_mkl_is_slow(
    few: int, many: int, tiles: int, tasks: list[str], monkeypatch
) -> None:
    monkeypatch.setattr(fused, "has_slow_mkl", lambda: True)
    for task in ("forward", "data", "weight"):
        assert fused.choose_fp32(task, few, many, tiles) == (F4 if task in tasks else None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("wanted", [(1, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1)])
@pytest.mark.parametrize("shape", [(2, 64, 24, 32), (2, 6, 7, 5)], ids=["winograd", "direct"])
def test_only_wanted_gradients(
    shape, wanted, transposed: bool, dtype: torch.dtype, quick_mkl: None
) -> None:
    torch.manual_seed(2)
    n, c, h, w = shape
    k = 128 if c == 64 else 5
    how = Convolving(Geometry((1, 1), (1, 1), (1, 1), 1), transposed, dtype)
    x, bias = torch.randn(shape), torch.randn(k)
    weight = torch.randn(*((c, k) if transposed else (k, c)), 3, 3) / (9 * c) ** 0.5
    assert (how.filtering("weight", x.to(dtype), weight) is None) == (
        c != 64 or dtype == torch.bfloat16
    )
    leaves = [
        t.requires_grad_(bool(want)) for t, want in zip((x, weight, bias), wanted, strict=True)
    ]
    y = convolve(x, weight, bias, how, recompute=False)
    assert y.dtype == dtype
    grad = torch.randn(n, k, h, w).to(dtype)
    y.backward(grad)
    exact = [t.detach().double().requires_grad_() for t in leaves]
    function = torch.conv_transpose2d if transposed else torch.conv2d
    function(*exact, padding=1).backward(grad.double())
    bound = 1e-6 if dtype == torch.float32 else 0.02
    for leaf, true, want in zip(leaves, exact, wanted, strict=True):
        assert (leaf.grad is not None) == bool(want)
        if want:
            assert leaf.grad.dtype == torch.float32
            assert (leaf.grad.double() - true.grad).norm() < 3 * bound * true.grad.norm()

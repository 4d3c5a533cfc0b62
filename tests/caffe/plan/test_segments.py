"""Segments: convolutions that oneDNN computes as one graph give what they give one by one."""

from __future__ import annotations

import gc
import threading
import warnings

import numpy as np
import pytest
import torch
from nets import conv, image, norm, set_statistics

import caffe
from caffe.plan import segments
from caffe.plan.clock import Clock
from caffe.plan.plan import Plan
from caffe.plan.segments import Segment

RELU = 'layer {{ name: "{0}_r" type: "ReLU" bottom: "{0}" top: "{0}" }}'
SUM = 'layer {{ name: "{0}" type: "Eltwise" bottom: "{1}" bottom: "{2}" top: "{0}" }}'
SHAPE = (2, 6, 12, 14)
# A residual block behind a convolution with BatchNorm, and others of several kinds.
NET = (
    image(*SHAPE)
    + conv("a", "x", "a", 8)
    + norm("bn", "a").replace('top: "z"', 'top: "a"')
    + conv("b", "a", "b", 8, "pad: 1 kernel_size: 3 group: 8")
    + RELU.format("b")
    + conv("c", "b", "c", 8, "kernel_size: 1 bias_term: false")
    + SUM.format("d", "c", "a")
    + RELU.format("d")
    + conv("e", "d", "e", 5, "kernel_size: 1 stride: 2")
    + conv("f", "e", "f", 4, "pad: 2 kernel_size: 3 dilation: 2")
    + RELU.format("f")
)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "AFTER", 1)


def made(net: caffe.Net) -> list[Segment]:
    """The segments of a net's plan after some passes, whose graphs must have been made."""
    for _ in range(4):
        net.forward()
    found = [step.node.run for step in net.plan._joined if isinstance(step.node.run, Segment)]
    if not found or any(segment.refused for segment in found):
        pytest.skip("this PyTorch hands no graphs to oneDNN")
    return found


@pytest.fixture
def nets(pair):
    found = pair(NET, caffe.TEST)
    set_statistics(found, "bn")
    return found


def test_all_convolutions_of_a_run_are_one_segment(nets, same_passes) -> None:
    (segment,) = made(nets[1])
    assert [node.layers[0].name for node in segment.nodes] == [*"abcef"]
    same_passes(nets, backward=False)
    assert not segment.stale
    nets[0].blobs["x"].data[...] = nets[1].blobs["x"].data[...] = 3.5
    same_passes(nets, backward=False)
    assert made(nets[1]) == [segment]


def test_the_segment_is_what_computes(nets) -> None:
    (segment,) = made(nets[1])
    (before,) = nets[1].forward().values()
    before, graph = before.copy(), segment._graph
    segment._graph = lambda *bottom: [2 * top for top in graph(*bottom)]
    (after,) = nets[1].forward().values()
    np.testing.assert_allclose(after, 2 * before, rtol=1e-5)


def test_a_value_that_others_take_is_given(pair, same_passes) -> None:
    branch = 'layer { name: "p" type: "Power" bottom: "%s" top: "p" power_param { scale: 2 } }'
    nets = pair(NET + branch % "b", caffe.TEST)
    set_statistics(nets, "bn")
    (segment,) = made(nets[1])
    assert len(segment.as_node().top) == 2
    same_passes(nets, backward=False)


@pytest.mark.parametrize("how", ["by a view", "in the tensor", "from another net"])
def test_changed_weights_are_seen(how: str, nets, same_passes) -> None:
    (segment,) = made(nets[1])
    for net in nets:
        if how == "by a view":
            net.params["c"][0].data[...] *= -2
        elif how == "in the tensor":
            net.params["c"][0].tensor().mul_(-2)
        else:
            other = caffe.Net(net.to_proto(), caffe.TEST)
            for name, blobs in net.params.items():
                for mine, theirs in zip(blobs, other.params[name], strict=True):
                    theirs.data[...] = mine.data * (2 if name == "c" else 1)
            net.share_with(other)
    same_passes(nets, backward=False)
    assert made(nets[1]) != [segment]
    same_passes(nets, backward=False)


def test_another_shape_is_computed_right_and_joined_again(nets, same_passes) -> None:
    (segment,) = made(nets[1])
    for net in nets:
        net.blobs["x"].reshape(1, 6, 9, 20)
        net.blobs["x"].data[...] = np.random.default_rng(1).normal(size=(1, 6, 9, 20))
    same_passes(nets, backward=False)
    assert segment.stale
    assert made(nets[1]) != [segment]
    same_passes(nets, backward=False)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e29])
def test_values_that_a_graph_would_lose_go_one_by_one(value: float, nets) -> None:
    (segment,) = made(nets[1])
    for net in nets:
        net.params["c"][0].tensor().fill_(1e10 if value == 1e29 else -1)
    (segment,) = made(nets[1])
    for net in nets:
        net.blobs["x"].data[...] = 1
        net.blobs["x"].data[0, 2, 5, 5] = value
    outs = [next(iter(net.forward().values())) for net in nets]
    assert not np.isfinite(outs[0]).all()
    np.testing.assert_allclose(outs[1], outs[0], rtol=1e-4)
    for net in nets:
        net.blobs["x"].data[...] = 1
    outs = [next(iter(net.forward().values())) for net in nets]
    np.testing.assert_allclose(outs[1], outs[0], rtol=1e-4)
    assert not segment.stale


def test_weights_for_which_bounds_grow_too_large_are_divided(pair, same_passes) -> None:
    text = image(1, 4, 6, 6)
    for k, (bottom, top) in enumerate(zip("xabcdefgh", "abcdefghi", strict=True)):
        text += conv(f"c{k}", bottom, top, 4, "kernel_size: 1 bias_term: false")
    nets = pair(text, caffe.TEST)
    for net in nets:
        net.blobs["x"].data[...] = 1
        for k in range(9):  # what channels add, others take away
            weight = net.params[f"c{k}"][0].tensor()
            weight[:, :2], weight[:, 2:] = 1e4, -1e4
    assert len(made(nets[1])) > 1
    same_passes(nets, backward=False)


@pytest.mark.parametrize("why", ["no graph", "other values"])
def test_without_a_right_graph_the_nodes_run_as_before(
    why: str, nets, same_passes, monkeypatch
) -> None:
    def make(nodes, takes, gives, bottom):
        return None if why == "no graph" else lambda *x: [torch.zeros(2, 4, 6, 7)]

    monkeypatch.setattr(segments, "_make_graph", make)
    same_passes(nets, backward=False)
    nets[1].forward()
    plan = nets[1].plan
    assert [step.node for step in plan._joined] == plan.nodes
    same_passes(nets, backward=False)


def test_pytorch_without_the_fuser(nets, same_passes, monkeypatch) -> None:
    monkeypatch.delattr(torch.jit, "onednn_fusion_enabled")
    same_passes(nets, backward=False)
    nets[1].forward()
    plan = nets[1].plan
    assert [step.node for step in plan._joined] == plan.nodes


@pytest.mark.parametrize("enabled", [False, True])
def test_the_fuser_is_left_as_it_was_and_nothing_is_warned_of(enabled: bool, nets) -> None:
    before = torch.jit.enable_onednn_fusion(enabled)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made(nets[1])
        assert torch.jit.onednn_fusion_enabled() == enabled
    finally:
        torch.jit.enable_onednn_fusion(bool(before))


def test_threads_that_make_graphs_at_once_leave_all_as_it_was(pair) -> None:
    planned = [pair(NET, caffe.TEST)[1] for _ in range(4)]
    torch.jit.enable_onednn_fusion(False)
    filters, joined = [*warnings.filters], []
    threads = [threading.Thread(target=lambda n=n: joined.append(made(n))) for n in planned]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(joined) == 4
    assert not torch.jit.onednn_fusion_enabled()
    assert warnings.filters == filters


def test_weights_go_with_the_net(pair, uncollected) -> None:
    net = pair(NET, caffe.TEST)[1]
    (segment,) = made(net)
    storage = net.params["b"][0].tensor().untyped_storage()  # which the graph holds, too
    assert torch._C._storage_Use_Count(storage._cdata) > 1
    del net, segment
    gc.collect()
    assert torch._C._storage_Use_Count(storage._cdata) == 1


def test_only_what_does_not_change_is_made_a_graph_of(nets, monkeypatch) -> None:
    calls, make = [], segments._make_graph
    monkeypatch.setattr(segments, "AFTER", 5)
    monkeypatch.setattr(segments, "_make_graph", lambda *x: calls.append(1) or make(*x))
    for k in range(30):
        if k % 4 == 0:
            nets[1].params["c"][0].data[...] *= 1.01
        nets[1].forward()
    assert not calls
    for _ in range(13):
        nets[1].forward()
    assert len(calls) == 1


def test_values_that_are_not_finite_only_postpone_it(nets) -> None:
    nets[1].blobs["x"].data[...] = np.nan
    for _ in range(4):
        nets[1].forward()
    nets[1].blobs["x"].data[...] = 1
    (segment,) = made(nets[1])
    assert segment._graph is not None


def test_one_graph_that_is_refused_leaves_the_others(pair, same_passes, monkeypatch) -> None:
    pool = """layer {{ name: "{0}" type: "Pooling" bottom: "{1}" top: "{0}"
      pooling_param {{ pool: AVE kernel_size: 2 }} }}"""
    text, bottom = image(1, 4, 16, 16), "x"
    for k in range(3):
        text += conv(f"a{k}", bottom, f"a{k}", 4) + conv(f"b{k}", f"a{k}", f"b{k}", 4)
        text += pool.format(f"p{k}", f"b{k}")
        bottom = f"p{k}"
    nets, calls, make = pair(text, caffe.TEST), [], segments._make_graph

    def some(nodes, *rest):
        calls.append(nodes[0].name)
        return None if nodes[0].name == "a1" else make(nodes, *rest)

    monkeypatch.setattr(segments, "_make_graph", some)
    same_passes(nets, backward=False)
    same_passes(nets, backward=False)
    assert calls == ["a0", "a1", "a2"]
    assert [s.nodes[0].name for s in made(nets[1])] == ["a0", "a2"]


def test_what_a_sum_writes_over_before_the_graph_is_made(pair, same_passes) -> None:
    first = conv("u", "x", "a", 4, "kernel_size: 2 stride: 2 bias_term: false", "Deconvolution")
    block = conv("b", "a", "b", 4) + conv("c", "b", "c", 4) + SUM.format("d", "c", "a")
    nets = pair(image(1, 3, 5, 6) + first + block, caffe.TEST)
    (segment,) = made(nets[1])
    assert [node.layers[0].name for node in segment.nodes] == ["b", "c"]
    assert segment.nodes[1].run.overwrites
    same_passes(nets, backward=False)


def test_autocast_does_not_reach_into_graphs(nets) -> None:
    made(nets[1])
    outs = []
    for net in nets:
        net.observed = False
        with torch.autocast("cpu", torch.bfloat16):
            outs.append(next(iter(net.forward().values())).copy())
    (plain,) = nets[1].forward().values()
    np.testing.assert_allclose(outs[1], plain, rtol=0, atol=1e-6 * np.abs(plain).max())


def test_an_error_names_the_layer(nets, monkeypatch) -> None:
    (segment,) = made(nets[1])
    segment._graph = None

    def fails(bottom, blobs):
        raise MemoryError

    monkeypatch.setattr(segment.nodes[2], "run", fails)
    nets[1].params["a"][0].tensor().mul_(1)
    with pytest.raises(caffe.CaffeError, match=r"^layer 'c\+d\+d_r': not enough memory"):
        nets[1].forward()


def test_a_clock_is_told_of_each_node(nets) -> None:
    made(nets[1])
    clock = Clock(nets[1].plan, iter(range(1000)).__next__)
    clock.run()
    assert all(clock.spent["forward"])
    assert len(clock.names) == len(nets[1].plan.nodes) == 6


@pytest.mark.parametrize("why", ["large", "bf16", "a mask depends on it", "training"])
def test_what_is_not_joined(why: str, pair, monkeypatch) -> None:
    text, phase = NET, caffe.TEST
    if why == "large":
        monkeypatch.setattr(segments, "LARGE", 1)
    elif why == "bf16":
        caffe.set_precision("bf16")
    elif why == "training":
        phase = caffe.TRAIN
    else:
        text += """layer { name: "p" type: "Pooling" bottom: "f" top: "p" top: "m"
          pooling_param { kernel_size: 2 stride: 2 } }
          layer { name: "u" type: "Unpooling" bottom: "p" bottom: "m" top: "u"
          unpooling_param { unpool_size: 2 } }"""
    net = pair(text, phase)[1]
    for _ in range(3):
        net.forward()
    assert isinstance(net.plan, Plan)
    assert not any(isinstance(step.node.run, Segment) for step in net.plan._joined)

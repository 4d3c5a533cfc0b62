"""Nets of little work run on one thread, others on all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from google.protobuf import text_format
from nets import conv, image, losses

import caffe
from caffe.net import work
from caffe.proto import caffe_pb2 as pb


@pytest.fixture(autouse=True)
def _two(_one_thread: None) -> Iterator[None]:
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def _net(more: str = "", side: int = 20, phase: int = caffe.TEST) -> caffe.Net:
    """A convolution with 3 x 4 x 9 weights, and what is behind it; no layer takes two images."""
    text = image(2, 3, side, side) + conv("c", "x", "y") + more
    return caffe.Net(text_format.Parse(text, pb.NetParameter()), phase)


def _threads(net: caffe.Net) -> set[int]:
    """How many threads the layers of forward and backward passes run on."""
    seen: set[int] = set()

    def look(_: object) -> None:
        seen.add(torch.get_num_threads())

    net.before_forward(look)
    net.before_backward(look)
    net.forward()
    net.backward()
    assert torch.get_num_threads() == 2
    return seen


def test_a_little_net_runs_on_one_thread() -> None:
    assert _threads(_net()) == {1}
    assert _threads(_net(losses("y"), phase=caffe.TRAIN)) == {1}


def test_a_plan_does_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    net = _net(losses("y"), phase=caffe.TRAIN)
    net.observed = False
    assert net.plan is not None
    node = net.plan.nodes[0]
    run = node.run
    node.run = lambda *given: seen.append(torch.get_num_threads()) or run(*given)
    net.gradient_hook = lambda _: seen.append(torch.get_num_threads())
    net.forward()
    net.backward()
    assert seen == [1] * (1 + len(net.learnable))


def test_large_blobs_or_many_multiplications_take_all() -> None:
    assert _threads(_net(side=120)) == {2}  # 2 x 3 x 120 x 120 values are more than 32768
    heavy = conv("d", "y", "z", 64) + conv("e", "z", "w", 64)  # 400 places x 2 x 64 x 64 x 9
    assert _threads(_net(heavy, side=20)) == {2}


def test_the_shapes_of_a_pass_decide() -> None:
    net = _net()
    net.blobs["x"].reshape(2, 3, 120, 120)
    assert _threads(net) == {2}
    net.blobs["x"].reshape(2, 3, 20, 20)
    assert _threads(net) == {1}


class Own(caffe.Layer):
    def setup(self, bottom, top) -> None:
        pass

    def reshape(self, bottom, top) -> None:
        top[0].reshape(1)

    def forward(self, bottom, top) -> None:
        top[0].data[...] = torch.get_num_threads()


def test_what_a_python_layer_does_is_not_known() -> None:
    ends = 'name: "p" type: "Python" bottom: "y" top: "n"'
    net = _net(f'layer {{ {ends} python_param {{ module: "{__name__}" layer: "Own" }} }}')
    assert net.forward()["n"] == [2]


def test_on_a_gpu_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "current_device", lambda: torch.device("cuda", 0))
    assert _threads(_net()) == {2}


def test_shapes_that_do_not_fit_are_the_passs_to_refuse() -> None:
    net = _net(conv("d", "y", "z", how="kernel_size: 5"), side=5)
    net.blobs["x"].reshape(2, 3, 2, 2)
    assert not net.work.is_little()
    with pytest.raises(caffe.CaffeError, match="layer 'd'"):
        net.forward()


def test_other_nets_look_at_who_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    monkeypatch.setattr(work.waiting, "look", lambda: looks.append(1))
    _net().forward()
    assert not looks
    net = _net(side=120)
    net.forward()
    net.backward()
    assert len(looks) == 2
    monkeypatch.setattr(work, "current_device", lambda: torch.device("cuda", 0))
    net.forward()
    assert len(looks) == 2

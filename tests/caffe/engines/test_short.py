"""The short way (caffe/net/short.py) with engines: when passes take it, and all that ends it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from nets import conv, image, ip

import caffe
from caffe.blob import Blob
from caffe.net import work
from caffe.plan.plan import Plan

PLAIN = "kernel_size: 3 pad: 1"
NET = image(2, 3, 6, 6) + conv("a", "x", "a", 4, PLAIN) + conv("b", "a", "b", 2, PLAIN)
NET += conv("c", "a", "c", 3, PLAIN)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that passes have followed: those of the short way follow none."""
    followed: list[Plan] = []
    forward = Plan.forward
    monkeypatch.setattr(Plan, "forward", lambda self: (followed.append(self), forward(self))[1])
    return followed


@pytest.fixture
def net(deploy, fakes, plans) -> caffe.Net:
    """A net whose next pass takes the short way."""
    found = deploy(NET)
    caffe.set_engine("onnxruntime")
    settle(found, plans)
    return found


def settle(net: caffe.Net, plans: list[Plan]) -> None:
    """Run passes until they take the short way, as they do after some."""
    for _ in range(3):
        net.forward()
    plans.clear()
    net.forward()
    assert plans == []


def copies(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: values.copy() for name, values in found.items()}


def layers(net: caffe.Net) -> dict[str, np.ndarray]:
    """The outputs that layers give one by one, in a net of the same weights and inputs."""
    other = caffe.Net(net.to_proto(), caffe.TEST)
    other.share_with(net)
    for name in net.inputs:
        other.blobs[name].reshape(*net.blobs[name].shape)
        other.blobs[name].data[...] = net.blobs[name].data
    return copies(other.forward())


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5 * np.abs(values).max())


def test_passes_of_an_engine_become_short(net, plans, fakes):
    before = fakes["onnxruntime"].passes
    for value in (1, 2, 3):
        net.blobs["x"].data[...] = value
        found = copies(net.forward())
        assert plans == []
        same(found, layers(net))
    assert fakes["onnxruntime"].passes == before + 3


def test_inputs_may_be_given(net, plans):
    x = np.random.default_rng(3).normal(size=(5, 3, 6, 6))
    found = copies(net.forward(x=x[:2]))
    assert plans == []
    same(found, layers(net))
    with pytest.raises(caffe.CaffeError, match="do not match the net's inputs"):
        net.forward(y=x[:2])
    assert net.forward_all(x=x)["b"].shape == (5, 2, 6, 6)
    assert plans == []


def test_no_threads_are_asked_for_where_pytorch_computes_nothing(deploy, fakes, monkeypatch):
    """On the long way, too; to choose or to prepare may be work for them."""
    shared: list[int] = []
    sharing = work.Work.sharing
    monkeypatch.setattr(work.Work, "sharing", lambda self: (shared.append(1), sharing(self))[1])
    net = deploy(NET)
    caffe.set_engine("onnxruntime")
    net.forward()
    assert len(shared) == 1
    for _ in range(3):
        net.forward_from_to(0, len(net.layers) - 1)
    assert len(shared) == 1
    net.blobs["x"].reshape(1, 3, 5, 4)
    net.forward()
    assert len(shared) == 2
    other = deploy(image(2, 4) + ip("f", "x") + BEHIND)
    for _ in range(3):
        other.forward()
    assert len(shared) == 5


def test_outputs_are_the_blobs_memory(net, plans):
    """Views show each pass, and what a user does to a view's shape or flags stays the view's."""
    first = net.forward()
    view = first["b"]
    before, shown = view.copy(), net.blobs["b"].data
    view.flags.writeable = False
    net.blobs["x"].data[...] *= 2
    again = net.forward()
    assert plans == []
    assert not np.allclose(again["b"], before)
    np.testing.assert_array_equal(view, again["b"])
    np.testing.assert_array_equal(shown, again["b"])
    again["b"][...] = 0
    assert (net.blobs["b"].data == 0).all()


def _other_weights(net: caffe.Net) -> caffe.Net:
    other = caffe.Net(net.to_proto(), caffe.TEST)
    for blobs in other.params.values():
        blobs[0].tensor().fill_(0.25)
    return other


def _from_file(net: caffe.Net, folder: str) -> None:
    _other_weights(net).save(f"{folder}/other.caffemodel")
    net.copy_from(f"{folder}/other.caffemodel")


WRITES: dict[str, Callable[[caffe.Net, str], object]] = {
    "view": lambda net, _: net.params["a"][0].data.__setitem__(..., 0.25),
    "tensor": lambda net, _: net.params["a"][0].tensor().fill_(0.25),
    "file": _from_file,
    "share": lambda net, _: net.share_with(_other_weights(net)),
}


@pytest.mark.parametrize("way", WRITES)
def test_new_weights(way, net, plans, tmp_path):
    before = copies(net.forward())
    WRITES[way](net, str(tmp_path))
    found = copies(net.forward())
    assert plans != []
    assert not np.allclose(found["b"], before["b"])
    same(found, layers(net))
    settle(net, plans)
    same(copies(net.forward()), found)


@pytest.mark.parametrize("kept", ["view", "tensor"])
def test_weights_that_somebody_can_write_to(kept, net, plans):
    blob = net.params["a"][0]
    values = blob.data if kept == "view" else blob.tensor()
    for value in (0.5, 0.25):
        settle(net, plans)
        values[...] = value
        same(copies(net.forward()), layers(net))
        assert len(plans) == 1
    del values
    settle(net, plans)


def test_shapes(net, plans):
    net.blobs["x"].reshape(1, 3, 5, 4)
    net.blobs["x"].data[...] = 1
    found = copies(net.forward())
    assert found["c"].shape == (1, 3, 5, 4)
    same(found, layers(net))
    settle(net, plans)
    net.blobs["x"].reshape(2, 3, 6, 6)
    net.reshape()
    net.blobs["x"].data[...] = 2
    same(copies(net.forward()), layers(net))


def test_an_output_that_was_reshaped(net, plans):
    net.blobs["b"].reshape(144)
    assert net.forward()["b"].shape == (2, 2, 6, 6)
    assert len(plans) == 1


def test_other_memory_of_an_input(net, plans):
    """Values that are assigned are another tensor; a reshape there and back takes new memory."""
    net.blobs["x"].reshape(1)
    net.blobs["x"].reshape(2, 3, 6, 6)
    net.blobs["x"].data[...] = 3
    same(copies(net.forward()), layers(net))
    assert len(plans) == 1
    other = caffe.Net(net.to_proto(), caffe.TEST).blobs["x"]
    other.data[...] = 4
    net.blobs["x"].share_data(other)
    same(copies(net.forward()), layers(net))


def test_observed(net, plans):
    net.observed = True
    net.blobs["x"].data[...] = 1
    found = copies(net.forward())
    assert np.abs(net.blobs["a"].data).max() > 0
    assert plans == []
    net.observed = False
    net.blobs["a"].data[...] = 0
    same(copies(net.forward()), found)
    assert (net.blobs["a"].data == 0).all()


@pytest.mark.parametrize("way", ["forward", "backward"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_callbacks(when, way, net, plans):
    """Those of backward passes, too: a pass that keeps no blobs has none."""
    seen = []
    getattr(net, f"{when}_{way}")(seen.append)
    net.forward()
    net.backward()
    assert sorted(seen) == [*range(len(net.layers))]
    assert plans == []


def test_debug_info(net, fakes, monkeypatch):
    from caffe.net import debug

    shown = []
    monkeypatch.setattr(debug, "show_forward", lambda wiring, i: shown.append(i))
    net.debug_info = True
    before = fakes["onnxruntime"].passes
    net.forward()
    assert shown == [*range(len(net.layers))]
    assert fakes["onnxruntime"].passes == before
    net.debug_info = False
    net.forward()
    assert len(shown) == len(net.layers)


def test_another_engine(net, plans, fakes):
    before = fakes["onnxruntime"].passes
    caffe.set_engine("openvino")
    same(copies(net.forward()), layers(net))
    settle(net, plans)
    assert fakes["openvino"].passes > 1
    caffe.set_engine("torch")
    net.forward()
    assert [node.name for node in net.plan.nodes][-1] == "c"
    assert fakes["onnxruntime"].passes == before
    caffe.set_engine("onnxruntime")
    settle(net, plans)


def test_a_device(net, plans, fakes, pretend_gpu):
    caffe.set_mode_cpu()
    net.forward()
    assert plans == []
    before = fakes["onnxruntime"].passes
    caffe.set_mode_gpu()
    net.forward()
    caffe.set_mode_cpu()
    assert len(plans) == 1
    assert fakes["onnxruntime"].passes == before
    same(copies(net.forward()), layers(net))
    settle(net, plans)


def test_a_precision(net, plans, fakes):
    before = fakes["onnxruntime"].passes
    caffe.set_precision("bf16")
    net.forward()
    assert len(plans) == 1
    assert fakes["onnxruntime"].passes == before
    caffe.set_precision("fp32")
    same(copies(net.forward()), layers(net))
    settle(net, plans)


def test_values_that_are_on_a_gpu(deploy, fakes, plans, pretend_gpu):
    """A pass there, and whoever fills an input there, leaves newer values on the GPU."""
    caffe.set_mode_cpu()
    net = deploy(image(2, 3) + 'layer { name: "p" type: "Power" bottom: "x" top: "p" }')
    caffe.set_engine("onnxruntime")
    settle(net, plans)
    caffe.set_mode_gpu()
    net.blobs["x"].tensor().fill_(2)
    caffe.set_mode_cpu()
    assert (net.forward()["p"] == 2).all()
    assert len(plans) == 1


def test_threads_count_for_nets_that_are_not_little(net, plans, fakes, monkeypatch):
    torch.set_num_threads(2)
    net.forward()
    assert plans == []
    monkeypatch.setattr(work, "LITTLE", 0)
    net.work = work.Work(net.wiring)
    net._short = None
    settle(net, plans)
    torch.set_num_threads(3)
    net.forward()
    assert len(plans) == 1
    assert fakes["onnxruntime"].threads == [1, 2, 3]


@pytest.mark.parametrize("ask", [{"blobs": ["a"]}, {"end": "a"}, {"start": "b"}])
def test_parts_of_passes(ask, net, fakes):
    before = fakes["onnxruntime"].passes
    net.forward(**ask)
    assert fakes["onnxruntime"].passes == before
    same(copies(net.forward()), layers(net))


def test_an_engine_that_fails(net, plans, fakes, told):
    net.blobs["x"].data[...] = 2
    fakes["onnxruntime"].broken["run"] = RuntimeError("no more")
    found = copies(net.forward())
    same(found, layers(net))
    assert told == ["Net '', inputs 2x3x6x6, 1 thread: not computed by onnxruntime: no more"]


def test_there_is_no_gradient_behind_it(net):
    for _ in range(2):
        net.forward()
        with pytest.raises(caffe.CaffeError, match="in TEST nothing is kept for gradients"):
            net.backward()
        net.forward(end="a")
        net.backward(start="a")


def test_passes_of_other_kinds_between(net, plans):
    last = len(net.layers) - 1
    net.forward_from_to(0, last)
    assert len(plans) == 1
    net.forward()
    assert len(plans) == 1
    net.params["a"][0].tensor().fill_(0.25)
    net.forward_from_to(0, last)  # which compiles the weights that are new
    same(copies(net.forward()), layers(net))


def test_memory_that_was_bound_between(net, plans):
    """A pass of another kind has bound other memory, and the former is there again."""
    blob, mine, other = net.blobs["x"], Blob((2, 3, 6, 6)), Blob((2, 3, 6, 6))
    mine.share_data(blob)
    blob.share_data(other)
    net.forward_from_to(0, len(net.layers) - 1)
    blob.share_data(mine)
    blob.data[...] = 5
    same(copies(net.forward()), layers(net))


def test_an_input_that_is_an_output(deploy, fakes, plans):
    net = deploy(image(2, 4) + image(2, 3, name="aside") + ip("f", "x"))
    caffe.set_engine("onnxruntime")
    for shape in ((2, 3), (2, 3), (2, 3), (1, 5)):
        net.blobs["aside"].reshape(*shape)
        assert net.forward()["aside"].shape == shape
    assert fakes["onnxruntime"].passes == 4
    assert len(plans) == 4


DUMMY = (
    'layer { name: "d" type: "DummyData" top: "x" dummy_data_param { shape { dim: 2 dim: 4 } } }'
)
MEMORY = """layer { name: "d" type: "MemoryData" top: "x" top: "label"
  memory_data_param { batch_size: 1 channels: 1 height: 2 width: 2 } }
  layer { name: "s" type: "Silence" bottom: "label" }"""
BEHIND = """layer { name: "r" type: "Reduction" bottom: "f" top: "r" loss_weight: 1 }"""


def test_what_is_behind_the_engine_counts(deploy, fakes, plans):
    net = deploy(image(2, 4) + ip("f", "x") + BEHIND)
    caffe.set_engine("onnxruntime")
    for _ in range(5):
        net.forward()
    assert len(plans) == 5
    assert fakes["onnxruntime"].passes == 5


def test_a_source_that_reads_counts(deploy, fakes, plans):
    net = deploy(MEMORY + ip("f", "x"))
    caffe.set_engine("onnxruntime")
    values = np.arange(12, dtype=np.float32).reshape(3, 1, 2, 2)
    net.set_input_arrays(values, np.zeros(3, np.float32))
    found = [net.forward()["f"].copy() for _ in range(6)]
    np.testing.assert_array_equal(found[:3], found[3:])
    assert not np.allclose(found[0], found[1])
    assert len(plans) == 6


def test_a_source_that_draws_counts(deploy, fakes, plans):
    """It draws anew in each pass, into the same memory, and the engine computes what is behind."""
    draws = """layer { name: "d" type: "DummyData" top: "x" dummy_data_param {
      shape { dim: 2 dim: 4 } data_filler { type: "uniform" } } }"""
    net = deploy(draws + ip("f", "x"))
    caffe.set_engine("onnxruntime")
    found = [net.forward()["f"].copy() for _ in range(4)]
    assert not any(np.allclose(a, b) for a, b in itertools.combinations(found, 2))
    assert len(plans) == fakes["onnxruntime"].passes == 4

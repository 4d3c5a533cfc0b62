"""The plan computes what the layer loop computes: outputs, gradients, statistics."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch.nn import functional

import caffe
from caffe.layers.base import Tensors
from caffe.layers.rearrange import Split
from caffe.plan.build import can_plan
from caffe.plan.ir import Node, Operation
from caffe.plan.plan import Plan
from caffe.proto import caffe_pb2 as pb
from netgen import Architecture, Training
from netgen.fusenet import train_net

GOLDEN = Path(__file__).parents[2] / "golden" / "train"

BLOCK = """
layer {{ name: "x" type: "Input" top: "x"
  input_param {{ shape {{ dim: 2 dim: 3 dim: 9 dim: 7 }} }} }}
layer {{ name: "t" type: "Input" top: "t"
  input_param {{ shape {{ dim: 2 dim: 4 dim: 9 dim: 7 }} }} }}
layer {{ name: "conv" type: "{conv}" bottom: "x" top: "y" convolution_param {{
  num_output: 4 pad: 1 kernel_size: 3 {more} weight_filler {{ type: "msra" }}
  bias_filler {{ type: "gaussian" }} }} }}
layer {{ name: "bn" type: "BatchNorm" bottom: "y" top: "n" }}
layer {{ name: "scale" type: "Scale" bottom: "n" top: "n" scale_param {{ bias_term: {bias}
  filler {{ type: "gaussian" mean: 1 std: 0.2 }} bias_filler {{ type: "gaussian" }} }} }}
layer {{ name: "relu" type: "ReLU" bottom: "n" top: "n" }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "n" bottom: "t" top: "loss" }}
"""


def parse(text: str) -> pb.NetParameter:
    return text_format.Parse(text, pb.NetParameter())


@pytest.mark.parametrize("bias", ["true", "false"])
def test_fused_batch_norm_trains_alike(pair, same_passes, bias: str) -> None:
    # A bias before BatchNorm would have a gradient of pure rounding.
    block = BLOCK.format(conv="Convolution", more="bias_term: false", bias=bias)
    nets = pair(parse(block), caffe.TRAIN)
    nodes = Plan(nets[1].wiring, True).nodes
    assert [len(node.layers) for node in nodes] == [1, 1, 1, 3, 1]
    same_passes(nets, backward=True)


@pytest.mark.parametrize(
    ("conv", "more"),
    [
        ("Convolution", ""),
        ("Convolution", "bias_term: false"),
        ("Deconvolution", ""),
        ("Deconvolution", "bias_term: false"),
    ],
)
def test_folded_batch_norm_predicts_alike(pair, same_passes, conv: str, more: str) -> None:
    nets = pair(parse(BLOCK.format(conv=conv, more=more, bias="true")), caffe.TEST)
    for net in nets:
        mean, variance, factor = net.params["bn"]
        mean.data[...], variance.data[...], factor.data[...] = [3, -1, 0, 2], [1, 2, 9, 4], 2
    nodes = Plan(nets[1].wiring, False).nodes
    assert [len(node.layers) for node in nodes] == [1, 1, 4, 1]
    same_passes(nets, backward=False)


def test_folds_grouped_deconvolution(pair, same_passes) -> None:
    text = BLOCK.format(conv="Deconvolution", more="group: 2", bias="true")
    param = parse(text.replace("dim: 3 dim: 9", "dim: 6 dim: 9"))
    nets = pair(param, caffe.TEST)
    for net in nets:
        mean, variance, factor = net.params["bn"]
        mean.data[...], variance.data[...], factor.data[...] = [3, -1, 0, 2], [1, 2, 9, 4], 2
    same_passes(nets, backward=False)


def test_fresh_statistics_fold_as_they_run(pair, same_passes) -> None:
    """A factor of 0: nothing was gathered, mean and variance count as 0."""
    nets = pair(parse(BLOCK.format(conv="Convolution", more="", bias="true")), caffe.TEST)
    same_passes(nets, backward=False)


def test_weights_may_change_between_passes(pair, same_passes) -> None:
    nets = pair(parse(BLOCK.format(conv="Convolution", more="", bias="true")), caffe.TEST)
    same_passes(nets, backward=False)
    for net in nets:
        net.params["conv"][0].data[...] *= 2
        net.params["scale"][0].data[...] += 1
    same_passes(nets, backward=False)


def test_one_blob_taken_twice_and_an_output_in_between(pair, same_passes) -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {
      num_output: 3 weight_filler { type: "xavier" } } }
    layer { name: "sum" type: "Eltwise" bottom: "x" bottom: "y" top: "s" }
    layer { name: "relu" type: "ReLU" bottom: "s" top: "r" }
    layer { name: "keep" type: "Power" bottom: "y" top: "kept" loss_weight: 0.5 }
    layer { name: "loss" type: "Reduction" bottom: "r" top: "loss" loss_weight: 2 }
    """
    nets = pair(parse(text), caffe.TRAIN)
    nodes = Plan(nets[1].wiring, True).nodes
    # The Split of what learns vanishes; that of the input passes no gradient and stays.
    assert [node.layer.name for node in nodes if node.is_a(Split)] == ["x_x_0_split"]
    same_passes(nets, backward=True)


def test_propagate_down_false_stops_the_gradient(pair, same_passes) -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" inner_product_param {
      num_output: 3 weight_filler { type: "xavier" } } }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" propagate_down: false
      inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "Reduction" bottom: "b" top: "loss" loss_weight: 1 }
    """
    nets = pair(parse(text), caffe.TRAIN)
    same_passes(nets, backward=True)
    assert not nets[1].params["a"][0].diff.any()
    assert nets[1].params["b"][0].diff.any()


def test_parameter_layers_learn(pair, same_passes) -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "w" type: "Parameter" top: "w" parameter_param { shape { dim: 3 } } }
    layer { name: "b" type: "Scale" bottom: "x" bottom: "w" top: "b" }
    layer { name: "loss" type: "Reduction" bottom: "b" top: "loss" loss_weight: 1 }
    """
    nets = pair(parse(text), caffe.TRAIN)
    same_passes(nets, backward=True)
    assert nets[1].params["w"][0].diff.any()


def test_shared_parameters_gather_both_gradients(pair, same_passes) -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "a" type: "InnerProduct" bottom: "x" top: "a" param { name: "w" }
      inner_product_param { num_output: 3 bias_term: false weight_filler { type: "xavier" } } }
    layer { name: "b" type: "InnerProduct" bottom: "a" top: "b" param { name: "w" }
      inner_product_param { num_output: 3 bias_term: false weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "Reduction" bottom: "b" top: "loss" loss_weight: 1 }
    """
    same_passes(pair(parse(text), caffe.TRAIN), backward=True)


FUSENETS = [("sf3", (64, 64)), ("df2", (95, 65)), ("depth", (64, 64))]


@pytest.mark.parametrize(("net", "size"), FUSENETS)
def test_fusenets(pair, net: str, size: tuple[int, int]) -> None:
    """Whole networks, pooling and unpooling by indices included.

    The plan may differ by three times what rounding the weights changes, and 1e-5 of the value.
    """
    param = _small_fusenet(net, size)
    nets = pair(param, caffe.TRAIN)
    rounded = caffe.Net(param, caffe.TRAIN)
    observed, planned = nets
    _open_or_shut(nets)
    rng = np.random.default_rng(3)
    for each in (*nets, rounded):
        label = each.blobs["label"]
        label.data[...] = np.arange(label.count).reshape(label.shape) % 4
    for name in observed.inputs:
        rounded.blobs[name].data[...] = observed.blobs[name].data
    for name, blobs in observed.params.items():
        for mine, theirs in zip(rounded.params[name], blobs, strict=True):
            mine.data[...] = theirs.data * (1 + 1e-7 * rng.choice([-1, 1], theirs.shape))
    made = Plan(planned.wiring, True)
    assert made.report.acted["pool_by_indices"] == sum(x.type == "Pooling" for x in planned.layers)
    assert not any(node.is_a(Split) and all(node.wants) for node in made.nodes)

    first, near = observed.forward(), rounded.forward()
    for node in planned.plan.nodes:
        if node.layer.type == "Pooling":
            node.run = _as_chosen_in_ties(observed, node)
    for name, values in planned.forward().items():
        bound = 3 * abs(near[name] - first[name]) + 1e-5 * abs(first[name])
        assert abs(values - first[name]) <= bound, name
    for each in (*nets, rounded):
        each.backward()
    exact = ("conv1_1", "conv4_", "conv5_", "score")
    for name in observed.params:
        if observed.layer_dict[name].type == "BatchNorm":  # statistics, without gradients
            continue
        a, b, c = (each.params[name][0].diff for each in (observed, planned, rounded))
        # At 16 x 16 and above, sums over positions cancel. Rounded weights do not show how these
        # sums are rounded: up to 4e-4 of what is left.
        share = 1e-5 if name.startswith(exact) else 1e-3
        bound = 3 * np.linalg.norm(c - a) + share * np.linalg.norm(a)
        assert np.linalg.norm(b - a) <= bound, name


def _open_or_shut(nets: Sequence[caffe.Net]) -> None:
    """Let each channel be positive as a whole before its ReLU, or negative.

    Else the sign of a value near zero is up to rounding, and a gradient changes by percents.
    """
    for net in nets:
        for name, blobs in net.params.items():
            if net.layer_dict[name].type == "Scale":
                blobs[1].data[...] = np.where(np.arange(blobs[1].count) % 2, -6, 6)


def _as_chosen_in_ties(observed: caffe.Net, node: Node) -> Operation:
    """The pooling of `node`; where it chooses another value than the observed net, the two are a
    tie but for rounding, and it is given the observed net's.
    """
    source = observed.blobs[observed.bottom_names[node.layer.name][0]]
    run = node.run

    def chosen(bottom: Tensors, blobs: Tensors) -> Sequence[torch.Tensor]:
        tops = run(bottom, blobs)
        seen = torch.from_numpy(source.data.copy())
        _, places = functional.max_pool2d(seen, 2, 2, ceil_mode=True, return_indices=True)
        values = bottom[0].flatten(2).gather(2, places.flatten(2)).view(places.shape)
        if torch.equal(values, tops[0]):
            return tops
        torch.testing.assert_close(values, tops[0], rtol=0, atol=1e-5 * float(seen.abs().max()))
        return [values, places][: len(tops)]

    return chosen


@pytest.mark.parametrize("phase", [caffe.TRAIN, caffe.TEST])
def test_fusenets_that_choose_alike(phase: int, pair) -> None:
    """Pooling takes the observed net's choices, because rounding decides near ties. Then all scores
    equal to 1e-5 of the scale. In TRAIN rounding grows to 5e-4 through 26 BatchNorms, some of them
    over eight values a channel.
    """
    tolerance = 5e-4 if phase == caffe.TRAIN else 1e-5
    param = _small_fusenet("sf5", (64, 64))
    for layer in param.layer:
        if layer.type == "SoftmaxWithLoss":
            layer.name = "loss"
    param.layer.add(name="shown", type="Power", bottom=["score"], top=["shown"])
    nets = pair(param, phase)
    for net in nets:
        net.blobs["label"].data[...] = np.arange(net.blobs["label"].count).reshape(2, 1, 64, 64) % 4
        for name, blobs in net.params.items():
            if net.layer_dict[name].type == "BatchNorm":
                blobs[1].data[...], blobs[2].data[...] = 1, 1
    observed, planned = nets
    first = observed.forward()
    for node in planned.plan.nodes:
        if node.layer.type == "Pooling":
            node.run = _as_chosen(observed, node)
    outs = planned.forward()
    for name, values in first.items():
        np.testing.assert_allclose(
            outs[name], values, rtol=0, atol=tolerance * np.abs(values).max(), err_msg=name
        )
    if phase == caffe.TRAIN:
        for net in nets:
            net.backward()
        a, b = (net.params["score"][0].diff for net in nets)
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * np.abs(a).max())


def _as_chosen(observed: caffe.Net, node: Node) -> Operation:
    """The pooling of `node` by the places that the observed net's mask holds."""
    tops = observed.top_names[node.layer.name]
    run = node.run
    if len(tops) == 1:  # no mask: as it is
        return run
    places = torch.from_numpy(observed.blobs[tops[1]].data.copy()).long()

    def chosen(bottom: Tensors, blobs: Tensors) -> list[torch.Tensor]:
        values = bottom[0].flatten(2).gather(2, places.flatten(2)).view(places.shape)
        return [values, places]

    return chosen


def _small_fusenet(net: str, size: tuple[int, int]) -> pb.NetParameter:
    """A train net with inputs in the place of its data, and without dropout."""
    param = train_net(Architecture(net, 3, size, width_multiplier=0.1), Training("a", "b"))
    layers = [layer for layer in param.layer if layer.type not in ("Data", "Slice", "Dropout")]
    renamed = {d.top[0]: d.bottom[0] for d in param.layer if d.type == "Dropout"}
    for layer in layers:
        for i, blob in enumerate(layer.bottom):
            while renamed.get(blob, blob) != blob:
                blob = renamed[blob]
            layer.bottom[i] = blob
    made = pb.NetParameter(name=net)
    for blob, channels in (("rgb", 3), ("depth", 1), ("label", 1)):
        shape = pb.BlobShape(dim=[2, channels, size[1], size[0]])
        made.layer.add(name=blob, type="Input", top=[blob]).input_param.shape.append(shape)
    for layer in layers:
        made.layer.add().CopyFrom(layer)
    return made


def test_only_outputs_are_filled_and_watchers_get_the_loop(pair) -> None:
    nets = pair(parse(BLOCK.format(conv="Convolution", more="", bias="true")), caffe.TRAIN)
    net = nets[1]
    net.forward()
    assert not net.blobs["n"].data.any()
    seen: list[int] = []
    net.after_forward(seen.append)
    net.forward()
    assert seen == list(range(len(net.layers)))
    assert net.blobs["n"].data.any()


def test_blobs_that_are_asked_for_are_filled(pair) -> None:
    """A pass that is to show an inner blob goes layer by layer; the next one by plan again."""
    nets = pair(parse(BLOCK.format(conv="Convolution", more="", bias="true")), caffe.TEST)
    shown = [net.forward(blobs=["y"])["y"].copy() for net in nets]
    assert shown[0].any()
    np.testing.assert_array_equal(shown[0], shown[1])
    nets[1].blobs["y"].data[...] = 0
    nets[1].forward()
    assert not nets[1].blobs["y"].data.any()


@pytest.mark.parametrize(
    "asked", [{"diffs": ["y"]}, {"start": "bn"}, {"end": "conv"}, {"loss": np.ones(())}]
)
def test_a_plan_goes_back_as_a_whole(asked: dict, pair) -> None:
    net = pair(parse(BLOCK.format(conv="Convolution", more="", bias="true")), caffe.TRAIN)[1]
    net.forward()
    with pytest.raises(caffe.CaffeError, match=r"by plan .*set net.observed = True"):
        net.backward(**asked)
    net.observed = True
    net.forward()
    net.backward(**asked)


def test_python_layers_take_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    class Double(caffe.Layer):
        def setup(self, bottom, top) -> None: ...

        def reshape(self, bottom, top) -> None:
            top[0].reshape(*bottom[0].shape)

        def forward(self, bottom, top) -> None:
            top[0].data[...] = 2 * bottom[0].data

        def backward(self, top, propagate_down, bottom) -> None: ...

    text = """
    layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 2 } } }
    layer { name: "p" type: "Python" bottom: "x" top: "y"
      python_param { module: "plan_doubles" layer: "Double" } }
    """
    module = ModuleType("plan_doubles")
    module.Double = Double
    monkeypatch.setitem(sys.modules, "plan_doubles", module)
    net = caffe.Net(parse(text), caffe.TEST)
    net.observed = False
    assert not can_plan(net.wiring)
    net.blobs["x"].data[...] = 3
    assert net.forward()["y"].tolist() == [6, 6]


def test_recorded_training_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The authors' fork's own losses (golden/train), by the plan."""
    monkeypatch.chdir(GOLDEN)
    solver = caffe.get_solver("solver.prototxt")
    solver.net.copy_from("init.caffemodel")
    solver.net.observed = False
    losses: list[float] = []
    solver.add_callback(lambda: None, lambda: losses.append(float(solver.net.blobs["loss"].data)))
    solver.step(20)
    recorded = np.loadtxt("losses.csv", delimiter=",", skiprows=1)[:, 1]
    np.testing.assert_allclose(losses, recorded, atol=1e-4)

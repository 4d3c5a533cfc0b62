"""The layers of a net that an engine can compute."""

from __future__ import annotations

import numpy as np
import pytest
from nets import conv, image, ip

import caffe
from caffe.engines import regions
from caffe.formats.onnx import TARGETS

PLAIN = "kernel_size: 3 pad: 1"


def layer(name: str, kind: str, bottom: str, top: str = "", more: str = "") -> str:
    tops = f'top: "{top or name}"' if top != "-" else ""
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" {tops} {more} }}'


def found(net: caffe.Net) -> tuple[list[str], list[str], list[str]] | None:
    """Names of the layers, of what they take and of what they give."""
    region, wiring = regions.find(net.wiring), net.wiring
    if region is None:
        return None
    layers = [wiring.layer_names[i] for i in sorted(region.layers)]
    return layers, wiring.names(region.takes), wiring.names(region.gives)


@pytest.fixture
def region(deploy):
    return lambda text: found(deploy(text))


def test_all_layers_of_a_deploy_net(region) -> None:
    text = image(1, 3, 5, 5) + conv("a", "x", "a") + layer("r", "ReLU", "a", "a")
    assert region(text) == (["a", "r"], ["x"], ["a"])


def test_copies_at_the_end_are_left_out(region) -> None:
    """Else an engine would write the same values once for each loss."""
    text = image(2, 4) + image(2, name="l") + ip("f", "x")
    for name, kind in (("loss", "SoftmaxWithLoss"), ("right", "Accuracy")):
        text += layer(name, kind, 'f" bottom: "l')
    assert region(text) == (["f"], ["x"], ["f"])


def test_a_layer_that_changes_its_blobs_and_all_behind_it_are_left_out(region) -> None:
    """An engine would not gather BatchNorm's statistics."""
    batch = "batch_norm_param { use_global_stats: false }"
    text = image(1, 3, 5, 5) + conv("a", "x", "a") + layer("n", "BatchNorm", "a", more=batch)
    assert region(text + layer("p", "Power", "n")) == (["a"], ["x"], ["a"])


def test_a_blob_is_given_as_its_last_layer_leaves_it(deploy) -> None:
    """A model has the last value of a blob only: who is left out takes along who wrote before."""
    net = deploy(image(2, 4) + ip("f", "x") + layer("r", "ReLU", "f", "f") + ip("g", "f"))
    wiring = net.wiring
    assert regions.find(wiring, {wiring.layer_names.index("r")}) is None
    assert regions.find(wiring, {wiring.layer_names.index("g")}).layers == {1, 2}


def test_state_and_losses_are_the_plans(region) -> None:
    rows = image(3, 2, 4) + image(3, 2, name="cont")
    lstm = 'layer { name: "l" type: "LSTM" bottom: "x" bottom: "cont" top: "l" '
    assert region(rows + lstm + "recurrent_param { num_output: 2 } }") is None
    weighted = image(2, 4) + ip("f", "x", more="loss_weight: 2")
    assert region(weighted) is None


def test_only_what_is_taken_is_given_to_a_model(deploy) -> None:
    text = image(1, 3, 5, 5) + image(1, 2, name="aside") + conv("a", "x", "a")
    text += layer("s", "Silence", "aside", "-")
    net = deploy(text)
    region = regions.find(net.wiring)
    assert net.wiring.names(region.takes) == ["x"]
    model = regions.write(net, region, TARGETS["openvino"])
    assert model.inputs == (("x", 0),)


def test_a_form_that_parameters_rule_out_is_found(deploy, fakes) -> None:
    """A pooling window that lies beyond the image has no form."""
    beyond = "pooling_param { kernel_size: 1 stride: 2 }"
    text = image(1, 3, 4, 4) + conv("a", "x", "a", how=PLAIN)
    text += layer("p", "Pooling", "a", more=beyond) + layer("r", "ReLU", "p", "y")
    net = deploy(text)
    region = regions.find(net.wiring)
    refused = regions.without_form(net, region, TARGETS["onnxruntime"])
    assert [net.wiring.layer_names[i] for i in refused] == ["p"]
    wanted = net.forward()["y"].copy()
    caffe.set_engine("onnxruntime")
    np.testing.assert_allclose(net.forward()["y"], wanted, rtol=0, atol=1e-5)
    assert [node.name for node in net.plan.nodes] == ["x", "onnxruntime", "p", "r"]

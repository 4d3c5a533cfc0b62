"""Engines by choice: whole nets in OpenVINO and onnxruntime give what the plan gives."""

from __future__ import annotations

import numpy as np
import pytest
from google.protobuf import text_format
from nets import NO_BIAS, conv, image, ip, norm, set_statistics

import caffe
from caffe.proto import caffe_pb2 as pb
from netgen import Architecture, deploy_net

RELU = 'layer {{ name: "{0}_r" type: "ReLU" bottom: "{0}" top: "{0}" }}'
SOFTMAX = 'layer {{ name: "prob" type: "Softmax" bottom: "{}" top: "prob" }}'
PLAIN = "kernel_size: 3 pad: 1"


def pooling(name: str, bottom: str, more: str = "kernel_size: 2 stride: 2") -> str:
    return (
        f'layer {{ name: "{name}" type: "Pooling" bottom: "{bottom}" top: "{name}" '
        f"pooling_param {{ {more} }} }}"
    )


def joined(name: str, kind: str, *bottoms: str) -> str:
    named = " ".join(f'bottom: "{b}"' for b in bottoms)
    return f'layer {{ name: "{name}" type: "{kind}" {named} top: "{name}" }}'


def cascade() -> str:
    """The shape of MTCNN's P-Net: PReLU, a pooling, and two outputs."""
    text = image(2, 3, 12, 12) + conv("a", "x", "a", 10, "kernel_size: 3")
    text += 'layer { name: "p" type: "PReLU" bottom: "a" top: "a" }' + pooling("b", "a")
    text += conv("c", "b", "c", 8, "kernel_size: 3") + conv("d", "c", "box", 4, "kernel_size: 1")
    return text + conv("e", "c", "e", 2, "kernel_size: 1") + SOFTMAX.format("e")


def inception() -> str:
    """Branches that are joined, LRN, an average and a matrix, as in GoogLeNet."""
    text = image(1, 3, 17, 16) + conv("a", "x", "a", 8, "kernel_size: 5 stride: 2")
    text += RELU.format("a") + joined("n", "LRN", "a")
    text += conv("b", "n", "b", 4, "kernel_size: 1") + conv("c", "n", "c", 6, PLAIN)
    text += pooling("d", "n", "kernel_size: 3 stride: 1 pad: 1") + joined("j", "Concat", *"bcd")
    text += pooling("g", "j", "pool: AVE global_pooling: true") + ip("f", "g", outputs=7)
    return text + SOFTMAX.format("f")


def residual() -> str:
    """A sum over BatchNorm and Scale, depthwise convolution and deconvolution."""
    text = image(1, 3, 11, 14) + conv("a", "x", "a", 8, NO_BIAS) + norm("n", "a")
    text += conv("b", "a", "b", 8, f"{NO_BIAS} group: 8") + norm("m", "b", relu=False)
    text += joined("s", "Eltwise", "a", "b") + RELU.format("s")
    how = "kernel_size: 4 stride: 2 pad: 1"
    return text + conv("u", "s", "u", 3, how, "Deconvolution")


NETS = {"cascade": cascade, "inception": inception, "residual": residual}


def answers(net: caffe.Net) -> dict[str, np.ndarray]:
    return {name: values.copy() for name, values in net.forward().items()}


def same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_allclose(found[name], values, rtol=0, atol=1e-5 * np.abs(values).max())


@pytest.fixture(params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(request.param, reason=f"{request.param} is not installed")
    return request.param


@pytest.mark.parametrize("name", NETS)
def test_an_engine_gives_what_the_plan_gives(name, engine, deploy):
    net = deploy(NETS[name]())
    if name == "residual":
        set_statistics([net], "n", "m")
    wanted = answers(net)
    caffe.set_engine(engine)
    same(answers(net), wanted)
    assert [node.name for node in net.plan.nodes] == ["x", engine]


def normalise(net: caffe.Net) -> None:
    """Give each BatchNorm the statistics of what it gets: random weights alone make values that
    grow from layer to layer.
    """
    names = net._layer_names
    for i, (name, layer) in enumerate(zip(names, net.layers, strict=True)):
        if layer.type == "BatchNorm":
            net.forward(end=names[i - 1])
            x = net.blobs[net.bottom_names[name][0]].tensor()
            mean, variance, factor = (blob.tensor() for blob in layer.blobs[:3])
            mean[...], variance[...], factor[...] = x.mean((0, 2, 3)), x.var((0, 2, 3)), 1


def test_fusenet_of_an_eighth_of_its_width(engine, make_net):
    """Two branches, whose masks place values in Unpooling. On inputs for which rounding decides no
    mask: the plan has the same answers if they are moved by a rounding error. Behind so many layers
    rounding makes up to 5e-5 of the largest value.
    """
    caffe.set_random_seed(1)
    arch = Architecture("sf5", 5, (64, 48), width_multiplier=0.125)
    net = make_net(text_format.MessageToString(deploy_net(arch)), caffe.TEST)
    rng = np.random.default_rng(5)
    for name in net.inputs:
        net.blobs[name].data[...] = rng.uniform(0, 255, net.blobs[name].shape)
    normalise(net)
    net.observed = False
    for _ in range(9):
        given = {name: rng.uniform(0, 255, net.blobs[name].shape) for name in net.inputs}
        (wanted,) = (values.copy() for values in net.forward(**given).values())
        moved = {k: v + rng.uniform(-1, 1, v.shape) * 2.0**-17 for k, v in given.items()}
        (again,) = net.forward(**moved).values()
        if np.allclose(again, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max()):
            break
    else:
        pytest.fail("rounding decides on all inputs")
    assert np.isfinite(wanted).all()
    assert wanted.std() > 0.01 * np.abs(wanted).max()
    caffe.set_engine(engine)
    for _ in range(3):  # the third one by the short way
        (found,) = net.forward(**given).values()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    assert [node.name for node in net.plan.nodes] == ["rgb", "depth", engine]


def test_boxes_are_chosen_by_the_plan(engine, deploy):
    text = image(1, 3, 24, 24, name="data") + conv("a", "data", "a", 8, "kernel_size: 3 stride: 4")
    for name, outputs in (("loc", 8), ("conf", 6)):
        text += conv(f"{name}_c", "a", f"{name}_c", outputs, PLAIN)
        text += (
            f'layer {{ name: "{name}_p" type: "Permute" bottom: "{name}_c" top: "{name}_p" '
            "permute_param { order: 0 order: 2 order: 3 order: 1 } }"
        ) + joined(name, "Flatten", f"{name}_p")
    text += (
        'layer { name: "boxes" type: "PriorBox" bottom: "a" bottom: "data" top: "boxes" '
        "prior_box_param { min_size: 6 max_size: 9 variance: 0.1 } }"
        'layer { name: "out" type: "DetectionOutput" bottom: "loc" bottom: "conf" bottom: "boxes" '
        'top: "out" detection_output_param { num_classes: 3 nms_param { nms_threshold: 0.4 } '
        "code_type: CENTER_SIZE keep_top_k: 9 confidence_threshold: 0.1 } }"
    )
    net = deploy(text)
    wanted = answers(net)
    caffe.set_engine(engine)
    same(answers(net), wanted)
    assert [node.name for node in net.plan.nodes] == ["data", engine, "out"]


@pytest.mark.parametrize("filler", ["constant", "gaussian"])
def test_fillers_feed_an_engine(filler, engine, deploy):
    """DummyData stays with PyTorch, which draws the same numbers for the same seed."""
    text = f"""layer {{ name: "d" type: "DummyData" top: "x" top: "y" dummy_data_param {{
      shape {{ dim: 2 dim: 3 }} data_filler {{ type: "constant" value: 0.5 }}
      data_filler {{ type: "{filler}" value: 2 std: 1 }} }} }}"""
    net = deploy(text + joined("s", "Eltwise", "x", "y") + ip("f", "s", outputs=4))

    def passes() -> list[dict[str, np.ndarray]]:
        caffe.set_random_seed(3)
        return [answers(net) for _ in range(3)]

    wanted = passes()
    caffe.set_engine(engine)
    for found, expected in zip(passes(), wanted, strict=True):
        same(found, expected)
    assert [node.name for node in net.plan.nodes] == ["d", engine]


def test_a_loss_and_an_accuracy_stay_with_the_plan(engine, deploy):
    """As `caffe test` runs nets: the engine computes up to what the losses take."""
    text = image(4, 3, 6, 6) + image(4, name="label") + conv("a", "x", "a", 4, PLAIN)
    text += RELU.format("a") + ip("f", "a", outputs=3)
    text += joined("loss", "SoftmaxWithLoss", "f", "label")
    text += joined("right", "Accuracy", "f", "label")
    net = deploy(text)
    net.blobs["label"].data[...] = [0, 1, 2, 0]
    last = len(net.layers) - 1
    wanted, loss = answers(net), net.forward_from_to(0, last)
    caffe.set_engine(engine)
    same(answers(net), wanted)
    assert net.forward_from_to(0, last) == pytest.approx(loss, rel=1e-5)
    names = [node.name for node in net.plan.nodes]
    assert engine in names
    assert "f" not in names
    assert names[-2:] == ["loss", "right"]


def test_batches_and_classifier(engine, tmp_path):
    """Classifier, and forward_all of any net, run by the engine once they are not observed."""
    text = image(2, 3, 6, 6) + conv("a", "x", "a", 4, PLAIN) + ip("f", "a", outputs=3)
    (tmp_path / "net.prototxt").write_text('name: "c" ' + text + SOFTMAX.format("f"))
    caffe.Net(str(tmp_path / "net.prototxt"), caffe.TEST).save(str(tmp_path / "w.caffemodel"))
    classifier = caffe.Classifier(
        str(tmp_path / "net.prototxt"), str(tmp_path / "w.caffemodel"), raw_scale=255
    )
    pictures = [np.random.default_rng(i).uniform(size=(6, 6, 3)) for i in range(3)]
    wanted = classifier.predict(pictures, oversample=False)
    classifier.observed = False
    caffe.set_engine(engine)
    found = classifier.predict(pictures, oversample=False)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
    assert [node.name for node in classifier.plan.nodes] == ["x", engine]


def test_outputs_are_the_nets_own_memory(engine, deploy):
    """A view of an output shows each pass; a kept copy does not change with the next one."""
    net = deploy(cascade())
    caffe.set_engine(engine)
    view = net.forward()["box"]
    first, tensor = view.copy(), net.blobs["box"].tensor().clone()
    net.blobs["x"].data[...] *= 2
    net.forward()
    assert not np.allclose(view, first)
    np.testing.assert_array_equal(view, net.blobs["box"].data)
    np.testing.assert_array_equal(tensor.numpy(), first)


def test_auto_takes_one_and_keeps_its_choice(deploy, cache, told):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    net = deploy(inception())
    wanted = answers(net)
    caffe.set_engine("auto")
    for _ in range(2):
        same(answers(net), wanted)
    assert len(list(cache.iterdir())) == 1
    assert len(told) == 1
    assert "torch " in told[0]


def test_training_is_not_an_engines(engine):
    text = image(1, 3, 5, 5) + conv("a", "x", "a", 4, PLAIN)
    net = caffe.Net(text_format.Parse(text, pb.NetParameter()), caffe.TRAIN)
    net.observed = False
    caffe.set_engine(engine)
    net.forward()
    assert [node.name for node in net.plan.nodes] == ["x", "a"]

"""Graphs of drawings: which layers have boxes, which are folded, and how types look."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

from caffe import TEST
from caffe.graph.rules import layers_in
from caffe.proto.caffe_pb2 import LayerParameter, NetParameter
from netgen import Architecture, deploy_net
from netgen.graph import build, look_of

SF5 = deploy_net(Architecture("sf5", 40, (320, 240)))


def test_layers_that_touch_up_a_box_are_folded_into_it() -> None:
    boxes, _ = build(layers_in(SF5, TEST))
    folded = {box.layer.name: [layer.type for layer in box.folded] for box in boxes}
    unit = ["BatchNorm", "Scale", "ReLU"]
    assert folded["conv1_1"] == folded["conv4_3_pair"] == folded["conv1_2_D"] == unit
    assert folded["conv5_1_D"] == [*unit, "Dropout"]
    assert folded["pool3"] == ["Dropout"]
    assert folded["score"] == []
    # 13 convolutions a branch, 12 deconvolutions, 5 + 4 poolings, 5 unpoolings, 5 sums, score,
    # prob and two inputs.
    assert len(boxes) == 13 + 13 + 12 + 9 + 5 + 5 + 2 + 2
    assert len(build(SF5.layer, fold=False)[0]) == len(SF5.layer)


def test_a_blob_that_others_take_too_is_not_folded() -> None:
    text = """
    layer { name: "x" type: "Input" top: "x" }
    layer { name: "a" type: "Convolution" bottom: "x" top: "a" }
    layer { name: "r" type: "ReLU" bottom: "a" top: "r" }
    layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "r" top: "sum" }
    layer { name: "s" type: "ReLU" bottom: "sum" top: "sum" }
    """
    boxes, arrows = build(text_format.Parse(text, NetParameter()).layer)
    assert [(b.layer.name, [f.name for f in b.folded]) for b in boxes] == [
        ("x", []),
        ("a", []),
        ("r", []),
        ("sum", ["s"]),
    ]
    assert [(a.source.layer.name, a.target.layer.name) for a in arrows] == [
        ("x", "a"),
        ("a", "r"),
        ("a", "sum"),
        ("r", "sum"),
    ]


@pytest.mark.parametrize(
    ("name", "family"),
    [("WindowData", "Data"), ("Loss", "Output"), ("TheirLoss", "Output"), ("TheirLayer", "Other")],
)
def test_families(name: str, family: str) -> None:
    """A type that the engine does not know is a loss if its name says so."""
    assert look_of(LayerParameter(type=name)).family == family

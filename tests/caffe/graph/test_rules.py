"""Which layers a net's state lets in, and where Split layers go, under which names."""

from __future__ import annotations

import pytest
from google.protobuf import text_format

import caffe
from caffe.graph.rules import filter_net, insert_splits
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")


def _net(text: str) -> pb.NetParameter:
    return text_format.Parse(text, pb.NetParameter())


def _kept(rules: str, state: str) -> bool:
    net = _net(f'state {{ {state} }} layer {{ name: "a" {rules} }}')
    return len(filter_net(net).layer) == 1


@pytest.mark.parametrize(
    ("rules", "state", "kept"),
    [
        ("", "phase: TEST", True),
        ("include { phase: TRAIN }", "phase: TRAIN", True),
        ("include { phase: TRAIN }", "phase: TEST", False),
        ("exclude { phase: TRAIN }", "phase: TRAIN", False),
        ("exclude { phase: TRAIN }", "phase: TEST", True),
        # any of several rules is enough, in both directions
        ("include { phase: TRAIN } include { stage: 'x' }", "phase: TEST stage: 'x'", True),
        ("exclude { phase: TRAIN } exclude { stage: 'x' }", "phase: TEST stage: 'x'", False),
        # levels: both ends belong to the range; a state's level is 0 if not said
        ("include { min_level: 2 }", "level: 2", True),
        ("include { min_level: 2 }", "level: 1", False),
        ("include { max_level: 2 }", "level: 2", True),
        ("include { max_level: 2 }", "level: 3", False),
        ("include { min_level: 0 }", "", True),
        ("include { min_level: 1 max_level: 3 }", "level: 3", True),
        # stages: all that a rule names, none that it excludes
        ("include { stage: 'x' stage: 'y' }", "stage: 'x' stage: 'y' stage: 'z'", True),
        ("include { stage: 'x' stage: 'y' }", "stage: 'x'", False),
        ("include { not_stage: 'x' }", "stage: 'y'", True),
        ("include { not_stage: 'x' not_stage: 'y' }", "stage: 'y'", False),
        ("include { phase: TEST stage: 'x' }", "phase: TRAIN stage: 'x'", False),
        ("exclude { stage: 'x' not_stage: 'y' }", "stage: 'x' stage: 'y'", True),
    ],
)
def test_rules(rules: str, state: str, kept: bool) -> None:
    assert _kept(rules, state) is kept


def test_both_kinds_of_rules_are_an_error() -> None:
    with pytest.raises(caffe.CaffeError, match=r"layer 'a': .*include rules or exclude rules"):
        _kept("include { phase: TEST } exclude { phase: TRAIN }", "phase: TEST")


def test_filtering_leaves_the_original_alone() -> None:
    net = _net('layer { name: "a" include { phase: TRAIN } } layer { name: "b" }')
    assert [layer.name for layer in filter_net(net).layer] == ["b"]
    assert [layer.name for layer in net.layer] == ["a", "b"]


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("phase: TEST", "net.cpp:296] The NetState phase (0) differed from the phase (1) specified "
         "by a rule in layer a"),
        ("min_level: 1", "net.cpp:306] The NetState level (0) is above the min_level (1) specified "
         "by a rule in layer a"),
        ("max_level: -1", "net.cpp:316] The NetState level (0) is above the max_level (-1) "
         "specified by a rule in layer a"),
        ("stage: 'x'", "net.cpp:332] The NetState did not contain stage 'x' specified by a rule in "
         "layer a"),
        ("not_stage: 'deploy'", "net.cpp:347] The NetState contained a not_stage 'deploy' "
         "specified by a rule in layer a"),
    ],
)  # fmt: skip
def test_the_log_says_why_a_layer_stays_out(rule: str, line: str, capsys) -> None:
    _kept(f"include {{ {rule} }}", "phase: TRAIN stage: 'deploy'")
    assert capsys.readouterr().err.rstrip().endswith(f" {line}")


def _layers(net: pb.NetParameter) -> list[tuple[str, list[str], list[str]]]:
    return [(layer.name, list(layer.bottom), list(layer.top)) for layer in net.layer]


def test_one_taker_needs_no_split() -> None:
    text = 'layer { name: "a" top: "x" } layer { name: "b" bottom: "x" top: "y" }'
    assert _layers(insert_splits(_net(text))) == [("a", [], ["x"]), ("b", ["x"], ["y"])]


def test_several_takers() -> None:
    split = insert_splits(
        _net(
            """layer { name: "in" top: "u" top: "x" }
            layer { name: "b" bottom: "x" top: "y" }
            layer { name: "c" bottom: "x" bottom: "u" bottom: "x" }"""
        )
    )
    assert _layers(split) == [
        ("in", [], ["u", "x"]),
        ("x_in_1_split", ["x"], ["x_in_1_split_0", "x_in_1_split_1", "x_in_1_split_2"]),
        ("b", ["x_in_1_split_0"], ["y"]),
        ("c", ["x_in_1_split_1", "u", "x_in_1_split_2"], []),
    ]
    assert split.layer[1].type == "Split"


def test_each_version_of_a_blob_is_split_by_itself() -> None:
    # relu works in place; what b and c take is what relu made
    split = insert_splits(
        _net(
            """layer { name: "a" top: "x" } layer { name: "relu" bottom: "x" top: "x" }
            layer { name: "b" bottom: "x" top: "y" } layer { name: "c" bottom: "x" top: "z" }"""
        )
    )
    assert _layers(split) == [
        ("a", [], ["x"]),
        ("relu", ["x"], ["x"]),
        ("x_relu_0_split", ["x"], ["x_relu_0_split_0", "x_relu_0_split_1"]),
        ("b", ["x_relu_0_split_0"], ["y"]),
        ("c", ["x_relu_0_split_1"], ["z"]),
    ]


def test_a_loss_weight_takes_the_first_of_the_splits() -> None:
    split = insert_splits(
        _net(
            """layer { name: "a" top: "x" loss_weight: 0.5 }
            layer { name: "b" bottom: "x" top: "y" }"""
        )
    )
    assert _layers(split) == [
        ("a", [], ["x"]),
        ("x_a_0_split", ["x"], ["x_a_0_split_0", "x_a_0_split_1"]),
        ("b", ["x_a_0_split_1"], ["y"]),
    ]
    assert list(split.layer[0].loss_weight) == []
    assert list(split.layer[1].loss_weight) == [0.5, 0]


def test_a_loss_weight_of_zero_is_no_taker() -> None:
    text = """layer { name: "a" top: "x" loss_weight: 0 }
        layer { name: "b" bottom: "x" top: "y" }"""
    assert len(insert_splits(_net(text)).layer) == 2


def test_unknown_bottom() -> None:
    text = 'layer { name: "a" top: "x" } layer { name: "b" bottom: "x" bottom: "nix" top: "y" }'
    with pytest.raises(caffe.CaffeError, match=r"layer 'b': unknown bottom blob 'nix'.*bottom 1"):
        insert_splits(_net(text))

"""Summaries: the table, its totals, and what it says of layers that are unknown."""

from __future__ import annotations

from google.protobuf import text_format

from caffe import TEST
from caffe.graph.sketch import LayerSketch, sketch
from caffe.proto.caffe_pb2 import NetParameter
from netgen.summary import activation_bytes, mebibytes, parameters, show, summary

INPUT = """layer { name: "x" type: "Input" top: "x"
           input_param { shape { dim: 2 dim: 4 dim: 5 dim: 6 } } }"""


def sketched(text: str, **inputs: tuple[int, ...]) -> tuple[NetParameter, list[LayerSketch]]:
    net = text_format.Parse(INPUT + text, NetParameter())
    return net, sketch(net, TEST, inputs)


def rows(text: str, **inputs: tuple[int, ...]) -> dict[str, list[str]]:
    """The words of each line by its first."""
    net, layers = sketched(text, **inputs)
    lines = summary(net, TEST, layers).splitlines()
    return {line.split()[0]: line.split()[1:] for line in lines if line}


NET = """
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
        convolution_param { num_output: 6 kernel_size: 3 group: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "flat" type: "Flatten" bottom: "conv" top: "flat" }
layer { name: "ip" type: "InnerProduct" bottom: "flat" top: "ip"
        inner_product_param { num_output: 10 bias_term: false } }
layer { name: "end" type: "Silence" bottom: "ip" }
"""


def test_totals() -> None:
    _, layers = sketched(NET)
    assert parameters(layers) == (6 * 2 * 9 + 6) + 6 * 3 * 4 * 10
    # Four bytes a value; the ReLU is in place, and Flatten hands on its bottom's memory.
    assert activation_bytes(layers) == 4 * (2 * 4 * 5 * 6 + 2 * 6 * 3 * 4 + 2 * 10)


def test_table() -> None:
    found = rows(NET)
    assert found["conv"][:5] == ["Convolution", "2x6x3x4", "6x2x3x3", "6", "114"]
    assert found["conv"][5] == f"{2 * (3 * 4) * 6 * (4 // 2) * 9:,}"
    assert found["relu"] == ["ReLU", "in", "place"]
    assert found["flat"] == ["Flatten", "2x72"]
    assert found["end"] == ["Silence"]
    assert found["layers"] == ["6"]
    assert found["parameters"][0] == "834"
    assert found["multiply-adds"][0] == f"{2 * 12 * 6 * 2 * 9 + 2 * 72 * 10:,}"
    assert "not" not in found


def test_shared_parameters_count_once() -> None:
    layer = """layer { name: "%s" type: "InnerProduct" bottom: "x" top: "%s"
               param { name: "w" } param { name: "b" } inner_product_param { num_output: 3 } }"""
    _, layers = sketched(layer % ("a", "a") + layer % ("b", "b"))
    assert parameters(layers) == 4 * 5 * 6 * 3 + 3


def test_unknown_layers_are_listed_and_not_counted() -> None:
    text = """
    layer { name: "m" type: "Mystery" bottom: "x" top: "m" }
    layer { name: "ip" type: "InnerProduct" bottom: "m" top: "ip"
            inner_product_param { num_output: 3 } }
    layer { name: "relu" type: "ReLU" bottom: "x" top: "relu" }
    """
    found = rows(text)
    assert found["m"] == ["Mystery", "?"]
    assert found["ip"] == ["InnerProduct", "?"]
    assert found["relu"][:2] == ["ReLU", "2x4x5x6"]
    assert found["layers"] == ["4"]
    assert found["parameters"][0] == "0"
    assert " ".join(found["not"]) == "counted unknown parts of 2 layers: m, ip"
    told = rows(text, m=(7, 5))
    assert told["ip"][:4] == ["InnerProduct", "7x3", "3x5", "3"]
    assert told["parameters"][0] == "18"
    assert " ".join(told["not"]) == "counted unknown parts of 1 layer: m"


def test_many_unknown_layers_are_counted_only() -> None:
    layer = 'layer { name: "m%d" type: "Mystery" bottom: "x" top: "m%d" }'
    found = rows("".join(layer % (i, i) for i in range(7)))
    assert " ".join(found["not"]) == (
        "counted unknown parts of 7 layers: m0, m1, m2, m3, m4 and 2 more"
    )


def test_show() -> None:
    assert show((1, 3, 240, 320)) == "1x3x240x320"
    assert show(()) == "1"
    assert show(None) == "?"


def test_mebibytes() -> None:
    assert mebibytes(2**18) == "0.25 MiB"
    assert mebibytes(3 * 2**30) == "3,072.0 MiB"


def test_names_cannot_steer_the_terminal() -> None:
    net, layers = sketched('layer { name: "a\\033[31m\\nb" type: "Odd\\033" bottom: "x" top: "y" }')
    net.name = "n\x1b]0;title\x07"
    text = summary(net, TEST, layers)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert "a [31m b" in text

"""draw: the graph that a net becomes."""

from __future__ import annotations

import shutil
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from google.protobuf import text_format

import caffe
from caffe import draw
from caffe.proto import caffe_pb2 as pb

NET = """
name: "net"
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN }
  data_param { batch_size: 64 } }
layer { name: "input" type: "Input" top: "data" exclude { phase: TRAIN } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 20 kernel_size: 5 stride: 2 }
  param { lr_mult: 1 } param { lr_mult: 2 } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool|ed"
  pooling_param { pool: AVE kernel_h: 2 kernel_w: 3 } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "pool|ed" bottom: "label" top: "loss" }
"""


def parsed(text=NET):
    return text_format.Parse(text, pb.NetParameter())


def layer(text):
    return text_format.Parse(text, pb.LayerParameter())


def test_labels():
    conv, pool = parsed().layer[2], parsed().layer[4]
    label = r'"conv\n(Convolution)\nkernel size: 5\nstride: 2\npad: 0"'
    assert draw.get_layer_label(conv, "LR") == label
    assert draw.get_layer_label(conv, "TB", display_lrm=True) == (
        '"conv (Convolution) kernel size: 5 stride: 2 pad: 0 lr mult: 1.0, 2.0"'
    )
    assert "(Pooling AVE) kernel size: 2x3" in draw.get_layer_label(pool, "TB")
    awkward = layer(r'name: "a|b{c}<d>\"" type: "ReLU"')
    assert draw.get_layer_label(awkward, "TB") == r'"a\|b\{c\}\<d\>\" (ReLU)"'


def test_edges_and_multipliers():
    data, _, conv, relu, *_ = parsed().layer
    assert draw.get_edge_label(data) == "Batch 64"
    assert draw.get_edge_label(conv) == "20"
    assert draw.get_edge_label(relu) == '""'
    assert draw.get_layer_lr_mult(conv) == (1, 2)
    assert draw.get_layer_lr_mult(layer('type: "InnerProduct"')) == (1, 1)
    with pytest.raises(ValueError, match="ReLU layers do not have"):
        draw.get_layer_lr_mult(relu)


def graph(phase=None, **options):
    pytest.importorskip("pydot", reason="pydot is not installed")
    return draw.get_pydot_graph(parsed(), "LR", phase=phase, **options)


def names(graph):
    """What the boxes say first, and the edges between them by name."""
    labels = {node.get_name(): node.get("label").strip('"') for node in graph.get_nodes()}
    first = {name: label.split(r"\n")[0] for name, label in labels.items()}
    edges = [(first[e.get_source()], first[e.get_destination()]) for e in graph.get_edges()]
    return set(first.values()), edges


def test_graph():
    found, edges = names(graph())
    assert found == {
        *("data", "label", "input", "conv", "relu", "pool", "loss"),
        r"pool\|ed",
    }
    assert ("data", "conv") in edges
    assert edges.count(("conv", "relu")) == 1
    assert ("relu", "conv") in edges  # in place: back to the blob
    assert (r"pool\|ed", "loss") in edges


@pytest.mark.parametrize(("phase", "out"), [(caffe.TRAIN, "input"), (caffe.TEST, "label")])
def test_phases(phase, out):
    text = NET.replace('bottom: "label"', "") if phase == caffe.TEST else NET
    pytest.importorskip("pydot", reason="pydot is not installed")
    found, _ = names(draw.get_pydot_graph(parsed(text), "LR", phase=phase))
    assert out not in found
    assert "conv" in found


def test_rules_of_both_kinds_are_refused():
    text = 'layer { name: "l" type: "ReLU" include { phase: TEST } exclude { phase: TRAIN } }'
    pytest.importorskip("pydot", reason="pydot is not installed")
    with pytest.raises(ValueError, match="'l' has both include and exclude"):
        draw.get_pydot_graph(parsed(text), "LR", phase=caffe.TEST)


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_files(tmp_path):
    pytest.importorskip("pydot", reason="pydot is not installed")
    assert draw.draw_net(parsed(), "LR").startswith(b"\x89PNG")
    draw.draw_net_to_file(parsed(), str(tmp_path / "net.svg"), rankdir="TB")
    assert "kernel size: 5" in (tmp_path / "net.svg").read_text()
    with pytest.raises(caffe.CaffeError, match="Graphviz: "):
        draw.draw_net_to_file(parsed(), str(tmp_path / "net.cat"))
    assert [path.name for path in tmp_path.iterdir()] == ["net.svg"]


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydot", None)
    with pytest.raises(caffe.CaffeError, match=r"pip install pydot"):
        draw.draw_net(parsed(), "LR")
    monkeypatch.undo()
    pytest.importorskip("pydot", reason="pydot is not installed")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(caffe.CaffeError, match="Graphviz's program 'dot'"):
        draw.draw_net(parsed(), "LR")


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_names_are_text_in_svgs():
    pytest.importorskip("pydot", reason="pydot is not installed")
    names = ["<script>x</script>", "a\x1b[31m", "&lt;b", 'x"; y [URL="javascript:1"]; "z', "\\N"]
    net = pb.NetParameter(name="n")
    for name in names:
        net.layer.add(name=name, type="Odd", bottom=["x"], top=[f"{name} top"])
    root = ElementTree.fromstring(draw.draw_net(net, "LR", "svg"))
    kinds = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert kinds <= {"svg", "g", "title", "polygon", "path", "text", "ellipse"}
    texts = [element.text for element in root.iter() if element.tag.endswith("}text")]
    for name in names:
        assert f"{name} top".replace("\x1b", " ") in texts

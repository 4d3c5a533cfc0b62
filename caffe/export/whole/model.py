"""An ONNX model that takes a camera's frame as it is: resizing, depth's rule and labels inside.

It surrounds a net's own model. Inputs: `color`, H x W x 3 uint8, blue green red; `depth`, H x W
uint16, 0 where there is no reading; `unit`, depth's steps in a metre. Outputs: `labels`, H x W
uint8, and `probabilities`. What comes before the net is what data_tools makes of a frame for a
record, and what comes behind is `eval_tools.predict --size original`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from caffe.errors import CaffeError
from caffe.export.onnx import IR_VERSION, OPSET
from caffe.export.whole.after import LABELS, PROBABILITIES, After
from caffe.export.whole.before import COLOR, DEPTH, UNIT, Before
from caffe.export.whole.taken import Framing, Taken
from caffe.formats.onnx import Graph, Target

if TYPE_CHECKING:
    import onnx

OURS = (COLOR, DEPTH, UNIT, LABELS, PROBABILITIES)


def framed(
    model: onnx.ModelProto, net: Taken, framing: Framing, target: Target, facts: Mapping[str, str]
) -> onnx.ModelProto:
    """The model that takes frames, made of the net's own, whose one output is the scores.

    facts: texts that the file is to carry (metadata_props).
    Raises CaffeError for a target whose files have fixed sizes.
    """
    from onnx import helper

    if not target.free_size:
        raise CaffeError(f"--with-preprocessing: files for {target.title} take one size only")
    inner = model.graph
    _make_way(inner)
    before = Before(
        _empty_graph("frame", inner, target), net, framing, {n: _inside(n) for n in net.inputs}
    )
    before.build()
    after = After(_empty_graph("labels", inner, target), before, inner.output[0].name)
    after.build()
    outer = helper.make_graph(
        [*before.graph.nodes, *inner.node, *after.graph.nodes],
        inner.name,
        before.inputs(),
        after.outputs(),
        [*inner.initializer, *before.constants(), *after.constants()],
    )
    made = helper.make_model(
        outer,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name=model.producer_name,
    )
    helper.set_model_props(made, dict(facts))
    return made


def _make_way(graph: onnx.GraphProto) -> None:
    """Rename the values of a net's graph that have the names of this file's inputs and outputs."""
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [_inside(name) for name in names]
    for item in (*graph.initializer, *graph.input, *graph.output):
        item.name = _inside(item.name)


def _inside(name: str) -> str:
    """What a value of the net is called in the file."""
    return f"net/{name}" if name in OURS else name


def _empty_graph(prefix: str, inner: onnx.GraphProto, target: Target) -> Graph:
    """An empty graph whose names are not those of the net's graph."""
    used = {name.split(":")[0] for node in inner.node for name in node.output}
    while prefix in used:
        prefix += "_"
    return Graph(target=target, layer=prefix)

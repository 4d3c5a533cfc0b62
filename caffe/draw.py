"""Pictures of nets, drawn by Graphviz: layers as boxes, blobs as octagons.

Needs pydot and Graphviz's program `dot`; `python -m netgen draw` draws nets without either.
"""

from __future__ import annotations

import os
from types import ModuleType
from typing import TYPE_CHECKING, Any

from boundary.text import shown
from caffe.errors import CaffeError
from caffe.formats.files import atomic_write
from caffe.proto import caffe_pb2 as pb

if TYPE_CHECKING:
    from caffe.layers.base import Layer

BLOB_STYLE = {"shape": "octagon", "fillcolor": "#E0E0E0", "style": "filled"}
IN_PLACE_COLOR = "#90EE90"


def _class_of(layer_type: str) -> type[Layer]:
    from caffe.layers import class_of  # not above: it loads torch

    return class_of(layer_type)


def get_pooling_types_dict() -> dict[int, str]:
    """Names of the pooling methods by number."""
    return {number: name for name, number in pb.PoolingParameter.PoolMethod.items()}


def get_edge_label(layer: pb.LayerParameter) -> str:
    """The label of the edges to a layer's tops: batch size or number of outputs."""
    return _class_of(layer.type).edge(layer) or '""'


def get_layer_lr_mult(layer: pb.LayerParameter) -> tuple[float, float]:
    """The multipliers of the learning rate of a layer's weights and bias.

    Raises ValueError for layers other than Convolution, Deconvolution and InnerProduct, or with
    more than two `param`.
    """
    if not _class_of(layer.type).multiplies:
        raise ValueError(f"{layer.type} layers do not have a learning rate multiplier")
    if len(layer.param) > 2:
        raise ValueError(f"layer {layer.name!r} has {len(layer.param)} param, expected at most 2")
    multipliers = [param.lr_mult for param in layer.param]
    weights, bias = multipliers + [1.0] * (2 - len(multipliers))
    return weights, bias


def get_layer_label(layer: pb.LayerParameter, rankdir: str, display_lrm: bool = False) -> str:
    """The text in a layer's box, in quotes for Graphviz: name, type and geometry.

    rankdir: direction of the drawing; layers beside each other get their text in several lines.
    display_lrm: also the multipliers of the learning rate.
    """
    drawn = _class_of(layer.type)
    parts = [layer.name, f"({drawn.title(layer)})", *drawn.geometry(layer)]
    if display_lrm and drawn.multiplies:
        weights, bias = get_layer_lr_mult(layer)
        if weights or bias:
            parts.append(f"lr mult: {weights:.1f}, {bias:.1f}")
    separator = " " if rankdir in ("TB", "BT") else r"\n"
    return f'"{separator.join(_escaped(part) for part in parts)}"'


def _escaped(text: str) -> str:
    """Text for a box: characters that have a meaning for Graphviz or SVG are marked."""
    marked = {"&": "&amp;", **{c: f"\\{c}" for c in '\\"{}|<>'}}
    return "".join(marked.get(c, c) for c in shown(text))


def choose_color_by_layertype(layertype: str) -> str:
    """The colour of a layer's box."""
    return _class_of(layertype).look.color


def get_pydot_graph(
    caffe_net: pb.NetParameter,
    rankdir: str,
    label_edges: bool = True,
    phase: int | None = None,
    display_lrm: bool = False,
) -> Any:
    """The net as a pydot graph.

    phase: only the layers that take part in it; None for all.
    Raises ValueError for a layer with include and exclude rules, CaffeError without pydot.
    """
    pydot = _pydot()
    graph = pydot.Dot(f'"{_escaped(caffe_net.name or "Net")}"', graph_type="digraph")
    graph.set_rankdir(rankdir)
    blobs: dict[str, Any] = {}

    def blob(name: str) -> str:
        """The node of a blob, made when it is first named."""
        if name not in blobs:
            blobs[name] = pydot.Node(f"blob{len(blobs)}", label=f'"{_escaped(name)}"', **BLOB_STYLE)
            graph.add_node(blobs[name])
        return blobs[name].get_name()

    for i, layer in enumerate(caffe_net.layer):
        if phase is not None and not _takes_part(layer, phase):
            continue
        in_place = len(layer.bottom) == len(layer.top) == 1 and layer.bottom[0] == layer.top[0]
        node = pydot.Node(
            f"layer{i}",
            label=get_layer_label(layer, rankdir, display_lrm),
            shape="record",
            style="filled",
            fillcolor=IN_PLACE_COLOR if in_place else choose_color_by_layertype(layer.type),
        )
        graph.add_node(node)
        for name in layer.bottom:
            graph.add_edge(pydot.Edge(blob(name), node.get_name(), label='""'))
        label = get_edge_label(layer) if label_edges else '""'
        for name in layer.top:
            graph.add_edge(pydot.Edge(node.get_name(), blob(name), label=label))
    return graph


def _takes_part(layer: pb.LayerParameter, phase: int) -> bool:
    if layer.include and layer.exclude:
        raise ValueError(f"layer {layer.name!r} has both include and exclude rules")
    if layer.include:
        return any(rule.phase == phase or not rule.HasField("phase") for rule in layer.include)
    return not any(rule.HasField("phase") and rule.phase == phase for rule in layer.exclude)


def draw_net(
    caffe_net: pb.NetParameter,
    rankdir: str,
    ext: str = "png",
    phase: int | None = None,
    display_lrm: bool = False,
) -> bytes:
    """The drawing as the content of a file of the given kind (png, svg, pdf, ...).

    Raises CaffeError where pydot or Graphviz is missing, or Graphviz does not know the kind.
    """
    graph = get_pydot_graph(caffe_net, rankdir, phase=phase, display_lrm=display_lrm)
    try:
        return graph.create(format=ext)
    except FileNotFoundError:
        raise CaffeError(
            "drawing needs Graphviz's program 'dot' (Debian: apt install graphviz)"
        ) from None
    except AssertionError as error:  # pydot's word for dot's failure
        reason = str(error).strip() or f"does not know the format {ext!r}"
        raise CaffeError(f"Graphviz: {reason.splitlines()[-1]}") from None


def draw_net_to_file(
    caffe_net: pb.NetParameter,
    filename: str | os.PathLike[str],
    rankdir: str = "LR",
    phase: int | None = None,
    display_lrm: bool = False,
) -> None:
    """Draw into a file; its ending says of which kind ('.raw': Graphviz's own text)."""
    ext = os.path.splitext(filename)[1][1:]
    content = draw_net(caffe_net, rankdir, ext, phase, display_lrm)
    with atomic_write(filename) as beside:
        beside.write_bytes(content)


def _pydot() -> ModuleType:
    try:
        import pydot
    except ImportError:
        raise CaffeError("drawing needs pydot (pip install pydot)") from None
    return pydot

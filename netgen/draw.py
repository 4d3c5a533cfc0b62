"""Draws a net: each layer is a box, whose height follows its blob and whose colour its type."""

from __future__ import annotations

import math
from pathlib import Path

from caffe.formats import files
from caffe.graph.rules import layers_in
from caffe.graph.sketch import LayerSketch, Shape
from caffe.layers import class_of
from caffe.proto.caffe_pb2 import NetParameter
from netgen.graph import Box, build, look_of
from netgen.layout import arrange
from netgen.picture import Circle, Line, Picture, Rectangle, Text, text_width
from netgen.routes import Place, Router
from netgen.summary import parameters, show

_INK = "#2b2b33"
_PALE = "#6b6b76"
# The families of layer types (Look.family) in the legend's order, and the colours of their boxes.
_FAMILIES = {
    "Data": "#dfe1e6",
    "Convolution": "#a9cbf0",
    "Deconvolution": "#f8c690",
    "InnerProduct": "#9ddcd5",
    "Pooling": "#b8e0a5",
    "Unpooling": "#dcbdea",
    "Fusion": "#ffe07a",
    "Output": "#f5b0b0",
    "Other": "#ece4d6",
}
# The stripes of folded layers (Look.stripe): label in the legend, colour.
_STRIPES = {
    "norm": ("BatchNorm, Scale, LRN", "#5b6b9a"),
    "activation": ("ReLU, other activation", "#c8434f"),
    "dropout": ("Dropout", "#e0a020"),
}
_LINES = {"data": _INK, "mask": "#8a4fa3", "label": "#9a9aa5"}
_STRIPE = 4
_BAR = 30  # width of a box without stripes
_RADIUS = 13  # of the circle that stands for a box that joins its inputs
_NAME, _DETAIL = 11, 9.5  # text sizes
_MARGIN = 24


def draw(
    net: NetParameter,
    out: Path,
    phase: int,
    sketches: list[LayerSketch] | None = None,
    title: str | None = None,
    expand: bool = False,
) -> None:
    """Write a picture of the net in a phase to `out`, as SVG or PNG by its suffix.

    sketches: those of the net, or None to draw it without shapes. expand: a box for every layer.
    Raises CaffeError where the file cannot be written.
    """
    picture = compose(net, phase, sketches, title, expand)
    data = picture.png() if out.suffix.lower() == ".png" else picture.svg().encode()
    with files.atomic_write(out) as temporary:
        temporary.write_bytes(data)


def compose(
    net: NetParameter,
    phase: int,
    sketches: list[LayerSketch] | None = None,
    title: str | None = None,
    expand: bool = False,
) -> Picture:
    """The picture of a net, as `draw` writes it."""
    first = {item.layer.name: item.tops[0] for item in sketches or [] if item.tops}
    shapes = {name: shape for name, shape in first.items() if shape is not None}
    boxes, arrows = build(layers_in(net, phase), fold=not expand)
    router = Router(arrange(boxes, arrows), arrows, {box: _size(box, shapes) for box in boxes})
    title = title or net.name or "net"
    legend = _legend(boxes, any(arrow.kind == "mask" for arrow in arrows))
    top = _MARGIN + 46
    width = max(router.width, 640.0) + 2 * _MARGIN
    rows = _rows(legend, width - 2 * _MARGIN)
    picture = Picture(width, top + router.height + 22 * len(rows) + _MARGIN + 8, title)
    picture.add(
        Text(_MARGIN, _MARGIN + 6, title, size=16, bold=True, fill=_INK, start=True),
        Text(_MARGIN, _MARGIN + 26, _subtitle(sketches, phase), size=11, fill=_PALE, start=True),
    )
    offset = ((width - router.width) / 2, top)
    for arrow, points in router.lines():
        points = [(x + offset[0], y + offset[1]) for x, y in points]
        picture.add(Line(points, _LINES[arrow.kind], dashed=arrow.kind != "data"))
    for box in boxes:
        place = router.places[box]
        moved = Place(place.x + offset[0], place.y + offset[1], place.width, place.height)
        _draw_box(picture, box, moved, shapes, -1 if box in router.layout.back else 1)
    for i, row in enumerate(rows):
        _draw_legend(picture, row, top + router.height + 22 * i + 14)
    return picture


# -------------------------------------------------------------------------------------------------
# Boxes
# -------------------------------------------------------------------------------------------------


def _symbol(box: Box) -> str:
    """The text in the circle of a box that joins its inputs; empty for boxes that do not."""
    return class_of(box.layer.type).symbol(box.layer)


def _stripes(box: Box) -> list[str]:
    """The kinds of the folded layers in order; neighbours of one kind appear once."""
    kinds: list[str] = []
    for layer in box.folded:
        kind = look_of(layer).stripe
        if kind not in kinds[-1:]:
            kinds.append(kind)
    return kinds


def _size(box: Box, shapes: dict[str, Shape]) -> tuple[float, float]:
    if _symbol(box):
        return 2.0 * _RADIUS, 2.0 * _RADIUS
    shape = shapes.get(box.layer.name, ())
    height = 74.0
    if len(shape) > 2:
        # A blob twice as high gives a box that is 24 pixels taller.
        height = min(74 + 24 * math.log2(max(shape[2], 8) / 8), 230)
    texts = text_width(box.layer.name, _NAME * 1.05), text_width(_detail(box, shapes), _DETAIL)
    return float(_BAR + _STRIPE * len(_stripes(box))), max(height, max(texts) + 14)


def _detail(box: Box, shapes: dict[str, Shape]) -> str:
    shape = shapes.get(box.layer.name)
    if shape:
        # Without the number of records, which is the same everywhere.
        return " \u00d7 ".join(map(str, shape[1:] or shape))
    return class_of(box.layer.type).detail(box.layer)


def _family(box: Box) -> str:
    family = look_of(box.layer).family
    return family if family in _FAMILIES else "Other"


def _darker(colour: str, share: float = 0.62) -> str:
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{int(part * share):02x}" for part in parts)


def _draw_box(
    picture: Picture, box: Box, p: Place, shapes: dict[str, Shape], direction: int
) -> None:
    fill = _FAMILIES[_family(box)]
    stroke = _darker(fill)
    layers = (box.layer, *box.folded)
    hint = "\n".join(_describe(layer.name, layer.type, shapes) for layer in layers)
    symbol, stripes = _symbol(box), _stripes(box)
    if symbol:
        picture.add(
            # A circle is too small for stripes: the last folded layer colours its rim.
            Circle(p.x, p.y, _RADIUS, fill, _STRIPES[stripes[-1]][1] if stripes else stroke, hint),
            Text(p.x, p.y, symbol, size=16 if len(symbol) == 1 else 9, bold=True, fill=_INK),
        )
        return
    left, top = p.x - p.width / 2, p.y - p.height / 2
    picture.add(Rectangle(left, top, p.width, p.height, fill, "none", 3, hint))
    for i, kind in enumerate(reversed(stripes)):
        # Stripes stand on the side where the data leaves.
        edge = left + p.width - _STRIPE * (i + 1) if direction > 0 else left + _STRIPE * i
        picture.add(Rectangle(edge, top, _STRIPE, p.height, _STRIPES[kind][1]))
    picture.add(Rectangle(left, top, p.width, p.height, "none", stroke, 3))
    x = p.x - direction * _STRIPE * len(stripes) / 2
    picture.add(
        Text(x - 6, p.y, box.layer.name, size=_NAME, bold=True, fill=_INK, upright=True),
        Text(x + 7, p.y, _detail(box, shapes), size=_DETAIL, fill=_INK, upright=True),
    )


def _describe(name: str, kind: str, shapes: dict[str, Shape]) -> str:
    return f"{name} ({kind})" + (f" {show(shapes[name])}" if name in shapes else "")


# -------------------------------------------------------------------------------------------------
# Words around the picture
# -------------------------------------------------------------------------------------------------


def _subtitle(sketches: list[LayerSketch] | None, phase: int) -> str:
    name = "phase TEST" if phase else "phase TRAIN"
    if not sketches:
        return name
    parts = [
        name,
        f"{_count(parameters(sketches))} parameters",
        f"{_count(sum(s.macs for s in sketches))} multiply-adds",
        *(["unknown layers not counted"] if any(s.problem for s in sketches) else []),
    ]
    return " \u00b7 ".join(parts)


def _count(number: int) -> str:
    for unit, letter in ((10**9, " G"), (10**6, " M"), (10**3, " k")):
        if number >= unit:
            return f"{number / unit:.1f}{letter}"
    return f"{number} "


def _legend(boxes: list[Box], masks: bool) -> list[tuple[str, str]]:
    """The labels and colours of the families, stripes and masks in the picture."""
    families = {_family(box) for box in boxes}
    kinds = {kind for box in boxes for kind in _stripes(box)}
    found = [(family, fill) for family, fill in _FAMILIES.items() if family in families]
    found += [_STRIPES[kind] for kind in _STRIPES if kind in kinds]
    return [*found, ("pooling mask", _LINES["mask"])] if masks else found


def _rows(legend: list[tuple[str, str]], width: float) -> list[list[tuple[float, str, str]]]:
    """The legend as rows of (x, label, colour)."""
    rows: list[list[tuple[float, str, str]]] = [[]]
    x = 0.0
    for label, colour in legend:
        size = 34 + text_width(label, 11)
        if x + size > width and rows[-1]:
            rows.append([])
            x = 0.0
        rows[-1].append((x + _MARGIN, label, colour))
        x += size
    return rows


def _draw_legend(picture: Picture, row: list[tuple[float, str, str]], y: float) -> None:
    for x, label, colour in row:
        if label == "pooling mask":
            picture.add(Line([(x - 6, y), (x + 12, y)], colour, dashed=True))
        elif colour in {stripe for _, stripe in _STRIPES.values()}:
            picture.add(Rectangle(x + 4, y - 7, _STRIPE, 14, colour))
        else:
            picture.add(Rectangle(x, y - 6, 12, 12, colour, _darker(colour), 2))
        picture.add(Text(x + 18, y, label, size=11, fill=_INK, start=True))

"""A small picture of shapes and text, written as SVG or, through matplotlib, as PNG."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from boundary.interrupts import loading
from boundary.text import plain_math, shown

Point = tuple[float, float]

_FONT = "Helvetica, Arial, 'DejaVu Sans', sans-serif"
# Width of an average character of these fonts, in units of their size.
_CHARACTER = 0.56
_DASH = (4, 3)


def text_width(text: str, size: float) -> float:
    """The approximate width of a text."""
    return len(text) * size * _CHARACTER


@dataclass
class Rectangle:
    """A rectangle with rounded corners; viewers show `hint` when the pointer rests on it."""

    x: float
    y: float
    width: float
    height: float
    fill: str
    stroke: str = "none"
    radius: float = 0
    hint: str = ""


@dataclass
class Circle:
    """A circle around (x, y)."""

    x: float
    y: float
    radius: float
    fill: str
    stroke: str
    hint: str = ""


@dataclass
class Text:
    """A text centred on (x, y), or with `start` beginning there; `upright` reads from below."""

    x: float
    y: float
    text: str
    size: float = 11
    fill: str = "#222222"
    bold: bool = False
    upright: bool = False
    start: bool = False


@dataclass
class Line:
    """A line through points with rounded corners, which may end in an arrow head."""

    points: Sequence[Point]
    stroke: str
    dashed: bool = False
    arrow: bool = True
    width: float = 1.3


@dataclass
class Picture:
    """Shapes in drawing order on a white background; y grows downwards, in pixels."""

    width: float
    height: float
    title: str
    shapes: list[Any] = field(default_factory=list)

    def add(self, *shapes: Any) -> None:
        """Draw shapes over the present ones."""
        self.shapes += shapes

    def svg(self) -> str:
        """The picture as SVG text."""
        size = f"{self.width:.0f} {self.height:.0f}"
        return "\n".join(
            [
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
                f'width="{self.width:.0f}" height="{self.height:.0f}" role="img" '
                f'font-family="{_FONT}" text-anchor="middle">',
                f"<title>{_escaped(self.title)}</title>",
                '<rect width="100%" height="100%" fill="#ffffff"/>',
                *(_SVG[type(shape)](shape) for shape in self.shapes),
                "</svg>\n",
            ]
        )

    def png(self, scale: float = 2) -> bytes:
        """The picture as PNG with `scale` dots per pixel, or fewer if it would become too large."""
        return _png(self, min(scale, 20000 / max(self.width, self.height)))


def _corners(points: Sequence[Point], radius: float = 6) -> list[tuple[Point, Point, Point]]:
    """For each inner point of a line: the start of its rounding, the point, and the end."""
    found = []
    for before, corner, after in zip(points, points[1:], points[2:], strict=False):
        ends = []
        for other in (before, after):
            length = math.dist(corner, other)
            share = min(radius, length / 2) / length if length else 0
            ends.append(tuple(c + (o - c) * share for c, o in zip(corner, other, strict=True)))
        found.append((ends[0], corner, ends[1]))
    return found


def _head(points: Sequence[Point], length: float = 6, half: float = 3) -> list[Point]:
    """The triangle at the end of a line."""
    (x0, y0), (x1, y1) = points[-2:]
    distance = math.dist((x0, y0), (x1, y1)) or 1
    dx, dy = (x1 - x0) / distance, (y1 - y0) / distance
    x, y = x1 - dx * length, y1 - dy * length
    return [(x1, y1), (x - dy * half, y + dx * half), (x + dy * half, y - dx * half)]


# -------------------------------------------------------------------------------------------------
# SVG
# -------------------------------------------------------------------------------------------------


def _escaped(text: str) -> str:
    """A text, which may have several lines, as XML."""
    return "\n".join(escape(shown(line)) for line in text.split("\n"))


def _hinted(tag: str, hint: str) -> str:
    name = tag.split(" ", 1)[0]
    return f"<{tag}><title>{_escaped(hint)}</title></{name}>" if hint else f"<{tag}/>"


def _svg_rectangle(r: Rectangle) -> str:
    return _hinted(
        f'rect x="{r.x:.1f}" y="{r.y:.1f}" width="{r.width:.1f}" height="{r.height:.1f}" '
        f'rx="{r.radius:g}" fill="{r.fill}" stroke="{r.stroke}"',
        r.hint,
    )


def _svg_circle(c: Circle) -> str:
    return _hinted(
        f'circle cx="{c.x:.1f}" cy="{c.y:.1f}" r="{c.radius:.1f}" fill="{c.fill}" '
        f'stroke="{c.stroke}"',
        c.hint,
    )


def _svg_text(t: Text) -> str:
    # Moving it down by a third of its size centres the letters on the point.
    place = f'x="{t.x:.1f}" y="{t.y:.1f}"'
    if t.upright:
        place += f' transform="rotate(-90 {t.x:.1f} {t.y:.1f})"'
    weight = ' font-weight="bold"' if t.bold else ""
    anchor = ' text-anchor="start"' if t.start else ""
    return (
        f'<text {place} dy="0.35em" font-size="{t.size:g}" fill="{t.fill}"{weight}{anchor} '
        f'pointer-events="none">{_escaped(t.text)}</text>'
    )


def _svg_line(line: Line) -> str:
    path = "M{:.1f} {:.1f}".format(*line.points[0])
    for start, corner, end in _corners(line.points):
        path += "L{:.1f} {:.1f}Q{:.1f} {:.1f} {:.1f} {:.1f}".format(*start, *corner, *end)
    path += "L{:.1f} {:.1f}".format(*line.points[-1])
    dash = ' stroke-dasharray="{} {}"'.format(*_DASH) if line.dashed else ""
    tag = (
        f'<path d="{path}" fill="none" stroke="{line.stroke}" stroke-width="{line.width:g}"{dash}/>'
    )
    if line.arrow:
        head = " ".join(f"{x:.1f},{y:.1f}" for x, y in _head(line.points))
        tag += f'<polygon points="{head}" fill="{line.stroke}"/>'
    return tag


_SVG = {Rectangle: _svg_rectangle, Circle: _svg_circle, Text: _svg_text, Line: _svg_line}


# -------------------------------------------------------------------------------------------------
# PNG
# -------------------------------------------------------------------------------------------------


def _png(picture: Picture, scale: float) -> bytes:
    # Imported here, because matplotlib takes longer to load than everything else together.
    with loading():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    # At 72 dots per inch a unit is a point, so text and lines keep their sizes.
    figure = Figure(figsize=(picture.width / 72, picture.height / 72), dpi=72 * scale)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, picture.width), ylim=(picture.height, 0))
    axes.axis("off")
    for z, shape in enumerate(picture.shapes):
        _PNG[type(shape)](axes, shape, z)
    data = io.BytesIO()
    canvas.print_png(data)
    return data.getvalue()


def _png_rectangle(axes: Any, r: Rectangle, z: int) -> None:
    from matplotlib.patches import FancyBboxPatch

    # The style's padding enlarges the box by its radius, so start from a smaller one.
    radius = min(r.radius, r.width / 2, r.height / 2)
    axes.add_patch(
        FancyBboxPatch(
            (r.x + radius, r.y + radius),
            r.width - 2 * radius,
            r.height - 2 * radius,
            boxstyle=f"round,pad={radius},rounding_size={radius}" if radius else "square,pad=0",
            facecolor=r.fill,
            edgecolor=r.stroke,
            linewidth=1,
            zorder=z,
        )
    )


def _png_circle(axes: Any, c: Circle, z: int) -> None:
    from matplotlib.patches import Circle as Patch

    axes.add_patch(Patch((c.x, c.y), c.radius, facecolor=c.fill, edgecolor=c.stroke, zorder=z))


def _png_text(axes: Any, t: Text, z: int) -> None:
    axes.text(
        t.x,
        t.y,
        plain_math(t.text),
        # matplotlib's font is wider than the fonts of SVG viewers.
        fontsize=t.size * 0.9,
        color=t.fill,
        fontweight="bold" if t.bold else "normal",
        rotation=90 if t.upright else 0,
        ha="left" if t.start else "center",
        va="center_baseline" if not t.upright else "center",
        zorder=z,
    )


def _png_line(axes: Any, line: Line, z: int) -> None:
    from matplotlib.patches import PathPatch, Polygon
    from matplotlib.path import Path

    points, codes = [line.points[0]], [Path.MOVETO]
    for start, corner, end in _corners(line.points):
        points += [start, corner, end]
        codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
    points.append(line.points[-1])
    codes.append(Path.LINETO)
    axes.add_patch(
        PathPatch(
            Path(points, codes),
            facecolor="none",
            edgecolor=line.stroke,
            linewidth=line.width,
            linestyle=(0, _DASH) if line.dashed else "solid",
            zorder=z,
        )
    )
    if line.arrow:
        axes.add_patch(
            Polygon(_head(line.points), facecolor=line.stroke, edgecolor="none", zorder=z)
        )


_PNG = {Rectangle: _png_rectangle, Circle: _png_circle, Text: _png_text, Line: _png_line}

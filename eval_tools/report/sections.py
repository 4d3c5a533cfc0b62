"""The page's parts in HTML: tiles, tables with bars, confusion matrices, views of a frame."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Sequence
from html import escape

from eval_tools import survey
from eval_tools.caffe_log import Run
from eval_tools.labels import LabelSet
from eval_tools.metrics import ConfusionMatrix
from eval_tools.survey import Survey
from eval_tools.tables import FIGURES, Result, Table, percent, tables


def tiles(results: Sequence[Result]) -> str:
    """The figures of the first model, with those of the others below."""
    found = []
    for figure, title in FIGURES.items():
        value = percent(getattr(results[0].tally.matrix, figure))
        below = []
        if results[0].intervals:
            low, high = map(percent, results[0].intervals[figure])
            below.append(f"95 %: {low} to {high}")
        for other in results[1:]:
            below.append(f"{other.tally.name}: {percent(getattr(other.tally.matrix, figure))} %")
        found.append(_tile(title, f"{value} %", below))
    return "".join(found)


def survey_tiles(surveys: Sequence[Survey]) -> str:
    """As `tiles`, for frames without labels."""
    figures = [one.figures() for one in surveys]
    found = []
    for title, value in figures[0].items():
        others = zip(surveys[1:], figures[1:], strict=True)
        below = [f"{one.name}: {percent(own[title])} %" for one, own in others]
        found.append(_tile(title, f"{percent(value)} %", below))
    kinds = [str(sum(pixels > 0 for pixels in one.pixels[1:])) for one in surveys]
    below = [f"{one.name}: {kind}" for one, kind in zip(surveys[1:], kinds[1:], strict=True)]
    found.append(_tile("classes found", kinds[0], below))
    for one in surveys[1:]:
        same = f"{percent(one.agreeing / one.total)} %"
        found.append(_tile(f"pixels labelled alike by {one.name}", same, []))
    return "".join(found)


def _tile(title: str, value: str, below: Sequence[str]) -> str:
    lines = "".join(f'<span class="interval">{escape(line)}</span>' for line in below)
    return f"<div><dt>{escape(title)}</dt><dd>{value}{lines}</dd></div>"


def scored(results: Sequence[Result], runs: Sequence[Run]) -> list[str]:
    """The sections behind the frames."""
    classes, *others = tables(results)
    labels = results[0].tally.labels
    body = _class_table(labels, labels.scored, classes, plain=2, bars=(True, True))
    found = [_section("classes", "Classes", body)]
    for place, table in enumerate(others):
        if table.title != "Summary" or len(results) > 1:
            found.append(_section(f"more{place}", table.title, _table(table)))
    found += _training(runs)
    for place, result in enumerate(results):
        found.append(_confusion_section(place, result.tally.name, result.tally.matrix))
    return found


def surveyed(surveys: Sequence[Survey], runs: Sequence[Run]) -> list[str]:
    """As `scored`, for frames without labels."""
    classes, summary = survey.tables(surveys)
    listed = survey.listed(surveys)
    body = _class_table(surveys[0].labels, listed, classes, plain=0, bars=(False, True, True))
    found = [_section("classes", "Classes", body)]
    if len(surveys) > 1:
        found.append(_section("more0", summary.title, _table(summary)))
    return found + _training(runs)


def views(models: Sequence[str], labeled: bool) -> str:
    """The small pictures of a frame."""
    found = [_view("color", "Colour"), _view("depth", "Depth")]
    if labeled:
        found.append(_view("truth", "Truth"))
    else:
        scale = 'Confidence: <span class="scale">dark 0, light 100 %</span>'
        found.append(_view("confidence", "Confidence", scale))
    for place, name in enumerate(models):
        of = f" {escape(name)}" if len(models) > 1 else ""
        end = str(place or "")
        found.append(_view(f"prediction{end}", f"Prediction{of}"))
        if labeled:
            text = f'Error{of}: <span class="wrong">wrong</span>, right pale, not scored dark'
            found.append(_view(f"error{end}", f"Error{of}", text))
        elif place:
            text = f'<span class="wrong">Unlike {escape(models[0])}</span>, alike pale'
            found.append(_view(f"error{end}", f"Where{of} is unlike {escape(models[0])}", text))
    return "\n".join(found)


def _view(name: str, label: str, caption: str = "") -> str:
    """label, caption: HTML."""
    canvas = f'<canvas id="{name}" role="img" aria-label="{label}"></canvas>'
    return f"<figure>{canvas}<figcaption>{caption or label}</figcaption></figure>"


def rules(labels: LabelSet, sections: str) -> str:
    """Style rules for the classes' colours and the bars' lengths, as the policy allows no style
    attributes.
    """
    colors = (
        ".s{}{{background:#{:02x}{:02x}{:02x}}}".format(label, *labels.colors[label])
        for label in range(labels.values)
    )
    shares = sorted(set(map(int, re.findall(r'class="bar [^"]*\bw(\d+)"', sections))))
    lengths = (f".w{share}{{width:{share / 10:.1f}%}}" for share in shares)
    return "\n".join([*colors, *lengths]) + "\n"


def _section(name: str, title: str, body: str) -> str:
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{escape(title)}</h2>{body}</section>'
    )


def _scroll(title: str, table: str) -> str:
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">{table}</div>'
    )


def _head(table: Table) -> str:
    return "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)


def _table(table: Table) -> str:
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    body = f"<table><thead><tr>{_head(table)}</tr></thead><tbody>{rows}</tbody></table>"
    return _scroll(table.title, body)


def _class_table(
    labels: LabelSet, listed: Sequence[int], table: Table, plain: int, bars: Sequence[bool]
) -> str:
    """The table of classes with their colours, and bars behind percentages: in the colour of the
    model that they are of.

    listed: the label of each row. plain: the columns behind the name that belong to no model.
    bars: for each column of a model, whether it has bars.
    """
    rows = []
    for label, row in zip(listed, table.rows, strict=True):
        cells = []
        for place, cell in enumerate(row[1:]):
            model, column = divmod(place - plain, len(bars))
            barred = place >= plain and bars[column]
            cells.append(_barred(cell, model) if barred else f"<td>{escape(cell)}</td>")
        swatch = f'<span class="swatch s{label}"></span>'
        rows.append(f'<tr><th scope="row">{swatch}{escape(row[0])}</th>{"".join(cells)}</tr>')
    return _scroll(
        "Classes",
        f'<table class="sortable"><thead><tr>{_head(table)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>",
    )


def _barred(cell: str, model: int) -> str:
    """A cell with a percentage, and a bar of that length."""
    share = 0 if cell == "-" else float(cell)
    kind = f"bar m{model % 3} w{10 * share:.0f}"
    return f'<td class="barred"><span>{escape(cell)}</span><span class="{kind}"></span></td>'


def _confusion_section(place: int, name: str, matrix: ConfusionMatrix) -> str:
    title = f"Confusion, {name}" if place else "Confusion"
    end = str(place or "")
    body = (
        "<p>Each row is a true class; its cells say where that class's pixels went, in per cent. "
        f'<output id="cell{end}" aria-live="off"></output></p>'
    )
    region = f"Confusion matrix, {name}" if place else "Confusion matrix"
    table = f'<table class="confusion">{_confusion(matrix)}</table>'
    return _section(f"confusion{end}", title, body + _scroll(region, table))


def _confusion(matrix: ConfusionMatrix) -> str:
    """The confusion matrix as a table, with each row in percent of its true class."""
    first = matrix.first
    head = ['<tr><th scope="col">truth \\ prediction</th>']
    names = ["(ignored)"] * first + matrix.names
    head += [f'<th scope="col"><span>{escape(name)}</span></th>' for name in names]
    rows = []
    for i, (name, total) in enumerate(zip(matrix.names, matrix.truths, strict=True)):
        cells = []
        for j, count in enumerate(matrix.counts[first + i]):
            share = count / total if total else 0
            text = f"{100 * share:.0f}" if share >= 0.005 else ""
            right = " right" if j == first + i else ""
            cells.append(
                f'<td class="c{math.ceil(10 * share)}{right}" data-n="{count}">{text}</td>'
            )
        rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(cells)}</tr>')
    return f"<thead>{''.join(head)}</tr></thead><tbody>{''.join(rows)}</tbody>"


def _training(runs: Sequence[Run]) -> list[str]:
    return [_section("training", "Training", _curves(runs))] if runs else []


def _curves(runs: Sequence[Run]) -> str:
    import matplotlib

    from eval_tools.curves import draw, summary

    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "fusenet"}):
        draw(runs).savefig(file, format="svg", metadata={"Date": None})
    image = base64.b64encode(file.getvalue()).decode()
    table = summary(runs)
    words = "; ".join(
        ", ".join(f"{head} {cell}" for head, cell in zip(table.head, row, strict=True))
        for row in table.rows
    )
    return (
        f'<img class="curves" src="data:image/svg+xml;base64,{image}" '
        f'alt="Training curves: {escape(words)}">{_table(table)}'
    )

"""Collects a model's frames while they are scored, and writes the page."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np

from boundary.writing import write_bytes
from data_tools.cli import DataError
from eval_tools.caffe_log import Run
from eval_tools.inference import Segmented
from eval_tools.metrics import ConfusionMatrix
from eval_tools.pages import asset, fill, script, script_safe, style
from eval_tools.records import Record
from eval_tools.report.pictures import Pictures, pack
from eval_tools.tables import FIGURES, Result, Table, notes, percent, tables

MAX_BYTES = 38e6
# What the browser lets the page do: show its own pictures, and run this very script with this very
# style. Nothing that a name smuggles in can run, whatever our escaping misses.
POLICY = (
    "default-src 'none'; img-src data:; style-src '{css}'; script-src '{js}'; base-uri 'none'; "
    "form-action 'none'"
)
# Limit for one frame, even if a small report has room for more.
FRAME_BYTES = 150e3


class Report:
    """Collects frames (as the `watch` of scoring.score), then writes the page.

    Args:
        frames: the number of frames, which share the page's size.
    """

    def __init__(self, frames: int, max_bytes: float = MAX_BYTES) -> None:
        self._left = max_bytes
        self._to_come = frames
        self._pictures: list[Pictures] = []
        self._about: list[dict] = []

    def __call__(
        self, frame: Record, truth: np.ndarray, found: Segmented, matrix: ConfusionMatrix
    ) -> None:
        """Adds a frame."""
        budget = min(FRAME_BYTES, self._left / max(1, self._to_come))
        finest = max(0, self._pictures[-1].fineness - 1) if self._pictures else 0
        pictures = pack(frame.picture, frame.depth, truth, found.label, budget, finest)
        self._left -= len(pictures)
        self._to_come -= 1
        self._pictures.append(pictures)
        self._about.append(
            {
                "key": frame.key,
                "size": pictures.size,
                "step": pictures.step,
                "pixels": matrix.pixels,
                "accuracy": _round(matrix.global_accuracy),
                "iou": _round(matrix.mean_iou),
                "truth": np.unique(truth).tolist(),
                "found": np.unique(found.label).tolist(),
                **({} if found.scene is None else {"scene": [frame.scene, found.scene]}),
            }
        )

    def write(
        self, path: str | Path, results: Sequence[Result], source: str, runs: Sequence[Run] = ()
    ) -> None:
        """Writes the page.

        Args:
            results: the model's own first; those of compared models may follow.
            source: the name of the evaluation data, for the title.
            runs: training runs whose curves are drawn.
        """
        tally = results[0].tally
        data = {
            "names": tally.labels.names,
            "colors": tally.labels.colors.tolist(),
            "scored": tally.labels.scored,
            "frames": self._about,
            "scenes": tally.scenes.names if tally.scenes else [],
        }
        parts = {
            "title": escape(f"{tally.name} on {source}"),
            "notes": escape(notes(results)),
            "tiles": _tiles(results[0]),
            "sections": "\n".join(_sections(results, runs)),
            "confusion": _confusion(tally.matrix),
            "data": script_safe(json.dumps(data, separators=(",", ":"))),
        }
        parts["css"] = style(__package__) + _rules(results[0], parts["sections"])
        parts["js"] = script(__package__)
        parts["policy"] = POLICY.format(css=_hash(parts["css"]), js=_hash(parts["js"]))
        page = asset(__package__, "page.html")
        head, tail = (fill(part, parts) for part in page.split("{{frames}}"))
        blocks = [
            f'<script type="text/plain" id="f{i}">{pictures.text()}</script>\n'
            for i, pictures in enumerate(self._pictures)
        ]
        # Names of files may hold bytes that are no UTF-8.
        page = "".join([head, *blocks, tail])
        write_bytes(path, page.encode(errors="replace"), DataError)


def _hash(text: str) -> str:
    """The source expression that allows an inline script or style of exactly this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def _tiles(result: Result) -> str:
    found = []
    for figure, title in FIGURES.items():
        value = percent(getattr(result.tally.matrix, figure))
        interval = ""
        if result.intervals:
            low, high = map(percent, result.intervals[figure])
            interval = f'<span class="interval">95 %: {low} to {high}</span>'
        found.append(f"<div><dt>{title}</dt><dd>{value} %{interval}</dd></div>")
    return "".join(found)


def _sections(results: Sequence[Result], runs: Sequence[Run]) -> list[str]:
    classes, *others = tables(results)
    found = [_section("classes", "Classes", _class_table(results[0], classes, len(results)))]
    for place, table in enumerate(others):
        if table.title != "Summary" or len(results) > 1:
            found.append(_section(f"more{place}", table.title, _table(table)))
    if runs:
        found.append(_section("training", "Training", _curves(runs)))
    return found


def _section(name: str, title: str, body: str) -> str:
    return (
        f'<section id="{name}" aria-labelledby="{name}-title">'
        f'<h2 id="{name}-title">{escape(title)}</h2>{body}</section>'
    )


def _table(table: Table, attributes: str = "") -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    rows = "".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in table.rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(table.title)}">'
        f"<table{attributes}><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _class_table(result: Result, table: Table, models: int) -> str:
    """The table of classes; for a single model, with bars."""
    if models > 1:
        return _table(table, ' class="sortable"')
    labels = result.tally.labels
    rows = []
    for label, row in zip(labels.scored, table.rows, strict=True):
        cells = [f"<td>{escape(cell)}</td>" for cell in row[1:3]]
        for cell in row[3:]:
            share = 0 if cell == "-" else float(cell)
            bar = f'<span class="bar w{10 * share:.0f}"></span>'
            cells.append(f'<td class="barred"><span>{escape(cell)}</span>{bar}</td>')
        swatch = f'<span class="swatch s{label}"></span>'
        rows.append(f'<tr><th scope="row">{swatch}{escape(row[0])}</th>{"".join(cells)}</tr>')
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.head)
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="Classes">'
        f'<table class="sortable"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody>'
        "</table></div>"
    )


def _rules(result: Result, sections: str) -> str:
    """Style rules for the classes' colours and the bars' lengths, as the policy allows no style
    attributes.
    """
    labels = result.tally.labels
    colors = (
        ".s{}{{background:#{:02x}{:02x}{:02x}}}".format(label, *labels.colors[label])
        for label in labels.scored
    )
    shares = sorted(set(map(int, re.findall(r'class="bar w(\d+)"', sections))))
    lengths = (f".w{share}{{width:{share / 10:.1f}%}}" for share in shares)
    return "\n".join([*colors, *lengths]) + "\n"


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

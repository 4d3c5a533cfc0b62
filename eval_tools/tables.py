"""Results as text: plain tables for a terminal, Markdown tables, and numbers for JSON."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from boundary.text import shown

if TYPE_CHECKING:
    from eval_tools.compare import Difference
    from eval_tools.metrics import ConfusionMatrix
    from eval_tools.scoring import Tally

FIGURES = {
    "global_accuracy": "global accuracy",
    "mean_accuracy": "mean class accuracy",
    "mean_iou": "mean IoU",
    "frequency_weighted_iou": "frequency-weighted IoU",
}


@dataclass(frozen=True)
class Result:
    """A model's tally with its intervals and its differences to the first model."""

    tally: Tally
    intervals: dict[str, tuple[float, float]] | None = None
    differences: dict[str, Difference] | None = None


@dataclass(frozen=True)
class Table:
    """Rows of text under a heading; the first column has words, the others have numbers."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def plain(self) -> str:
        """Aligned columns, two spaces apart."""
        lines = [list(map(shown, row)) for row in (self.head, *self.rows)]
        widths = [max(len(row[i]) for row in lines) for i in range(len(self.head))]
        texts = []
        for row in lines:
            cells = [
                cell.ljust(width) if i == 0 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            texts.append("  ".join(cells).rstrip())
        return "\n".join(texts)

    def markdown(self) -> str:
        """A GitHub Markdown table under a heading."""
        head, *rows = (list(map(as_markdown, row)) for row in (self.head, *self.rows))
        rule = ["---", *["---:"] * (len(self.head) - 1)]
        text = "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))
        return f"### {as_markdown(self.title)}\n\n{text}"


def as_markdown(text: str) -> str:
    """A text of one line, with what GitHub's Markdown would act on marked as plain."""
    return re.sub(r"([\\`*_\[\]<>|~$&])", r"\\\1", shown(text))


def tables(results: Sequence[Result]) -> list[Table]:
    """All results as tables: classes, groups, scenes, summary, differences."""
    found = [_classes(results)]
    found += [_groups(result) for result in results if result.tally.groups]
    found += [_scenes(result) for result in results if result.tally.scenes]
    found.append(_summary(results))
    found += [_differences(results[0], result) for result in results if result.differences]
    return found


def notes(results: Sequence[Result]) -> str:
    """One line with the number of frames and pixels, and the classes left out of the means."""
    tally = results[0].tally
    frames = f"{len(tally.keys)} frame{'s' * (len(tally.keys) != 1)}"
    text = f"{frames}, {tally.matrix.pixels} labelled pixels"
    if tally.matrix.absent:
        text += f"; not in the truth, so left out of the means: {', '.join(tally.matrix.absent)}"
    return text


def percent(value: float) -> str:
    """0.6604 -> 66.04; a dash for NaN."""
    return "-" if math.isnan(value) else f"{100 * value:.2f}"


def _classes(results: Sequence[Result]) -> Table:
    first = results[0].tally.matrix
    head = ["class", "pixels", "share %"]
    for result in results:
        of = f" {result.tally.name}" if len(results) > 1 else ""
        head += [f"accuracy{of} %", f"IoU{of} %"]
    rows = []
    columns = [(r.tally.matrix.class_accuracy, r.tally.matrix.iou) for r in results]
    for i, (name, pixels) in enumerate(zip(first.names, first.truths, strict=True)):
        row = [name, str(pixels), percent(pixels / first.pixels)]
        for accuracy, iou in columns:
            row += [percent(accuracy[i]), percent(iou[i])]
        rows.append(row)
    return Table("Classes", head, rows)


def _summary(results: Sequence[Result]) -> Table:
    head = ["%"]
    for result in results:
        head += [result.tally.name, *(["95 % interval"] if result.intervals else [])]
    rows = []
    for figure, title in FIGURES.items():
        row = [title]
        for result in results:
            row.append(percent(getattr(result.tally.matrix, figure)))
            if result.intervals:
                row.append(" to ".join(map(percent, result.intervals[figure])))
        rows.append(row)
    return Table("Summary", head, rows)


def _differences(first: Result, other: Result) -> Table:
    rows = []
    for figure, title in FIGURES.items():
        d = other.differences[figure]
        interval = f"{percent(d.low)} to {percent(d.high)}"
        rows.append([title, f"{100 * d.value:+.2f}", interval, f"{d.p:.4f}"])
    title = f"{other.tally.name} minus {first.tally.name}"
    return Table(title, [title, "points", "95 % interval", "p"], rows)


def _groups(result: Result) -> Table:
    rows = [
        [name, str(matrix.pixels), *(percent(getattr(matrix, figure)) for figure in FIGURES)]
        for name, matrix in sorted(result.tally.groups.items())
    ]
    title = f"Groups, {result.tally.name}"
    return Table(title, ["group", "pixels", *(f"{text} %" for text in FIGURES.values())], rows)


def _scenes(result: Result) -> Table:
    matrix = result.tally.scenes
    rows = [
        [name, str(frames), percent(accuracy)]
        for name, frames, accuracy in zip(
            matrix.names, matrix.truths, matrix.class_accuracy, strict=True
        )
    ]
    rows.append(["accuracy", str(matrix.pixels), percent(matrix.global_accuracy)])
    rows.append(["mean class accuracy", "", percent(matrix.mean_accuracy)])
    return Table(f"Scenes, {result.tally.name}", ["scene", "frames", "accuracy %"], rows)


def numbers(results: Sequence[Result]) -> dict[str, Any]:
    """The first model's metrics for JSON, with those of the other models under `versus`.

    Shares are 0..1; null means undefined (a class without true pixels).
    """
    found = _numbers(results[0])
    if len(results) > 1:
        found["versus"] = [_numbers(result) for result in results[1:]]
    return found


def _numbers(result: Result) -> dict[str, Any]:
    tally = result.tally
    found: dict[str, Any] = {"model": tally.name, "frames": len(tally.keys)}
    found |= matrix_numbers(tally.matrix, tally.labels.scored)
    if result.intervals:
        found["intervals_95"] = {k: [_null(x) for x in v] for k, v in result.intervals.items()}
    if result.differences:
        found["minus_first"] = {
            name: {key: _null(value) for key, value in asdict(difference).items()}
            for name, difference in result.differences.items()
        }
    if tally.groups:
        found["groups"] = {
            name: matrix_numbers(matrix, tally.labels.scored)
            for name, matrix in sorted(tally.groups.items())
        }
    if tally.scenes:
        found["scenes"] = {
            "frames": tally.scenes.pixels,
            "accuracy": _null(tally.scenes.global_accuracy),
            "mean_accuracy": _null(tally.scenes.mean_accuracy),
            "confusion": tally.scenes.counts.tolist(),
            "names": tally.scenes.names,
        }
    return found


def matrix_numbers(matrix: ConfusionMatrix, labels: Sequence[int]) -> dict[str, Any]:
    """A confusion matrix's metrics for JSON; `labels` has the label of each class in the data."""
    found: dict[str, Any] = {"pixels": matrix.pixels}
    found |= {figure: _null(getattr(matrix, figure)) for figure in FIGURES}
    found["absent"] = matrix.absent
    found["classes"] = [
        {
            "label": int(label),
            "name": name,
            "pixels": int(pixels),
            "predicted": int(predicted),
            "accuracy": _null(accuracy),
            "iou": _null(iou),
        }
        for label, name, pixels, predicted, accuracy, iou in zip(
            labels,
            matrix.names,
            matrix.truths,
            matrix.predictions,
            matrix.class_accuracy,
            matrix.iou,
            strict=True,
        )
    ]
    return found


def _null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)

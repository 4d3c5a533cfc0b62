"""Compares what a program makes of an ONNX file with the net that it was made of."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch

from caffe.errors import CaffeError
from caffe.export import probes, programs
from caffe.formats.onnx import Target
from caffe.net import Net

TOLERANCE = 1e-4  # largest difference, in shares of the output's largest value
UNEQUAL = 1e-2  # share of values that may exceed it: masks may differ where values are nearly equal
Answers = Mapping[str, np.ndarray]
Run = Callable[..., Answers]  # (net, feeds, outputs[, number type]) -> the outputs by name


class Difference(float):
    """The largest difference of an output, in shares of its largest value.

    values: how many the output has. beyond: how many of them differ by more than TOLERANCE. nan:
    how many are NaN on both sides.
    """

    values = beyond = nan = 0

    def __str__(self) -> str:
        several = f"{self.beyond} of {self.values} values by more than {TOLERANCE:g}"
        return f"{float(self):.1e} ({several}{f', {self.nan} NaN in both' if self.nan else ''})"


def compared(
    net: Net,
    run: Run,
    model: bytes,
    outputs: Sequence[str],
    dynamic_batch: bool,
    target: Target,
    program: Target,
) -> dict[str, Difference]:
    """The difference of each output, on inputs for which rounding decides nothing, if there are.

    run: gives the net's answers. target: the program that the file is for. program: the one that
    runs it here.

    Where a net chooses (the largest of a window, a box), sums in another order may choose another
    of near equals. So where values differ, inputs count on which the net agrees with itself in
    double precision; without any, those on which the fewest values differ.
    """
    names, given = programs.signature(model)
    least = -math.inf if target.selects else 0.0  # scores that the file's rows are above
    boxes = dict.fromkeys(_names_of_boxes(net), least)
    best: dict[str, Difference] = {}
    hint = ""
    for feeds, expected in _answered(net, run, outputs, dynamic_batch):
        theirs = programs.answers(program, model, {n: feeds[n] for n in names}, given)
        found = {
            name: measured(name, expected[name], values, program.title, boxes.get(name))
            for name, values in zip(outputs, theirs, strict=True)
        }
        if not best or _beyond(found) < _beyond(best):
            best = found
        if any(_lie_far(values) for name, values in expected.items() if name in boxes):
            hint = "; its boxes lie far beyond the image: are these its weights?"
        if not _beyond(found) or _is_calm(run, net, feeds, outputs, expected, boxes):
            best = found
            break
    for name, difference in best.items():
        judge(name, difference, program.title, hint)
    return best


def _beyond(found: Mapping[str, Difference]) -> int:
    return sum(difference.beyond for difference in found.values())


def _names_of_boxes(net: Net) -> list[str]:
    """The blobs that hold rows of boxes."""
    return [
        n for layer, _, tops in net.wiring if layer.raw_bottoms != 0 for n in net.wiring.names(tops)
    ]


def _is_calm(
    run: Run,
    net: Net,
    feeds: probes.Feeds,
    outputs: Sequence[str],
    expected: Mapping[str, np.ndarray],
    boxes: Mapping[str, float],
) -> bool:
    """Whether the net's answers in double precision are those in single precision."""
    try:
        exact = run(net, feeds, outputs, torch.float64)
    except (CaffeError, RuntimeError):  # a layer has single precision only
        return True
    return not any(
        measured(name, values, exact[name].astype(np.float32), "", boxes.get(name)).beyond
        for name, values in expected.items()
    )


def measured(
    name: str, ours: np.ndarray, theirs: np.ndarray, program: str, least: float | None = None
) -> Difference:
    """How far the answers are apart. Raises CaffeError for another shape.

    least: for rows of boxes, the score that those are above which count; None for other outputs.
    """
    if least is not None:
        ours, theirs = _rows(ours, least), _rows(theirs, least)
        if len(ours) != len(theirs):
            found = Difference(1)
            found.values = max(ours.size, theirs.size)
            found.beyond = abs(ours.size - theirs.size)
            return found
    if ours.shape != theirs.shape:
        raise CaffeError(
            f"output {name!r}: {program} gives the shape {theirs.shape}, the net {ours.shape}"
        )
    largest = np.abs(np.where(np.isfinite(ours), ours, 0))
    # Labels, scores and corners of boxes each have their own scale.
    scale = largest.max(initial=0) if least is None else largest.max(0, initial=0)
    scale = np.where(scale > 0, scale, 1)
    nan = np.isnan(ours) & np.isnan(theirs)
    with np.errstate(invalid="ignore"):
        away = np.where((ours == theirs) | nan, 0, np.abs(ours - theirs) / scale)
    found = Difference(away.max(initial=0))
    found.values, found.nan = ours.size, int(nan.sum())
    found.beyond = ours.size - int((away <= TOLERANCE).sum())
    return found


def _rows(boxes: np.ndarray, least: float) -> np.ndarray:
    """Rows of boxes (image, label, score, corners) by image and label, the best first, without
    rows that hold none.
    """
    rows = boxes.reshape(-1, boxes.shape[-1])
    rows = rows[(rows[:, 1] >= 0) & (rows[:, 2] > least)]
    return rows[np.lexsort((rows[:, 3], -rows[:, 2], rows[:, 1], rows[:, 0]))]


def judge(name: str, found: Difference, program: str, hint: str = "") -> None:
    """Raise CaffeError, with the hint behind its text, if too many values differ."""
    if found.beyond > UNEQUAL * found.values:
        raise CaffeError(
            f"output {name!r}: {program} and the net differ on "
            f"{found.beyond / found.values:.2%} of the values ({found.beyond} of {found.values}), "
            f"by up to {float(found):.2g} of the largest{hint}"
        )


def _answered(
    net: Net, run: Run, outputs: Sequence[str], dynamic_batch: bool
) -> Iterator[tuple[probes.Feeds, dict[str, np.ndarray]]]:
    """Inputs with the net's answers, of which each has finite values; those by which one can tell
    whether a program computes the net, or if there are none, all.

    Raises CaffeError if the net refuses all inputs, or always answers with NaN or infinity.
    """
    names, problem, found = probes.inputs_of(net, outputs), None, False
    boxes, others = set(_names_of_boxes(net)), []
    for feeds in probes.draws(net, names, int(dynamic_batch)):
        try:
            expected = run(net, feeds, outputs)
        except CaffeError as error:
            problem = problem or error
            continue
        if void := [n for n, v in expected.items() if v.size and not np.isfinite(v).any()]:
            problem = problem or CaffeError(
                f"output {void[0]!r}: the net gives NaN or infinity throughout; there is nothing "
                "to compare: look at the weights, or leave out the check"
            )
            continue
        if all(_tells(values, name in boxes) for name, values in expected.items()):
            found = True
            yield feeds, expected
        else:
            others.append((feeds, expected))
    if not found:
        yield from others
    if not found and not others and problem:
        raise problem


def _tells(values: np.ndarray, boxes: bool) -> bool:
    """Whether answers are in a range where the net works: finite, not of two values only as those
    of a saturated Softmax, boxes not far beyond the image.
    """
    if not np.isfinite(values).all() or (boxes and _lie_far(values)):
        return False
    if boxes or values.size < 3:
        return True
    steps = np.round(values / (np.abs(values).max() or 1) / TOLERANCE)
    return bool(((steps > steps.min()) & (steps < steps.max())).any())


def _lie_far(boxes: np.ndarray) -> bool:
    """Whether a corner of boxes, whose image has a side of 1, lies far beyond it."""
    return not np.abs(boxes[..., 3:7]).max(initial=0) <= 100

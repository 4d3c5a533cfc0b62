"""The mean average precision of a test net that ends in DetectionEvaluate (SSD's solver)."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from caffe.errors import CaffeError

AP_VERSIONS = ("11point", "MaxIntegral", "Integral")
_EPS = 1e-6  # recalls closer than this are one (ComputeAP in SSD's bbox_util.cpp)


class Detections:
    """What one output of a test net has told so far: true and false boxes of each label.

    add() takes a DetectionEvaluate's top, (..., 5). Raises CaffeError for another shape.
    """

    def __init__(self, output: str) -> None:
        self.output = output
        self.truths: dict[int, int] = {}  # label -> how many boxes there are
        self._found: dict[int, list[np.ndarray]] = defaultdict(list)  # label -> (score, true)

    def add(self, rows: np.ndarray) -> None:
        if rows.ndim == 0 or rows.shape[-1] != 5:
            raise CaffeError(
                f"eval_type detection: output {self.output!r} has the shape {rows.shape}, expected "
                "rows of 5 numbers, as DetectionEvaluate's"
            )
        rows = rows.reshape(-1, 5)
        labels = rows[:, 1].astype(int)
        totals = rows[:, 0] == -1
        for label, count in zip(labels[totals], rows[totals, 2], strict=True):
            self.truths[int(label)] = self.truths.get(int(label), 0) + int(count)
        counts = ~totals & ((rows[:, 3] != 0) | (rows[:, 4] != 0))  # others are at difficult boxes
        for label in np.unique(labels[counts]):
            self._found[int(label)].append(rows[counts & (labels == label)][:, 2:4])

    def precisions(self, version: str) -> dict[int, float | None]:
        """The average precision of each label; None where nothing was found of it."""
        return {
            label: average_precision(np.concatenate(self._found[label]), count, version)
            if label in self._found
            else None
            for label, count in sorted(self.truths.items())
        }


def average_precision(found: np.ndarray, truths: int, version: str) -> float:
    """The average precision of boxes (n, 2), each a score and whether it is true (1 or 0).

    version: 11point, the mean of the best precisions at recalls of 0, 0.1, ... (VOC2007);
    MaxIntegral, the area under the precision that is nowhere smaller than at a larger recall
    (VOC2012); Integral, the area under the precision as it is.
    """
    if not (len(found) and truths):
        return 0.0
    true = found[np.argsort(-found[:, 0], kind="stable"), 1].cumsum()
    precision = (true / np.arange(1, len(true) + 1)).astype(np.float32)
    recall = (true / truths).astype(np.float32)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a larger one
    if version == "11point":
        levels = np.arange(11) / 10
        reached = [precision[recall.astype(float) >= level].max(initial=0) for level in levels]
        return float(sum(reached) / 11)
    heights = precision
    if version == "MaxIntegral":  # up to a recall counts what is reached at the one before it
        heights = np.concatenate([best[:1], best[:-1]])
    widths = np.diff(recall, prepend=np.float32(0))
    return float((heights * np.where(widths > _EPS, widths, 0)).sum())

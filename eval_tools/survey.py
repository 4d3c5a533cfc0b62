"""What models say of frames without true labels: shares of the classes, and how sure they are.

The confidence of a pixel is the probability of the label that it got.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from eval_tools.inference import Options, Segmented, batches, segment
from eval_tools.labels import LabelSet
from eval_tools.network import Network
from eval_tools.records import Record
from eval_tools.tables import Table, percent

UNSURE = 0.5  # below, all other labels together are likelier than the pixel's own

# Called for every frame with what each model says of it.
Viewer = Callable[[Record, Sequence[Segmented]], None]


@dataclass
class Survey:
    """The counts of one model.

    pixels: of each label that it gives, int64 (values,). sure: the sum of their confidences.
    unsure: pixels whose confidence is below UNSURE. agreeing: pixels that the first model labels
    alike.
    """

    name: str
    labels: LabelSet
    frames: int = 0
    unsure: int = 0
    agreeing: int = 0
    pixels: np.ndarray = field(init=False)
    sure: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.labels.values, np.int64)
        self.sure = np.zeros(self.labels.values)

    def add(self, found: Segmented, first: Segmented) -> None:
        """Counts one frame. found: what this model says of it, with confidences; first: what the
        first model says.
        """
        label = found.label.ravel()
        self.frames += 1
        self.pixels += np.bincount(label, minlength=len(self.pixels))
        self.sure += np.bincount(label, found.confidence.ravel(), len(self.sure))
        self.unsure += int(np.count_nonzero(found.confidence < UNSURE))
        self.agreeing += int(np.count_nonzero(found.label == first.label))

    @property
    def total(self) -> int:
        """Pixels of all frames."""
        return int(self.pixels.sum())

    def figures(self) -> dict[str, float]:
        """The figures over all pixels, from 0 to 1, by their titles."""
        return {
            "mean confidence": float(self.sure.sum() / self.total),
            f"pixels below {100 * UNSURE:.0f} % confidence": self.unsure / self.total,
        }


def survey(
    models: Sequence[tuple[str, Network, LabelSet]],
    frames: Iterable[Record],
    options: Sequence[Options],
    batch_size: int = 1,
    view: Viewer | None = None,
) -> list[Survey]:
    """Runs models on all frames and counts, with one batch in memory at a time.

    models: the name, net and labels of each. options: each model's. view: called with every frame.

    Raises DataError as eval_tools.inference.segment does.
    """
    found = [Survey(name, labels) for name, _, labels in models]
    for batch in batches(frames, batch_size):
        answers = [
            segment(network, batch, option, confidence=True)
            for (_, network, _), option in zip(models, options, strict=True)
        ]
        for frame, *answer in zip(batch, *answers, strict=True):
            for model, own in zip(found, answer, strict=True):
                model.add(own, answer[0])
            if view:
                view(frame, answer)
    return found


def tables(surveys: Sequence[Survey]) -> list[Table]:
    """The classes with their shares, and the summary."""
    first, several = surveys[0].labels, len(surveys) > 1
    head = ["class"]
    for one in surveys:
        of = f" {one.name}" if several else ""
        head += [f"pixels{of}", f"share{of} %", f"confidence{of} %"]
    rows = []
    for label in listed(surveys):
        row = [first.names[label]]
        for one in surveys:
            pixels = one.pixels[label]
            sure = one.sure[label] / pixels if pixels else float("nan")
            row += [str(pixels), percent(pixels / one.total), percent(sure)]
        rows.append(row)
    return [Table("Classes", head, rows), _summary(surveys)]


def _summary(surveys: Sequence[Survey]) -> Table:
    figures = [one.figures() for one in surveys]
    rows = [[title, *(percent(own[title]) for own in figures)] for title in figures[0]]
    if len(surveys) > 1:
        agreeing = [percent(one.agreeing / one.total) for one in surveys[1:]]
        rows.append([f"pixels labelled as by {surveys[0].name}", "-", *agreeing])
    return Table("Summary", ["%", *(one.name for one in surveys)], rows)


def listed(surveys: Sequence[Survey]) -> list[int]:
    """The labels of the table of classes: the scored ones, and 0 if a model gives it."""
    ignored = [0] if any(one.pixels[0] for one in surveys) else []
    return [*ignored, *surveys[0].labels.scored]


def notes(surveys: Sequence[Survey]) -> str:
    """One line: the number of frames and pixels, and that there is no truth."""
    frames = surveys[0].frames
    return (
        f"{frames} frame{'s' * (frames != 1)}, {surveys[0].total} pixels without true labels: "
        "shares and confidences are the net's own"
    )


def numbers(surveys: Sequence[Survey]) -> dict[str, Any]:
    """The first model's figures for JSON, with those of the others under `versus`. Shares and
    confidences are 0..1; null means that the label does not occur.
    """
    found = _numbers(surveys[0])
    if len(surveys) > 1:
        agreeing = [one.agreeing / one.total for one in surveys[1:]]
        found["versus"] = [
            {**_numbers(one), "agrees_with_first": share}
            for one, share in zip(surveys[1:], agreeing, strict=True)
        ]
    return found


def _numbers(one: Survey) -> dict[str, Any]:
    return {
        "model": one.name,
        "frames": one.frames,
        "pixels": one.total,
        "labeled": False,
        "mean_confidence": float(one.sure.sum() / one.total),
        "unsure": one.unsure / one.total,
        "classes": [
            {
                "label": label,
                "name": one.labels.names[label],
                "predicted": int(pixels),
                "share": float(pixels / one.total),
                "confidence": float(sure / pixels) if pixels else None,
            }
            for label, (pixels, sure) in enumerate(zip(one.pixels, one.sure, strict=True))
        ],
    }

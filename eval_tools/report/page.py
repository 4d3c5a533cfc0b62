"""Collects frames and what models say of them, and writes the page."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from boundary.writing import write_bytes
from data_tools.cli import DataError
from eval_tools import survey, tables
from eval_tools.caffe_log import Run
from eval_tools.inference import Segmented
from eval_tools.labels import LabelSet
from eval_tools.metrics import ConfusionMatrix
from eval_tools.pages import asset, fill, script, script_safe, style
from eval_tools.records import Record
from eval_tools.report import sections
from eval_tools.report.pictures import Pictures, pack
from eval_tools.scoring import Watcher
from eval_tools.survey import Survey
from eval_tools.tables import Result

MAX_BYTES = 38e6
# What the browser lets the page do: show its own pictures, and run this very script with this very
# style. Nothing that a name smuggles in can run, whatever our escaping misses.
POLICY = (
    "default-src 'none'; img-src data:; style-src '{css}'; script-src '{js}'; base-uri 'none'; "
    "form-action 'none'"
)
# Limit for one frame, even if a small report has room for more.
FRAME_BYTES = 150e3
OTHER = 0.4  # what another model's labels get, as a part of what a frame without them gets


class Report:
    """Collects frames, then writes the page.

    Frames with labels come as the `watch` of scoring.score: the report itself is that of the first
    model, `other()` that of each further one, which sees the same frames in the same order. Frames
    without labels come as the `view` of survey.survey, `unlabeled`.

    Args:
        frames: the number of frames, which share the page's size.
        models: the number of models.
    """

    def __init__(self, frames: int, max_bytes: float = MAX_BYTES, models: int = 1) -> None:
        first = 1 / (1 + OTHER * (models - 1))
        self._left, self._limit = max_bytes * first, FRAME_BYTES * first
        self._other = min(self._limit, max_bytes * first / max(1, frames)) * OTHER
        self._to_come = frames
        self._pictures: list[Pictures] = []
        self._about: list[dict[str, Any]] = []

    def __call__(
        self, frame: Record, truth: np.ndarray, found: Segmented, matrix: ConfusionMatrix
    ) -> None:
        """Adds a frame."""
        pictures = self._add(frame, truth, found)
        self._about.append(
            {
                "key": frame.key,
                "size": pictures.size,
                "step": pictures.step,
                "pixels": matrix.pixels,
                **_scores(matrix),
                "truth": np.unique(truth).tolist(),
                "found": np.unique(found.label).tolist(),
                "others": [],
                **({} if found.scene is None else {"scene": [frame.scene, found.scene]}),
            }
        )

    def other(self) -> Watcher:
        """What adds another model's labels to the frames, which it gets in the same order."""
        place = iter(range(len(self._about)))

        def watch(
            frame: Record, truth: np.ndarray, found: Segmented, matrix: ConfusionMatrix
        ) -> None:
            self._add_other(next(place), found, _scores(matrix))

        return watch

    def unlabeled(self, frame: Record, answers: Sequence[Segmented]) -> None:
        """Adds a frame without true labels. answers: what each model says of it."""
        first, *others = answers
        pictures = self._add(frame, None, first)
        self._about.append(
            {
                "key": frame.key,
                "size": pictures.size,
                "step": pictures.step,
                **_sureness(first),
                "found": np.unique(first.label).tolist(),
                "others": [],
                **({} if first.scene is None else {"scene": [None, first.scene]}),
            }
        )
        for found in others:
            same = float(np.mean(found.label == first.label))
            self._add_other(len(self._about) - 1, found, {**_sureness(found), "same": _round(same)})

    def _add(self, frame: Record, truth: np.ndarray | None, found: Segmented) -> Pictures:
        budget = min(self._limit, self._left / max(1, self._to_come))
        finest = max(0, self._pictures[-1].fineness - 1) if self._pictures else 0
        sure = None if truth is not None else found.confidence
        pictures = pack(frame.picture, frame.depth, truth, found.label, budget, finest, sure)
        self._left -= len(pictures)
        self._to_come -= 1
        self._pictures.append(pictures)
        return pictures

    def _add_other(self, place: int, found: Segmented, facts: dict[str, Any]) -> None:
        pictures = self._pictures[place].with_other(found.label, self._other)
        self._pictures[place] = pictures
        scene = {} if found.scene is None else {"scene": found.scene}
        labels = np.unique(found.label).tolist()
        facts = {**facts, "found": labels, "factor": pictures.factors[-1], **scene}
        self._about[place]["others"].append(facts)

    def write(
        self, path: str | Path, results: Sequence[Result], source: str, runs: Sequence[Run] = ()
    ) -> None:
        """Writes the page of frames with labels.

        Args:
            results: the first model's; those of the others may follow.
            source: the name of the evaluation data, for the title.
            runs: training runs whose curves are drawn.
        """
        tally = results[0].tally
        scenes = tally.scenes.names if tally.scenes else []
        parts = {
            "notes": escape(tables.notes(results)),
            "tiles": sections.tiles(results),
            "sections": "\n".join(sections.scored(results, runs)),
        }
        names = [result.tally.name for result in results]
        self._write(path, parts, names, source, tally.labels, {"labeled": True, "scenes": scenes})

    def write_survey(
        self,
        path: str | Path,
        surveys: Sequence[Survey],
        source: str,
        scenes: Sequence[str] = (),
        runs: Sequence[Run] = (),
    ) -> None:
        """Writes the page of frames without labels; as `write`. scenes: the names of scenes."""
        parts = {
            "notes": escape(survey.notes(surveys)),
            "tiles": sections.survey_tiles(surveys),
            "sections": "\n".join(sections.surveyed(surveys, runs)),
        }
        names = [one.name for one in surveys]
        facts = {"labeled": False, "scenes": list(scenes)}
        self._write(path, parts, names, source, surveys[0].labels, facts)

    def _write(
        self,
        path: str | Path,
        parts: dict[str, str],
        models: Sequence[str],
        source: str,
        labels: LabelSet,
        facts: dict[str, Any],
    ) -> None:
        data = {
            "names": labels.names,
            "colors": labels.colors.tolist(),
            "scored": labels.scored,
            "frames": self._about,
            "models": models,
            "parts": list(self._pictures[0].parts),
            **facts,
        }
        versus = f", compared with {', '.join(models[1:])}" if len(models) > 1 else ""
        parts |= {
            "title": escape(f"{models[0]} on {source}{versus}"),
            "views": sections.views(models, facts["labeled"]),
            "data": script_safe(json.dumps(data, separators=(",", ":"))),
        }
        parts["css"] = style(__package__) + sections.rules(labels, parts["sections"])
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


def _scores(matrix: ConfusionMatrix) -> dict[str, float | None]:
    return {"accuracy": _round(matrix.global_accuracy), "iou": _round(matrix.mean_iou)}


def _sureness(found: Segmented) -> dict[str, float | None]:
    sure = found.confidence
    return {
        "confidence": _round(float(sure.mean())),
        "unsure": _round(float(np.mean(sure < survey.UNSURE))),
    }


def _hash(text: str) -> str:
    """The source expression that allows an inline script or style of exactly this text."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _round(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)

"""The model behind the page: what the page says of it, and its answers for frames."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from boundary import packed
from boundary.errors import shown
from boundary.late import cv2
from boundary.pictures import orientation
from data_tools import images, turning
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.doctor import frame as doctor
from data_tools.doctor import holes
from data_tools.fit import describe
from data_tools.record import Frame, RecordFormat, nearest
from eval_tools import drawings
from eval_tools.inference import at_size
from eval_tools.live import message
from eval_tools.predictor import Predictor, Unit, unit_for

# The pixels of a frame that the page shows; larger frames are shrunk. Full HD is within it. The
# scores of 40 labels take 320 MB for so many.
MOST_PIXELS = 2**21
MOST_MOVING = 2**19  # of frames that come one after another; 960x540 is within it
STEPS = 1000  # of depth on the page in a metre; 16 bits hold 65 m


@dataclass(frozen=True)
class Given:
    """A frame to label. color: H x W x 3 uint8, BGR, or None. depth: H x W in `unit`, or None.

    unit: None for millimetres in integers and metres in floats. form: how depth is prepared (values
    that are no readings, cameras, the depth doctor); None: as dropped files. seconds: what reading
    took. notes: what is to be said of it. facts: what else the page is told. most: pixels; larger
    frames are shrunk.
    """

    name: str
    color: np.ndarray | None = None
    depth: np.ndarray | None = None
    unit: Unit | None = None
    form: RecordFormat | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    most: int = MOST_PIXELS


# Of dropped files: the doctor looks at depth, and finds the value that stands for "no reading".
DROPPED = RecordFormat(no_reading=None, doctor=True)
# Of depth that is in the colour camera's picture, and whose holes are 0.
READY = RecordFormat(unit=DepthUnit.parse("mm"), no_reading=())
# Of a packed model's example, which is in the picture, too, but as its files store it.
EXAMPLE = replace(READY, no_reading=None)


class Model:
    """A Predictor, and its answers in the form that the page takes.

    form: how depth of dropped files is prepared. unit: theirs, until the page's user chooses
    another.
    """

    def __init__(
        self,
        predictor: Predictor,
        form: RecordFormat = DROPPED,
        unit: DepthUnit | None = None,
    ) -> None:
        self.predictor, self._form, self._unit = predictor, form, unit
        path = predictor.model
        self._info = packed.read(path, DataError).info if packed.is_packed(path) else {}
        self._example = predictor.example()

    def facts(self) -> dict[str, Any]:
        """What the page says of the model, and needs to know to show labels."""
        p = self.predictor
        return {
            "model": shown(Path(p.model).name),
            "names": list(p.names),
            "colors": p.colors.tolist(),
            "size": list(p.size),
            "fit": p.fit,
            "color": p.takes_color,
            "depth": p.takes_depth,
            "depth_range": p.depth_range,
            "depth_range_assumed": p.depth_range_assumed,
            "place": "CPU" if p.gpu is None else f"GPU {p.gpu}",
            "figures": _figures(self._info.get("figures")),
            "example": self._example is not None,
            "aligns": self._form.rig is not None,
            "unit": _option(self._unit),
        }

    def example(self) -> Given:
        """The packed model's example. Raises DataError if it has none."""
        if self._example is None:
            raise DataError(f"{shown(self.predictor.model)}: has no example")
        return Given("the model's example", *self._example, form=EXAMPLE)

    def read(self, facts: dict[str, Any], blocks: dict[str, bytes]) -> Given:
        """The frame of dropped files, of which the net's own count. Raises DataError."""
        p = self.predictor
        looks = {"color": p.takes_color, "depth": p.takes_depth}
        return read(facts, blocks, [part for part, wanted in looks.items() if wanted])

    def answer(self, given: Given) -> bytes:
        """The message with a frame's labels (see page.js). Raises DataError."""
        p = self.predictor
        start = time.perf_counter()
        frame = _shrunk(self._prepared(given))
        color = frame.color if p.takes_color else None
        depth = frame.depth if p.takes_depth else None
        labels, confidence = p.with_confidence(color, depth, frame.unit)
        seconds = time.perf_counter() - start
        size = labels.shape[::-1]
        told = describe(p.fit, size, p.size)
        notes = [*frame.notes, *([f"the frame of {told}"] if told else [])]
        blocks = {"labels": labels.tobytes(), "confidence": _bytes(confidence)}
        if color is not None:
            quality = [cv2.IMWRITE_JPEG_QUALITY, 92]
            blocks["color"] = cv2.imencode(".jpg", color, quality)[1].tobytes()
        scaled = False
        if depth is not None:
            unit = unit_for(frame.unit, depth)
            scaled = unit.kind == "scaled"
            blocks["depth"] = _steps(depth, unit, size)
        return message.pack(
            {
                "name": given.name,
                "width": size[0],
                "height": size[1],
                "scaled": scaled,
                "seconds": {"read": given.seconds, "label": seconds},
                "notes": notes,
                **given.facts,
            },
            blocks,
        )

    def _prepared(self, given: Given) -> Given:
        """A frame whose depth is in the colour camera's picture, and has 0 for all holes.

        Raises DataError if colour and depth do not belong together, or if the doctor, told to be
        strict, finds something.
        """
        if given.depth is None or not self.predictor.takes_depth:
            return given
        unit = unit_for(given.unit, given.depth)
        form = replace(given.form or self._form, unit=unit)
        notes = list(given.notes)
        if form.no_reading is None:
            found: dict[float, holes.Found] = {}
            holes.take(found, given.depth, unit)
            notes += map(holes.told, found.values())
            form = replace(form, no_reading=tuple(found))
        color = given.color
        if color is None:
            color = np.zeros((*given.depth.shape, 3), np.uint8)
        frame = form.prepared(Frame(color, given.depth))
        form.check(frame)
        if form.doctor:
            problems = doctor.examine(frame.color, frame.depth, unit)
            if problems and form.strict:
                raise DataError("; ".join(map(str, problems)))
            notes += map(str, problems)
        return replace(given, depth=frame.depth, unit=unit, notes=tuple(map(_for_page, notes)))


def _for_page(note: str) -> str:
    """A note in which the unit is not an option, but one of the page's list."""
    return note.replace("no --depth-unit", "no unit").replace("--depth-unit", "the unit")


def read(facts: dict[str, Any], blocks: dict[str, bytes], parts: Sequence[str]) -> Given:
    """The frame of dropped files.

    facts: the names of 'color' and 'depth', and 'unit'. blocks: the files' bytes. parts: those of
    the two that are looked at. Raises DataError if one of them cannot be read.
    """
    start = time.perf_counter()
    names = {part: str(facts.get(part) or part)[-80:] for part in parts if part in blocks}
    found: dict[str, np.ndarray] = {}
    for part, name in names.items():
        if part == "color":
            found[part] = images.decode_color(blocks[part], f"colour {shown(name)}")
        else:
            suffix = Path(name).suffix.lower()
            found[part] = images.decode_depth(blocks[part], suffix, f"depth {shown(name)}")
    notes: tuple[str, ...] = ()
    if len(found) == 2:
        frame = Frame(**found, files={"color": f"colour {shown(names['color'])}"})
        frame = turning.turned(frame, orientation(blocks["color"]))
        found["depth"], notes = frame.depth, tuple(note.text for note in frame.notes)
    unit = facts.get("unit")
    return Given(
        " and ".join(names.values()),
        **found,
        unit=str(unit) if unit else None,
        seconds=time.perf_counter() - start,
        notes=notes,
    )


def _option(unit: DepthUnit | None) -> str:
    """A unit as the page's list has it."""
    option = unit.option if unit else ""
    return {"1000": "mm", "1": "m"}.get(option, option)


def _figures(found: Any) -> list[dict[str, Any]]:
    """What the page says of a packed model's evaluations."""
    rows = found if isinstance(found, list) else []
    kept = ("frames", "mean_iou", "global_accuracy")
    return [
        {key: row[key] for key in kept if _is_number(row.get(key))}
        for row in rows
        if isinstance(row, dict)
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _shrunk(given: Given) -> Given:
    """A frame of no more pixels than it may have."""
    shape = next((a.shape for a in (given.color, given.depth) if a is not None), None)
    if shape is None:
        raise DataError("neither colour nor depth is given")
    height, width = shape[:2]
    if height * width <= given.most:
        return given
    part = (given.most / (height * width)) ** 0.5
    size = max(1, int(width * part)), max(1, int(height * part))
    color = None if given.color is None else drawings.smooth(given.color, size)
    depth = None if given.depth is None else nearest(given.depth, size)
    note = f"the frame of {width}x{height} is shown and labelled at {size[0]}x{size[1]}"
    return replace(given, color=color, depth=depth, notes=(*given.notes, note))


def _bytes(confidence: np.ndarray) -> bytes:
    return np.rint(255 * confidence).astype(np.uint8).tobytes()


def _steps(depth: np.ndarray, unit: DepthUnit, size: tuple[int, int]) -> bytes:
    """Depth as the page takes it: 16 bits, millimetres; or 0..255 if it has no unit."""
    metres = unit.metres(at_size(nearest, depth, size))
    steps = metres * (1 if unit.kind == "scaled" else STEPS)
    return np.clip(np.rint(steps), 0, 2**16 - 1).astype("<u2").tobytes()

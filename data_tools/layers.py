"""RGBDImages, a Python layer that reads frames from image files: training without an LMDB.

In a prototxt (for this engine, or for a BVLC Caffe with Python layers):

    layer {
      name: "data" type: "Python" top: "rgb" top: "depth" top: "label"
      python_param {
        module: "data_tools.layers" layer: "RGBDImages"
        param_str: '{"source": "train.txt", "batch_size": 4, "size": [320, 240], "shuffle": true}'
      }
    }

A fourth top gets the scenes. Each line of the list names a frame's files and optionally its scene:
COLOUR DEPTH [LABEL [SCENE]], separated by tabs or ';', or by blanks if no path contains one.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

import caffe
from boundary import limits
from boundary.reading import read_lines
from data_tools import classes, framing, images
from data_tools.calibration import DIRECTIONS
from data_tools.cli import DataError, describe
from data_tools.depth import DepthRange, DepthUnit
from data_tools.fit import FITS
from data_tools.record import Frame, RecordFormat

MAX_COUNT = 2**31 - 1  # values of a blob; Caffe counts in ints
THREADS = 2
BATCHES_AHEAD = 3


@dataclass(frozen=True)
class Settings:
    """The keys of param_str. source: the list's file. root: the folder that its paths are relative
    to. size: [width, height]; None for the images' own size, which must be the same for all.
    shuffle: draw a new order each epoch. no_reading: values of the stored depth that are holes;
    None: one that is far behind all readings is found and said, as by data_tools.folder. fit,
    depth_unit, depth_range, float_depth, classes, intrinsics, depth_intrinsics, extrinsics,
    extrinsics_direction: as the options of data_tools.folder."""

    source: str
    batch_size: int = 1
    size: Sequence[int] | None = None
    root: str = ""
    shuffle: bool = False
    seed: int = 0
    depth_unit: str = "mm"
    depth_range: str | None = None
    no_reading: Sequence[float] | None = None
    float_depth: bool = False
    classes: str | int | None = None
    fit: str = "crop"
    intrinsics: str | None = None
    depth_intrinsics: str | None = None
    extrinsics: str | None = None
    extrinsics_direction: str | None = None

    @classmethod
    def parse(cls, text: str) -> Settings:
        """Parses param_str, a JSON object. Raises DataError for anything else."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(f"RGBDImages: param_str is not JSON: {error}") from error
        if not isinstance(values, dict) or "source" not in values:
            raise DataError('RGBDImages: param_str must be a JSON object with "source"')
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise DataError(
                    f"RGBDImages: param_str has an unknown key '{key}', expected some "
                    f"of {', '.join(known)}"
                )
        for key, value in values.items():
            good, expected = _KINDS[key]
            if not good(value):
                raise DataError(f"RGBDImages: {key} is {value!r}, expected {expected}")
        settings = cls(**values)
        if settings.size:
            settings.check_size(*settings.size)
        return settings

    def check_size(self, width: int, height: int) -> None:
        """Raises DataError if a batch of such frames has more values than a blob may have."""
        limits.check_pixels(width, height, "RGBDImages: size", DataError)
        values = self.batch_size * 3 * height * width
        if values > MAX_COUNT:
            raise DataError(
                f"RGBDImages: batch_size {self.batch_size} of 3 x {height} x {width} makes "
                f"{values} values, a blob has at most {MAX_COUNT}"
            )

    def format(self, table: classes.ClassTable | None) -> RecordFormat:
        """The format of the batches. Raises DataError for invalid options."""
        try:
            unit = DepthUnit.parse(self.depth_unit)
            default = "none" if unit.kind == "scaled" else "authors"
            depth_range = (
                DepthRange.parse(self.depth_range) if self.depth_range else DepthRange(default)
            )
        except argparse.ArgumentTypeError as error:
            raise DataError(f"RGBDImages: {error}") from error
        size = (self.size[0], self.size[1]) if self.size else None
        highest = table.highest if table else 255
        return RecordFormat(
            size,
            unit,
            depth_range,
            self.float_depth,
            highest,
            fit=self.fit,
            no_reading=None if self.no_reading is None else tuple(self.no_reading),
            rig=framing.rig(argparse.Namespace(**{**vars(self), "depth_unit": unit})),
        )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_no_or_text(value: Any) -> bool:
    return value is None or _is_text(value)


# For each key, whether a value fits, and what is expected.
_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "source": (_is_text, "a path"),
    "batch_size": (lambda v: _is_count(v) and v > 0, "a whole number from 1 up"),
    "size": (
        lambda v: (
            v is None
            or (isinstance(v, list) and len(v) == 2 and all(_is_count(n) and n > 0 for n in v))
        ),
        "[width, height]",
    ),
    "root": (_is_text, "a path"),
    "shuffle": (lambda v: isinstance(v, bool), "true or false"),
    "seed": (lambda v: _is_count(v) and 0 <= v < 2**63, "a whole number from 0 up"),
    "depth_unit": (_is_text, "a text"),
    "no_reading": (
        lambda v: v is None or (isinstance(v, list) and all(isinstance(n, int | float) for n in v)),
        "a list of numbers",
    ),
    "depth_range": (_is_no_or_text, "a text"),
    "float_depth": (lambda v: isinstance(v, bool), "true or false"),
    "classes": (lambda v: v is None or _is_text(v) or _is_count(v), "a number or a path"),
    "fit": (lambda v: v in FITS, f"one of {', '.join(FITS)}"),
    **dict.fromkeys(
        ("intrinsics", "depth_intrinsics", "extrinsics"),
        (_is_no_or_text, "a path or a camera's name"),
    ),
    "extrinsics_direction": (
        lambda v: v is None or v in DIRECTIONS,
        f"one of {', '.join(DIRECTIONS)}",
    ),
}


def read_list(path: Path, root: str) -> list[tuple[list[Path], int]]:
    """(files, scene) of each line. Raises DataError, naming the line, if it is not a frame."""
    frames = []
    for number, line in enumerate(read_lines(path, DataError, paths=True), 1):
        if not line.strip():
            continue
        separator = next((mark for mark in "\t;" if mark in line), None)
        parts = [part.strip() for part in line.strip().split(separator)]
        scene = parts.pop() if len(parts) == 4 else "0"
        if len(parts) not in (2, 3) or not re.fullmatch("[0-9]{1,9}", scene) or "\0" in line:
            raise DataError(f"{path}:{number}: expected COLOUR DEPTH [LABEL [SCENE]]")
        frames.append(([Path(root) / part for part in parts], int(scene)))
    if not frames:
        raise DataError(f"{path}: names no frame")
    return frames


class FrameList:
    """The frames of a list as planes, in the order in which training reads them.

    rank, count: the rank and number of processes that train together; each takes every count-th
    frame of the order. first: the number of frames that all of them have taken before.
    """

    def __init__(self, settings: Settings, rank: int = 0, count: int = 1, first: int = 0):
        self._settings = settings
        self._table = classes.parse(str(settings.classes)) if settings.classes else None
        self._frames = read_list(Path(settings.source), settings.root)
        self._format = framing.settled(
            settings.format(self._table), self._frame, len(self._frames), settings.source
        )
        self._order = itertools.islice(self._indices(first), rank, None, count)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="RGBDImages")
        self._waiting: deque[Future] = deque()

    def __len__(self) -> int:
        return len(self._frames)

    def _indices(self, first: int) -> Iterator[int]:
        """Yields every frame once an epoch, without end, starting with number `first`."""
        begun, place = divmod(first, len(self._frames))
        for epoch in itertools.count(begun):
            order = np.arange(len(self._frames))
            if self._settings.shuffle:
                np.random.default_rng((self._settings.seed, epoch)).shuffle(order)
            yield from order[place:].tolist()
            place = 0

    def first(self) -> tuple[np.ndarray, int]:
        """The list's first frame: planes (5 x H x W) and scene."""
        return self._load(0)

    def batch(self) -> list[tuple[np.ndarray, int]]:
        """The next batch: planes and scene of each frame. The following batches load meanwhile."""
        size = self._settings.batch_size
        while len(self._waiting) < BATCHES_AHEAD * size:
            self._waiting.append(self._pool.submit(self._load, next(self._order)))
        return [self._waiting.popleft().result() for _ in range(size)]

    def _load(self, index: int) -> tuple[np.ndarray, int]:
        return self._format.planes(self._frame(index)), self._frames[index][1]

    def _frame(self, index: int) -> Frame:
        paths, _ = self._frames[index]
        files = dict(zip(("color", "depth", "label"), paths, strict=False))
        try:
            label = images.read_label(files["label"], self._table) if "label" in files else None
            return images.read_frame(files, lambda size: label)
        except (DataError, OSError) as error:
            raise DataError(f"{self._settings.source}: {describe(error)}") from error

    def close(self) -> None:
        """Stops reading ahead."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class RGBDImages(caffe.Layer):
    """Tops: rgb N x 3 x H x W (BGR 0..255), depth N x 1 x H x W (0..255), label N x 1 x H x W, and
    optionally scene N. The values are those that an LMDB of the same frames would give."""

    def setup(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        """Reads the list and the first frame, and starts reading ahead."""
        if len(bottom) or len(top) not in (3, 4):
            raise DataError(
                "RGBDImages: expected no bottoms and the tops rgb, depth, label and maybe scene"
            )
        self._settings = Settings.parse(self.param_str)
        self._next = 0  # number of frames that all processes have taken
        self._frames = self._read_on()
        planes, _ = self._frames.first()
        self._settings.check_size(planes.shape[2], planes.shape[1])
        self._shape = (self._settings.batch_size, *planes.shape[1:])

    def _read_on(self) -> FrameList:
        return FrameList(self._settings, *self._readers(), self._next)

    def _readers(self) -> tuple[int, int]:
        """Rank and number of the processes that share the frames. Only one process tests, and
        pycaffes older than 1.0 train in one process."""
        if getattr(self, "phase", None) == caffe.TEST or not hasattr(caffe, "solver_rank"):
            return 0, 1
        return caffe.solver_rank(), caffe.solver_count()

    def __len__(self) -> int:
        """The number of frames."""
        return len(self._frames)

    def get_state(self) -> dict[str, int]:
        """The layer's position in its order, for snapshots."""
        return {"next": self._next, "frames": len(self._frames), "seed": self._settings.seed}

    def set_state(self, state: dict[str, int]) -> None:
        """Continues at this position. Raises DataError if the list has changed."""
        now = {**self.get_state(), "next": state["next"]}
        if state != now:
            raise DataError(
                f"RGBDImages: the snapshot is of {state['frames']} frames in the order of seed "
                f"{state['seed']}; there are {now['frames']}, the seed is {now['seed']}"
            )
        self._frames.close()
        self._next = state["next"]
        self._frames = self._read_on()

    def reshape(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        """Sets the tops' shapes, which never change."""
        n, height, width = self._shape
        # By index: BVLC's vectors of blobs cannot be iterated.
        for i, channels in enumerate((3, 1, 1)):
            top[i].reshape(n, channels, height, width)
        if len(top) == 4:
            top[3].reshape(n)

    def forward(self, bottom: Sequence[Any], top: Sequence[Any]) -> None:
        """Fills the tops with the next batch."""
        batch = self._frames.batch()
        self._next += len(batch) * self._readers()[1]
        for n, (planes, scene) in enumerate(batch):
            if planes.shape[1:] != self._shape[1:]:
                raise DataError(
                    f"RGBDImages: a frame is {planes.shape[2]}x{planes.shape[1]} and the first "
                    f'{self._shape[2]}x{self._shape[1]}: give "size" in param_str'
                )
            top[0].data[n], top[1].data[n, 0], top[2].data[n, 0] = planes[:3], planes[3], planes[4]
            if len(top) == 4:
                top[3].data[n] = scene

    def backward(
        self, top: Sequence[Any], propagate_down: Sequence[bool], bottom: Sequence[Any]
    ) -> None:
        """Does nothing: data has no gradient."""

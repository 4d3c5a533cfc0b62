"""What every tool's annotations are: pictures with shapes, and the names of classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from boundary import limits
from boundary.errors import shown
from boundary.reading import reading
from data_tools.annotations.shapes import Patch, Size
from data_tools.classes import Color
from data_tools.cli import DataError

# A picture's pixels times its shapes, each of which is drawn in the whole picture: seconds of work.
MAX_PAINTED = 2**34
# Bytes of a tool's JSON by default. Memory takes many times that.
MAX_JSON = 2**27

# The label of a class's name; it raises UnknownLabel, or returns record.UNKNOWN, for a name that no
# class has.
Numbers = Callable[[str], int]


class Shape(Protocol):
    """A shape as the tool stores it: what is wrong with it is found when it is drawn."""

    label: str

    def mask(self, size: Size) -> Patch:
        """Its pixels in a picture of `size`. Raises DataError, and what its data makes fail."""


class Annotated(Protocol):
    """A picture that was annotated. `str` of it names it in messages.

    names: the picture's file, as the tool says it, and other names that it may have. empty: nothing
    is drawn on it.
    """

    names: Sequence[str]
    empty: bool

    def draw(self, number: Numbers, size: Size) -> np.ndarray:
        """Its labels: H x W integers at the size that the tool tells, else at `size`.

        Raises DataError, naming the picture, if a shape cannot be drawn, and what `number` raises.
        """


@dataclass(frozen=True)
class Drawn:
    """A picture with shapes; later ones lie on top. where: names it. size: None if not told."""

    where: str
    names: Sequence[str]
    size: Size | None
    shapes: Sequence[Shape]

    def __str__(self) -> str:
        return self.where

    @property
    def empty(self) -> bool:
        """Whether it has no shapes."""
        return not self.shapes

    def draw(self, number: Numbers, size: Size) -> np.ndarray:
        """As Annotated.draw."""
        size = self.size or size
        limits.check_pixels(*size, self.where, DataError)
        label = np.zeros((size[1], size[0]), np.int16)
        if len(self.shapes) * label.size > MAX_PAINTED:
            raise DataError(f"{self.where}: {len(self.shapes)} shapes on so large a picture")
        for place, shape in enumerate(self.shapes, 1):
            value = number(shape.label)
            where = f"{self.where}: shape {place} ({shown(shape.label)[:60]})"
            with reading(where, "a shape that can be drawn", DataError), np.errstate(all="ignore"):
                try:
                    left, top, mask = shape.mask(size)
                except DataError as error:
                    raise DataError(f"{where}: {error}") from error
            label[top : top + mask.shape[0], left : left + mask.shape[1]][mask] = value
        return label


@dataclass
class Annotations:
    """All that a tool's files hold.

    kind: the name of the files' form. path: where it was read. pictures: those annotated. names:
    the classes' names, in the tool's order. colors: of some of them. nothing: names that stand for
    no class (label 0) unless a table of classes has them. left_out: how many things of each kind
    were left out, because they cover no pixels. notes: what else is to be said.
    """

    kind: str
    path: str
    pictures: Sequence[Annotated]
    names: Sequence[str]
    colors: dict[str, Color] = field(default_factory=dict)
    nothing: Sequence[str] = ()
    left_out: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def whole_number(value: Any, what: str) -> int:
    """An integer that JSON or XML holds, as itself or in words. Raises DataError for others.

    Some programs write all numbers with a fraction, 640.0.
    """
    try:
        found = int(str(value).strip().removesuffix(".0")[:40])
    except ValueError:
        found = None
    if found is None or isinstance(value, bool):
        raise DataError(f"{what} is {str(value)[:40]!r}, expected a whole number")
    return found


def number(value: Any, what: str) -> float:
    """A finite number that JSON or XML holds, itself or in words. Raises DataError for others."""
    try:
        found = float(str(value).strip()[:60])
    except ValueError:
        found = np.nan
    if isinstance(value, bool) or not abs(found) < 2**31:
        raise DataError(f"{what} is {str(value)[:40]!r}, expected a number")
    return found


def told_size(width: Any, height: Any, where: str) -> Size:
    """The size that a file tells of a picture. Raises DataError, naming `where`, for none."""
    found = whole_number(width, f"{where}: width"), whole_number(height, f"{where}: height")
    limits.check_pixels(*found, where, DataError)
    return found


def json_limit() -> int:
    """The bytes of JSON that are read; FUSENET_MAX_BYTES sets another number."""
    return max(MAX_JSON, limits.max_bytes() // 4)

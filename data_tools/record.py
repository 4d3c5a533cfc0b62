"""Records: encodes a frame as a five-channel Datum, with size and depth range, and decodes it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from boundary.late import cv2
from boundary.reading import reading
from caffe.proto import caffe_pb2
from data_tools import calibration
from data_tools.align import align
from data_tools.camera import Rig
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.doctor import edges, holes
from data_tools.doctor import frame as doctor
from data_tools.fit import ASPECT_TOLERANCE, Placement, describe, placement
from data_tools.notes import Finding, Note

REFIT = "--intrinsics and its kin are those of other cameras, or of another mode"
UNKNOWN = -1  # a label that no class has, in a frame whose source ignores such labels
CHANNELS = ("blue", "green", "red", "depth", "label")


class UnknownLabel(DataError):
    """A label or a label's colour that no class has."""


@dataclass
class Frame:
    """One RGB-D frame as its files store it, each part at its own size.

    color: H x W x 3 uint8, BGR. depth: H x W in `unit` of the format, 0 = no reading.
    label: H x W, 0 = ignored; None if the frame has no ground truth. scene: the Datum's label.
    files: the files of 'color', 'depth' and 'label', if any, for error messages. notes, facts: what
    reading them found, to be said and to be recorded in dataset.json.
    """

    color: np.ndarray
    depth: np.ndarray
    label: np.ndarray | None = None
    scene: int = 0
    files: dict[str, str] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoded:
    """A frame as a serialised Datum; how many unknown labels became 0; what is to be said; and the
    frame's facts."""

    datum: bytes
    unknown: int = 0
    notes: tuple[Note, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordFormat:
    """The format of records. size: (width, height); None keeps the colour image's.

    classes: the highest allowed label. ignore_unknown: whether other labels become 0. fit: what is
    done to frames of another aspect ratio (data_tools.fit). rig: the cameras, if depth has to be
    projected into the colour camera (data_tools.align). no_reading: values of the stored depth that
    are holes; None: framing.settled finds them. doctor: whether depth is examined
    (data_tools.doctor); strict: whether what it finds makes a frame unusable.
    """

    size: tuple[int, int] | None = None
    unit: DepthUnit = field(default_factory=lambda: DepthUnit("steps", 1.0))
    range: DepthRange = field(default_factory=lambda: DepthRange("authors"))
    float_depth: bool = False
    classes: int = 255
    ignore_unknown: bool = False
    fit: str = "stretch"
    rig: Rig | None = None
    no_reading: tuple[float, ...] | None = ()
    doctor: bool = False
    strict: bool = False

    def describe(self) -> dict[str, Any]:
        """The options for dataset.json."""
        return {
            "size": list(self.size) if self.size else None,
            **({"fit": self.fit} if self.size else {}),
            "depth_unit": str(self.unit),
            "depth_range": str(self.range),
            "float_depth": self.float_depth,
            **({"unknown": "ignore"} if self.ignore_unknown else {}),
            **({"rig": self.rig.describe()} if self.rig else {}),
            **({"no_reading": list(self.no_reading)} if self.no_reading else {}),
            **({"strict": True} if self.strict else {}),
        }

    def encode(self, frame: Frame) -> bytes:
        """frame -> a serialised Datum of its planes, labelled with its scene. Raises as planes."""
        return self.encode_noted(frame).datum

    def encode_noted(self, frame: Frame) -> Encoded:
        """As encode, with what is to be said of the frame."""
        frame, unknown = self._known(frame)
        planes, notes = self.noted_planes(frame)
        return Encoded(to_datum(planes, frame.scene), unknown, notes, frame.facts)

    def noted_planes(self, frame: Frame) -> tuple[np.ndarray, tuple[Note, ...]]:
        """The frame's planes, as `planes` gives them, and what is to be said of it.

        Raises DataError also for what the doctor finds, if it is strict.
        """
        frame = self.prepared(frame)
        return self._planes(frame), frame.notes + self._notes(frame) + self._findings(frame)

    def _notes(self, frame: Frame) -> tuple[Note, ...]:
        size = frame.color.shape[1::-1]
        told = describe(self.fit, size, self.size or size)
        return (Note("fit", f"{told} (--fit {self.fit})"),) if told else ()

    def _findings(self, frame: Frame) -> tuple[Note, ...]:
        if not self.doctor:
            return ()
        found = self.remedied(doctor.examine(frame.color, frame.depth, self.unit))
        if found and self.strict:
            raise DataError("; ".join(map(str, found)))
        return tuple(one.note for one in found)

    def remedied(self, found: Iterable[Finding]) -> list[Finding]:
        """Findings with the remedy that is left where depth is projected already."""
        if not self.rig:
            return list(found)
        return [replace(one, remedy=REFIT) if one.remedy == edges.PROJECT else one for one in found]

    def placement(self, frame: Frame) -> Placement:
        """Where the frame is in its record."""
        size = frame.color.shape[1::-1]
        return placement(self.fit, size, self.size or size)

    def _known(self, frame: Frame) -> tuple[Frame, int]:
        label = frame.label
        if not self.ignore_unknown or label is None or label.dtype.kind not in "ui":
            return frame, 0
        unknown = (label < 0) | (label > self.classes)
        count = int(np.count_nonzero(unknown))
        return (replace(frame, label=np.where(unknown, 0, label)) if count else frame), count

    def prepared(self, frame: Frame) -> Frame:
        """The frame with holes where its depth stands for "no reading", and aligned."""
        if self.no_reading and frame.depth.dtype.kind in "uif":
            frame = replace(frame, depth=holes.without(frame.depth, self.no_reading))
        return self.aligned(frame)

    def aligned(self, frame: Frame) -> Frame:
        """The frame with its depth in the colour camera's picture and size, in the same unit.

        It is the frame itself if there is no rig, or if it is aligned already. Raises DataError for
        unusable colour or depth, for sizes that the rig's intrinsics do not fit, and if no reading
        is left.
        """
        if self.rig is None:
            return frame
        size = frame.color.shape[1::-1]
        with _naming(frame, "color"):
            check_color(frame.color)
        with _naming(frame, "depth"):
            self.unit.check(frame.depth)
            if self.rig.is_one(frame.depth.shape[1::-1], size):
                return frame
            if self.unit.kind != "steps":
                raise DataError(f"depth of the unit {self.unit} cannot be projected")
            measured = self.unit.metres(frame.depth)
            metres = align(measured, self.rig, size)
            if measured.any() and not metres.any():
                raise DataError("none of its readings is in the colour picture: is the rig right?")
        height, width = frame.depth.shape
        told = Note(
            "align",
            f"depth {width}x{height} is projected into colour {size[0]}x{size[1]}: readings on "
            f"{np.count_nonzero(metres) / metres.size:.0%} of it (--intrinsics)",
        )
        depth = metres * np.float32(self.unit.steps)
        return replace(frame, depth=depth, notes=(*frame.notes, told))

    def planes(self, frame: Frame) -> np.ndarray:
        """frame -> 5 x H x W, uint8 or float32: blue, green, red, depth 0..255, label.

        Depth is aligned, if there is a rig. Colour is resized bilinearly, depth and label by
        nearest neighbour, as `fit` says; then depth is mapped to 0..255. Raises DataError for parts
        that are unusable or do not match.
        """
        return self._planes(self.prepared(frame))

    def _planes(self, frame: Frame) -> np.ndarray:
        self.check(frame)
        size = self.size or frame.color.shape[1::-1]
        placed = self.placement(frame)
        metres = self.unit.metres(placed.onto(nearest, frame.depth, size))
        if self.unit.kind != "scaled" and not metres.any():
            raise DataError("depth has no reading at all")
        depth = self.range.apply(metres)
        planes = np.zeros((5, size[1], size[0]), np.float32 if self.float_depth else np.uint8)
        planes[:3] = placed.onto(bilinear, frame.color, size).transpose(2, 0, 1)
        planes[3] = depth if self.float_depth else self.range.quantise(depth)
        if frame.label is not None:
            planes[4] = placed.onto(nearest, frame.label.astype(np.uint8), size)
        return planes

    def check(self, frame: Frame) -> None:
        """Raises DataError for an unusable part, naming its file if there is one."""
        checks = {
            "color": lambda: check_color(frame.color),
            "depth": lambda: (self.unit.check(frame.depth), check_aspect("depth", frame)),
            "label": lambda: (check_label(frame.label, self.classes), check_aspect("label", frame)),
        }
        for part, check in checks.items():
            if getattr(frame, part) is None:
                continue
            with _naming(frame, part):
                check()


@contextmanager
def _naming(frame: Frame, part: str) -> Iterator[None]:
    """Names the file of a part of the frame, if there is one, in a DataError within."""
    try:
        yield
    except DataError as error:
        file = frame.files.get(part)
        raise type(error)(f"{file}: {error}" if file else str(error)) from error


def bilinear(color: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """color (H x W x C uint8) at size (width, height)."""
    return cv2.resize(color, size, interpolation=cv2.INTER_LINEAR)


def nearest(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """plane (H x W of any number type) at size (width, height), without interpolation."""
    if plane.dtype not in (np.uint8, np.uint16, np.float32):
        plane = plane.astype(np.float64)  # the widest type that every OpenCV resizes
    return cv2.resize(plane, size, interpolation=cv2.INTER_NEAREST)


def whole(values: np.ndarray, what: str) -> np.ndarray:
    """values as uint8. Raises DataError, naming `what`, unless they are integers in 0..255."""
    small = values.astype(np.uint8)
    if (small != values).any():
        raise DataError(f"{what} has values that are not whole numbers of 0 to 255")
    return small


def integers(values: np.ndarray, what: str) -> np.ndarray:
    """values as integers. Raises DataError, naming `what`, unless they are whole."""
    if values.dtype.kind in "ui":
        return values
    with np.errstate(invalid="ignore"):
        found = values.astype(np.int32)
    if values.dtype.kind not in "fb" or (found != values).any():
        raise DataError(f"{what} has values that are not whole numbers")
    return found


def check_color(color: np.ndarray) -> None:
    """Raises DataError unless color is H x W x 3 uint8."""
    if color.dtype != np.uint8 or color.ndim != 3 or color.shape[2] != 3 or not color.size:
        raise DataError(
            f"colour is {color.dtype} of shape {color.shape}, expected uint8 of shape (H, W, 3)"
        )


def check_label(label: np.ndarray, classes: int) -> None:
    """Raises DataError unless label is H x W integers in 0..classes."""
    if label.ndim != 2 or label.dtype.kind not in "ui" or not label.size:
        raise DataError(
            f"label is {label.dtype} of shape {label.shape}, expected whole numbers of shape (H, W)"
        )
    low, high = int(label.min()), int(label.max())
    if low < 0 or high > classes:
        wrong = low if low < 0 else high
        raise UnknownLabel(f"label {wrong} is out of range, expected 0 (ignored) to {classes}")


def check_aspect(name: str, frame: Frame) -> None:
    """Raises DataError unless depth or label shows the colour picture's field of view."""
    height, width = frame.color.shape[:2]
    rows, columns = getattr(frame, name).shape
    if abs(columns * height / (rows * width) - 1) > ASPECT_TOLERANCE:
        turned = abs(rows * height / (columns * width) - 1) <= ASPECT_TOLERANCE
        remedy = "; it seems to be turned by 90 degrees" if turned else ""
        if name == "depth" and not turned:
            remedy = "; if another camera saw it, --intrinsics projects it into colour's"
            if known := calibration.with_sizes((width, height), (columns, rows)):
                remedy += f" ({' or '.join(known)} has these sizes)"
        raise DataError(
            f"{name} is {columns}x{rows} and colour {width}x{height}: expected one aspect ratio "
            f"(within 1 %){remedy}"
        )


def to_datum(planes: np.ndarray, scene: int = 0) -> bytes:
    """planes (C x H x W; uint8, or float32 for float_data) -> a serialised Datum.

    Raises DataError for a scene that a Datum cannot hold.
    """
    channels, height, width = planes.shape
    if not -(2**31) <= scene < 2**31:
        raise DataError(f"scene {scene}: expected a number of 32 bits")
    datum = caffe_pb2.Datum(channels=channels, height=height, width=width, label=scene)
    if planes.dtype == np.uint8:
        datum.data = planes.tobytes()
        return datum.SerializeToString()
    # float_data is the highest field in use and unpacked: a tag byte precedes each float. It is
    # encoded here, because protobuf would take the floats one by one.
    floats = np.empty((planes.size, 5), np.uint8)
    floats[:, 0] = (caffe_pb2.Datum.FLOAT_DATA_FIELD_NUMBER << 3) | 5
    floats[:, 1:] = planes.astype("<f4").reshape(-1, 1).view(np.uint8)
    return datum.SerializeToString() + floats.tobytes()


def from_datum(record: bytes, where: str = "record") -> tuple[np.ndarray, int]:
    """A serialised Datum -> planes (C x H x W, uint8 or float32) and its label.

    Raises DataError, naming `where`, if it is not a Datum or does not fill its shape.
    """
    datum = caffe_pb2.Datum()
    with reading(where, "a Datum", DataError):
        datum.ParseFromString(record)
    if datum.encoded:
        raise DataError(f"{where}: holds an encoded picture, expected plain channels")
    shape = (datum.channels, datum.height, datum.width)
    if datum.data:
        planes = np.frombuffer(datum.data, np.uint8)
    else:
        planes = np.fromiter(datum.float_data, np.float32, len(datum.float_data))
    if planes.size != math.prod(shape) or min(shape) < 0:
        raise DataError(
            f"{where}: {planes.size} values do not fill {shape[0]} channels of "
            f"{shape[2]}x{shape[1]}"
        )
    if not planes.size:
        raise DataError(
            f"{where}: {shape[0]} channels of {shape[2]}x{shape[1]} pixels hold no values"
        )
    return planes.reshape(shape), datum.label

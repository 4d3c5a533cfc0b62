"""Predictor: labels frames from Python. Users import it from the package fusenet."""

from __future__ import annotations

import argparse
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np

from boundary import packed
from boundary.errors import shown
from boundary.pictures import orientation
from caffe.errors import CaffeError
from caffe.process import device, log
from data_tools import framing, images, turning
from data_tools.camera import Rig
from data_tools.cli import DataError
from data_tools.depth import DepthUnit
from data_tools.record import Frame, RecordFormat
from eval_tools import drawings
from eval_tools.frames import (
    dataset_info,
    grey,
    record,
    record_format,
    trained_on,
    unit_of,
    with_classes,
)
from eval_tools.inference import Options, Segmented, at_size, batches, segment
from eval_tools.labels import label_set
from eval_tools.network import load
from eval_tools.records import Record

if TYPE_CHECKING:
    import torch

Array = Any  # numpy.ndarray or torch.Tensor
Frames = Any  # an array, or a sequence of arrays
# Frames: answers have the form of what was asked.
F = TypeVar("F", np.ndarray, "torch.Tensor", list, tuple)
Unit = str | float | DepthUnit

# The engine's mode, CPU or a GPU, is the whole process's.
_LOCK = threading.RLock()


class Predictor:
    """A trained net that labels RGB-D frames of any size, as eval_tools.predict does.

        predictor = Predictor("model.fusenet")
        labels = predictor(bgr, depth, unit="mm")        # H x W: at the frame's own size
        print(predictor.names[labels[240, 320]])         # what is in the middle
        chances = predictor.probabilities(bgr, depth)    # labels x H x W
        cv2.imwrite("labels.png", predictor.overlay(bgr, labels))

    Calls take frames in these forms, and answer in the same:

    - one frame: bgr (H, W, 3), uint8, blue first, and depth (H, W), 0 where there is no reading;
    - a batch: (N, H, W, 3) and (N, H, W);
    - lists or tuples of frames, whose sizes may differ.

    They are NumPy arrays or PyTorch tensors; tensors are answered by tensors on the same device.
    depth is None for a net that looks at colour alone, bgr for one that looks at depth alone.

    unit is that of the stored depth: "mm", "m", a number of steps per metre, "sunrgbd" (that
    dataset's rotated bits), "scaled" (already 0..255, as in training) or a DepthUnit. By default
    integers are millimetres and floats are metres.

    Frames of another aspect ratio than the net's input are cropped, letter-boxed or squeezed, as
    the net was trained; what a crop leaves out gets label 0. Several threads may share a predictor:
    they take turns. Nothing is printed.

    Args:
        model: a packed model (eval_tools.pack), or a deploy prototxt.
        weights: the .caffemodel or .caffemodel.h5 of a prototxt.
        dataset: an LMDB or dataset.json of the training data, for the depth rule, names and
            colours; by default the packed model, or a comment in the prototxt, says them.
        gpu: the number of a GPU; None: the CPU.
        engine: what computes on the CPU, as caffe.set_engine names it: "auto", "torch", "openvino"
            or "onnxruntime"; None: what caffe.set_engine was told, by default "torch".
        batch_size: how many frames of one size run at once.
        no_reading: values of stored depth that mean "no reading", as 0 does. None: one that is far
            behind all others in the frames of a call is found, as by eval_tools.predict; say them,
            or (), for a camera's stream, whose frames are then all treated alike.
        trust: whether the net's layers may run Python code and write files.
        rig: the cameras, if depth is not in the colour camera's picture: a data_tools.camera.Rig,
            which data_tools.calibration.rig reads from files or knows by a camera's name.
    Raises:
        ValueError: (data_tools.cli.DataError) for a file or a frame that cannot be used; the
            message is one line.

    Attributes:
        names: the name of each label; label 0 is the ignored one.
        colors: uint8 (labels, 3), RGB.
        size: (width, height) of the net's input.
        depth_range: the mapping of depth to 0..255, as --depth-range names it; None for a net that
            does not look at depth. depth_range_assumed: whether nothing says it.
        fit: "crop", "pad" or "stretch".
        takes_color, takes_depth: what the net looks at.
    """

    def __init__(
        self,
        model: str | Path,
        weights: str | Path | None = None,
        *,
        dataset: str | Path | None = None,
        gpu: int | None = None,
        engine: str | None = None,
        batch_size: int = 1,
        no_reading: float | Sequence[float] | None = None,
        trust: bool = False,
        rig: Rig | None = None,
    ) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size is {batch_size}, expected at least 1")
        self.model, self.gpu, self.batch_size, self.rig = Path(model), gpu, batch_size, rig
        self.engine = engine
        self.no_reading = None if no_reading is None else _values(no_reading)
        with _engine(gpu, engine):
            self._network = load(model, weights, gpu, trusted=trust, warn=_warn)
        info = dataset_info(dataset) if dataset else {}
        values = self._network.values
        labels = label_set(values, with_classes(info, model, values))
        self.names: tuple[str, ...] = labels.names
        self.colors: np.ndarray = labels.colors
        self.size: tuple[int, int] = self._network.size[::-1]
        self._trained = trained_on(model, dataset)
        rule = self._trained and self._trained.rule()
        self.takes_color: bool = any(p.start == 0 for p in self._network.inputs.values())
        self.takes_depth: bool = self._network.takes_depth
        self.depth_range: str | None = str(rule or "authors")
        self.depth_range_assumed: bool = self.takes_depth and not rule
        if not self.takes_depth:
            self.depth_range = None
        self.fit: str = (self._trained and self._trained.fit) or "crop"

    def __repr__(self) -> str:
        looks = "+".join(
            name for name, yes in (("bgr", self.takes_color), ("depth", self.takes_depth)) if yes
        )
        rule = f", depth {self.depth_range}" if self.takes_depth else ""
        assumed = " (assumed)" if self.depth_range_assumed else ""
        place = "CPU" if self.gpu is None else f"GPU {self.gpu}"
        return (
            f"<Predictor {shown(self.model)}: {len(self.names)} labels, {looks} "
            f"{self.size[0]}x{self.size[1]}{rule}{assumed}, {self.fit}, {place}>"
        )

    @overload
    def __call__(self, bgr: None, depth: F, unit: Unit | None = None) -> F: ...

    @overload
    def __call__(self, bgr: F, depth: Frames | None = None, unit: Unit | None = None) -> F: ...

    def __call__(
        self, bgr: Frames | None, depth: Frames | None = None, unit: Unit | None = None
    ) -> Any:
        """The labels of a frame, uint8 (H, W); of a batch (N, H, W); of a list, a list."""
        given, found = self._found(bgr, depth, unit)
        return given.answer([one.label for one in found])

    @overload
    def probabilities(self, bgr: None, depth: F, unit: Unit | None = None) -> F: ...

    @overload
    def probabilities(self, bgr: F, depth: Frames | None = None, unit: Unit | None = None) -> F: ...

    def probabilities(
        self, bgr: Frames | None, depth: Frames | None = None, unit: Unit | None = None
    ) -> Any:
        """The probability of each label, float32 (labels, H, W); of a batch (N, labels, H, W); of a
        list, a list. They are 0 where a crop shows nothing.

            chances = predictor.probabilities(bgr, depth, unit="mm")
            labels = chances.argmax(0)                       # those of a call, up to rounding
            sure = chances.max(0) > 0.9
            floor = chances[predictor.names.index("floor")]  # H x W, 0 to 1
            print(floor[sure].mean())
        """
        given, found = self._found(bgr, depth, unit, every=True)
        return given.answer([one.probabilities for one in found], (len(self.names),), np.float32)

    def with_confidence(
        self, bgr: Frames | None, depth: Frames | None = None, unit: Unit | None = None
    ) -> tuple[Any, Any]:
        """Labels, as of a call, and the probability of each pixel's label, float32 of their shape.
        It takes one pass through the net, and a fraction of the memory of `probabilities`.

            labels, confidence = predictor.with_confidence(bgr, depth, unit="mm")
            labels[confidence < 0.5] = 0                     # keep what the net is sure of
            print(predictor.names[labels[240, 320]], confidence[240, 320])
        """
        given, found = self._found(bgr, depth, unit, confidence=True)
        return (
            given.answer([one.label for one in found]),
            given.answer([one.confidence for one in found], kind=np.float32),
        )

    def overlay(self, bgr: F, labels: Array) -> F:
        """A frame tinted by its labels, uint8 (H, W, 3) in BGR, at the labels' size.

        labels = predictor(bgr, depth)
        picture = predictor.overlay(bgr, labels)
        cv2.imwrite("overlay.png", picture)
        for label in np.unique(labels):                  # a legend
            print(predictor.names[label], predictor.colors[label])
        """
        color, label = _numpy(bgr), _numpy(labels)
        if color.dtype != np.uint8 or color.shape[2:] != (3,):
            raise DataError(f"colour is {_kind(color)}, expected uint8 of shape (H, W, 3)")
        if label.ndim != 2 or label.dtype.kind not in "ui" or not label.size:
            raise DataError(f"labels are {_kind(label)}, expected whole numbers of shape (H, W)")
        if label.min() < 0 or label.max() >= len(self.names):
            raise DataError(
                f"labels are {label.min()} to {label.max()}; the net has 0 to {len(self.names) - 1}"
            )
        ground = at_size(drawings.smooth, np.ascontiguousarray(color), label.shape[::-1])
        return _like(drawings.overlay(ground, label, self.colors), bgr)

    def example(self) -> tuple[np.ndarray | None, np.ndarray | None, str | None] | None:
        """The packed model's example frame, (bgr, depth, unit), for a call; None if it has none.

        example = predictor.example()
        if example:
            bgr, depth, unit = example
            labels = predictor(bgr, depth, unit)
            cv2.imshow("labels", predictor.overlay(bgr, labels))
        """
        if not packed.is_packed(self.model):
            return None
        model = packed.read(self.model, DataError)
        parts: dict[str, np.ndarray] = {}
        for part in {"color", "depth"} & set(model.parts):
            where = f"{shown(self.model)}: example: {part}"
            data = model.part(part)
            if part == "color":
                parts[part] = images.decode_color(data, where)
            else:
                parts[part] = images.decode_depth(data, Path(model.parts[part]).suffix, where)
        if not parts:
            return None
        if len(parts) == 2:
            frame = Frame(**parts, files={"color": f"{shown(self.model)}: example"})
            parts["depth"] = turning.turned(frame, orientation(model.part("color"))).depth
        facts = model.info.get("example")
        unit = facts.get("depth_unit") if isinstance(facts, dict) else None
        return parts.get("color"), parts.get("depth"), unit if isinstance(unit, str) else None

    def _found(
        self, bgr: Frames | None, depth: Frames | None, unit: Unit | None, **asked: bool
    ) -> tuple[_Given, list[Segmented]]:
        """What is given, and what is found in each frame. asked: as of inference.segment."""
        given = _Given.of(bgr, depth)
        for name, parts, needed in (
            ("bgr", given.color, self.takes_color),
            ("depth", given.depth, self.takes_depth),
        ):
            if needed and parts is None:
                raise DataError(f"{shown(self.model)} looks at {name}, which is None")
        frames = self._records(given, unit)
        return given, list(self._segmented(frames, asked))

    def _records(self, given: _Given, unit: Unit | None) -> Iterator[Record]:
        """The frames as inputs of the net."""
        depths = [None] * given.count if given.depth is None else list(map(_numpy, given.depth))
        if not depths:
            return
        form = self._form(depths, unit)
        for number, depth in enumerate(depths):
            color = None if given.color is None else _numpy(given.color[number])
            known = unit_for(unit, depth)
            if depth is not None:
                depth = _in_bits(depth, known)
            name = f"frame {number}: " if given.count > 1 else ""
            try:
                yield record(color, depth, "frame", replace(form, unit=known))
            except DataError as error:
                raise DataError(f"{name}{error}") from error

    def _form(self, depths: Sequence[np.ndarray | None], unit: Unit | None) -> RecordFormat:
        """How the frames of a call become inputs, as eval_tools.predict does with its files."""
        known = unit_for(unit, depths[0])
        form = record_format(self._network, known, self._trained, tell=_unsaid)
        form = replace(form, rig=self.rig)
        if depths[0] is None or not self.takes_depth:
            return form
        form = replace(form, no_reading=self.no_reading)

        def frame(index: int) -> Frame:
            return Frame(grey(depths[index]), depths[index])

        return framing.settled(form, frame, len(depths), "", _unsaid)

    def _segmented(self, frames: Iterator[Record], asked: dict) -> Iterator[Segmented]:
        """The frames' labels, from batches of one size; as eval_tools.predict --size original."""
        for batch in batches(frames, self.batch_size, lambda frame: frame.picture.shape):
            options = Options(batch[0].picture.shape[1::-1])
            with _engine(self.gpu, self.engine):
                found = segment(self._network, batch, options, **asked)
            yield from found


@contextmanager
def _engine(gpu: int | None, engine: str | None) -> Iterator[None]:
    """The engine for this thread alone: on that device, by that program, and without its log."""
    try:
        with _LOCK, log.quiet(), device.using(gpu), _computing_by(engine):
            yield
    except CaffeError as error:
        raise DataError(str(error)) from error


def _computing_by(engine: str | None) -> AbstractContextManager[None]:
    if engine is None:
        return nullcontext()
    from caffe import engines  # not above: it loads what writes ONNX

    return engines.using(engine)


def _unsaid(text: str) -> None:
    """What eval_tools.predict would say on stderr."""


def _warn(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=2)


# -- what users give -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Given:
    """The frames of a call. color, depth: one array each; None if that part was not given.

    form: 'one' frame, a 'batch' or a 'list'. first: what was given first, for the kind of answers.
    """

    color: Sequence[Array] | None
    depth: Sequence[Array] | None
    form: str
    first: Frames

    @classmethod
    def of(cls, bgr: Frames | None, depth: Frames | None) -> _Given:
        """Raises DataError if the two have other forms than frames, or not the same."""
        parts = [_parts(bgr, "bgr", 3), _parts(depth, "depth", 2)]
        forms = [part[0] for part in parts if part is not None]
        if not forms:
            raise DataError("neither bgr nor depth is given")
        counts = {len(part[1]) for part in parts if part is not None}
        if len(set(forms)) > 1 or len(counts) > 1:
            raise DataError(
                f"bgr is {_described(bgr)} and depth {_described(depth)}; expected (H, W, 3) and "
                "(H, W), (N, H, W, 3) and (N, H, W), or two lists of one length"
            )
        color, deep = (part and part[1] for part in parts)
        return cls(color, deep, forms[0], bgr if bgr is not None else depth)

    @property
    def count(self) -> int:
        """The number of frames."""
        return len(self.color if self.color is not None else self.depth or ())

    def answer(
        self, found: list[np.ndarray], leading: tuple[int, ...] = (), kind: type = np.uint8
    ) -> Any:
        """The frames' answers in the form of the call. leading: axes before height and width.
        kind: the number type of an answer for no frames."""
        if self.form == "one":
            return _like(found[0], self.first)
        if self.form == "list":
            listed = (_like(one, array) for one, array in zip(found, self.first, strict=True))
            return tuple(listed) if isinstance(self.first, tuple) else list(listed)
        if not found:
            size = tuple(self.first.shape[1:3])
            return _like(np.zeros((0, *leading, *size), kind), self.first)
        return _like(np.stack(found), self.first)


def _parts(given: Frames | None, name: str, axes: int) -> tuple[str, Sequence[Array]] | None:
    """The form of what is given for bgr or depth, and its frames. axes: those of one frame."""
    if given is None:
        return None
    if isinstance(given, list | tuple):
        for one in given:
            if not _is_array(one) or one.ndim != axes:
                raise DataError(f"{name} is a list of {_described(one)}, expected frames")
        return "list", given
    if not _is_array(given):
        raise DataError(
            f"{name} is {_described(given)}, expected a NumPy array or a PyTorch tensor"
        )
    if given.ndim not in (axes, axes + 1):
        raise DataError(
            f"{name} is {_described(given)}, expected {axes} axes, or {axes + 1} for a batch"
        )
    return ("one", [given]) if given.ndim == axes else ("batch", given)


def _is_tensor(given: Any) -> bool:
    return hasattr(given, "detach")


def _is_array(given: Any) -> bool:
    return isinstance(given, np.ndarray) or _is_tensor(given)


def _numpy(given: Array) -> np.ndarray:
    if not _is_array(given):
        raise DataError(f"{_described(given)}: expected a NumPy array or a PyTorch tensor")
    if isinstance(given, np.ma.MaskedArray):  # what is masked is no reading
        return given.filled(0)
    return given.detach().cpu().numpy() if _is_tensor(given) else given


def _values(given: Any) -> tuple[float, ...]:
    try:
        values = np.array(given, np.float64).ravel()
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise DataError(f"no_reading: {str(given)[:60]}: expected a number, or several")
    return tuple(values.tolist())


def _like(found: np.ndarray, given: Array) -> Array:
    """An answer as what was given: a tensor on its device, or as it is."""
    if not _is_tensor(given):
        return found
    import torch

    return torch.from_numpy(np.ascontiguousarray(found)).to(given.device)


def _described(given: Any) -> str:
    if isinstance(given, list | tuple):
        return f"a list of {len(given)}"
    return _kind(given) if _is_array(given) else type(given).__name__


def _kind(array: Array) -> str:
    return f"{str(array.dtype).removeprefix('torch.')} of shape {tuple(array.shape)}"


def unit_for(unit: Unit | None, depth: np.ndarray | None) -> DepthUnit:
    """The unit of depth, by default as of a call. Raises DataError for what is none."""
    if unit is None:
        return unit_of(depth)
    if isinstance(unit, DepthUnit):
        return unit
    try:
        found = DepthUnit.parse(str(unit))
    except argparse.ArgumentTypeError as error:
        raise DataError(f"unit: {error}") from None
    if found.kind == "steps" and found.steps < 1:  # a camera's "depth scale"
        raise DataError(f"unit: {unit} steps per metre; expected steps, not the length of one")
    return found


def _in_bits(depth: np.ndarray, unit: DepthUnit) -> np.ndarray:
    """SUN RGB-D's depth as uint16, which PyTorch's users have in wider integers."""
    if unit.kind != "sunrgbd" or depth.dtype.kind not in "ui" or not depth.size:
        return depth
    return depth.astype(np.uint16) if depth.min() >= 0 and depth.max() < 2**16 else depth

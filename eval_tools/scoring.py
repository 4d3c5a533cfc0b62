"""Scores a model on a set of frames: in total, per frame, and per group of frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boundary.errors import shown
from boundary.names import original
from data_tools.annotations.base import Annotated
from data_tools.cli import DataError, progress
from data_tools.images import LABEL
from data_tools.labelling import Labelling
from eval_tools.inference import Options, Segmented, batches, segment
from eval_tools.labels import LabelSet
from eval_tools.metrics import ConfusionMatrix
from eval_tools.network import Network
from eval_tools.records import Record, Records, short_name

# Called for every frame with its truth, its prediction and its own matrix.
Watcher = Callable[[Record, np.ndarray, Segmented, ConfusionMatrix], None]


@dataclass
class Tally:
    """The counts of one model on one dataset.

    For every frame in order, `frames` has the numbers of correct, true and predicted pixels of each
    scored class: int32 (3, classes). Resampling of frames needs nothing else.
    """

    name: str
    labels: LabelSet
    matrix: ConfusionMatrix
    keys: list[str] = field(default_factory=list)
    frames: list[np.ndarray] = field(default_factory=list)
    groups: dict[str, ConfusionMatrix] = field(default_factory=dict)
    scenes: ConfusionMatrix | None = None

    @classmethod
    def empty(cls, name: str, labels: LabelSet) -> Tally:
        """A tally without counts."""
        return cls(name, labels, _matrix(labels))

    def add(self, key: str, truth: np.ndarray, found: np.ndarray, group: str | None = None) -> Any:
        """Counts one frame (two label maps, uint8 (H, W)) and returns the frame's own matrix."""
        ranks = self.labels.ranks
        one = _matrix(self.labels).update(ranks[truth], ranks[found])
        self.matrix.merge(one)
        self.keys.append(key)
        self.frames.append(np.stack([one.hits, one.truths, one.predictions]).astype(np.int32))
        if group is not None:
            self.groups.setdefault(group, _matrix(self.labels)).merge(one)
        return one

    def add_scene(self, truth: int, found: int, names: list[str]) -> None:
        """Counts one frame's scene; scenes count from 0."""
        if self.scenes is None:
            self.scenes = ConfusionMatrix(len(names), ignore_label=None, names=names)
        self.scenes.update([truth], [found])


def _matrix(labels: LabelSet) -> ConfusionMatrix:
    return ConfusionMatrix(len(labels.scored), names=labels.scored_names)


def score(
    network: Network,
    records: Records,
    labels: LabelSet,
    options: Options,
    *,
    name: str,
    truths: Truths,
    batch_size: int = 1,
    group: str | None = None,
    watch: Watcher | None = None,
) -> Tally:
    """Runs a net on all frames and counts, with one batch in memory at a time.

    Args:
        group: a key of the frames in dataset.json; counts are also kept for each of its values.
        watch: called with every frame, e.g. the report.
    Raises:
        DataError: a frame without a usable label, labels that the net does not score, no labelled
            pixel at all, or no frame with that key.
    """
    if group:
        _check_group(records, group)
    tally = Tally.empty(name, labels)
    frames = progress(records, len(records), name)
    for batch in batches(frames, batch_size):
        for frame, found in zip(batch, segment(network, batch, options), strict=True):
            truth = truths(frame, found.label.shape)
            _check_labels(truth, labels, f"{truths.where}: record {frame.key}", network)
            kind = records.about(frame.key).get(group, "(none)") if group else None
            matrix = tally.add(frame.key, truth, found.label, None if kind is None else str(kind))
            if found.scene is not None:
                names = scene_names(records.info, network.scenes)
                _check_scene(frame, network)
                tally.add_scene(frame.scene, found.scene, names)
            if watch:
                watch(frame, truth, found, matrix)
    if not tally.matrix.pixels:
        raise DataError(f"{truths.where}: no pixel has a label that is scored; nothing to evaluate")
    return tally


class Truths:
    """The source of the true labels: the records themselves, another LMDB, a folder, or the files
    of a labelling tool.

    In a folder, a frame's label is the image with the record's key as its name, as convert writes
    it, or else with the key without the leading number, as predict does.

    Raises:
        DataError: the records are known to have no labels; when called: a frame has no label, or
            its label has another size.
    """

    def __init__(
        self,
        records: Records,
        source: str | Path | None = None,
        labelling: Labelling | None = None,
    ) -> None:
        """labelling: how pictures in a folder are read (default: as they are), or the annotations
        that are the source: a frame's is that of the picture with its name."""
        self._labelling = labelling or Labelling()
        self._annotated: dict[str, Annotated] = {}
        if self._labelling.annotations:
            keys = records.keys()
            colors = {key: Path(f"{short_name(key)}.png") for key in keys}
            self._annotated, source = self._labelling.annotated(colors), self._labelling.source
        self.where = str(source if source is not None else records.path)
        self._lmdb: Records | None = None
        self._files: dict[str, Path] | None = None
        pictures = source is not None and not (Path(source) / "data.mdb").is_file()
        if (self._labelling.ignore or self._labelling.zero_based) and not pictures:
            raise DataError("--ignore-label and --zero-based go with the pictures of --labels DIR")
        if self._annotated:
            return
        if source is None:
            if records.info.get("labeled") is False:
                raise DataError(
                    f"{self.where}: its frames have no labels, as dataset.json says; predict and "
                    "eval_tools.report take them, or --labels says where labels are"
                )
            return
        if (Path(source) / "data.mdb").is_file():
            self._lmdb = Records(source)
        elif Path(source).is_dir():
            from data_tools.files import find

            found = find(str(source), LABEL)
            # predict escapes what has a meaning in paths.
            self._files = {original(name): file for name, file in found.items()} | found
        else:
            raise DataError(f"{source}: expected an LMDB or a folder of label pictures")

    def __call__(self, frame: Record, size: tuple[int, int]) -> np.ndarray:
        """The frame's labels, uint8 (H, W), which must have that size (height, width)."""
        label = self._find(frame)
        where = f"{self.where}: record {frame.key}"
        if label is None:
            raise DataError(f"{where}: has no label channel, so it cannot be scored")
        if label.dtype != np.uint8:
            whole = np.rint(label)
            if not np.array_equal(whole, label) or whole.min() < 0 or whole.max() > 255:
                raise DataError(f"{where}: labels are not whole numbers in 0..255")
            label = whole.astype(np.uint8)
        if label.shape != size:
            raise DataError(
                f"{where}: labels are {label.shape[1]}x{label.shape[0]}, expected "
                f"{size[1]}x{size[0]}; --labels takes labels of the size to evaluate at"
            )
        return label

    def _find(self, frame: Record) -> np.ndarray | None:
        if self._annotated:
            if frame.key not in self._annotated:
                raise DataError(f"{self.where}: no picture named {shown(short_name(frame.key))}")
            return self._labelling.read(self._annotated[frame.key], frame.color.shape[1::-1])
        if self._lmdb is not None:
            return self._lmdb.get(frame.key).label
        if self._files is not None:
            names = (frame.key, short_name(frame.key))
            name = next((name for name in names if name in self._files), None)
            if name is None:
                raise DataError(f"{self.where}: no label picture named {shown(names[1])}")
            return self._labelling.read(self._files[name], frame.color.shape[1::-1])
        return frame.label


def _check_labels(truth: np.ndarray, labels: LabelSet, where: str, network: Network) -> None:
    if truth.size and truth.max() >= labels.values:
        raise DataError(
            f"{where}: label {truth.max()}, but {network.name} scores only labels up to "
            f"{labels.values - 1}"
        )


def _check_scene(frame: Record, network: Network) -> None:
    if not 0 <= frame.scene < network.scenes:
        raise DataError(
            f"record {frame.key}: scene {frame.scene}, but {network.name} tells only "
            f"0..{network.scenes - 1}"
        )


def scene_names(info: dict[str, Any], scenes: int) -> list[str]:
    """The names of a net's scenes: those of a dataset.json with as many, else numbers."""
    found = info.get("scenes")
    if isinstance(found, list) and len(found) == scenes:
        return [str(name) for name in found]
    return [str(scene) for scene in range(scenes)]


def _check_group(records: Records, group: str) -> None:
    frames = records.info.get("frames")
    keys = (
        {key for frame in frames.values() for key in frame} if isinstance(frames, dict) else set()
    )
    if group not in keys:
        has = f"it says of its frames: {', '.join(sorted(keys))}" if keys else "it says nothing"
        raise DataError(f"{records.path}: dataset.json has no {group!r} of any frame; {has}")

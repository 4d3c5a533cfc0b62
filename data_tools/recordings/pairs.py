"""Writes a recording as a folder of pairs, which data_tools.folder reads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from boundary import writing
from boundary.late import cv2
from boundary.reading import read_bytes
from data_tools import build, cli, info, notes, store
from data_tools.cli import DataError
from data_tools.notes import Note
from data_tools.record import Frame, RecordFormat
from data_tools.recordings.base import Recording
from data_tools.recordings.labelled import Labelled
from data_tools.recordings.partial import PartialFolder

FOLDERS = {"color": "rgb", "depth": "depth", "label": "label"}


def write(
    recording: Recording | Labelled,
    indices: Sequence[int],
    out: Path,
    form: RecordFormat,
    facts: dict[str, Any],
    skip_bad: bool,
) -> int:
    """Writes OUT/rgb, OUT/depth and, if there are labels, OUT/label; returns the number of frames.

    form: its unit is that of the depth, which is aligned if it has cameras. Files are copied as
    they are where they hold what `load` gives; other parts become PNG, or NPY for floats. OUT
    appears when it is complete; a run that was killed is resumed. Raises DataError if OUT exists,
    or for a frame that cannot be read, unless skip_bad.
    """
    names = [recording.names[index] for index in indices]
    partial = PartialFolder(out, [facts, names])
    try:
        bad: dict[str, str] = {}
        said: notes.Notes = {}
        for index in cli.progress(indices, len(indices), "frames"):
            name = recording.names[index]
            if name in partial.done:
                continue
            try:
                files, count, told = _files(recording, index, form)
            except (DataError, OSError) as error:
                bad[name] = cli.describe(error)
                continue
            for folder, (suffix, data) in files.items():
                file = partial.folder / folder / f"{name}{suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                writing.write_bytes(file, data, DataError)
            notes.add(said, name, told)
            partial.add(name, {"unknown": count})
        notes.tell(said)
        build.report(bad, len(indices), skip_bad)
        if len(bad) == len(indices):
            raise DataError(f"{out}: none of its frames can be used")
        facts = {**facts, "records": len(partial.done)}
        if bad:
            facts["skipped"] = sorted(bad)
        if unknown := [done["unknown"] for done in partial.done.values() if done["unknown"]]:
            facts["unknown_labels"] = store.unknown_labels(unknown)
        frames = {name: recording.about(index) for name, index in zip(names, indices, strict=True)
                  if name not in bad}  # fmt: skip
        text = info.to_json({**facts, "frames": frames})
        writing.write_text(partial.folder / info.NAME, text, DataError)
        partial.finish()
    finally:
        partial.close()
    build.tell_unknown(out, facts)
    return len(frames)


File = tuple[str, bytes]  # suffix and content


def _files(
    recording: Recording | Labelled, index: int, form: RecordFormat
) -> tuple[dict[str, File], int, tuple[Note, ...]]:
    """A frame's files by folder; how many unknown labels became 0; what is to be said of it."""
    loaded = recording.load(index)
    frame, files = form.prepared(loaded) if form.rig else loaded, recording.files(index)
    if "turned" in loaded.facts:  # all parts are written upright, so that nobody has to ask again
        files.clear()
    if frame is not loaded:
        files.pop("depth", None)
        frame = replace(frame, depth=_stored(frame.depth, loaded.depth.dtype))
    frame, count = _known(frame)
    return _contents(frame, files), count, frame.notes


def _stored(depth: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Aligned depth (floats, in the recording's unit) in whole steps, if the recording's is. What
    16 bits do not hold becomes a hole: their highest number is taken for no reading."""
    if kind.kind == "f":
        return depth
    steps = np.rint(depth)
    return np.where(steps < np.iinfo(np.uint16).max, steps, 0).astype(np.uint16)


def _known(frame: Frame) -> tuple[Frame, int]:
    """A frame whose unknown labels are 0, and their number."""
    if frame.label is None or frame.label.dtype.kind != "i":
        return frame, 0
    strange = frame.label < 0
    label = np.where(strange, 0, frame.label).astype(np.uint8 if frame.label.max() < 256 else int)
    return replace(frame, label=label), int(np.count_nonzero(strange))


def _contents(frame: Frame, files: dict[str, Path]) -> dict[str, File]:
    found: dict[str, File] = {}
    for part, folder in FOLDERS.items():
        plane = getattr(frame, part)
        if plane is None:
            continue
        if part in files:
            found[folder] = files[part].suffix.lower(), read_bytes(files[part], DataError)
        elif plane.dtype in (np.uint8, np.uint16):
            found[folder] = ".png", cv2.imencode(".png", plane)[1].tobytes()
        else:
            content = io.BytesIO()
            np.save(content, plane)
            found[folder] = ".npy", content.getvalue()
    return found

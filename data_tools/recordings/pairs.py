"""Writes a recording as a folder of pairs, which data_tools.folder reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from boundary import writing
from data_tools import build, cli, info, store
from data_tools.cli import DataError
from data_tools.record import Frame, RecordFormat
from data_tools.recordings.base import Recording
from data_tools.recordings.labelled import Labelled

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
    appears when it is complete. Raises DataError if it exists, or for a frame that cannot be read,
    unless skip_bad.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    bad: dict[str, str] = {}
    unknown: list[int] = []
    with writing.atomic_folder(out, DataError) as partial:
        for index in cli.progress(indices, len(indices), "frames"):
            name = recording.names[index]
            try:
                loaded = recording.load(index)
                frame = form.aligned(loaded)
            except (DataError, OSError) as error:
                bad[name] = cli.describe(error)
                continue
            files = recording.files(index)
            if frame is not loaded:
                files.pop("depth", None)
                frame = replace(frame, depth=_stored(frame.depth, loaded.depth.dtype))
            frame, count = _known(frame)
            unknown += [count] if count else []
            _write_frame(partial, name, frame, files)
        build.report(bad, len(indices), skip_bad)
        if len(bad) == len(indices):
            raise DataError(f"{out}: none of its frames can be used")
        frames = {
            recording.names[index]: recording.about(index)
            for index in indices
            if recording.names[index] not in bad
        }
        facts = {**facts, "records": len(frames)}
        if bad:
            facts["skipped"] = sorted(bad)
        if unknown:
            facts["unknown_labels"] = store.unknown_labels(unknown)
        text = info.to_json({**facts, "frames": frames})
        writing.write_text(partial / info.NAME, text, DataError)
        for folder, _, files in os.walk(partial):
            for name in (*files, "."):
                writing.sync(Path(folder, name))
    build.tell_unknown(out, facts)
    return len(frames)


def _stored(depth: np.ndarray, kind: np.dtype) -> np.ndarray:
    """Aligned depth (floats, in the recording's unit) in whole steps, if the recording's is."""
    if kind.kind == "f":
        return depth
    return np.clip(np.rint(depth), 0, np.iinfo(np.uint16).max).astype(np.uint16)


def _known(frame: Frame) -> tuple[Frame, int]:
    """A frame whose unknown labels are 0, and their number."""
    if frame.label is None or frame.label.dtype.kind != "i":
        return frame, 0
    strange = frame.label < 0
    label = np.where(strange, 0, frame.label).astype(np.uint8 if frame.label.max() < 256 else int)
    return replace(frame, label=label), int(np.count_nonzero(strange))


def _write_frame(root: Path, name: str, frame: Frame, files: dict[str, Path]) -> None:
    for part, folder in FOLDERS.items():
        plane = getattr(frame, part)
        if plane is None:
            continue
        beside = root / folder / f"{name}.png"
        beside.parent.mkdir(parents=True, exist_ok=True)
        if part in files:
            shutil.copyfile(files[part], root / folder / f"{name}{files[part].suffix.lower()}")
        elif plane.dtype in (np.uint8, np.uint16):
            data = cv2.imencode(".png", plane)[1]
            beside.write_bytes(data.tobytes())
        else:
            np.save(root / folder / f"{name}.npy", plane)

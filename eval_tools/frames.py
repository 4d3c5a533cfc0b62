"""Frames to predict, from colour and depth files or from records."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boundary.reading import read_bytes
from data_tools import images, info
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.folder import find, pair
from data_tools.record import Frame, RecordFormat
from data_tools.store import read_info
from eval_tools.records import Record, Records, short_name, unpack


@dataclass(frozen=True)
class Source:
    """Colour and depth files, paired by name as in data_tools.folder.

    rgb, depth: a folder, a file or a pattern with one `*`; None if the net does not use it.
    """

    rgb: str | None
    depth: str | None

    def pairs(self) -> dict[str, dict[str, Path]]:
        """Output name -> files by kind ('colour', 'depth'), in order of the names.

        The output name is the name of the colour file (or of the depth file if there is none), with
        its subfolders.

        Raises:
            DataError: no files, or one without a partner.
        """
        parts = {}
        if self.rgb is not None:
            parts["colour"] = find(self.rgb, images.COLOR)
        if self.depth is not None:
            parts["depth"] = find(self.depth, images.DEPTH)
        if all(len(files) == 1 for files in parts.values()):
            names = [next(iter(files)) for files in parts.values()]
            parts = {kind: {names[0]: next(iter(f.values()))} for kind, f in parts.items()}
        found = {}
        for name in pair(parts, skip_unpaired=False):
            files = {kind: part[name] for kind, part in parts.items()}
            first = next(iter(files.values()))
            top = Path(self.rgb if self.rgb is not None else self.depth)
            within = first.relative_to(top) if top.is_dir() else Path(first.name)
            found[within.with_suffix("").as_posix()] = files
        return found


def read(files: dict[str, Path], name: str, form: RecordFormat) -> Record:
    """A frame as its record would be, with the full-size colours as guide.

    Without a depth file, depth is zero; without a colour file, colour is grey.

    Raises:
        DataError: a file is unusable, or the two show different fields of view.
    """
    depth = images.read_depth(files["depth"]) if "depth" in files else None
    if "colour" in files:
        color = images.read_color(files["colour"])
    else:
        color = np.full((*depth.shape, 3), 128, np.uint8)
    if depth is None:
        depth = np.zeros(color.shape[:2], np.uint8)
        form = RecordFormat(form.size, DepthUnit("scaled"), DepthRange("none"))
    paths = {"color": str(files.get("colour", "")), "depth": str(files.get("depth", ""))}
    return to_record(Frame(color, depth, files=paths), name, form)


def to_record(frame: Frame, name: str, form: RecordFormat) -> Record:
    """A frame as its record would be, with the full-size colours as guide.

    Raises:
        DataError: a part is unusable, or colour and depth show different fields of view.
    """
    record = unpack(name, form.encode(frame), name)
    return replace(record, guide=frame.color, placement=form.placement(frame))


def default_unit(files: dict[str, Path]) -> DepthUnit:
    """The default unit, as in data_tools.folder: millimetres for integers, metres for floats."""
    if "depth" not in files:
        return DepthUnit.parse("mm")
    kind = images.read_depth(files["depth"]).dtype.kind
    return DepthUnit.parse("m" if kind == "f" else "mm")


@dataclass(frozen=True)
class Trained:
    """The recorded depth format of a net's training data. where: the file that records it. fit:
    what was done to frames of another aspect ratio, if that is recorded."""

    range: str
    floats: bool
    where: str
    fit: str | None = None

    def __str__(self) -> str:
        return f"the net was trained with {self.range} ({self.where})"


def trained_on(deploy: str | Path, dataset: str | Path | None) -> Trained | None:
    """The depth format from the training data's dataset.json, else from the deploy prototxt.

    The prototxt states it in a comment, `# depth_range: valid`, followed by ` float` for records of
    floats.

    Raises:
        DataError: `dataset` is given but does not state it.
    """
    if dataset is not None:
        found = recorded(dataset_info(dataset), str(dataset))
        if found is None:
            raise DataError(f"{dataset}: no dataset.json with options and a depth_range in it")
        return found
    for line in read_bytes(deploy, DataError).decode(errors="replace").splitlines():
        match = re.match(r"#\s*depth_range:\s*(\S+(?: m\b)?)(?:\s+(float))?", line)
        if match:
            return Trained(match[1], match[2] is not None, str(deploy))
    return None


def dataset_info(path: str | Path) -> dict[str, Any]:
    """The content of a JSON file, or of the dataset.json in a folder; empty if there is none."""
    return info.read(path) if Path(path).is_file() else read_info(path)


def recorded(facts: dict[str, Any], where: str) -> Trained | None:
    """The depth format in a dataset.json, or None."""
    options = facts.get("options", {})
    if not options.get("depth_range"):
        return None
    return Trained(
        options["depth_range"], bool(options.get("float_depth")), where, options.get("fit")
    )


def mismatch(records: Records, deploy: str | Path, dataset: str | Path | None = None) -> str | None:
    """A warning if an LMDB's depth is known to differ in format from the net's training data."""
    have = recorded(records.info, str(records.path))
    trained = trained_on(deploy, dataset)
    if have is None or trained is None or have.range == trained.range:
        return None
    return f"warning: depth of {records.path} is {have.range}, but {trained}"


def parse_range(text: str) -> DepthRange:
    """Parses a depth range of dataset.json or of the options.

    Raises:
        DataError: it is not one.
    """
    if text == "none":
        return DepthRange("none")
    try:
        return DepthRange.parse(text.removesuffix(" m"))
    except Exception as error:
        raise DataError(str(error)) from error


def names_of(records: Records) -> list[str]:
    """The names of an LMDB's frames; their keys, if names are not unique."""
    keys = records.keys()
    names = [short_name(key) for key in keys]
    return names if len(set(names)) == len(names) else keys


def named(records: Records) -> Iterator[Record]:
    """An LMDB's frames with the names of names_of as keys."""
    for name, frame in zip(names_of(records), records, strict=True):
        yield replace(frame, key=name)

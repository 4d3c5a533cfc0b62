"""Frames to predict, from colour and depth files or from records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boundary import packed
from boundary.errors import shown
from boundary.reading import read_bytes, reading
from data_tools import images, info, pattern
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.folder import find, pair
from data_tools.record import Frame, RecordFormat
from data_tools.store import read_info
from eval_tools.records import Record, Records, short_name, unpack


@dataclass(frozen=True)
class Source:
    """Colour and depth files, paired by name as in data_tools.folder.

    rgb, depth: a folder, a file or a pattern; None if the net does not use it.
    """

    rgb: str | None
    depth: str | None

    def pairs(self) -> dict[str, dict[str, Path]]:
        """Output name -> files by kind ('colour', 'depth'), in order of the names.

        The output name is the name of the colour file (or of the depth file if there is none), with
        its subfolders (of a pattern, those below the folder before its first wildcard).

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
            top = _top(self.rgb if self.rgb is not None else self.depth)
            within = first.relative_to(top) if top.is_dir() else Path(first.name)
            found[within.with_suffix("").as_posix()] = files
        return found


def _top(where: str) -> Path:
    """The folder that the files at `where` lie in; the file itself if it is one."""
    path = Path(where)
    return pattern.folder(where) if pattern.is_pattern(where) and not path.exists() else path


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
    frame = Frame(color, depth, files=paths)
    record = unpack(name, form.encode(frame), name)
    return replace(record, guide=color, placement=form.placement(frame))


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

    def same(self, other: Trained) -> bool:
        """Whether both map metres alike: `0:8`, `0:8 m` and `0.0:8` are one range."""
        try:
            return parse_range(self.range) == parse_range(other.range)
        except DataError:  # a rule of another program
            return self.range == other.range


def trained_on(deploy: str | Path, dataset: str | Path | None) -> Trained | None:
    """The depth format from the training data's dataset.json, else from the packed model or the
    deploy prototxt.

    A prototxt states it in a comment, `# depth_range: valid`, followed by ` float` for records of
    floats.

    Raises:
        DataError: `dataset` is given but does not state it.
    """
    if dataset is not None:
        found = recorded(dataset_info(dataset), str(dataset))
        if found is None:
            raise DataError(f"{dataset}: no dataset.json with options and a depth_range in it")
        return found
    if packed.is_packed(deploy):
        return recorded(dataset_info(deploy), str(deploy))
    for line in read_bytes(deploy, DataError).decode(errors="replace").splitlines():
        match = re.match(r"#\s*depth_range:\s*(\S+(?: m\b)?)(?:\s+(float))?", line)
        if match:
            return Trained(match[1], match[2] is not None, str(deploy))
    return None


def dataset_info(path: str | Path) -> dict[str, Any]:
    """The content of a JSON file, or of the dataset.json in a folder; empty if there is none. Of a
    packed model, what it says in the same form.
    """
    if packed.is_packed(path):
        facts = packed.read(path, DataError).info
        return info.checked(facts, f"{shown(path)}: {packed.MANIFEST}")
    return info.read(path) if Path(path).is_file() else read_info(path)


def with_classes(facts: dict[str, Any], deploy: str | Path, values: int) -> dict[str, Any]:
    """The facts of a dataset.json, with the names of the net's `values` labels: where the facts
    list no such number of classes, those of the packed model, or of the deploy prototxt.

    netgen writes them into a comment: `# classes: ["(ignored)", "wall", ...]`.
    """
    if len(facts.get("classes", [])) == values:
        return facts
    if packed.is_packed(deploy):
        own = dataset_info(deploy)
        return {**facts, **{key: own[key] for key in ("classes", "palette") if key in own}}
    names = _stated_classes(deploy)
    return {**facts, "classes": names} if len(names) == values else facts


def _stated_classes(deploy: str | Path) -> list[str]:
    """The names in a prototxt's comment; none if there is none, or if it is another program's."""
    for line in read_bytes(deploy, DataError).decode(errors="replace").splitlines():
        if line.startswith("# classes: ["):
            with suppress(DataError), reading(deploy, "a list of names", DataError):
                names = json.loads(line.removeprefix("# classes: "))
                return names if all(isinstance(name, str) for name in names) else []
    return []


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
    if have is None or trained is None or have.same(trained):
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

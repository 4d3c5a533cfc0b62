"""Frames to predict, from colour and depth files or from records."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from boundary import packed, stated
from boundary.errors import shown
from data_tools import images, info, pattern
from data_tools.cli import DataError, say
from data_tools.depth import DepthRange, DepthUnit
from data_tools.files import find, pair
from data_tools.record import Frame, RecordFormat
from data_tools.store import read_info
from eval_tools.network import Network
from eval_tools.records import Record, Records, short_name


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
    """The record of the frame in these files, as `record`.

    Raises:
        DataError: a file is unusable, or the two show different fields of view.
    """
    if "depth" in files:
        return record_of(with_depth(files), name, form)
    color = images.read_color(files["colour"])
    return record(color, None, name, form, {"color": str(files["colour"])})


def with_depth(files: dict[str, Path]) -> Frame:
    """The frame in the file 'depth' and perhaps 'colour', else grey. Raises DataError if one of
    them is unusable."""
    if "colour" in files:
        return images.read_frame({"color": files["colour"], "depth": files["depth"]})
    depth = images.read_depth(files["depth"])
    return Frame(grey(depth), depth, files={"depth": str(files["depth"])})


def grey(depth: np.ndarray) -> np.ndarray:
    """A colour picture, H x W x 3 uint8, for depth that has none."""
    return np.full((*depth.shape, 3), 128, np.uint8)


def record(
    color: np.ndarray | None,
    depth: np.ndarray | None,
    name: str,
    form: RecordFormat,
    files: dict[str, str] | None = None,
) -> Record:
    """A frame as its record would be, with the full-size colours as guide.

    color: H x W x 3 uint8, BGR; None: grey. depth: H x W in the format's unit; None: zero.
    files: what errors call 'color' and 'depth'.

    Raises:
        DataError: a part is unusable, or the two show different fields of view.
    """
    if color is None and form.rig:
        raise DataError("depth is to be projected into the colour picture, and there is none")
    if color is None:
        color = grey(depth)
    if depth is None:
        depth = np.zeros(color.shape[:2], np.uint8)
        form = replace(
            form, unit=DepthUnit("scaled"), range=DepthRange("none"), rig=None, doctor=False
        )
    return record_of(Frame(color, depth, files=files or {}), name, form)


def record_of(frame: Frame, name: str, form: RecordFormat) -> Record:
    """The record of a frame. Raises DataError as record."""
    planes, notes = form.noted_planes(frame)
    return Record(
        name,
        planes[:3].transpose(1, 2, 0),
        planes[3],
        guide=frame.color,
        placement=form.placement(frame),
        notes=notes,
    )


def default_unit(files: dict[str, Path]) -> DepthUnit:
    """The default unit of a frame's depth file; millimetres if it has none."""
    return unit_of(images.read_depth(files["depth"]) if "depth" in files else None)


def unit_of(depth: np.ndarray | None) -> DepthUnit:
    """The default unit, as in data_tools.folder: millimetres for integers, metres for floats."""
    return DepthUnit.parse("m" if depth is not None and depth.dtype.kind == "f" else "mm")


@dataclass(frozen=True)
class Trained:
    """The recorded format of a net's training data. where: the file that records it. range: the
    mapping of depth, None if the net knows no depth. fit: what was done to frames of another aspect
    ratio, if that is recorded."""

    range: str | None
    floats: bool
    where: str
    fit: str | None = None

    def __str__(self) -> str:
        return f"the net was trained with {self.range} ({self.where})"

    def rule(self) -> DepthRange | None:
        """The mapping of depth. Raises DataError, naming the file, if it is none."""
        if not self.range:
            return None
        try:
            return parse_range(self.range)
        except DataError as error:
            raise DataError(f"{self.where}: depth_range: {error}") from error

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
        if found is None or found.range is None:
            raise DataError(f"{dataset}: no dataset.json with options and a depth_range in it")
        return found
    if packed.is_packed(deploy):
        return recorded(dataset_info(deploy), str(deploy))
    comment = stated.depth_range(deploy, DataError)
    return comment and Trained(*comment, str(deploy))


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
    names = stated.classes(deploy, DataError)
    return {**facts, "classes": names} if len(names) == values else facts


def recorded(facts: dict[str, Any], where: str) -> Trained | None:
    """The format in a dataset.json, or None."""
    options = facts.get("options", {})
    rule, fit = options.get("depth_range") or None, options.get("fit")
    return Trained(rule, bool(options.get("float_depth")), where, fit) if rule or fit else None


def mismatch(records: Records, deploy: str | Path, dataset: str | Path | None = None) -> str | None:
    """A warning if an LMDB's depth is known to differ in format from the net's training data."""
    have = recorded(records.info, str(records.path))
    trained = trained_on(deploy, dataset)
    if not (have and have.range and trained and trained.range) or have.same(trained):
        return None
    return f"warning: depth of {records.path} is {have.range}, but {trained}"


def reshaped(records: Records, network: Network) -> str | None:
    """A note if an LMDB's records, by the first, have another size than the net's inputs."""
    (height, width), (own_height, own_width) = next(iter(records)).size, network.size
    if (height, width) == (own_height, own_width):
        return None
    return (
        f"{shown(records.path)}: records are {width}x{height}, the net takes "
        f"{own_width}x{own_height}; {shown(network.name)} runs at {width}x{height} (--size "
        f"{width}x{height} resizes the frames for it instead)"
    )


def record_format(
    network: Network,
    unit: DepthUnit,
    trained: Trained | None,
    asked: DepthRange | None = None,
    fit: str | None = None,
    tell: Callable[[str], object] = say,
) -> RecordFormat:
    """The format of a net's inputs, for frames whose depth has this unit.

    asked, fit: what wins over `trained`. tell: is told of a rule that is assumed, or contradicts.

    Raises:
        DataError: the net was trained on depth without a unit, and this one has one.
    """
    return RecordFormat(
        network.size[::-1],
        unit,
        _rule(unit, trained, asked, network.takes_depth, tell),
        bool(trained and trained.floats),
        fit=fit or (trained and trained.fit) or "crop",
    )


def _rule(
    unit: DepthUnit,
    trained: Trained | None,
    asked: DepthRange | None,
    matters: bool,
    tell: Callable[[str], object],
) -> DepthRange:
    """The mapping of depth to 0..255; tells if it is assumed, and of a mismatch."""
    if unit.kind == "scaled":
        return DepthRange("none")
    known = trained.rule() if trained else None
    if known and known.rule == "none":
        if matters and asked is None:
            raise DataError(
                f"{trained}, on depth that was 0..255 already: say --depth-unit scaled "
                "for such files, or --depth-range for how metres become 0..255"
            )
        known = None
    if asked is None:
        if known is None and matters:
            tell(
                "depth range: authors (each frame's minimum to maximum), as nothing says how the "
                "net was trained; --dataset LMDB or --depth-range can"
            )
        return known or DepthRange("authors")
    if known and known != asked:
        tell(f"warning: --depth-range is {asked}, but {trained}")
    return asked


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

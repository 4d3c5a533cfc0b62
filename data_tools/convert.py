"""Converts LMDBs to other LMDBs, or to folders of PNGs and back.

Each INPUT is an LMDB, or a folder that this command wrote (rgb/, depth/, label/, dataset.json).
Several inputs are merged in order. OUT becomes an LMDB or, with --to folder, such a folder: colour
and label as PNG, depth as PNG (0..255) or, from float records, as NPY. The facts in dataset.json
(classes, cameras, ...) are kept.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from boundary import names, reading, writing
from boundary.errors import shown
from boundary.late import cv2
from data_tools import build, classes, cli, folder, framing, info, store
from data_tools.build import Output
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.record import (
    CHANNELS,
    UNKNOWN,
    Frame,
    RecordFormat,
    UnknownLabel,
    from_datum,
    integers,
    whole,
)
from data_tools.store import Reader

NUMBER = re.compile(r"^\d{8}_")
PARTS = ("color", "depth", "label")  # of a frame, as messages name their files
LABEL = re.compile("[01]?[0-9]?[0-9]|2[0-4][0-9]|25[0-5]")
# Facts of dataset.json that a merged dataset keeps if all parts agree on them.
KEPT = ("dataset", "labeled", "classes", "palette", "scenes")
# Options there that say how cameras' frames became records: programs that use a net need them.
ORIGIN = ("depth_range", "fit")


def plain_name(key: str) -> str:
    """A key or file name without its leading number."""
    return NUMBER.sub("", key) or key


class LmdbPart:
    """The records of an LMDB. info: its dataset.json."""

    def __init__(self, path: Path):
        self._path, self._reader = path, None
        reader = Reader(path)
        self.info, self._raw_keys = reader.info, reader.keys()
        self.keys = [store.name_of(key) for key in self._raw_keys]
        self.type = self.info.get("type") or self._first_type(reader)
        reader.close()

    def _first_type(self, reader: Reader) -> str:
        first: DataError | None = None
        for key, record in reader:  # a bad record before the first good one is a bad frame
            try:
                return str(from_datum(record, f"{self._path}: record {shown(key)}")[0].dtype)
            except DataError as error:
                first = first or error
        raise first or DataError(f"{self._path}: holds no records")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}  # each worker opens the file for itself

    def where(self, index: int) -> str:
        """How messages name a record."""
        return f"{self._path}: record {shown(self.keys[index])}"

    def planes(self, index: int) -> tuple[np.ndarray, int]:
        """5 x H x W and the scene."""
        if self._reader is None:
            self._reader = Reader(self._path)
        where = self.where(index)
        planes, scene = from_datum(self._reader.get(self._raw_keys[index]), where)
        if len(planes) != len(CHANNELS):
            raise DataError(
                f"{where}: has {len(planes)} channels, expected 5 ({', '.join(CHANNELS)})"
            )
        return planes, scene


def _file_key(path: Path) -> str:
    """The record's key of a file that `--to folder` wrote."""
    return names.original(path.with_suffix("").as_posix())


class FolderPart:
    """The frames of a folder that `--to folder` wrote."""

    def __init__(self, path: Path):
        self._path = path
        parts = [str(path / part) for part in ("rgb", "depth", "label")]
        try:
            self._files = folder.Files(*parts, None, named=_file_key)
        except DataError:  # a folder of somebody's, with such names as x_rgb.png and x_depth.png
            self._files = folder.Files(*parts, None)
        self.info = store.read_info(path)
        long = self.info.get("names", {})
        self.keys = [long.get(names.component(key), key) for key in self._files.names]
        floats = self._files.first_depth().dtype.kind == "f"
        self.type = "float32" if floats else "uint8"

    def where(self, index: int) -> str:
        """How messages name a frame."""
        return f"{self._path}: {shown(self.keys[index])}"

    def planes(self, index: int) -> tuple[np.ndarray, int]:
        """5 x H x W and the scene."""
        frame = self._files.load(index)
        planes = np.stack([*frame.color.transpose(2, 0, 1), frame.depth, frame.label])
        scene = self.info.get("frames", {}).get(self.keys[index], {}).get("scene", 0)
        if not isinstance(scene, int) or not 0 <= scene < 2**31:
            raise DataError(f"{info.NAME}: frames: scene: expected a whole number, got {scene!r}")
        return planes.astype(self.type), scene


class Records:
    """The source: the frames of all inputs, one after the other.

    remap: label -> new label, or None to keep the labels. ignore_unknown: labels that remap lacks
    become UNKNOWN. Float colours must be integers.
    """

    block = 16

    def __init__(
        self,
        paths: Sequence[Path],
        remap: dict[int, int] | None = None,
        ignore_unknown: bool = False,
    ):
        self.parts = [open_part(path) for path in paths]
        self._where = [(part, i) for part in range(len(self.parts))
                       for i in range(len(self.parts[part].keys))]  # fmt: skip
        plain = [plain_name(self.parts[part].keys[i]) for part, i in self._where]
        self.names = plain if len(set(plain)) == len(plain) else self._distinct(plain)
        self._remap, self._ignore_unknown = remap, ignore_unknown

    def _distinct(self, plain: list[str]) -> list[str]:
        """Makes clashing names unique by a prefix: the number of the input, or of the frame."""
        return [f"{part}/{name}" if len(self.parts) > 1 else f"{i}/{name}"
                for (part, i), name in zip(self._where, plain, strict=True)]  # fmt: skip

    def load(self, index: int) -> Frame:
        """Frame `index`; its depth is 0..255."""
        part, i = self._where[index]
        planes, scene = self.parts[part].planes(i)
        where = self.parts[part].where(i)
        color = np.ascontiguousarray(planes[:3].transpose(1, 2, 0))
        if color.dtype != np.uint8:
            color = whole(color, f"{where}: colour")
        label = self._mapped(integers(planes[4], f"{where}: label"), where)
        return Frame(color, planes[3], label, scene, dict.fromkeys(PARTS, where))

    def _mapped(self, label: np.ndarray, where: str) -> np.ndarray:
        if self._remap is None:
            return label
        table = np.full(258, UNKNOWN, np.int16)  # all labels of a byte, and one beyond each end
        for old, new in self._remap.items():
            table[old + 1] = new
        mapped = table[np.clip(label.astype(np.int64) + 1, 0, 257)]
        if not self._ignore_unknown and (mapped == UNKNOWN).any():
            wrong = label[mapped == UNKNOWN].min()
            raise UnknownLabel(f"{where}: label {wrong} is not in the table of --map")
        return mapped

    def about(self, index: int) -> dict[str, Any]:
        """The facts about the frame in its input's dataset.json."""
        part, i = self._where[index]
        known = dict(self.parts[part].info.get("frames", {}).get(self.parts[part].keys[i], {}))
        known.pop("scene", None)
        return known

    def common(self) -> dict[str, Any]:
        """The facts of KEPT on which the dataset.json of all inputs agree."""
        first, *others = (part.info for part in self.parts)
        agreed = (key for key in KEPT if key in first)
        return {key: first[key] for key in agreed
                if all(other.get(key) == first[key] for other in others)}  # fmt: skip

    def origin(self) -> dict[str, Any]:
        """The options of ORIGIN on which all inputs agree. Depth ranges that differ are
        said, and null."""
        known = [part.info.get("options", {}) for part in self.parts]
        found = {}
        for name in ORIGIN:
            values = list(dict.fromkeys(options.get(name) for options in known))
            if len(values) == 1 and values[0] is not None:
                found[name] = values[0]
            elif len(values) > 1 and name == "depth_range":
                found[name] = None
                told = ", ".join(value or "unknown" for value in values)
                cli.say(f"the inputs have different depth ranges: {told}")
        return found


def open_part(path: Path) -> LmdbPart | FolderPart:
    """Opens an input: a folder of frames, or else an LMDB."""
    if (path / "rgb").is_dir() and (path / "depth").is_dir() and (path / "label").is_dir():
        return FolderPart(path)
    return LmdbPart(path)


def read_map(path: Path) -> tuple[dict[int, int], dict[int, str]]:
    """Reads a CSV `from,to[,name]`: old label -> new label, and the names of new labels. 0 stays 0
    unless it is listed. Raises DataError, naming the line."""
    remap, named, lines = {0: 0}, {}, {}
    for line, row in reading.read_table(path, ("from", "to"), DataError):
        if not all(LABEL.fullmatch(row[side]) for side in ("from", "to")):
            raise DataError(f"{path}: line {line}: from and to must be labels of 0 to 255")
        old = int(row["from"])
        if old in lines:
            raise DataError(f"{path}: line {line}: label {old} is in line {lines[old]} already")
        lines[old] = line
        remap[old] = int(row["to"])
        if row.get("name"):
            named[int(row["to"])] = row["name"]
    return remap, named


def choose(args: argparse.Namespace, source: Records) -> list[int]:
    """The frames that the options select, in order. Raises DataError if there are none."""
    chosen = list(range(len(source.names)))
    if args.match:
        chosen = [i for i in chosen if fnmatch.fnmatch(source.names[i], args.match)]
    if args.names:
        known = set(source.names)
        lines = [line.strip() for line in reading.read_lines(args.names, DataError, paths=True)]
        wanted = [name for line in lines for name in ([line] if line in known else line.split())]
        missing = sorted(set(wanted) - known)
        if missing:
            raise DataError(f"{args.names}: no frame is named '{missing[0]}'")
        places = {name: i for i, name in enumerate(source.names)}
        kept = set(chosen)
        chosen = [places[name] for name in wanted if places[name] in kept]
    chosen = chosen[:: args.every][: args.first]
    if not chosen:
        raise DataError("no frame is left by --match, --names, --every and --first")
    return chosen


def parse_split(text: str) -> dict[str, float]:
    """argparse type: `train=0.8,val=0.2`; the shares must add up to at most 1."""
    shares: dict[str, float] = {}
    for item in text.split(","):
        name, _, share = item.partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            shares[name] = -1.0
        if not re.fullmatch(r"[\w-][\w.-]*", name) or not 0 < shares[name] <= 1:
            raise argparse.ArgumentTypeError(f"'{item}' is not NAME=SHARE with 0 < SHARE <= 1")
    if sum(shares.values()) > 1 + 1e-9:
        raise argparse.ArgumentTypeError(f"'{text}': the shares add up to more than 1")
    return shares


def split(chosen: list[int], shares: dict[str, float], seed: int) -> dict[str, list[int]]:
    """Splits frames at random by the seed; each part keeps their order. Shares that add up to 1 use
    every frame."""
    order = list(chosen)
    random.Random(seed).shuffle(order)
    parts, start, total = {}, 0, 0.0
    for name, share in shares.items():
        total += share
        end = round(total * len(order))
        parts[name] = sorted(order[start:end], key=chosen.index)
        start = end
    return parts


def write_folder(
    source: Records, chosen: list[int], out: Path, format: RecordFormat
) -> dict[str, Any]:
    """Writes the folder of `--to folder`, and returns the content of its dataset.json.

    A frame's files are named by the key of its record, as names.component writes it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with writing.atomic_folder(out, DataError) as partial:
        facts = _write_frames(source, chosen, partial, format)
        for folder, _, files in os.walk(partial):
            for name in (*files, "."):
                writing.sync(Path(folder, name))
    return facts


def _write_frames(
    source: Records, chosen: list[int], folder: Path, format: RecordFormat
) -> dict[str, Any]:
    frames, long, unknown = {}, {}, []
    for position, index in enumerate(cli.progress(chosen, len(chosen), "pictures")):
        key = store.name_of(store.key(position, source.names[index]))
        try:
            encoded = format.encode_noted(source.load(index))
        except UnknownLabel as error:
            raise DataError(f"frame {key}: {error}; {build.IGNORE_UNKNOWN}") from error
        planes, scene = from_datum(encoded.datum)
        unknown += [encoded.unknown] if encoded.unknown else []
        name = names.component(key)
        _write_frame(folder, name, planes)
        if names.original(name) != key:
            long[name] = key
        if known := {**source.about(index), **({"scene": scene} if scene else {})}:
            frames[key] = known
    facts = {
        "tool": "data_tools.convert",
        **source.common(),
        "options": source.origin(),
        **({"frames": frames} if frames else {}),
        **({"names": long} if long else {}),
        **({"unknown_labels": store.unknown_labels(unknown)} if unknown else {}),
    }
    writing.write_text(folder / info.NAME, info.to_json(facts), DataError)
    return facts


def _write_frame(root: Path, name: str, planes: np.ndarray) -> None:
    pictures = {"rgb": planes[:3].transpose(1, 2, 0), "label": planes[4]}
    if planes.dtype == np.uint8:
        pictures["depth"] = planes[3]
    else:
        file = root / "depth" / f"{name}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, planes[3])
    for part, picture in pictures.items():
        file = root / part / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        data = cv2.imencode(".png", np.ascontiguousarray(picture.astype(np.uint8)))[1]
        file.write_bytes(data.tobytes())


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "convert")
    parser.add_argument("inputs", metavar="INPUT", type=Path, nargs="+")
    parser.add_argument("out", metavar="OUT", type=Path)
    parser.add_argument(
        "--to", choices=("lmdb", "folder"), default="lmdb", help="what to write (default: lmdb)"
    )
    parser.add_argument(
        "--type", choices=("uint8", "float"), help="type of the records (default: the inputs')"
    )
    parser.add_argument(
        "--map", type=Path, metavar="TABLE.csv", help="change labels: columns from,to[,name]"
    )
    group = parser.add_argument_group("selection of frames")
    group.add_argument("--match", metavar="PATTERN", help="frames whose name matches, e.g. 'kv1/*'")
    group.add_argument(
        "--names", type=Path, metavar="FILE", help="frames named in FILE, in its order"
    )
    group.add_argument(
        "--every", type=cli.whole(1), default=1, metavar="N", help="every Nth of these frames"
    )
    group.add_argument(
        "--first", type=cli.whole(1), metavar="N", help="the first N of what is left"
    )
    group.add_argument(
        "--split",
        type=parse_split,
        metavar="NAME=SHARE,...",
        help="split at random by --seed and write each part to OUT/NAME",
    )
    group.add_argument("--seed", type=int, default=0, help="seed of --split (default: 0)")
    build.add_arguments(parser, None, depth_range=False, float_depth=False)
    return parser


def record_format(args: argparse.Namespace, source: Records, highest: int) -> RecordFormat:
    """The format of the records, with the type of --type or of the inputs."""
    types = {part.type for part in source.parts}
    floats = args.type == "float" or (args.type is None and "float32" in types)
    return RecordFormat(args.size, DepthUnit("scaled"), DepthRange("none"),
                        floats, highest, **framing.fields(args))  # fmt: skip


def class_info(source: Records, named: dict[int, str], remap: dict[int, int] | None) -> dict:
    """The facts for dataset.json, with the new classes of --map if there are any."""
    facts = source.common()
    if remap is not None:
        facts = {key: facts[key] for key in facts if key not in ("dataset", "classes", "palette")}
        highest = max(remap.values())
        table = [named.get(label, f"class {label}") for label in range(highest + 1)]
        table[0] = named.get(0, classes.IGNORED)
        facts |= classes.ClassTable(tuple(table)).describe()
    return facts


def main() -> None:
    """`python -m data_tools.convert`."""
    args = cli.parse(arguments())
    if args.split and args.to == "folder":
        args.usage.error("--split makes LMDBs; convert each of them with --to folder")
    remap, named = read_map(args.map) if args.map else (None, {})
    ignore = args.unknown == "ignore"
    source = Records(args.inputs, remap, ignore)
    chosen = choose(args, source)
    known = class_info(source, named, remap)
    format = record_format(args, source, len(known["classes"]) - 1 if "classes" in known else 255)
    if args.to == "folder":
        facts = write_folder(source, chosen, args.out, replace(format, ignore_unknown=ignore))
        build.tell_unknown(args.out, facts)
        print(f"{args.out}: {len(chosen)} frames")
        return
    parts = split(chosen, args.split, args.seed) if args.split else {"": chosen}
    outputs = [Output(args.out / name, part, {"split": name} if name else {})
               for name, part in parts.items()]  # fmt: skip
    origin = source.origin()
    if args.size:
        origin.pop("fit", None)  # --fit says how they became these records
    facts = {"tool": "data_tools.convert", "source": [str(path) for path in args.inputs], **known,
             "options": {"map": json.dumps(remap) if remap else None, **origin}}  # fmt: skip
    build.build(source, outputs, format, facts, build.options(args))


if __name__ == "__main__":
    cli.run(main)

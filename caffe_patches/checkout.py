"""A checkout of Caffe: which parts are applied, and which changes apply or revert parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from caffe_patches import insertions
from caffe_patches.errors import PatchError
from caffe_patches.insertions import PARTS, Insertion
from caffe_patches.transaction import Change

HERE = Path(__file__).parent
OVERLAY = HERE / "overlay"


@dataclass(frozen=True)
class Pin:
    """The commit that the insertions were made for, with the SHA-256 of its files."""

    commit: str
    files: dict[str, str]


@dataclass(frozen=True)
class SourceFile:
    """One of Caffe's files that insertions change.

    pristine: its text without our lines. taken: our lines in it, by part.
    """

    path: str
    insertions: list[Insertion]
    data: bytes
    pristine: str
    taken: list[tuple[str, tuple[str, ...]]]

    @property
    def parts(self) -> set[str]:
        """The parts with lines in this file."""
        return {part for part, _ in self.taken}

    @property
    def intact(self) -> bool:
        """Whether our lines in the file are those of this version, at any place."""
        ours = [(entry.part, entry.lines) for entry in self.insertions if entry.part in self.parts]
        return sorted(ours) == sorted(self.taken)

    def render(self, parts: Set[str]) -> bytes:
        """The file with the lines of these parts. Raises PatchError for a missing anchor."""
        chosen = [insertion for insertion in self.insertions if insertion.part in parts]
        if self.intact and {insertion.part for insertion in chosen} == self.parts:
            return self.data
        return _encode(insertions.insert(self.pristine, chosen))


@dataclass(frozen=True)
class OverlayFile:
    """One of our own source files.

    ours: its content here. data: its content in the checkout, None if it is not there.
    """

    part: str
    path: str
    ours: bytes
    data: bytes | None

    @property
    def installed(self) -> bool:
        """Whether the checkout has the same file."""
        return self.data == self.ours


@dataclass
class Plan:
    """Changes to make, doubts, which --force overrides, and problems, which nothing overrides."""

    changes: list[Change] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Checkout:
    """A folder with Caffe's sources. It is read, never written.

    Raises PatchError if a file that insertions change is missing, or if our marks are damaged.
    """

    def __init__(self, root: Path, pin: Pin | None = None) -> None:
        self.root = root
        self.pin = pin or load_pin()
        self.sources = self._read_sources()
        self.overlay = [
            OverlayFile(part, path, ours, _read(root / path))
            for part in PARTS
            for path, ours in _overlay_files(part)
        ]

    def _read_sources(self) -> list[SourceFile]:
        by_file: dict[str, list[Insertion]] = {}
        for part in PARTS:
            for insertion in insertions.load(part):
                by_file.setdefault(insertion.file, []).append(insertion)
        found = {path: _read(self.root / path) for path in by_file}
        missing = [path for path, data in found.items() if data is None]
        if len(missing) == len(found):
            raise PatchError(f"{self.root}: no checkout of BVLC Caffe ({missing[0]} is not there)")
        if missing:
            raise PatchError(*(f"{path}: is not there" for path in missing))
        files, damage = [], []
        for path, data in found.items():
            try:
                files.append(
                    SourceFile(path, by_file[path], data, *insertions.strip(_decode(data)))
                )
            except PatchError as error:
                damage.append(f"{path}: {error}")
        if damage:
            raise PatchError(*damage)
        return files

    @cached_property
    def strangers(self) -> list[str]:
        """Files that, without our lines, differ from the pinned commit's."""
        return [
            file.path
            for file in self.sources
            if hashlib.sha256(_encode(file.pristine)).hexdigest() != self.pin.files[file.path]
        ]

    @cached_property
    def edited(self) -> list[str]:
        """Files in which our lines differ from this version's."""
        return [file.path for file in self.sources if not file.intact]

    def present(self, part: str) -> tuple[list[str], list[str]]:
        """The files of a part that are as applied, and those that are not."""
        there: dict[str, bool] = {}
        for file in self.sources:
            if any(insertion.part == part for insertion in file.insertions):
                there[file.path] = part in file.parts and file.path not in self.edited
        there.update({file.path: file.installed for file in self.overlay if file.part == part})
        return [p for p, ok in there.items() if ok], [p for p, ok in there.items() if not ok]

    def applied(self) -> set[str]:
        """The parts that have lines in Caffe's files, complete or not."""
        return set().union(*(file.parts for file in self.sources)) & set(PARTS)

    def plan_apply(self, parts: Set[str]) -> Plan:
        """The changes that add these parts to those already applied."""
        touched = {
            file.path for file in self.sources for entry in file.insertions if entry.part in parts
        }
        short = self.pin.commit[:8]
        plan = Plan(doubts=self._edited_doubts())
        plan.doubts += [
            f"{path}: is not as in BVLC Caffe's commit {short}"
            for path in self.strangers
            if path in touched
        ]
        for file in self.sources:
            try:
                self._change(plan, file.path, file.data, file.render(file.parts | parts))
            except PatchError as error:
                plan.problems += error.lines
        for file in self.overlay:
            if file.part not in parts or file.installed:
                continue
            if file.data is not None:
                ours = file.part in self.applied()
                (plan.doubts if ours else plan.problems).append(
                    f"{file.path}: is there already, with other contents than {file.part}'s"
                )
            self._change(plan, file.path, file.data, file.ours)
        return plan

    def plan_revert(self, parts: Set[str]) -> Plan:
        """The changes that remove these parts."""
        plan = Plan(doubts=self._edited_doubts())
        for file in self.sources:
            try:
                self._change(plan, file.path, file.data, file.render(file.parts - parts))
            except PatchError as error:
                plan.problems += error.lines
        for file in self.overlay:
            if file.part not in parts or file.data is None:
                continue
            if not file.installed and file.part not in self.applied():
                continue  # the part is not applied, so the file is someone else's
            if not file.installed:
                plan.doubts.append(f"{file.path}: was changed since it was put there")
            self._change(plan, file.path, file.data, None)
        return plan

    @staticmethod
    def _change(plan: Plan, path: str, before: bytes | None, after: bytes | None) -> None:
        if before != after:
            plan.changes.append(Change(path, before, after))

    def _edited_doubts(self) -> list[str]:
        return [
            f"{path}: our lines in it were changed, by hand or by another version"
            for path in self.edited
        ]


def load_pin() -> Pin:
    """The commit that the insertions were made for."""
    return Pin(**json.loads((HERE / "pin.json").read_text(encoding="utf-8")))


def _overlay_files(part: str) -> list[tuple[str, bytes]]:
    """Our source files of a part: paths in Caffe's tree, and their bytes."""
    folder = OVERLAY / part
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [
        (path.relative_to(folder).as_posix(), path.read_bytes())
        for path in files
        if "__pycache__" not in path.parts
    ]


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise PatchError(f"{path}: {error.strerror}") from error


def _decode(data: bytes) -> str:
    return data.decode("utf-8", errors="surrogateescape")


def _encode(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")

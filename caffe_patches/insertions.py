"""Our lines in Caffe's files: reads them from insertions/, inserts and removes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from caffe_patches import anchors
from caffe_patches.errors import PatchError

PARTS = ("shuffle", "label-weights", "unpooling", "toolchain")
PLACES = ("before", "after", "start", "end")
FOLDER = Path(__file__).parent / "insertions"

_MARK = re.compile(r"^(?://|#) (begin|end) fusenet ([\w-]+)\r?\n", re.MULTILINE)


@dataclass(frozen=True)
class Insertion:
    """Lines of ours for one file. place: before or after the anchor's line, or the start or the end
    of the block of braces that follows the anchor."""

    part: str
    file: str
    anchor: str
    place: str
    lines: tuple[str, ...]


def load(part: str) -> list[Insertion]:
    """The insertions of a part, in the order of its JSON file."""
    entries = json.loads((FOLDER / f"{part}.json").read_text(encoding="utf-8"))
    return [Insertion(part=part, **{**entry, "lines": tuple(entry["lines"])}) for entry in entries]


def insert(text: str, insertions: Iterable[Insertion]) -> str:
    """The text with the insertions, each between two marks that name its part.

    Raises PatchError for the first anchor that does not occur exactly once.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    pieces = []
    for insertion in insertions:
        try:
            at = _offset(text, insertion)
        except PatchError as error:
            where = f"{insertion.file}: anchor '{insertion.anchor}'"
            raise PatchError(f"{where} {error}") from error
        hash_comments = insertion.file.endswith((".py", "Makefile", ".cmake", ".txt"))
        mark = f"{'#' if hash_comments else '//'} {{}} fusenet {insertion.part}"
        lines = (mark.format("begin"), *insertion.lines, mark.format("end"))
        pieces.append((at, "".join(line + newline for line in lines)))
    patched, done = [], 0
    for at, piece in sorted(pieces, key=lambda pair: pair[0]):
        patched += [text[done:at], piece]
        done = at
    return "".join([*patched, text[done:]])


def strip(text: str) -> tuple[str, list[tuple[str, tuple[str, ...]]]]:
    """The text without our marks and the lines between them, and these lines with their parts.

    Raises PatchError for a mark without its counterpart.
    """
    kept, taken, begun, at = [], [], None, 0
    for mark in _MARK.finditer(text):
        if (mark[1] == "begin") != (begun is None) or (begun and begun[2] != mark[2]):
            line = text.count("\n", 0, mark.start()) + 1
            raise PatchError(f"line {line}: this mark of fusenet {mark[2]} lacks its other half")
        if mark[1] == "begin":
            kept.append(text[at : mark.start()])
            begun = mark
        else:
            taken.append((mark[2], tuple(text[begun.end() : mark.start()].splitlines())))
            begun, at = None, mark.end()
    if begun is not None:
        raise PatchError(f"its fusenet {begun[2]} has no end")
    return "".join([*kept, text[at:]]), taken


def _offset(text: str, insertion: Insertion) -> int:
    behind = anchors.find_once(text, insertion.anchor)
    if insertion.place == "before":
        return anchors.line_start(text, behind)
    if insertion.place == "after":
        return anchors.line_end(text, behind)
    opening, closing = anchors.block(text, behind)
    if insertion.place == "start":
        return anchors.line_end(text, opening)
    return anchors.line_start(text, closing)

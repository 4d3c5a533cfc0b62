"""Patterns of file names: what the wildcards of a pattern match is a frame's name.

The wildcards are the shell's: `*` and `?` match within one folder's name, `[a-z]` and `[!a-z]` one
character, and `**` any number of folders.
"""

from __future__ import annotations

import fnmatch
import glob
import re
from pathlib import Path

from data_tools.cli import DataError

_WILDCARD = re.compile(r"\*|\?|\[!?\]?[^/\]]*\]")
# A run of wildcards that match within a name; it gives one text.
_WILDCARDS = re.compile(rf"(?:{_WILDCARD.pattern})+")


def is_pattern(where: str) -> bool:
    """Whether a path holds wildcards."""
    return _WILDCARDS.search(where) is not None


def files(where: str) -> dict[Path, str]:
    """The files that a pattern matches, in order, each with the texts that the wildcards match,
    joined by `/`: `b/7` for `frames/*/x_*.png` and the file frames/b/x_7.png.

    Raises DataError if there are none.
    """
    where = re.sub("/+", "/", where)
    start = _literal(where)
    whole = re.compile(re.escape(where[:start]) + _expression(where[start:]), re.DOTALL)
    found: dict[Path, str] = {}
    for path in sorted(glob.glob(glob.escape(where[:start]) + where[start:], recursive=True)):
        match = whole.fullmatch(path)
        if match and not Path(path).is_dir():
            # `**` may match no folder at all, and then has no part in the name.
            found[Path(path)] = "/".join(text for text in match.groups() if text is not None)
    if not found:
        raise DataError(f"{where}: no file matches this pattern")
    return found


def folder(where: str) -> Path:
    """The folder that all files of a pattern lie in: what stands before the first wildcard."""
    first = _WILDCARDS.search(where, _literal(where)) or _WILDCARDS.search(where)
    return Path(where[: first.start()] + "x").parent


def _literal(where: str) -> int:
    """The length of the folder at a pattern's beginning that exists as it is written: its brackets
    are no wildcards.
    """
    ends = [place for place, character in enumerate(where) if character == "/"]
    return next((end + 1 for end in reversed(ends) if Path(where[: end + 1]).is_dir()), 0)


def _expression(where: str) -> str:
    """The regular expression of a pattern, with a group for each run of wildcards."""
    text, place = "", 0
    while place < len(where):
        if where.startswith("**/", place) and (place == 0 or where[place - 1] == "/"):
            text, place = f"{text}(?:(.*)/)?", place + 3
        elif match := _WILDCARDS.match(where, place):
            text, place = text + f"({_WILDCARD.sub(_one, match[0])})", match.end()
        else:
            text, place = text + re.escape(where[place]), place + 1
    return text


def _one(wildcard: re.Match[str]) -> str:
    """The regular expression of one wildcard."""
    if wildcard[0] == "*":
        return "[^/]*"
    expression = fnmatch.translate(wildcard[0])  # (?s:...)\Z
    return expression[4 : expression.rindex(")")]

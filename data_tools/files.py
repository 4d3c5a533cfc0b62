"""Finds the files of frames, and the frames that have all their files."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from data_tools import cli, pattern
from data_tools.cli import DataError
from data_tools.matching import stem


def find(
    where: str, suffixes: Sequence[str], named: Callable[[Path], str] | None = None
) -> dict[str, Path]:
    """The files at `where` (folder, file or pattern), by the name that pairs them.

    named: the name of a file in a folder (default: `stem`).

    Raises DataError if there are none, or if two have the same name.
    """
    path = Path(where)
    if path.is_dir():
        files = {
            file: (named or stem)(file.relative_to(path))
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in suffixes and not file.name.startswith(".")
        }
    elif path.exists():  # a pipe, too: what reads it says that it is no picture
        files = {path: stem(Path(path.name))}
    elif pattern.is_pattern(where):
        files = pattern.files(where)
    else:
        raise DataError(f"{where}: no such folder or file")
    found: dict[str, Path] = {}
    for file, name in files.items():
        if name in found:
            raise DataError(
                f"{found[name]} and {file} are both '{name}': expected one of them; a pattern "
                "chooses, such as 'frames/*_rgb.png'"
            )
        found[name] = file
    if not found:
        raise DataError(f"{where}: holds none of the files looked for ({' '.join(suffixes)})")
    return found


def pair(parts: dict[str, dict[str, Path]], skip_unpaired: bool) -> list[str]:
    """The names for which all kinds of files exist, in natural order (2 before 10).

    Raises DataError, naming a file without a partner, unless skip_unpaired.
    """
    common = set.intersection(*(set(files) for files in parts.values()))
    for kind, files in parts.items():
        lonely = [name for name in files if name not in common]
        if not lonely:
            continue
        lacks = next(other for other, have in parts.items() if lonely[0] not in have)
        text = f"{files[lonely[0]]}: no {lacks} file named '{lonely[0]}' goes with it"
        if len(lonely) > 1:
            text += f" ({len(lonely)} {kind} files lack a partner)"
        if not skip_unpaired:
            raise DataError(f"{text}; --skip-bad leaves such files out")
        cli.say(f"left out: {text}")
    if not common:
        raise DataError("no frame has all its files")
    names = sorted(common, key=natural)
    _check_apart(parts, names)
    return names


def _check_apart(parts: dict[str, dict[str, Path]], names: list[str]) -> None:
    """Raises DataError if one file is two parts of a frame: two options name one folder, say."""
    for name in names:
        found: dict[tuple[int, int], str] = {}
        for kind, files in parts.items():
            if not isinstance(files[name], Path):  # a drawing of a labelling tool
                continue
            with suppress(OSError):  # what reads the file says what is wrong with it
                facts = files[name].stat()
                other = found.setdefault((facts.st_dev, facts.st_ino), kind)
                if other != kind:
                    raise DataError(
                        f"{files[name]}: is both the {other} and the {kind} of frame '{name}'"
                    )


def natural(name: str) -> list[tuple[bool, int, str]]:
    """A sort key that compares numbers in names as numbers."""
    parts = re.split(r"(\d+)", name)  # not what `isdigit` takes for digits, too, such as ²
    numbers = [part.isdecimal() for part in parts]
    return [(number, int(part) if number else 0, part)
            for number, part in zip(numbers, parts, strict=True)]  # fmt: skip

"""Finds the frame of each annotated picture by the names of files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from boundary.errors import shown
from data_tools.cli import DataError

# Trailing words of file names that tell the kind of a file, not the frame.
KIND = re.compile(
    r"[._-](rgb|colou?r|image|img|depth|depths|abs|labels?|seg|segmentation|mask|gt)$", re.I
)


class Named(Protocol):
    """A picture that is looked for. `str` of it names it in messages. names: its file, as a tool
    says it, and other names that it may have."""

    @property
    def names(self) -> Sequence[str]: ...


Found = TypeVar("Found", bound=Named)


def stem(path: Path) -> str:
    """The name that pairs a file: its path without suffix and without a trailing word of KIND."""
    text = path.with_suffix("").as_posix()
    short = KIND.sub("", text)
    return short if Path(short).name else text


def match(colors: Mapping[str, Path], pictures: Iterable[Found]) -> dict[str, Found]:
    """The picture of each frame that has one. colors: the frames' colour files by frames' names.

    A picture belongs to the colour file of its name; else to one of the same name but for the
    suffix; else but for a trailing word such as `_rgb`, too; else to the frame of that name. Where
    several fit, that with the most equal folders above it is taken.

    Pictures that belong to no frame come last, under their own names. Raises DataError where names
    leave the choice open.
    """
    paths = {name: file.absolute().as_posix() for name, file in colors.items()}
    index: dict[tuple[int, str], list[str]] = {}
    for name, path in paths.items():
        keys = [*_keys(path), (3, PurePosixPath(name).name)]
        for key in keys:
            index.setdefault(key, []).append(name)
    found: dict[str, tuple[int, Found]] = {}
    lonely: list[Found] = []
    for picture in pictures:
        name, folders = _frame(picture, index, paths)
        if name is None:
            lonely.append(picture)
            continue
        if name in found:
            other, before = found[name]
            if other == folders:
                raise DataError(f"{before} and {picture} both belong to {shown(colors[name])}")
            lonely.append(before if folders > other else picture)
            if other > folders:
                continue
        found[name] = folders, picture
    matched = {name: found[name][1] for name in colors if name in found}
    for picture in lonely:
        name = picture.names[0]
        while name in colors or name in matched:
            name = f"./{name}"
        matched[name] = picture
    return matched


def _frame(
    picture: Named, index: Mapping[tuple[int, str], Sequence[str]], paths: Mapping[str, str]
) -> tuple[str | None, int]:
    """The name of a picture's frame, None if there is none, and how many folders are equal."""
    for told in picture.names:
        path = told.replace("\\", "/")
        keys = _keys(path)
        keys += [(3, text) for level, text in keys if level == 1]
        fitting = next((index[key] for key in keys if key in index), ())
        equal = {name: _equal(path, paths[name]) for name in fitting}
        best = [name for name in fitting if equal[name] == max(equal.values())]
        if len(best) > 1:
            raise DataError(
                f"{picture}: belongs to {shown(paths[best[0]])} or to {shown(paths[best[1]])}; "
                "expected a name that tells them apart"
            )
        if best:
            return best[0], equal[best[0]]
    return None, 0


def _keys(path: str) -> list[tuple[int, str]]:
    """What a file is looked up by, the closest first."""
    file = PurePosixPath(path)
    if file.name in ("", ".."):
        return []
    return [(0, file.name), (1, file.stem), (2, stem(Path(file.name)))]


def _equal(one: str, other: str) -> int:
    """How many folders above two files are equal, from below."""
    count = 0
    pairs = zip(PurePosixPath(one).parts[-2::-1], PurePosixPath(other).parts[-2::-1], strict=False)
    for first, second in pairs:
        if first != second:
            break
        count += 1
    return count

"""dataset.json, the facts about an LMDB: what its fields may hold, checked when it is read.

data_tools writes it; netgen and eval_tools read it, too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boundary.errors import InputError, shown
from boundary.reading import read_json

NAME = "dataset.json"
FITS = ("crop", "pad", "stretch")  # what becomes of frames of another aspect ratio


def read(path: str | Path, error: type[InputError]) -> dict[str, Any]:
    """The facts in a dataset.json; fields that are null are left out.

    Raises error("PATH: FIELD: expected ...") if a known field has another type than data_tools
    gives it. Other fields may hold anything.
    """
    return checked(read_json(path, error), shown(path), error)


def checked(info: dict[str, Any], where: str, error: type[InputError]) -> dict[str, Any]:
    """Facts of that form from another JSON, as `read`. where: what errors name instead of PATH."""
    try:
        json.dumps(info, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as problem:
        half = f"\\u{ord(problem.object[problem.start]):04x}"
        raise error(f"{where}: holds half a character ({half})") from None
    info = {name: value for name, value in info.items() if value is not None}
    _check(info, FIELDS, f"{where}: ", error)
    if "options" in info:
        options = {name: value for name, value in info["options"].items() if value is not None}
        _check(options, OPTIONS, f"{where}: options.", error)
    return info


Check = Callable[[Any], bool]


def _check(
    found: dict[str, Any],
    fields: dict[str, tuple[str, Check]],
    where: str,
    error: type[InputError],
) -> None:
    for name, (what, fits) in fields.items():
        if name in found and not fits(found[name]):
            raise error(f"{where}{name}: expected {what}")


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _truth(value: Any) -> bool:
    return isinstance(value, bool)


def _count(value: Any, highest: int = 2**63 - 1) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _classes(value: Any) -> bool:
    return _texts(value) and 1 <= len(value) <= 256


def _color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(_count(part, 255) for part in value)


def _palette(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= 256 and all(map(_color, value))


def _shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(map(_count, value))


def _counts(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_count, value.values()))


def _facts(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(part, dict) for part in value.values())


def _named(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value.values()))


FIELDS: dict[str, tuple[str, Check]] = {
    **dict.fromkeys(("tool", "dataset", "split", "checksum"), ("a text", _text)),
    "labeled": ("true or false", _truth),
    "records": ("a whole number from 0 up", _count),
    "shape": ("[channels, height, width]", _shape),
    "type": ("uint8 or float32", lambda value: value in ("uint8", "float32")),
    **dict.fromkeys(("channels", "scenes", "skipped"), ("a list of texts", _texts)),
    "classes": ("a list of 1 to 256 names", _classes),
    "palette": ("a list of at most 256 [r, g, b], each 0 to 255", _palette),
    "frames": ("an object that has an object for each key", _facts),
    "names": ("an object that has a text for each key", _named),
    **dict.fromkeys(
        ("label_pixels", "scene_records", "unknown_labels", "boxes"),
        ("an object of counts", _counts),
    ),
    "labels": ("an object that has a text for each label", _named),
    **dict.fromkeys(("difficult", "beyond"), ("a whole number from 0 up", _count)),
    "options": ("an object", lambda value: isinstance(value, dict)),
}
OPTIONS: dict[str, tuple[str, Check]] = {
    "depth_range": ("a text", _text),
    "fit": (f"one of {', '.join(FITS)}", lambda value: value in FITS),
    "float_depth": ("true or false", _truth),
}

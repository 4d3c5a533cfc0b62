"""dataset.json: the facts about an LMDB, written and read with their types checked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boundary.errors import shown
from boundary.reading import read_json
from data_tools.cli import DataError
from data_tools.fit import FITS

NAME = "dataset.json"


def to_json(info: dict[str, Any]) -> str:
    """info as JSON with one key per line, so that it is readable in spite of its long lists."""
    lines = (f"{json.dumps(key)}: {json.dumps(info[key], ensure_ascii=False)}" for key in info)
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    # Names of other bytes than UTF-8 hold surrogates, which UTF-8 cannot.
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def read(path: str | Path) -> dict[str, Any]:
    """The facts in a dataset.json; fields that are null are left out.

    Raises DataError "PATH: FIELD: expected ..." if a known field has another type than these
    commands give it. Other fields may hold anything.
    """
    return checked(read_json(path, DataError), shown(path))


def checked(info: dict[str, Any], where: str) -> dict[str, Any]:
    """Facts of that form from another JSON, as `read`. where: what errors name instead of PATH."""
    try:
        json.dumps(info, ensure_ascii=False).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise DataError(f"{where}: holds half a character ({half})") from None
    info = {name: value for name, value in info.items() if value is not None}
    _check(info, FIELDS, f"{where}: ")
    if "options" in info:
        options = {name: value for name, value in info["options"].items() if value is not None}
        _check(options, OPTIONS, f"{where}: options.")
    return info


Check = Callable[[Any], bool]


def _check(found: dict[str, Any], fields: dict[str, tuple[str, Check]], where: str) -> None:
    for name, (what, fits) in fields.items():
        if name in found and not fits(found[name]):
            raise DataError(f"{where}{name}: expected {what}")


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

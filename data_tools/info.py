"""dataset.json: the facts about an LMDB, written and read with their types checked."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from boundary import dataset_json
from boundary.dataset_json import NAME as NAME
from data_tools.cli import DataError


def to_json(info: dict[str, Any]) -> str:
    """info as JSON with one key per line, so that it is readable in spite of its long lists."""
    lines = (f"{json.dumps(key)}: {json.dumps(info[key], ensure_ascii=False)}" for key in info)
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    # Names of other bytes than UTF-8 hold surrogates, which UTF-8 cannot.
    return re.sub("[\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)


def read(path: str | Path) -> dict[str, Any]:
    """The facts in a dataset.json; fields that are null are left out.

    Raises DataError as boundary.dataset_json.read says.
    """
    return dataset_json.read(path, DataError)


def checked(info: dict[str, Any], where: str) -> dict[str, Any]:
    """Facts of that form from another JSON, as `read`. where: what errors name instead of PATH."""
    return dataset_json.checked(info, where, DataError)

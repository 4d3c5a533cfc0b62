"""What the comments of a deploy prototxt state: the depth's range, the names of the classes.

netgen writes `# depth_range: 0:8 m` and `# classes: ["(ignored)", "wall", ...]`; eval_tools reads
them, and so does netgen, for the next net.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path

from boundary.errors import InputError
from boundary.reading import read_bytes, reading


def depth_range(path: str | Path, error: type[InputError]) -> tuple[str, bool] | None:
    """The rule by which the training records' depth was scaled, and whether they hold floats; None
    if no comment says it.

    Raises `error` where the file cannot be read.
    """
    for line in _lines(path, error):
        match = re.match(r"#\s*depth_range:\s*(\S+(?: m\b)?)(?:\s+(float))?", line)
        if match:
            return match[1], match[2] is not None
    return None


def classes(path: str | Path, error: type[InputError]) -> list[str]:
    """The name of each label, label 0 first; none if no comment says it, or if it is another
    program's.

    Raises `error` where the file cannot be read.
    """
    for line in _lines(path, error):
        if line.startswith("# classes: ["):
            with suppress(error), reading(path, "a list of names", error):
                names = json.loads(line.removeprefix("# classes: "))
                return names if all(isinstance(name, str) for name in names) else []
    return []


def _lines(path: str | Path, error: type[InputError]) -> list[str]:
    return read_bytes(path, error).decode(errors="replace").splitlines()

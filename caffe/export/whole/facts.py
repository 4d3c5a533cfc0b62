"""What a net for RGB-D frames was trained on: how depth became 0..255, its classes, how frames fit.

data_tools and eval_tools write and read the same facts; this is what an ONNX file needs of them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from boundary import dataset_json, packed
from boundary.errors import shown
from boundary.reading import check_plain, read_bytes, reading
from caffe.errors import CaffeError

PathLike = str | os.PathLike[str]
_RULES = "authors, valid or MIN:MAX in metres with 0 <= MIN < MAX"


@dataclass(frozen=True)
class DepthRule:
    """How metres become 0..255: 'authors' (each frame's minimum to its maximum, holes included),
    'valid' (holes 0, readings 1..255), 'fixed' (near..far metres) or 'none' (they are that).
    """

    rule: str
    near: float = 0.0
    far: float = 0.0

    @classmethod
    def parse(cls, text: str) -> DepthRule:
        """The rule that a text names, as --depth-range and dataset.json have it: `0.5:8`, say.

        Raises ValueError, which says what was expected, for another text.
        """
        text = text.removesuffix(" m")
        if text in ("authors", "valid", "none"):
            return cls(text)
        try:
            near, far = (float(part) for part in text.split(":"))
        except ValueError:
            near = far = 0.0
        if not 0 <= near < far < math.inf:
            raise ValueError(f"{text[:40]!r}: expected {_RULES}")
        return cls("fixed", near, far)

    def __str__(self) -> str:
        return f"{self.near:g}:{self.far:g} m" if self.rule == "fixed" else self.rule


@dataclass(frozen=True)
class Facts:
    """depth: None if nothing says it. floats: whether depth stays a fraction, as in records of
    floats. fit: what was done to frames of another aspect ratio (crop, pad or stretch; None if
    nothing says it). classes, palette: by label, 0 first; empty if they are not known.
    """

    depth: DepthRule | None = None
    floats: bool = False
    fit: str | None = None
    classes: tuple[str, ...] = ()
    palette: tuple[tuple[int, int, int], ...] = ()


def read_facts(net: PathLike, dataset: PathLike | None = None) -> Facts:
    """What is known of the net in a prototxt or a packed model.

    dataset: its training data, an LMDB with its dataset.json or that file alone, which goes before
    what the net's own file says. A prototxt's comments are `# depth_range: valid`, followed by
    ` float` for records of floats, and `# classes: ["(ignored)", "wall"]`.
    Raises CaffeError for files that cannot be read, and for a dataset that says nothing of depth.
    """
    if packed.is_packed(net):
        where = f"{shown(net)}: {packed.MANIFEST}"
        info = dataset_json.checked(packed.read(net, CaffeError).info, where, CaffeError)
        own = _from_info(info, where)
    else:
        own = _from_comments(net)
    if dataset is None:
        return own
    path = Path(dataset)
    path = path / dataset_json.NAME if path.is_dir() else path
    found = _from_info(dataset_json.read(path, CaffeError), shown(path))
    if found.depth is None:
        raise CaffeError(f"{shown(path)}: no options with a depth_range in it")
    if not found.classes:
        return replace(found, classes=own.classes, palette=own.palette)
    return found


def _from_comments(net: PathLike) -> Facts:
    found = Facts()
    for line in read_bytes(net, CaffeError).decode(errors="replace").splitlines():
        if match := re.match(r"#\s*depth_range:\s*(\S+(?: m\b)?)(?:\s+(float))?", line):
            rule = _rule(match[1], f"{shown(net)}: ")
            found = replace(found, depth=rule, floats=match[2] is not None)
        elif line.startswith("# classes: ["):
            with suppress(CaffeError), reading(net, "a list of names", CaffeError):
                names = json.loads(line.removeprefix("# classes: "))
                if all(isinstance(name, str) for name in names):  # else another program's comment
                    found = replace(found, classes=tuple(names))
    return found


def _from_info(info: Mapping[str, Any], where: str) -> Facts:
    """The facts in a dataset.json, or in what a packed model has in its form."""
    options = info.get("options", {})
    text = options.get("depth_range")
    return Facts(
        _rule(text, f"{where}: options: ") if text else None,
        bool(options.get("float_depth")),
        options.get("fit"),
        tuple(info.get("classes", ())),
        tuple((r, g, b) for r, g, b in info.get("palette", ())),
    )


def _rule(text: str, where: str) -> DepthRule:
    try:
        return DepthRule.parse(text)
    except ValueError as error:
        raise CaffeError(f"{where}depth_range {error}") from None


def source_of(net: PathLike, weights: PathLike | None) -> dict[str, dict[str, str]]:
    """Name and SHA-256 of the files that a net was read from: {'net': {'file', 'sha256'}, ...}.

    weights: None for a packed model, whose own list of its parts says them.
    """
    if weights is None:
        parts = packed.read(net, CaffeError).info["parts"]
        name = Path(net).name
        return {
            part: {"file": f"{name}/{parts[part]['file']}", "sha256": parts[part]["sha256"]}
            for part in ("net", "weights")
        }
    files = {"net": net, "weights": weights}
    return {
        part: {"file": Path(path).name, "sha256": _sha256(path)} for part, path in files.items()
    }


def _sha256(path: PathLike) -> str:
    check_plain(path, CaffeError)
    digest = hashlib.sha256()
    with reading(path, "a file that can be read", CaffeError), open(path, "rb") as file:
        while data := file.read(2**20):
            digest.update(data)
    return digest.hexdigest()

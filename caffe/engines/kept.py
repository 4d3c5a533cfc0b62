"""Kept choices: which engine was the fastest for a net and shapes, in files under the user's cache.

A choice is one small file, named by a hash of all that it depends on. Files that cannot be read or
written are as good as none.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import os
import platform
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boundary.reading import read_json, read_text
from boundary.writing import write_text
from caffe import __version__
from caffe.errors import CaffeError
from caffe.layers.base import Shape

FORMAT = 2  # of the files, and of how choices are made
LARGEST = 1 << 16  # bytes of a file
PACKAGES = ("torch", "onnx", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Kept:
    """A choice: the name of the program, and the milliseconds of a pass of each that was timed."""

    program: str
    milliseconds: Mapping[str, float]


def key(net: bytes, shapes: Sequence[Shape], threads: int) -> str:
    """The hash that names a choice. net: the layers that are computed, without their weights."""
    facts: list[Any] = [FORMAT, _versions(), _processor(), threads, [list(s) for s in shapes]]
    found = hashlib.sha256(json.dumps(facts).encode())
    found.update(net)
    return found.hexdigest()


def read(key: str, programs: Set[str]) -> Kept | None:
    """The choice of that name if it is one of these programs; None if there is none."""
    folder = _folder()
    if folder is None or not os.path.isfile(folder / f"{key}.json"):  # not Path's, which raises
        return None
    return read_file(folder / f"{key}.json", programs)


def read_file(path: str | os.PathLike[str], programs: Set[str]) -> Kept | None:
    """The choice in a file; None for a file that holds none of these programs, or none at all."""
    with suppress(CaffeError, AttributeError, KeyError, OverflowError, TypeError, ValueError):
        found = read_json(path, CaffeError, most=LARGEST)
        times = {str(name): float(value) for name, value in found["milliseconds"].items()}
        if found["program"] in programs:
            return Kept(found["program"], times)
    return None


def write(key: str, net: str, choice: Kept) -> None:
    """Keep a choice. net: its name, for people who look into the file."""
    folder = _folder()
    if folder is None:
        return
    content = {"net": net, "program": choice.program, "milliseconds": dict(choice.milliseconds)}
    with suppress(OSError, CaffeError):
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / f"{key}.json", json.dumps(content, indent=1) + "\n", CaffeError)


def _folder() -> Path | None:
    """Where choices are kept; None where the user has no home."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):  # the specification says to ignore others
        return Path(base, "fusenet", "engines")
    with suppress(RuntimeError):
        return Path.home() / ".cache" / "fusenet" / "engines"
    return None


@functools.cache
def _versions() -> dict[str, str]:
    found = {"fusenet": __version__}
    for name in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def _processor() -> list[Any]:
    """What tells processors apart: the model, its instructions, and how many cores may be used."""
    text = ""
    with suppress(CaffeError):
        text = read_text("/proc/cpuinfo", CaffeError)
    first = text.partition("\n\n")[0].splitlines()
    names = ("model name", "flags", "CPU part", "Features")
    told = [line for line in first if line.partition(":")[0].strip() in names]
    return [platform.machine(), *told, len(os.sched_getaffinity(0))]

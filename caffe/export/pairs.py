"""Which weights belong to which net: a folder's files in pairs, or the lines of a list."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from boundary import packed
from boundary.reading import read_lines
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.proto import caffe_pb2 as pb

WEIGHTS = (".caffemodel", ".caffemodel.h5", ".pth", ".pt")
NETS = (".prototxt", ".pbtxt")
# Words in names of files that say nothing of which net it is.
COMMON = {
    "deploy", "train", "test", "val", "trainval", "net", "model", "weights", "final", "iter",
    "caffemodel", "prototxt", "pbtxt", "pth", "pt", "h5", "inference", "merged", "bn",
}  # fmt: skip


@dataclass(frozen=True)
class Job:
    """A net and its weights, and the file to write. problem: why they cannot be a job.

    A packed model is a net with its own weights.
    """

    net: Path
    weights: Path | None
    out: Path
    problem: str = ""


def jobs(place: Path, out: Path | None) -> list[Job]:
    """The jobs of a folder or of a list.

    In a folder, below it, too, each file of weights belongs to the net beside it whose layers it
    names most, the one of the like name among equals; nets for deployment win. Packed models need
    none. A list has lines of a net, its weights and perhaps the file to write, or of a packed model
    and perhaps that file; paths start from the working directory, or
    from the list's folder.
    out: the folder to write to; None: beside the weights. Raises CaffeError if there are no jobs.
    """
    found = list(_of_folder(place, out) if place.is_dir() else _of_list(place, out))
    if not found:
        what = (
            "no weights (.caffemodel, .h5, .pth, .fusenet)"
            if place.is_dir()
            else "no lines of nets"
        )
        raise CaffeError(f"{place}: {what} in it")
    outs = [job.out for job in found]
    return [
        replace(job, problem=f"{job.out} would be written twice") if job.out in outs[:i] else job
        for i, job in enumerate(found)
    ]


def _target(weights: Path, out: Path | None, below: Path | None = None) -> Path:
    name = weights.name
    for ending in (*sorted(WEIGHTS, key=len, reverse=True), packed.SUFFIX):
        if name.lower().endswith(ending):
            name = name[: -len(ending)]
            break
    folder = weights.parent
    if out is not None:
        folder = out / weights.parent.relative_to(below) if below else out
    return folder / f"{name}.onnx"


# -- a list -----------------------------------------------------------------------------------


def _of_list(path: Path, out: Path | None) -> Iterator[Job]:
    for number, line in enumerate(read_lines(path, CaffeError), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        alone = words[0].lower().endswith(packed.SUFFIX)
        least = 1 if alone else 2
        if len(words) not in (least, least + 1):
            one = "a packed model" if alone else "a net, its weights"
            raise CaffeError(
                f"{path}:{number}: expected {one} and perhaps the file to write, got "
                f"{line.strip()!r}"
            )
        net, *weights = (_existing(word, path.parent) for word in words[:least])
        target = Path(words[least]) if len(words) > least else _target([net, *weights][-1], out)
        yield Job(net, weights[0] if weights else None, target)


def _existing(word: str, folder: Path) -> Path:
    path = Path(word)
    return path if path.exists() or not (folder / path).exists() else folder / path


# -- a folder ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    path: Path
    layers: frozenset[str]
    deploys: bool  # it has inputs, and no data layers


def _of_folder(folder: Path, out: Path | None) -> Iterator[Job]:
    for root, folders, names in os.walk(folder):
        folders.sort()
        here = Path(root)
        for name in sorted(names):
            if name.lower().endswith(packed.SUFFIX):
                yield Job(here / name, None, _target(here / name, out, folder))
        weights = [here / name for name in sorted(names) if name.lower().endswith(WEIGHTS)]
        if not weights:
            continue
        nets = [here / name for name in sorted(names) if name.lower().endswith(NETS)]
        candidates = [c for c in map(_candidate, nets) if c is not None]
        for path in weights:
            yield _job(path, candidates, _target(path, out, folder))


def _candidate(path: Path) -> _Candidate | None:
    """A net's prototxt as far as it matters here; None for a solver or anything else."""
    try:
        net = files.read_net(path)
    except CaffeError:
        return None
    if not net.layer:
        return None
    names = frozenset(layer.name for layer in net.layer)
    deploys = not any(_feeds(layer) for layer in net.layer)
    return _Candidate(path, names, deploys)


def _feeds(layer: pb.LayerParameter) -> bool:
    return not layer.bottom and layer.type != "Input" and bool(layer.top)


def _job(weights: Path, candidates: Sequence[_Candidate], out: Path) -> Job:
    if not candidates:
        return Job(weights.parent, weights, out, "no net's prototxt beside it")
    ordered = sorted(
        candidates,
        key=lambda c: (-_shared(weights, c), not c.deploys, -_likeness(weights, c.path), c.path),
    )
    return Job(ordered[0].path, weights, out)


def _shared(weights: Path, candidate: _Candidate) -> float:
    """The share of the layers in a Caffe model that the net has, too."""
    if not weights.name.lower().endswith((".caffemodel", ".h5")):
        return 0
    try:
        named = [name for name, arrays in files.read_weights(weights).items() if arrays]
    except CaffeError:  # the conversion says what is wrong
        return 0
    return round(sum(name in candidate.layers for name in named) / max(len(named), 1), 2)


def _likeness(weights: Path, net: Path) -> int:
    """How many words the names of both files share."""
    return len(_words(weights.name) & _words(net.name))


def _words(name: str) -> set[str]:
    return {w for w in re.split(r"[^a-z0-9]+", name.lower()) if not w.isdigit()} - COMMON - {""}

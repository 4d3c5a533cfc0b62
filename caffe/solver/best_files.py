"""The files of the best snapshot, PREFIX_best.*, which change together.

They are PREFIX_best.caffemodel, .solverstate and .resume. New ones are written to the folder
.PREFIX_best.new, the .solverstate last. Then they are moved from there: the old .solverstate goes
first, the new one comes last, so that wherever a .solverstate is, it has its own model beside it.
If a kill comes before the new .solverstate is in the folder, the old files are still whole, and the
folder is removed; if it comes later, the next run with keep_best, or one that resumes from the
best, finishes the move.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from boundary.errors import reason
from boundary.writing import sync
from caffe.errors import CaffeError
from caffe.formats.files import PathLike
from caffe.solver import resume, snapshots

_ENDS = (".solverstate", ".solverstate.h5")


def stem(prefix: PathLike) -> str:
    """The path of the best files without their endings."""
    return f"{os.fspath(prefix)}_best"


@contextmanager
def new_files(prefix: PathLike) -> Iterator[Path]:
    """Yields an empty folder for new best files; they replace the old ones if the block succeeds.

    The block writes a whole snapshot there. Raises CaffeError if the system does not let it.
    """
    folder = _folder(prefix)
    with _told(folder):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    _move(prefix, over=True)


def repair(prefix: PathLike) -> None:
    """Finish the writing of best files that a kill has interrupted, or leave the old ones.

    Not while a run of this prefix is writing: only for the process that begins to.
    """
    if _waiting(prefix) is not None:
        _move(prefix, over=True)
    else:
        shutil.rmtree(_folder(prefix), ignore_errors=True)


def complete(state: PathLike) -> None:
    """Before a state is read: if it is a best one, and a kill came as it was moved, finish that.

    Several processes may do this at a time.
    """
    name = os.fspath(state)
    for end in _ENDS:
        prefix = name.removesuffix(f"_best{end}")
        if prefix != name and not os.path.exists(name) and _waiting(prefix) is not None:
            _move(prefix, over=False)


def found(prefix: PathLike) -> tuple[int | None, str]:
    """The iteration of the best files; None, and what is wrong, without good ones."""
    states = [Path(stem(prefix) + end) for end in _ENDS]
    state = next((path for path in states if path.is_file()), None)
    if state is None:
        return None, f"{states[0]}: No such file"
    try:
        side = resume.read(resume.side_file(state))
        snapshots.check(snapshots.Snapshot(state, side["iteration"], 0, side["model"]["file"]))
    except CaffeError as error:
        return None, str(error)
    return side["iteration"], ""


def _folder(prefix: PathLike) -> Path:
    """Where new best files wait until all are there."""
    folder, name = os.path.split(stem(prefix))
    return Path(folder, f".{name}.new")


def _waiting(prefix: PathLike) -> Path | None:
    """The .solverstate of new best files that are complete."""
    name = os.path.basename(stem(prefix))
    states = [_folder(prefix) / (name + end) for end in _ENDS]
    return next((path for path in states if path.is_file()), None)


def _move(prefix: PathLike, over: bool) -> None:
    """Move complete new files to their names. over: a state of that name may be there already."""
    new, name = _waiting(prefix), stem(prefix)
    if new is None:
        return
    binary = new.suffix != ".h5"
    models = [f"{name}.caffemodel{end}" for end in (("", ".h5") if binary else (".h5", ""))]
    for end in _ENDS:
        if over or not new.name.endswith(end):  # else it is what another process has just moved
            snapshots.forget(name + end)
    with _told(name):
        _replace(new.with_name(os.path.basename(models[0])), models[0])
        _replace(new.with_name(f"{os.path.basename(name)}.resume"), f"{name}.resume")
        Path(models[1]).unlink(missing_ok=True)  # of a run with another snapshot_format
        sync(Path(name).resolve().parent)
        _replace(new, f"{name}{_ENDS[not binary]}")
        sync(Path(name).resolve().parent)
    shutil.rmtree(new.parent, ignore_errors=True)


def _replace(source: Path, target: str) -> None:
    with suppress(FileNotFoundError):  # moved before, or by another process
        os.replace(source, target)


@contextmanager
def _told(path: PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CaffeError(f"{path}: cannot be written: {reason(error)}") from None

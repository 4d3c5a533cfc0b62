"""The snapshots under one snapshot_prefix: find the newest good one, and remove old ones."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile

from boundary.errors import reason
from boundary.writing import clear_stale, sync
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.formats.files import PathLike
from caffe.process.log import INFO, WARNING, emit
from caffe.solver import resume

_PLACE = "snapshots.py:1"  # for log lines that have no counterpart in Caffe
_NAME = r"_iter_(\d+)\.(?:caffemodel|solverstate|resume)(?:\.h5)?"

Log = Callable[[str, str, int], None]


@dataclass(frozen=True)
class Snapshot:
    """One snapshot, identified by its .solverstate, the file that is written last."""

    state: Path
    iteration: int
    run: int  # the side file's; 0 if it has none, or if there is no side file
    model: str | None  # the model's file name from the side file; None without a good one

    @property
    def side(self) -> Path:
        return resume.side_file(self.state)


def check_prefix(prefix: str) -> None:
    """Raise CaffeError unless files can be written under a snapshot_prefix."""
    try:
        with TemporaryFile(dir=os.path.dirname(prefix) or "."):  # it has no name that could stay
            pass
    except OSError as error:
        raise CaffeError(
            f"solver: cannot write to snapshot prefix {prefix!r} ({error.strerror}): the directory "
            "must exist and be writable"
        ) from None


def latest_snapshot(prefix: PathLike, log: Log = emit) -> str | None:
    """The path of the newest good .solverstate under a snapshot_prefix; None if there is none.

    A good one can be read, and its model exists and is undamaged. Others are passed over, and the
    reason is logged.
    """
    for snapshot in find(prefix):
        try:
            check(snapshot)
        except CaffeError as error:
            log(_PLACE, f"Passing over the snapshot {snapshot.state}: {error}", WARNING)
            continue
        return str(snapshot.state)
    return None


def resume_point(snapshot: str, prefix: PathLike) -> str:
    """The solver state to resume from; snapshot: its path, or "latest".

    An empty text if "latest" finds none. The run then starts from the beginning, so that one
    command can start a job and restart it after each interruption.
    """
    if snapshot != "latest":
        return snapshot
    found = latest_snapshot(prefix)
    if found is None:
        emit(_PLACE, f"No snapshot {prefix}_iter_N.solverstate so far: starting from the beginning")
    return found or ""


def find(prefix: PathLike) -> list[Snapshot]:
    """All snapshots under a prefix that have a .solverstate, the newest first.

    Those of a later run come first, and within a run those of a later iteration; clocks and the
    times of files do not count. A snapshot whose run is unknown (Caffe's, which has no side file,
    or an earlier version's) counts as older than all whose run is known. One with a damaged side
    file comes before the others, for check() to say so.
    """
    folder, base = os.path.split(os.fspath(prefix))
    pattern = re.compile(re.escape(base) + r"_iter_(\d+)\.solverstate(?:\.h5)?")
    found = []
    for path in Path(folder or ".").glob("*.solverstate*"):
        match = pattern.fullmatch(path.name)
        if match and path.is_file():
            state = Path(folder) / path.name
            found.append(Snapshot(state, int(match[1]), *_run_and_model(resume.side_file(state))))
    return sorted(found, key=lambda s: (s.run, s.iteration), reverse=True)


_LATEST = 2**63  # stands for the run of a damaged side file


def _run_and_model(side: Path) -> tuple[int, str | None]:
    """The run and the model that a side file names."""
    if not side.exists():
        return 0, None
    try:
        content = resume.read(side)
        return content["run"], content["model"]["file"]
    except CaffeError:
        return _LATEST, None


def next_run(prefix: PathLike) -> int:
    """The number of a new run under a prefix: one more than the highest of those before it."""
    folder, base = os.path.split(os.fspath(prefix))
    pattern = re.compile(re.escape(base) + r"_iter_\d+\.resume")
    sides = (path for path in Path(folder or ".").glob("*.resume") if pattern.fullmatch(path.name))
    runs = (_run_and_model(path)[0] for path in sides)
    return 1 + max((run for run in runs if run < _LATEST), default=0)


def check(snapshot: Snapshot) -> None:
    """Raise CaffeError, saying why, if a run cannot resume from the snapshot."""
    state = files.read_solver_state(snapshot.state)
    model = None
    if state.learned_net is not None:
        model = beside(state.learned_net, snapshot.state)
        if not os.path.exists(model):
            raise CaffeError(f"{model}: No such file")
    if not snapshot.side.exists():  # written by Caffe
        if model is not None:
            files.read_weights(model)
        return
    content = resume.read(snapshot.side)
    if content["history_crc32"] != resume.history_crc32(state.history):
        raise CaffeError(f"{snapshot.side}: belongs to another snapshot")
    if model is not None and content["model"] != resume.fingerprint(model):
        raise CaffeError(f"{model}: damaged, or another than the snapshot's")


def beside(learned_net: str, state_file: PathLike) -> str:
    """The model's path or, if the folder was moved, the file of that name beside the state."""
    moved = os.path.join(os.path.dirname(state_file), os.path.basename(learned_net))
    return moved if not os.path.exists(learned_net) and os.path.exists(moved) else learned_net


def read_state(path: PathLike) -> files.SolverStateData:
    """files.read_solver_state, which here also tells weights from a state.

    Raises CaffeError as that does; for a file of weights it names the state beside them, if any.
    """
    path = os.fspath(path)
    try:
        state, problem = files.read_solver_state(path), None
    except CaffeError as error:
        state, problem = None, error
    if state is not None and (state.history or state.iter or state.learned_net is not None):
        return state
    if _holds_weights(path):
        found = [p for p in _states_of(path) if os.path.isfile(p)]
        hint = f"its state is {found[0]}" if found else "expected a .solverstate"
        raise CaffeError(f"{path}: holds weights, not the state of a solver; {hint}")
    if problem is not None:
        raise problem
    assert state is not None
    return state


def _holds_weights(path: str) -> bool:
    try:
        return bool(files.read_weights(path))
    except CaffeError:
        return False


def _states_of(model: str) -> list[str]:
    """The names that the state beside a model may have."""
    stem = model.removesuffix(".h5").removesuffix(".caffemodel")
    return [f"{stem}.solverstate", f"{stem}.solverstate.h5"]


# -- keeping a few -----------------------------------------------------------------------------


def prune(prefix: PathLike, keep: int, newest: PathLike, log: Log = emit) -> None:
    """Remove all snapshots under a prefix but the `keep` newest; `newest` was written just now.

    Only snapshots with a good side file are removed: others were not written by this engine, or
    somebody has taken them apart on purpose. Removals that were interrupted are finished.
    """
    ours = [s for s in find(prefix) if s.model is not None and s.state != Path(newest)]
    doomed = {s.iteration: str(s.state) for s in ours[keep - 1 :]}
    for iteration in _begun(prefix):
        doomed.setdefault(iteration, f"{prefix}_iter_{iteration}")
    for iteration, name in doomed.items():
        try:
            _remove(prefix, iteration)
            log(_PLACE, f"Removed the snapshot {name}", INFO)
        except (OSError, CaffeError) as error:
            log(_PLACE, f"Cannot remove the snapshot {name}: {error}", WARNING)


def _remove(prefix: PathLike, iteration: int) -> None:
    """Remove a snapshot's files, its state first, so that each .solverstate left is complete."""
    stem = f"{os.fspath(prefix)}_iter_{iteration}"
    mark, side = _mark(stem), Path(f"{stem}.resume")
    model = resume.read(side)["model"]["file"] if side.exists() else None
    mark.touch()
    for end in ("", ".h5"):
        forget(f"{stem}.solverstate{end}", keep_mark=True)
    for path in (Path(f"{stem}.caffemodel"), Path(f"{stem}.caffemodel.h5")):
        if path.name == model:
            path.unlink(missing_ok=True)
    side.unlink(missing_ok=True)
    mark.unlink()


def _mark(stem: str) -> Path:
    """The file that marks a removal as begun, in case the process is killed before its end."""
    folder, name = os.path.split(stem)
    return Path(folder, f".{name}.removing")


def _begun(prefix: PathLike) -> list[int]:
    """The iterations of snapshots whose removal has begun."""
    folder, base = os.path.split(os.fspath(prefix))
    pattern = re.compile(rf"\.{re.escape(base)}_iter_(\d+)\.removing")
    matches = (pattern.fullmatch(path.name) for path in Path(folder or ".").glob(".*.removing"))
    return [int(match[1]) for match in matches if match]


def forget(state: PathLike, keep_mark: bool = False) -> None:
    """Remove a .solverstate and sync its folder, before the files that belong to it change.

    Raises CaffeError if the system does not let it.
    """
    path = Path(state)
    try:
        _forget(path, keep_mark)
    except OSError as error:
        raise CaffeError(f"{path}: cannot be written: {reason(error)}") from None


def _forget(path: Path, keep_mark: bool) -> None:
    if not keep_mark:  # the new snapshot of that name is not to be removed
        _mark(os.fspath(resume.side_file(path)).removesuffix(".resume")).unlink(missing_ok=True)
    if path.exists():
        path.unlink()
        sync(path.resolve().parent)


def sweep(prefix: PathLike) -> None:
    """Remove the half-written files of processes that were killed while writing a snapshot."""
    clear_stale(os.path.dirname(os.fspath(prefix)) or ".")

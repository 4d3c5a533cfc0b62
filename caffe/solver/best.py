"""The best snapshot: which value of a test judges, and the files PREFIX_best.*.

A test that is better than all before it leaves a snapshot of the state before the test, as
PREFIX_best.caffemodel, .solverstate and .resume: a run that resumes from it makes the test again.

The three files change together. They are written to the folder .PREFIX_best.new, the .solverstate
last. Then they are moved from there: the old .solverstate goes first, the new one comes last, so
that wherever a .solverstate is, it has its own model beside it. If a kill comes before the new
.solverstate is in the folder, the old files are still whole, and the folder is removed; if it comes
later, the next run with keep_best, or one that resumes from the best, finishes the move.

What the best test was, and how many came after it, is part of a run's state: each snapshot has it
as it was before the test of its own iteration (caffe/solver/resume.py). A run that resumes from
there makes the later tests again, with the same outcomes, and so writes the same best files as a
run that was never broken. Until then the files may be of a later iteration than the resumed one;
they stay until a test is better than the best that the snapshot knows. If the resumed run goes
another way (with another rate, say), its own tests count, not those of the run that was left.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from boundary.errors import reason
from boundary.writing import sync
from caffe.errors import CaffeError
from caffe.formats.files import PathLike
from caffe.net import Net
from caffe.process.log import WARNING, number
from caffe.process.progress import tell
from caffe.process.ranks import announce, root_solver
from caffe.solver import resume, snapshots
from caffe.solver.resume import BestTest
from caffe.solver.watching import Outcome, less_is_better

FORM = "TOP[@NET][:INDEX][:max|min]"
_FORM = re.compile(r"(.+?)(?:@(\d{1,6}))?(?::(\d{1,9}))?", re.DOTALL)
_PLACE = "best.py:1"  # for log lines that have no counterpart in Caffe
_ENDS = (".solverstate", ".solverstate.h5")


# -- which output judges -----------------------------------------------------------------------


@dataclass(frozen=True)
class Judge:
    """One value of an output of a test net. direction: "max" or "min", whichever is better.

    label: the value's name, as FORM without the direction.
    """

    net: int
    name: str
    index: int
    direction: str
    label: str

    def value(self, outcome: Outcome) -> float:
        """The value in the outcome of a test of this net. Raises CaffeError if it is not there."""
        for figure in outcome.figures:
            if (figure.name, figure.index) == (self.name, self.index):
                return figure.value
        raise CaffeError(
            f"keep_best: the test at iteration {outcome.iteration} gave no value {self.label}"
        )

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value is better; than: None if there is none so far. NaN is never better."""
        low = value if self.direction == "max" else -value
        if than is None:
            return low > -math.inf
        return low > (than if self.direction == "max" else -than)


def judge(text: str, nets: Sequence[Net], sizes: Sequence[dict[str, int]]) -> Judge:
    """The Judge that a text names, which has the form FORM.

    nets: the test nets. sizes: for each of them, how many values a test tells of each output.
    Without a direction, less is better of a loss (it has a loss weight, or "loss" or "error" in its
    name), and more of anything else. Without @NET it is the first net that has the output.
    Raises CaffeError, with a list of the outputs, if there is no such value.
    """
    named = any(text in outputs for outputs in sizes)
    head, _, direction = text.rpartition(":")
    if named or not head or direction not in ("max", "min"):
        head, direction = text, ""
    match = _FORM.fullmatch(head)
    ways = [(head, None, None)] + ([match.groups()] if match else [])
    for name, net, index in ways:
        for i, outputs in enumerate(sizes):
            if name not in outputs or (net is not None and int(net) != i):
                continue
            if index is None and outputs[name] != 1:
                break
            place = int(index or 0)
            if place >= outputs[name]:
                break
            return _judge(i, name, place, direction, nets[i], sizes)
    raise CaffeError(
        f"keep_best {text!r}: there is no such value of a test; expected {FORM}, of these outputs: "
        f"{_listed(sizes)}"
    )


def _judge(
    net: int, name: str, index: int, direction: str, of: Net, sizes: Sequence[dict[str, int]]
) -> Judge:
    less = less_is_better(name, of.blob_loss_weights[name])
    label = name + (f"@{net}" if len(sizes) > 1 else "")
    label += f":{index}" if sizes[net][name] > 1 else ""
    return Judge(net, name, index, direction or ("min" if less else "max"), label)


def _listed(sizes: Sequence[dict[str, int]]) -> str:
    nets = []
    for i, outputs in enumerate(sizes):
        names = [
            name if count == 1 else f"{name}:0 to {name}:{count - 1}"
            for name, count in outputs.items()
        ]
        nets.append(f"{', '.join(names) or 'none'}" + (f" (@{i})" if len(sizes) > 1 else ""))
    return "; ".join(nets) or "there is no test net"


# -- following a run ---------------------------------------------------------------------------


class Keeper:
    """Keeps the best snapshot of a run, test by test; the run itself remembers the BestTest.

    patience: after how many tests in a row that are not better the run is to end; 0: never.
    impatient: whether it is to end. suffix: of the files of its snapshot_format, "" or ".h5".
    """

    def __init__(self, judge: Judge, patience: int, prefix: str, suffix: str) -> None:
        self.judge, self.patience, self.impatient = judge, patience, False
        self._prefix, self._suffix = prefix, suffix

    def known(self, best: BestTest | None) -> BestTest | None:
        """The best test from which a run goes on, if a snapshot knows one and it is of this value.

        The log tells it, and if the best files are of another test.
        """
        self.impatient = False
        if best is None:
            return None
        if (best.top, best.direction) != (self.judge.label, self.judge.direction):
            was = f"{best.top}:{best.direction}"
            announce(_PLACE, f"The best test so far was of {was}: it counts no more", WARNING)
            return None
        self.log("The best test so far", best)
        if best.value is None or not root_solver():
            return best
        iteration, problem = found(self._prefix)
        if iteration is None:
            problem = f"Its snapshot is gone, until a test is better: {problem}"
            announce(_PLACE, problem, WARNING)
        elif iteration != best.iteration:
            then = "it stays until a test is better"
            tell(f"{stem(self._prefix)}.* is of iteration {iteration}: {then}", _PLACE)
        return best

    def judged(
        self,
        best: BestTest | None,
        outcome: Outcome,
        save: Callable[[str, PathLike], None],
    ) -> BestTest | None:
        """The best test after one more; if it is this one, its snapshot is kept.

        save(stem, folder): writes a snapshot into a folder; stem: of its names at last.
        """
        if outcome.net != self.judge.net:
            return best
        best = best or BestTest(self.judge.label, self.judge.direction)
        if outcome.iteration != best.last:  # else a request had stopped the run in this test
            best = self._counted(best, outcome, save)
        self.impatient = 0 < self.patience <= best.since
        return best

    def _counted(
        self, best: BestTest, outcome: Outcome, save: Callable[[str, PathLike], None]
    ) -> BestTest:
        value, at = self.judge.value(outcome), outcome.iteration
        if not self.judge.better(value, best.value):
            return replace(best, since=best.since + 1, last=at)
        with new_files(self._prefix) as folder:
            save(stem(self._prefix), folder)
        best = replace(best, value=value, iteration=at, since=0, last=at)
        self.log("The best test so far", best)
        return best

    def log(self, what: str, best: BestTest | None) -> None:
        """Log a best test: its value, iteration and weights."""
        if best is None or best.value is None:
            tell(f"{what}: none, for no value was a number", _PLACE)
            return
        weights = f"{stem(self._prefix)}.caffemodel{self._suffix}"
        value = f"{best.top} = {number(best.value)}"
        tell(f"{what}: {value} at iteration {best.iteration}, {weights}", _PLACE)

    def log_end(self, best: BestTest | None) -> None:
        """Log that training stops because the run is impatient."""
        if best is not None:
            since = "1 test was" if best.since == 1 else f"{best.since} tests in a row were"
            self.log(f"Training stops: {since} not better. The best test", best)


# -- its files ---------------------------------------------------------------------------------


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

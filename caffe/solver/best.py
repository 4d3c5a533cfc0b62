"""The best test of a run: which value judges, and the snapshot that is kept of it.

A test that is better than all before it leaves a snapshot of the state before the test, as
PREFIX_best.* (caffe/solver/best_files.py): a run that resumes from it makes the test again.

What the best test was, and how many came after it, is part of a run's state: each snapshot has it
as it was before the test of its own iteration (caffe/solver/resume.py). A run that resumes from
there makes the later tests again, with the same outcomes, and so writes the same best files as a
run that was never broken. Until then the files may be of a later iteration than the resumed one;
they stay until a test is better than the best that the snapshot knows. If the resumed run goes
another way (with another rate, say), its own tests count, not those of the run that was left.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from caffe.errors import CaffeError
from caffe.formats.files import PathLike
from caffe.net import Net
from caffe.process.log import WARNING, number
from caffe.process.progress import tell
from caffe.process.ranks import announce, root_solver
from caffe.solver.best_files import found, new_files, stem
from caffe.solver.resume import BestTest
from caffe.solver.watching import Outcome, less_is_better

FORM = "TOP[@NET][:INDEX][:max|min]"
_FORM = re.compile(r"(.+?)(?:@(\d{1,6}))?(?::(\d{1,9}))?", re.DOTALL)
_PLACE = "best.py:1"  # for log lines that have no counterpart in Caffe


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
            tested = best is not None and best.since
            why = "no value was a number" if tested else "there was no test"
            tell(f"{what}: none, for {why}", _PLACE)
            return
        weights = f"{stem(self._prefix)}.caffemodel{self._suffix}"
        value = f"{best.top} = {number(best.value)}"
        tell(f"{what}: {value} at iteration {best.iteration}, {weights}", _PLACE)

    def log_end(self, best: BestTest | None) -> None:
        """Log that training stops because the run is impatient."""
        if best is not None:
            since = "1 test was" if best.since == 1 else f"{best.since} tests in a row were"
            self.log(f"Training stops: {since} not better. The best test", best)

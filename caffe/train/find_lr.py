"""The learning-rate finder: training on a copy while the rate rises exponentially (Smith, 2017)."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from boundary.lines import fit
from boundary.streams import columns
from boundary.writing import write_bytes, write_text
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.process import ranks
from caffe.process.log import brief, number
from caffe.process.peers import REQUESTS, Place, gather, leave
from caffe.process.progress import WIDE, Redrawn, share_terminal, tell
from caffe.process.signals import ENDING, Requests, SignalRequests
from caffe.proto import caffe_pb2 as pb
from caffe.solver import Solver, learning_rate
from caffe.solver.snapshots import check_prefix
from caffe.solver.watching import Watcher
from caffe.train.rate_curve import Curve
from caffe.train.training import Run, prepare, train

BETA = 0.9  # of the running mean that says whether the loss has exploded
EXPLODED = 4  # times the lowest running mean
# Settings of a solver that say when and what to test, save, print, and how the rate changes.
_LEFT_OUT = (
    *("test_net", "test_net_param", "test_state", "test_iter", "test_interval"),
    *("snapshot", "display", "debug_info", "average_loss", "eval_type", "gamma", "power"),
    *("stepsize", "stepvalue", *learning_rate.TAKES),
)


@dataclass(frozen=True)
class Sweep:
    """Rates from lowest to highest, in so many iterations.

    prefix: of the files that are written, PREFIX_find_lr.png and PREFIX_find_lr.csv. Raises
    CaffeError for less than 10 iterations, and for rates that do not rise or are no float32.
    """

    prefix: str
    iterations: int
    lowest: float
    highest: float

    def __post_init__(self) -> None:
        if self.iterations < 10:
            raise CaffeError(f"find_lr: {self.iterations} iterations, expected at least 10")
        if not 1e-30 <= self.lowest < self.highest <= 1e30:
            raise CaffeError(
                f"find_lr: rates from {self.lowest:g} to {self.highest:g}, expected rising ones "
                "between 1e-30 and 1e30"
            )

    def rate(self, i: int) -> float:
        """The rate of update `i`, from 0."""
        return self.lowest * (self.highest / self.lowest) ** (i / (self.iterations - 1))


def find_rate(
    sweep: Sweep, run: Run, devices: Sequence[int | None], asked: str, requests: SignalRequests
) -> int:
    """Train from a run's start, weights or snapshot while the rate rises as `sweep` says; then draw
    the losses over the rates, on stdout and as a PNG, and write them as a CSV.

    The training is a copy: it tests nothing, saves nothing, and leaves snapshots as they are. It
    ends early when the loss has exploded or is no longer finite, or by a signal; what there is by
    then is drawn. devices, asked, requests, and what it returns and raises: as train().
    """
    param = run.solver
    if not isinstance(param, pb.SolverParameter):
        param = files.read_solver(param)
    check_prefix(sweep.prefix)
    run = replace(run, solver=_copy(param, sweep), keep_best="", patience=0)
    return train(run, devices, asked, requests, partial(_sweep_here, sweep))


def _copy(param: pb.SolverParameter, sweep: Sweep) -> pb.SolverParameter:
    """A solver that trains as `param` does, by a rate that is set from outside; it does no more."""
    copy = pb.SolverParameter()
    copy.CopyFrom(param)
    for name in _LEFT_OUT:
        copy.ClearField(name)
    copy.lr_policy, copy.base_lr = "fixed", sweep.lowest
    copy.snapshot_after_train = copy.test_initialization = False
    return copy


def _paths(prefix: str) -> tuple[str, str]:
    return f"{prefix}_find_lr.png", f"{prefix}_find_lr.csv"


def _sweep_here(
    sweep: Sweep,
    run: Run,
    devices: Sequence[int | None],
    place: Place,
    uid: bytes | None,
    requests: Requests,
) -> bool:
    """The work of one process, as train_here(); the first one draws."""
    solver = prepare(run, devices, place, uid, requests)
    solver.set_requests(lambda: "none")  # nothing is saved here, whatever is asked
    if brief() and not ranks.root_solver():
        share_terminal()
    curve, request = _curve(solver, sweep, requests, place.count)
    leave()
    if ranks.root_solver():
        _show(curve, sweep, solver.param.type)
    return request == "end"


def _curve(solver: Solver, sweep: Sweep, requests: Requests, count: int) -> tuple[Curve, str]:
    """The losses of a sweep, and the request that ended it: "stop", "end" or "none"."""
    heard, mean = _Loss(), _RunningMean()
    solver.watch(heard)
    start, losses, request, diverged = math.nan, [], "none", False
    # One pass more than there are updates: the next one's loss shows what an update did.
    with _Progress(sweep) as progress:
        for i in range(sweep.iterations + 1):
            solver.param.base_lr = sweep.rate(i)
            solver.step(1)
            loss, request = _together(heard.loss, requests.next(), count)
            if i == 0:
                start = loss
                if not math.isfinite(loss):
                    raise CaffeError(f"find_lr: the loss is {loss:g} before any update")
            elif math.isfinite(loss):
                losses.append(loss)
            diverged = not math.isfinite(loss) or mean.exploded(loss)
            progress.updated(i, loss)
            if diverged or request in ENDING:
                break
    rates = tuple(sweep.rate(i) for i in range(len(losses)))
    return Curve(start, rates, tuple(losses), diverged), request


class _Progress:
    """Tells on rank 0 how far a sweep is: a brief log by a line that is redrawn, others by ten."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep, self._done, self._loss = sweep, 0, math.nan
        self._redrawn = Redrawn(self._line) if brief() and ranks.root_solver() else None

    def __enter__(self) -> _Progress:
        sweep = self._sweep
        tell(
            f"find_lr: {sweep.iterations} iterations at rates from {number(sweep.lowest)} to "
            f"{number(sweep.highest)}, on a copy: nothing of the training is saved"
        )
        if self._redrawn:
            self._redrawn.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._redrawn:
            self._redrawn.stop()

    def updated(self, done: int, loss: float) -> None:
        """So many updates are done; the loss is that after them."""
        self._done, self._loss = done, loss
        if done and not self._redrawn and done % max(1, self._sweep.iterations // 10) == 0:
            tell(self._line(WIDE))

    def _line(self, width: int) -> str:
        done = self._done
        rate = f"rate {self._sweep.rate(done - 1):.2g}" if done else ""
        loss = "" if math.isnan(self._loss) else f"loss {number(self._loss)}"
        parts = [(3, "find_lr"), (0, f"{done}/{self._sweep.iterations}"), (2, rate), (1, loss)]
        return fit(parts, width)


class _Loss(Watcher):
    """The newest iteration's loss."""

    loss = math.nan

    def iterated(self, iteration: int, loss: float) -> None:
        self.loss = loss


class _RunningMean:
    """An exponential running mean of losses, without the bias of its first terms."""

    def __init__(self) -> None:
        self._sum = self._weight = 0.0
        self._first = self._lowest = math.inf

    def exploded(self, loss: float) -> bool:
        """Take a loss; whether the mean is now EXPLODED times its minimum, and above the first."""
        self._sum = BETA * self._sum + (1 - BETA) * loss
        self._weight = BETA * self._weight + 1 - BETA
        mean = self._sum / self._weight
        self._first = mean if math.isinf(self._first) else self._first
        self._lowest = min(self._lowest, mean)
        return mean > max(self._first, EXPLODED * self._lowest)


def _together(loss: float, request: str, count: int) -> tuple[float, str]:
    """The mean loss of all processes, and the request that they follow."""
    found = gather((loss, request)) if count > 1 else [(loss, request)]
    losses, requests = zip(*found, strict=True)
    return sum(losses) / count, max(requests, key=REQUESTS.index)


def _show(curve: Curve, sweep: Sweep, kind: str) -> None:
    """Write the two files, and print the curve and what it suggests."""
    if not curve.losses:
        if curve.diverged:
            lowest = number(sweep.lowest)
            raise CaffeError(
                "find_lr: the loss is no longer finite after the first update, at the lowest rate, "
                f"{lowest}: give lower rates with -find_lr_range"
            )
        print("find_lr: it was stopped before the first update: nothing is drawn")
        return
    picture, table = _paths(sweep.prefix)
    write_bytes(picture, curve.png(f"{kind}, {len(curve.losses)} iterations"), CaffeError)
    write_text(table, curve.csv(), CaffeError)
    width = _width()
    words = [*curve.words(), f"The curve is in {picture} and {table}."]
    whole = {"break_on_hyphens": False, "break_long_words": False}  # flags and paths
    folded = [line for text in words for line in textwrap.wrap(text, width, **whole)]
    print("\n".join([*curve.plot(width), "", *folded]), flush=True)


def _width() -> int:
    """Of the terminal that stdout is; 80 if it is none."""
    width = columns(1)
    return max(20, width - 1) if width else 80

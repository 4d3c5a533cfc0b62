"""What `caffe train -brief` shows of a run: a line of progress, lines of tests and snapshots."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType

from boundary.lines import fit, fold
from boundary.streams import say, stderr
from caffe.process.progress import Redrawn
from caffe.process.signals import ENDING
from caffe.solver import Solver
from caffe.solver.resume import BestTest
from caffe.solver.watching import Figure, Outcome, Watcher

LISTED = 4  # a blob with more values than that is told by their mean and range
MANY = 1000  # iterations of which a tenth of a per cent is told
GLANCES = 128  # the speed is measured over so many glances at the clock,
GLANCE = 0.25  # and these seconds lie between two of them at least


class Display(Watcher):
    """Shows a solver's run within a `with` block, on stderr.

    records: those that an iteration reads, in all processes; 0: not known. stopping: whether a
    signal waits for the end of the iteration.
    """

    def __init__(
        self, solver: Solver, records: int, stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._solver, self._stopping = solver, stopping
        self._clock = _Clock(records)
        self._figures = _Figures()
        self._first, self._done = solver.iter, solver.iter  # iterations
        self._loss: float | None = None
        self._rate: float | None = None
        self._test = ""  # how far the test is that is running
        self._saved: tuple[int, str] | None = None
        self._asked = "none"
        self._redrawn = Redrawn(self._line)
        solver.watch(self)

    def __enter__(self) -> Display:
        self._clock.start(self._done)
        self._redrawn.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, where: TracebackType | None
    ) -> None:
        self._redrawn.stop()
        if kind is None:
            self._clock.tested()
            self._tell_end()

    # -- what the solver tells ------------------------------------------------------------------

    def iterated(self, iteration: int, loss: float) -> None:
        self._test = ""
        self._done, self._loss = iteration + 1, loss
        self._clock.iterated(self._done)

    def updating(self, iteration: int, rate: float) -> None:
        self._rate = rate

    def asked(self, iteration: int, request: str) -> None:
        if request not in ENDING or self._asked in ENDING:
            return
        self._asked = request
        saves = request == "end" or self._solver.param.snapshot_after_train
        if self._saved is not None and self._saved[0] == iteration:
            what = "a snapshot is saved"
        else:
            what = "saving a snapshot" if saves else "saving nothing"
        _say(f"stopping at {iteration:,}: ", [what])

    def testing(self, iteration: int, net: int, batch: int, batches: int) -> None:
        self._test = f"testing {batch}/{batches}"
        self._clock.testing()

    def tested(self, tested: Outcome) -> None:
        self._test = ""
        seconds = self._clock.tested()
        self._figures.add(tested)
        which = f" of net {tested.net}" if len(self._solver.test_nets) > 1 else ""
        parts = [_values(name, figures) for name, figures in _named(tested.figures).items()]
        if tested.loss is not None:
            parts.append(f"test loss {short(tested.loss)}")
        _say(f"test{which} at {tested.iteration:,}: ", [*parts, f"({span(seconds)})"])

    def saved(self, iteration: int, state: str) -> None:
        weights = state.replace(".solverstate", ".caffemodel")
        self._saved = (iteration, weights)
        _say(f"saved at {iteration:,}: ", [weights])

    # -- what is shown --------------------------------------------------------------------------

    def _line(self, width: int) -> str:
        done, last = self._done, self._solver.param.max_iter
        share = 100 * done / max(last, 1)
        parts = [
            (0, f"{done}/{last}"),
            (6, f"{share:.0f}%" if last < MANY else f"{share:.1f}%"),
            (1, "finishing iteration" if self._asked == "none" and self._stopping() else ""),
            (2, self._test),
            (3, "" if self._loss is None else f"loss {short(self._loss)}"),
            (7, "" if self._rate is None else f"rate {self._rate:.4g}"),
            (5, self._clock.speed()),
            (4, self._clock.left(done, self._solver)),
        ]
        return fit(parts, width)

    def _tell_end(self) -> None:
        solver = self._solver
        last, spent = solver.param.max_iter, span(self._clock.total())
        stopped = solver.iter < last
        head = f"stopped at {solver.iter:,} of {last:,}" if stopped else "done"
        made = f"{solver.iter - self._first:,} iterations in {spent}"
        loss = [] if self._loss is None else [f"loss {short(self._loss)}"]
        mean = self._clock.mean(solver.iter - self._first)
        waited = 100 * solver.net.waited / max(self._clock.total(), 1e-9)
        data = [f"{waited:.0f}% of it waiting for data"] if waited >= 1 else []
        _say(f"{head}: ", [made, *data, *mean, *loss], ", ")
        if told := self._figures.told(solver.best):
            _say("tests: ", told, "; ")
        self._tell_weights(stopped)

    def _tell_weights(self, stopped: bool) -> None:
        if self._saved is None:
            best = self._solver.best
            if self._solver.iter == self._first:
                why = ", for no iteration was made"
            else:
                why = "" if best is None or best.value is None else " but the best test's"
            _say("weights: ", [f"none are saved{why}"])
            return
        iteration, path = self._saved
        lost = self._solver.iter - iteration
        _say("weights: ", [path, *([f"({lost:,} iterations earlier)"] if lost else [])], " ")
        if stopped:
            patience = " and more -patience" if self._solver.impatient else ""
            _say("to go on: ", [f"the same command with -snapshot latest{patience}"])


class _Clock:
    """How fast a run is. Tests count apart: there are few, and they may take long."""

    def __init__(self, records: int) -> None:
        self._records = records
        self._seen: deque[tuple[float, int]] = deque(maxlen=GLANCES)  # seconds without tests, done
        self._began = time.monotonic()
        self._tests, self._in_tests = 0, 0.0  # the number of tests, and their seconds
        self._test_began: float | None = None

    def start(self, done: int) -> None:
        self._began = time.monotonic()
        self._seen.append((0.0, done))

    def iterated(self, done: int) -> None:
        self._test_began = None  # one that was interrupted
        now = self.total() - self._in_tests
        if now - self._seen[-1][0] >= GLANCE:
            self._seen.append((now, done))

    def testing(self) -> None:
        if self._test_began is None:
            self._test_began = time.monotonic()

    def tested(self) -> float:
        """The test is over; returns its seconds."""
        seconds = 0.0 if self._test_began is None else time.monotonic() - self._test_began
        self._test_began = None
        self._tests, self._in_tests = self._tests + 1, self._in_tests + seconds
        return seconds

    def total(self) -> float:
        return time.monotonic() - self._began

    def speed(self) -> str:
        """Records or iterations a second, of late."""
        pace = self._pace()
        return self._named(1 / pace) if pace else ""

    def mean(self, iterations: int) -> list[str]:
        """The same over the whole run."""
        seconds = self.total() - self._in_tests
        return [self._named(iterations / seconds)] if iterations and seconds > 0 else []

    def left(self, done: int, solver: Solver) -> str:
        """The time for the rest of the run, with its tests, if all goes on as of late."""
        pace, p = self._pace(), solver.param
        if not pace:
            return ""
        seconds = (p.max_iter - done) * pace
        if p.test_interval and self._tests:
            rest = p.max_iter // p.test_interval - done // p.test_interval
            seconds += rest * len(solver.test_nets) * self._in_tests / self._tests
        return f"{about(seconds)} left"

    def _pace(self) -> float:
        """Seconds for an iteration; 0 as long as that is not known."""
        seen = [*self._seen]  # the training thread adds to it
        if len(seen) < 2:
            return 0.0
        return (seen[-1][0] - seen[0][0]) / max(seen[-1][1] - seen[0][1], 1)

    def _named(self, iterations: float) -> str:
        value = iterations * (self._records or 1)
        shown = f"{value:.0f}" if value >= 99.5 else f"{value:#.2g}".rstrip(".")
        return f"{shown} {'images' if self._records else 'iterations'}/s"


class _Figures:
    """The last and the best value of each figure of the tests."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, str], Figure] = {}
        self._best: dict[tuple[int, str], tuple[float, int]] = {}

    def add(self, tested: Outcome) -> None:
        for name, figures in _named(tested.figures).items():
            if len(figures) > 1:
                continue
            figure, key = figures[0], (tested.net, name)
            self._last[key] = figure
            if math.isnan(figure.value):
                continue
            best = self._best.get(key)
            sign = -1 if figure.falls else 1
            if best is None or sign * figure.value > sign * best[0]:
                self._best[key] = figure.value, tested.iteration

    def told(self, kept: BestTest | None) -> list[str]:
        """A text for each figure: the last value, and the best with its iteration.

        kept: what -keep_best knows. It may be of a run that this one goes on from, and the user
        may have said whether more is better.
        """
        several = len({net for net, _ in self._last}) > 1
        told = []
        for (net, name), figure in self._last.items():
            value, iteration = self._best.get((net, name), (math.nan, 0))
            if kept is not None and kept.value is not None and kept.top in (name, f"{name}@{net}"):
                value, iteration = kept.value, kept.iteration
            text = f"{name} of net {net}" if several else name
            told.append(f"{text} {short(figure.value)}, best {short(value)} at {iteration:,}")
        return told


def _named(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    """The figures of each blob."""
    found: dict[str, list[Figure]] = {}
    for figure in figures:
        found.setdefault(figure.name, []).append(figure)
    return found


def _values(name: str, figures: Sequence[Figure]) -> str:
    values = [figure.value for figure in figures]
    if len(values) <= LISTED:
        return f"{name} {' '.join(map(short, values))}"
    known = [value for value in values if not math.isnan(value)] or [math.nan]
    mean, lowest, highest = sum(known) / len(known), min(known), max(known)
    return f"{name} {short(mean)} ({len(values)} values, {short(lowest)} to {short(highest)})"


def short(value: float) -> str:
    """A value with four digits."""
    return f"{value:#.4g}".removesuffix(".")


def span(seconds: float) -> str:
    """A time: 0:07, 12:34, 1:02:03; days stand before them."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours}:{minutes:02}:{rest:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def about(seconds: float) -> str:
    """A time that is not known exactly, in five to six columns: 0:07, 12:34, 1h02m, 2d03h."""
    if seconds < 3600:
        return span(seconds)
    hours, minutes = divmod(round(seconds / 60), 60)
    days = hours // 24
    return f"{days}d{hours % 24:02}h" if days else f"{hours}h{minutes:02}m"


def _say(head: str, parts: Sequence[str], joint: str = "  ") -> None:
    for line in fold(head, parts, stderr().columns(), joint):
        say(line)

"""Solver: the training loop, with tests, snapshots and Caffe's log lines."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from caffe.blob import Blob
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.formats.files import PathLike
from caffe.formats.forks import without_effect
from caffe.formats.prototext import check_texts
from caffe.net import Net
from caffe.net.weights import matching
from caffe.process import memory
from caffe.process.device import current_device
from caffe.process.log import WARNING, emit, number
from caffe.process.ranks import announce, root_solver, solver_rank
from caffe.process.seeds import set_random_seed
from caffe.process.signals import ENDING
from caffe.proto import caffe_pb2 as pb
from caffe.solver import best_files, learning_rate, resume, snapshots
from caffe.solver.best import Keeper, judge
from caffe.solver.detection import AP_VERSIONS, Detections
from caffe.solver.learning_rate import LearningRate
from caffe.solver.resume import BestTest, LossWindow, Point
from caffe.solver.updates import UPDATES, Update
from caffe.solver.watching import Figure, Outcome, Watcher


class Link(Protocol):
    """The link to solvers in other processes (caffe/train/allreduce.py's NCCL)."""

    def on_start(self) -> None: ...

    def on_gradients_ready(self) -> None: ...

    def agree(self, request: str) -> str: ...

    def from_first(self, value: float) -> float: ...


TRAIN_FIELDS = ("net", "net_param", "train_net", "train_net_param")
TAKES = (  # the fields of forks that have an effect
    *("eval_type", "ap_version", "show_per_class_result"),
    *learning_rate.TAKES,
)
LEAST = {  # the least value of counts
    "average_loss": 1,
    "iter_size": 1,
    "max_iter": 0,
    "display": 0,
    "snapshot": 0,
    "test_interval": 0,
    "test_iter": 0,
}


class Solver:
    """A solver, as pycaffe's: `net`, `test_nets`, `iter`, `lr`, step(), solve(), restore(), ...

    param: the path of a solver prototxt, or a SolverParameter. fresh: names or patterns (fnmatch's)
    of layers that start by their fillers, whatever the solver's `weights` hold for them. Raises
    CaffeError for a solver or net that cannot be used, before anything runs.

    snapshot_keep: the number of newest snapshots to keep under its prefix; 0 (default): all.
    best: the best test so far, if there is one (keep_best).
    ended: whether a request ('end') has ended solve() or step(), after a snapshot.
    """

    update_class: type[Update] | None = None

    def __init__(
        self, param: str | os.PathLike[str] | pb.SolverParameter, *, fresh: Sequence[str] = ()
    ) -> None:
        if not isinstance(param, pb.SolverParameter):
            param = files.read_solver(param, emit)
        self.param = pb.SolverParameter()
        self.param.CopyFrom(param)
        self.iter = 0
        self.snapshot_keep = 0
        self.best: BestTest | None = None
        text = files.text(self.param).rstrip()
        announce("solver.cpp:45", f"Initializing solver from parameters: \n{text}")
        check_texts(self.param, "solver")
        self._check_settings()
        for field, fork in without_effect(self.param, TAKES, ()):
            announce("solver.cpp:45", f"{field} ({fork}) has no effect here", WARNING)
        if self.param.random_seed >= 0:
            set_random_seed(self.param.random_seed, solver_rank())
        update_class = self.update_class or _update_class(self.param.type)
        self._update = update_class(self.param)
        self._rate = LearningRate(self.param)
        if fresh and not self.param.weights:
            raise CaffeError("fresh: the solver has no weights from which layers could differ")
        self._fresh = fresh
        self._init_train_net()
        self._init_test_nets()
        announce("solver.cpp:57", "Solver scaffolding done.")
        self._check_memory()
        self._history = [
            Blob(p.blob.shape) for _ in range(self._update.histories) for p in self.net.learnable
        ]
        self._callbacks: list[tuple[Callable[[], None], Callable[[], None]]] = []
        self._watchers: list[Watcher] = []
        self._requests: Callable[[], str] = lambda: "none"
        # These two are set if several processes train together.
        self._agree: Callable[[str], str] | None = None
        self._from_first: Callable[[float], float] | None = None
        self._stop, self._snapshot_asked, self.ended = False, False, False
        self._runs: dict[str, int] = {}  # by prefix
        self._saved: int | None = None  # the iteration of the newest snapshot of all processes
        self._loss = LossWindow([], 0.0, 0)
        self._loss_goes_on = False  # whether step() continues a restored window
        self._before_test: Point | None = None  # the state before the test that is running
        self._keeper: Keeper | None = None  # with keep_best
        self._shown_at, self._shown_iter = time.monotonic(), 0

    # -- setting up -----------------------------------------------------------------------------

    def _check_settings(self) -> None:
        p = self.param
        for field, value in p.ListFields():
            if isinstance(value, float) and not math.isfinite(value):
                raise CaffeError(f"solver: {field.name} is {value:g}, expected a finite number")
        for name, least in LEAST.items():
            value = getattr(p, name)
            lowest = value if isinstance(value, int) else min(value, default=least)
            if lowest < least:
                raise CaffeError(f"solver: {name} is {lowest}, expected at least {least}")
        if p.regularization_type not in ("L1", "L2"):
            raise CaffeError(
                f"solver: unknown regularization_type {p.regularization_type!r}; expected L1 or L2"
            )
        if p.eval_type not in ("classification", "detection"):
            raise CaffeError(
                f"solver: unknown eval_type {p.eval_type!r}; expected classification or detection"
            )
        if p.ap_version not in AP_VERSIONS:
            raise CaffeError(
                f"solver: unknown ap_version {p.ap_version!r}; expected {', '.join(AP_VERSIONS)}"
            )
        if p.snapshot and not p.HasField("snapshot_prefix"):
            raise CaffeError("solver: snapshot is given, but snapshot_prefix is not")
        if p.snapshot:
            self._check_snapshot_prefix()

    def _check_memory(self) -> None:
        """Raise CaffeError unless there is memory for gradients and history."""
        values = sum(p.blob.count for p in self.net.learnable)
        if current_device().type == "cpu":
            kept = 1 + self._update.histories
            what = f"the gradients and history ({self._update.name}) of {values} weights"
            memory.check(4.0 * kept * values, "solver", what)

    def _check_snapshot_prefix(self) -> None:
        if root_solver():
            snapshots.check_prefix(self.param.snapshot_prefix)

    def _init_train_net(self) -> None:
        p = self.param
        given = [name for name in TRAIN_FIELDS if p.HasField(name)]
        if len(given) != 1:
            raise CaffeError(
                f"solver: exactly one of {', '.join(TRAIN_FIELDS)} must be given, got "
                f"{', '.join(given) or 'none'}"
            )
        kind = given[0]
        if kind.endswith("param"):
            line = 97 if kind == "net_param" else 92
            announce(f"solver.cpp:{line}", f"Creating training net specified in {kind}.")
            net_param = pb.NetParameter()
            net_param.CopyFrom(getattr(p, kind))
        else:
            path = getattr(p, kind)
            announce("solver.cpp:102", f"Creating training net from {kind} file: {path}")
            net_param = files.read_net(path, emit)
        self.net = _net_in_state(net_param, pb.TRAIN, p.train_state)
        self._load_weights(self.net, self._fresh)

    def _init_test_nets(self) -> None:
        p = self.param
        sources: list[tuple[str, pb.NetParameter | str]] = []
        sources += [("test_net_param", param) for param in p.test_net_param]
        sources += [(f"test_net file: {path}", path) for path in p.test_net]
        generic = p.HasField("net") or p.HasField("net_param")
        count = len(p.test_iter)
        if (count < len(sources)) if generic else (count != len(sources)):
            raise CaffeError(
                f"solver: test_iter must be given once for each test net: it is given {count} "
                f"time(s), test nets are {len(sources)}"
            )
        if p.HasField("net_param"):
            sources += [("net_param", p.net_param)] * (count - len(sources))
        elif p.HasField("net"):
            sources += [(f"net file: {p.net}", p.net)] * (count - len(sources))
        if p.test_state and len(p.test_state) != len(sources):
            raise CaffeError(
                f"solver: test_state is given {len(p.test_state)} time(s), expected none or one "
                f"for each of {len(sources)} test net(s)"
            )
        if sources and p.test_interval <= 0:
            raise CaffeError("solver: test_iter is given, so test_interval must be positive")
        self.test_nets: list[Net] = []
        for i, (name, source) in enumerate(sources):
            announce("solver.cpp:190", f"Creating test net (#{i}) specified by {name}")
            net_param = files.read_net(source, emit) if isinstance(source, str) else source
            state = p.test_state[i] if p.test_state else pb.NetState()
            net = _net_in_state(net_param, pb.TEST, state)
            net.debug_info = p.debug_info
            # A pattern may be about layers that the training net alone has.
            fresh = [n for n in matching(self.net.wiring, self._fresh) if n in net.params]
            self._load_weights(net, fresh)
            self.test_nets.append(net)

    def _load_weights(self, net: Net, fresh: Sequence[str]) -> None:
        for names in self.param.weights:
            for name in names.split(","):
                announce("solver.cpp:72", f"Finetuning from {name.strip()}")
                net.copy_from(name.strip(), fresh=fresh)

    # -- pycaffe's interface --------------------------------------------------------------------

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self._rate.peek(self.iter)

    def add_callback(
        self,
        on_start: Callable[[], None] | Link,
        on_gradients_ready: Callable[[], None] | None = None,
    ) -> None:
        """Register functions to be called before each iteration and before each update.

        An NCCL object brings both, and lets all processes agree on requests and the displayed loss.
        """
        if on_gradients_ready is None:
            self._agree, self._from_first = on_start.agree, on_start.from_first
            on_start, on_gradients_ready = on_start.on_start, on_start.on_gradients_ready
        self._callbacks.append((on_start, on_gradients_ready))

    def watch(self, watcher: Watcher) -> None:
        """Let `watcher` know of every iteration, test and snapshot from now on."""
        self._watchers.append(watcher)

    def keep_best(self, top: str, patience: int = 0) -> None:
        """Keep the snapshot of the best test, as snapshot_prefix_best.* (see caffe/solver/best.py).

        It is a snapshot of before the test, whatever snapshot_keep removes. `best` says which test
        it is. A test that is repeated at one iteration counts once.

        top: the value that judges, TOP[@NET][:INDEX][:max|min]: an output of a test net, the net's
        number if several have it, the place of the value in an output of several. Less is better of
        losses (outputs with a loss weight, or with "loss" or "error" in the name), else more,
        unless said. NaN is never better.
        patience: end solve() or step(), as a request to 'stop' does, after so many tests in a row
        that were not better; 0: never.

        Raises CaffeError, with a list of the outputs, if there is none of that name, and if the
        solver has no snapshot_prefix that can be written.
        """
        if not self.param.HasField("snapshot_prefix"):
            raise CaffeError("keep_best: the solver has no snapshot_prefix")
        if patience < 0:
            raise CaffeError(f"keep_best: patience is {patience}, expected at least 0")
        self._check_snapshot_prefix()
        detects = self.param.eval_type == "detection"
        sizes = [
            {name: 1 if detects else net.blobs[name].count for name in net.outputs if count}
            for net, count in zip(self.test_nets, self.param.test_iter, strict=True)
        ]
        prefix, suffix = self.param.snapshot_prefix, self._snapshot_suffix
        self._keeper = Keeper(judge(top, self.test_nets, sizes), patience, prefix, suffix)
        if root_solver():
            best_files.repair(prefix)
        self.best = self._keeper.known(self.best)

    @property
    def impatient(self) -> bool:
        """Whether keep_best's patience has ended the run (known in the first process alone). From
        its last snapshot it would end again at once.
        """
        return self._keeper is not None and self._keeper.impatient

    def set_requests(self, requests: Callable[[], str]) -> None:
        """Set the function that returns 'stop', 'snapshot', 'end' or 'none'.

        It is called after every iteration, before every test batch and after a snapshot. 'end' is
        'stop' with a snapshot, also where the solver says snapshot_after_train: false.
        """
        self._requests = requests

    def share_weights(self, net: Net) -> None:
        """Let `net` use this solver's weights, as one memory."""
        net.share_with(self.net)

    def solve(self, resume_file: str | os.PathLike[str] | None = None) -> None:
        """Train up to max_iter, from the state in `resume_file` if one is given."""
        announce("solver.cpp:289", f"Solving {self.net.name}")
        announce("solver.cpp:290", f"Learning Rate Policy: {self.param.lr_policy}")
        self._stop, self.ended = False, False
        if resume_file:
            announce("solver.cpp:296", f"Restoring previous solver status from {resume_file}")
            self.restore(resume_file)
        p = self.param
        if p.snapshot_after_train:
            self._check_snapshot_prefix()
        self.step(p.max_iter - self.iter)
        just_taken = (p.snapshot and self.iter % p.snapshot == 0) or self._saved == self.iter
        if p.snapshot_after_train and not just_taken:
            self._snapshot_together()
        if self._stop:
            if self._keeper and not self.impatient:  # else the line of its end has told it
                self._keeper.log("The best test", self.best)
            announce("solver.cpp:311", "Optimization stopped early.")
            return
        due = p.test_interval and self.iter % p.test_interval == 0
        self._before_test = self._point() if due else None  # the pass for display is not part of it
        if p.display and self.iter % p.display == 0:
            self._smooth(self.net.forward_from_to(0, len(self.net.layers) - 1))
            loss = number(self._loss.mean)
            announce("solver.cpp:327", f"Iteration {self.iter}, loss = {loss}")
        if due:
            self._test_all()
            self._before_test = None
        if self._keeper:
            self._keeper.log("The best test", self.best)
        announce("solver.cpp:332", "Optimization Done.")

    def step(self, iterations: int) -> None:
        """Run `iterations` iterations: tests, forward and backward, update, snapshots.

        Raises CaffeError for more iterations than a solver state can count.
        """
        p, start = self.param, self.iter
        if start + iterations > 2**31 - 1:
            raise CaffeError(
                f"iteration {start + iterations}: a solver counts to {2**31 - 1} at most"
            )
        if not self._loss_goes_on:
            self._loss = LossWindow([], 0.0, start)
        self._loss_goes_on, self._before_test = False, None
        self._shown_at = time.monotonic()
        while self.iter < start + iterations:
            self.net.clear_param_diffs()
            due = p.test_interval and self.iter % p.test_interval == 0
            if due and (self.iter > 0 or p.test_initialization):
                self._before_test = self._point()
                self._test_all()
                if not self._go_on_after_test():
                    break
                self._before_test = None
            for on_start, _ in self._callbacks:
                on_start()
            display = bool(p.display) and self.iter % p.display == 0
            self.net.debug_info = display and p.debug_info
            self._smooth(self._forward_backward())
            self._follow_loss()
            if display:
                self._show()
            for watcher in self._watchers:
                watcher.iterated(self.iter, self._loss.mean)
            for _, on_gradients_ready in self._callbacks:
                on_gradients_ready()
            self.apply_update()
            request = self._agreed(self._requests())
            due = p.snapshot and self.iter % p.snapshot == 0
            if due or request in ("snapshot", "end"):
                self._snapshot_together()
                if request not in ENDING:  # one may have come while the files were written
                    request = self._agreed(self._requests())
            if request in ENDING:
                self._stop, self.ended = True, request == "end"
                break

    def apply_update(self) -> None:
        """Update the weights from the gradients in the net's parameters, and count the iteration.

        The order is Caffe's: clip, divide by iter_size, decay, then the solver's rule.
        """
        rate = self._rate.at(self.iter)
        if self.param.display and self.iter % self.param.display == 0:
            announce("sgd_solver.cpp:112", f"Iteration {self.iter}, lr = {number(rate)}")
        for watcher in self._watchers:
            watcher.updating(self.iter, rate)
        params = self.net.learnable
        # .data, because the weights may still be part of a recorded pass.
        weights = [p.blob.tensor().data for p in params]
        grads = [p.blob.diff_tensor().data for p in params]
        if params:
            self._clip(grads)
            if self.param.iter_size > 1:
                torch._foreach_mul_(grads, 1 / self.param.iter_size)
            self._regularize(weights, grads)
            rates = [rate * p.lr_mult for p in params]
            history = [h.tensor() for h in self._history]
            self._update.momentum_factor = self._rate.momentum_factor(self.iter)
            self._update.apply(grads, history, rates, self.iter + 1)
            torch._foreach_sub_(weights, grads)
            for p in params:  # writes through .data do not count as changes by themselves
                torch.autograd.graph.increment_version(p.blob.tensor())
        self.iter += 1

    def snapshot(self) -> None:
        """Save weights and solver state as snapshot_prefix_iter_N.caffemodel and .solverstate, and
        what Caffe's files leave out (caffe/solver/resume.py) as .resume.

        Each file gets its name once it is complete, the .solverstate last.
        """
        prefix = self.param.snapshot_prefix
        stem = f"{prefix}_iter_{self.iter}"
        state = f"{stem}.solverstate{self._snapshot_suffix}"
        snapshots.forget(state)  # an older one does not fit the new model
        self._save(stem, os.path.dirname(prefix))
        snapshots.sweep(prefix)
        if self.snapshot_keep > 0:
            snapshots.prune(prefix, self.snapshot_keep, state)
        for watcher in self._watchers:
            watcher.saved(self.iter, state)

    @property
    def _snapshot_suffix(self) -> str:
        return ".h5" if self.param.snapshot_format == pb.SolverParameter.HDF5 else ""

    def _save(self, stem: str, folder: PathLike) -> None:
        """Write the three files of a snapshot into a folder. stem: of the names that they will have
        at last.
        """
        hdf5, suffix = bool(self._snapshot_suffix), self._snapshot_suffix
        kind = "HDF5" if hdf5 else "binary proto"
        model, state = (f"{stem}.{end}{suffix}" for end in ("caffemodel", "solverstate"))
        now = {path: os.path.join(folder, os.path.basename(path)) for path in (model, state)}
        announce(f"solver.cpp:{474 if hdf5 else 464}", f"Snapshotting to {kind} file {model}")
        save = self.net.save_hdf5 if hdf5 else self.net.save
        save(now[model], self.param.snapshot_diff)
        history = [h.data for h in self._history]
        data = files.SolverStateData(self.iter, model, self._rate.current_step, history)
        if self.param.lr_policy == "plateau":
            largest = float(torch.finfo(torch.float32).max)
            data.minimum_loss = min(self._rate.minimum_loss, largest)
            data.iter_last_event = self._rate.iter_last_event
        point = self._before_test or self._point(together=False)
        resume.write(resume.side_file(now[state]), point, now[model], data, self._run())
        line = 296 if hdf5 else 284
        announce(f"sgd_solver.cpp:{line}", f"Snapshotting solver state to {kind} file {state}")
        (files.write_solver_state_hdf5 if hdf5 else files.write_solver_state)(now[state], data)

    def _run(self) -> int:
        """This run's number among those under the prefix; restore() begins a new run."""
        prefix = self.param.snapshot_prefix
        if prefix not in self._runs:
            self._runs[prefix] = snapshots.next_run(prefix)
        return self._runs[prefix]

    def restore(self, state_file: str | os.PathLike[str]) -> None:
        """Take over the iteration, weights and history of a .solverstate (or .solverstate.h5).

        If this engine's side file lies beside it, data and random numbers also continue where they
        were. Without it (a snapshot of Caffe's) they start over, and a log line says so. Raises
        CaffeError if a file cannot be read or the history does not fit this solver.
        """
        path = os.fspath(state_file)
        best_files.complete(path)
        state = snapshots.read_state(path)
        if len(state.history) != len(self._history):
            raise CaffeError(
                f"{path}: the history holds {len(state.history)} blob(s), this solver "
                f"({self._update.name}, {len(self.net.learnable)} parameters) needs "
                f"{len(self._history)}"
            )
        arrays = []
        for i, (mine, theirs) in enumerate(zip(self._history, state.history, strict=True)):
            shape = mine.shape
            if theirs.shape not in (shape, (1,) * (4 - len(shape)) + shape):
                raise CaffeError(
                    f"{path}: history blob {i} has the shape {theirs.shape}, expected {shape}"
                )
            arrays.append(torch.from_numpy(theirs.reshape(shape)))
        point = resume.point_of(path, state)
        if state.learned_net is not None:
            self.net.copy_from(snapshots.beside(state.learned_net, path))
        announce("sgd_solver.cpp:336", "SGDSolver: restoring history")
        for mine, theirs in zip(self._history, arrays, strict=True):
            mine.tensor().copy_(theirs)
        self.iter, self._rate.current_step = state.iter, state.current_step
        self._rate.loss = math.inf if point is None else point.loss.mean
        self._rate.iter_last_event = state.iter_last_event
        self._rate.minimum_loss = math.inf if state.minimum_loss is None else state.minimum_loss
        self._before_test = self._saved = None
        self._runs.clear()
        if point is not None:
            nets = [self.net, *self.test_nets]
            resume.go_on(point, self.iter, self.param.random_seed, nets)
            # A window that is longer than average_loss is of a run with another one.
            self._loss_goes_on = len(point.loss.window) <= self.param.average_loss
            if self._loss_goes_on:
                self._loss = point.loss
        self.best = point.best if point else None
        if self._keeper:
            self.best = self._keeper.known(self.best)

    def _point(self, together: bool = True) -> Point:
        """The state of data, random numbers and displayed loss.

        together: all processes call this, and the random states of all are included.
        """
        nets, together = [self.net, *self.test_nets], together and self._agree is not None
        loss = LossWindow(list(self._loss.window), self._loss.mean, self._loss.since)
        return resume.capture(self.param.random_seed, nets, loss, self.best, together)

    def _snapshot_together(self) -> None:
        """Take a snapshot with the random states of all processes; the first one writes it."""
        before = self._before_test
        self._before_test = before or self._point()
        if root_solver():
            self.snapshot()
        self._before_test, self._saved = before, self.iter

    # -- inside ---------------------------------------------------------------------------------

    def _forward_backward(self) -> float:
        """Run one iteration's passes; returns the mean loss of its iter_size batches."""
        net, total = self.net, 0.0
        last = len(net.layers) - 1
        for layer in net.wiring.layers:
            layer.at_iteration(self.iter)
        for _ in range(self.param.iter_size):
            total += net.forward_from_to(0, last)
            net.backward_from_to(last, 0, keep_graph=False)
        return total / self.param.iter_size

    def _clip(self, grads: Sequence[torch.Tensor]) -> None:
        limit = self.param.clip_gradients
        if limit < 0:
            return
        norm = float(torch.stack(torch._foreach_norm(grads)).norm())
        if norm > limit:
            scale = limit / norm
            announce(
                "sgd_solver.cpp:99",
                f"Gradient clipping: scaling down gradients (L2 norm {number(norm)} > "
                f"{number(limit)}) by scale factor {number(scale)}",
            )
            torch._foreach_mul_(grads, scale)

    def _regularize(self, weights: Sequence[torch.Tensor], grads: Sequence[torch.Tensor]) -> None:
        for param, w, g in zip(self.net.learnable, weights, grads, strict=True):
            decay = self.param.weight_decay * param.decay_mult
            if decay:
                g.add_(w if self.param.regularization_type == "L2" else w.sign(), alpha=decay)

    def _smooth(self, loss: float) -> None:
        """Add a loss to the displayed mean of the last average_loss iterations."""
        window, shown = self.param.average_loss, self._loss
        if len(shown.window) < window:
            shown.window.append(loss)
            n = len(shown.window)
            shown.mean = (shown.mean * (n - 1) + loss) / n
        else:
            i = (self.iter - shown.since) % window
            shown.mean += (loss - shown.window[i]) / window
            shown.window[i] = loss

    def _follow_loss(self) -> None:
        """Let plateau see the displayed loss: the first process's, so that all rates are one."""
        if self.param.lr_policy == "plateau":
            mean = self._loss.mean
            self._rate.loss = self._from_first(mean) if self._from_first else mean

    def _show(self) -> None:
        now = time.monotonic()
        seconds = now - self._shown_at
        speed = (self.iter - self._shown_iter) / (seconds or 1)
        self._shown_at, self._shown_iter = now, self.iter
        announce(
            "solver.cpp:239",
            f"Iteration {self.iter} ({number(speed)} iter/s, {number(seconds)}s/"
            f"{self.param.display} iters), loss = {number(self._loss.mean)}",
        )
        _log_outputs("solver.cpp:258", "Train", _figures(self.net, _outputs(self.net)))

    def _agreed(self, request: str) -> str:
        """The request that all processes follow; with a single process, its own."""
        agreed = self._agree(request) if self._agree else request
        if agreed != "none":
            for watcher in self._watchers:
                watcher.asked(self.iter, agreed)
        return agreed

    def _go_on_after_test(self) -> bool:
        """Whether training continues. The other processes wait here while the first one tests."""
        # A snapshot that was asked for comes first: patience may end training without one.
        if self._agreed("snapshot" if self._snapshot_asked else "none") == "snapshot":
            self._snapshot_together()
        self._snapshot_asked, asked = False, "none"
        if self._keeper and self.impatient and not self._stop:
            asked = "stop"
            self._keeper.log_end(self.best)
        if self._stop:
            asked = "end" if self.ended else "stop"
        request = self._agreed(asked)
        self._stop, self.ended = request in ENDING, request == "end"
        if request == "end" and self._saved != self.iter:
            self._snapshot_together()
        return not self._stop

    def _test_all(self) -> None:
        if not root_solver():
            return
        for i in range(len(self.test_nets)):
            if not self._stop:
                self._test(i)

    def _test(self, i: int) -> None:
        announce("solver.cpp:347", f"Iteration {self.iter}, Testing net (#{i})")
        net, count = self.test_nets[i], self.param.test_iter[i]
        net.share_with(self.net)
        totals: list[torch.Tensor] = []
        detects = self.param.eval_type == "detection"
        found = [Detections(name) for name in net.outputs]
        loss = 0.0
        with net.testing() as accumulated:
            # Over how many passes the mean of each output goes.
            over = [1 if name in accumulated else count for name in net.outputs]
            for batch in range(count):
                self._heed_in_test()
                if self._stop:
                    announce("solver.cpp:396", "Test interrupted.")
                    return
                for watcher in self._watchers:
                    watcher.testing(self.iter, i, batch, count)
                losses = net.losses_from_to(0, len(net.layers) - 1)
                if self.param.test_compute_loss:
                    loss += float(sum(losses))
                if detects:
                    for detections in found:
                        detections.add(net.blobs[detections.output].data)
                    continue
                outputs = [t.double() for t in _outputs(net)]
                sums = zip(totals, outputs, over, strict=True)
                totals = [b if n == 1 else a + b for a, b, n in sums] if totals else outputs
        mean_loss = loss / max(count, 1) if self.param.test_compute_loss else None
        if mean_loss is not None:
            announce("solver.cpp:401", f"Test loss: {number(mean_loss)}")
        figures: list[Figure] = []
        if count and detects:
            figures = self._log_precisions(found)
        elif count:
            figures = _figures(net, [t / n for t, n in zip(totals, over, strict=True)])
            _log_outputs("solver.cpp:414", "Test", figures)
        outcome = Outcome(self.iter, i, tuple(figures), mean_loss)
        for watcher in self._watchers:
            watcher.tested(outcome)
        if self._keeper:
            self.best = self._keeper.judged(self.best, outcome, self._save)

    def _heed_in_test(self) -> None:
        """Follow the requests that have come since the batch before."""
        while (request := self._requests()) != "none":
            if request in ENDING:
                self._stop, self.ended = True, self.ended or request == "end"
            elif self._agree:  # all processes take part in it, after the test
                self._snapshot_asked = True
            else:
                self._snapshot_together()

    def _log_precisions(self, found: Sequence[Detections]) -> list[Figure]:
        """The mean average precision of each output; a label of which nothing is found counts 0."""
        figures = []
        for i, detections in enumerate(found):
            precisions = detections.precisions(self.param.ap_version)
            for label, value in precisions.items():
                if value is None:
                    announce("solver.cpp:526", f"Missing true_pos for label: {label}", WARNING)
                elif self.param.show_per_class_result:
                    announce("solver.cpp:540", f"class{label}: {number(value)}")
            mean = sum(v or 0 for v in precisions.values()) / max(len(precisions), 1)
            line = f"    Test net output #{i}: {detections.output} = {number(mean)}"
            announce("solver.cpp:546", line)
            figures.append(Figure(detections.output, 0, mean))
        return figures


class SGDSolver(Solver):
    """Stochastic gradient descent with momentum; as in pycaffe, other solvers derive from it."""

    update_class = UPDATES["SGD"]


class NesterovSolver(SGDSolver):
    """Nesterov's accelerated gradient (Nesterov, 1983)."""

    update_class = UPDATES["Nesterov"]


class AdaGradSolver(SGDSolver):
    """Adaptive gradient (Duchi et al., 2011)."""

    update_class = UPDATES["AdaGrad"]


class RMSPropSolver(SGDSolver):
    """RMSProp (Tieleman and Hinton, 2012)."""

    update_class = UPDATES["RMSProp"]


class AdaDeltaSolver(SGDSolver):
    """AdaDelta (Zeiler, 2012)."""

    update_class = UPDATES["AdaDelta"]


class AdamSolver(SGDSolver):
    """Adam (Kingma and Ba, 2015)."""

    update_class = UPDATES["Adam"]


SOLVERS = {
    s.update_class.name: s
    for s in (SGDSolver, NesterovSolver, AdaGradSolver, RMSPropSolver, AdaDeltaSolver, AdamSolver)
    if s.update_class
}


def get_solver(
    param: str | os.PathLike[str] | pb.SolverParameter, *, fresh: Sequence[str] = ()
) -> Solver:
    """The solver for a prototxt or SolverParameter, of the class that its `type` names.

    fresh: as Solver's. Raises CaffeError as Solver does, and for an unknown type.
    """
    if not isinstance(param, pb.SolverParameter):
        param = files.read_solver(param, emit)
    return SOLVERS[_update_class(param.type).name](param, fresh=fresh)


def _update_class(name: str) -> type[Update]:
    if name not in UPDATES:
        raise CaffeError(
            f"solver: unknown type {name!r}; expected one of {', '.join(sorted(UPDATES))}"
        )
    return UPDATES[name]


def _net_in_state(param: pb.NetParameter, phase: int, state: pb.NetState) -> Net:
    """A net in `phase`; its own state overrides that, and `state` overrides both."""
    merged = pb.NetState(phase=phase)
    merged.MergeFrom(param.state)
    merged.MergeFrom(state)
    copy = pb.NetParameter()
    copy.CopyFrom(param)
    copy.state.CopyFrom(merged)
    return Net.from_state(copy)


def _outputs(net: Net) -> list[torch.Tensor]:
    return [net.blobs[name].tensor().flatten() for name in net.outputs]


def _figures(net: Net, values: Sequence[torch.Tensor]) -> list[Figure]:
    """The values of all outputs of a net, one tensor for each."""
    return [
        Figure(name, k, value, net.blob_loss_weights[name])
        for name, numbers in zip(net.outputs, values, strict=True)
        for k, value in enumerate(numbers.tolist())
    ]


def _log_outputs(place: str, kind: str, figures: Sequence[Figure]) -> None:
    for index, figure in enumerate(figures):
        value, weight = figure.value, figure.weight
        line = f"    {kind} net output #{index}: {figure.name} = {number(value)}"
        if weight:
            line += f" (* {number(weight)} = {number(weight * value)} loss)"
        announce(place, line)

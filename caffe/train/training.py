"""One training run, from the solver's file to the last iteration, in one process of any number."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import NoReturn

import torch

from boundary.running import placed
from boundary.streams import say
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.process import execution, memory, progress, ranks
from caffe.process.log import INFO, WARNING, brief, emit, log, lowest_level, number
from caffe.process.peers import (
    Place,
    by_torchrun,
    end_with_parent,
    gather,
    leave,
    own_device,
    place_from_environment,
    take_place,
)
from caffe.process.signals import Requests, SignalRequests
from caffe.proto.caffe_pb2 import SolverParameter
from caffe.solver import Solver, get_solver
from caffe.timer import Timer
from caffe.train.allreduce import NCCL
from caffe.train.display import Display
from caffe.train.launch import Work, run_processes
from caffe.train.summary import batch_of, summary

ALONE = Place(0, 1, 0, 1)


@dataclass(frozen=True)
class Run:
    """What to train and how; the same for all processes.

    solver: path of a prototxt, or the message. snapshot: path of the solver state to resume from.
    sync_bn: see set_sync_bn. timing: at each display, log the times of layers and of sums over
    processes; the net then runs layer by layer, without a plan. snapshot_keep: the number of newest
    snapshots to keep; 0: all. keep_best, patience: as Solver.keep_best's; an empty text: none is
    kept. fresh: as Solver's. settings: of the arithmetic; by default those in force where the Run
    is made.
    """

    solver: str | SolverParameter
    snapshot: str | None = None
    sync_bn: bool = False
    timing: bool = False
    snapshot_keep: int = 0
    keep_best: str = ""
    patience: int = 0
    fresh: tuple[str, ...] = ()
    settings: execution.Settings = field(default_factory=execution.settings)


def train(
    run: Run,
    devices: Sequence[int | None],
    asked: str,
    requests: SignalRequests,
    work: Work | None = None,
) -> int:
    """Train with one process for each of a machine's `devices` (GPUs; None: the CPU).

    The processes are started here, unless torchrun has started them and this is one of them. For a
    single device this process trains by itself, without torch.distributed.
    asked: the flags that name the devices, for messages. requests: what signals ask for. work: what
    each process does, with train_here()'s arguments; None: train_here.
    Returns a command's exit status: 0, or 128 + its number if a signal ended training ('end').
    Raises CaffeError for bad input, or if one of the processes fails; the others are then ended.
    """
    work = work or train_here
    place = place_from_environment()
    if place is None and len(devices) > 1:
        if brief():
            progress.share_terminal()
        ended = run_processes(work, (run, devices), len(devices), requests)
        return requests.status(ended)
    if by_torchrun():
        end_with_parent()  # training must not outlive torchrun
    place = place or ALONE
    own_device(place, devices, asked)  # raises CaffeError unless there is one device per process
    with requests.installed():
        try:
            return requests.status(work(run, devices, place, None, requests))
        except Exception as error:
            if place.count == 1:
                raise
            _end_at_once(error, place.rank)


def train_here(
    run: Run, devices: Sequence[int | None], place: Place, uid: bytes | None, requests: Requests
) -> bool:
    """Train as the process of `place`, on the device of its local rank.

    uid: NCCL.new_uid()'s value, the same for all; None under torchrun, and for a single process.
    Returns whether a request ('end') ended the training.
    """
    solver = prepare(run, devices, place, uid, requests)
    emit("caffe.cpp:239", "Starting Optimization")
    began = time.monotonic()
    with _shown(run, solver, devices, place, requests):
        solver.solve()
    seconds = time.monotonic() - began
    leave()
    emit("caffe.cpp:250", "Optimization Done.")
    _tell_waiting(solver.net.waited, seconds)
    return solver.ended


def prepare(
    run: Run, devices: Sequence[int | None], place: Place, uid: bytes | None, requests: Requests
) -> Solver:
    """The solver of this process, at the run's start or where its snapshot says, and linked to the
    others. Arguments as train_here().
    """
    take_place(place, devices[place.local_rank])
    _log_devices(devices)
    _set_up(run)
    solver = get_solver(run.solver, fresh=run.fresh)
    solver.snapshot_keep = run.snapshot_keep
    if run.keep_best:  # before the processes meet: the first one may have files to move
        solver.keep_best(run.keep_best, run.patience)
    solver.set_requests(requests.next)
    for net in (solver.net, *solver.test_nets):
        net.observed = False
    nccl = NCCL(solver, uid) if place.count > 1 else None
    if run.snapshot:
        emit("caffe.cpp:235", f"Resuming from {run.snapshot}")
        solver.restore(run.snapshot)
    if nccl is not None:
        _check_start(gather(solver.iter), run.snapshot)
        nccl.bcast()
        nccl.overlap()
    _add_callbacks(solver, nccl, run.timing and place.rank == 0)
    _warn_of_no_statistics(solver.net)
    requests.begin()
    return solver


def _shown(
    run: Run, solver: Solver, devices: Sequence[int | None], place: Place, requests: Requests
) -> AbstractContextManager[object]:
    """What a brief log shows within the block; nothing where it is not brief."""
    if not brief():
        return nullcontext()
    if not ranks.root_solver():
        progress.share_terminal()
    if not ranks.root_solver() or lowest_level() > INFO:
        return nullcontext()
    start = run.snapshot, run.fresh, run.keep_best, run.patience
    for line in summary(solver, devices, place.count, run.settings, *start):
        say(line)
    batch = batch_of(solver.net) * solver.param.iter_size * place.count
    return Display(solver, batch, requests.waiting)


def _end_at_once(error: Exception, rank: int) -> NoReturn:
    """Print the error and exit; an orderly exit would wait for operations with other processes."""
    text = str(error) if isinstance(error, CaffeError) else placed(error)
    say(f"caffe: rank {rank}: {text}")
    os._exit(1)


def _check_start(iterations: Sequence[int], snapshot: str | None) -> None:
    """Raise CaffeError if machines see different snapshots; iterations: one for each rank."""
    for rank, iteration in enumerate(iterations):
        if iteration != iterations[0]:
            raise CaffeError(
                f"rank {rank} would go on from iteration {iteration}, rank 0 from "
                f"{iterations[0]}: all machines need the same snapshot {snapshot or ''}".rstrip()
            )


def _set_up(run: Run) -> None:
    ranks.set_sync_bn(run.sync_bn)
    execution.take(run.settings)
    memory.keep_freed_memory()


def _warn_of_no_statistics(net: Net) -> None:
    """A frozen net that starts without weights has zeros for statistics, and cannot learn."""
    names = [layer.name for layer in net.wiring.layers if layer.lacks_statistics()]
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        ranks.announce(
            "training.py:1",
            f"{names[0]}{more}: use_global_stats, but no statistics were gathered so far: start "
            "from weights that have them (-weights)",
            WARNING,
        )


def _log_devices(devices: Sequence[int | None]) -> None:
    gpus = [gpu for gpu in devices if gpu is not None]
    if not gpus:
        emit("caffe.cpp:197", "Use CPU.")
        return
    emit("caffe.cpp:204", f"Using GPUs {', '.join(map(str, gpus))}")
    for gpu in gpus:
        emit("caffe.cpp:209", f"GPU {gpu}: {torch.cuda.get_device_name(gpu)}")


def _tell_waiting(waited: float, seconds: float) -> None:
    """Print how long training waited for data; not into the log, which has Caffe's lines only."""
    if waited and ranks.root_solver() and lowest_level() == INFO and not brief():
        share = f"{100 * waited / seconds:.1f}% of {number(seconds)} s"
        say(f"caffe train: waited {number(waited)} s for data, {share}")


def _add_callbacks(solver: Solver, nccl: NCCL | None, timing: bool) -> None:
    times = _Times(solver) if timing else None
    if times:
        solver.add_callback(times.whole.start, times.gradients_ready)
    if nccl is not None:
        solver.add_callback(nccl)
    if times:
        solver.add_callback(lambda: None, times.show)


class _Times:
    """The times of each layer, of a whole iteration and of the sums over processes."""

    def __init__(self, solver: Solver) -> None:
        self.solver, self.names = solver, list(solver.net.wiring.layer_names)
        forward, backward = ([Timer() for _ in self.names] for _ in range(2))
        self.forward, self.backward = forward, backward
        self.whole, self.reduction = Timer(), Timer()
        solver.net.before_forward(lambda layer: forward[layer].start())
        solver.net.after_forward(lambda layer: forward[layer].stop())
        solver.net.before_backward(lambda layer: backward[layer].start())
        solver.net.after_backward(lambda layer: backward[layer].stop())

    def gradients_ready(self) -> None:
        self.whole.stop()
        self.reduction.start()

    def show(self) -> None:
        self.reduction.stop()
        display = self.solver.param.display
        if not display or self.solver.iter % display:
            return
        lines = [""]
        for i, name in enumerate(self.names):
            lines.append(f"forw {i:3d} {name:>8s} : {self.forward[i].ms:.2f}")
        for i, name in reversed(list(enumerate(self.names))):
            lines.append(f"back {i:3d} {name:>8s} : {self.backward[i].ms:.2f}")
        lines.append(f"solver total: {self.whole.ms:.2f}")
        lines.append(f"allreduce: {self.reduction.ms:.2f}")
        log("\n".join(lines))

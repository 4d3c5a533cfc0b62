"""Train a net with one process a device; pycaffe's train.py.

    python -m caffe.tools.train --solver solver.prototxt --gpus 0 1

As with `caffe train`, batch_size is per device and gradients are averaged.
"""

from __future__ import annotations

import argparse
import multiprocessing
import multiprocessing.connection
import os
import sys
from collections.abc import Sequence

import caffe
from caffe.device import check_gpu
from caffe.errors import CaffeError
from caffe.proto.caffe_pb2 import SolverParameter
from caffe.script import run


def train(
    solver: str | SolverParameter, snapshot: str | None, gpus: Sequence[int | None], timing: bool
) -> None:
    """Train with one process for each of `gpus` (None: one on the CPU).

    solver: prototxt, or the message. snapshot: state to resume from. timing: log what layers and
    sums take.
    Raises CaffeError if one of the processes fails; the others are ended then.
    """
    for gpu in gpus:
        if gpu is not None:
            check_gpu(gpu)
    uid = caffe.NCCL.new_uid()
    caffe.log(f"Using devices {['CPU' if gpu is None else gpu for gpu in gpus]}")
    context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    processes = [
        context.Process(target=_work, args=(solver, snapshot, gpus, timing, uid, rank), daemon=True)
        for rank in range(len(gpus))
    ]
    for process in processes:
        process.start()
    try:
        _wait(processes)
    finally:
        for process in processes:
            process.terminate()


def _wait(processes: Sequence[multiprocessing.Process]) -> None:
    """Until all have ended; raises CaffeError at once if one fails."""
    running = {process.sentinel: rank for rank, process in enumerate(processes)}
    while running:
        for sentinel in multiprocessing.connection.wait(list(running)):
            rank = running.pop(sentinel)
            processes[rank].join()
            code = processes[rank].exitcode
            if code:
                raise CaffeError(f"the process of rank {rank} ended with the status {code}")


def _work(
    solver: str | SolverParameter,
    snapshot: str | None,
    gpus: Sequence[int | None],
    timing: bool,
    uid: bytes,
    rank: int,
) -> None:
    try:
        solve(solver, snapshot, gpus, timing, uid, rank)
    except CaffeError as error:
        print(f"rank {rank}: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


def solve(
    proto: str | SolverParameter,
    snapshot: str | None,
    gpus: Sequence[int | None],
    timing: bool,
    uid: bytes,
    rank: int,
) -> None:
    """The work of one process: the solver of one rank, linked to the others."""
    gpu = gpus[rank]
    if gpu is None:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // len(gpus)))
        caffe.set_mode_cpu()
    else:
        caffe.set_device(gpu)
        caffe.set_mode_gpu()
    caffe.set_solver_count(len(gpus))
    caffe.set_solver_rank(rank)
    solver = caffe.get_solver(proto)
    if snapshot:
        solver.restore(snapshot)
    nccl = caffe.NCCL(solver, uid)
    nccl.bcast()
    if timing and rank == 0:
        _log_times(solver, nccl)
    else:
        solver.add_callback(nccl)
    if solver.param.layer_wise_reduce:
        solver.net.after_backward(nccl)
    solver.step(solver.param.max_iter - solver.iter)
    taken = solver.param.snapshot and solver.iter % solver.param.snapshot == 0
    if rank == 0 and solver.param.snapshot_after_train and not taken:
        solver.snapshot()


def _log_times(solver: caffe.SGDSolver, nccl: caffe.NCCL) -> None:
    """Have what each layer, a whole iteration and the sums take logged at each display."""
    names = list(solver.net._layer_names)
    forward, backward = ([caffe.Timer() for _ in names] for _ in range(2))
    whole, reduction = caffe.Timer(), caffe.Timer()
    solver.net.before_forward(lambda layer: forward[layer].start())
    solver.net.after_forward(lambda layer: forward[layer].stop())
    solver.net.before_backward(lambda layer: backward[layer].start())
    solver.net.after_backward(lambda layer: backward[layer].stop())

    def gradients_ready() -> None:
        whole.stop()
        reduction.start()

    def show() -> None:
        reduction.stop()
        if not solver.param.display or solver.iter % solver.param.display:
            return
        lines = [""]
        for what, timers in (("forw", forward), ("back", backward)):
            order = range(len(names)) if what == "forw" else reversed(range(len(names)))
            lines += [f"{what} {i:3d} {names[i]:>8s} : {timers[i].ms:.2f}" for i in order]
        lines += [f"solver total: {whole.ms:.2f}", f"allreduce: {reduction.ms:.2f}"]
        caffe.log("\n".join(lines))

    solver.add_callback(whole.start, gradients_ready)
    solver.add_callback(nccl)
    solver.add_callback(lambda: None, show)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m caffe.tools.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--solver", required=True, help="the solver, a prototxt")
    parser.add_argument("--snapshot", help="solver state to resume from")
    parser.add_argument(
        "--gpus", type=int, nargs="+", default=[0], metavar="ID", help="GPUs to use (0)"
    )
    parser.add_argument(
        "--cpu", type=int, default=0, metavar="N", help="N processes on the CPU instead"
    )
    parser.add_argument(
        "--timing", action="store_true", help="log what layers and sums over devices take"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command; exits 2 for bad usage. Raises CaffeError for bad input."""
    args = _parser().parse_args(arguments)
    devices = [None] * args.cpu if args.cpu > 0 else args.gpus
    train(args.solver, args.snapshot, devices, args.timing)


if __name__ == "__main__":
    run("python -m caffe.tools.train", main, quiet=False)

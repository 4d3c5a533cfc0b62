"""Train a net with one process a device; pycaffe's train.py.

    python -m caffe.tools.train --solver solver.prototxt --gpus 0 1

As with `caffe train`, batch_size is per device and gradients are averaged.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from caffe.commands.script import run
from caffe.formats import files
from caffe.process.device import check_gpu
from caffe.process.signals import SignalRequests
from caffe.proto.caffe_pb2 import SolverParameter


def train(
    solver: str | SolverParameter,
    snapshot: str | None,
    gpus: Sequence[int | None],
    timing: bool,
    at_once: bool = False,
) -> int:
    """Train with one process for each of `gpus` (None: one on the CPU).

    solver: path of a prototxt, or the message. snapshot: path of the solver state to resume from,
    or "latest". timing: log the times of layers and of sums over processes. at_once: as in
    SignalRequests. Returns the exit status of a command: 0, or 143 if SIGTERM ended the training.
    Raises CaffeError if one of the processes fails; the others are then ended.
    """
    # Not above, as in solve: they load the engine, and torch with it.
    from caffe.solver.snapshots import resume_point
    from caffe.train.training import Run
    from caffe.train.training import train as train_on

    for gpu in gpus:
        if gpu is not None:
            check_gpu(gpu)
    if snapshot == "latest":
        param = solver if isinstance(solver, SolverParameter) else files.read_solver(solver)
        snapshot = resume_point(snapshot, param.snapshot_prefix) or None
    asked = f"--cpu {len(gpus)}" if None in gpus else f"--gpus {' '.join(map(str, gpus))}"
    run = Run(solver, snapshot, timing=timing)
    return train_on(run, gpus, asked, SignalRequests(at_once=at_once))


def solve(
    proto: str | SolverParameter,
    snapshot: str | None,
    gpus: Sequence[int | None],
    timing: bool,
    uid: bytes,
    rank: int,
) -> None:
    """The work of one process: the solver of one rank, linked to the others.

    uid: the value of NCCL.new_uid() in one of the processes, the same for all.
    """
    from caffe.process.peers import Place
    from caffe.train.training import Run, train_here

    place = Place(rank, len(gpus), rank, len(gpus))
    train_here(Run(proto, snapshot, timing=timing), gpus, place, uid, _NoRequests())


class _NoRequests:
    """The Requests of a process that nobody asks."""

    def next(self) -> str:
        return "none"

    def waiting(self) -> bool:
        return False

    def begin(self) -> None:
        pass


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m caffe.tools.train",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--solver", required=True, help="the solver, a prototxt")
    parser.add_argument(
        "--snapshot", help="solver state to resume from; 'latest' for the newest good one, if any"
    )
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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status, and exits 2 for bad usage.

    Raises CaffeError for bad input.
    """
    args = _parser().parse_args(arguments)
    devices = [None] * args.cpu if args.cpu > 0 else args.gpus
    return train(args.solver, args.snapshot, devices, args.timing, at_once=True)


if __name__ == "__main__":
    run("python -m caffe.tools.train", main, quiet=False, at_once=True)

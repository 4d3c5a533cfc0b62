"""Kills training that keeps its best snapshot: `killing.py runs KILLS SEED [FLAGS]`,
`killing.py move`.

Prints what was found, as JSON. A program of its own: it forks, which a process with threads must
not. A child kills itself by SIGKILL before one of its operations on files: with `runs` before one
that is drawn, with `move` before each in turn.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

import caffe
from caffe.commands.cli import main
from caffe.formats import db
from caffe.proto import caffe_pb2 as pb
from caffe.solver import best_files, resume, snapshots

OPERATIONS = ("replace", "unlink", "mkdir", "rmdir", "fsync")
NET = """
layer { name: "data" type: "Data" top: "x" top: "t" data_param {
  source: "lmdb" batch_size: 2 backend: LMDB shuffle: true } transform_param { scale: 0.01 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y" inner_product_param {
  num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "drop" type: "Dropout" bottom: "y" top: "y" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "t" top: "loss" }
"""
# Tests are of a few other records each time, so that their losses go up and down.
SOLVER = """net: "net.prototxt" base_lr: 0.005 momentum: 0.5 lr_policy: "fixed" max_iter: 50
snapshot: 7 snapshot_prefix: "out/run" random_seed: 1 display: 0 test_iter: 8 test_interval: 2
"""
COMMAND = ["train", "-solver", "solver.prototxt", "-snapshot", "latest", "-snapshot_keep", "2",
           "-keep_best", "loss"]  # fmt: skip


def in_child(work: Callable[[], object], kill_before: int | None = None) -> tuple[int, int]:
    """Do work in a child: its exit status, negative for a signal, and its operations on files.

    kill_before: the operation, from 1 up, before which the child kills itself; None: none.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        count = 0

        def counted(operation: Callable) -> Callable:
            def run(*args: object, **named: object) -> object:
                nonlocal count
                count += 1
                if count == kill_before:
                    os.kill(os.getpid(), signal.SIGKILL)
                return operation(*args, **named)

            return run

        for name in OPERATIONS:
            setattr(os, name, counted(getattr(os, name)))
        status = 1
        try:
            status = work() or 0
        finally:
            os.write(writer, b"%d" % count)
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        done = int(told.read() or b"0")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), done


def fresh() -> None:
    shutil.rmtree("out", ignore_errors=True)
    os.mkdir("out")


def kept() -> dict[str, object]:
    """The best files, and the last snapshot's, without what depends on the number of runs."""
    found: dict[str, object] = {}
    last = snapshots.find("out/run")[0].state
    for state in (Path("out/run_best.solverstate"), last):
        side = resume.read(resume.side_file(state))
        found[state.name] = state.read_bytes().hex()
        found[side["model"]["file"]] = Path("out", side["model"]["file"]).read_bytes().hex()
        found[f"{state.stem}.resume"] = repr(
            {k: side[k] for k in side if k not in ("written", "run", "crc32")}
        )
    return found


def runs(kills: int, seed: int, flags: list[str]) -> dict[str, object]:
    """Kills before drawn operations of a run that is started again each time, then lets it through.

    It says what was wrong, how many children were killed, and how often it went back to before the
    test of the best files that it found.
    """
    command = [*COMMAND, *flags]
    fresh()
    status, operations = in_child(lambda: main(command))
    assert status == 0
    whole, draw, wrong, killed, back = kept(), random.Random(seed), [], 0, 0
    fresh()
    while killed < kills:
        status, _ = in_child(lambda: main(command), draw.randint(1, operations))
        killed += status == -signal.SIGKILL
        if status not in (0, -signal.SIGKILL):
            wrong.append(f"status {status}")
        if status == 0:
            if kept() != whole:
                wrong.append("other files after a whole run")
            fresh()
        elif Path("out/run_best.solverstate").exists():
            iteration, problem = best_files.found("out/run")
            states = snapshots.find("out/run")
            back += bool(states) and iteration is not None and iteration >= states[0].iteration
            wrong += [problem] if problem else []
    if in_child(lambda: main(command))[0]:
        wrong.append("the last run failed")
    if kept() != whole:
        wrong.append("other files at the end")
    left = [p.name for p in Path("out").iterdir() if p.name.startswith(".")]
    last, at = snapshots.find("out/run")[0].iteration, best_files.found("out/run")[0]
    return {"wrong": wrong, "killed": killed, "back": back, "left": left, "last": last, "best": at}


def move() -> list[list[object]]:
    """Kills before each operation of writing a better snapshot over one of the iteration 2.

    For each: the iteration of the good best files after the kill, by the next run's repair, and by
    a run that resumes from them without keep_best.
    """
    found = []
    for place in range(1, 1000):
        fresh()
        solver = caffe.get_solver("solver.prototxt")
        solver.keep_best("loss")
        solver.iter = 2
        _write(solver)
        solver.iter = 4
        status, _ = in_child(lambda: _write(solver), place)  # noqa: B023
        after = best_files.found("out/run")[0]
        shutil.copytree("out", "aside")
        best_files.repair("out/run")
        repaired, left = best_files.found("out/run")[0], sorted(os.listdir("out"))
        shutil.rmtree("out")
        os.rename("aside", "out")
        best_files.complete("out/run_best.solverstate")
        found.append([after, repaired, best_files.found("out/run")[0], left])
        if status == 0:
            break
    return found


def _write(solver: caffe.Solver) -> None:
    with best_files.new_files("out/run") as folder:
        solver._save(best_files.stem("out/run"), folder)


def prepare() -> None:
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    rng = np.random.default_rng(0)
    with db.create("lmdb") as put:
        for i in range(30):
            datum = pb.Datum(channels=1, height=4, width=4, label=i % 3)
            datum.data = (rng.integers(0, 100, 16) + 50 * (i % 3)).astype(np.uint8).tobytes()
            put(b"%04d" % i, datum.SerializeToString())


if __name__ == "__main__":
    caffe.init_log(int(os.environ.get("GLOG_minloglevel", "2")))
    prepare()
    what, *rest = sys.argv[1:]
    told = move() if what == "move" else runs(int(rest[0]), int(rest[1]), rest[2:])
    print(json.dumps(told))

"""Kills commands at drawn moments, runs them again, and looks what was lost.

    python tests/kills/campaign.py --kills 100 --terms 50 --seed 1

Each job is a command that a user would simply run again: training by `-snapshot latest` in one
process and in two, building an LMDB, converting to a folder and to ONNX, and a report. First it
runs undisturbed. Then it is killed again and again, at moments drawn over its length, by SIGKILL or
by SIGTERM; after each kill a file under a final name must be the undisturbed run's, and a snapshot
must be good. At the end it runs through: its files must be those of the undisturbed run, bit for
bit, and there must be no others.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from boundary.lmdb_file import LmdbFile
from caffe.solver import best_files, snapshots

GRACE = 30  # seconds that a scheduler leaves between SIGTERM and SIGKILL
ORPHANS = 90  # seconds that its processes may outlive a command, on a machine with much to do
KINDS = {"kill": signal.SIGKILL, "term": signal.SIGTERM}

NET = """
layer { name: "data" type: "Data" top: "data" data_param { source: "lmdb" batch_size: 2
  backend: LMDB shuffle: true } }
layer { name: "slice" type: "Slice" bottom: "data" top: "x" top: "label"
  slice_param { slice_point: 4 } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "y" convolution_param {
  num_output: 12 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "drop" type: "Dropout" bottom: "y" top: "y" }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "y" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 1e-5 momentum: 0.9 lr_policy: "fixed" max_iter: 60
snapshot: 1 snapshot_prefix: "out/run" random_seed: 1 display: 0
"""
DEPLOY = """
layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 dim: 18 dim: 24 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "score" convolution_param {
  num_output: 12 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
"""


@dataclass
class Job:
    """A command to be killed.

    command: after `python -m`. out: where its files are, emptied at the start. final: whether a
    name there, relative, counts at the end, given the undisturbed run's files (by default all do).
    check: looks at the folder after a kill and says what is wrong, or nothing.
    """

    name: str
    command: list[str]
    check: Callable[[Path, dict[str, str]], str] = field(
        default_factory=lambda: _only_whole_files_of_the_reference
    )
    final: Callable[[str, dict[str, str]], bool] = lambda name, reference: True
    out: str = "out"
    answers: bool = False  # whether it answers SIGTERM by itself


# Its tests' losses go up and down, as each is of a few other records.
TESTED = SOLVER.replace("snapshot: 1 ", "snapshot: 5 test_iter: 2 test_interval: 2 ")


def _train(more: list[str], solver: str = "solver.prototxt") -> list[str]:
    return ["caffe", "train", "-solver", solver, "-snapshot", "latest", *more]


def jobs() -> list[Job]:
    """The jobs, cheap ones and dear ones in turn."""
    return [
        Job(
            "training",
            _train([]),
            _good_snapshots,
            _at_the_end,
            answers=True,
        ),
        Job("building", ["data_tools.synth", "out/db", "--count", "150", "--size", "64x48"]),
        Job(
            "training by two",
            _train(["-cpu", "2"]),
            _good_snapshots,
            _at_the_end,
            answers=True,
        ),
        Job("to a folder", ["data_tools.convert", "--to", "folder", "lmdb", "out/pictures"]),
        Job(
            "keeping two snapshots",
            _train(["-snapshot_keep", "2"]),
            _good_snapshots,
            _at_the_end,
            answers=True,
        ),
        Job(
            "keeping the best",
            _train(["-snapshot_keep", "1", "-keep_best", "loss"], "tested.prototxt"),
            _good_best,
            _at_the_end,
            answers=True,
        ),
        Job(
            "until patience ends, by two",
            _train(["-keep_best", "loss", "-patience", "6", "-cpu", "2"], "tested.prototxt"),
            _good_best,
            _at_the_end,
            answers=True,
        ),
        Job("to ONNX", ["caffe.convert", "deploy.prototxt", "m.caffemodel", "out/net.onnx"]),
        Job(
            "a report",
            [
                "eval_tools.evaluate",
                "deploy.prototxt",
                "m.caffemodel",
                "lmdb",
                "--report",
                "out/report.html",
                "--json",
                "out/scores.json",
                "--bootstrap",
                "0",
            ],
        ),
    ]


# -- what may be there -------------------------------------------------------------------------


def contents(folder: Path, hidden: bool = False) -> dict[str, str]:
    """Relative name -> SHA-256 of each file under a folder. hidden: also of temporary ones."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and (hidden or not any(p.startswith(".") for p in name.split("/"))):
            found[name] = hashlib.sha256(_lasting(path)).hexdigest()
    return found


def _lasting(path: Path) -> bytes:
    """A file's content without what depends on the time at which it was written."""
    if path.name == "data.mdb":  # how its pages lie depends on the moments of the commits
        return repr(list(LmdbFile(path, RuntimeError).every(0, 1))).encode()
    data = path.read_bytes()
    if path.suffix == ".resume":
        content = json.loads(data)
        return json.dumps({k: content[k] for k in content if k in STEADY}, sort_keys=True).encode()
    if path.name == "lock.mdb":
        return b""
    return data


STEADY = {"iteration", "model", "history_crc32", "seed", "random", "loss", "nets", "best"}


def _only_whole_files_of_the_reference(out: Path, reference: dict[str, str]) -> str:
    for name, digest in contents(out).items():
        if name.split("/")[0].endswith(".fusenet-partial"):  # where an LMDB is built
            continue
        if reference.get(name) != digest:
            return f"{name} is not the undisturbed run's"
    return ""


def _good_snapshots(out: Path, reference: dict[str, str]) -> str:
    for snapshot in snapshots.find(out / "run"):
        try:
            snapshots.check(snapshot)
        except Exception as error:
            return f"{snapshot.state.name}: {error}"
    return ""


def _good_best(out: Path, reference: dict[str, str]) -> str:
    """Where there is a best state, its model and side file are those written with it."""
    problem = _good_snapshots(out, reference)
    if not problem and (out / "run_best.solverstate").exists():
        problem = best_files.found(out / "run")[1]
    return problem


def _at_the_end(name: str, reference: dict[str, str]) -> bool:
    """Whether a file is of the last snapshot, or of the best one."""
    snapshots = (re.match(r"run_iter_(\d+)\.", known) for known in reference)
    last = max(int(match[1]) for match in snapshots if match)
    return name.startswith((f"run_iter_{last}.", "run_best."))


# -- killing -----------------------------------------------------------------------------------


def start(job: Job, folder: Path) -> subprocess.Popen:
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]), OMP_NUM_THREADS="1",
                       GLOG_minloglevel="2")  # fmt: skip
    with open(folder / "log", "ab") as log:
        return subprocess.Popen([sys.executable, "-m", *job.command], cwd=folder, stderr=log,
                                stdout=log, env=environment, start_new_session=True)  # fmt: skip


def undisturbed(job: Job, folder: Path) -> tuple[dict[str, str], float]:
    """The files of a run that nobody disturbs, and its seconds."""
    empty(folder / job.out)
    began = time.monotonic()
    process = start(job, folder)
    if process.wait():
        raise SystemExit(f"{job.name} fails by itself: {(folder / 'log').read_text()[-500:]}")
    return contents(folder / job.out, hidden=True), time.monotonic() - began


def empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


def disturb(
    job: Job, folder: Path, signals: list[int], reference: dict[str, str], seconds: float,
    draw: random.Random,
) -> list[str]:  # fmt: skip
    """Runs the job and sends the signals, one to a run; then lets it through. What went wrong."""
    out, wrong = folder / job.out, []
    inputs = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
              for name in ("lmdb/data.mdb", "m.caffemodel", "net.prototxt")}  # fmt: skip
    wanted = {name: digest for name, digest in reference.items() if job.final(name, reference)}
    empty(out)
    for number in signals:
        process = start(job, folder)
        after = draw.uniform(0, seconds)
        try:
            process.wait(after)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            try:
                process.wait(GRACE)
            except subprocess.TimeoutExpired:
                wrong.append(f"still runs {GRACE} s after signal {number}, sent at {after:.2f} s")
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        expected = {0, -number} if number == signal.SIGKILL else {0, 143}
        # Python ends like any program before our first line runs, and after our last.
        early, late = after < seconds / 4, set(wanted) <= set(contents(out))
        if process.returncode not in expected and not (
            process.returncode == -number and (early or late or not job.answers)
        ):
            wrong.append(f"ended with {process.returncode} after signal {number} at {after:.2f} s")
        if problem := job.check(out, reference):
            wrong.append(f"after signal {number} at {after:.2f} s: {problem}")
        if process.returncode == 0 or late:
            empty(out)  # it was through: the next one begins anew
        _wait_for_orphans(process.pid, wrong)
    process = start(job, folder)
    if process.wait():
        wrong.append(f"does not go on: {(folder / 'log').read_text()[-300:]}")
    left = contents(out, hidden=True)
    final = {name: digest for name, digest in left.items() if job.final(name, reference)}
    wrong += [f"{name} differs at the end" for name in sorted(final.items() ^ wanted.items())]
    wrong += [f"{name} is left" for name in left if name.endswith(".tmp") or ".new/" in name]
    for name, digest in inputs.items():
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            wrong.append(f"the input {name} changed")
    return wrong


def _wait_for_orphans(group: int, wrong: list[str]) -> None:
    """Waits until the command's own processes have ended, too; they notice that it is gone, but a
    new one loads the engine first.
    """
    end = time.monotonic() + ORPHANS
    while time.monotonic() < end:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.02)
    wrong.append("a process of it lives on")
    os.killpg(group, signal.SIGKILL)


def prepare(folder: Path) -> None:
    """The files that the jobs read: an LMDB of rendered frames, nets, weights."""
    run = [sys.executable, "-m"]
    environment = dict(os.environ, PYTHONPATH=str(Path(__file__).parents[2]))
    (folder / "net.prototxt").write_text(NET)
    (folder / "solver.prototxt").write_text(SOLVER)
    (folder / "tested.prototxt").write_text(TESTED)
    (folder / "deploy.prototxt").write_text(DEPLOY)
    commands = [["data_tools.synth", "lmdb", "--count", "40", "--size", "24x18"]]
    for command in commands:
        subprocess.run([*run, *command], cwd=folder, check=True, env=environment,
                       stdout=subprocess.DEVNULL)  # fmt: skip
    script = ("import caffe; caffe.init_log(2); caffe.set_random_seed(1); "
              "caffe.Net('deploy.prototxt', caffe.TEST).save('m.caffemodel')")  # fmt: skip
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True, env=environment)


def campaign(folder: Path, kills: int, terms: int, seed: int, chosen: str = "") -> Counter[str]:
    """Sends so many signals, spread over the jobs; prints a line for each job. What went wrong."""
    draw = random.Random(seed)
    prepare(folder)
    some = [job for job in jobs() if chosen in ("", job.name)]
    shares: list[list[int]] = [[] for _ in some]
    for i, number in enumerate([signal.SIGKILL] * kills + [signal.SIGTERM] * terms):
        shares[i % len(some)].append(int(number))
    found: Counter[str] = Counter()
    for job, signals in zip(some, shares, strict=True):
        if not signals:
            continue
        draw.shuffle(signals)
        reference, seconds = undisturbed(job, folder)
        wrong = disturb(job, folder, signals, reference, seconds, draw)
        counts = Counter(signal.Signals(number).name for number in signals)
        told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        print(f"{job.name} ({seconds:.1f} s): {told}: {'; '.join(wrong) or 'nothing lost'}",
              flush=True)  # fmt: skip
        found.update(f"{job.name}: {problem}" for problem in wrong)
    return found


def main() -> None:
    """The command; exits 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs (default: 100)")
    parser.add_argument("--terms", type=int, default=50, help="SIGTERMs (default: 50)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the moments (default: 1)")
    parser.add_argument("--job", default="", help="only the job of this name")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(bool(campaign(Path(folder), args.kills, args.terms, args.seed, args.job)))


if __name__ == "__main__":
    main()

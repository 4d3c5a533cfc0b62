"""The snapshots of one prefix: which is the newest good one, and which are kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from nets import REGRESSION

import caffe
from boundary.writing import atomic_write
from caffe.commands.cli import main
from caffe.formats import files
from caffe.proto import caffe_pb2 as pb
from caffe.solver import resume, snapshots
from caffe.tools import train
from caffe.train import training

pytestmark = pytest.mark.usefixtures("fresh")

NET = REGRESSION
SOLVER = """net: "net.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 6
snapshot: 2 snapshot_prefix: "out/run" random_seed: 1
"""
ENDS = ("caffemodel", "resume", "solverstate")


@pytest.fixture
def folder(own_folder: Path) -> Path:
    """A net and its solver in the working directory, snapshots in the folder out."""
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    Path("out").mkdir()
    return own_folder


@pytest.fixture
def make_solver(folder: Path) -> Callable[..., caffe.SGDSolver]:
    def make(more: str = "", keep: int = 0) -> caffe.SGDSolver:
        param = text_format.Parse(SOLVER, pb.SolverParameter())
        param.MergeFrom(text_format.Parse(more, pb.SolverParameter()))
        solver = caffe.get_solver(param)
        solver.snapshot_keep = keep
        return solver

    return make


@pytest.fixture
def three(make_solver) -> None:
    """Snapshots at 2, 4 and 6."""
    make_solver().step(6)


def _names() -> list[str]:
    return sorted(p.name for p in Path("out").iterdir())


def _files(*iterations: int, prefix: str = "run") -> list[str]:
    return sorted(f"{prefix}_iter_{i}.{end}" for i in iterations for end in ENDS)


# -- the newest good one -----------------------------------------------------------------------


def test_the_newest(three) -> None:
    assert caffe.latest_snapshot("out/run") == "out/run_iter_6.solverstate"
    assert caffe.latest_snapshot(Path("out", "run")) == "out/run_iter_6.solverstate"
    assert caffe.latest_snapshot("out/ru") is None
    assert caffe.latest_snapshot("nowhere/run") is None


def test_the_newest_is_what_was_written_last(make_solver, three) -> None:
    """The newest run under a prefix counts, even where an earlier one has more iterations."""
    make_solver().step(2)
    assert caffe.latest_snapshot("out/run") == "out/run_iter_2.solverstate"
    for path in Path("out").iterdir():  # a copy may have lost all times
        os.utime(path, (1, 1))
    assert caffe.latest_snapshot("out/run") == "out/run_iter_2.solverstate"


def test_the_clock_does_not_count(make_solver, monkeypatch) -> None:
    """It is set back an hour while a run goes on."""
    solver = make_solver()
    solver.step(4)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3600)
    solver.step(2)
    for path in Path("out").glob("run_iter_6.*"):
        os.utime(path, (1, 1))
    assert caffe.latest_snapshot("out/run") == "out/run_iter_6.solverstate"


def test_a_run_that_went_back_wins(make_solver, three) -> None:
    """It resumed from 2 and has come to 4 again: its 4, not the 6 of the run before it."""
    solver = make_solver()
    solver.restore("out/run_iter_2.solverstate")
    solver.step(2)
    assert caffe.latest_snapshot("out/run") == "out/run_iter_4.solverstate"
    assert [(s.iteration, s.run) for s in snapshots.find("out/run")] == [(4, 2), (6, 1), (2, 1)]
    solver.restore("out/run_iter_2.solverstate")
    solver.step(1)
    solver.snapshot()
    assert [(s.iteration, s.run) for s in snapshots.find("out/run")][:2] == [(3, 3), (4, 2)]
    make_solver('snapshot_prefix: "out/other"').step(2)
    assert [s.run for s in snapshots.find("out/other")] == [1]


def test_snapshots_without_a_known_run_are_older(make_solver, three) -> None:
    """Caffe's, and those of versions that did not count runs; among them iterations count."""
    Path("out/run_iter_2.resume").unlink()
    for iteration, written in ((4, 1e12), (6, 0.0)):
        side = Path(f"out/run_iter_{iteration}.resume")
        content = json.loads(side.read_text()) | {"written": written}
        del content["run"], content["crc32"]
        side.write_text(json.dumps(content))
    assert [(s.iteration, s.run) for s in snapshots.find("out/run")] == [(6, 0), (4, 0), (2, 0)]
    make_solver().step(1)
    solver = make_solver()
    solver.step(1)
    solver.snapshot()
    assert caffe.latest_snapshot("out/run") == "out/run_iter_1.solverstate"


def test_hdf5(make_solver) -> None:
    make_solver("snapshot_format: HDF5").step(4)
    assert caffe.latest_snapshot("out/run") == "out/run_iter_4.solverstate.h5"


def _cut(name: str) -> None:
    path = Path("out", name)
    os.truncate(path, path.stat().st_size - 9)


def _flip(name: str) -> None:
    """Change one of its last bytes, as a bad disk does."""
    content = bytearray(Path("out", name).read_bytes())
    content[-3] ^= 1
    Path("out", name).write_bytes(content)


def _change(name: str, old: str, new: str) -> None:
    path = Path("out", name)
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda: _cut("run_iter_6.solverstate"), "run_iter_6.solverstate"),
        (lambda: _cut("run_iter_6.caffemodel"), "run_iter_6.caffemodel: damaged"),
        (lambda: _flip("run_iter_6.caffemodel"), "run_iter_6.caffemodel: damaged"),
        (lambda: _flip("run_iter_6.solverstate"), "run_iter_6"),
        (lambda: _cut("run_iter_6.resume"), "run_iter_6.resume: damaged"),
        (lambda: _change("run_iter_6.resume", '"since": 0', '"since": 1'), "damaged (crc32: "),
        (lambda: Path("out/run_iter_6.caffemodel").unlink(), "caffemodel: No such file"),
        (lambda: os.replace("out/run_iter_4.solverstate", "out/run_iter_6.solverstate"),
         "run_iter_6.resume: belongs to another snapshot"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_passed_over_by_name(three, capsys, spoil, reason: str) -> None:
    spoil()
    left = "2" if not Path("out/run_iter_4.solverstate").exists() else "4"
    assert caffe.latest_snapshot("out/run") == f"out/run_iter_{left}.solverstate"
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Passing over" in line]
    assert "Passing over the snapshot out/run_iter_6.solverstate: " in line
    assert reason in line


def test_caffes_own_snapshots_count_too(three, capsys) -> None:
    for path in Path("out").glob("*.resume"):
        path.unlink()
    assert caffe.latest_snapshot("out/run") == "out/run_iter_6.solverstate"
    _cut("run_iter_6.caffemodel")
    assert caffe.latest_snapshot("out/run") == "out/run_iter_4.solverstate"


def test_snapshots_that_were_moved(three) -> None:
    Path("out").rename("moved")
    assert caffe.latest_snapshot("moved/run") == "moved/run_iter_6.solverstate"


def test_train_from_the_latest(three, make_solver, capsys) -> None:
    _cut("run_iter_6.solverstate")
    assert main(["train", "-solver", "solver.prototxt", "-snapshot", "latest"]) == 0
    said = capsys.readouterr().err
    assert "Resuming from out/run_iter_4.solverstate" in said
    assert snapshots.latest_snapshot("out/run") == "out/run_iter_6.solverstate"


def test_train_from_the_latest_where_there_is_none(folder, make_solver, capsys) -> None:
    """As the first run of a job does; then -weights counts, and later it does not."""
    start = make_solver()
    start.net.params["ip"][0].data[...] = 7
    start.net.save("start.caffemodel")
    command = ["train", "-solver", "solver.prototxt", "-snapshot", "latest", "-weights",
               "start.caffemodel"]  # fmt: skip
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "No snapshot out/run_iter_N.solverstate so far: starting from the beginning" in said
    assert "Finetuning from start.caffemodel" in said
    assert _names() == _files(2, 4, 6)
    assert main(command) == 0
    said = capsys.readouterr().err
    assert "Resuming from out/run_iter_6.solverstate" in said
    assert "Finetuning" not in said


def test_pycaffes_command_knows_the_latest_too(three, monkeypatch) -> None:
    started = []
    monkeypatch.setattr(training, "train", lambda run, *_: started.append(run.snapshot))
    for flags in ([], ["--snapshot", "latest"], ["--snapshot", "out/run_iter_2.solverstate"]):
        train.main(["--solver", "solver.prototxt", "--cpu", "2", *flags])
    shutil.rmtree("out")
    train.main(["--solver", "solver.prototxt", "--cpu", "2", "--snapshot", "latest"])
    assert started == [None, "out/run_iter_6.solverstate", "out/run_iter_2.solverstate", None]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-snapshot a.solverstate -weights b", "but not both"),
        ("-snapshot_keep -1", "-snapshot_keep -1: expected a number from 0 up"),
    ],
)
def test_bad_usage(folder, capsys, line: str, message: str) -> None:
    assert main(["train", "-solver", "solver.prototxt", *line.split()]) == 2
    assert message in capsys.readouterr().err


# -- writing them ------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["write_weights", "write_solver_state"])
def test_a_state_is_there_only_with_what_goes_with_it(
    make_solver, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Broken off anywhere while it writes over a snapshot of an earlier run."""
    make_solver().step(2)
    again = make_solver("random_seed: 2")

    def fail(*_: object) -> None:
        raise caffe.CaffeError("disk full")

    monkeypatch.setattr(files, broken, fail)
    with pytest.raises(caffe.CaffeError, match="disk full"):
        again.step(2)
    assert "run_iter_2.solverstate" not in _names()


def test_the_side_file_too(make_solver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise caffe.CaffeError("disk full")

    monkeypatch.setattr(resume, "write", fail)
    with pytest.raises(caffe.CaffeError, match="disk full"):
        make_solver().step(2)
    assert _names() == ["run_iter_2.caffemodel"]


def test_what_the_killed_left_half_written_goes(make_solver) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = Path("out")
    with atomic_write(here / "run_iter_2.solverstate.h5", caffe.CaffeError) as beside:
        name = beside.name  # .NAME.PROCESS.COUNT.HOST.tmp
    dead = here / name.replace(str(os.getpid()), str(gone.pid))
    kept = [
        here / name.replace(str(os.getpid()), str(os.getppid())),  # somebody still writes it
        here / f".run_iter_2.txt.{gone.pid}.3.tmp",  # of another program
    ]
    for path in (dead, *kept):
        path.write_text("half")
    make_solver().step(2)
    assert not dead.exists()
    assert all(path.exists() for path in kept)


# -- keeping a few -----------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "left"), [(0, (2, 4, 6)), (1, (6,)), (2, (4, 6)), (5, (2, 4, 6))])
def test_so_many_are_kept(make_solver, keep: int, left: tuple[int, ...]) -> None:
    make_solver(keep=keep).step(6)
    assert _names() == _files(*left)


def test_hdf5_snapshots_are_kept_likewise(make_solver) -> None:
    make_solver("snapshot_format: HDF5", keep=1).step(6)
    assert _names() == [
        "run_iter_6.caffemodel.h5",
        "run_iter_6.resume",
        "run_iter_6.solverstate.h5",
    ]


def test_the_flag(folder) -> None:
    assert main(["train", "-solver", "solver.prototxt", "-snapshot_keep", "2"]) == 0
    assert _names() == _files(4, 6)


def test_one_that_was_resumed_from_stays_until_there_is_another(make_solver) -> None:
    make_solver().step(4)
    solver = make_solver(keep=1)
    solver.restore("out/run_iter_4.solverstate")
    solver.step(1)
    assert _names() == _files(2, 4)
    solver.step(1)
    assert _names() == _files(6)


def test_what_was_just_written_stays_whatever_the_others_say(make_solver) -> None:
    make_solver().step(2)
    side = Path("out/run_iter_2.resume")
    content = json.loads(side.read_text()) | {"run": 10**6}
    del content["crc32"]
    side.write_text(json.dumps(content))
    solver = make_solver(keep=1)
    solver.step(4)
    assert _names() == _files(4)


def test_files_of_others_stay(make_solver) -> None:
    others = ["run_iter_1.caffemodel", "run_iter_1.solverstate",  # Caffe's
              "run_iter_3.caffemodel",  # weights that somebody keeps
              "run_iter_x.solverstate", "run_iter_1.solverstate.bak", "notes.txt"]  # fmt: skip
    for name in others:
        Path("out", name).write_text("others'")
    make_solver('snapshot_prefix: "out/run_b"').step(2)
    make_solver('snapshot_prefix: "out/a_run"').step(2)
    make_solver(keep=1).step(6)
    expected = [*others, *_files(6), *_files(2, prefix="run_b"), *_files(2, prefix="a_run")]
    assert _names() == sorted(expected)
    assert all(Path("out", name).read_text() == "others'" for name in others)


def test_weights_that_are_not_the_snapshots_stay(make_solver) -> None:
    """A side file may name any file; only the snapshot's own are removed."""
    make_solver().step(2)
    side = Path("out/run_iter_2.resume")
    content = json.loads(side.read_text())
    content["model"]["file"] = "../net.prototxt"
    del content["crc32"]
    side.write_text(json.dumps(content))
    make_solver("snapshot: 4", keep=1).step(4)
    assert Path("net.prototxt").is_file()
    assert _names() == sorted(["run_iter_2.caffemodel", *_files(4)])


def test_a_removal_that_was_broken_off_is_finished(make_solver, monkeypatch) -> None:
    make_solver().step(4)
    whole = Path.unlink

    def fail(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".caffemodel":
            raise KeyboardInterrupt
        whole(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", fail)
        with pytest.raises(KeyboardInterrupt):
            snapshots.prune("out/run", 1, "out/run_iter_4.solverstate")
    assert "run_iter_2.caffemodel" in _names()
    assert "run_iter_2.solverstate" not in _names()
    snapshots.prune("out/run", 3, "out/run_iter_4.solverstate")
    assert _names() == _files(4)


def test_a_snapshot_that_is_made_anew_is_not_removed(make_solver) -> None:
    Path("out/.run_iter_2.removing").touch()
    make_solver(keep=3).step(4)
    assert _names() == _files(2, 4)


# -- a job that is killed again and again ------------------------------------------------------


def _train_and_kill(until: int) -> None:
    """`caffe train -snapshot latest`, without end, killed when it has a snapshot of `until`."""
    command = [sys.executable, "-m", "caffe", "train", "-solver", "endless.prototxt",
               "-snapshot", "latest", "-snapshot_keep", "2"]  # fmt: skip
    with open("log", "w") as file:
        process = subprocess.Popen(command, stderr=file)
    try:
        end = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < end:
            if max((s.iteration for s in _states()), default=0) >= until:
                break
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL, Path("log").read_text()[-500:]


def _states() -> list[snapshots.Snapshot]:
    try:
        return snapshots.find("out/run")
    except FileNotFoundError:  # one that was there a moment ago
        return []


def test_a_job_killed_again_and_again_goes_on_as_one_never_killed(make_solver) -> None:
    """The same command each time; after each kill every state under its name is good."""
    endless = SOLVER.replace("max_iter: 6", "max_iter: 100000000")
    Path("endless.prototxt").write_text(endless.replace("snapshot: 2", "snapshot: 1"))
    for until in (5, 100):
        _train_and_kill(until)
        found = _states()
        assert 1 <= len(found) <= 3  # the third: killed between writing and removing
        for snapshot in found:
            snapshots.check(snapshot)
    last = make_solver("snapshot: 1", keep=2)
    last.restore(caffe.latest_snapshot("out/run"))
    assert last.iter >= 100
    last.step(3)
    assert {s.iteration for s in _states()} == {last.iter - 1, last.iter}
    unbroken = make_solver("snapshot: 0")
    unbroken.step(last.iter)
    for mine, theirs in zip(last.net.params["ip"], unbroken.net.params["ip"], strict=True):
        assert np.array_equal(mine.data, theirs.data)


@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_weights_are_no_state(make_solver, suffix: str) -> None:
    """A common slip: -snapshot m.caffemodel. The message names the state that lies beside them."""
    solver = make_solver("snapshot_format: HDF5" if suffix else "")
    solver.step(1)
    solver.snapshot()
    state = f"{solver.param.snapshot_prefix}_iter_1.solverstate{suffix}"
    weights = state.replace("solverstate", "caffemodel")
    message = f"^{re.escape(weights)}: holds weights, not the state of a solver; "
    with pytest.raises(caffe.CaffeError, match=message + f"its state is {re.escape(state)}$"):
        solver.restore(weights)
    Path(state).unlink()
    with pytest.raises(caffe.CaffeError, match=message + "expected a .solverstate$"):
        solver.restore(weights)


def test_a_prefix_that_no_file_can_have(make_solver) -> None:
    solver = make_solver(f'snapshot: 0 snapshot_prefix: "{"x" * 300}"')
    with pytest.raises(caffe.CaffeError, match=r"solverstate: cannot be written: File name too"):
        solver.snapshot()

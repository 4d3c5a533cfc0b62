"""The best test: what judges, what is kept, when patience ends, and how a resumed run goes on."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from google.protobuf import text_format
from nets import REGRESSION

import caffe
from caffe.commands.cli import main
from caffe.proto import caffe_pb2 as pb
from caffe.solver import best, best_files, resume, snapshots

pytestmark = pytest.mark.usefixtures("fresh")

# In tests there is a score whose values the tests choose.
NET = (
    REGRESSION
    + """
layer { name: "score" type: "Input" top: "score" input_param { shape { dim: 1 } }
  include { phase: TEST } }
"""
)
SOLVER = """net: "net.prototxt" base_lr: 0.01 momentum: 0.9 lr_policy: "fixed" max_iter: 10
snapshot_prefix: "out/run" random_seed: 1 test_iter: 2 test_interval: 2
"""
BEST = ["run_best.caffemodel", "run_best.resume", "run_best.solverstate"]
TRAIN = ["train", "-solver", "solver.prototxt"]


@pytest.fixture
def folder(own_folder: Path) -> Path:
    """A net and its solver in the working directory, snapshots in the folder out."""
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    Path("out").mkdir()
    return own_folder


@pytest.fixture
def make_solver(folder: Path) -> Callable[..., caffe.SGDSolver]:
    """make_solver(scores, settings): a solver whose test at iteration 2 i gives scores[i]."""

    def make(scores: list[float] = [], more: str = "") -> caffe.SGDSolver:  # noqa: B006
        param = text_format.Parse(SOLVER, pb.SolverParameter())
        param.MergeFrom(text_format.Parse(more, pb.SolverParameter()))
        solver = caffe.get_solver(param)
        solver.set_requests(lambda: _put(solver, scores))
        return solver

    return make


def _put(solver: caffe.Solver, scores: list[float], request: str = "none") -> str:
    """Requests are looked for before each batch of a test."""
    if scores:
        for net in solver.test_nets:
            net.blobs["score"].data[...] = scores[solver.iter // 2]
    return request


def _log(capsys: pytest.CaptureFixture[str], part: str = "best") -> list[str]:
    """The lines of the log since the last look, without prefixes, that have this in them."""
    lines = [
        line.split("] ", 1)[1] for line in capsys.readouterr().err.splitlines() if "] " in line
    ]
    return [line for line in lines if part in line and not line.startswith("Snapshotting")]


def _weights(solver: caffe.Solver) -> list[bytes]:
    blobs = [blob for blobs in solver.net.params.values() for blob in blobs]
    return [blob.data.tobytes() for blob in (*blobs, *solver._history)]


def _names() -> list[str]:
    return sorted(path.name for path in Path("out").iterdir())


def _contents() -> list[bytes]:
    """The best files, without what depends on the run and the time."""
    side = json.loads(Path("out/run_best.resume").read_text())
    rest = {k: side[k] for k in side if k not in ("crc32", "run", "written")}
    return [*(Path("out", n).read_bytes() for n in BEST if ".resume" not in n), repr(rest).encode()]


# -- what judges -------------------------------------------------------------------------------


NETS = [
    SimpleNamespace(blob_loss_weights={"loss": 1.0, "accuracy": 0.0, "seg": 0.0, "top_error": 0.0}),
    SimpleNamespace(blob_loss_weights={"accuracy": 0.0, "cost": 0.5, "odd:max": 0.0, "a@0:1": 0.0}),
]
SIZES = [
    {"loss": 1, "accuracy": 1, "seg": 3, "top_error": 1},
    {"accuracy": 1, "cost": 1, "odd:max": 1, "a@0:1": 1},
]


@pytest.mark.parametrize(
    ("text", "net", "name", "index", "direction", "label"),
    [
        ("accuracy", 0, "accuracy", 0, "max", "accuracy@0"),
        ("accuracy:min", 0, "accuracy", 0, "min", "accuracy@0"),
        ("accuracy@1", 1, "accuracy", 0, "max", "accuracy@1"),
        ("accuracy@1:0:min", 1, "accuracy", 0, "min", "accuracy@1"),
        ("seg:2", 0, "seg", 2, "max", "seg@0:2"),
        ("seg@0:1:min", 0, "seg", 1, "min", "seg@0:1"),
        ("loss", 0, "loss", 0, "min", "loss@0"),
        ("loss:max", 0, "loss", 0, "max", "loss@0"),
        ("top_error", 0, "top_error", 0, "min", "top_error@0"),
        ("cost", 1, "cost", 0, "min", "cost@1"),
        ("odd:max", 1, "odd:max", 0, "max", "odd:max@1"),
        ("odd:max:min", 1, "odd:max", 0, "min", "odd:max@1"),
        ("a@0:1", 1, "a@0:1", 0, "max", "a@0:1@1"),
    ],
)
def test_what_a_text_names(text: str, net, name, index, direction, label) -> None:
    assert best.judge(text, NETS, SIZES) == best.Judge(net, name, index, direction, label)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "seg",
        "seg:3",
        "accuracy:1",
        "accuracy@2",
        "cost@0",
        "iou",
        "iou:max",
        "loss:most",
        ":max",
    ],
)
def test_what_is_no_value_of_a_test(text: str) -> None:
    with pytest.raises(caffe.CaffeError) as caught:
        best.judge(text, NETS, SIZES)
    assert str(caught.value) == (
        f"keep_best {text!r}: there is no such value of a test; expected TOP[@NET][:INDEX]"
        "[:max|min], of these outputs: loss, accuracy, seg:0 to seg:2, top_error (@0); accuracy, "
        "cost, odd:max, a@0:1 (@1)"
    )


def test_one_net_needs_no_number() -> None:
    assert best.judge("seg:2", NETS[:1], SIZES[:1]).label == "seg:2"
    assert best.judge("loss", NETS[:1], SIZES[:1]).label == "loss"
    with pytest.raises(caffe.CaffeError, match=r"outputs: loss, accuracy, .*, top_error$"):
        best.judge("iou", NETS[:1], SIZES[:1])
    with pytest.raises(caffe.CaffeError, match=r"outputs: there is no test net$"):
        best.judge("iou", [], [])


@pytest.mark.parametrize("direction", ["max", "min"])
def test_what_is_better(direction: str) -> None:
    judge = best.Judge(0, "a", 0, direction, "a")
    good, poor = (2.0, 1.0) if direction == "max" else (1.0, 2.0)
    worst = -math.inf if direction == "max" else math.inf
    assert judge.better(good, poor)
    assert not judge.better(poor, good)
    assert not judge.better(good, good)
    assert judge.better(poor, None)
    for value in (math.nan, worst):
        assert not judge.better(value, None)
        assert not judge.better(value, poor)


# -- what is kept ------------------------------------------------------------------------------


def test_the_best_stays(make_solver, capsys) -> None:
    """snapshot_keep removes the snapshot of its iteration, and all others but the last."""
    solver = make_solver([0.25, 0.5, 0.5, 0.75, math.nan, 0.625], "snapshot: 1")
    solver.snapshot_keep = 1
    solver.keep_best("score")
    solver.step(6)
    at_six = _weights(solver)
    capsys.readouterr()
    solver.solve()
    assert _log(capsys) == [
        "The best test so far: score = 0.75 at iteration 6, out/run_best.caffemodel",
        "The best test: score = 0.75 at iteration 6, out/run_best.caffemodel",
    ]
    last = [f"run_iter_10.{end}" for end in ("caffemodel", "resume", "solverstate")]
    assert _names() == [*BEST, *last]
    assert solver.best == resume.BestTest("score", "max", 0.75, 6, since=2, last=10)
    at_ten = _weights(solver)
    again = make_solver([0.0] * 6)
    again.restore("out/run_best.solverstate")
    assert (again.iter, _weights(again)) == (6, at_six)
    again.step(4)
    assert _weights(again) == at_ten


def test_what_the_last_test_finds(make_solver) -> None:
    """It is made after the last snapshot, and a pass for display, which a resumed run repeats."""
    scores = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.0, 0.0, 0.0]
    solver = make_solver(scores, "display: 5")
    solver.keep_best("score")
    solver.solve()
    assert solver.best.iteration == 10
    unbroken = make_solver(scores, "display: 5 max_iter: 16")
    unbroken.solve()
    again = make_solver(scores, "display: 5 max_iter: 16")
    again.restore("out/run_best.solverstate")
    again.solve()
    assert _weights(again) == _weights(unbroken)


@pytest.mark.parametrize("suffix", ["", ".h5"])
def test_another_format_replaces_the_files(make_solver, suffix: str) -> None:
    other = "" if suffix else "snapshot_format: HDF5"
    mine = "snapshot_format: HDF5" if suffix else ""
    for more in (other, mine):
        solver = make_solver([0.0, 0.5, 0.0], f"snapshot_after_train: false max_iter: 4 {more}")
        solver.keep_best("score")
        solver.solve()
    assert _names() == sorted(["run_best.resume", f"run_best.caffemodel{suffix}",
                               f"run_best.solverstate{suffix}"])  # fmt: skip
    assert best_files.found("out/run") == (2, "")
    solver.restore(f"out/run_best.solverstate{suffix}")
    assert solver.iter == 2
    if suffix:
        with h5py.File("out/run_best.solverstate.h5") as file:
            assert file["learned_net"][()].decode() == "out/run_best.caffemodel.h5"


def test_no_other_command_takes_them_for_snapshots(make_solver) -> None:
    solver = make_solver([0.5] * 6, "snapshot_after_train: false")
    solver.keep_best("score")
    solver.solve()
    assert _names() == BEST
    assert caffe.latest_snapshot("out/run") is None
    assert snapshots.next_run("out/run") == 1


def test_one_of_several_test_nets(make_solver) -> None:
    solver = make_solver(more='test_iter: 1 max_iter: 6 net: "net.prototxt"')
    assert len(solver.test_nets) == 2

    def put() -> str:
        for i, net in enumerate(solver.test_nets):
            net.blobs["score"].data[...] = (-1) ** i * solver.iter
        return "none"

    solver.set_requests(put)
    solver.keep_best("score@1")
    solver.solve()
    assert (solver.best.top, solver.best.iteration) == ("score@1", 0)
    solver.keep_best("score")
    assert solver.best is None


def test_a_test_that_is_repeated_counts_once(make_solver) -> None:
    """A request stops the run in the test of the second net, after that of the first."""
    solver = make_solver(more='test_iter: 1 net: "net.prototxt"')
    asked = iter(["none"] * 4 + ["none", "none", "none", "stop"])
    scores = [0.5, 0.25] + [0.0] * 4
    solver.set_requests(lambda: _put(solver, scores, next(asked, "none")))
    solver.keep_best("score@0")
    solver.solve()
    assert (solver.iter, solver.best.since, solver.best.last) == (2, 1, 2)
    assert resume.read("out/run_iter_2.resume")["best"].since == 0
    solver.solve()
    assert (solver.iter, solver.best.since) == (10, 5)


# -- patience ----------------------------------------------------------------------------------

LOSSES = [0.5, 0.25, 0.75, math.nan, 0.25, 0.125]


@pytest.mark.parametrize("save", [True, False])
def test_patience_ends_a_run(make_solver, capsys, save: bool) -> None:
    """After the tests at 4 and 6, which are not better than that at 2; as a request to stop."""
    solver = make_solver(LOSSES, f"snapshot_after_train: {str(save).lower()}")
    solver.keep_best("score:min", patience=2)
    solver.solve()
    assert (solver.iter, solver.ended) == (6, False)
    assert _log(capsys, "")[-2:] == [
        "Training stops: 2 tests in a row were not better. The best test: score = 0.25 at "
        "iteration 2, out/run_best.caffemodel",
        "Optimization stopped early.",
    ]
    assert ("run_iter_6.solverstate" in _names()) == save


def test_a_snapshot_asked_for_in_the_last_test_is_taken(make_solver) -> None:
    """Processes that train together take it after the test."""
    solver = make_solver(more="snapshot_after_train: false")
    asked = iter(["none", "snapshot"])  # after the iteration before, and in the test
    solver.set_requests(
        lambda: _put(solver, LOSSES, next(asked, "none") if solver.iter == 6 else "none")
    )
    point = solver._point
    solver._point = lambda together=True: point(together=False)
    solver._agree, solver._from_first = (lambda value: value,) * 2
    solver.keep_best("score:min", patience=2)
    solver.solve()
    assert solver.iter == 6
    assert "run_iter_6.solverstate" in _names()


def test_a_run_that_was_stopped_names_the_best_test(make_solver, capsys) -> None:
    solver = make_solver()
    solver.set_requests(lambda: _put(solver, LOSSES, "stop" if solver.iter == 3 else "none"))
    solver.keep_best("score:min")
    solver.solve()
    best = "The best test: score = 0.25 at iteration 2, out/run_best.caffemodel"
    assert _log(capsys, "")[-2:] == [best, "Optimization stopped early."]


def test_a_run_that_has_ended_goes_on_with_more_patience(make_solver, capsys) -> None:
    solver = make_solver(LOSSES)
    solver.keep_best("score:min", patience=2)
    solver.solve()
    for patience, end, best_at in ((2, 6, 2), (4, 10, 10)):
        again = make_solver(LOSSES)
        again.keep_best("score:min", patience)
        again.restore("out/run_iter_6.solverstate")
        again.solve()
        assert (again.iter, again.best.iteration) == (end, best_at)
    unbroken = make_solver(LOSSES)
    unbroken.solve()
    assert _weights(again) == _weights(unbroken)


def test_patience_with_no_number_at_all(make_solver, capsys) -> None:
    solver = make_solver([math.nan] * 6)
    solver.keep_best("score", patience=3)
    solver.solve()
    assert solver.iter == 4
    assert "Training stops: 3 tests in a row were not better. The best test: none, for no value " \
        "was a number" in _log(capsys)  # fmt: skip
    assert not set(BEST) & set(_names())


def test_a_run_without_a_test_does_not_blame_its_values(make_solver, capsys) -> None:
    solver = make_solver([0.5], "max_iter: 1 test_initialization: false")
    solver.keep_best("score")
    solver.solve()
    assert "The best test: none, for there was no test" in _log(capsys)


# -- a run that goes on ------------------------------------------------------------------------


@pytest.mark.parametrize("start", [1, 3, 4, 5, 7, 9, 10])
def test_from_each_snapshot_a_run_comes_to_the_same(make_solver, start: int) -> None:
    """Those before the best test, those after it, and that of its own iteration."""
    scores = [0.25, 0.5, 0.75, 0.5, 0.75, 0.25]
    whole = make_solver(scores, "snapshot: 1")
    whole.keep_best("score")
    whole.solve()
    expected, judged = _contents(), whole.best
    again = make_solver(scores)
    again.keep_best("score")
    again.restore(f"out/run_iter_{start}.solverstate")
    again.solve()
    assert (_contents(), again.best) == (expected, judged)


def test_what_is_said_when_a_run_goes_on(make_solver, capsys) -> None:
    scores = [0.25, 0.5, 0.25, 0.75, 0.5, 0.25]
    solver = make_solver(scores, "snapshot: 1")
    solver.keep_best("score")
    solver.solve()

    def said(state: str, top: str = "score") -> list[str]:
        """The same in either order of keep_best and restore."""
        first, second = make_solver(scores), make_solver(scores)
        first.keep_best(top)
        capsys.readouterr()
        first.restore(f"out/{state}")
        told = _log(capsys, "")
        second.restore(f"out/{state}")
        capsys.readouterr()
        second.keep_best(top)
        assert _log(capsys, "") == told[told.index("SGDSolver: restoring history") + 1 :]
        return told[told.index("SGDSolver: restoring history") + 1 :]

    known = "The best test so far: score = {} at iteration {}, out/run_best.caffemodel"
    assert said("run_iter_9.solverstate") == [known.format(0.75, 6)]
    assert said("run_iter_5.solverstate") == [
        known.format(0.5, 2),
        "out/run_best.* is of iteration 6: it stays until a test is better",
    ]
    other = "The best test so far was of score:max: it counts no more"
    assert said("run_iter_9.solverstate", "loss") == [other]
    assert said("run_iter_9.solverstate", "score:min") == [other]
    Path("out/run_best.caffemodel").write_bytes(b"")
    first, second = said("run_iter_9.solverstate")
    assert first == known.format(0.75, 6)
    assert second.startswith(
        "Its snapshot is gone, until a test is better: out/run_best.caffemodel: damaged"
    )


def test_a_run_without_keep_best_remembers(make_solver) -> None:
    solver = make_solver([0.5, 0.75, 0.5, 0.5, 0.5, 0.5], "max_iter: 4")
    solver.keep_best("score")
    solver.solve()
    between = make_solver([1.0] * 6, "max_iter: 6")
    between.restore("out/run_iter_4.solverstate")
    between.solve()
    last = make_solver([0.625] * 6)
    last.keep_best("score")
    last.restore("out/run_iter_6.solverstate")
    last.solve()
    assert (last.best.value, last.best.iteration) == (0.75, 2)
    assert best_files.found("out/run")[0] == 2


def test_side_files_of_earlier_versions(make_solver) -> None:
    solver = make_solver([0.5] * 6, "max_iter: 3 snapshot: 3")
    solver.keep_best("score")
    solver.solve()
    side = Path("out/run_iter_3.resume")
    content = json.loads(side.read_text())
    del content["best"], content["crc32"]
    side.write_text(json.dumps(content))
    solver.restore("out/run_iter_3.solverstate")
    assert (solver.iter, solver.best) == (3, None)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("", 3, "best: expected null or an object"),
        ("top", 3, "best.top: expected a text, got 3"),
        ("direction", "up", "best.direction: expected max or min, got 'up'"),
        ("value", math.nan, "best.value: expected null or a number, not NaN, got nan"),
        ("iteration", -1, "best.iteration: expected null or a whole number, got -1"),
        ("since", None, "best.since: expected a whole number from 0 up, got NoneType"),
        ("more", 1, "best: expected top, direction, value, iteration, since, last alone"),
    ],
)
def test_a_damaged_best_test(make_solver, key: str, value: object, message: str) -> None:
    solver = make_solver([0.5] * 6, "max_iter: 3 snapshot: 3")
    solver.keep_best("score")
    solver.solve()
    side = Path("out/run_iter_3.resume")
    content = json.loads(side.read_text())
    content["best"] = {**content["best"], key: value} if key else value
    del content["crc32"]
    side.write_text(json.dumps(content))
    with pytest.raises(caffe.CaffeError, match="damaged") as caught:
        solver.restore("out/run_iter_3.solverstate")
    assert message in str(caught.value)


# -- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        ("-keep_best iou", 1, "caffe: keep_best 'iou': there is no such value of a test; expected "
         "TOP[@NET][:INDEX][:max|min], of these outputs: loss, score"),
        ("-keep_best loss -patience -1", 2, "caffe: -patience -1: expected a number from 0 up"),
        ("-patience 2", 2, "caffe: -patience counts tests that are not better: it needs "
         "-keep_best"),
    ],
)  # fmt: skip
def test_what_the_command_refuses(folder, capsys, flags: str, status: int, message: str) -> None:
    """Before training begins."""
    assert main([*TRAIN, *flags.split()]) == status
    err = capsys.readouterr().err
    assert message in err.splitlines()
    assert "Iteration 0" not in err
    assert _names() == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (("test_iter: 2 test_interval: 2", ""), r"outputs: there is no test net$"),
        (("test_iter: 2", "test_iter: 0"), r"outputs: none$"),
        (("out/run", "nowhere/run"), r"cannot write to snapshot prefix 'nowhere/run'"),
    ],
)
def test_what_a_solver_refuses(folder, spoil: tuple[str, str], message: str) -> None:
    Path("solver.prototxt").write_text(SOLVER.replace(*spoil))
    solver = caffe.get_solver("solver.prototxt")
    with pytest.raises(caffe.CaffeError, match=message):
        solver.keep_best("loss")


def test_a_solver_without_a_prefix(folder) -> None:
    param = text_format.Parse(SOLVER, pb.SolverParameter())
    param.ClearField("snapshot_prefix")
    with pytest.raises(caffe.CaffeError, match="keep_best: the solver has no snapshot_prefix"):
        caffe.get_solver(param).keep_best("loss")


def test_two_processes_keep_the_best_and_stop_together(folder, capfd) -> None:
    """Resumed from its best snapshot, which has the random states of both, the run is the same."""
    command = [*TRAIN, "-keep_best", "loss:max", "-patience", "2", "-cpu", "2"]
    Path("solver.prototxt").write_text(SOLVER + "snapshot: 1")
    assert main(command) == 0
    (stop,) = [line for line in capfd.readouterr().err.splitlines() if "Training stops" in line]
    expected, last = _contents(), Path(caffe.latest_snapshot("out/run"))
    weights = last.with_suffix(".caffemodel").read_bytes()
    at = best_files.found("out/run")[0]
    assert f"at iteration {at}," in stop
    assert last.name == f"run_iter_{at + 4}.solverstate"
    assert len(resume.read("out/run_best.resume")["random"]) == 2
    for path in Path("out").glob("run_iter_*"):
        path.unlink()
    assert main([*command, "-snapshot", "out/run_best.solverstate"]) == 0
    assert _contents() == expected
    assert last.with_suffix(".caffemodel").read_bytes() == weights


def test_an_error_while_files_are_written_keeps_the_old_ones(make_solver, monkeypatch) -> None:
    solver = make_solver([0.25, 0.5, 0.0])
    solver.keep_best("score")
    solver.step(1)
    before = _contents()

    def fail(*arguments: object) -> None:
        raise caffe.CaffeError("no space left")

    monkeypatch.setattr(resume, "write", fail)
    with pytest.raises(caffe.CaffeError, match="no space left"):
        solver.step(5)
    assert (_contents(), solver.best.value) == (before, 0.25)
    assert _names() == BEST
    assert np.isfinite(solver.net.params["ip"][0].data).all()

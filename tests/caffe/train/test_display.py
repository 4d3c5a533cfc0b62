"""display: what `caffe train -brief` shows, on terminals and in files."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from terminal import Screen, Terminal, lines_of

import caffe
from boundary.streams import Guarded
from caffe.commands.cli import brief_by_default, main
from caffe.formats import db, files
from caffe.process import log
from caffe.proto import caffe_pb2 as pb
from caffe.solver import Solver, get_solver
from caffe.solver.watching import Figure, Outcome
from caffe.train import display
from caffe.train.display import about, short, span
from eval_tools.caffe_log import read_log

NET = """name: "small"
layer { name: "data" type: "Data" top: "x" top: "label"
  data_param { source: "lmdb" backend: LMDB batch_size: 2 } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.01 } } }
layer { name: "accuracy" type: "Accuracy" bottom: "ip" bottom: "label" top: "accuracy"
  include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" random_seed: 1
snapshot_prefix: "out" test_iter: 3 """
PROGRESS = r"\d+/\d+ "


@pytest.fixture
def train(own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """train(settings, more): the folder of a solver with these settings; `more` changes the net."""
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    with db.create("lmdb") as put:
        for i in range(6):
            data = np.full((3, 4, 4), 10 * i, np.uint8).tobytes()
            datum = pb.Datum(label=i % 3, channels=3, height=4, width=4, data=data)
            put(b"%04d" % i, datum.SerializeToString())

    def write(settings: str, more: str = "") -> Path:
        Path("net.prototxt").write_text(NET + more)
        Path("solver.prototxt").write_text(SOLVER + settings)
        return own_folder

    return write


# -- in a file: lines of a brief log without a terminal --------------------------------------------


def test_a_brief_run_in_lines(train, capsys) -> None:
    train("test_interval: 2 snapshot: 2 max_iter: 4 display: 1 average_loss: 2", "")
    command = "train -solver solver.prototxt -brief -snapshot_keep 2 -log_dir ."
    assert main(command.split()) == 0
    out, err = capsys.readouterr()
    full = Path("caffe.INFO").read_text()
    tests = re.findall(r"Test net output #0: accuracy = (\S+)", full)
    losses = re.findall(r"Test net output #1: loss = (\S+)", full)
    assert len(tests) == 3
    lines = re.sub(r"\d+:\d\d", "0:00", err).splitlines()
    assert lines[:9] == [
        "net         small, 3 layers, net.prototxt",
        "parameters  147 learned",
        "data        lmdb (6 records, batch 2x3x4x4), 1.33 epochs",
        "device      CPU, fp32",
        "solver      SGD, rate 0.001 fixed, 4 iterations",
        "tests       every 2 iterations, 3 batches, lmdb (6 records, batch 2x3x4x4)",
        "snapshots   out_iter_N, every 2 iterations, the newest 2 kept",
        "start       from scratch, by fillers",
        "log         caffe.INFO",
    ]
    pairs = zip(tests, losses, strict=True)
    shown = [f"accuracy {float(a):#.4g}  loss {float(b):#.4g}" for a, b in pairs]
    assert lines[9:14] == [
        f"test at 0: {shown[0]}  (0:00)",
        "saved at 2: out_iter_2.caffemodel",
        f"test at 2: {shown[1]}  (0:00)",
        "saved at 4: out_iter_4.caffemodel",
        f"test at 4: {shown[2]}  (0:00)",
    ]
    last = float(re.findall(r"Iteration 3 .*loss = (\S+)", full)[0])
    speed = r"(\d+% of it waiting for data, )?[\d.]+ images/s"
    assert re.match(f"done: 4 iterations in 0:00, {speed}, loss {last:#.4g}$", lines[14])
    values = [float(a) for a in tests]
    best = int(2 * np.argmax(values))
    assert f"accuracy {values[-1]:#.4g}, best {max(values):#.4g} at {best}; loss" in lines[15]
    assert lines[16:] == ["weights: out_iter_4.caffemodel"]
    assert out == ""


@pytest.mark.parametrize("flags", ["", "-nobrief", "-brief=auto"])
def test_without_a_terminal_the_log_is_caffes(train, capsys, flags: str) -> None:
    train("test_interval: 2 max_iter: 2")
    assert main(f"train -solver solver.prototxt {flags}".split()) == 0
    err = capsys.readouterr().err
    assert "] Optimization Done." in err
    assert "done:" not in err


def test_minloglevel_turns_the_summary_off(train, capsys) -> None:
    train("test_interval: 2 max_iter: 2")
    assert main(["train", "-solver", "solver.prototxt", "-brief", "-minloglevel", "1"]) == 0
    assert capsys.readouterr().err == ""


def test_a_resumed_run_says_where_it_began(train, capsys) -> None:
    train("test_interval: 100 max_iter: 4 snapshot: 2")
    assert main(["train", "-solver", "solver.prototxt", "-brief"]) == 0
    capsys.readouterr()
    command = "train -solver solver.prototxt -brief -snapshot out_iter_2.solverstate"
    assert main(command.split()) == 0
    err = capsys.readouterr().err
    assert "start       resumed from out_iter_2.solverstate, iteration 2\n" in err
    assert "done: 2 iterations in" in err


@pytest.mark.parametrize(
    ("flags", "weights"), [("", "none are saved"), ("loss", "none are saved but the best test's")]
)
def test_weights_that_are_not_saved(train, capsys, flags: str, weights: str) -> None:
    train("test_interval: 2 max_iter: 2 snapshot_after_train: false")
    kept = ["-keep_best", flags] if flags else []
    assert main(["train", "-solver", "solver.prototxt", "-brief", *kept]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == f"weights: {weights}"


def test_the_direction_of_keep_best_says_what_is_best(train, capsys) -> None:
    train("test_interval: 2 max_iter: 8 momentum: 0.9", "")
    command = "train -solver solver.prototxt -brief -keep_best loss:max"
    assert main(command.split()) == 0
    err = capsys.readouterr().err
    tests = re.findall(r"test at (\d+): .*loss (\S+)  ", err)
    at, highest = max(tests, key=lambda test: float(test[1]))
    assert len({loss for _, loss in tests}) > 2
    assert re.search(rf"tests: .*; loss \S+, best {highest} at {at}\n", err)


def test_a_log_that_cannot_be_written_is_not_named(train, monkeypatch, capsys) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log, "FileIO", full)
    train("test_interval: 100 max_iter: 1")
    assert main(["train", "-solver", "solver.prototxt", "-brief", "-log_dir", "."]) == 0
    err = capsys.readouterr().err
    assert err.count("lines are missing: No space left on device") == 1
    assert "\nlog  " not in err


NORMALISED = """layer { name: "norm" type: "BatchNorm" bottom: "x" top: "norm"
  batch_norm_param { use_global_stats: true } }
layer { name: "end" type: "Reduction" bottom: "norm" top: "end" }
"""


def test_statistics_that_no_weights_brought_are_told(train, capsys) -> None:
    warning = "norm: use_global_stats, but no statistics were gathered so far"
    train("test_interval: 100 max_iter: 2 snapshot: 2", NORMALISED)
    command = ["train", "-solver", "solver.prototxt", "-brief"]
    assert main(command) == 0
    assert warning in capsys.readouterr().err
    net = caffe.Net("net.prototxt", caffe.TRAIN)
    net.params["norm"][2].data[:] = 1
    net.save("known.caffemodel")
    assert main([*command, "-weights", "known.caffemodel"]) == 0
    assert warning not in capsys.readouterr().err


def test_patience_that_ended_a_run_is_needed_to_go_on(train, capsys) -> None:
    train("test_interval: 2 max_iter: 8 clip_gradients: 1e-30")  # it learns nothing
    command = "train -solver solver.prototxt -brief -keep_best accuracy -patience 1"
    assert main(command.split()) == 0
    lines = capsys.readouterr().err.splitlines()
    assert lines_of(lines, "stopped at [24] of 8: ")
    assert lines[-1] == "to go on: the same command with -snapshot latest and more -patience"
    again = f"{command[:-1]}9 -snapshot latest"
    assert main(again.split()) == 0
    assert lines_of(capsys.readouterr().err.splitlines(), "done: [46] iterations")


def test_an_error_ends_the_display(train, monkeypatch, capsys) -> None:
    def broken(solver: Solver) -> None:
        raise caffe.CaffeError("broken")

    monkeypatch.setattr(Solver, "apply_update", broken)
    train("test_interval: 100 max_iter: 4")
    assert main(["train", "-solver", "solver.prototxt", "-brief"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "caffe: broken"
    assert not lines_of(lines, "done|stopped|weights")


def test_debug_info_asks_for_lines(train, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Guarded, "isatty", lambda _: True)
    train("test_interval: 100 max_iter: 1 display: 1 debug_info: true")
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    assert "    [Forward] Layer ip" in capsys.readouterr().err


def test_a_run_that_is_at_its_end_makes_nothing(train, capsys) -> None:
    train("test_interval: 100 max_iter: 4 snapshot: 2")
    assert main(["train", "-solver", "solver.prototxt", "-brief"]) == 0
    capsys.readouterr()
    assert main(["train", "-solver", "solver.prototxt", "-brief", "-snapshot", "latest"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "weights: none are saved, for no iteration was made"


def test_a_run_that_is_at_its_end_does_not_deny_its_last_weights(train, capsys) -> None:
    """The best test's are not all that there is."""
    train("test_interval: 2 max_iter: 2 snapshot: 2")
    command = ["train", "-solver", "solver.prototxt", "-brief", "-keep_best", "loss"]
    assert main(command) == 0
    assert main([*command, "-snapshot", "latest"]) == 0
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "weights: none are saved, for no iteration was made"


@pytest.mark.parametrize(
    ("terminal", "flags", "variables", "brief"),
    [
        (True, {}, {}, True),
        (False, {}, {}, False),
        (True, {"alsologtostderr": True}, {}, False),
        (True, {"logtostderr": True}, {}, False),
        (True, {"logtostderr": False}, {}, True),
        (True, {"alsologtostderr": False}, {"GLOG_alsologtostderr": "1"}, True),
        (True, {}, {"GLOG_logtostderr": "1"}, False),
        (True, {}, {"GLOG_alsologtostderr": "0"}, True),
        (True, {}, {"GLOG_minloglevel": "1"}, False),
    ],
)
def test_when_training_is_brief(
    train, monkeypatch, terminal: bool, flags: dict[str, bool], variables: dict, brief: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Guarded, "isatty", lambda _: terminal)
    assert brief_by_default(SimpleNamespace(**flags), {*flags}) is brief


# -- on a terminal ---------------------------------------------------------------------------------


def test_a_terminal_that_becomes_narrower_and_ctrl_c(train) -> None:
    folder = train("test_interval: 100000000 max_iter: 200000000 display: 1")
    arguments = ("train", "-solver", "solver.prototxt", "-log_dir", ".")
    with Terminal(80, folder, "caffe", *arguments) as terminal:
        terminal.read_until(lambda screen: _drawn(screen, 80, " left"))
        terminal.resize(40)
        terminal.read_until(lambda screen: _drawn(screen, 40, "loss"))
        terminal.type("\x03")
        assert terminal.wait() == 0
        rows, drawn = terminal.screen.rows(), terminal.screen.drawn
    assert lines_of(rows, "net         small, 3 layers, net.prototx")  # 40 columns
    assert lines_of(rows, "log         caffe.INFO")
    progress = [(columns, text) for columns, text in drawn if re.match(PROGRESS, text)]
    assert all(re.fullmatch(FORM, text) for _, text in progress), progress
    assert all(len(text) <= 77 for _, text in progress)
    narrow = [text for columns, text in progress if columns == 40]
    assert all(len(text) <= 37 for text in narrow[1:])  # the first one may have been on its way
    assert not lines_of(rows, PROGRESS)  # no rest of the line of progress stays
    assert "^C" not in rows
    done = re.search(r"stopping at ([\d,]+): saving a snapshot", "\n".join(rows))[1]
    number = done.replace(",", "")
    assert f"weights: out_iter_{number}.caffemodel" in rows
    assert files.read_weights(f"out_iter_{number}.caffemodel")
    assert rows[-2:] == ["to go on: the same command with", "    -snapshot latest"]
    assert not any("solver.cpp" in row for row in rows)
    run = read_log("caffe.INFO", "run")  # the full log is Caffe's
    assert run.series["loss"].iterations == list(range(int(number)))
    assert run.series["test/accuracy"].iterations == [0]


# With all parts, or without the less important ones.
FORM = (
    r"\d+/\d+(  \d+\.\d%)?(  testing \d+/\d+)?(  loss [\d.e+-]+)?(  rate [\d.e-]+)?"
    r"(  [\d.]+ images/s)?(  [\d:hmd]+ left)?"
)


def _drawn(screen: Screen, columns: int, word: str) -> bool:
    return any(
        at == columns and re.match(PROGRESS, text) and word in text for at, text in screen.drawn
    )


def test_two_processes_on_a_terminal(train) -> None:
    folder = train("test_interval: 100 max_iter: 200 snapshot: 100")
    with Terminal(120, folder, "caffe", "train", "-solver", "solver.prototxt", "-cpu", "2") as it:
        assert it.wait() == 0
        rows = it.screen.rows()
    heads = [row.split()[0] for row in rows]
    assert heads[:7] == ["net", "parameters", "data", "device", "solver", "tests", "snapshots"]
    assert "data        lmdb (6 records, batch 2x3x4x4), 133 epochs" in rows
    assert "device      CPU, 2 processes, fp32" in rows
    assert [row.split(":")[0] for row in rows[8:]] == [
        *("test at 0", "saved at 100", "test at 100", "saved at 200", "test at 200"),
        *("done", "tests", "weights"),
    ]


def test_a_dumb_terminal_gets_lines(train) -> None:
    folder = train("test_interval: 100 max_iter: 200")
    arguments = ("train", "-solver", "solver.prototxt")
    with Terminal(80, folder, "caffe", *arguments, term="dumb") as terminal:
        assert terminal.wait() == 0
        assert "\r" not in terminal.raw
        assert "\x1b" not in terminal.raw
        assert lines_of(terminal.screen.rows(), "done: 200 iterations in ")


# -- figures and times -----------------------------------------------------------------------------


def test_times_and_values() -> None:
    assert [span(s) for s in (7.4, 754, 3723, 93784)] == ["0:07", "12:34", "1:02:03", "1 d 2:03:04"]
    assert [about(s) for s in (7.4, 754, 3723, 93784)] == ["0:07", "12:34", "1h02m", "1d02h"]
    assert [short(v) for v in (0.5, 12.34567, 1e-7, 12345.6)] == [
        *("0.5000", "12.35", "1.000e-07", "1.235e+04")
    ]


def test_many_values_are_told_by_mean_and_range() -> None:
    few = [Figure("iou", i, v) for i, v in enumerate((0.25, 0.5))]
    assert display._values("iou", few) == "iou 0.2500 0.5000"
    many = [Figure("iou", i, v) for i, v in enumerate((0.1, 0.2, 0.3, float("nan"), 0.4))]
    assert display._values("iou", many) == "iou 0.2500 (5 values, 0.1000 to 0.4000)"


def test_losses_are_best_low_and_all_else_high() -> None:
    figures = display._Figures()
    for at, accuracy, loss in ((10, 0.5, 2.0), (20, 0.75, 1.0), (30, 0.25, 1.5)):
        told = (Figure("accuracy", 0, accuracy), Figure("loss", 0, loss, 1.0))
        figures.add(Outcome(at, 0, told))
    figures.add(Outcome(40, 0, (Figure("accuracy", 0, float("nan")),)))
    assert figures.told(None) == [
        "accuracy nan, best 0.7500 at 20",
        "loss 1.500, best 1.000 at 20",
    ]
    assert Figure("pixel_error", 0, 1.0).falls


def test_speed_and_time_left(monkeypatch) -> None:
    """Four records an iteration, an iteration a second, and a test of 20 s every 50 iterations."""
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    param = pb.SolverParameter(max_iter=160, test_interval=50)
    solver = SimpleNamespace(param=param, test_nets=[None])
    clock = display._Clock(4)
    clock.start(0)
    assert (clock.speed(), clock.left(0, solver)) == ("", "")  # nothing is known so far
    for done in range(1, 51):
        now[0] = done
        clock.iterated(done)
    assert clock.speed() == "4.0 images/s"
    assert clock.left(50, solver) == "1:50 left"  # 110 iterations
    clock.testing()
    now[0] += 20
    assert clock.tested() == 20
    assert clock.left(50, solver) == "2:30 left"  # and the tests at 100 and at 150
    for done in range(51, 61):
        now[0] += 1
        clock.iterated(done)
    assert clock.speed() == "4.0 images/s"  # the test does not count
    assert clock.mean(60) == ["4.0 images/s"]
    assert clock.left(60, solver) == "2:20 left"


def test_what_the_line_says_meanwhile(train, monkeypatch) -> None:
    monkeypatch.setattr(display.time, "monotonic", lambda: 0.0)
    train("test_interval: 2 max_iter: 4")
    solver = get_solver("solver.prototxt")
    waiting = [False]
    shown = display.Display(solver, 2, lambda: waiting[0])
    shown._clock.start(0)
    assert shown._line(77) == "0/4  0%"
    shown.iterated(0, 0.25)
    shown.updating(0, 0.001)
    assert shown._line(77) == "1/4  25%  loss 0.2500  rate 0.001"
    shown.testing(1, 0, 2, 3)
    assert shown._line(77) == "1/4  25%  testing 2/3  loss 0.2500  rate 0.001"
    waiting[0] = True  # a signal has come
    assert shown._line(30) == "1/4  finishing iteration"

"""`caffe train -find_lr`: a sweep on a copy, which changes nothing."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from caffe.commands.cli import main
from caffe.formats.db import create
from caffe.proto import caffe_pb2 as pb

pytestmark = pytest.mark.usefixtures("fresh")

# One weight, from 1: the loss is w^2, its gradient 2 w. SGD at the rate r takes w to w (1 - 2 r).
BOWL = """
layer { name: "w" type: "Parameter" top: "w"
        parameter_param { shape { dim: 1 } filler { type: "constant" value: 1 } } }
layer { name: "loss" type: "Power" bottom: "w" top: "loss" power_param { power: 2 } loss_weight: 1 }
"""
RESTLESS = """
layer { name: "data" type: "Data" top: "x" top: "label" transform_param { mirror: true }
  data_param { source: "lmdb" backend: LMDB batch_size: 2 shuffle: true } }
layer { name: "drop" type: "Dropout" bottom: "x" top: "x" }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
FILES = {"run_find_lr.png", "run_find_lr.csv"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(BOWL)
    _solver()
    return tmp_path


def _solver(more: str = "") -> None:
    Path("solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 2 display: 1 '
        f'max_iter: 6 snapshot: 2 snapshot_prefix: "run" random_seed: 3 {more}'
    )


def _restless() -> None:
    Path("net.prototxt").write_text(RESTLESS)
    rng = np.random.default_rng(0)
    with create("lmdb") as put:
        for i in range(7):
            datum = pb.Datum(channels=2, height=3, width=3, label=i % 3)
            datum.data = rng.integers(0, 9, 18, np.uint8).tobytes()
            put(b"%d" % i, datum.SerializeToString())


def _names() -> set[str]:
    return {str(path) for path in Path().rglob("*")}


def _rows() -> list[dict[str, float]]:
    with open("run_find_lr.csv") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def _find(*flags: str) -> int:
    return main(["train", "-solver", "solver.prototxt", "-find_lr", *flags])


def test_the_losses_are_those_of_the_rates(folder: Path, capsys) -> None:
    before = _names()
    assert _find() == 0
    assert _names() == before | FILES
    rows = _rows()
    # 100 rates from 1e-6 to 10, unless the loss explodes before; the first ones change nothing.
    rates = np.geomspace(1e-6, 10, 100)[: len(rows)]
    np.testing.assert_allclose([row["rate"] for row in rows], rates, rtol=1e-5)
    expected = np.cumprod((1 - 2 * rates) ** 2)
    np.testing.assert_allclose([row["loss"] for row in rows], expected, rtol=1e-3, atol=1e-12)
    # Beyond 1 a step grows the weight: a tenth of what still shrinks it is suggested.
    suggestion = capsys.readouterr().out.split("Suggestion: base_lr: ")[1].split()[0]
    assert 0.01 < float(suggestion) < 0.15


def test_iterations_and_range(folder: Path) -> None:
    assert _find("-iterations", "20", "-find_lr_range", "0.001,0.1") == 0
    np.testing.assert_allclose(
        [row["rate"] for row in _rows()], np.geomspace(0.001, 0.1, 20), rtol=1e-5
    )


def test_an_explosion_ends_the_sweep(folder: Path, capsys) -> None:
    assert _find("-find_lr_range", "0.01,1e9", "-iterations", "60") == 0
    assert 10 < len(_rows()) < 60
    assert all(np.isfinite(row["loss"]) for row in _rows())
    assert "Suggestion" in capsys.readouterr().out


def test_training_afterwards_is_as_without(folder: Path) -> None:
    """Byte for byte, from scratch and from a snapshot; dropout, mirrors and order are random."""
    _restless()

    def trained(*flags: str) -> dict[str, bytes]:
        for path in Path().glob("run_iter_*"):
            if path.name not in kept:
                path.unlink()
        assert main(["train", "-solver", "solver.prototxt", *flags]) == 0
        names = [f"run_iter_{i}.{kind}" for i in (4, 6) for kind in ("caffemodel", "solverstate")]
        return {name: Path(name).read_bytes() for name in names}

    kept: set[str] = set()
    alone = trained()
    assert _find() == 0
    assert trained() == alone
    kept = {f"run_iter_2.{kind}" for kind in ("caffemodel", "solverstate", "resume")}
    before = {name: Path(name).read_bytes() for name in sorted(_names()) if Path(name).is_file()}
    assert _find("-snapshot", "run_iter_2.solverstate") == 0
    after = {name: Path(name).read_bytes() for name in before if name not in FILES}
    assert after.items() <= before.items()
    assert trained("-snapshot", "run_iter_2.solverstate") == alone


def test_the_best_snapshot_stays(folder: Path) -> None:
    """-keep_best and -patience are about tests, of which there are none here."""
    _solver("test_iter: 1 test_interval: 2 test_initialization: false")
    kept = ("-keep_best", "loss:min", "-patience", "1")
    assert main(["train", "-solver", "solver.prototxt", *kept]) == 0
    before = {name: Path(name).read_bytes() for name in _names()}
    assert any("best" in name for name in before)
    assert _find(*kept, "-snapshot", "latest", "-iterations", "30") == 0
    assert _names() == before.keys() | FILES
    assert all(Path(name).read_bytes() == content for name, content in before.items())


@pytest.mark.parametrize("kind", ["weights", "snapshot"])
def test_it_starts_from_what_is_given(folder: Path, kind: str) -> None:
    """From the weight after two iterations at 0.1: 0.8^2. The loss before is its square."""
    _solver("average_loss: 20")
    assert main(["train", "-solver", "solver.prototxt"]) == 0
    suffix = {"weights": "caffemodel", "snapshot": "solverstate"}[kind]
    assert _find(f"-{kind}", f"run_iter_2.{suffix}", "-find_lr_range", "1e-9,1e-8") == 0
    assert _rows()[0]["loss"] == pytest.approx(0.8**4)
    assert len(_rows()) == 100


@pytest.mark.parametrize("kind", ["Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"])
def test_every_solver(folder: Path, kind: str) -> None:
    _solver(f'type: "{kind}" iter_size: 2 momentum: {0.9 * (kind not in ("AdaGrad", "RMSProp"))}')
    assert _find("-iterations", "30") == 0
    rows = _rows()
    assert rows[0]["loss"] == pytest.approx(1, abs=1e-3)
    if kind != "AdaDelta":  # whose steps begin with nearly nothing
        assert min(row["loss"] for row in rows) < 0.5


def test_schedule_tests_and_policy_of_the_solver_do_not_matter(folder: Path, capsys) -> None:
    _solver("test_iter: 1 test_interval: 1 rampup_interval: 50 min_lr: 0.05")
    text = Path("solver.prototxt").read_text()
    Path("solver.prototxt").write_text(text.replace('"step"', '"poly"').replace("base_lr: 0.1", ""))
    assert _find("-iterations", "12") == 0
    assert _rows()[0]["loss"] == pytest.approx(1, abs=1e-4)
    assert "Testing" not in capsys.readouterr().err


def _command(*flags: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "caffe",
        "train",
        "-solver",
        "solver.prototxt",
        "-find_lr",
        *flags,
    ]


def test_several_processes_average_their_losses(folder: Path) -> None:
    _restless()
    before = _names()
    command = _command("-cpu", "2", "-iterations", "12", "-find_lr_range", "1e-6,1e-3")
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert _names() == before | FILES
    assert made.stdout.count("loss over rate") == 1  # the first one's alone
    assert len(_rows()) == 12


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_a_signal_draws_what_there_is(folder: Path, number: int, status: int) -> None:
    """And saves nothing, although SIGTERM does so in training."""
    _restless()
    before = _names() | {"log"}
    command = _command("-iterations", "20000", "-find_lr_range", "1e-9,1e-5")
    with open("log", "w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            _wait_for("find_lr  2000/20000", process)
            process.send_signal(number)
            out, _ = process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode == status
    assert "loss over rate" in out
    assert _names() == before | FILES
    assert 2000 <= len(_rows()) < 20_000


def _wait_for(text: str, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 600
    while text not in Path("log").read_text():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["-find_lr_range", "1"], 2, "-find_lr_range 1: expected two rates, LOWEST,HIGHEST"),
        (["-find_lr_range", "a,b"], 2, "-find_lr_range a,b: expected two rates"),
        (["-find_lr_range", "1,0.1"], 1, "rates from 1 to 0.1, expected rising ones"),
        (["-find_lr_range", "0,nan"], 1, "rates from 0 to nan, expected rising ones"),
        (["-iterations", "9"], 1, "9 iterations, expected at least 10"),
    ],
)
def test_bad_settings(folder: Path, capsys, flags: list[str], status: int, message: str) -> None:
    assert _find(*flags) == status
    assert message in capsys.readouterr().err
    assert not FILES & _names()


def test_a_range_without_a_search_does_not_begin_a_training(folder: Path, capsys) -> None:
    assert main(["train", "-solver", "solver.prototxt", "-find_lr_range", "1e-3,1"]) == 2
    message = "caffe: -find_lr_range says between which rates -find_lr looks: give both"
    assert message in capsys.readouterr().err.splitlines()


def test_where_nothing_can_be_written(folder: Path, capsys) -> None:
    text = Path("solver.prototxt").read_text().replace('"run"', '"none/run"')
    Path("solver.prototxt").write_text(text)
    assert _find() == 1
    assert "cannot write to snapshot prefix 'none/run'" in capsys.readouterr().err


def test_a_loss_that_is_no_number(folder: Path, capsys) -> None:
    Path("net.prototxt").write_text(BOWL.replace("value: 1 }", "value: 1e30 }"))
    assert _find() == 1
    assert "find_lr: the loss is inf before any update" in capsys.readouterr().err
    assert not FILES & _names()


def test_a_first_update_that_is_too_large(folder: Path, capsys) -> None:
    assert _find("-find_lr_range", "1e25,1e30") == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert "the loss is no longer finite after the first update, at the lowest rate, 1e+25" in error
    assert "-find_lr_range" in error
    assert not FILES & _names()


def test_only_for_training(folder: Path, capsys) -> None:
    assert main(["time", "-model", "net.prototxt", "-find_lr"]) == 2
    assert "-find_lr is for 'train'" in capsys.readouterr().err


def test_without_a_prefix_the_files_have_the_solvers_name(folder: Path) -> None:
    Path("s.prototxt").write_text('net: "net.prototxt"')
    assert main(["train", "-solver", "s.prototxt", "-find_lr", "-iterations", "10"]) == 0
    assert {"s_find_lr.png", "s_find_lr.csv"} <= _names()

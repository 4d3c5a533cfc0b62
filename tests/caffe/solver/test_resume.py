"""Runs that go on from a snapshot as if they had never stopped."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from google.protobuf import text_format

import caffe
from caffe.formats import db
from caffe.proto import caffe_pb2 as pb
from caffe.solver import resume
from caffe.solver.watching import Watcher

pytestmark = pytest.mark.usefixtures("fresh")

# Random in every way: order, zoom, crops, colour, mirrors, fillers, dropout; another order in the
# test net.
NET = """name: "restless"
layer { name: "data" type: "Data" top: "x" top: "label" include { phase: TRAIN }
  transform_param { mirror: true scale: 0.01 augmentation_param { crop_h: 4 crop_w: 4
    min_scale: 0.6 max_scale: 1.5 color_channel: 0 brightness: 0.3 contrast: 0.3 } }
  data_param { source: "lmdb" backend: LMDB batch_size: 3 shuffle: true } }
layer { name: "data" type: "Data" top: "x" top: "label" include { phase: TEST }
  transform_param { crop_size: 4 mirror: true scale: 0.01 }
  data_param { source: "lmdb" backend: LMDB batch_size: 3 shuffle: true rand_skip: 5 } }
layer { name: "noise" type: "DummyData" top: "noise"
  dummy_data_param { shape { dim: 3 dim: 4 } data_filler { type: "gaussian" std: 0.1 } } }
layer { name: "conv" type: "Convolution" bottom: "x" top: "conv"
  convolution_param { num_output: 4 kernel_size: 4 weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "flat" type: "Flatten" bottom: "conv" top: "flat" }
layer { name: "sum" type: "Eltwise" bottom: "flat" bottom: "noise" top: "sum" }
layer { name: "drop" type: "Dropout" bottom: "sum" top: "sum" }
layer { name: "ip" type: "InnerProduct" bottom: "sum" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.05 momentum: 0.9 weight_decay: 0.001 lr_policy: "step"
gamma: 0.5 stepsize: 6 max_iter: 20 display: 1 average_loss: 4 snapshot: 10
test_iter: 2 test_interval: 4 snapshot_prefix: "run" random_seed: 1
"""


@pytest.fixture
def folder(own_folder: Path) -> Path:
    """A folder with a net and an LMDB, as the working directory."""
    Path("net.prototxt").write_text(NET)
    _records("lmdb", 11)
    return own_folder


def _records(name: str, count: int) -> None:
    rng = np.random.default_rng(count)
    with db.create(name) as put:
        for i in range(count):
            datum = pb.Datum(channels=2, height=6, width=6, label=i % 3)
            datum.data = rng.integers(0, 256, 72, np.uint8).tobytes()
            put(b"%04d" % i, datum.SerializeToString())


def _solver(more: str = "", observed: bool = False) -> caffe.SGDSolver:
    param = text_format.Parse(SOLVER, pb.SolverParameter())
    param.MergeFrom(text_format.Parse(more, pb.SolverParameter()))
    solver = caffe.get_solver(param)
    for net in (solver.net, *solver.test_nets):
        net.observed = observed
    return solver


def _said(err: list[str]) -> list[str]:
    """What a run logs of its losses, tests and rates, without the time it took."""
    lines = [line.split("] ", 1)[1] for line in err if "] " in line]
    kept = ("Iteration", "    Train net", "    Test net")
    return [re.sub(r" \(.* iters\)", "", line) for line in lines if line.startswith(kept)]


def _of(said: list[str], first: int) -> list[str]:
    """The lines from an iteration on."""
    for i, line in enumerate(said):
        if line.startswith(f"Iteration {first},"):
            return said[i:]
    raise AssertionError(f"no iteration {first} in {said}")


# -- real commands, killed ---------------------------------------------------------------------


def _train(folder: Path, *flags: str) -> list[str]:
    command = [sys.executable, "-m", "caffe", "train", "-solver", "solver.prototxt", *flags]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()


def _train_and_kill(folder: Path, at: Path) -> None:
    """Training that never ends, until `at` is there and SIGKILL comes."""
    command = [sys.executable, "-m", "caffe", "train", "-solver", "endless.prototxt"]
    with open(folder / "killed.log", "w") as file:
        process = subprocess.Popen(command, cwd=folder, stderr=file)
    try:
        end = time.monotonic() + 300
        while not at.exists() and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        assert process.poll() is None, (folder / "killed.log").read_text()[-500:]
        assert at.exists()
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL


def _set_aside(folder: Path) -> None:
    for path in folder.glob("run_iter_*"):
        path.rename(path.with_name(f"whole_{path.name}"))


def _assert_as_unbroken(suffix: str = "") -> None:
    """The files of iteration 20 are those set aside, byte for byte (but HDF5 keeps times)."""
    for name in (f"run_iter_20.caffemodel{suffix}", f"run_iter_20.solverstate{suffix}"):
        content = _arrays if suffix else Path.read_bytes
        assert content(Path(name)) == content(Path(f"whole_{name}"))
    mine, theirs = (json.loads(Path(f"{w}run_iter_20.resume").read_text()) for w in ("", "whole_"))
    assert mine.pop("written") > theirs.pop("written")
    assert mine.pop("run") == 1 + theirs.pop("run")
    assert mine.pop("crc32") != theirs.pop("crc32")
    for content in (mine, theirs) if suffix else ():
        del content["model"]["crc32"]
    assert mine == theirs


def _arrays(path: Path) -> list[bytes]:
    found: list[bytes] = []
    with h5py.File(path) as file:
        file.visititems(lambda _, item: found.append(item[()].tobytes())
                        if isinstance(item, h5py.Dataset) else None)  # fmt: skip
    return found


@pytest.mark.parametrize(
    ("settings", "suffix"), [("", ""), ("snapshot_format: HDF5 iter_size: 2", ".h5")]
)
def test_twenty_iterations_are_ten_and_a_kill_and_ten(
    folder: Path, settings: str, suffix: str
) -> None:
    """Bit for bit: weights, the solver's state, and all that is logged."""
    Path("solver.prototxt").write_text(SOLVER + settings)
    endless = SOLVER.replace("max_iter: 20", "max_iter: 100000000")
    Path("endless.prototxt").write_text(endless + settings)
    whole = _train(folder)
    _set_aside(folder)
    _train_and_kill(folder, folder / f"run_iter_10.solverstate{suffix}")
    for path in folder.glob("run_iter_*"):
        if "_iter_10." not in path.name:
            path.unlink()
    again = _train(folder, "-snapshot", "latest")
    assert _of(_said(again), 10) == _of(_said(whole), 10)
    _assert_as_unbroken(suffix)


def test_two_processes_go_on_as_they_would_have(folder: Path) -> None:
    """The snapshot holds the random states of both."""
    Path("solver.prototxt").write_text(SOLVER)
    whole = _train(folder, "-cpu", "2")
    _set_aside(folder)
    for path in folder.glob("whole_run_iter_10.*"):
        path.rename(path.name.removeprefix("whole_"))
    again = _train(folder, "-cpu", "2", "-snapshot", "run_iter_10.solverstate")
    assert _of(_said(again), 10) == _of(_said(whole), 10)
    _assert_as_unbroken()
    content = json.loads(Path("run_iter_20.resume").read_text())
    first, second = content["random"]
    assert first != second
    assert content["nets"][0][0]["next"] == 20 * 2 * 3


# -- in one process ----------------------------------------------------------------------------


def _result(solver: caffe.SGDSolver) -> list[bytes]:
    blobs = [b for blobs in solver.net.params.values() for b in blobs]
    return [b.data.tobytes() for b in (*blobs, *solver._history)]


@pytest.mark.parametrize("observed", [True, False], ids=["loop", "plan"])
@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_step_snapshot_restore(folder: Path, capsys, observed: bool, kind: str) -> None:
    more = f'type: "{kind}" snapshot: 7 max_iter: 13'
    unbroken = _solver(more, observed)
    unbroken.step(13)
    said = _of(_said(capsys.readouterr().err.splitlines()), 7)
    resumed = _solver(f"{more} random_seed: 1", observed)
    resumed.step(3)  # whatever it did before does not matter
    resumed.restore("run_iter_7.solverstate")
    capsys.readouterr()
    resumed.step(6)
    assert _of(_said(capsys.readouterr().err.splitlines()), 7) == said
    assert _result(resumed) == _result(unbroken)


def test_a_seed_that_was_drawn_stays(folder: Path) -> None:
    unbroken = _solver("random_seed: -1 snapshot: 7")
    unbroken.step(13)
    torch.manual_seed(99)  # what another process would have drawn
    other = _solver("random_seed: -1 snapshot: 0")
    other.step(7)
    assert _result(other) != _result(unbroken)
    other.restore("run_iter_7.solverstate")
    other.step(6)
    assert _result(other) == _result(unbroken)
    assert _positions(other) == _positions(unbroken)


def test_a_snapshot_asked_for_during_a_test_is_of_before_it(folder: Path) -> None:
    """The test is made again, on the same records."""
    asked = iter(["none"] * 5 + ["snapshot"])  # four iterations, and a batch into the test at 4
    solver = _solver("snapshot: 0 max_iter: 9")
    solver.set_requests(lambda: next(asked, "none"))
    solver.step(9)
    resumed = _solver("snapshot: 0")
    resumed.restore("run_iter_4.solverstate")
    resumed.step(5)
    assert _result(resumed) == _result(solver)
    assert _positions(resumed) == _positions(solver)


def test_a_run_stopped_during_a_test_goes_on_from_before_it(folder: Path) -> None:
    unbroken = _solver("snapshot: 0")
    unbroken.step(9)
    asked = iter(["none"] * 5 + ["stop"])
    stopped = _solver("snapshot: 0")
    stopped.set_requests(lambda: next(asked, "none"))
    stopped.solve()
    assert stopped.iter == 4
    resumed = _solver("snapshot: 0")
    resumed.restore("run_iter_4.solverstate")
    resumed.step(5)
    assert _result(resumed) == _result(unbroken)
    assert _positions(resumed) == _positions(unbroken)


def test_more_iterations_after_the_end(folder: Path) -> None:
    """solve() runs one more pass after the last iteration, for display; it does not count."""
    unbroken = _solver()
    unbroken.step(16)
    _solver("max_iter: 8").solve()
    resumed = _solver()
    resumed.restore("run_iter_8.solverstate")
    resumed.step(8)
    assert _result(resumed) == _result(unbroken)


def _positions(solver: caffe.SGDSolver) -> list[dict | None]:
    nets = (solver.net, *solver.test_nets)
    return [layer.position() for net in nets for layer in net.wiring.layers if layer.source]


class Counter(caffe.Layer):
    """A Python layer that counts its passes and shows the count."""

    kept: object = None

    def setup(self, bottom, top):
        self.count = 0

    def reshape(self, bottom, top):
        top[0].reshape(1)

    def forward(self, bottom, top):
        self.count += 1
        top[0].data[...] = self.count

    def get_state(self):
        return self.count if self.kept is None else self.kept

    def set_state(self, state):
        self.count = state


@pytest.fixture
def counting(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "counting", types.SimpleNamespace(Counter=Counter))
    layer = """layer { name: "count" type: "Python" top: "count"
      python_param { module: "counting" layer: "Counter" } }"""
    Path("net.prototxt").write_text(NET + layer)


def test_python_layers_that_know_where_they_are(counting: None) -> None:
    _solver("snapshot: 3 max_iter: 3").step(3)
    resumed = _solver()
    resumed.restore("run_iter_3.solverstate")
    resumed.step(2)
    assert resumed.net.blobs["count"].data[0] == 5


def test_a_python_layers_state_that_json_cannot_hold(counting: None, monkeypatch) -> None:
    monkeypatch.setattr(Counter, "kept", b"bytes")
    message = r"run_iter_1.resume: get_state\(\) gave what JSON cannot hold: .*bytes"
    with pytest.raises(caffe.CaffeError, match=message):
        _solver("snapshot: 1").step(1)


# -- what does not fit -------------------------------------------------------------------------


@pytest.fixture
def taken(folder: Path) -> Path:
    """A snapshot at iteration 3; its side file."""
    _solver("snapshot: 3 max_iter: 3").solve()
    return Path("run_iter_3.resume")


def _restored(capsys, more: str = "") -> tuple[caffe.SGDSolver, str]:
    solver = _solver(more)
    capsys.readouterr()
    solver.restore("run_iter_3.solverstate")
    return solver, capsys.readouterr().err


def _rewrite(side: Path, values: dict) -> None:
    """Change a side file's values, as an earlier version, which had no checksum, wrote them."""
    content = {**json.loads(side.read_text()), **values}
    side.write_text(json.dumps({k: v for k, v in content.items() if k not in ("crc32", "run")}))


def test_a_snapshot_of_caffes(taken: Path, capsys) -> None:
    taken.unlink()
    solver, said = _restored(capsys)
    assert "No run_iter_3.resume beside it: data starts over, as in Caffe" in said
    assert solver.iter == 3
    assert solver.net.wiring.layers[0].position()["next"] == 0


def test_another_snapshots_side_file(taken: Path, capsys) -> None:
    _rewrite(taken, {"history_crc32": 1})
    solver, said = _restored(capsys)
    assert "run_iter_3.resume is not run_iter_3.solverstate's, but another's: data starts" in said
    assert solver.net.wiring.layers[0].position()["next"] == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"run_iter_3.resume: damaged \(.*\); expected the side file of a snapshot"),
        ('{"format": 1}', r"run_iter_3.resume: damaged \(iteration: expected a whole number"),
        ('{"format": 7}', "run_iter_3.resume: format 7; expected 1"),
        ("[]", "run_iter_3.resume: damaged"),
    ],
)
def test_a_damaged_side_file_changes_nothing(taken: Path, text: str, message: str) -> None:
    taken.write_text(text)
    solver = _solver()
    before = _result(solver)
    with pytest.raises(caffe.CaffeError, match=message):
        solver.restore("run_iter_3.solverstate")
    assert (solver.iter, _result(solver)) == (0, before)


def _state(size: int) -> str:
    return base64.b64encode(b"\xff" * size).decode()


DAMAGES = [
    ("iteration", "3", "iteration: expected a whole number from 0 to 2^31 - 1, got '3'"),
    ("iteration", True, "iteration: expected a whole number from 0 to 2^31 - 1, got True"),
    ("iteration", 3.0, "iteration: expected a whole number from 0 to 2^31 - 1, got 3.0"),
    ("iteration", 10**40, "iteration: expected a whole number"),
    ("iteration", float("nan"), "iteration: expected a whole number"),
    ("written", None, "written: expected a number, got NoneType"),
    ("history_crc32", -1, "history_crc32: expected a CRC-32, got -1"),
    ("seed", "1", "seed: expected null or a whole number of 64 bits, got '1'"),
    ("run", 0, "run: expected a whole number from 1 up"),
    ("crc32", 12, "crc32: expected "),
    ("model", [], "model: expected an object, got list"),
    ("model.file", 7, "model.file: expected a text, got 7"),
    ("model.crc32", "x" * 999, "model.crc32: expected a CRC-32, got 'xxx"),
    ("loss", 1.5, "loss: expected an object, got 1.5"),
    ("loss.window", [1, "2"], "loss.window: expected a list of numbers"),
    ("loss.more", 1, "loss: expected window, mean, since alone"),
    ("loss.since", -1, "loss.since: expected a whole number from 0 up, got -1"),
    ("random", {}, "random: expected a list, got dict"),
    ("random.0", "state", "random[0]: expected null, or cpu and cuda"),
    ("random.0.cpu", None, "random[0].cpu: expected a text, got NoneType"),
    ("random.0.cpu", "rubbish!", "random[0].cpu: not a random state"),
    ("random.0.cpu", _state(16), "random[0].cpu: not a random state"),
    ("random.0.cpu", _state(5056), "random[0].cpu: not a random state"),
    ("random.0.cuda", _state(7), "random[0].cuda: expected 16 bytes, got 7"),
    ("nets", None, "nets: expected a list, got NoneType"),
    ("nets.0", {"layer": "data"}, "nets[0]: expected a list"),
    ("nets.0.0", "data", "nets[0][0]: expected an object"),
    ("nets.0.0.layer", ["data"], "nets[0][0].layer: expected a text, got list"),
    ("nets.0.0.next", "9", "nets[0][0].next: expected a whole number from 0 up, got '9'"),
    ("nets.0.0.next", 2**60, "nets[0][0].next: expected a whole number"),
    ("nets.0.0.seed", 0.5, "nets[0][0].seed: expected a whole number of 64 bits, got 0.5"),
    ("nets.0.0.source", "\ud800", "nets[0][0].source: expected a text"),
    ("nets.0.0.contents", 11, "nets[0][0].contents: expected an object of whole numbers"),
    ("nets.0.0.contents", {"records": "11"}, "nets[0][0].contents: expected an object of whole"),
]


@pytest.mark.parametrize(("key", "value", "message"), DAMAGES)
def test_a_value_that_cannot_be(taken: Path, key: str, value: object, message: str) -> None:
    """One line names its place, and nothing has changed; a checksum is not needed for that."""
    content = json.loads(taken.read_text())
    del content["crc32"]
    *way, last = [int(k) if k.isdigit() else k for k in key.split(".")]
    place = content
    for step in way:
        place = place[step]
    place[last] = value
    taken.write_text(json.dumps(content))
    solver = _solver()
    before = _result(solver)
    with pytest.raises(caffe.CaffeError) as caught:
        solver.restore("run_iter_3.solverstate")
    text = str(caught.value)
    assert text.startswith(f"run_iter_3.resume: damaged ({message}")
    assert "\n" not in text
    assert len(text) <= 300
    assert (solver.iter, _result(solver)) == (0, before)


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xfe{}", b"\x80", b"[" * 200_000, b'{"a":' * 200_000, b"1" * 9999, b"null",
     b'{"format": 1, "iteration": 1e999}'],
)  # fmt: skip
def test_what_is_no_side_file(taken: Path, data: bytes) -> None:
    taken.write_bytes(data)
    with pytest.raises(caffe.CaffeError, match=r"^run_iter_3.resume: damaged \(.*\n?$") as caught:
        resume.read(taken)
    assert len(str(caught.value)) <= 300


def test_not_even_a_file(taken: Path) -> None:
    taken.unlink()
    os.mkfifo(taken)
    with pytest.raises(caffe.CaffeError, match=r"run_iter_3\.resume: not a file"):
        resume.read(taken)


def test_each_byte_of_a_side_file_counts(taken: Path) -> None:
    """Wherever a bit flips within a value, the file is found damaged, or means what it did."""
    whole = resume.read(taken)
    text = taken.read_bytes()
    rng = np.random.default_rng(0)
    for place in rng.integers(0, len(text), 300):
        damaged = bytearray(text)
        damaged[place] ^= 1 << int(rng.integers(0, 7))
        taken.write_bytes(damaged)
        try:
            content = resume.read(taken)
        except caffe.CaffeError:
            continue
        changed = {key for key in whole if content.get(key) != whole[key]}
        assert changed <= {"crc32"}, (int(place), changed)


def test_a_diverged_run_goes_on(taken: Path) -> None:
    """Its losses are no numbers, which is no damage."""
    content = json.loads(taken.read_text())
    _rewrite(taken, {"loss": {**content["loss"], "mean": float("nan"), "window": [float("inf")]}})
    assert np.isnan(resume.read(taken)["loss"].mean)


def test_other_data(taken: Path, capsys) -> None:
    _records("more", 12)
    Path("net.prototxt").write_text(NET.replace('"lmdb"', '"more"', 1))
    solver, said = _restored(capsys)
    assert (
        "layer 'data' (Data): its data starts over: lmdb held 11 records, more holds 12 records"
    ) in said
    assert [p["next"] for p in _positions(solver) if p] == [0, json.loads(taken.read_text())
                                                            ["nets"][1][0]["next"]]  # fmt: skip


def test_a_position_that_makes_no_sense(taken: Path, capsys) -> None:
    nets = json.loads(taken.read_text())["nets"]
    del nets[0][0]["next"]
    _rewrite(taken, {"nets": nets})
    _, said = _restored(capsys)
    assert "layer 'data' (Data): its data starts over: KeyError('next')" in said


def test_other_layers(taken: Path, capsys) -> None:
    Path("net.prototxt").write_text(NET.replace('name: "data"', 'name: "input"', 1))
    _, said = _restored(capsys)
    message = "layer 'input' (Data): its data starts over: the snapshot does not know it"
    assert message in said
    assert "The snapshot's layer 'data' is not in the net 'restless'" in said


def test_another_seed(taken: Path, capsys) -> None:
    """Data continues. PyTorch's draws are new, and the same each time."""
    results = []
    for _ in range(2):
        solver, said = _restored(capsys, "random_seed: 2")
        assert "random_seed is 2, the snapshot's was 1: dropout and fillers draw other" in said
        assert solver.net.wiring.layers[0].position()["next"] == 9
        solver.step(2)
        results.append(_result(solver))
    same, _ = _restored(capsys)
    same.step(2)
    assert results[0] == results[1] != _result(same)


def test_another_number_of_processes(taken: Path, capsys) -> None:
    """Three of batch 3 have taken 27 records; dropout draws anew, and the same each time."""
    content = json.loads(taken.read_text())
    content["nets"][0][0]["next"] = 27
    _rewrite(taken, {"random": [None, *content["random"], None], "nets": content["nets"]})
    results = []
    for _ in range(2):
        solver, said = _restored(capsys)
        assert "has the random states of 3 process(es), this run has 1: the data goes on" in said
        assert solver.net.wiring.layers[0].position()["next"] == 27
        solver.step(2)
        assert solver.net.wiring.layers[0].position()["next"] == 33
        results.append(_result(solver))
    assert results[0] == results[1]


def test_a_process_that_could_not_be_asked(taken: Path, capsys, monkeypatch) -> None:
    _rewrite(taken, {"random": [*json.loads(taken.read_text())["random"], None]})
    caffe.set_solver_count(2)
    state = torch.get_rng_state()
    solver = _solver()
    caffe.set_solver_rank(1)
    solver.restore("run_iter_3.solverstate")
    assert not torch.equal(torch.get_rng_state(), state)
    caffe.set_solver_rank(0)
    _, said = _restored(capsys)
    assert "random states" not in said


def test_the_file_is_for_people_too(taken: Path) -> None:
    content = json.loads(taken.read_text())
    assert content["iteration"] == 3
    assert content["seed"] == 1
    assert content["model"]["bytes"] == Path("run_iter_3.caffemodel").stat().st_size
    (data,) = content["nets"][0]
    assert data == {
        "layer": "data", "type": "Data", "next": 9, "seed": 1, "source": "lmdb",
        "contents": {"records": 11}, "order": "seed",
    }  # fmt: skip


def test_losses_of_another_average_are_not_taken_over(folder: Path) -> None:
    """Without a mean over several, the first loss that a resumed run shows is its own."""
    Path("solver.prototxt").write_text(SOLVER)
    caffe.get_solver("solver.prototxt").solve()
    Path("solver.prototxt").write_text(SOLVER.replace("average_loss: 4", "average_loss: 1"))
    again, shown = caffe.get_solver("solver.prototxt"), []

    class Ear(Watcher):
        def iterated(self, iteration: int, loss: float) -> None:
            shown.append((iteration, loss))

    again.watch(Ear())
    again.restore("run_iter_10.solverstate")
    again.step(1)
    assert shown == [(10, pytest.approx(float(again.net.blobs["loss"].data)))]

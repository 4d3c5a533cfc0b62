"""Solvers: the training loop, its tests, snapshots, log lines and requests."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.graph.wiring import Wiring
from caffe.process import memory
from caffe.proto import caffe_pb2 as pb
from caffe.solver import resume
from caffe.solver.watching import Figure, Outcome, Watcher

pytestmark = pytest.mark.usefixtures("fresh")

# loss = sum (w x)^2 / 2 + b-terms: one weight of 2 inputs and one bias, targets zero
NET = """
name: "tiny"
layer { name: "in" type: "Input" top: "x" top: "t"
  input_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 1 weight_filler { type: "constant" value: 0.5 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""
SGD = 'base_lr: 0.1 lr_policy: "fixed" max_iter: 10 snapshot_after_train: false '


@pytest.fixture
def make_solver(tmp_path: Path) -> Callable[..., caffe.SGDSolver]:
    """make_solver(settings, net): a solver whose batches are a function of the iteration."""

    def make(text: str = "", net: str = NET, name: str = "solver") -> caffe.SGDSolver:
        (tmp_path / "net.prototxt").write_text(net)
        prefix = "" if "snapshot_prefix" in text else f'snapshot_prefix: "{tmp_path}/{name}" '
        source = "" if "net" in text else f'net: "{tmp_path}/net.prototxt" '
        param = text_format.Parse(SGD + prefix + source, _param())
        param.MergeFrom(text_format.Parse(text, _param()))
        solver = caffe.get_solver(param)

        def fill() -> None:
            rng = np.random.default_rng(solver.iter)
            for blob in map(solver.net.blobs.get, solver.net.inputs):
                blob.data[...] = rng.normal(size=blob.shape)

        solver.add_callback(fill, lambda: None)
        return solver

    return make


def _param() -> pb.SolverParameter:
    return pb.SolverParameter()


def _weights(solver: caffe.SGDSolver) -> list[np.ndarray]:
    return [b.data.copy() for blobs in solver.net.params.values() for b in blobs]


def _log(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The log lines since the last look, without their prefixes."""
    lines = capsys.readouterr().err.splitlines()
    return [line.split("] ", 1)[1] for line in lines if "] " in line]


# -- the loop -------------------------------------------------------------------------------------


def test_one_step_by_hand(make_solver) -> None:
    solver = make_solver()
    solver.step(1)
    x, t = solver.net.blobs["x"].data, solver.net.blobs["t"].data
    error = x @ np.full((3, 1), 0.5, np.float32) - t
    # loss = sum of squares / (2 N)
    assert float(solver.net.blobs["loss"].data) == pytest.approx(float((error**2).sum() / 4))
    assert np.allclose(solver.net.params["ip"][0].data, 0.5 - 0.1 * (error.T @ x) / 2, atol=1e-6)
    assert np.allclose(solver.net.params["ip"][1].data, -0.1 * error.mean(), atol=1e-6)
    assert solver.iter == 1


def test_iter_size_is_one_big_batch(make_solver) -> None:
    rng = np.random.default_rng(0)
    batches = rng.normal(size=(4, 2, 3)), rng.normal(size=(4, 2, 1))

    def feed(solver: caffe.SGDSolver, x: np.ndarray, t: np.ndarray) -> None:
        queue = list(zip(x, t, strict=True))

        def fill(layer: int) -> None:
            if layer == 0:
                for name, values in zip(("x", "t"), queue.pop(0), strict=True):
                    solver.net.blobs[name].data[...] = values

        solver.net.before_forward(fill)

    settings = "momentum: 0.9 weight_decay: 0.1 clip_gradients: 100 average_loss: 2 "
    small = make_solver(settings + "iter_size: 2")
    feed(small, *batches)
    big = make_solver(settings, NET.replace("dim: 2", "dim: 4"))
    feed(big, *(b.reshape(2, 4, -1) for b in batches))
    for solver in (small, big):
        solver.step(2)
        assert solver.iter == 2
    for a, b in zip(_weights(small), _weights(big), strict=True):
        assert np.allclose(a, b, atol=1e-6)
    assert small._loss.mean == pytest.approx(big._loss.mean, rel=1e-5)


def test_gradients_are_clipped_before_they_decay(make_solver, capsys) -> None:
    solver = make_solver("clip_gradients: 0.25 weight_decay: 1 base_lr: 1")
    before = _weights(solver)
    solver.step(1)
    # what is left of the gradient after decay 1 * w is subtracted has the norm 0.25
    left = [b - a - b for a, b in zip(_weights(solver), before, strict=True)]
    assert math.sqrt(sum(float((g**2).sum()) for g in left)) == pytest.approx(0.25, rel=1e-5)
    line = next(line for line in _log(capsys) if line.startswith("Gradient clipping"))
    norm, scale = map(float, re.findall(r"norm (\S+) >.* scale factor (\S+)", line)[0])
    assert scale == pytest.approx(0.25 / norm, rel=1e-4)
    assert "> 0.25)" in line


def test_small_gradients_are_not_clipped(make_solver, capsys) -> None:
    solver, plain = make_solver("clip_gradients: 1e4"), make_solver()
    for s in (solver, plain):
        s.step(1)
    assert np.array_equal(_weights(solver)[0], _weights(plain)[0])
    assert not any("clipping" in line for line in _log(capsys))


@pytest.mark.parametrize(("kind", "decayed"), [("L2", -0.5), ("L1", -1.0)])
def test_decay_and_multipliers(make_solver, kind: str, decayed: float) -> None:
    net = NET.replace(
        'top: "y"', 'top: "y" param { lr_mult: 2 decay_mult: 3 } param { lr_mult: 1 decay_mult: 0 }'
    ).replace("value: 0.5", "value: -0.5")
    solver = make_solver(f'regularization_type: "{kind}" weight_decay: 0.1', net)
    plain = make_solver("", net)
    for s in (solver, plain):
        s.step(1)
    # rate 0.1 * 2, decay 0.1 * 3: of the weight -0.5 itself, or of its sign
    difference = solver.net.params["ip"][0].data - plain.net.params["ip"][0].data
    assert np.allclose(difference, -0.2 * 0.3 * decayed, atol=1e-6)
    assert np.array_equal(solver.net.params["ip"][1].data, plain.net.params["ip"][1].data)


def test_a_parameter_that_does_not_learn(make_solver) -> None:
    solver = make_solver(
        "weight_decay: 0.1", NET.replace('top: "y"', 'top: "y" param {lr_mult: 0}')
    )
    before = _weights(solver)
    solver.step(3)
    after = _weights(solver)
    assert np.array_equal(before[0], after[0])
    assert not np.array_equal(before[1], after[1])


def test_a_shared_parameter_is_updated_once(make_solver) -> None:
    layer = """layer {{ name: "{0}" type: "InnerProduct" bottom: "{1}" top: "{0}"
      param {{ name: "w" }} inner_product_param {{ num_output: 3 bias_term: false
      weight_filler {{ type: "constant" value: 0.25 }} }} }}"""
    net = (
        'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }'
        + layer.format("a", "x")
        + layer.format("b", "a")
        + 'layer { name: "s" type: "Reduction" bottom: "b" top: "loss" loss_weight: 1 }'
    )
    solver = make_solver("", net)
    solver.step(1)
    # b = w w x, loss = sum b; dloss/dw = 1 (w x)^T + w^T 1 x^T, with all of w 1/4
    x = solver.net.blobs["x"].data
    gradient = np.full((3, 1), 1) @ np.full((1, 3), 0.25 * x.sum()) + np.full((3, 1), 0.75) @ x
    assert np.allclose(solver.net.params["a"][0].data, 0.25 - 0.1 * gradient, atol=1e-6)
    assert np.array_equal(solver.net.params["b"][0].data, solver.net.params["a"][0].data)


def test_callbacks_come_before_each_iteration_and_each_update(make_solver) -> None:
    solver = make_solver()
    seen: list[tuple[str, int, bool]] = []

    def look(what: str) -> Callable[[], None]:
        return lambda: seen.append((what, solver.iter, bool(solver.net.params["ip"][0].diff.any())))

    solver.add_callback(look("start"), look("gradients"))
    solver.step(2)
    assert seen == [
        ("start", 0, False),
        ("gradients", 0, True),
        ("start", 1, False),
        ("gradients", 1, True),
    ]


def test_training_goes_on_through_not_a_number(make_solver, capsys) -> None:
    solver = make_solver("base_lr: 1e30 display: 1")
    solver.step(6)
    assert solver.iter == 6
    assert np.isnan(solver.net.params["ip"][0].data).all()
    assert any(re.search(r"Iteration 5 .*, loss = -?nan", line) for line in _log(capsys))


def test_a_solver_follows_the_mode(make_solver, request) -> None:
    solver, plain = make_solver("momentum: 0.9"), make_solver("momentum: 0.9")
    plain.step(4)
    solver.step(2)
    request.getfixturevalue("pretend_gpu")
    solver.step(1)
    caffe.set_mode_cpu()
    solver.step(1)
    for a, b in zip(_weights(solver), _weights(plain), strict=True):
        assert np.array_equal(a, b)


# -- kinds of solvers -----------------------------------------------------------------------------

KINDS = ["SGD", "Nesterov", "AdaGrad", "RMSProp", "AdaDelta", "Adam"]


@pytest.mark.parametrize("kind", KINDS)
def test_get_solver_makes_the_kind_that_is_named(make_solver, kind: str) -> None:
    solver = make_solver(f'type: "{kind}"')
    assert type(solver) is getattr(caffe, f"{kind}Solver")
    assert isinstance(solver, caffe.SGDSolver)


def test_a_class_makes_its_own_kind(tmp_path) -> None:
    (tmp_path / "net").write_text(NET)
    (tmp_path / "s").write_text(f'{SGD} type: "Adam" net: "{tmp_path}/net"')
    assert caffe.NesterovSolver(str(tmp_path / "s"))._update.name == "Nesterov"


def test_lr_is_that_of_the_next_update(make_solver) -> None:
    solver = make_solver('lr_policy: "exp" gamma: 0.5')
    assert solver.lr == pytest.approx(0.1)
    solver.step(2)
    assert solver.lr == pytest.approx(0.025)
    solver.param.base_lr = 0.2  # as pycaffe's users do
    assert solver.lr == pytest.approx(0.05)


# -- snapshots ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["BINARYPROTO", "HDF5"])
def test_a_resumed_run_is_the_unbroken_run_bit_by_bit(make_solver, tmp_path, kind, form) -> None:
    momentum = "" if kind in ("AdaGrad", "RMSProp") else "momentum: 0.9 "
    settings = f'type: "{kind}" {momentum} weight_decay: 0.01 snapshot_format: {form} '
    settings += 'lr_policy: "multistep" gamma: 0.5 stepvalue: 1 stepvalue: 2 stepvalue: 6'
    unbroken = make_solver(settings)
    unbroken.step(4)
    unbroken.snapshot()
    unbroken.step(4)
    resumed = make_solver(settings)
    suffix = ".h5" if form == "HDF5" else ""
    resumed.restore(tmp_path / f"solver_iter_4.solverstate{suffix}")
    assert resumed.iter == 4
    resumed.step(4)
    for a, b in zip(_weights(resumed), _weights(unbroken), strict=True):
        assert np.array_equal(a, b)
    for a, b in zip(resumed._history, unbroken._history, strict=True):
        assert np.array_equal(a.data, b.data)
    assert resumed.lr == unbroken.lr


def test_when_snapshots_are_taken(make_solver, tmp_path) -> None:
    make_solver("max_iter: 7 snapshot: 3 snapshot_after_train: true").solve()
    names = sorted(p.name for p in tmp_path.glob("solver_iter*"))
    iterations = (3, 6, 7)
    assert names == sorted(
        f"solver_iter_{i}.{end}"
        for i in iterations
        for end in ("caffemodel", "resume", "solverstate")
    )


def test_the_last_snapshot_is_not_taken_twice(make_solver, capsys) -> None:
    make_solver("max_iter: 6 snapshot: 3 snapshot_after_train: true").solve()
    assert sum("Snapshotting to binary proto file" in line for line in _log(capsys)) == 2


def test_only_the_first_of_several_solvers_saves(make_solver, tmp_path) -> None:
    caffe.set_solver_rank(1)
    make_solver("max_iter: 2 snapshot: 1 snapshot_after_train: true").solve()
    assert not list(tmp_path.glob("solver_iter*"))


@pytest.mark.parametrize("settings", ["snapshot: 5", "snapshot_after_train: true"])
def test_an_unwritable_prefix_is_said_before_training(make_solver, tmp_path, settings) -> None:
    with pytest.raises(caffe.CaffeError, match=r"cannot write to snapshot prefix '.*nix/x' \(No"):
        make_solver(f'{settings} snapshot_prefix: "{tmp_path}/nix/x"').solve()


def test_looking_for_a_writable_prefix_leaves_nothing(make_solver, tmp_path) -> None:
    make_solver("snapshot: 5")
    assert [p.name for p in tmp_path.iterdir()] == ["net.prototxt"]


def test_restore_finds_weights_beside_a_state_that_was_moved(make_solver, tmp_path) -> None:
    solver = make_solver()
    solver.step(2)
    solver.snapshot()
    (tmp_path / "moved").mkdir()
    for path in tmp_path.glob("solver_iter_2.*"):
        path.rename(tmp_path / "moved" / path.name)
    other = make_solver()
    other.restore(str(tmp_path / "moved" / "solver_iter_2.solverstate"))
    assert np.array_equal(_weights(other)[0], _weights(solver)[0])


def test_restore_of_another_kind_of_solver(make_solver, tmp_path) -> None:
    make_solver('type: "Adam" momentum: 0.9').snapshot()
    message = r"iter_0.solverstate: the history holds 4 blob\(s\), this solver \(SGD, 2 param"
    with pytest.raises(caffe.CaffeError, match=message):
        make_solver().restore(tmp_path / "solver_iter_0.solverstate")


def test_restore_of_another_net_changes_nothing(make_solver, tmp_path) -> None:
    make_solver("", NET.replace("dim: 3", "dim: 4")).snapshot()
    solver = make_solver()
    solver.step(1)
    before = _weights(solver)
    with pytest.raises(caffe.CaffeError, match=r"history blob 0 has the shape \(1, 4\), expected"):
        solver.restore(tmp_path / "solver_iter_0.solverstate")
    assert solver.iter == 1
    assert np.array_equal(_weights(solver)[0], before[0])


def test_solve_takes_a_state_to_start_from(make_solver, tmp_path) -> None:
    first = make_solver()
    first.step(4)
    first.snapshot()
    second = make_solver("max_iter: 6")
    second.solve(str(tmp_path / "solver_iter_4.solverstate"))
    first.step(2)
    assert second.iter == 6
    assert np.array_equal(_weights(first)[0], _weights(second)[0])


def test_weights_in_the_solver(make_solver, tmp_path) -> None:
    source = make_solver()
    source.net.params["ip"][0].data[...] = 3
    source.net.save(tmp_path / "a")
    source.net.params["ip"][0].data[...] = 4
    source.net.save(tmp_path / "b")
    settings = f'weights: "{tmp_path}/a, {tmp_path}/b" test_iter: 1 test_interval: 5'
    solver = make_solver(settings)
    for net in (solver.net, solver.test_nets[0]):
        assert (net.params["ip"][0].data == 4).all()


# -- requests -------------------------------------------------------------------------------------


def _ask(solver: caffe.SGDSolver, answers: dict[int, str]) -> None:
    solver.set_requests(lambda: answers.pop(solver.iter, "none"))


@pytest.mark.parametrize("save", [False, True])
def test_a_request_to_stop(make_solver, tmp_path, capsys, save: bool) -> None:
    solver = make_solver(f"snapshot_after_train: {str(save).lower()} display: 1")
    _ask(solver, {3: "stop"})
    solver.solve()
    assert solver.iter == 3
    assert (tmp_path / "solver_iter_3.solverstate").exists() == save
    assert _log(capsys)[-1] == "Optimization stopped early."


def test_a_request_to_stop_right_after_a_snapshot(make_solver, capsys) -> None:
    solver = make_solver("snapshot: 3 snapshot_after_train: true")
    _ask(solver, {3: "stop"})
    solver.solve()
    assert sum("Snapshotting to" in line for line in _log(capsys)) == 1


def test_a_request_for_a_snapshot(make_solver, tmp_path) -> None:
    solver = make_solver()
    _ask(solver, {2: "snapshot"})
    solver.solve()
    assert solver.iter == 10
    assert [p.name for p in tmp_path.glob("*state")] == ["solver_iter_2.solverstate"]


def _states(folder: Path) -> list[int]:
    return sorted(int(p.stem.rpartition("_")[2]) for p in folder.glob("*.solverstate"))


@pytest.mark.parametrize("more", ["", "snapshot: 2", "snapshot_after_train: false"])
def test_a_request_to_end_saves_once(make_solver, tmp_path, capsys, more: str) -> None:
    solver = make_solver(f"max_iter: 9 {more}")
    solver.set_requests(lambda: "end" if solver.iter == 4 else "none")
    solver.solve()
    assert (solver.iter, solver.ended) == (4, True)
    assert _states(tmp_path) == ([2, 4] if "snapshot: 2" in more else [4])
    assert capsys.readouterr().err.count("Snapshotting solver state") == len(_states(tmp_path))
    solver.set_requests(lambda: "none")
    solver.solve()
    assert (solver.iter, solver.ended) == (9, False)


def test_a_request_to_end_while_a_snapshot_is_written(make_solver, tmp_path, monkeypatch) -> None:
    """There is no time for another iteration, nor for another snapshot."""
    solver = make_solver("max_iter: 9 snapshot: 3")
    asked = []
    whole = resume.write
    monkeypatch.setattr(resume, "write", lambda *a: (whole(*a), asked.append("end")))
    solver.set_requests(lambda: asked.pop() if asked else "none")
    solver.solve()
    assert (solver.iter, solver.ended, _states(tmp_path)) == (3, True, [3])


def test_step_saves_too_when_it_is_to_end(make_solver, tmp_path) -> None:
    solver = make_solver("snapshot_after_train: false")
    solver.set_requests(lambda: "end" if solver.iter == 2 else "none")
    solver.step(9)
    assert (solver.iter, solver.ended, _states(tmp_path)) == (2, True, [2])


def test_a_request_to_end_during_a_test(make_solver, tmp_path, capsys) -> None:
    """The snapshot is of before the test; the run that goes on makes the test again."""
    test = "max_iter: 9 test_interval: 3 test_iter: 2 snapshot_after_train: false"
    solver = make_solver(test)
    answers = iter(["none", "none", "none", "end", "none"])  # three iterations, then in the test
    solver.set_requests(lambda: next(answers) if solver.iter else "none")
    solver.solve()
    assert (solver.iter, solver.ended, _states(tmp_path)) == (3, True, [3])
    assert "Test interrupted." in capsys.readouterr().err
    again = make_solver(test)
    again.restore(tmp_path / "solver_iter_3.solverstate")
    again.solve()
    assert "Iteration 3, Testing net (#0)" in capsys.readouterr().err


def test_requests_during_a_test(make_solver, tmp_path, capsys) -> None:
    solver = make_solver("test_iter: 3 test_interval: 2")
    answers = iter(["none", "none", "snapshot", "stop", "none"])  # two iterations, then in the test
    solver.set_requests(lambda: next(answers) if solver.iter else "none")
    solver.solve()
    assert solver.iter == 2
    assert (tmp_path / "solver_iter_2.caffemodel").exists()
    assert _log(capsys)[-2:] == ["Test interrupted.", "Optimization stopped early."]


def test_a_snapshot_and_an_end_in_one_test_save_once(make_solver, tmp_path, capsys) -> None:
    solver = make_solver("test_iter: 3 test_interval: 2")
    answers = iter(["none", "none", "snapshot", "end", "none"])
    solver.set_requests(lambda: next(answers) if solver.iter else "none")
    solver.solve()
    assert (solver.iter, solver.ended, _states(tmp_path)) == (2, True, [2])
    assert capsys.readouterr().err.count("Snapshotting solver state") == 1


# -- test nets ------------------------------------------------------------------------------------


def test_when_tests_are_run(make_solver, capsys) -> None:
    for settings, expected in (
        ("test_interval: 4", [0, 4, 8]),
        ("test_interval: 5", [0, 5, 10]),  # max_iter 10: once more at the end
        ("test_interval: 5 test_initialization: false", [5, 10]),
        ("test_interval: 100", [0]),
    ):
        solver = make_solver("test_iter: 1 " + settings)
        capsys.readouterr()
        solver.solve()
        lines = [line for line in _log(capsys) if "Testing net" in line]
        assert lines == [f"Iteration {i}, Testing net (#0)" for i in expected]


def test_test_nets_use_the_weights_of_the_trained(make_solver) -> None:
    solver = make_solver("test_iter: 1 test_interval: 2")
    solver.step(3)
    trained, tested = (net.params["ip"][0] for net in (solver.net, solver.test_nets[0]))
    assert np.array_equal(trained.data, tested.data)
    trained.data[...] = 7
    assert (tested.data == 7).all()


def test_what_a_test_says(make_solver, capsys) -> None:
    net = NET + 'layer { name: "w" type: "Power" bottom: "y" top: "a" power_param { scale: 2 } }'
    net += 'layer { name: "loss2" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "b" '
    net += "loss_weight: 3 }"
    solver = make_solver("test_iter: 2 test_interval: 1 test_compute_loss: true", net)
    blobs = solver.test_nets[0].blobs
    blobs["x"].data[...] = [[1, 1, 0], [1, 1, 1]]
    capsys.readouterr()
    solver.step(1)
    # y = 1 and 1.5; a = 2 y; losses (1 + 2.25) / 4 = 0.8125, of weights 1 and 3
    assert _log(capsys)[:6] == [
        "Iteration 0, Testing net (#0)",
        "Test loss: 3.25",
        "    Test net output #0: a = 2",
        "    Test net output #1: a = 3",
        "    Test net output #2: b = 0.8125 (* 3 = 2.4375 loss)",
        "    Test net output #3: loss = 0.8125 (* 1 = 0.8125 loss)",
    ]


# Scores (x) and labels of four pixels a batch, by the number of the test's batch.
PIXELS = """
layer { name: "in" type: "Input" top: "x" top: "t" input_param {
  shape { dim: 1 dim: 3 dim: 1 dim: 4 } shape { dim: 1 dim: 1 dim: 1 dim: 4 } } }
layer { name: "a" type: "Accuracy" bottom: "x" bottom: "t" top: "mean_of_batches"
  accuracy_param { ignore_label: 9 } include { phase: TEST } }
layer { name: "s" type: "SegmentationAccuracy" bottom: "x" bottom: "t" top: "global" top: "class"
  top: "iou" segmentation_accuracy_param { ignore_label: 9 } include { phase: TEST } }
layer { name: "percent" type: "Power" bottom: "iou" top: "percent" power_param { scale: 100 }
  include { phase: TEST } }
"""
BATCHES = (([0, 1, 1, 2], [0, 0, 1, 1]), ([0, 0, 0, 0], [0, 9, 9, 9]), ([1, 0, 0, 2], [1, 1, 1, 0]))
# Of class 0 two of four pixels are right, of class 1 two of five; their unions are 6 and 6. Class 2
# is predicted, but has no pixels.
WHOLE = {
    "global": 4 / 9,
    "class": (2 / 4 + 2 / 5) / 2,
    "percent": 100 * (2 / 6 + 2 / 6) / 2,
    "mean_of_batches": (2 / 4 + 1 / 1 + 1 / 4) / 3,
}


def _feed_pixels(net: caffe.Net) -> None:
    """Fill the inputs with the next of BATCHES before each pass, round and round."""
    passes = iter(range(1000))

    def fill(layer: int) -> None:
        if layer == 0:
            predicted, labels = BATCHES[next(passes) % 3]
            net.blobs["x"].data[...] = np.eye(3)[predicted].T[None, :, None]
            net.blobs["t"].data[...] = np.array(labels)[None, None, None]

    net.before_forward(fill)


def _pixel_solver(make_solver, text: str = "") -> tuple[caffe.SGDSolver, list[dict[str, float]]]:
    """A solver whose test sees BATCHES, and the figures of its tests so far."""
    told: list[dict[str, float]] = []

    class Told(Watcher):
        def tested(self, tested: Outcome) -> None:
            told.append({figure.name: figure.value for figure in tested.figures})

    solver = make_solver(f"test_iter: 3 test_interval: 2 max_iter: 4 {text}", PIXELS)
    _feed_pixels(solver.test_nets[0])
    solver.watch(Told())
    return solver, told


def test_what_a_layer_accumulates_is_of_the_whole_test(make_solver, capsys) -> None:
    solver, told = _pixel_solver(make_solver)
    solver.solve()
    assert told == [pytest.approx(WHOLE)] * 3  # at iterations 0, 2 and 4
    log = [line for line in _log(capsys) if "Test net output" in line]
    assert f"    Test net output #0: class = {WHOLE['class']:g}" in log


def test_a_test_after_a_broken_off_one_counts_anew(make_solver, tmp_path) -> None:
    """In the same solver, and in one that goes on from the snapshot."""
    solver, told = _pixel_solver(make_solver)
    answers = iter(["none", "none", "none", "end"])  # two iterations, then before the second batch
    solver.set_requests(lambda: next(answers, "none") if solver.iter else "none")
    solver.solve()
    assert (solver.iter, len(told)) == (2, 1)
    again, more = _pixel_solver(make_solver)
    again.restore(tmp_path / "solver_iter_2.solverstate")
    again.solve()
    assert more == [pytest.approx(WHOLE)] * 2
    for _ in range(2):  # the batches of the test go on where it was broken off
        solver.test_nets[0].forward()
    solver.solve()
    assert told[1:] == [pytest.approx(WHOLE)] * 2


def test_a_test_of_no_iterations(make_solver, capsys) -> None:
    make_solver("test_iter: 0 test_interval: 5 max_iter: 5").solve()
    assert not any("net output #" in line for line in _log(capsys))


def test_states_and_several_test_nets(make_solver, tmp_path) -> None:
    layer = """layer {{ name: "{0}" type: "DummyData" top: "{0}" include {{ {1} }}
      dummy_data_param {{ shape {{ dim: 1 }} }} }}"""
    net = "".join(
        layer.format(name, rule)
        for name, rule in (
            ("train", "phase: TRAIN stage: 's'"),
            ("first", "phase: TEST stage: 'one'"),
            ("second", "phase: TEST min_level: 2"),
        )
    )
    solver = make_solver(
        "train_state { stage: 's' } test_state { stage: 'one' } test_state { level: 2 } "
        "test_iter: 1 test_iter: 1 test_interval: 1",
        net,
    )
    assert list(solver.net.blobs) == ["train"]
    assert [list(net.blobs) for net in solver.test_nets] == [["first"], ["second"]]
    # the net's own state stands between the solver's default and train_state
    own = make_solver("", 'state { stage: "s" }' + net)
    assert list(own.net.blobs) == ["train"]


def test_nets_of_all_sources(make_solver, tmp_path) -> None:
    (tmp_path / "other").write_text(NET.replace("tiny", "other"))
    inline = NET.replace("\n", " ")
    solver = make_solver(
        f'train_net_param {{ {inline} }} test_net: "{tmp_path}/other" '
        f"test_net_param {{ {inline.replace('tiny', 'third')} }} "
        "test_iter: 1 test_iter: 1 test_interval: 1"
    )
    assert solver.net.name == "tiny"
    assert [net.name for net in solver.test_nets] == ["third", "other"]  # messages before files


# -- log lines ------------------------------------------------------------------------------------


def test_display(make_solver, capsys) -> None:
    solver = make_solver("display: 4")
    capsys.readouterr()
    solver.solve()
    lines = _log(capsys)
    shown = [line for line in lines if line.startswith("Iteration")]
    kinds = [re.sub(r"\(.*\)|loss = .*", "", line) for line in shown]
    assert kinds == [
        "Iteration 0 , ", "Iteration 0, lr = 0.1",
        "Iteration 4 , ", "Iteration 4, lr = 0.1",
        "Iteration 8 , ", "Iteration 8, lr = 0.1",
    ]  # fmt: skip
    assert re.fullmatch(r"Iteration 4 \(\S+ iter/s, \S+s/4 iters\), loss = \S+", shown[2])
    assert re.fullmatch(r"    Train net output #0: loss = (\S+) \(\* 1 = \1 loss\)", lines[3])


def test_the_loss_after_the_last_iteration(make_solver, capsys) -> None:
    make_solver("display: 5").solve()
    line = _log(capsys)[-2]
    assert re.fullmatch(r"Iteration 10, loss = \S+", line)


def test_no_display(make_solver, capsys) -> None:
    solver = make_solver("display: 0")
    capsys.readouterr()
    solver.solve()
    assert _log(capsys) == [
        "Solving tiny",
        "Learning Rate Policy: fixed",
        "Optimization Done.",
    ]


def test_nothing_is_left_to_do(make_solver, capsys) -> None:
    solver = make_solver("max_iter: 3")
    solver.step(5)
    before = _weights(solver)
    solver.solve()
    assert solver.iter == 5
    assert np.array_equal(_weights(solver)[0], before[0])


def test_average_loss(make_solver, capsys) -> None:
    losses, means = [], []
    for window, into in ((1, losses), (3, means)):
        solver = make_solver(f"display: 1 average_loss: {window}")
        capsys.readouterr()
        solver.step(6)
        into += [float(m) for m in re.findall(r"iters\), loss = (\S+)", "\n".join(_log(capsys)))]
    expected = [np.mean(losses[max(0, i - 2) : i + 1]) for i in range(6)]
    assert means == pytest.approx(expected, rel=1e-4)


def test_debug_info_only_where_it_is_displayed(make_solver, capsys) -> None:
    solver = make_solver("debug_info: true display: 2")
    capsys.readouterr()
    solver.step(3)
    lines = [line for line in _log(capsys) if "Layer loss, top blob loss" in line]
    assert len(lines) == 2


# -- settings that cannot be ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("average_loss: 0", "average_loss is 0, expected at least 1"),
        ("iter_size: 0", "iter_size is 0, expected at least 1"),
        ("iter_size: -3", "iter_size is -3, expected at least 1"),
        ("display: -1", "display is -1, expected at least 0"),
        ("test_iter: -1 test_interval: 1", "test_iter is -1, expected at least 0"),
        ("base_lr: nan", "base_lr is nan, expected a finite number"),
        ("gamma: nan", "gamma is nan, expected a finite number"),
        ("weight_decay: -inf", "weight_decay is -inf, expected a finite number"),
        ("clip_gradients: inf", "clip_gradients is inf, expected a finite number"),
        ('type: "Adam" momentum2: 1', "momentum2 is 1, expected 0 <= it < 1"),
        (r'weights: "a\0b"', "weights holds a null character"),
        ('regularization_type: "L3"', "unknown regularization_type 'L3'; expected L1 or L2"),
        ('type: "Adm"', "unknown type 'Adm'; expected one of AdaDelta, AdaGrad, Adam"),
        ("test_iter: 1", "test_iter is given, so test_interval must be positive"),
        ("test_iter: 1 test_interval: 1 test_state { } test_state { }",
         r"test_state is given 2 time\(s\), expected none or one for each of 1 test net"),
        ('net: "a" train_net: "b"', "exactly one of net, net_param, .* got net, train_net"),
        ('train_net_param { } test_net_param { }', r"test_iter must .* 0 time\(s\), test nets"),
        ('train_net_param { } test_iter: 1 test_interval: 1', "test_iter must .* 1 time"),
    ],
)  # fmt: skip
def test_bad_settings(make_solver, text: str, message: str) -> None:
    with pytest.raises(caffe.CaffeError, match=f"solver: {message}"):
        make_solver(text)


def test_history_needs_memory(make_solver, monkeypatch) -> None:
    monkeypatch.setattr(Wiring, "check_memory", lambda *_: None)
    monkeypatch.setattr(memory, "left", lambda: 31.0)  # 4 weights: 16 bytes of each
    with pytest.raises(caffe.CaffeError, match=r"^solver: the gradients and history \(SGD\) of"):
        make_solver("")


def test_no_net_at_all() -> None:
    with pytest.raises(caffe.CaffeError, match=r"exactly one of net, net_param, .*got none"):
        caffe.get_solver(text_format.Parse('lr_policy: "fixed"', _param()))


def test_a_message_needs_a_prefix_for_snapshots() -> None:
    param = text_format.Parse(f"snapshot: 1 net_param {{ {NET} }}", _param())
    with pytest.raises(caffe.CaffeError, match="snapshot is given, but snapshot_prefix is not"):
        caffe.get_solver(param)


def test_the_same_seed_gives_the_same_run(make_solver) -> None:
    net = NET.replace('type: "constant" value: 0.5', 'type: "gaussian"')
    runs = [_weights(make_solver(f"random_seed: {seed}", net))[0] for seed in (5, 5, 6)]
    assert np.array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_more_iterations_than_a_state_counts(make_solver) -> None:
    with pytest.raises(caffe.CaffeError, match="iteration 2147483648: a solver counts to"):
        make_solver().step(2**31)


def test_a_watcher_hears_of_iterations_tests_and_snapshots(make_solver, tmp_path, capsys) -> None:
    heard: list[tuple] = []

    class Ear(Watcher):
        def iterated(self, iteration: int, loss: float) -> None:
            heard.append(("iterated", iteration, loss))

        def tested(self, tested: Outcome) -> None:
            heard.append(("tested", tested))

        def saved(self, iteration: int, state: str) -> None:
            heard.append(("saved", iteration, state))

    settings = "test_iter: 2 test_interval: 2 snapshot: 2 display: 1 average_loss: 2 "
    solver = make_solver(settings + "test_compute_loss: true max_iter: 2 random_seed: 1")
    test = solver.test_nets[0]
    test.blobs["x"].data[...], test.blobs["t"].data[...] = 1, 0
    solver.watch(Ear())
    solver.solve()
    log = "\n".join(_log(capsys))
    assert [h[:2] for h in heard if h[0] != "tested"] == [
        ("iterated", 0),
        ("iterated", 1),
        ("saved", 2),
    ]
    assert heard[3][2] == f"{tmp_path}/solver_iter_2.solverstate"
    for _, iteration, loss in (heard[1], heard[2]):
        assert f"Iteration {iteration}, loss = {loss:g}" in re.sub(r" \(.*iters\)", "", log)
    first, last = heard[0][1], heard[-1][1]
    assert first == Outcome(0, 0, (Figure("loss", 0, 1.125, 1),), 1.125)  # (3 * 0.5)^2 / 2
    assert (last.iteration, last.net) == (2, 0)
    assert f"Test net output #0: loss = {last.figures[0].value:g} (* 1" in log


def test_a_watcher_hears_of_rates_batches_and_requests(make_solver) -> None:
    heard: list[tuple] = []

    class Ear(Watcher):
        def updating(self, iteration: int, rate: float) -> None:
            heard.append(("updating", iteration, rate))

        def testing(self, iteration: int, net: int, batch: int, batches: int) -> None:
            heard.append(("testing", iteration, net, batch, batches))

        def asked(self, iteration: int, request: str) -> None:
            heard.append(("asked", iteration, request))

    settings = (
        'test_iter: 2 test_interval: 2 max_iter: 9 base_lr: 0.5 lr_policy: "step" gamma: 0.5 '
    )
    solver = make_solver(settings + "stepsize: 1 snapshot_after_train: false")
    requests = iter(["none"] * 3 + ["stop"])  # before each batch of the test, after each iteration
    solver.set_requests(lambda: next(requests))
    solver.watch(Ear())
    solver.solve()
    assert heard == [
        *(("testing", 0, 0, batch, 2) for batch in (0, 1)),
        *(("updating", 0, 0.5), ("updating", 1, 0.25), ("asked", 2, "stop")),
    ]

"""Several processes that train one set of weights, over gloo."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import caffe
from caffe.formats.db import create
from caffe.formats.files import read_weights
from caffe.formats.prototext import parse
from caffe.proto import caffe_pb2 as pb
from caffe.tools import train
from caffe.train import allreduce as nccl

NET = """
layer {{ name: "data" type: "Data" top: "data" top: "label"
  data_param {{ source: "{lmdb}" backend: LMDB batch_size: {batch} }} }}
layer {{ name: "hidden" type: "InnerProduct" bottom: "data" top: "hidden"
  inner_product_param {{ num_output: 4 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "tanh" type: "TanH" bottom: "hidden" top: "hidden" }}
layer {{ name: "out" type: "InnerProduct" bottom: "hidden" top: "out"
  inner_product_param {{ num_output: 1 weight_filler {{ type: "xavier" }} }} }}
layer {{ name: "loss" type: "EuclideanLoss" bottom: "out" bottom: "label" top: "loss" }}
"""


@pytest.fixture
def lmdb(tmp_path):
    """Eight records of six values with a label."""
    rng = np.random.default_rng(0)
    with create(tmp_path / "lmdb") as put:
        for i in range(8):
            datum = caffe.io.array_to_datum(rng.normal(size=(6, 1, 1)), int(rng.integers(5)))
            put(b"%08d" % i, datum.SerializeToString())
    return tmp_path / "lmdb"


def solver_file(folder, lmdb, batch, more=""):
    folder.mkdir()
    (folder / "net.prototxt").write_text(NET.format(lmdb=lmdb, batch=batch))
    path = folder / "solver.prototxt"
    path.write_text(
        f'net: "{folder}/net.prototxt" base_lr: 0.05 momentum: 0.9 lr_policy: "fixed" max_iter: 6 '
        f'snapshot_prefix: "{folder}/s" random_seed: 1 display: 2 {more}'
    )
    return path


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "caffe.tools.train", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GLOG_minloglevel": "0"},
    )


def test_two_processes_are_one_with_twice_the_batch(lmdb, tmp_path):
    alone = solver_file(tmp_path / "alone", lmdb, 4)
    caffe.get_solver(str(alone)).solve()
    expected = read_weights(tmp_path / "alone" / "s_iter_6.caffemodel")

    both = solver_file(tmp_path / "both", lmdb, 2)
    result = run("--solver", both, "--cpu", 2, "--timing")
    assert result.returncode == 0, result.stderr
    found = read_weights(tmp_path / "both" / "s_iter_6.caffemodel")
    for name in ("hidden", "out"):
        for mine, theirs in zip(found[name], expected[name], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
    # Only the first of them talks.
    assert result.stderr.count("Iteration 2 (") == 1
    assert "\nback   2     tanh : " in result.stderr
    assert "\nallreduce: " in result.stderr


def test_a_process_that_fails_ends_the_run(lmdb, tmp_path):
    path = solver_file(tmp_path / "s", lmdb, 2)
    path.write_text(path.read_text().replace('lr_policy: "fixed"', 'lr_policy: "never"'))
    result = run("--solver", path, "--cpu", 2)
    assert result.returncode == 1
    assert "rank " in result.stderr
    assert "never" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_random_seed_all_share_one_that_is_drawn(lmdb, tmp_path):
    """By it the records are shared out in one order."""
    path = solver_file(tmp_path / "s", lmdb, 2)
    path.write_text(path.read_text().replace("random_seed: 1", ""))
    script = """
import sys, caffe
from caffe.process import seeds
rank, uid, solver = sys.argv[1:]
caffe.set_solver_count(2)
caffe.set_solver_rank(int(rank))
solver = caffe.get_solver(solver)
link = caffe.NCCL(solver, uid)
print(solver.net.layers[0].seed, seeds.process_seed())
"""
    command = [sys.executable, "-c", script]
    uid = str(tmp_path / "uid")
    both = [
        subprocess.Popen([*command, str(rank), uid, path], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    (shared, drawn), (also, other) = (p.communicate(timeout=120)[0].split() for p in both)
    assert shared == also
    assert int(shared) == int(drawn) % 2**63
    assert drawn != other


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu():
    assert not caffe.has_nccl()
    with pytest.raises(caffe.CaffeError, match="GPU 0 was asked for"):
        train.main(["--solver", "solver.prototxt"])


def test_new_uids_are_bytes_and_differ():
    first, second = caffe.NCCL.new_uid(), caffe.NCCL.new_uid()
    assert isinstance(first, bytes)
    assert first != second


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many values travelled each time; nothing does, for want of others."""

    class Done:
        def wait(self) -> None:
            pass

    counts: list[int] = []
    monkeypatch.setattr(nccl, "join", lambda *given: None)
    monkeypatch.setattr(nccl, "agree", lambda request: request)
    monkeypatch.setattr(nccl, "send", lambda t: counts.append(t.numel()) or Done())
    return counts


@pytest.mark.parametrize("observed", [True, False])
@pytest.mark.parametrize("passes", [1, 2])
def test_gradients_travel_before_the_pass_is_over(
    lmdb, tmp_path, monkeypatch, sent: list[int], observed: bool, passes: int
) -> None:
    """By layers and by plan: the last layer's first; and only in the last of iter_size passes."""
    monkeypatch.setattr(nccl, "BUCKET", 4 * 28)  # bytes: the first layer's 24 + 4
    monkeypatch.setattr(nccl, "LARGE", 4 * 24)
    solver = caffe.get_solver(str(solver_file(tmp_path / "s", lmdb, 2, f"iter_size: {passes}")))
    solver.net.observed = observed
    link = caffe.NCCL(solver, "nowhere")
    link.overlap()
    seen = []
    solver.add_callback(lambda: None, lambda: seen.append(list(sent)))
    solver.add_callback(link)
    forward = solver.net.forward_from_to
    solver.net.forward_from_to = lambda *given: seen.append(list(sent)) or forward(*given)
    solver.step(1)
    # The weights of `hidden` by themselves; its bias (4) and those of `out` (4, 1) together.
    assert sent == [24, 9]
    assert seen == [[]] * passes + [[24, 9]]  # nothing at each forward pass, all when it is over
    solver.step(1)
    assert sent == [24, 9] * 2


def test_buckets_go_in_one_order_whatever_is_ready_first(lmdb, tmp_path, monkeypatch, sent) -> None:
    monkeypatch.setattr(nccl, "LARGE", 4)  # every gradient travels by itself
    solver = caffe.get_solver(str(solver_file(tmp_path / "s", lmdb, 2)))
    link = caffe.NCCL(solver, "nowhere")
    (hidden, hidden_bias), (out, out_bias) = solver.net.params.values()
    order = [out_bias.count, out.count, hidden_bias.count, hidden.count]
    for ready, expected in ((hidden, 0), (out_bias, 1), (hidden_bias, 1), (out, 4)):
        link._complete(ready)
        assert sent == order[:expected]
    with pytest.raises(AssertionError, match="changed after it was sent"):
        link._complete(out)


def test_gradients_that_are_late_travel_in_the_end(lmdb, tmp_path, monkeypatch, sent) -> None:
    """A process that runs layer by layer meets one that follows a plan."""
    monkeypatch.setattr(nccl, "LARGE", 4)
    solver = caffe.get_solver(str(solver_file(tmp_path / "s", lmdb, 2, "layer_wise_reduce: false")))
    solver.net.observed = False
    link = caffe.NCCL(solver, "nowhere")
    link.overlap()
    solver.net._forward(0, len(solver.net.layers) - 1)
    solver.net._backward(len(solver.net.layers) - 1, 0)
    assert sent == []
    link.on_gradients_ready()
    assert sent == [1, 4, 4, 24]


def test_statistics_do_not_travel(tmp_path, sent) -> None:
    """BatchNorm's blobs are parameters without gradients."""
    solver = caffe.get_solver(
        parse(
            b"""base_lr: 0.1 lr_policy: "fixed" net_param {
            layer { name: "x" type: "DummyData" top: "x" dummy_data_param { shape {
              dim: 2 dim: 3 dim: 4 } data_filler { type: "gaussian" } } }
            layer { name: "bn" type: "BatchNorm" bottom: "x" top: "bn" }
            layer { name: "scale" type: "Scale" bottom: "bn" top: "y" }
            layer { name: "loss" type: "Reduction" bottom: "y" top: "loss" loss_weight: 1 } }""",
            pb.SolverParameter,
            "solver",
        )
    )
    solver.add_callback(caffe.NCCL(solver, "nowhere"))
    solver.step(1)
    assert sent == [3]


@pytest.mark.parametrize("more", ["", "layer_wise_reduce: false", "iter_size: 2"])
def test_alone_it_changes_nothing(lmdb, tmp_path, more):
    """One process: the mean over one is the gradient itself."""
    text = solver_file(tmp_path / "s", lmdb, 4, more).read_text()
    solvers = []
    for linked in (False, True):
        solver = caffe.get_solver(parse(text.encode(), pb.SolverParameter, "solver"))
        if linked:
            link = caffe.NCCL(solver, caffe.NCCL.new_uid())
            link.bcast()
            solver.add_callback(link)
            solver.net.after_backward(link)
        solver.step(3)
        solvers.append(solver)
    torch.distributed.destroy_process_group()
    for name, blobs in solvers[0].net.params.items():
        for mine, theirs in zip(blobs, solvers[1].net.params[name], strict=True):
            np.testing.assert_array_equal(mine.data, theirs.data)

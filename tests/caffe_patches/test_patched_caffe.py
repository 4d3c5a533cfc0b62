"""A Caffe that was patched and built, against the recordings and against this engine.

Runs where PATCHED_CAFFE names its folder (with build/tools and python/caffe/_caffe.so) and
PATCHED_PYTHON the Python that it was built for (default: /usr/bin/python3).
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import lmdb
import numpy as np
import pytest
from google.protobuf import text_format

import caffe
from caffe.proto.caffe_pb2 import Datum, NetParameter

PATCHED = os.environ.get("PATCHED_CAFFE")
PYTHON = os.environ.get("PATCHED_PYTHON", "/usr/bin/python3")
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
DRIVER = Path(__file__).with_name("pycaffe_driver.py")
CASES = sorted([*GOLDEN.glob("layers/weighted_loss_*.npz"), *GOLDEN.glob("layers/unpool_*.npz")])

pytestmark = pytest.mark.skipif(not PATCHED, reason="PATCHED_CAFFE names no patched build")


def run(*command, cwd):
    """A command of the patched Caffe; its standard output and error, together."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYENV", "PYTHON"))}
    environment |= {"PYTHONPATH": f"{PATCHED}/python", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def logged_losses(log):
    """The losses that `caffe train` logged, one a displayed iteration."""
    return [float(loss) for loss in re.findall(r"Iteration \d+.*, loss = (\S+)", log)]


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_recorded_layer_cases(case, tmp_path):
    run(PYTHON, DRIVER, "case", case, tmp_path / "found.npz", cwd=tmp_path)
    recorded, found = np.load(case), np.load(tmp_path / "found.npz")
    assert found.files
    for key in found.files:
        error = np.abs(found[key] - recorded[key]) - 1e-4 * np.abs(recorded[key])
        assert error.max() <= 1e-5, key


def test_the_recorded_training_run(tmp_path):
    folder = GOLDEN / "train"
    solver = (folder / "solver.prototxt").read_text().replace("display: 0", "display: 1")
    prefix = f'snapshot_prefix: "{tmp_path}/run"'
    (tmp_path / "solver.prototxt").write_text(re.sub('snapshot_prefix: ".*"', prefix, solver))
    log = run(
        f"{PATCHED}/build/tools/caffe",
        "train",
        f"-solver={tmp_path}/solver.prototxt",
        "-weights=init.caffemodel",
        cwd=folder,
    )
    expected = np.genfromtxt(folder / "losses.csv", delimiter=",", names=True)["loss"]
    found = logged_losses(log)[: len(expected)]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def engine(*arguments, cwd):
    """A module of this repository; what it printed and logged."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.fixture
def small_sf1(tmp_path, monkeypatch):
    """Writes 12 records, an SF1 on them without dropout, and its initial weights, in run_iter_0.

    Returns a function of the records' size, the batch, the learning rate and how many times as
    fast the last layer learns, which then starts from small weights; it returns a solver's text.
    """
    monkeypatch.chdir(tmp_path)

    def make(size, batch, rate, last_layer=1):
        engine("data_tools.synth", "train", "--count", "12", "--size", size, cwd=tmp_path)
        # The scenes have 9 classes, and label 0 for what is ignored.
        Path("weights.txt").write_text("1.3 0.5 2 1 0.25 1 3 0.75 1.5 1")
        text = engine(
            *("netgen", "sf1", "--dataset", "custom", "--classes", "9", "--size", size),
            *("--width-multiplier", "0.125", "--no-shuffle", "--batch-size", str(batch)),
            *("--source", "train", "--test-source", "train", "--label-weights", "weights.txt"),
            cwd=tmp_path,
        ).stdout
        assert "use_weights: true" in text
        assert "shuffle: true" not in text
        net = text_format.Parse(text, NetParameter())
        for layer in net.layer:
            if layer.type == "Dropout":
                layer.dropout_param.dropout_ratio = 0
            if layer.name == "score" and last_layer > 1:
                layer.convolution_param.weight_filler.type = "gaussian"
                layer.convolution_param.weight_filler.std = 0.01
                for param in layer.param:
                    param.lr_mult *= last_layer
        Path("net.prototxt").write_text(text_format.MessageToString(net))
        solver = (
            f'net: "net.prototxt" base_lr: {rate} lr_policy: "fixed" momentum: 0.9'
            " weight_decay: 0.0005 test_initialization: false display: 1 random_seed: 3 "
        )
        Path("first.prototxt").write_text(f'{solver} max_iter: 0 snapshot_prefix: "run"')
        engine("caffe", "train", "-solver=first.prototxt", cwd=tmp_path)
        return solver

    return make


def test_the_same_losses_as_this_engine(small_sf1, tmp_path):
    """SF1, 50 iterations each: fine-tuned with a new last layer, which learns 30 times as fast.

    The others learn slowly, since a rounding error that moves one maximum of the pooling moves
    what Unpooling puts back, too. At usual rates such differences grow until even Caffe parts by
    more than 1e-4 from itself, from weights perturbed by 1e-7; the next test is for those.
    """
    solver = small_sf1("128x96", batch=12, rate=1e-5, last_layer=30)
    Path("solver.prototxt").write_text(
        f'{solver} max_iter: 50 snapshot_after_train: false snapshot_prefix: "end"'
    )
    train = "train", "-solver=solver.prototxt", "-weights=run_iter_0.caffemodel"
    theirs = logged_losses(run(f"{PATCHED}/build/tools/caffe", *train, cwd=tmp_path))[:50]
    assert len(theirs) == 50
    assert theirs[0] > 1.04 * theirs[-1]  # the one batch's loss falls: it learns
    planned = logged_losses(engine("caffe", *train, cwd=tmp_path).stderr)[:50]
    np.testing.assert_allclose(planned, theirs, rtol=1e-4)
    # pycaffe, whose nets are watched, runs layer by layer.
    by_layer = caffe.SGDSolver("solver.prototxt")
    by_layer.net.copy_from("run_iter_0.caffemodel")
    losses = []
    for _ in range(50):
        by_layer.step(1)
        losses.append(float(by_layer.net.blobs["loss"].data))
    np.testing.assert_allclose(losses, theirs, rtol=1e-4)


def test_the_same_steps_as_this_engine(small_sf1, tmp_path):
    """SF1 at a usual rate; at each of 50 steps, Caffe starts from our weights and history."""
    solver = small_sf1("64x48", batch=2, rate=1e-3)
    Path("run.prototxt").write_text(f'{solver} max_iter: 50 snapshot: 1 snapshot_prefix: "run"')
    Path("follow.prototxt").write_text(
        f'{solver} max_iter: 50 snapshot_after_train: false snapshot_prefix: "follow"'
    )
    weights = "-weights=run_iter_0.caffemodel"
    log = engine("caffe", "train", "-solver=run.prototxt", weights, cwd=tmp_path).stderr
    ours = np.array(logged_losses(log)[:50])
    out = run(PYTHON, DRIVER, "follow", "follow.prototxt", "50", cwd=tmp_path)
    steps = re.findall(r"^step \d+ loss (\S+) off (\S+)$", out, re.MULTILINE)
    theirs, off = np.array(steps, dtype=float).T
    assert ours.max() > 1.2 * ours.min()  # it learns
    np.testing.assert_allclose(theirs, ours, rtol=1e-4)
    assert np.median(off) < 1e-2


@pytest.fixture
def shuffled(tmp_path):
    """Writes a solver over 11 labelled records, batches of 1; returns its path."""
    with (
        lmdb.open(str(tmp_path / "lmdb"), map_size=1 << 20) as records,
        records.begin(write=True) as transaction,
    ):
        for i in range(11):
            datum = Datum(channels=1, height=1, width=1, data=bytes([i]), label=i)
            transaction.put(f"{i:08}".encode(), datum.SerializeToString())
    (tmp_path / "net.prototxt").write_text(
        'layer { name: "data" type: "Data" top: "data" top: "label" data_param {'
        ' source: "lmdb" backend: LMDB batch_size: 1 shuffle: true } }'
        'layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"'
        " inner_product_param { num_output: 11 } }"
        'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss" }'
    )

    def write(seed):
        path = tmp_path / "solver.prototxt"
        path.write_text(
            f'net: "net.prototxt" base_lr: 0 lr_policy: "fixed" random_seed: {seed}'
            ' max_iter: 100 snapshot_prefix: "run"'
        )
        return path

    return write


def test_shuffled_training_sees_every_record_once_an_epoch(shuffled, tmp_path):
    def labels(seed):
        out = run(PYTHON, DRIVER, "labels", shuffled(seed), "44", cwd=tmp_path)
        return [int(line) for line in out.splitlines() if re.fullmatch(r"\d+", line)]

    seen = labels(seed=5)
    epochs = [seen[start : start + 11] for start in range(0, 44, 11)]
    assert all(sorted(epoch) == list(range(11)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert labels(seed=5) == seen
    assert labels(seed=6) != seen

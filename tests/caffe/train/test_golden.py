"""A training run of the authors' fork, loss by loss, as the engine's own solver and command run it.

The recording: five-channel records, two fusions, Unpooling with sizes, label weights, an ignored
label; 20 iterations from given weights, then 3 batches of the net in TEST phase.
"""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.commands.cli import main

pytestmark = pytest.mark.usefixtures("fresh")

GOLDEN = Path(__file__).parents[2] / "golden" / "train"


def _table(name: str) -> list[dict[str, float]]:
    with (GOLDEN / name).open() as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


LOSSES = [row["loss"] for row in _table("losses.csv")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run's folder, as the working directory: paths in prototxts start there."""
    shutil.copytree(GOLDEN, tmp_path / "train")
    monkeypatch.chdir(tmp_path / "train")
    return tmp_path / "train"


@pytest.mark.parametrize("observed", [True, False])
def test_losses(folder: Path, observed: bool) -> None:
    solver = caffe.get_solver("solver.prototxt")
    solver.net.copy_from("init.caffemodel")
    solver.net.observed = observed
    losses = []
    for _ in LOSSES:
        solver.step(1)
        losses.append(float(solver.net.blobs["loss"].data))
    assert len(losses) == 20
    assert np.allclose(losses, LOSSES, atol=1e-4)


@pytest.mark.parametrize("observed", [True, False])
def test_test_phase(folder: Path, observed: bool) -> None:
    net = caffe.Net("train.prototxt", caffe.TEST, weights="final.caffemodel")
    net.observed = observed
    rows = _table("test_phase.csv")
    assert len(rows) == 3
    for row in rows:
        out = net.forward()
        assert float(out["loss"]) == pytest.approx(row["loss"], abs=1e-4)
        assert float(out["accuracy"]) == pytest.approx(row["accuracy"], abs=1e-4)


def test_the_command_trains_alike(folder: Path, capsys) -> None:
    solver = (folder / "solver.prototxt").read_text()
    (folder / "solver.prototxt").write_text(solver.replace("display: 0", "display: 1"))
    assert main(["train", "-solver", "solver.prototxt", "-weights", "init.caffemodel"]) == 0
    log = capsys.readouterr().err
    shown = re.findall(r"\] Iteration (\d+) .*, loss = (\S+)", log)
    assert [int(i) for i, _ in shown] == list(range(20))
    assert np.allclose([float(loss) for _, loss in shown], LOSSES, atol=1e-4)


def test_the_trained_weights(folder: Path) -> None:
    solver = caffe.get_solver("solver.prototxt")
    solver.net.copy_from("init.caffemodel")
    solver.step(20)
    final = caffe.Net("train.prototxt", caffe.TEST, weights="final.caffemodel")
    for name, blobs in final.params.items():
        for i, blob in enumerate(blobs):
            mine = solver.net.params[name][i].data
            # biases before BatchNorm have no gradient, and hold rounding noise of 1e-11
            assert np.allclose(mine, blob.data, rtol=1e-3, atol=1e-4), f"{name}/{i}"

"""What training tells of a net in a test is what evaluate tells of it on the same records."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

import caffe
from caffe.commands.cli import main as command
from caffe.process import log
from caffe.solver.watching import Outcome, Watcher
from eval_tools import evaluate
from netgen.cli import main as netgen

CLASSES, ABSENT = 4, 3  # no pixel is of class 3
FIGURES = ("global_accuracy", "mean_accuracy", "mean_iou")
NET = f"sf1 --classes {CLASSES} --size 32x32 --width-multiplier 0.04 --source records"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, toy) -> Path:
    """Six records, and the first two of them once more behind these (`round`). The net for
    training, which tests in batches of two, its deploy net, and weights by which each label is the
    answer somewhere.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(log, "_sink", log._Sink())
    random = np.random.default_rng(1)
    truth = random.choice([0, 1, 2, 4], (6, 32, 32), p=[0.2, 0.3, 0.4, 0.1])
    frames = list(zip(random.integers(0, CLASSES + 1, truth.shape), truth, strict=True))
    for name, chosen in (("records", frames), ("round", frames + frames[:2])):
        toy.lmdb(Path(name), {f"frame{i}": frame for i, frame in enumerate(chosen)})
    for name, options in (
        ("train", "--iou --test-source records --test-batch-size 2"),
        ("deploy", "--deploy"),
    ):
        assert netgen([*NET.split(), *options.split()]) == 0
        Path(f"{name}.prototxt").write_text(capsys.readouterr().out)
    net = caffe.Net("deploy.prototxt", caffe.TEST)
    for name, blobs in net.params.items():
        if "_bn" in name:
            blobs[1].data[...] = blobs[2].data[...] = 1
    net.params["score"][0].data[...] = random.normal(size=net.params["score"][0].shape)
    net.save("net.caffemodel")
    return tmp_path


def evaluated(records: str) -> dict[str, float]:
    """evaluate's figures, for records of which class 3 has no pixels, but is predicted."""
    text = f"deploy.prototxt net.caffemodel {records} --bootstrap 0 --json figures.json"
    evaluate.main(text.split())
    found = json.loads(Path("figures.json").read_text())
    pixels = [(scored["pixels"] > 0, scored["predicted"] > 0) for scored in found["classes"]]
    assert pixels == [(label != ABSENT, True) for label in range(1, CLASSES + 1)]
    return pytest.approx({name: found[name] for name in FIGURES}, abs=1e-6)


@pytest.mark.parametrize(("batches", "records"), [(3, "records"), (4, "round")])
def test_a_test_tells_what_evaluate_does(folder: Path, capsys, batches: int, records: str) -> None:
    expected = evaluated(records)
    Path("solver.prototxt").write_text(
        f"""net: "train.prototxt" test_iter: {batches} test_interval: 9 base_lr: 0 max_iter: 1
        lr_policy: "fixed" snapshot_after_train: false"""
    )
    told: dict[str, float] = {}

    class Told(Watcher):
        def tested(self, tested: Outcome) -> None:
            told.update({figure.name: figure.value for figure in tested.figures})

    solver = caffe.get_solver("solver.prototxt")
    solver.watch(Told())
    solver.net.copy_from("net.caffemodel")
    solver.test_nets[0].observed = False
    solver.step(1)  # after a test
    assert {name: told[name] for name in FIGURES} == expected

    caffe.init_log(0)  # evaluate has silenced it
    capsys.readouterr()
    text = f"test -model train.prototxt -weights net.caffemodel -iterations {batches}"
    assert command(text.split()) == 0
    lines = capsys.readouterr().err
    last = {name: float(re.findall(rf"\] {name} = (\S+)", lines)[-1]) for name in FIGURES}
    assert last == expected

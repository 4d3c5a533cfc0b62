"""A contender's process: what it answers, and that the engines compute the same net."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

import caffe
from bench import worker
from bench.worker import Job
from caffe.convert import to_onnx
from caffe.engines import setting

PNET = Job("plan", "predict", 1, (12, 12), net="P-Net")


def _answers(monkeypatch: pytest.MonkeyPatch, capsys, lines: str, job: Job = PNET) -> list[dict]:
    monkeypatch.setattr(sys, "argv", ["worker", job.dumps()])
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    worker.main()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_asks_for_passes(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    """An empty one for one pass; a number for so many seconds, but for two passes at least."""
    values = {"b": np.full((1, 2), 2.0), "a": np.arange(3000.0)}
    monkeypatch.setitem(worker.CONTENDERS, "plan", lambda job: lambda: values)
    one, two, many, last = _answers(monkeypatch, capsys, "\n1e-9\n0.01\n")
    assert [len(one["seconds"]), len(two["seconds"])] == [1, 2]
    assert len(many["seconds"]) == worker.MOST_PASSES or sum(many["seconds"]) >= 0.01
    assert last["memory"] > 2**20
    assert len(last["answer"]) == worker.ANSWERS
    assert (last["answer"][0], last["answer"][-1]) == (0, 2)  # outputs in the order of their names


def test_a_job_that_cannot_be_run_says_why(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    def refuse(job: Job) -> None:
        raise ValueError("no such layer\nand more")

    monkeypatch.setitem(worker.CONTENDERS, "plan", refuse)
    assert _answers(monkeypatch, capsys, "\n") == [{"failed": "no such layer"}]


def test_a_pass_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    passes = iter([1])
    monkeypatch.setitem(worker.CONTENDERS, "plan", lambda job: lambda: next(passes))
    first, last = _answers(monkeypatch, capsys, "\n\n\n")
    assert len(first["seconds"]) == 1
    assert last == {"failed": "StopIteration"}


@pytest.mark.parametrize("who", ["onnxruntime", "OpenVINO", "OpenCV"])
def test_the_engines_compute_the_same_net(who: str, tmp_path: Path) -> None:
    pytest.importorskip({"OpenCV": "cv2"}.get(who, who.lower()))
    expected = worker._engine(PNET)()
    path = str(tmp_path / "net.onnx")
    to_onnx(worker.deploy_net_of(PNET), path, check=False, target=who.lower())
    found = worker.CONTENDERS[who](Job(who, "predict", 1, (12, 12), net="P-Net", file=path))()
    assert found.keys() == expected.keys() == {"conv4_2", "prob1"}
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-4, atol=1e-5)


def test_the_inputs_are_the_nets() -> None:
    assert {k: v.shape for k, v in worker.feed(PNET).items()} == {"data": (1, 3, 12, 12)}
    job = Job("plan", "predict", 2, (64, 48), width=0.1)
    shapes = {"rgb": (2, 3, 48, 64), "depth": (2, 1, 48, 64)}
    assert {k: v.shape for k, v in worker.feed(job).items()} == shapes
    for each in (PNET, job):
        net = caffe.Net(worker.deploy_param(each), caffe.TEST)
        assert worker.deploy_net_outputs(each) == sorted(net.outputs)


def test_how_threads_wait_is_each_contenders_own() -> None:
    assert PNET.environment == {}
    given = Job("plan", "predict", 1, (12, 12), threads=1, spins=0)
    assert given.environment == {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}


def test_auto_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its choice is made anew, and the user's own are left alone."""
    made: list[str] = []
    monkeypatch.setenv("XDG_CACHE_HOME", "/the/users")
    monkeypatch.setattr(worker, "_ours", lambda job: lambda: made.append(caffe_engine()))

    def caffe_engine() -> str:
        assert Path(os.environ["XDG_CACHE_HOME"]).is_dir()
        return setting.engine()

    try:
        worker.CONTENDERS["auto"](PNET)
        assert made == ["auto"]
        assert not Path(os.environ["XDG_CACHE_HOME"]).exists()
    finally:
        caffe.set_engine("torch")

"""The benchmarks' logic, on a net so small that its figures mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import caffe
from bench import gpu, speed, worker
from bench.worker import Job, parts_of
from caffe.kernels import fused
from caffe.plan import rewrites

SMALL = ["--size", "64x48", "--width", "0.1", "--batch", "1", "--rounds", "1"]


def test_the_work_is_counted() -> None:
    """Two multiplications and additions for each weight and place, three passes in training."""
    job = Job("plan", "predict", 1, (320, 240))
    # 577 GFLOP for four images: the count that the published training step of 1.73 TFLOP goes by.
    assert speed.flop(job) == pytest.approx(577e9 / 4, rel=0.01)
    assert speed.flop(Job("plan", "train", 4, (320, 240))) == pytest.approx(1.73e12, rel=0.01)


def test_contenders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CAFFE_BIN", raising=False)
    args = speed.parser().parse_args([*SMALL, "--compile"])
    for task, also, both in (
        ("train", "plan, recompute", ()),
        ("predict", "onnxruntime", ("OpenVINO",)),
    ):
        jobs = [(job.who, job.precision) for job in speed.jobs_of(task, 1, args)]
        both = ("plan", "eager PyTorch", "torch.compile", *both)
        wanted = {(who, precision) for who in both for precision in ("fp32", "bf16")}
        assert set(jobs) == {*wanted, ("observed net", "fp32"), (also, "fp32")}
        assert len(jobs) == len(set(jobs))


def test_a_quantised_file_is_for_single_images(tmp_path: Path) -> None:
    file = tmp_path / "q.onnx"
    args = speed.parser().parse_args([*SMALL, "--int8", str(file)])
    for task, batch, whos in (
        ("predict", 1, {"onnxruntime", "OpenVINO"}), ("predict", 8, set()), ("train", 1, set()),
    ):  # fmt: skip
        jobs = [job for job in speed.jobs_of(task, batch, args) if job.precision == "int8"]
        assert {job.who for job in jobs} == whos
        assert {job.file for job in jobs} <= {str(file)}
    with pytest.raises(SystemExit) as stop:
        speed.main([*SMALL, "--int8", str(file)])
    assert stop.value.code == 2


def test_one_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CAFFE_BIN", raising=False)
    every = speed.jobs_of
    some = ("plan", "eager PyTorch")
    monkeypatch.setattr(
        speed,
        "jobs_of",
        lambda *a: [j for j in every(*a) if j.who in some and j.precision == "fp32"],
    )
    path = tmp_path / "made" / "figures.json"
    figures = speed.main([*SMALL, "--only", "train", "--json", str(path)])
    rows = {(row["who"], row["precision"]): row for row in figures["rows"]}
    assert set(rows) == {("plan", "fp32"), ("eager PyTorch", "fp32")}
    assert rows["eager PyTorch", "fp32"]["x eager fp32"] == 1
    for row in rows.values():
        assert row["seconds"] >= row["least"] > 0
        assert row["memory"] > 0.1  # GiB; PyTorch alone takes that
        assert row["images/s"] == pytest.approx(1 / row["seconds"])
    assert json.loads(path.read_text())["rows"] == figures["rows"]
    assert "x eager" in capsys.readouterr().out


class Timed(speed.Contender):
    """A pass takes a second, and one more for each letter of the part that is left out. The first
    of a turn of predictions takes ten times as long.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.seconds, self.memory = job, [], 0.0
        self.passes = 0

    def run(self) -> float:
        cold = self.job.task == "predict" and self.passes % 3 == 0
        self.passes += 1
        return (len(self.job.without) + 1.0) * (10 if cold else 1)

    def end(self) -> None:
        self.memory = speed.GIB


def test_each_part_is_set_against_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "Contender", Timed)
    rows = speed.parts(speed.parser().parse_args(SMALL))
    for task in ("train", "predict"):
        names = parts_of(task)
        mine = [row for row in rows if row["task"] == task]
        assert [row["without"] for row in mine] == ["", *names]
        expected = pytest.approx([1, *(len(name) + 1 for name in names)])
        assert [row["x whole"] for row in mine] == expected
        assert [row["seconds"] for row in mine] == expected


@pytest.mark.parametrize("task", ["train", "predict"])
def test_each_part_is_left_out(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job("plan", task, 1, (64, 48), width=0.1)
    whole = _nodes(job)
    for part in parts_of(task):
        with monkeypatch.context() as patch:
            for module in (fused, rewrites):  # what is replaced comes back
                for name, value in vars(module).copy().items():
                    patch.setattr(module, name, value)
            worker.leave_out(part)
            changed = _nodes(job) != whole
        assert changed == (part not in ("winograd", "recomputed", "memory")), part
    assert _nodes(job) == whole


def _nodes(job: Job) -> list[tuple[str, str]]:
    """What a plan consists of: layers, and where each operation's function is from."""
    param = worker.train_param(job) if job.task == "train" else worker.deploy_param(job)
    net = caffe.Net(param, caffe.TRAIN if job.task == "train" else caffe.TEST)
    net.observed = False
    return [(node.name, getattr(node.run, "__qualname__", "")) for node in net.plan.nodes]


def test_a_caffe_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CAFFE_BIN names is asked as `caffe time` is; here it is this engine's."""
    program = tmp_path / "caffe"
    program.write_text('#!/bin/sh\nexec python -m caffe "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path(speed.sys.executable).parent}:{speed.os.environ['PATH']}")
    monkeypatch.setenv("CAFFE_BIN", str(program))
    args = speed.parser().parse_args(SMALL)
    job = speed.jobs_of("predict", 1, args)[-1]
    assert job.who == "Caffe"
    (row,) = speed.measure([job], 2, job)
    assert 0 < row["least"] <= row["seconds"]
    assert row["memory"] > 0.1


def test_a_caffe_that_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "caffe"
    program.write_text("#!/bin/sh\necho no such layer >&2; exit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("CAFFE_BIN", str(program))
    with pytest.raises(SystemExit, match=r"caffe failed:\s+no such layer"):
        speed.contender(Job("Caffe", "predict", 1, (64, 48), width=0.1)).turn()


def test_the_recordings_run_on_a_device() -> None:
    status, closing = gpu.golden("cpu", ["-k", "relu or sgd_momentum"])
    assert status == 0, closing
    assert "passed" in closing


def test_a_recording_that_is_not_met_fails() -> None:
    status, _ = gpu.golden("cpu", ["-k", "no_such_case"])
    assert status != 0

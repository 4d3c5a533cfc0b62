"""The benchmarks' logic, on a net so small that its figures mean nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench import gpu, speed
from bench.worker import PARTS, Job

SMALL = ["--size", "64x48", "--width", "0.1", "--batch", "1", "--rounds", "1"]


def test_the_work_is_counted() -> None:
    """Two multiplications and additions for each weight and place, three passes in training."""
    job = Job("plan", "predict", 1, (320, 240))
    # 577 GFLOP for four images: the count that the published training step of 1.73 TFLOP goes by.
    assert speed.flop(job) == pytest.approx(577e9 / 4, rel=0.01)
    assert speed.flop(Job("plan", "train", 4, (320, 240))) == pytest.approx(1.73e12, rel=0.01)


def test_one_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "made" / "figures.json"
    figures = speed.main([*SMALL, "--only", "train", "--json", str(path)])
    rows = {(row["who"], row["precision"]): row for row in figures["rows"]}
    assert set(rows) == {
        ("plan", "fp32"), ("plan", "bf16"), ("plan, recompute", "fp32"), ("observed net", "fp32"),
        ("eager PyTorch", "fp32"), ("eager PyTorch", "bf16"),
    }  # fmt: skip
    assert rows["eager PyTorch", "fp32"]["x eager fp32"] == 1
    for row in rows.values():
        assert row["seconds"] >= row["least"] > 0
        assert row["memory"] > 0.1  # GiB; PyTorch alone takes that
        assert row["images/s"] == pytest.approx(1 / row["seconds"])
    assert json.loads(path.read_text())["rows"] == figures["rows"]
    shown = capsys.readouterr().out
    assert "x eager" in shown
    assert "plan, recompute" in shown


def test_each_part_is_left_out() -> None:
    rows = speed.main([*SMALL, "--only", "parts"])["parts"]
    for task, parts in PARTS.items():
        mine = [row for row in rows if row["task"] == task]
        assert [row["without"] for row in mine] == ["", *parts]
        assert mine[0]["x whole"] == 1
        for row in mine:
            assert row["x whole"] == pytest.approx(row["seconds"] / mine[0]["seconds"])


def test_a_caffe_takes_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever CAFFE_BIN names is asked as `caffe time` is; here it is this engine's."""
    program = tmp_path / "caffe"
    program.write_text('#!/bin/sh\nexec python -m caffe "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{Path(speed.sys.executable).parent}:{speed.os.environ['PATH']}")
    row = speed.measure_caffe(str(program), Job("Caffe", "predict", 1, (64, 48), width=0.1))
    assert row["seconds"] > 0
    assert row["memory"] > 0.1


def test_a_caffe_that_fails_is_named(tmp_path: Path) -> None:
    program = tmp_path / "caffe"
    program.write_text("#!/bin/sh\necho no such layer >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(SystemExit, match=r"caffe failed:\s+no such layer"):
        speed.measure_caffe(str(program), Job("Caffe", "predict", 1, (64, 48), width=0.1))


def test_the_recordings_run_on_a_device() -> None:
    status, closing = gpu.golden("cpu", ["-k", "relu or sgd_momentum"])
    assert status == 0, closing
    assert "passed" in closing


def test_a_recording_that_is_not_met_fails() -> None:
    status, _ = gpu.golden("cpu", ["-k", "no_such_case"])
    assert status != 0

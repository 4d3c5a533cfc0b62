"""A contender's process as the benchmark sees it: what is told of one that dies."""

from __future__ import annotations

import pytest

from bench import contender
from bench.contender import Contender, Failed
from bench.worker import Job

JOB = Job("plan", "predict", 1, (12, 12), net="P-Net")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("raise SystemExit", "it ended"),
        ("print('{\"seconds\": [0.', end='')", "it answered '{\"seconds\": [0.'"),
        ('input(); print(\'{"failed": "no such layer"}\')', "no such layer"),
    ],
)
def test_what_a_contender_that_fails_says(program: str, reason: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "__init__.py").touch()
    (tmp_path / "bench" / "worker.py").write_text(program)
    monkeypatch.setattr(contender, "ROOT", tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    started = Contender(JOB)
    with pytest.raises(Failed) as failed:
        started.run()
    assert failed.value.reason == reason
    started.stop()

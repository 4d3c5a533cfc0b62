"""A report to open in a browser."""

from pathlib import Path

import pytest

from eval_tools import evaluate


@pytest.fixture(scope="session")
def report(model, toy, tmp_path_factory):
    """(report.html, frames): five frames of a net whose answers are known, and a training log."""
    folder = tmp_path_factory.mktemp("report")
    frames = {
        f"frame{i}": next(iter(toy.frames(1, (24, 32), seed=i, right=right).values()))
        for i, right in enumerate((0.9, 0.5, 0.7, 0.2, 0.8))
    }
    lmdb = toy.lmdb(folder / "test", frames, {"classes": toy.names})
    log = Path(__file__).parents[2] / "golden" / "interop" / "reference_train.log"
    path = folder / "report.html"
    evaluate.main([*model, str(lmdb), "--report", str(path), "--log", str(log)])
    return path, frames

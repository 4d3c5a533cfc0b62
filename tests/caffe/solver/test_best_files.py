"""The best files: what kills leave of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = ["run_best.caffemodel", "run_best.resume", "run_best.solverstate"]


def _killing(folder: Path, *arguments: str) -> object:
    program = Path(__file__).with_name("killing.py")
    done = subprocess.run([sys.executable, program, *arguments], capture_output=True, text=True,
                          cwd=folder, timeout=600, check=False,
                          env=dict(os.environ, OMP_NUM_THREADS="1"))  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("flags", [[], ["-patience", "5"]])
def test_kills_lose_nothing(tmp_path, flags: list[str]) -> None:
    told = _killing(tmp_path, "runs", "3", "1", *flags)
    assert (told["wrong"], told["left"], told["killed"]) == ([], [], 3)
    assert 0 < told["best"] < told["last"]
    assert (told["last"] < 50) == bool(flags)


def test_a_kill_at_each_step_of_a_replacement(tmp_path) -> None:
    """The best files are the old ones, the new ones, or without a state; never of both."""
    told = _killing(tmp_path, "move")
    after, repaired, completed, left = zip(*told, strict=True)
    assert all(names == NAMES for names in left)
    assert list(after) == sorted(after, key=lambda found: {2: 0, None: 1, 4: 2}[found])
    assert set(after) == {2, None, 4}
    assert set(repaired) == set(completed) == {2, 4}
    for first, second, third in zip(after, repaired, completed, strict=True):
        assert second >= third
        assert first in (None, third)
        assert (first is None) <= (second == 4)

"""What the tests of data_tools share: the real frames, and commands run as a user runs them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
# Helper modules lie beside the tests, and pytest's importlib mode adds no folder to the path.
sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def frames() -> Path:
    """The folder of real RGB-D frames beside the repository."""
    folder = ROOT.parent / "shared" / "rgbd"
    if not folder.is_dir():
        pytest.skip("no real frames at ../shared/rgbd")
    return folder


@pytest.fixture
def command(tmp_path):
    """command(module, *arguments, code=0) -> the finished `python -m data_tools.module`."""

    def run(module: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess:
        result = subprocess.run(
            [sys.executable, "-m", f"data_tools.{module}", *map(str, arguments)],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
        if code == 1:
            assert result.stdout == ""
        return result

    return run


@pytest.fixture
def trio(tmp_path):
    """trio(name, color, depth, label=None) writes one frame's PNGs into rgb/, depth/, label/."""

    def write(name: str, color, depth, label=None) -> Path:
        parts = {"rgb": color, "depth": depth, "label": label}
        for part, image in parts.items():
            if image is not None:
                (tmp_path / part).mkdir(exist_ok=True)
                assert cv2.imwrite(str(tmp_path / part / f"{name}.png"), np.asarray(image))
        return tmp_path

    return write

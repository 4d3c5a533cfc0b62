"""What the tests of data_tools share: the real frames, and commands run as a user runs them."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_tools import cli

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


@dataclass
class Finished:
    """What a command left: its exit code and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def command(tmp_path, monkeypatch):
    """command(module, *arguments, code=0): `python -m data_tools.module` in tmp_path.

    It runs in this process, because a hundred interpreters that load NumPy and OpenCV take a
    minute; test_cli.py runs every command as a process.
    """
    monkeypatch.chdir(tmp_path)

    def run(module: str, *arguments: object, code: int = 0) -> Finished:
        tool = importlib.import_module(f"data_tools.{module}")
        monkeypatch.setattr(sys, "argv", [tool.__file__, *map(str, arguments)])
        out, talk, status = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(talk):
            try:
                cli.run(tool.main)
            except SystemExit as end:
                status = end.code
                if isinstance(status, str):  # as the interpreter does
                    print(status, file=sys.stderr)
                    status = 1
        result = Finished(status, out.getvalue(), talk.getvalue())
        assert result.returncode == code, result.stderr
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

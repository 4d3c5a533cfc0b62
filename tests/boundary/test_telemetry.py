"""onnxruntime and OpenVINO are loaded, and leave nothing in the user's home for their reports."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOAD = """
import os, sys
from boundary import telemetry
module = telemetry.load_{name}()
print(module.__name__, sys.modules.get("openvino_telemetry"), os.environ.get("{variable}"))
"""
VARIABLE = "ORT_DISABLE_TELEMETRY"


def _load(name: str, home: Path, **environment: str) -> str:
    """What LOAD prints, in a process whose home is that folder, and which no CI runs."""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", LOAD.format(name=name, variable=VARIABLE)],
        capture_output=True,
        text=True,
        check=True,
        env={"HOME": str(home), "PATH": os.environ["PATH"], "PYTHONPATH": root, **environment},
    )
    return done.stdout.strip()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_nothing_is_kept_for_reports(name: str, tmp_path: Path) -> None:
    pytest.importorskip(name)
    assert _load(name, tmp_path).startswith(f"{name} None ")
    assert list(tmp_path.rglob("*")) == []


def test_who_wants_reports_has_them(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    assert _load("onnxruntime", tmp_path) == "onnxruntime None 1"
    assert _load("onnxruntime", tmp_path, **{VARIABLE: "0"}) == "onnxruntime None 0"


def test_openvino_can_report_later_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """What hides the package is gone after the import, also one that fails."""
    from boundary import telemetry

    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(ImportError):
        telemetry.load_openvino()
    assert "openvino_telemetry" not in sys.modules

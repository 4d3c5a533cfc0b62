"""Libraries that are loaded on first use, and Ctrl-C while that happens."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from boundary import late

ROOT = Path(__file__).parents[2]


def test_it_stands_for_the_module() -> None:
    assert late.cv2.resize is cv2.resize
    with pytest.raises(AttributeError, match="no_such_name"):
        late.cv2.no_such_name  # noqa: B018
    with pytest.raises(AttributeError, match="after import cv2"):
        late.cv2.resize = None


def test_an_import_that_fails_is_tried_again() -> None:
    missing = late.Late("no_such_module_of_a_test")
    for _ in range(2):
        with pytest.raises(ModuleNotFoundError, match="no_such_module_of_a_test"):
            missing.name  # noqa: B018


# A module that is loaded in the middle of a program, and Ctrl-C meanwhile, which the module drops
# as PyTorch's core does.
MODULE = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("dropped")
value = 5
"""
PROGRAM = """
import signal
from boundary import interrupts
from boundary.late import Late
if {command}:
    interrupts.end_at_once()
    interrupts.take_back()
print(Late("dropping").value, signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""


def _run(folder: Path, module: str, command: bool) -> tuple[int, str, str]:
    """Status, stdout and stderr of the program."""
    (folder / "dropping.py").write_text(module)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(command=command)],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{ROOT}:{folder}", "PATH": "/usr/bin:/bin"},
        # As from a terminal, however the tests were started.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    return done.returncode, done.stdout, done.stderr


def test_an_interrupt_ends_a_command_that_loads(tmp_path: Path) -> None:
    assert _run(tmp_path, MODULE, True) == (130, "", "interrupted\n")


def test_other_programs_are_interrupted_as_ever(tmp_path: Path) -> None:
    assert _run(tmp_path, MODULE, False) == (0, "dropped\n5 True\n", "")


def test_interrupts_are_as_before_once_it_is_loaded(tmp_path: Path) -> None:
    assert _run(tmp_path, "value = 5", True) == (0, "5 True\n", "")

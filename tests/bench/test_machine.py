"""The machine's name, and processes that keep it busy: they end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench import machine

ROOT = Path(__file__).parents[2]

# A program that ends without a chance to clear up.
LOST = """
import os
from bench.machine import busy
with busy(1) as (number,):
    print(number, flush=True)
    os._exit(0)
"""


def _runs(number: int) -> bool:
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_busy_processes_end_with_the_block() -> None:
    with machine.busy(2) as numbers:
        assert len(set(numbers)) == 2
        assert all(map(_runs, numbers))
    assert not any(map(_runs, numbers))
    with pytest.raises(KeyboardInterrupt), machine.busy(1) as numbers:
        raise KeyboardInterrupt
    assert not _runs(numbers[0])


def test_they_end_with_a_program_that_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOST], cwd=ROOT, capture_output=True, text=True, check=True
    )
    number = int(done.stdout)
    for _ in range(600):
        if not _runs(number):
            return
        time.sleep(0.1)
    os.kill(number, 9)
    pytest.fail("it still runs")


def test_one_line_says_what_was_measured_on() -> None:
    line = machine.about()
    assert "\n" not in line
    assert machine.processor() in line
    assert f"{len(os.sched_getaffinity(0))} cores" in line
    assert {"PyTorch", "OpenCV"} <= machine.versions().keys()
    for name, number in machine.versions().items():
        assert f"{name} {number}" in line

"""Ctrl-C at any moment of a command: one line, status 130, and nothing is left running."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

NET = """
layer { name: "in" type: "DummyData" top: "x" top: "t"
  dummy_data_param { shape { dim: 2 dim: 3 } shape { dim: 2 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "y"
  inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""
SOLVER = """net: "net.prototxt" base_lr: 0.001 lr_policy: "fixed" max_iter: 100000000
snapshot_prefix: "run" """
TRAIN = ("-m", "caffe", "train", "-solver", "solver.prototxt", "-minloglevel", "3")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("net.prototxt").write_text(NET)
    Path("solver.prototxt").write_text(SOLVER)
    return tmp_path


def _start(*arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # As from a terminal, however the tests were started.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def _end(process: subprocess.Popen) -> tuple[int, str]:
    """The status and stderr of a process that was told to end; it leaves none behind."""
    try:
        said = process.communicate(timeout=300)[1]
        while _living(process.pid):  # multiprocessing's own helper ends a little later
            time.sleep(0.05)
        return process.returncode, said
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _living(group: int) -> list[str]:
    """The command lines of a group's processes, but those that wait to be looked at."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(its_group) == group and state != "Z":
                found.append(stat.with_name("cmdline").read_text())
    return found


# Signals itself when it has just imported the package's first module, and then every so many
# modules: moments that are known without a clock.
INTERRUPTED = """
import os, runpy, signal, sys
class Finder:
    left = int(sys.argv.pop(1))
    def find_spec(self, name, path=None, target=None):
        if "boundary.interrupts" in sys.modules:
            Finder.left -= 1
            if Finder.left == 0:
                os.kill(os.getpid(), signal.SIGINT)
module, sys.argv = sys.argv[1], ["-m", *sys.argv[2:]]
sys.meta_path.insert(0, Finder())
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("modules", [3, 30, 300, 700, 1000])
def test_while_modules_are_imported(folder: Path, modules: int) -> None:
    """NumPy's are among them, which PyTorch imports and whose failure it ignores."""
    process = _start("-c", INTERRUPTED, str(modules), "caffe", *TRAIN[2:])
    assert _end(process) == (130, "interrupted\n")


@pytest.mark.parametrize("module", ["netgen", "data_tools.inspect", "eval_tools.curves"])
def test_other_commands_too(folder: Path, module: str) -> None:
    process = _start("-c", INTERRUPTED, "20", module, "sf5")
    assert _end(process) == (130, "interrupted\n")


def test_while_the_engine_is_loaded_for_good_arguments(folder: Path) -> None:
    """Which a command does in the middle of its work, where an interrupt is an exception."""
    files = ("net.prototxt", "net.caffemodel", "net.pt")
    process = _start("-c", INTERRUPTED, "700", "caffe.convert", *files)
    assert _end(process) == (130, "interrupted\n")


# Prints whether the collector is at work before, within and behind a load, and whether it knows
# what was loaded.
LOADING = """
import gc, sys
sys.argv = sys.argv[1:]
from boundary.interrupts import loading
if "off" in sys.argv: gc.disable()
at_work = [gc.isenabled()]
with loading():
    with loading():
        loaded = [[]]
    at_work.append(gc.isenabled())
at_work.append(gc.isenabled())
print(*at_work, any(each is loaded for each in gc.get_objects()))
"""


@pytest.mark.parametrize(
    ("arguments", "outcome"),
    [
        (["-m"], "True False True False"),
        (["-m", "off"], "False False False True"),  # somebody has chosen
        (["program.py"], "True True True True"),  # not a command of ours
    ],
)
def test_the_collector_does_not_look_at_what_commands_load(arguments, outcome: str) -> None:
    process = _start("-c", LOADING, *arguments)
    assert process.communicate() == (f"{outcome}\n", "")


STARTED = """
import runpy, sys
module, sys.argv = sys.argv[1], ["-m", *sys.argv[2:]]
import boundary.interrupts
print("up", flush=True)
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize("seed", range(6))
def test_at_any_moment_of_a_start(folder: Path, seed: int) -> None:
    """It is never lost: the run ends before it has begun, or stops as it should."""
    process = _start("-c", STARTED, "caffe", *TRAIN[2:])
    assert process.stdout.readline() == "up\n"
    time.sleep(random.Random(seed).uniform(0, 1.5))
    process.send_signal(signal.SIGINT)
    status, said = _end(process)
    assert status in (0, 130)
    assert "Traceback" not in said


SLOW = """
import sys, time
from pathlib import Path
from data_tools import build, cli
from data_tools.build import Options, Output
from data_tools.record import RecordFormat
from data_tools.synth import Synth

class Slow(Synth):
    block = 1
    def load(self, index):
        Path("loading").touch()
        time.sleep(0.1)
        return super().load(index)

def main():
    build.build(Slow(100000, (24, 18), 5), [Output(Path("out"), range(100000))], RecordFormat(),
                {}, Options(3))

if __name__ == "__main__":
    cli.run(main, "slow")
"""


def test_a_build_with_workers(folder: Path) -> None:
    """A terminal's Ctrl-C goes to all its processes; the first alone answers."""
    Path("slow.py").write_text(SLOW)
    process = _start("slow.py")
    while not Path("loading").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert _end(process) == (130, "slow: interrupted\n")
    assert not Path("out").exists()

"""The machine that a benchmark runs on: its processor, the programs' versions, and other work."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Turns until the process that started it, whose number it is given, has ended in whatever way.
_BUSY = """
import os, sys
while os.getppid() == int(sys.argv[1]):
    for _ in range(100_000):
        pass
"""
PACKAGES = {
    "PyTorch": "torch",
    "onnxruntime": "onnxruntime",
    "OpenVINO": "openvino",
    "OpenCV": "opencv-python-headless",
}


def processor() -> str:
    """The processor's name."""
    found = re.search(r"model name\s*: (.*)", _cpuinfo())
    return found[1] if found else platform.processor() or platform.machine()


def has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 numbers; otherwise they take much longer."""
    return bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", _cpuinfo()))


def versions() -> dict[str, str]:
    """The versions of the engines that are installed, by name."""
    found = {}
    for name, package in PACKAGES.items():
        try:
            found[name] = version(package)
        except PackageNotFoundError:
            continue
    return found


def about() -> str:
    """One line: date, cores, processor, versions."""
    cores = len(os.sched_getaffinity(0))
    programs = [f"{name} {number}" for name, number in versions().items()]
    return ", ".join([time.strftime("%Y-%m-%d"), f"{cores} cores of {processor()}", *programs])


@contextmanager
def busy(count: int) -> Iterator[list[int]]:
    """Within the block, `count` processes keep a core each as busy as they can; gives their ids.

    They also end when this process does, however it ends.
    """
    processes: list[subprocess.Popen] = []
    try:
        for _ in range(count):
            processes.append(subprocess.Popen([sys.executable, "-c", _BUSY, str(os.getpid())]))
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""

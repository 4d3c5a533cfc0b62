"""Measures how long commands and examples take to start: for help, and for what needs no net.

    python -m bench.start [--rounds N] [NAME ...]

Each is a process of its own. They take turns, so that changes of the machine's speed affect all of
them alike; shown are the least and the median seconds, the slowest first, and the least of
`import torch` for comparison. Figures count on an idle machine whose disk cache holds the files:
the first round is not counted.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
PACKAGES = ("caffe", "netgen", "data_tools", "eval_tools", "caffe_patches")
GOLDEN = ROOT / "tests" / "golden"
TORCH = "import torch"


def modules() -> list[str]:
    """Everything that `python -m` runs, but for benchmarks."""
    found = []
    for package in PACKAGES:
        for path in _programs(ROOT / package):
            if "overlay" not in path.parts:
                parts = path.relative_to(ROOT).with_suffix("").parts
                found.append(".".join(parts).removesuffix(".__main__"))
    return found


def examples() -> list[str]:
    """The names of the examples that are programs."""
    return [path.stem for path in _programs(ROOT / "examples")]


def _programs(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("*.py"))
    return [path for path in paths if '__name__ == "__main__"' in path.read_text()]


def starts() -> dict[str, list[str]]:
    """The arguments of Python for each measured start, by what is shown of it."""
    found = {f"{module} --help": ["-m", module, "--help"] for module in modules()}
    for name in examples():
        path = ROOT / "examples" / f"{name}.py"
        found[f"examples/{name}.py --help"] = [str(path), "--help"]
    lmdb, log = GOLDEN / "train" / "lmdb", GOLDEN / "interop" / "reference_train.log"
    found["netgen sf5"] = ["-m", "netgen", "sf5"]
    found["data_tools.inspect LMDB"] = ["-m", "data_tools.inspect", str(lmdb)]
    found["eval_tools.curves LOG"] = ["-m", "eval_tools.curves", str(log)]
    return found | {TORCH: ["-c", TORCH]}


def measured(wanted: dict[str, list[str]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each start in each round. Raises CalledProcessError if one fails."""
    seconds: dict[str, list[float]] = {name: [] for name in wanted}
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for name, arguments in wanted.items():
                begin = time.perf_counter()
                command = [sys.executable, *arguments]
                subprocess.run(command, cwd=folder, env=env, capture_output=True, check=True)
                if number:
                    seconds[name].append(time.perf_counter() - begin)
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.start",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=5, help="starts of each (default: 5)")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only starts with this in them")
    args = parser.parse_args(arguments)
    wanted = {
        name: command
        for name, command in starts().items()
        if not args.names or any(part in name for part in args.names)
    }
    if not wanted:
        parser.error(f"no command has {' or '.join(args.names)} in its name")
    seconds = measured(wanted, args.rounds)
    print(f"{'least':>6} {'median':>7}")
    for name in sorted(seconds, key=lambda name: -min(seconds[name])):
        print(f"{min(seconds[name]):6.2f} {median(seconds[name]):7.2f}  {name}")


if __name__ == "__main__":
    main()

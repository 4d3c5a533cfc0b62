"""Runs all benchmarks and recorded tests of a GPU in one call.

    python -m bench.gpu [--out bench/results] [--device cuda]

Prints the tables of bench.speed on the GPU (fp32 without TF32, tf32, bf16, and eager PyTorch; batch
4 and 16), then tests the recorded layers and solvers of tests/golden on it. Writes gpu.json and
gpu.txt. The exit status is 1 if a recording is not reproduced. `--device cpu` uses the CPU.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import speed

ROOT = Path(__file__).parent.parent
GOLDEN = ("tests/caffe/layers/test_golden.py", "tests/caffe/solver/test_golden.py")


class _Both(io.TextIOBase):
    """Writes text to stdout and keeps a copy."""

    def __init__(self) -> None:
        self.kept: list[str] = []

    def write(self, text: str) -> int:
        self.kept.append(text)
        sys.__stdout__.write(text)
        sys.__stdout__.flush()
        return len(text)


def golden(device: str, more: Sequence[str] = ()) -> tuple[int, str]:
    """Run the recorded cases on `device`; returns pytest's exit status and its last lines."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *GOLDEN, *more]
    env = {**os.environ, "CAFFE_TEST_DEVICE": device}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    return done.returncode, "\n".join(done.stdout.strip().splitlines()[-15:])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results", metavar="DIR")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    args, rest = parser.parse_known_args(arguments)
    args.out.mkdir(parents=True, exist_ok=True)
    both = _Both()
    with contextlib.redirect_stdout(both):
        json_path = args.out / "gpu.json"
        flags = ["--device", args.device, "--json", str(json_path), "--only", "train", "predict"]
        speed.main([*flags, "growth", *rest])
        status, closing = golden(args.device)
        print(f"\ntests/golden on {args.device}\n{closing}")
    (args.out / "gpu.txt").write_text("".join(both.kept))
    return 1 if status else 0


if __name__ == "__main__":
    sys.exit(main())

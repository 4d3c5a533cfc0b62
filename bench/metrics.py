"""Compares time and memory of the confusion matrix with torchmetrics and scikit-learn.

    python bench/metrics.py [--frames 654] [--size 640x480] [--classes 40] [--json F]

Each contender counts the same random label maps in its own process. Extra memory is what that
process uses beyond its imports and one loaded frame. The other packages are optional:
pip install torchmetrics scikit-learn.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

CONTENDERS = {"eval_tools": "numpy", "eval_tools, tensors": "torch", "torchmetrics": "torchmetrics",
              "scikit-learn": "sklearn"}  # fmt: skip


def frames(count: int, size: tuple[int, int], classes: int):
    """Yields realistic label maps: truth with ignored pixels, predictions two thirds right."""
    random = np.random.default_rng(0)
    width, height = size
    base = random.integers(0, classes + 1, (height // 16, width // 16), dtype=np.uint8)
    truth = np.kron(base, np.ones((16, 16), np.uint8))
    other = random.integers(0, classes + 1, truth.shape, dtype=np.uint8)
    guess = np.where(random.random(truth.shape) < 0.65, truth, other)
    for i in range(count):
        yield np.roll(truth, i, 1), np.roll(guess, i, 1)


def ours(data, classes: int, tensors: bool) -> float:
    from eval_tools.metrics import ConfusionMatrix

    matrix = ConfusionMatrix(classes)
    for truth, guess in data:
        if tensors:
            import torch

            truth, guess = torch.from_numpy(truth), torch.from_numpy(guess)
        matrix.update(truth, guess)
    return matrix.mean_iou


def torchmetrics(data, classes: int) -> float:
    import torch
    from torchmetrics.classification import MulticlassConfusionMatrix

    matrix = MulticlassConfusionMatrix(classes + 1, ignore_index=0, validate_args=False)
    for truth, guess in data:
        matrix.update(torch.from_numpy(guess), torch.from_numpy(truth))
    return mean_iou(matrix.compute().numpy())


def sklearn(data, classes: int) -> float:
    from sklearn.metrics import confusion_matrix

    counts = np.zeros((classes + 1, classes + 1), np.int64)
    for truth, guess in data:
        keep = truth > 0
        counts += confusion_matrix(truth[keep], guess[keep], labels=np.arange(classes + 1))
    return mean_iou(counts)


def mean_iou(counts: np.ndarray) -> float:
    """The mean IoU as ConfusionMatrix defines it, from a matrix whose row 0 is empty."""
    hits = np.diagonal(counts)[1:]
    union = counts.sum(1)[1:] + counts.sum(0)[1:] - hits
    return float((hits / union)[counts.sum(1)[1:] > 0].mean())


def run_one(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Measures one contender; runs in its own process."""
    if CONTENDERS[name] != "numpy":
        importlib.import_module("torch" if "torch" in CONTENDERS[name] else "sklearn.metrics")
    run = {
        "eval_tools": lambda data: ours(data, args.classes, tensors=False),
        "eval_tools, tensors": lambda data: ours(data, args.classes, tensors=True),
        "torchmetrics": lambda data: torchmetrics(data, args.classes),
        "scikit-learn": lambda data: sklearn(data, args.classes),
    }[name]
    list(frames(1, args.size, args.classes))
    start = time.perf_counter()
    for _ in frames(args.frames, args.size, args.classes):
        pass
    drawing = time.perf_counter() - start
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    value = run(frames(args.frames, args.size, args.classes))
    seconds = time.perf_counter() - start - drawing
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "extra_mb": (after - before) / 1024, "peak_mb": after / 1024,
            "mean_iou": value}  # fmt: skip


def size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=654)
    parser.add_argument("--size", type=size, default=(640, 480), metavar="WxH")
    parser.add_argument("--classes", type=int, default=40)
    parser.add_argument("--json", type=Path, metavar="F")
    parser.add_argument("--one", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.one:
        print(json.dumps(run_one(args.one, args)))
        return
    results = {}
    print(f"{args.frames} frames of {args.size[0]}x{args.size[1]}, {args.classes} classes")
    print(f"{'':22}{'seconds':>9}{'x ours':>8}{'extra MB':>10}{'peak MB':>9}")
    for name, module in CONTENDERS.items():
        if importlib.util.find_spec(module) is None:
            print(f"{name:22}  (not installed)")
            continue
        given = [__file__, *(sys.argv[1:] if arguments is None else arguments), "--one", name]
        done = subprocess.run([sys.executable, *given], capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"{name:22}  failed: {done.stderr.strip().splitlines()[-1]}")
            continue
        found = results[name] = json.loads(done.stdout)
        times = found["seconds"] / results["eval_tools"]["seconds"]
        print(f"{name:22}{found['seconds']:9.2f}{times:8.1f}{found['extra_mb']:10.0f}"
              f"{found['peak_mb']:9.0f}")  # fmt: skip
        if abs(found["mean_iou"] - results["eval_tools"]["mean_iou"]) > 1e-6:
            sys.exit(f"{name} finds another mean IoU: {found['mean_iou']}")
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Trains and scores three nets on rendered RGB-D frames, in a few minutes on a CPU.

Renders a training and a test set as LMDBs, generates a narrow FuseNet-SF5 and its colour-only and
depth-only baselines, trains each for the same number of iterations with the `caffe` command, scores
them, and draws their predictions. Each step is a command, which is printed so that you can repeat
it. All files are written to demo/, which is emptied first.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np

import caffe
from boundary.writing import write_text
from data_tools.cli import DataError
from data_tools.record import from_datum
from data_tools.store import Reader
from eval_tools import network

NETS = {"sf5": "FuseNet-SF5", "rgb": "colour only", "depth": "depth only"}
FIGURES = ("global_accuracy", "mean_accuracy", "mean_iou")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder (default: demo)")
    parser.add_argument("--size", default="96x72", help="size of the frames (default: 96x72)")
    parser.add_argument(
        "--frames", type=int, default=2000, help="number of training frames (default: 2000)"
    )
    parser.add_argument(
        "--iterations", type=int, default=1200, help="training iterations per net (default: 1200)"
    )
    parser.add_argument(
        "--width", default="0.25", help="width multiplier; 1 is the paper's (default: 0.25)"
    )
    parser.add_argument("--base-lr", default="0.2", help="base learning rate (default: 0.2)")
    return parser.parse_args()


def start_anew(folder: Path) -> None:
    """Empties the folder; refuses if it holds anything but an earlier demo."""
    marker = folder / ".fusenet-demo"
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        sys.exit(f"{folder}: is not empty and no earlier demo's; name another with --out")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    marker.touch()


class Shell:
    """Runs commands in the demo's folder, with one thread each, and prints them."""

    def __init__(self, folder: Path):
        self._folder = folder
        root = str(Path(__file__).resolve().parents[1])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        # Two nets train at the same time; with more threads each they would only slow each other.
        self._environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}

    def __call__(self, *command: str, out: str | None = None, log: str | None = None) -> None:
        """Runs `python -m <command>` with stdout in the file `out` and stderr in `log`."""
        shown = " ".join(["python -m", *command, *([f"> {out}"] if out else [])])
        print(f"$ {shown}", flush=True)
        with ExitStack() as stack:
            files = [
                name and stack.enter_context(open(self._folder / name, "w", encoding="utf-8"))
                for name in (out, log)
            ]
            result = subprocess.run(
                [sys.executable, "-m", *command],
                cwd=self._folder,
                env=self._environment,
                stdout=files[0],
                stderr=files[1],
            )
        if result.returncode:
            seen = f"; see {self._folder / log}" if log else ""
            raise SystemExit(f"demo: this command failed{seen}: {shown}")


def make_data(shell: Shell, args: argparse.Namespace) -> None:
    """Renders two LMDBs; their seeds differ, so no frame is in both."""
    for name, count, seed in (("train", args.frames, 1), ("test", 150, 2)):
        shell("data_tools.synth", f"lmdb/{name}", "--count", str(count), "--size", args.size,
              "--seed", str(seed))  # fmt: skip


def make_nets(shell: Shell, args: argparse.Namespace) -> None:
    """Generates each net's prototxts (train+test, deploy) and solver."""
    classes = len(Reader(args.out / "lmdb" / "train").info["classes"]) - 1
    custom = ["--dataset", "custom", "--classes", str(classes), "--size", args.size]
    custom += ["--width-multiplier", args.width]
    for net in NETS:
        # With so few iterations, running statistics need a shorter memory than Caffe's 0.999.
        shell("netgen", net, *custom, "--source", "lmdb/train", "--test-source", "lmdb/test",
              "--batch-size", "4", "--moving-average-fraction", "0.95",
              out=f"{net}.prototxt")  # fmt: skip
        shell("netgen", net, *custom, "--deploy", out=f"{net}_deploy.prototxt")
        shell("netgen", "solver", "--net", f"{net}.prototxt", "--base-lr", args.base_lr,
              "--lr-policy", "poly", "--max-iter", str(args.iterations), "--test-epochs", "0",
              "--snapshot-epochs", "0", "--display", "20", "--random-seed", "1",
              "--snapshot-prefix", net, out=f"{net}_solver.prototxt")  # fmt: skip


def train(shell: Shell) -> None:
    """Trains the nets, two at a time, the slowest first."""
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(shell, "caffe", "train", "-solver", f"{net}_solver.prototxt",
                        log=f"{net}.log")
            for net in NETS
        ]  # fmt: skip
        for job in jobs:
            job.result()


def evaluate(shell: Shell, args: argparse.Namespace) -> list[dict]:
    """Scores the nets on the test set; returns the figures in the order of NETS."""
    models = [[f"{net}_deploy.prototxt", f"{net}_iter_{args.iterations}.caffemodel"]
              for net in NETS]  # fmt: skip
    versus = [part for model in models[1:] for part in ("--versus", *model)]
    shell("eval_tools.evaluate", *models[0], "lmdb/test", *versus, "--batch-size", "10",
          "--json", "scores.json", out="scores.txt", log="evaluate.log")  # fmt: skip
    found = json.loads((args.out / "scores.json").read_text(encoding="utf-8"))
    return [found, *found["versus"]]


def table(scores: list[dict]) -> str:
    """The figures of the three nets in %, one net per line."""
    lines = [f"{'on the test set':18}{'global':>8}{'class':>8}{'IoU':>8}"]
    for name, score in zip(NETS.values(), scores, strict=True):
        figures = (score[key] for key in FIGURES)
        lines.append(f"{name:18}" + "".join(f"{100 * figure:8.1f}" for figure in figures))
    return "\n".join(lines) + "\n"


def draw_frames(args: argparse.Namespace, count: int = 6) -> None:
    """Draws frames.png: evenly spaced test frames, their truth, and each net's prediction."""
    import matplotlib  # not above: only this needs it, at the end
    from matplotlib import pyplot as plt

    matplotlib.use("Agg")
    reader = Reader(args.out / "lmdb" / "test")
    palette = np.array(reader.info["palette"], np.uint8)
    keys = reader.keys()
    chosen = np.linspace(0, len(keys) - 1, count).round().astype(int)
    planes = [from_datum(reader.get(keys[i]))[0] for i in chosen]
    columns = {
        "colour": [p[2::-1].transpose(1, 2, 0) for p in planes],
        "depth": [np.ma.masked_equal(p[3], 0) for p in planes],
        "truth": [palette[p[4]] for p in planes],
    }
    for net, name in NETS.items():
        model = network.load(args.out / f"{net}_deploy.prototxt",
                             args.out / f"{net}_iter_{args.iterations}.caffemodel")  # fmt: skip
        best = model.scores([p[:3].transpose(1, 2, 0) for p in planes], [p[3] for p in planes])
        # Label 0 is not a class, so it is never predicted.
        labels = best[:, 1:].argmax(axis=1) + 1
        columns[name] = [palette[label] for label in labels]
    colors = plt.get_cmap("viridis").with_extremes(bad="black")  # holes
    figure, axes = plt.subplots(count, len(columns), figsize=(2 * len(columns), 1.55 * count))
    for column, (title, pictures) in zip(axes.T, columns.items(), strict=True):
        column[0].set_title(title)
        for axis, picture in zip(column, pictures, strict=True):
            axis.imshow(picture, cmap=colors, interpolation="nearest")
            axis.axis("off")
    handles = [plt.Rectangle((0, 0), 1, 1, color=palette[label] / 255, label=name)
               for label, name in enumerate(reader.info["classes"]) if label]  # fmt: skip
    figure.legend(handles=handles, loc="lower center", ncols=len(handles), frameon=False)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(args.out / "frames.png", dpi=110)
    plt.close(figure)


def main() -> None:
    """Runs the demo."""
    args = arguments()
    caffe.init_log(2)  # a net logs a hundred lines of setup, which would bury ours
    start = time.monotonic()
    start_anew(args.out)
    shell = Shell(args.out)
    make_data(shell, args)
    make_nets(shell, args)
    train(shell)
    shell("eval_tools.curves", *(f"{net}.log" for net in NETS), "--names", ",".join(NETS.values()),
          "--out", "curves.png", log="curves.log")  # fmt: skip
    scores = table(evaluate(shell, args))
    write_text(args.out / "table.txt", scores, DataError)
    draw_frames(args)
    print(f"\n{scores}")
    print(f"{args.out}/frames.png: frames, truth and predictions; {args.out}/curves.png: losses; "
          f"{args.out}/scores.txt: every class")  # fmt: skip
    print(f"{time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main()

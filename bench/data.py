"""Measures the speed and memory of writing and reading LMDBs, and compares with BVLC Caffe's tools.

    python bench/data.py [--frames 200] [--rounds 3] [--convert-imageset P] [--caffe P] [--json F]

Writing: data_tools.nyuv2 converts a generated nyu_depth_v2_labeled.mat of full-size frames (colour,
depth and label) to 320x240, with 1 and 2 workers. convert_imageset converts the same images, as
PNGs, to 320x240: only colour, or colour, depth and label into an LMDB each. data_tools.synth
renders and writes as many frames. Start-up time counts.
Reading: a Data layer reads records in order and shuffled, timed by `caffe time`; start-up time is
subtracted. Contenders take turns; figures are medians over the rounds. CPU ms is the processor time
of all threads, which other programs hardly affect. Caffe's own programs are optional.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import cv2
import h5py
import numpy as np

from data_tools.synth import Synth

SIZE = (640, 480)
READ_BATCH, SHORT, LONG = 4, 50, 1500

PICTURES = ("color", "depth", "label")

NET = """
layer {{ name: "data" type: "Data" top: "data" data_param {{
  source: "{source}" backend: LMDB batch_size: {batch} {shuffle} }} }}
layer {{ name: "silence" type: "Silence" bottom: "data" }}
"""


def generate(folder: Path, count: int) -> None:
    """Write `count` full-size frames: as the dataset's .mat (compressed, one chunk per frame), and
    as PNGs."""
    source = Synth(count, SIZE, 0)
    shapes = {"images": ((3, *SIZE), np.uint8), "depths": (SIZE, np.float32),
              "labels": (SIZE, np.uint16)}  # fmt: skip
    for name in PICTURES:
        (folder / name).mkdir()
    with h5py.File(folder / "nyu.mat", "w") as file:
        parts = {name: file.create_dataset(name, (count, *shape), dtype, chunks=(1, *shape),
                                           compression="gzip", compression_opts=3)
                 for name, (shape, dtype) in shapes.items()}  # fmt: skip
        for index in range(count):
            frame = source.load(index)
            parts["images"][index] = frame.color[:, :, ::-1].transpose(2, 1, 0)
            parts["depths"][index] = frame.depth.T / np.float32(1000)
            parts["labels"][index] = frame.label.T
            for name, picture in zip(
                PICTURES, (frame.color, frame.depth, frame.label), strict=True
            ):
                cv2.imwrite(str(folder / name / f"{index:04d}.png"), picture)
    (folder / "list.txt").write_text("".join(f"{index:04d}.png 0\n" for index in range(count)))


@dataclass
class Cost:
    """The cost of a command: wall-clock seconds, processor seconds of all its processes, and the
    peak memory of the largest process in MiB."""

    seconds: float
    cpu: float
    memory: float


def run(command: list[str], folder: Path) -> Cost:
    """Runs a command and measures its cost. The measurement runs in a child process, because the
    children's memory high-water mark of one process never falls."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        start = time.perf_counter()
        with open(folder / "log", "w") as log:
            status = subprocess.run(command, cwd=folder, stdout=log, stderr=log).returncode
        seconds = time.perf_counter() - start
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu, memory = used.ru_utime + used.ru_stime, used.ru_maxrss / 1024
        os.write(writer, json.dumps([status, seconds, cpu, memory]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader) as pipe:
        status, *cost = json.loads(pipe.read())
    if status:
        last = (folder / "log").read_text().splitlines()[-1:]
        raise SystemExit(f"bench: {' '.join(command)} failed: {' '.join(last)}")
    return Cost(*cost)


def writers(count: int, convert_imageset: str | None) -> dict[str, list[str]]:
    """The writing commands by row name, for `count` frames."""
    found = {
        f"data_tools.nyuv2, {workers} worker{'s' * (workers > 1)}":
            [sys.executable, "-m", "data_tools.nyuv2", "nyu.mat", f"out{workers}", "--workers",
             str(workers), "--splits", "trainval,test", "--force"]
        for workers in (1, 2)
    }  # fmt: skip
    found["data_tools.synth"] = [
        sys.executable, "-m", "data_tools.synth", "synth", "--count", str(count), "--size",
        "320x240", "--force"
    ]  # fmt: skip
    if convert_imageset:
        program = f"{shlex.quote(convert_imageset)} --resize_width=320 --resize_height=240"
        gray = {"color": "", "depth": "--gray", "label": "--gray"}
        lines = [f"rm -rf {name}_lmdb && {program} {gray[name]} {name}/ list.txt {name}_lmdb"
                 for name in PICTURES]  # fmt: skip
        found["convert_imageset, colour alone"] = ["sh", "-c", lines[0]]
        found["convert_imageset, all three"] = ["sh", "-c", " && ".join(lines)]
    return found


def write_rows(folder: Path, count: int, rounds: int, convert_imageset: str | None) -> list[dict]:
    """Measures writing: one row per contender."""
    found: dict[str, list[Cost]] = {}
    for _ in range(rounds):
        for name, command in writers(count, convert_imageset).items():
            found.setdefault(name, []).append(run(command, folder))
    return [
        {
            "writing": name,
            "frames/s": median(count / cost.seconds for cost in costs),
            "CPU ms/frame": median(1000 * cost.cpu / count for cost in costs),
            "MiB": max(cost.memory for cost in costs),
        }
        for name, costs in found.items()
    ]


def read_rows(folder: Path, rounds: int, caffe: str | None) -> list[dict]:
    """Measures reading of out1/trainval: one row per contender and order."""
    ours = [sys.executable, "-m", "caffe"]
    contenders = [("this engine, in order", ours, ""),
                  ("this engine, shuffled", ours, "shuffle: true")]  # fmt: skip
    if caffe:
        contenders.append(("Caffe, in order", [caffe], ""))
    found: dict[str, list[tuple[float, float]]] = {}
    count = READ_BATCH * (LONG - SHORT)
    for _ in range(rounds):
        for name, program, shuffle in contenders:
            net = NET.format(source="out1/trainval", batch=READ_BATCH, shuffle=shuffle)
            (folder / "net.prototxt").write_text(net)
            short, long = (
                run([*program, "time", "-model=net.prototxt", f"-iterations={n}"], folder)
                for n in (SHORT, LONG)
            )
            rates = count / (long.seconds - short.seconds), 1000 * (long.cpu - short.cpu) / count
            found.setdefault(name, []).append(rates)
    return [{"reading": name, "records/s": median(wall for wall, _ in rates),
             "CPU ms/record": median(cpu for _, cpu in rates)}
            for name, rates in found.items()]  # fmt: skip


def machine() -> dict[str, str]:
    """The date, the machine and its load."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    cpu = models[0] if models else platform.machine()
    return {"date": time.strftime("%Y-%m-%d"), "machine": f"{os.cpu_count()} x {cpu}",
            "load": " ".join(f"{load:.1f}" for load in os.getloadavg())}  # fmt: skip


def table(rows: list[dict]) -> str:
    """The rows as aligned text."""
    head = list(rows[0])
    lines = [f"{head[0]:34}" + "".join(f"{name:>15}" for name in head[1:])]
    for row in rows:
        cells = "".join(f"{row[name]:15.{2 if 'ms' in name else 1}f}" for name in head[1:])
        lines.append(f"{row[head[0]]:34}{cells}")
    return "\n".join(lines)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=200, help="number of frames (default: 200)")
    parser.add_argument("--rounds", type=int, default=3, help="turns per contender (default: 3)")
    parser.add_argument("--convert-imageset", metavar="PROGRAM", help="BVLC's convert_imageset")
    parser.add_argument("--caffe", metavar="PROGRAM", help="BVLC's caffe")
    parser.add_argument("--json", type=Path, metavar="F", help="also write the figures to F")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), args.frames)
        about = machine()
        print(*about.values(), sep=", ", end="\n\n")
        writing = write_rows(Path(folder), args.frames, args.rounds, args.convert_imageset)
        print(table(writing))
        reading = read_rows(Path(folder), args.rounds, args.caffe)
        print("\n" + table(reading))
    if args.json:
        args.json.write_text(json.dumps([about, *writing, *reading], indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Frames a second and memory of writing and reading LMDBs, beside BVLC Caffe's tools.

    python bench/data.py [--frames 200] [--convert-imageset PROGRAM] [--caffe PROGRAM] [--json F]

Writing: data_tools.nyuv2 on a generated nyu_depth_v2_labeled.mat of full-size frames (colour, depth
and label, to 320x240) with 1 and 2 workers; convert_imageset on the same pictures as PNGs (colour
alone, to 320x240). Reading: records a second of a Data layer, in order and shuffled, by
`caffe time`, start-up subtracted. Caffe's own programs are optional.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import h5py
import numpy as np

from data_tools.synth import Synth

SIZE = (640, 480)
READ_BATCH, SHORT, LONG = 4, 50, 400

NET = """
layer {{ name: "data" type: "Data" top: "data" data_param {{
  source: "{source}" backend: LMDB batch_size: {batch} {shuffle} }} }}
layer {{ name: "silence" type: "Silence" bottom: "data" }}
"""


def generate(folder: Path, count: int) -> None:
    """count full-size frames: as the data set's .mat (compressed, a chunk a frame) and as PNGs."""
    source = Synth(count, SIZE, 0)
    shapes = {"images": ((3, *SIZE), np.uint8), "depths": (SIZE, np.float32),
              "labels": (SIZE, np.uint16)}  # fmt: skip
    (folder / "png").mkdir()
    lines = []
    with h5py.File(folder / "nyu.mat", "w") as file:
        parts = {name: file.create_dataset(name, (count, *shape), dtype, chunks=(1, *shape),
                                           compression="gzip", compression_opts=3)
                 for name, (shape, dtype) in shapes.items()}  # fmt: skip
        for index in range(count):
            frame = source.load(index)
            parts["images"][index] = frame.color[:, :, ::-1].transpose(2, 1, 0)
            parts["depths"][index] = frame.depth.T / np.float32(1000)
            parts["labels"][index] = frame.label.T
            cv2.imwrite(str(folder / "png" / f"{index:04d}.png"), frame.color)
            lines.append(f"{index:04d}.png 0\n")
    (folder / "list.txt").write_text("".join(lines))


def run(command: list[str], folder: Path) -> tuple[float, float]:
    """Wall-clock seconds and the peak memory, in MiB, of the largest of its processes.

    The children's high-water mark only rises, so each command is waited for by a process of its
    own.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        start = time.perf_counter()
        with open(folder / "log", "w") as log:
            status = subprocess.run(command, cwd=folder, stdout=log, stderr=log).returncode
        seconds = time.perf_counter() - start
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        os.write(writer, json.dumps([status, seconds, memory]).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader) as pipe:
        status, seconds, memory = json.loads(pipe.read())
    if status:
        last = (folder / "log").read_text().splitlines()[-1:]
        raise SystemExit(f"bench: {' '.join(command)} failed: {' '.join(last)}")
    return seconds, memory


def write_rows(folder: Path, count: int, convert_imageset: str | None) -> list[dict]:
    """Writing, a row a contender."""
    rows = []
    contenders = {
        f"data_tools.nyuv2, {workers} worker{'s' * (workers > 1)}":
            [sys.executable, "-m", "data_tools.nyuv2", "nyu.mat", f"out{workers}", "--workers",
             str(workers), "--splits", "trainval,test"]
        for workers in (1, 2)
    }  # fmt: skip
    if convert_imageset:
        contenders["convert_imageset (colour alone)"] = [
            convert_imageset, "--resize_width=320", "--resize_height=240", "png/", "list.txt",
            "caffe_lmdb"]  # fmt: skip
    for name, command in contenders.items():
        seconds, memory = run(command, folder)
        rows.append({"writing": name, "frames/s": count / seconds, "MiB": memory})
    return rows


def read_rows(folder: Path, caffe: str | None) -> list[dict]:
    """Reading out1/trainval, a row a contender and an order."""
    rows = []
    ours = [sys.executable, "-m", "caffe"]
    contenders = [("this engine, in order", ours, ""),
                  ("this engine, shuffled", ours, "shuffle: true")]  # fmt: skip
    if caffe:
        contenders.append(("Caffe, in order", [caffe], ""))
    for name, program, shuffle in contenders:
        net = NET.format(source="out1/trainval", batch=READ_BATCH, shuffle=shuffle)
        (folder / "net.prototxt").write_text(net)
        times = [run([*program, "time", "-model=net.prototxt", f"-iterations={n}"], folder)[0]
                 for n in (SHORT, LONG)]  # fmt: skip
        rate = READ_BATCH * (LONG - SHORT) / (times[1] - times[0])
        rows.append({"reading": name, "records/s": rate})
    return rows


def table(rows: list[dict]) -> str:
    """Rows as columns."""
    head = list(rows[0])
    lines = [f"{head[0]:34}" + "".join(f"{name:>12}" for name in head[1:])]
    for row in rows:
        cells = "".join(f"{row[name]:12.1f}" for name in head[1:])
        lines.append(f"{row[head[0]]:34}{cells}")
    return "\n".join(lines)


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=200, help="default: 200")
    parser.add_argument("--convert-imageset", metavar="PROGRAM", help="BVLC Caffe's")
    parser.add_argument("--caffe", metavar="PROGRAM", help="BVLC Caffe's")
    parser.add_argument("--json", type=Path, metavar="F")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder), args.frames)
        writing = write_rows(Path(folder), args.frames, args.convert_imageset)
        print(table(writing))
        reading = read_rows(Path(folder), args.caffe)
        print("\n" + table(reading))
    if args.json:
        args.json.write_text(json.dumps(writing + reading, indent=1) + "\n")


if __name__ == "__main__":
    main()

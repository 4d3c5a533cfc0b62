"""Measures time and memory of training steps and predictions of FuseNet-SF5.

    python -m bench.speed [--json F] [--rounds N] [--size 320x240] [--width F] [--device cpu|cuda]
        [--int8 deploy.onnx]

Contenders: the plan (used by `caffe train` and `caffe test`) in each precision; the observed net
(layer by layer, as in pycaffe); the same net in plain PyTorch as a user would write it (eager, and
with --compile also torch.compile); onnxruntime and OpenVINO for predictions, with --int8 also of a
quantised ONNX file of the same net; and a Caffe, if CAFFE_BIN names its program (the authors' fork,
or BVLC's with caffe_patches). Each contender is a process of its own; they take turns, so that
changes of the machine's speed affect all of them alike. Figures are medians. Memory is the
process's peak resident size; on a GPU, PyTorch's peak allocation.

The share of peak divides the multiplications and additions of direct convolutions per second by the
rate that 3x3 convolutions of 256 and 512 channels reach on this machine. Winograd's algorithms need
fewer operations, so the share may exceed 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

from bench import machine
from bench.contender import ROOT, Contender
from bench.metrics import size
from bench.worker import Job, deploy_param, parts_of, train_param

SECTIONS = ("train", "predict", "parts", "growth", "scaling")
GIB = 2**30


class CaffeContender(Contender):
    """A Caffe, measured by its `time` command: a forward and backward pass, or the forward pass
    only, after a first pass.

    Memory is that of the whole command, which runs the backward pass even for predictions.
    """

    def __init__(self, job: Job, program: str) -> None:
        self.job, self.seconds, self.memory = job, [], 0.0
        self.program = program

    def turn(self) -> list[float]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "net.prototxt"
            path.write_text(_for_caffe(self.job))
            command = [self.program, "time", f"-model={path}", "-iterations=1"]
            log_all = {**os.environ, "GLOG_minloglevel": "0", "GLOG_logtostderr": "1"}
            done = subprocess.Popen(
                command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, env=log_all
            )
            assert done.stderr is not None
            log = done.stderr.read().decode(errors="replace")
            _, status, usage = os.wait4(done.pid, 0)
        what = "Forward-Backward" if self.job.task == "train" else "Forward pass"
        found = re.search(rf"Average {what}: (\S+) ms", log)
        if status or found is None:
            raise SystemExit(f"bench: {self.program} failed:\n{log[-500:]}")
        self.memory = usage.ru_maxrss * 1024
        return [float(found[1]) / 1e3]

    def end(self) -> None:
        """Nothing to end: each turn was a process of its own."""


def contender(job: Job) -> Contender:
    if job.who == "Caffe":
        return CaffeContender(job, os.environ["CAFFE_BIN"])
    return Contender(job)


def measure(jobs: Sequence[Job], rounds: int, baseline: Job) -> list[dict]:
    """The jobs' rows: medians over the turns; the first turn of each job warms up.

    Two jobs at a time take turns with the baseline, and their times are related to its time: all
    jobs at once would not fit into every machine's memory.
    """
    rows = []
    others = [job for job in jobs if job != baseline]
    for i in range(0, max(len(others), 1), 2):
        contenders = [contender(job) for job in (baseline, *others[i : i + 2])]
        for k in range(rounds + 1):
            for each in contenders:
                seconds = each.turn()
                if k:
                    each.seconds += seconds
        for each in contenders:
            each.end()
            row = _row(each.job, each.seconds, each.memory)
            row["x baseline"] = median(contenders[0].seconds) / row["seconds"]
            if each.job != baseline or i == 0:
                rows.append(row)
    return rows


def _row(job: Job, seconds: Sequence[float], memory: float) -> dict:
    return {
        "task": job.task,
        "batch": job.batch,
        "size": f"{job.size[0]}x{job.size[1]}",
        "who": job.who,
        "precision": job.precision,
        "seconds": median(seconds),
        "least": min(seconds),
        "memory": memory / GIB,
    }


def _for_caffe(job: Job) -> str:
    """The job's net with DummyData as inputs, because `caffe time` leaves Input layers at zero."""
    from caffe.formats.prototext import text
    from caffe.proto import caffe_pb2 as pb

    source = train_param(job) if job.task == "train" else deploy_param(job)
    net = pb.NetParameter(name=source.name)
    for layer in source.layer:
        if layer.type != "Input":
            net.layer.add().CopyFrom(layer)
            continue
        data = net.layer.add(name=layer.name, type="DummyData", top=list(layer.top))
        data.dummy_data_param.shape.add().CopyFrom(layer.input_param.shape[0])
        filler = data.dummy_data_param.data_filler.add()
        if layer.name == "label":
            filler.type, filler.value = "constant", 1
        else:
            filler.type, filler.max = "uniform", 255
    return text(net)


# -- the machine's peak -----------------------------------------------------------------------


def convolution_peak(device: str, precision: str) -> float:
    """FLOP/s of the fastest of a few plain 3x3 convolutions."""
    import torch
    import torch.nn.functional as F

    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    for channels, height, width in ((256, 60, 80), (512, 30, 40)):
        x = torch.rand(4, channels, height, width, device=device, dtype=dtype)
        w = torch.rand(channels, channels, 3, 3, device=device, dtype=dtype)
        x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, w))
        for _ in range(5):
            start = time.perf_counter()
            F.conv2d(x, w, padding=1)
            wait()
            flop = 2 * 9 * channels**2 * x.shape[0] * height * width
            best = max(best, flop / (time.perf_counter() - start))
    return best


def flop(job: Job) -> float:
    """Multiplications and additions of direct (de)convolutions; backward takes twice forward's."""
    import caffe
    from caffe.process.log import lowest_level

    param = train_param(job) if job.task == "train" else deploy_param(job)
    before = lowest_level()
    caffe.init_log(2)
    net = caffe.Net(param, caffe.TEST)
    caffe.init_log(before)
    total = 2 * sum(
        layer.macs([blob.shape for blob in net.wiring.bottom_blobs(i)])
        for i, layer in enumerate(net.wiring.layers)
    )
    return 3.0 * total if job.task == "train" else float(total)


# -- the table --------------------------------------------------------------------------------


def jobs_of(task: str, batch: int, args: argparse.Namespace) -> list[Job]:
    """The jobs of all contenders."""
    base = Job("plan", task, batch, args.size, width=args.width, device=args.device)
    precisions = ["fp32", "tf32", "bf16"] if args.device == "cuda" else ["fp32", "bf16"]
    jobs = [replace(base, precision=p) for p in precisions]
    if task == "train":
        jobs.append(replace(base, who="plan, recompute"))
    jobs.append(replace(base, who="observed net"))
    jobs += [replace(base, who="eager PyTorch", precision=p) for p in precisions]
    if args.compile:
        jobs += [replace(base, who="torch.compile", precision=p) for p in precisions]
    if task == "predict" and args.device == "cpu":
        jobs += _jobs_of_engines(base, precisions, args.int8)
    asked = base.short or (task, batch) == ("train", args.batch)
    if os.environ.get("CAFFE_BIN") and args.device == "cpu" and asked:
        jobs.append(replace(base, who="Caffe"))
    return jobs


def _jobs_of_engines(base: Job, precisions: Sequence[str], int8: Path | None) -> list[Job]:
    """Those of other engines, as far as they are installed; a quantised file is for one image."""
    jobs = [replace(base, who="onnxruntime")] if _has("onnxruntime") else []
    if _has("openvino"):
        jobs += [replace(base, who="OpenVINO", precision=p) for p in precisions]
    if int8 and base.short:
        whos = dict.fromkeys(job.who for job in jobs)
        jobs += [replace(base, who=w, precision="int8", file=str(int8.resolve())) for w in whos]
    return jobs


def _has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def compare(task: str, batch: int, args: argparse.Namespace, peaks: dict[str, float]) -> list[dict]:
    """Measure, print and return the rows of one task and batch."""
    jobs = jobs_of(task, batch, args)
    baseline = next(j for j in jobs if (j.who, j.precision) == ("eager PyTorch", "fp32"))
    rows = measure(jobs, args.rounds * (3 if baseline.short else 1), baseline)
    work = flop(jobs[0])
    caffe_row = next((r for r in rows if r["who"] == "Caffe"), None)
    print(f"\n{task}, batch {batch}: {work / 1e12:.2f} TFLOP")
    print(f"{'':26}{'seconds':>9}{'x eager':>9}{'x Caffe':>9}{'of peak':>9}{'GiB':>8}")
    for row in rows:
        row["x eager fp32"] = row.pop("x baseline")
        row["images/s"] = batch / row["seconds"]
        against = share = ""
        if row["precision"] in peaks:
            row["of peak"] = work / row["seconds"] / peaks[row["precision"]]
            share = f"{row['of peak']:.2f}"
        if caffe_row:
            row["x Caffe"] = caffe_row["seconds"] / row["seconds"]
            against = f"{row['x Caffe']:.2f}"
        print(
            f"{row['who']:20}{row['precision']:6}{row['seconds']:9.3f}{row['x eager fp32']:9.2f}"
            f"{against:>9}{share:>9}{row['memory']:8.2f}"
        )
    return rows


def growth(args: argparse.Namespace) -> list[dict]:
    """Measures how the time of a training step grows with image size and batch."""
    width, height = args.size
    base = Job("plan", "train", 1, args.size, width=args.width, device=args.device)
    sizes = [(width // 2, height // 2), (width, height), (width * 3 // 2, height * 3 // 2)]
    jobs = [replace(base, size=size) for size in sizes]
    jobs += [replace(base, batch=batch) for batch in (2, 4, 8)]
    rows = [row for job in jobs for row in measure([job], max(1, args.rounds // 2), job)]
    print(f"\ntraining step of the plan, fp32\n{'':26}{'seconds':>9}{'ns/pixel':>10}{'GiB':>8}")
    for job, row in zip(jobs, rows, strict=True):
        pixels = job.batch * job.size[0] * job.size[1]
        row["ns/pixel"] = 1e9 * row["seconds"] / pixels
        print(f"{row['size']:>12}, batch {job.batch:<5}{row['seconds']:9.3f}{row['ns/pixel']:10.0f}"
              f"{row['memory']:8.2f}")  # fmt: skip
    return rows


def scaling(args: argparse.Namespace) -> list[dict]:
    """Measures seconds per iteration of `caffe train` with 1 and 2 processes, batch 4 in all."""
    rows = []
    for count in (1, 2):
        times = []
        with tempfile.TemporaryDirectory() as folder:
            job = Job("plan", "train", args.batch // count, args.size, width=args.width)
            (Path(folder) / "net.prototxt").write_text(_for_caffe(job))
            for iterations in (1, 4):
                solver = Path(folder) / "solver.prototxt"
                solver.write_text(
                    f'net: "{folder}/net.prototxt" base_lr: 0.001 lr_policy: "fixed" '
                    f"max_iter: {iterations} snapshot_after_train: false random_seed: 1"
                )
                command = [sys.executable, "-m", "caffe", "train", f"-solver={solver}"]
                start = time.perf_counter()
                subprocess.run([*command, f"-cpu={count}", "-minloglevel=2"], check=True, cwd=ROOT)
                times.append(time.perf_counter() - start)
        rows.append({"processes": count, "seconds": (times[1] - times[0]) / 3})
    print(f"\ncaffe train, batch {args.batch} in all\n{'processes':>12}{'seconds':>9}{'x one':>8}")
    for row in rows:
        row["x one"] = rows[0]["seconds"] / row["seconds"]
        print(f"{row['processes']:12}{row['seconds']:9.2f}{row['x one']:8.2f}")
    return rows


def parts(args: argparse.Namespace) -> list[dict]:
    """Measures the effect of each part of a plan: the plan without it, compared with the whole."""
    rows = []
    print(f"\nthe plan without one of its parts, fp32\n{'':38}{'seconds':>9}{'x':>7}{'GiB':>8}")
    for task, batch in (("train", args.batch), ("predict", 1)):
        whole = Job("plan", task, batch, args.size, width=args.width, device=args.device)
        jobs = [replace(whole, without=part) for part in ("", *parts_of(task))]
        for job, row in zip(jobs, measure(jobs, args.rounds, whole), strict=True):
            row["without"], row["x whole"] = job.without, 1 / row.pop("x baseline")
            rows.append(row)
            print(f"{task:8} {'- ' + job.without if job.without else 'whole':29}"
                  f"{row['seconds']:9.3f}{row['x whole']:7.2f}{row['memory']:8.2f}")  # fmt: skip
    return rows


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench.speed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--json", type=Path, metavar="F", help="also write the figures to F")
    made.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="turns of each contender (default: 3); three times as many for single images",
    )
    made.add_argument(
        "--size", type=size, default=(320, 240), metavar="WxH", help="image size (default: 320x240)"
    )
    made.add_argument("--batch", type=int, default=4, help="of the training step (default: 4)")
    made.add_argument(
        "--width", type=float, default=1.0, help="multiplies all channels (default: 1)"
    )
    made.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    made.add_argument("--compile", action="store_true", help="also measure torch.compile")
    made.add_argument(
        "--int8",
        type=Path,
        metavar="F",
        help="also measure predictions of this quantised ONNX file, of SF5 at the same size",
    )
    made.add_argument(
        "--only",
        nargs="+",
        choices=SECTIONS,
        default=list(SECTIONS),
        metavar="SECTION",
        help=f"measure only these: {', '.join(SECTIONS)} (default: all)",
    )
    return made


def main(arguments: Sequence[str] | None = None) -> dict:
    """Prints the tables and returns all figures."""
    command = parser()
    args = command.parse_args(arguments)
    if args.int8 and not args.int8.is_file():
        command.error(f"--int8: there is no file {args.int8}")
    import torch

    precisions = ("fp32", "tf32", "bf16") if args.device == "cuda" else ("fp32", "bf16")
    peaks = {p: convolution_peak(args.device, p) for p in precisions}
    name = torch.cuda.get_device_name() if args.device == "cuda" else machine.processor()
    print(f"{name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    print("peak of 3x3 convolutions: "
          + ", ".join(f"{p} {v / 1e9:.0f} GFLOP/s" for p, v in peaks.items()))  # fmt: skip
    figures: dict = {"machine": name, "threads": torch.get_num_threads(),
                     "torch": torch.__version__, "date": time.strftime("%Y-%m-%d"),
                     "peaks": peaks, "rows": []}  # fmt: skip
    if "train" in args.only:
        batches = (args.batch, 4 * args.batch) if args.device == "cuda" else (args.batch,)
        for batch in batches:
            figures["rows"] += compare("train", batch, args, peaks)
    if "predict" in args.only:
        for batch in (1, 8):
            figures["rows"] += compare("predict", batch, args, peaks)
    if "parts" in args.only:
        figures["parts"] = parts(args)
    if "growth" in args.only:
        figures["growth"] = growth(args)
    if "scaling" in args.only and args.device == "cpu":
        figures["scaling"] = scaling(args)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    main()

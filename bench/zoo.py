"""Measures a dozen public architectures in this engine and others, idle and beside other work.

    python -m bench.zoo [--load N] [--only NET ...] [--rounds N] [--spins N ...] [--out F]

Rows are the nets of bench/nets.py with random weights, FuseNet-SF5 at 320x240, and a training step
of SF5 at 160x120. Columns are the plan (used by the caffe command and `net.observed = False`) in
fp32, and in bf16 where the processor multiplies that; onnxruntime, OpenVINO and OpenCV on the same
net as an ONNX file. Each engine is a process of its own with as many threads as there are cores;
they take turns of a quarter of a second. Cells are milliseconds a pass: median (least).

`x best` is the plan's median divided by the best other engine's in fp32. With --load N the same
processes take turns once more while N other processes keep cores busy, and so does the plan on one
thread (OMP_NUM_THREADS=1): `x idle` is the plan's median beside them divided by that before, `x 1
thread` is divided by that of one thread beside the same processes. --spins adds plans whose threads
try so many times before they sleep (GOMP_SPINCOUNT; GNU OpenMP's own value is 300000).

An engine that cannot run a net has no figure, and the reason is told below the tables; so are
answers that differ from the plan's. A run of all nets is also written to bench/results/zoo.txt.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median

from bench import machine
from bench.contender import ROOT, Contender, Failed
from bench.worker import Job

TURN = 0.25  # seconds
RESULTS = ROOT / "bench" / "results" / "zoo.txt"
SF5, STEP = "SF5", "SF5, training step"
# Shares of the largest value that answers may differ by.
TOLERANCES = {"fp32": 1e-3, "bf16": 0.1}


def names() -> list[str]:
    """The rows, by name."""
    from bench.nets import NETS

    return [*NETS, SF5, STEP]


def job_of(name: str) -> Job:
    """The plan's job of a row."""
    from bench.nets import NETS

    if name == STEP:
        return Job("plan", "train", 1, (160, 120))
    if name == SF5:
        return Job("plan", "predict", 1, (320, 240))
    net = NETS[name]
    return Job("plan", "predict", net.batch, (net.size, net.size), net=name)


@dataclass(frozen=True)
class Engine:
    """A column: a contender, and how it computes; the names are those of a Job."""

    who: str
    precision: str = "fp32"
    threads: int | None = None
    spins: int | None = None

    @property
    def title(self) -> str:
        parts = [self.who if self.precision == "fp32" else f"{self.who} {self.precision}"]
        parts += [f"{self.threads} thread"] if self.threads else []
        parts += [f"{self.spins} spins"] if self.spins is not None else []
        return ", ".join(parts)


PLAN, ALONE = Engine("plan"), Engine("plan", threads=1)


def engines(load: bool, spins: Sequence[int], bf16: bool) -> list[Engine]:
    """The columns: this engine's plans first."""
    found = [PLAN, *([Engine("plan", "bf16")] if bf16 else [])]
    found += [ALONE] if load else []
    found += [Engine("plan", spins=count) for count in spins]
    found += [Engine("onnxruntime"), Engine("OpenVINO")]
    found += [Engine("OpenVINO", "bf16")] if bf16 else []
    return [*found, Engine("OpenCV")]


@dataclass
class Row:
    """The measurements of one net: seconds of passes by engine; notes: what went wrong."""

    name: str
    batch: int
    idle: dict[Engine, list[float]] = field(default_factory=dict)
    loaded: dict[Engine, list[float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure(name: str, columns: Sequence[Engine], rounds: int, load: int) -> Row:
    """Measure one net: all engines in turns, idle, and then beside `load` busy processes."""
    job = job_of(name)
    row, running = Row(name, job.batch), {}
    try:
        for engine in columns:
            if job.task == "train" and engine.who != "plan":
                continue
            try:
                running[engine] = _started(job, engine)
            except Failed as error:
                row.notes.append(f"{name}: {engine.title}: {error.reason}")
        row.idle = _turns(running, rounds, row)
        if load:
            with machine.busy(load):
                row.loaded = _turns(running, rounds, row)
        for contender in running.values():
            contender.end()
    finally:
        for contender in running.values():
            contender.stop()
    row.notes += _differences(name, running)
    return row


def _started(job: Job, engine: Engine) -> Contender:
    contender = Contender(replace(job, **asdict(engine)))
    try:
        contender.run()
    except Failed:
        contender.stop()
        raise
    return contender


def _turns(running: dict[Engine, Contender], rounds: int, row: Row) -> dict[Engine, list[float]]:
    """The passes of each engine; those that fail are taken out of `running` and noted."""
    found: dict[Engine, list[float]] = {engine: [] for engine in running}
    for _ in range(rounds):
        for engine, contender in [*running.items()]:
            try:
                found[engine] += contender.run_for(TURN)
            except Failed as error:
                row.notes.append(f"{row.name}: {engine.title}: {error.reason}")
                running.pop(engine).stop()
    return {engine: found[engine] for engine in running}


def _differences(name: str, running: dict[Engine, Contender]) -> list[str]:
    """What to say of answers that are not the plan's."""
    plan = running.get(PLAN)
    if plan is None or not plan.answer:
        return []
    scale, found = max(map(abs, plan.answer)), []
    for engine, contender in running.items():
        if len(contender.answer) != len(plan.answer):
            found.append(f"{name}: {engine.title} gives other outputs than the plan")
            continue
        pairs = zip(contender.answer, plan.answer, strict=True)
        difference = max(abs(a - b) for a, b in pairs)
        if not difference <= TOLERANCES[engine.precision] * scale:
            share = f"{difference / scale:.1g} of the scale"
            found.append(f"{name}: {engine.title} differs from the plan by {share}")
    return found


# -- the tables --------------------------------------------------------------------------------


def table(rows: Sequence[Row], columns: Sequence[Engine], loaded: bool) -> str:
    """One table: a line for each net, a column for each engine, and ratios of the plan's median."""
    shown = [e for e in columns if loaded or e != ALONE]
    ratios = ["x best", *(["x idle", "x 1 thread"] if loaded else [])]
    lines = [["", "batch", *(e.title for e in shown), *ratios]]
    for row in rows:
        seconds = row.loaded if loaded else row.idle
        cells = [_cell(seconds.get(engine)) for engine in shown]
        found = [_ratio(seconds, best_other(seconds))]
        if loaded:
            found.append(_ratio(seconds, row.idle.get(PLAN)))
            found.append(_ratio(seconds, seconds.get(ALONE)))
        lines.append([row.name, str(row.batch), *cells, *found])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def best_other(seconds: dict[Engine, list[float]]) -> list[float] | None:
    """The passes of the engine with the lowest median, of others' in fp32."""
    others = [s for e, s in seconds.items() if e.who != "plan" and e.precision == "fp32"]
    return min(others, key=median, default=None)


def _cell(seconds: Sequence[float] | None) -> str:
    return f"{_ms(median(seconds))} ({_ms(min(seconds))})" if seconds else "-"


def _ms(seconds: float) -> str:
    """Milliseconds of three digits."""
    value = 1e3 * seconds
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def _ratio(seconds: dict[Engine, list[float]], other: Sequence[float] | None) -> str:
    mine = seconds.get(PLAN)
    return f"{median(mine) / median(other):.2f}" if mine and other else "-"


def report(rows: Sequence[Row], columns: Sequence[Engine], load: int) -> str:
    """All tables and notes."""
    parts = ["ms a pass: median (least)\n\nidle\n" + table(rows, columns, loaded=False)]
    if load:
        many = "process" if load == 1 else "processes"
        parts.append(f"beside {load} busy {many}\n" + table(rows, columns, loaded=True))
    notes = [note for row in rows for note in row.notes]
    return "\n\n".join(parts + (["\n".join(notes)] if notes else []))


def figures(rows: Sequence[Row]) -> list[dict]:
    """All measurements in seconds, for a file of JSON: one for each net, engine and state."""
    return [
        {
            "net": row.name,
            "batch": row.batch,
            "engine": engine.title,
            "state": state,
            "passes": len(passes),
            "median": median(passes),
            "least": min(passes),
            "mean": sum(passes) / len(passes),
        }
        for row in rows
        for state, found in (("idle", row.idle), ("loaded", row.loaded))
        for engine, passes in found.items()
    ]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench.zoo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--load", type=int, default=0, metavar="N", help="also measure beside N busy processes"
    )
    made.add_argument(
        "--only", nargs="+", metavar="NET", help=f"only these of: {'; '.join(names())}"
    )
    made.add_argument("--rounds", type=int, default=5, metavar="N", help="turns (default: 5)")
    made.add_argument(
        "--spins", type=int, nargs="+", default=[], metavar="N", help="also plans that spin so long"
    )
    made.add_argument("--out", type=Path, metavar="F", help="also write the tables to F")
    made.add_argument("--json", type=Path, metavar="F", help="also write the figures to F")
    return made


def main(arguments: Sequence[str] | None = None) -> list[Row]:
    """Prints the tables, writes them if asked to, and returns the rows."""
    command = parser()
    args = command.parse_args(arguments)
    for number, option, least in ((args.load, "--load", 0), (args.rounds, "--rounds", 1)):
        if number < least:
            command.error(f"{option} is {number}, expected at least {least}")
    for name in args.only or []:
        if name not in names():
            command.error(f"there is no net {name!r}; expected one of {'; '.join(names())}")
    columns = engines(args.load > 0, args.spins, machine.has_bfloat16())
    rows = []
    for name in args.only or names():
        print(f"measuring {name}", file=sys.stderr)
        rows.append(measure(name, columns, args.rounds, args.load))
    text = f"python -m bench.zoo, {machine.about()}\n{report(rows, columns, args.load)}\n"
    print(text, end="")
    out = args.out or (None if args.only else RESULTS)
    if out:
        out.write_text(text)
    if args.json:
        args.json.write_text(json.dumps(figures(rows), indent=1) + "\n")
    return rows


if __name__ == "__main__":
    main()

"""Measures a dozen public architectures in this engine and others, idle and beside other work.

    python -m bench.zoo [--load N] [--only NET ...] [--rounds N] [--passes N] [--spins N ...]
        [--out F] [--json F]

Rows are the nets of bench/nets.py with random weights, FuseNet-SF5 at 320x240, and a training step
of SF5 at 160x120. Columns are the plan (used by the caffe command and `net.observed = False`) in
fp32, and in bf16 where the processor multiplies that; what `-engine auto` finds to be the fastest;
and onnxruntime, OpenVINO and OpenCV on the same net as an ONNX file. Each engine is a process of
its own with as many threads as there are cores; they take turns of a quarter of a second. Cells are
milliseconds a pass: median (least).

`x best` is the plan's median divided by that of the best of these three in fp32, `auto x best` that
of auto. With --load N the same processes take turns once more while N other processes keep cores
busy, and so does the plan on one thread (OMP_NUM_THREADS=1): `x idle` is the plan's median beside
them divided by that before, `x 1 thread` is divided by that of one thread beside the same
processes. --spins adds plans whose threads try so many times before they sleep (GOMP_SPINCOUNT; GNU
OpenMP's own value is 300000).

An engine that cannot run a net has no figure, and the reason is told below the tables; so are
answers that differ from the plan's. Where passes are long, engines take more turns than --rounds,
until each has --passes of them. A run of all nets is also written to bench/results/zoo.txt. Each
row is told on stderr and written to the files as soon as it is measured; a file says in its second
line (JSON: in its last entry) that it is incomplete, until the last row is there.
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
from boundary.errors import InputError
from boundary.writing import write_text

TURN = 0.25  # seconds
RESULTS = ROOT / "bench" / "results" / "zoo.txt"
SF5, STEP = "SF5", "SF5, training step"
# Shares of the largest value that answers may differ by.
TOLERANCES = {"fp32": 1e-3, "bf16": 0.1}
PASSES = 12  # of each engine in each state: the median of fewer is not steady
NONE = "-"  # in place of a figure


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


PLAN, ALONE, AUTO = Engine("plan"), Engine("plan", threads=1), Engine("auto")


def engines(load: bool, spins: Sequence[int], bf16: bool) -> list[Engine]:
    """The columns: this engine's plans first."""
    found = [PLAN, *([Engine("plan", "bf16")] if bf16 else [])]
    found += [ALONE] if load else []
    found += [Engine("plan", spins=count) for count in spins]
    found += [AUTO, Engine("onnxruntime"), Engine("OpenVINO")]
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

    def failed(self, engine: Engine, error: Failed) -> None:
        self.notes.append(f"{self.name}: {engine.title}: {error.reason}")


def measure(name: str, columns: Sequence[Engine], rounds: int, load: int, passes: int = 1) -> Row:
    """Measure one net: all engines in turns, idle, and then beside `load` busy processes.

    They take `rounds` turns in each state, or as many more as give each at least so many `passes`.
    """
    job = job_of(name)
    row, running = Row(name, job.batch), {}
    try:
        for engine in columns:
            if job.task == "train" and engine.who != "plan":
                continue
            try:
                running[engine] = _started(job, engine)
            except Failed as error:
                row.failed(engine, error)
        row.idle = _turns(running, rounds, passes, row)
        if load:
            with machine.busy(load):
                row.loaded = _turns(running, rounds, passes, row)
        answers = _answers(running, row)
    finally:
        for contender in running.values():
            contender.stop()
    row.notes += _differences(name, answers)
    return row


def _started(job: Job, engine: Engine) -> Contender:
    contender = Contender(replace(job, **asdict(engine)))
    try:
        contender.run()
    except Failed:
        contender.stop()
        raise
    return contender


def _turns(
    running: dict[Engine, Contender], rounds: int, passes: int, row: Row
) -> dict[Engine, list[float]]:
    """The passes of each engine; those that fail are taken out of `running` and noted."""
    found: dict[Engine, list[float]] = {engine: [] for engine in running}
    turns = 0
    while turns < rounds or any(len(found[engine]) < passes for engine in running):
        for engine, contender in [*running.items()]:
            try:
                found[engine] += contender.run_for(TURN)
            except Failed as error:
                row.failed(engine, error)
                running.pop(engine).stop()
        turns += 1
    return {engine: found[engine] for engine in running}


def _answers(running: dict[Engine, Contender], row: Row) -> dict[Engine, list[float]]:
    """Ends the contenders, and gives the answers of those that live to tell."""
    found = {}
    for engine, contender in running.items():
        try:
            contender.end()
        except Failed as error:  # its passes count all the same
            row.failed(engine, error)
        else:
            found[engine] = contender.answer
    return found


def _differences(name: str, answers: dict[Engine, list[float]]) -> list[str]:
    """What to say of answers that are not the plan's."""
    expected = answers.get(PLAN)
    if not expected:
        return []
    scale, found = max(map(abs, expected)), []
    for engine, answer in answers.items():
        if len(answer) != len(expected):
            found.append(f"{name}: {engine.title} gives other outputs than the plan")
            continue
        difference = max(abs(a - b) for a, b in zip(answer, expected, strict=True))
        if not difference <= TOLERANCES[engine.precision] * scale:
            share = f"{difference / scale:.1g} of the scale" if scale else f"{difference:.1g}"
            found.append(f"{name}: {engine.title} differs from the plan by {share}")
    return found


# -- the tables --------------------------------------------------------------------------------


def table(rows: Sequence[Row], columns: Sequence[Engine], loaded: bool) -> str:
    """One table: a line for each net, a column for each engine, and ratios of medians."""
    shown = [e for e in columns if loaded or e != ALONE]
    lines = [["", "batch", *(e.title for e in shown), *_ratios(Row("", 0), loaded)]]
    for row in rows:
        seconds = row.loaded if loaded else row.idle
        cells = [_cell(seconds.get(engine)) for engine in shown]
        lines.append([row.name, str(row.batch), *cells, *_ratios(row, loaded).values()])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def told(row: Row) -> str:
    """A row's medians and ratios in one line, idle and beside other work."""
    parts = []
    for state, loaded, seconds in (("idle", False, row.idle), ("loaded", True, row.loaded)):
        cells = [f"{engine.title} {_ms(median(passes))}" for engine, passes in seconds.items()]
        found = _ratios(row, loaded).items()
        cells += [f"{name} {ratio}" for name, ratio in found if ratio != NONE]
        parts += [f"{state}: {', '.join(cells)}"] if cells else []
    return f"{row.name}: {'; '.join(parts) or 'no engine runs it'}"


def _ratios(row: Row, loaded: bool) -> dict[str, str]:
    """The ratios of medians in one state, by the titles of their columns."""
    seconds = row.loaded if loaded else row.idle
    best, plan = best_other(seconds), seconds.get(PLAN)
    found = {"x best": _ratio(plan, best), "auto x best": _ratio(seconds.get(AUTO), best)}
    if loaded:
        found["x idle"] = _ratio(plan, row.idle.get(PLAN))
        found["x 1 thread"] = _ratio(plan, seconds.get(ALONE))
    return found


def best_other(seconds: dict[Engine, list[float]]) -> list[float] | None:
    """The passes of the engine with the lowest median, of others' in fp32."""
    mine = ("plan", "auto")
    others = [s for e, s in seconds.items() if e.who not in mine and e.precision == "fp32"]
    return min(others, key=median, default=None)


def _cell(seconds: Sequence[float] | None) -> str:
    return f"{_ms(median(seconds))} ({_ms(min(seconds))})" if seconds else NONE


def _ms(seconds: float) -> str:
    """Milliseconds of three digits."""
    value = 1e3 * seconds
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def _ratio(mine: Sequence[float] | None, other: Sequence[float] | None) -> str:
    return f"{median(mine) / median(other):.2f}" if mine and other else NONE


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
    made.add_argument(
        "--rounds", type=int, default=5, metavar="N", help="turns in each state (default: 5)"
    )
    made.add_argument(
        "--passes",
        type=int,
        default=PASSES,
        metavar="N",
        help=f"more turns, until each engine has so many passes (default: {PASSES})",
    )
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
    for option, least in (("load", 0), ("rounds", 1), ("passes", 1)):
        if (number := getattr(args, option)) < least:
            command.error(f"--{option} is {number}, expected at least {least}")
    for name in args.only or []:
        if name not in names():
            command.error(f"there is no net {name!r}; expected one of {'; '.join(names())}")
    columns = engines(args.load > 0, args.spins, machine.has_bfloat16())
    args.out = args.out or (None if args.only else RESULTS)
    for path in filter(None, (args.out, args.json)):
        if not path.absolute().parent.is_dir():
            command.error(f"{path}: its folder does not exist")
    wanted, rows = args.only or names(), []
    try:
        for name in wanted:
            print(f"measuring {name}", file=sys.stderr)
            rows.append(measure(name, columns, args.rounds, args.load, args.passes))
            print("\n".join([told(rows[-1]), *rows[-1].notes]), file=sys.stderr)
            text = _kept(rows, wanted, columns, args)
    except InputError as error:
        raise SystemExit(f"bench.zoo: {error}") from None
    print(text, end="")
    return rows


def _kept(
    rows: Sequence[Row], wanted: Sequence[str], columns: Sequence[Engine], args: argparse.Namespace
) -> str:
    """Writes what there is to the files that are asked for; returns the text."""
    missing = [*wanted[len(rows) :]]
    lines = [f"python -m bench.zoo, {machine.about()}"]
    lines += [f"INCOMPLETE: without {'; '.join(missing)}"] if missing else []
    text = "\n".join([*lines, report(rows, columns, args.load)]) + "\n"
    if args.out:
        write_text(args.out, text, InputError)
    if args.json:
        found = figures(rows) + ([{"incomplete": missing}] if missing else [])
        write_text(args.json, json.dumps(found, indent=1) + "\n", InputError)
    return text


if __name__ == "__main__":
    main()

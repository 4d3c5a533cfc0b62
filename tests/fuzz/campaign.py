"""Shares inputs out to workers, counts what became of them, and shows each distinct failure."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fuzz import families
from fuzz.judge import KINDS, ROOT, Outcome

MODULES = tuple(f"fuzz.families.{name}" for name in families.MODULES)
CHUNK = 24  # inputs of a task; each task has a child of its own
Task = dict[str, Any]


class Worker:
    """A process of fuzz.worker."""

    def __init__(self, corpus: Path, modules: Sequence[str]) -> None:
        path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "fuzz.worker", str(corpus), *modules],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,  # Ctrl-C is for the campaign, which ends with its table
            env={**os.environ, **threads, "PYTHONPATH": path, "GLOG_minloglevel": "2"},
        )

    def run(self, task: Task) -> Iterator[Outcome]:
        """The outcomes of a task."""
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            found = json.loads(line)
            if "done" in found:
                return
            yield Outcome(**found)
        raise RuntimeError(f"a worker ended with {self._process.wait()}")

    def close(self) -> None:
        """Ends the process."""
        self._process.stdin.close()
        self._process.wait()


@dataclass
class Campaign:
    """What was found so far. failures: (family, kind, error, place) -> the smallest input."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: dict[tuple[str, ...], Outcome] = field(default_factory=dict)
    times: Counter[tuple[str, ...]] = field(default_factory=Counter)
    slowest: float = 0.0
    highest: int = 0

    def add(self, outcome: Outcome) -> None:
        """Counts an outcome."""
        self.counts.setdefault(outcome.family, Counter())[outcome.kind] += 1
        self.slowest = max(self.slowest, outcome.seconds)
        self.highest = max(self.highest, outcome.peak)
        if outcome.failed:
            key = (outcome.family, outcome.kind, outcome.error, outcome.place)
            self.times[key] += 1
            known = self.failures.get(key)
            if known is None or (outcome.size, outcome.index) < (known.size, known.index):
                self.failures[key] = outcome

    @property
    def inputs(self) -> int:
        """The number of inputs."""
        return sum(sum(counts.values()) for counts in self.counts.values())

    def table(self, seed: int) -> str:
        """Outcomes by family, then each distinct failure with the command that repeats it."""
        rows = [["family", "inputs", *KINDS]]
        for name, counts in sorted(self.counts.items()):
            rows.append([name, str(sum(counts.values())), *(str(counts[k] or "-") for k in KINDS)])
        total = sum(self.counts.values(), Counter())
        rows.append(["all", str(self.inputs), *(str(total[kind] or "-") for kind in KINDS)])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        ]
        lines += [
            "",
            f"slowest: {self.slowest:.1f} s of CPU; highest peak: {self.highest >> 20} MiB",
        ]
        if self.failures:
            lines += ["", f"{len(self.failures)} distinct failures:"]
        for key, outcome in sorted(self.failures.items(), key=lambda item: item[0][::-1]):
            text = " ".join(outcome.text.split())[:160]
            lines += [
                f"{self.times[key]:5}  {outcome.family}: {outcome.kind} {outcome.error} "
                f"at {outcome.place or '?'}: {text}",
                f"       {repeat(seed, outcome)}",
            ]
        return "\n".join(lines)


def repeat(seed: int, outcome: Outcome) -> str:
    """The command that runs one input again."""
    options = f"--family {outcome.family} --seed {seed} --only {outcome.index}"
    return f"python -m tests.fuzz {options}"


# ---------------------------------------------------------------------------------------------
# Tasks
# ---------------------------------------------------------------------------------------------


def fixed(names: Sequence[str], inputs: int, seed: int) -> list[Task]:
    """Tasks of `inputs` inputs altogether, by the families' shares; the same for every machine."""
    members = [families.REGISTRY[name] for name in names]
    shares = sum(member.share for member in members if not member.titles)
    tasks = []
    for name, member in zip(names, members, strict=True):
        count = len(member.titles) or max(1, round(inputs * member.share / shares))
        tasks += _chunks(name, range(count), seed)
    return tasks


def endless(names: Sequence[str], seed: int) -> Iterator[Task]:
    """Tasks without end, in rounds over the families."""
    for turn in itertools.count():
        for name in names:
            member = families.REGISTRY[name]
            if member.titles and turn:
                continue
            size = len(member.titles) or max(1, round(CHUNK * member.share))
            yield from _chunks(name, range(turn * size, (turn + 1) * size), seed)


def _chunks(name: str, indices: range, seed: int) -> Iterator[Task]:
    for start in range(0, len(indices), CHUNK):
        yield {"family": name, "seed": seed, "indices": list(indices[start : start + CHUNK])}


def run(
    tasks: Iterable[Task],
    workers: int = 2,
    minutes: float | None = None,
    modules: Sequence[str] = MODULES,
    heard: Any = None,
) -> Campaign:
    """Runs tasks until there are no more, for so many minutes, or until Ctrl-C.

    heard: called with the campaign after each task.
    """
    campaign, waiting, lock = Campaign(), iter(tasks), threading.Lock()
    deadline = time.monotonic() + 60 * minutes if minutes else float("inf")
    problems: list[BaseException] = []

    def work(corpus: Path) -> None:
        worker = Worker(corpus, modules)
        try:
            while time.monotonic() < deadline and not problems:
                with lock:
                    task = next(waiting, None)
                if task is None:
                    break
                for outcome in worker.run(task):
                    with lock:
                        campaign.add(outcome)
                if heard:
                    with lock:
                        heard(campaign)
            worker.close()
        except BaseException as error:
            problems.append(error)

    with tempfile.TemporaryDirectory(prefix="fuzz-corpus-") as folder:
        make_corpus(Path(folder))
        threads = [threading.Thread(target=work, args=(Path(folder),)) for _ in range(workers)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            deadline = 0.0
            for thread in threads:
                thread.join()
    if problems:
        raise problems[0]
    return campaign


def make_corpus(folder: Path) -> None:
    """Writes the corpus, in a process of its own: this one stays as it was."""
    path = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    subprocess.run(
        [sys.executable, "-m", "fuzz.corpus", str(folder)],
        check=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "GLOG_minloglevel": "2", "OMP_NUM_THREADS": "1"},
    )


# ---------------------------------------------------------------------------------------------
# The command
# ---------------------------------------------------------------------------------------------


def arguments() -> argparse.ArgumentParser:
    """The parser of `python -m tests.fuzz`."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    add = parser.add_argument
    add("--minutes", type=float, metavar="M", help="run so long")
    add("--inputs", type=int, metavar="N", help="run so many inputs (default: 2000)")
    add("--seed", type=int, default=0, metavar="S", help="another seed, other inputs (default: 0)")
    add("--family", action="append", metavar="NAME", help="only this family; may be repeated")
    add("--only", type=int, metavar="N", help="run input N of the one --family, show its outcome")
    add("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes")
    add("--keep", type=Path, metavar="FOLDER", help="write the input of each distinct failure")
    add("--list", action="store_true", help="list the families")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 1 if there were failures."""
    parser = arguments()
    args = parser.parse_args(argv)
    known = families.load(MODULES)
    if args.list:
        for name, member in known.items():
            print(f"{name:24} {(member.make.__doc__ or '').splitlines()[0]}")
        return 0
    names = args.family or list(known)
    for name in names:
        if name not in known:
            parser.error(f"no family {name}; --list shows them")
    if args.only is not None:
        if len(names) != 1:
            parser.error("--only goes with one --family")
        tasks: Iterable[Task] = [{"family": names[0], "seed": args.seed, "indices": [args.only]}]
    elif args.minutes:
        tasks = endless(names, args.seed)
    else:
        tasks = fixed(names, args.inputs or 2000, args.seed)
    minutes = args.minutes if args.only is None else None
    campaign = run(tasks, args.workers if args.only is None else 1, minutes, heard=_progress)
    print(file=sys.stderr)
    print(campaign.table(args.seed))
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\n{used.ru_utime + used.ru_stime:.0f} s of CPU in all")
    if args.keep is not None:
        keep(args.keep, args.seed, campaign.failures.values())
    return int(bool(campaign.failures))


def keep(folder: Path, seed: int, outcomes: Iterable[Outcome]) -> None:
    """Writes the files of inputs to FOLDER/FAMILY-INDEX/."""
    place = str(folder.resolve())
    tasks = [
        {"family": o.family, "seed": seed, "indices": [o.index], "keep": place} for o in outcomes
    ]
    run(tasks, 1)
    print(f"wrote {len(tasks)} inputs to {folder}")


def _progress(campaign: Campaign) -> None:
    if sys.stderr.isatty():
        text = f"{campaign.inputs} inputs, {len(campaign.failures)} distinct failures"
        print(f"\r{text}", end="", file=sys.stderr, flush=True)

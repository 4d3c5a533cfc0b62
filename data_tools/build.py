"""Builds LMDBs from a source of frames: in parallel, resumable, with bad frames named."""

from __future__ import annotations

import argparse
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from multiprocessing import active_children, connection, get_context, parent_process
from os import _exit
from pathlib import Path
from typing import Any, Protocol

from boundary.late import cv2
from boundary.processes import held_back
from data_tools import cli, framing, notes, store
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.doctor.sets import Repeats
from data_tools.record import CHANNELS, Encoded, Frame, RecordFormat, UnknownLabel


class Source(Protocol):
    """A source of frames. It is pickled for the workers: open files lazily, in `load`."""

    names: Sequence[str]
    block: int  # number of successive frames that are cheap to load together

    def load(self, index: int) -> Frame:
        """Frame `index`. Raises DataError or OSError if it cannot be read."""

    def about(self, index: int) -> dict[str, Any]:
        """Facts about frame `index` for dataset.json, or {}."""


@dataclass
class Output:
    """One LMDB to write. indices: the source's frames, in order. info: facts for dataset.json."""

    path: Path
    indices: Sequence[int]
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class Options:
    """workers: processes. force: replace existing LMDBs. skip_bad: leave out bad frames.
    ignore_unknown: labels that no class has become 0."""

    workers: int = 1
    force: bool = False
    skip_bad: bool = False
    ignore_unknown: bool = False


class Unknown(str):
    """The reason why a frame is bad, where that is an unknown label."""


LISTED = 50  # bad frames that are named; with --skip-bad, dataset.json names all
IGNORE_UNKNOWN = "--unknown ignore counts such pixels as 0"


def add_arguments(
    parser: argparse.ArgumentParser,
    size: str | None,
    depth_range: bool = True,
    float_depth: bool = True,
    fit: str | None = "stretch",
) -> None:
    """Adds the options that all sources share.

    size, fit: the defaults; no size: the colour image's; no fit: no option. `stretch` is what the
    data sets' authors do.
    """
    group = parser.add_argument_group("records")
    group.add_argument(
        "--size",
        type=cli.size,
        default=cli.size(size) if size else None,
        metavar="WxH",
        help=f"size of the records in pixels (default: {size or 'as the colour image'})",
    )
    if fit:
        framing.add_fit(group, fit)
    if depth_range:
        group.add_argument(
            "--depth-range",
            type=DepthRange.parse,
            metavar="authors|valid|MIN:MAX",
            help="mapping of depth to 0..255: authors: from the frame's minimum to its maximum, "
            "including holes (default); valid: readings 1..255, holes 0; or a range in metres",
        )
    if float_depth:
        group.add_argument(
            "--float-depth", action="store_true", help="write float records, with unrounded depth"
        )
    group.add_argument(
        "--unknown",
        choices=("error", "ignore"),
        default="error",
        help="labels, and colours of labels, that no class has: a frame with one cannot be used "
        "(error, the default), or such pixels count as 0 (ignore), and their number is told",
    )
    group = parser.add_argument_group("running")
    group.add_argument(
        "--workers",
        type=cli.whole(1, 256),
        default=1,
        metavar="N",
        help="number of processes (default 1); the records do not depend on it",
    )
    group.add_argument("--force", action="store_true", help="replace existing LMDBs")
    group.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out unusable frames instead of failing",
    )
    cli.add_max_pixels(group)


def options(args: argparse.Namespace) -> Options:
    """The options on running, from arguments that add_arguments defined."""
    return Options(args.workers, args.force, args.skip_bad, args.unknown == "ignore")


def record_format(args: argparse.Namespace, unit: DepthUnit, highest: int) -> RecordFormat:
    """The format that the options select. highest: the highest allowed label."""
    depth_range = args.depth_range or DepthRange("authors")
    return RecordFormat(
        args.size, unit, depth_range, args.float_depth, highest, **framing.fields(args)
    )


def build(
    source: Source,
    outputs: Sequence[Output],
    format: RecordFormat,
    info: dict[str, Any],
    options: Options,
) -> list[dict[str, Any]]:
    """Writes all outputs, loading each frame once. Returns the content of each dataset.json.

    info: common facts (tool, source, options, classes). If there are bad frames and
    options.skip_bad is not set, raises DataError after naming them on stderr; finished records stay
    in `*.fusenet-partial`, and the next run resumes there.
    """
    for output in outputs:
        if not output.indices:
            raise DataError(f"{output.path}: no frames for it")
    format = replace(format, ignore_unknown=options.ignore_unknown)
    format = _settled(format, source, outputs)
    told = info.get("options", {})  # wins: records that were made from others know their origin
    info = {**info, "options": {**format.describe(), **told}}
    with ExitStack() as stack:
        writers = []
        for output in outputs:
            plan = [info, output.info, [source.names[i] for i in output.indices]]
            writers.append(store.Writer(output.path, plan, options.force))
            stack.callback(writers[-1].close)
        bad = _write(source, outputs, writers, format, options.workers)
        report(bad, len({i for output in outputs for i in output.indices}), options.skip_bad)
        results = []
        for output, writer in zip(outputs, writers, strict=True):
            if all(source.names[i] in bad for i in output.indices):
                raise DataError(f"{output.path}: none of its frames can be used")
            facts = _facts(source, output, bad)
            if not writer.fitted and "fit" not in told:
                # --fit did nothing, and says nothing about other frames.
                facts["options"] = {k: v for k, v in info["options"].items() if k != "fit"}
            look = _survey(output, format) if format.doctor else None
            results.append(writer.finish({**info, **output.info, **facts}, look))
            print(summary(output.path, results[-1]))
            tell_unknown(output.path, results[-1])
            if not results[-1]["shape"]:
                cli.say(
                    f"{output.path}: its frames differ in size, so a net can only read them "
                    "one by one; pass --size"
                )
        return results


def _settled(format: RecordFormat, source: Source, outputs: Sequence[Output]) -> RecordFormat:
    """The format with the values that stand for "no reading" in the source's depth."""
    indices = sorted({index for output in outputs for index in output.indices})
    count = min(len(indices), framing.near(source))
    where = str(outputs[0].path)
    return framing.settled(format, lambda i: source.load(indices[i]), count, where)


def _survey(output: Output, format: RecordFormat) -> store.Survey:
    """store.survey, during which the doctor looks for records that repeat each other."""

    def look(records: Iterator[tuple[bytes, bytes]], where: str) -> dict[str, Any]:
        repeats = Repeats()
        facts = store.survey(records, where, repeats.add)
        found = repeats.findings()
        if found and format.strict:
            raise DataError(f"{output.path}: {'; '.join(map(str, found))}")
        for one in found:
            cli.say(f"{output.path}: {one.note.text}")
        return facts

    return look


def tell_unknown(path: Path, info: dict[str, Any]) -> None:
    """Says how many unknown labels became 0, if any."""
    if found := info.get("unknown_labels"):
        cli.say(
            f"{path}: {found['pixels']} pixels of {found['frames']} frames had labels of no class; "
            "they count as 0 (--unknown ignore)"
        )


def report(
    bad: dict[str, str],
    count: int,
    skip_bad: bool,
    kind: str = "frame",
    ignore_unknown: str = IGNORE_UNKNOWN,
) -> None:
    """Names the bad frames, up to LISTED; raises DataError if there are any, unless skip_bad.

    bad: names and reasons. kind: what they are. ignore_unknown: the remedy for unknown labels.
    """
    if not bad:
        return
    lines = [f"{name}: {reason}" for name, reason in sorted(bad.items())]
    remedy = "mend or remove it and run again, or pass --skip-bad"
    if any(isinstance(reason, Unknown) for reason in bad.values()):
        remedy += f"; {ignore_unknown}"
    if len(bad) == 1 and not skip_bad:
        raise DataError(f"cannot use {kind} {lines[0]}; {remedy}")
    for line in lines[:LISTED]:
        cli.say(f"{'left out' if skip_bad else 'cannot use'} {kind} {line}")
    if len(lines) > LISTED:
        cli.say(f"... and {len(lines) - LISTED} more {kind}s")
    if not skip_bad:
        raise DataError(
            f"{len(bad)} of {count} {kind}s cannot be used (named above); "
            f"{remedy.replace('it', 'them', 1)}"
        )


def summary(path: Path, info: dict[str, Any]) -> str:
    """One line that describes a written LMDB."""
    shape = "x".join(map(str, info["shape"])) if info["shape"] else "various shapes"
    megabytes = (path / "data.mdb").stat().st_size / 1e6
    labels = info["label_pixels"]
    return (
        f"{path}: {info['records']} records of {shape} {info['type'] or ''}, "
        f"{megabytes:.0f} MB, {len(labels) - ('0' in labels)} labels"
    )


def _facts(source: Source, output: Output, bad: dict[str, str]) -> dict[str, Any]:
    """The facts about frames in dataset.json: those the source knows, and the skipped frames."""
    frames = {}
    for position, index in enumerate(output.indices):
        about = source.about(index)
        if about and source.names[index] not in bad:
            frames[store.name_of(store.key(position, source.names[index]))] = about
    facts: dict[str, Any] = {"channels": list(CHANNELS)}
    if frames:
        facts["frames"] = frames
    skipped = [source.names[i] for i in output.indices if source.names[i] in bad]
    if skipped:
        facts["skipped"] = skipped
    return facts


def _write(
    source: Source,
    outputs: Sequence[Output],
    writers: Sequence[store.Writer],
    format: RecordFormat,
    workers: int,
) -> dict[str, str]:
    """Encodes and writes all missing records; returns bad frames with their reasons."""
    wanted: dict[int, list[tuple[store.Writer, bytes]]] = {}
    for output, writer in zip(outputs, writers, strict=True):
        for position, index in enumerate(output.indices):
            key = store.key(position, source.names[index])
            if key not in writer:
                wanted.setdefault(index, []).append((writer, key))
    total = len({index for output in outputs for index in output.indices})
    blocks: dict[int, list[int]] = {}
    for index in sorted(wanted):
        blocks.setdefault(index // source.block, []).append(index)
    records = _records(source, format, list(blocks.values()), workers)
    bad = {}
    said: notes.Notes = {}
    for index, record in cli.progress(records, total, "records", total - len(wanted)):
        if isinstance(record, str):
            bad[source.names[index]] = record
            continue
        for writer, key in wanted[index]:
            fitted = any(note.kind == "fit" for note in record.notes)
            writer.put(key, record.datum, record.unknown, record.facts, fitted)
        notes.add(said, source.names[index], record.notes)
    for writer in writers:
        writer.commit()
    notes.tell(said)
    return bad


def _records(
    source: Source, format: RecordFormat, blocks: list[list[int]], workers: int
) -> Iterator[tuple[int, Encoded | str]]:
    """(index, record or the reason for its absence) of every frame, in order."""
    if workers == 1 or len(blocks) <= 1:
        yield from _encode(source, format, [index for block in blocks for index in block])
        return
    waiting: deque[Future] = deque()
    with ProcessPoolExecutor(
        min(workers, len(blocks)), get_context("spawn"), _start_worker, (source, format)
    ) as pool:
        try:
            for block in blocks:
                with held_back((signal.SIGINT,)):  # this starts the processes
                    waiting.append(pool.submit(_encode_block, block))
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process died (out of memory?); run again to go on, with fewer --workers"
            ) from error
        except BaseException:
            # What they do is not wanted any more. Left to themselves they may wait for ever: one
            # can be in the middle of a message when the pool closes its queue.
            for worker in active_children():
                worker.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _encode(
    source: Source, format: RecordFormat, indices: Sequence[int]
) -> Iterator[tuple[int, Encoded | str]]:
    """Like _records, in this process; loads the next frame while one is encoded and stored."""

    def ended(work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return work(*arguments)
        except UnknownLabel as error:
            return Unknown(cli.describe(error))
        except (DataError, OSError, cv2.error) as error:
            return cli.describe(error)

    with ThreadPoolExecutor(1) as thread:
        ahead = deque(thread.submit(ended, source.load, index) for index in indices[:1])
        for position, index in enumerate(indices):
            frame = ahead.popleft().result()
            ahead.extend(thread.submit(ended, source.load, following)
                         for following in indices[position + 1 : position + 2])  # fmt: skip
            yield index, frame if isinstance(frame, str) else ended(format.encode_noted, frame)


_work: tuple[Source, RecordFormat] | None = None


def _start_worker(source: Source, format: RecordFormat) -> None:
    global _work
    _work = (source, format)
    cv2.setNumThreads(1)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Ends this worker when its parent has ended, so that a killed run leaves no processes."""
    connection.wait([parent_process().sentinel])
    _exit(1)


def _encode_block(indices: list[int]) -> list[tuple[int, Encoded | str]]:
    return list(_encode(*_work, indices))

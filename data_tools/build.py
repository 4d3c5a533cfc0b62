"""From a source of frames to LMDBs: in parallel, resumable, bad frames reported by name."""

from __future__ import annotations

import argparse
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing import connection, get_context, parent_process
from os import _exit
from pathlib import Path
from typing import Any, Protocol

import cv2

from data_tools import cli, store
from data_tools.cli import DataError
from data_tools.depth import DepthRange, DepthUnit
from data_tools.record import CHANNELS, Frame, RecordFormat


class Source(Protocol):
    """Where frames come from. It is pickled to the workers: open files lazily, in `load`."""

    names: Sequence[str]
    block: int  # frames that are cheap to load one after the other

    def load(self, index: int) -> Frame:
        """Frame `index`. Raises DataError or OSError for one that cannot be read."""

    def about(self, index: int) -> dict[str, Any]:
        """What dataset.json keeps about frame `index`; {} for nothing."""


@dataclass
class Output:
    """One LMDB to write: its path, the source's frames that go in, in order, and its own facts."""

    path: Path
    indices: Sequence[int]
    info: dict[str, Any] = field(default_factory=dict)


@dataclass
class Options:
    """How to run: processes, whether to replace what exists, whether bad frames are left out."""

    workers: int = 1
    force: bool = False
    skip_bad: bool = False


def add_arguments(
    parser: argparse.ArgumentParser,
    size: str | None,
    depth_range: bool = True,
    float_depth: bool = True,
) -> None:
    """Adds the options that sources share. size: its default, None for the colour picture's."""
    group = parser.add_argument_group("records")
    group.add_argument(
        "--size",
        type=cli.size,
        default=cli.size(size) if size else None,
        metavar="WxH",
        help=f"pixels (default: {size or 'as the colour picture'})",
    )
    if depth_range:
        group.add_argument(
            "--depth-range",
            type=DepthRange.parse,
            metavar="authors|valid|MIN:MAX",
            help="depth to 0..255: each frame's minimum to maximum with holes, as the authors do "
            "(default); readings to 1..255, holes 0; or a range in metres",
        )
    if float_depth:
        group.add_argument(
            "--float-depth", action="store_true", help="records of floats, depth not rounded"
        )
    group = parser.add_argument_group("running")
    group.add_argument(
        "--workers",
        type=cli.whole(1, 256),
        default=1,
        metavar="N",
        help="processes (default 1); the records are the same",
    )
    group.add_argument("--force", action="store_true", help="replace LMDBs that exist")
    group.add_argument(
        "--skip-bad",
        action="store_true",
        help="leave out frames that cannot be used instead of failing",
    )


def options(args: argparse.Namespace) -> Options:
    """The running options that add_arguments took."""
    return Options(args.workers, args.force, args.skip_bad)


def record_format(args: argparse.Namespace, unit: DepthUnit, highest: int) -> RecordFormat:
    """The format that the options ask for; highest: the highest label allowed."""
    depth_range = args.depth_range or DepthRange("authors")
    return RecordFormat(args.size, unit, depth_range, args.float_depth, highest)


def build(
    source: Source,
    outputs: Sequence[Output],
    format: RecordFormat,
    info: dict[str, Any],
    options: Options,
) -> list[dict[str, Any]]:
    """Writes every output; each frame is loaded once. Returns what each dataset.json says.

    info: common facts (tool, source, options, classes). Raises DataError, after naming every bad
    frame on stderr, if there are any and options.skip_bad is not set; what was made so far stays
    in `*.partial` and the next run goes on from there.
    """
    for output in outputs:
        if not output.indices:
            raise DataError(f"{output.path}: no frames for it")
    info = {**info, "options": {**info.get("options", {}), **format.describe()}}
    with ExitStack() as stack:
        writers = []
        for output in outputs:
            plan = [info, output.info, [source.names[i] for i in output.indices]]
            writers.append(store.Writer(output.path, plan, options.force))
            stack.callback(writers[-1].close)
        bad = _write(source, outputs, writers, format, options.workers)
        _report(bad, len({i for output in outputs for i in output.indices}), options.skip_bad)
        results = []
        for output, writer in zip(outputs, writers, strict=True):
            if all(source.names[i] in bad for i in output.indices):
                raise DataError(f"{output.path}: none of its frames can be used")
            facts = _facts(source, output, bad)
            results.append(writer.finish({**info, **output.info, **facts}))
            print(summary(output.path, results[-1]))
            if not results[-1]["shape"]:
                cli.say(
                    f"{output.path}: its frames differ in size, so a net can only read them "
                    "one by one; pass --size"
                )
        return results


def _report(bad: dict[str, str], count: int, skip_bad: bool) -> None:
    """Names every bad frame; raises DataError if there are any, unless skip_bad."""
    if not bad:
        return
    lines = [f"{name}: {reason}" for name, reason in sorted(bad.items())]
    remedy = "mend or remove it and run again, or pass --skip-bad"
    if len(bad) == 1 and not skip_bad:
        raise DataError(f"cannot use frame {lines[0]}; {remedy}")
    for line in lines:
        cli.say(f"{'left out' if skip_bad else 'cannot use'} frame {line}")
    if not skip_bad:
        raise DataError(
            f"{len(bad)} of {count} frames cannot be used (named above); "
            f"{remedy.replace('it', 'them', 1)}"
        )


def summary(path: Path, info: dict[str, Any]) -> str:
    """One line on an LMDB that was written."""
    shape = "x".join(map(str, info["shape"])) if info["shape"] else "various shapes"
    megabytes = (path / "data.mdb").stat().st_size / 1e6
    labels = info["label_pixels"]
    return (
        f"{path}: {info['records']} records of {shape} {info['type'] or ''}, "
        f"{megabytes:.0f} MB, {len(labels) - ('0' in labels)} labels"
    )


def _facts(source: Source, output: Output, bad: dict[str, str]) -> dict[str, Any]:
    """dataset.json's per-frame part: keys with what the source knows, and who is left out."""
    frames = {}
    for position, index in enumerate(output.indices):
        about = source.about(index)
        if about and source.names[index] not in bad:
            frames[store.key(position, source.names[index]).decode(errors="replace")] = about
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
    """Makes and puts every record that is not there yet; returns bad frames with their reasons."""
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
    for index, record in cli.progress(records, total, "records", total - len(wanted)):
        if isinstance(record, str):
            bad[source.names[index]] = record
            continue
        for writer, key in wanted[index]:
            writer.put(key, record)
    for writer in writers:
        writer.commit()
    return bad


def _records(
    source: Source, format: RecordFormat, blocks: list[list[int]], workers: int
) -> Iterator[tuple[int, bytes | str]]:
    """(index, record or the reason why there is none) of every frame, in order."""
    if workers == 1 or len(blocks) <= 1:
        yield from _encode(source, format, [index for block in blocks for index in block])
        return
    waiting: deque[Future] = deque()
    with ProcessPoolExecutor(
        min(workers, len(blocks)), get_context("spawn"), _start_worker, (source, format)
    ) as pool:
        try:
            for block in blocks:
                waiting.append(pool.submit(_encode_block, block))
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DataError(
                "a worker process died (out of memory?); run again to go on, with fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _encode(
    source: Source, format: RecordFormat, indices: Sequence[int]
) -> Iterator[tuple[int, bytes | str]]:
    """As _records, in this process; the next frame is loaded while one is encoded and stored."""

    def ended(work: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return work(*arguments)
        except (DataError, OSError, cv2.error) as error:
            return cli.describe(error)

    with ThreadPoolExecutor(1) as thread:
        ahead = deque(thread.submit(ended, source.load, index) for index in indices[:1])
        for position, index in enumerate(indices):
            frame = ahead.popleft().result()
            ahead.extend(thread.submit(ended, source.load, following)
                         for following in indices[position + 1 : position + 2])  # fmt: skip
            yield index, frame if isinstance(frame, str) else ended(format.encode, frame)


_work: tuple[Source, RecordFormat] | None = None


def _start_worker(source: Source, format: RecordFormat) -> None:
    global _work
    _work = (source, format)
    cv2.setNumThreads(1)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    """Ends this worker when its parent is gone: a killed run leaves no processes behind."""
    connection.wait([parent_process().sentinel])
    _exit(1)


def _encode_block(indices: list[int]) -> list[tuple[int, bytes | str]]:
    return list(_encode(*_work, indices))

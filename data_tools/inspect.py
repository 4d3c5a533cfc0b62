"""Reports the contents of an LMDB: counts, shapes, types, ranges, labels, suspicious records.

A record is suspicious if it has no depth, labels of no class, or no labelled pixel, if it or its
depth is equal to an earlier one, if it is not a Datum of five channels, or if the depth doctor
(docs/data.md) finds something.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from boundary import writing
from boundary.late import cv2
from boundary.text import shown
from data_tools import cli, store
from data_tools.cli import DataError
from data_tools.doctor import records
from data_tools.doctor.sets import Repeats
from data_tools.doctor.together import Together
from data_tools.record import CHANNELS, from_datum
from data_tools.sheet import captions, sheet
from data_tools.store import Reader

# What the page may do in a browser: show its picture, with its own style; it has no scripts.
POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
    "form-action 'none'"
)

TOGETHER = 16  # records that are looked at together


@dataclass
class Report:
    """The result of a pass over an LMDB. shapes: 'CxHxW type' -> records. ranges: channel -> (min,
    max). pixels, frames: label -> number. suspicious: (key, reason). together: what is wrong with
    all of them."""

    records: int = 0
    shapes: dict[str, int] = field(default_factory=dict)
    ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    pixels: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    frames: np.ndarray = field(default_factory=lambda: np.zeros(256, np.int64))
    scenes: dict[int, int] = field(default_factory=dict)
    holes: float = 0.0
    suspicious: list[tuple[str, str]] = field(default_factory=list)
    together: list[str] = field(default_factory=list)


def survey(reader: Reader) -> Report:
    """Reads every record once and fills the report."""
    report, seen, repeats = Report(), {}, Repeats()
    fixed = records.fixed_range(reader.info)
    together = Together(records.unit_of(fixed))
    every = max(1, len(reader) // TOGETHER)
    highest = len(reader.info["classes"]) - 1 if reader.info.get("classes") else 255
    labeled = reader.info.get("labeled", True)
    for key, record in cli.progress(reader, len(reader), "records"):
        name = key.decode(errors="replace")
        report.records += 1
        try:
            planes, scene = from_datum(record)
        except DataError as error:
            report.suspicious.append((name, str(error)))
            continue
        digest = hashlib.sha256(record).digest()
        if digest in seen:
            report.suspicious.append((name, f"the same as {seen[digest]}"))
        seen.setdefault(digest, name)
        _note(report, planes, scene)
        odd = oddities(planes, highest, labeled)
        if not odd:
            if report.records % every == 0:
                together.add(records.colors(planes), planes[3])
            odd = [one.what for one in records.examine(planes, fixed)]
            if (first := repeats.add(name, planes)) is not None:
                odd.append(f"the depth of {first}, though other colours")
        report.suspicious += [(name, what) for what in odd]
    report.together = [one.what for one in repeats.findings() + together.findings()]
    report.holes /= max(report.records, 1)
    return report


def oddities(planes: np.ndarray, highest: int, labeled: bool) -> list[str]:
    """The reasons why a record's planes are suspicious."""
    if len(planes) != len(CHANNELS):
        return [f"{len(planes)} channels, expected 5 ({', '.join(CHANNELS)})"]
    found = []
    if not np.isfinite(planes).all():
        found.append("values that are no numbers")
    if not planes[3].any():
        found.append("no depth at all")
    label = planes[4]
    if label.max() > highest or label.min() < 0:
        found.append(f"unknown label {label.max() if label.max() > highest else label.min():g}")
    if (label != np.rint(label)).any():
        found.append("labels that are not whole")
    if labeled and not label.any():
        found.append("nothing labelled")
    return found


def _note(report: Report, planes: np.ndarray, scene: int) -> None:
    shape = "x".join(map(str, planes.shape)) + f" {planes.dtype}"
    report.shapes[shape] = report.shapes.get(shape, 0) + 1
    report.scenes[scene] = report.scenes.get(scene, 0) + 1
    if len(planes) != len(CHANNELS):
        return
    for name, plane in zip(CHANNELS, planes, strict=True):
        low, high = report.ranges.get(name, (np.inf, -np.inf))
        report.ranges[name] = (min(low, float(plane.min())), max(high, float(plane.max())))
    counts = np.bincount(np.clip(planes[4], 0, 255).astype(np.uint8).ravel(), minlength=256)
    report.pixels += counts
    report.frames += counts > 0
    report.holes += float((planes[3] == 0).mean())


def verify(reader: Reader) -> str | None:
    """How the LMDB differs from its own dataset.json; None if it does not."""
    told = reader.info.get("checksum")
    if not told:
        return "has no checksum in dataset.json to verify by"
    found = store.survey(iter(reader), str(reader.path))
    for what in ("records", "checksum"):
        if found[what] != reader.info.get(what):
            return f"{what}: {found[what]}, but dataset.json says {reader.info.get(what)}"
    return None


def text(reader: Reader, report: Report) -> str:
    """The report as text."""
    size = (reader.path / "data.mdb").stat().st_size
    lines = [f"{reader.path}: {report.records} records, {size / 1e6:.1f} MB"]
    for key in ("tool", "dataset", "split", "checksum"):
        if reader.info.get(key):
            lines.append(f"  {key:9} {reader.info[key]}")
    lines += [f"  shape     {shape}: {count} records" for shape, count in report.shapes.items()]
    lines += [f"  {name:9} {low:g} to {high:g}" for name, (low, high) in report.ranges.items()]
    lines.append(f"  holes     {100 * report.holes:.1f} % of depth")
    if set(report.scenes) != {0}:
        counts = ", ".join(f"{scene}: {n}" for scene, n in sorted(report.scenes.items()))
        lines.append(f"  scenes    {counts}")
    lines += ["", "label    share %   frames  name"]
    lines += [
        f"{label:5}  {share:9.4f}  {frames:7}  {name}"
        for label, share, frames, name in label_rows(reader, report)
    ]
    lines += ["", *report.together] if report.together else []
    lines += ["", f"suspicious records: {len(report.suspicious)}"]
    lines += [f"  {name}: {what}" for name, what in report.suspicious]
    return "\n".join(map(shown, lines))


def label_rows(reader: Reader, report: Report) -> list[tuple[int, float, int, str]]:
    """(label, share of pixels in %, frames in which it occurs, name) of every label that occurs."""
    names = reader.info.get("classes") or []
    total = max(report.pixels.sum(), 1)
    return [(int(label), 100 * report.pixels[label] / total, int(report.frames[label]),
             names[label] if label < len(names) else "")
            for label in np.flatnonzero(report.pixels)]  # fmt: skip


def page(reader: Reader, report: Report, picture: np.ndarray) -> str:
    """The report as one HTML file that includes the sheet."""
    data = base64.b64encode(cv2.imencode(".png", picture)[1].tobytes()).decode()
    rows = "".join(
        f"<tr><td>{label}<td>{html.escape(name)}<td>{share:.4f}<td>{frames}"
        f'<td><div style="width:{3 * share:.1f}px"></div>'
        for label, share, frames, name in label_rows(reader, report)
    )
    odd = "".join(f"<li>{html.escape(name)}: {html.escape(what)}"
                  for name, what in report.suspicious)  # fmt: skip
    title = html.escape(str(reader.path))
    return (
        '<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" '
        f'content="{POLICY}"><title>{title}</title>'
        "<style>body{font:14px sans-serif;margin:2em}td,th{padding:2px 8px;text-align:left}"
        "td div{background:#48c;height:1em}img{max-width:100%}</style>"
        f"<h1>{title}</h1><pre>{html.escape(text(reader, report).partition('label  ')[0])}</pre>"
        f"<h2>Labels</h2><table><tr><th>label<th>name<th>share %<th>frames<th>{rows}</table>"
        f"<h2>Suspicious records: {len(report.suspicious)}</h2><ul>{odd}</ul>"
        f"<h2>Frames</h2><p>{html.escape(captions(reader))}<p>"
        f'<img src="data:image/png;base64,{data}">'
    )


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "inspect")
    parser.add_argument("lmdb", metavar="LMDB", type=Path)
    parser.add_argument(
        "--sheet",
        type=Path,
        metavar="sheet.png",
        help="draw frames: colour, depth with a colour bar (in metres, if the range is fixed), "
        "label, overlay, and the edges of depth over colour",
    )
    parser.add_argument(
        "--frames",
        type=cli.whole(1),
        default=12,
        metavar="N",
        help="number of frames on the sheet (default: 12)",
    )
    parser.add_argument(
        "--html", type=Path, metavar="out.html", help="write report and sheet as one page"
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="compare the records with the checksum in dataset.json; exit 1 if it differs",
    )
    parser.add_argument(
        "--augment",
        nargs="+",
        type=Path,
        metavar=("NET", "OUT.png"),
        help="instead of the report, draw what training with NET, a prototxt, sees of the first "
        "records of its first epoch: colour, depth and label before and after augmentation "
        "(default: augment.png)",
    )
    parser.add_argument(
        "--seed",
        type=cli.whole(0),
        metavar="N",
        help="the solver's random_seed, which says what --augment draws (default: 0)",
    )
    return parser


def draw_augmented(reader: Reader, args: argparse.Namespace) -> str:
    """Write the sheet of --augment; returns what it shows, in words."""
    from data_tools import augmented  # not above: it loads the engine, and torch with it

    net, out = [*args.augment, Path("augment.png")][:2]
    layer = augmented.data_layer(net)
    found = list(augmented.seen(layer, args.lmdb, args.frames, args.seed or 0))
    writing.write_bytes(out, augmented.png(augmented.draw(reader, found)), DataError)
    if not augmented.changes(layer):
        cli.say(f"warning: {net}: its layer {layer.name} changes no record")
    seed = f"random_seed: {args.seed or 0}"
    return (
        f"{out}: the first {len(found)} records of the first epoch, as stored and as layer "
        f"{layer.name} of {net} gives them in training with {seed} in the solver"
    )


def outcome(reader: Reader, report: Report, args: argparse.Namespace) -> dict[Path, Any]:
    """The files to write: path -> content."""
    files: dict[Path, Any] = {}
    if args.sheet or args.html:
        picture = sheet(reader, args.frames)
        if args.sheet:
            files[args.sheet] = cv2.imencode(".png", picture)[1].tobytes()
        if args.html:
            files[args.html] = page(reader, report, picture).encode(errors="replace")
    return files


def _check_usage(args: argparse.Namespace) -> None:
    """End with a usage error where options do not go together."""
    if len(args.augment or ()) > 2:
        args.usage.error(f"--augment takes NET and OUT.png, got {len(args.augment)} files")
    if len(args.augment or ()) == 2 and args.augment[1].suffix.lower() != ".png":
        # a second net, say, which would be overwritten
        args.usage.error(f"--augment NET OUT.png: {args.augment[1]} does not end in .png")
    if args.augment and (args.sheet or args.html or args.verify):
        args.usage.error("--augment takes the place of --sheet, --html and --verify")
    if args.seed is not None and not args.augment:
        args.usage.error("--seed goes with --augment")


def main() -> None:
    """`python -m data_tools.inspect`."""
    args = cli.parse(arguments())
    _check_usage(args)
    outputs = [("--sheet", args.sheet), ("--html", args.html)]
    inputs = [("LMDB", args.lmdb)]
    if args.augment:
        inputs.append(("the net", args.augment[0]))
        outputs.append(("--augment", [*args.augment, Path("augment.png")][1]))
    cli.check_distinct([(what, path) for what, path in outputs if path], inputs)
    reader = Reader(args.lmdb)
    if args.augment:
        print(draw_augmented(reader, args))
        return
    wrong = verify(reader) if args.verify else None
    if wrong:
        raise DataError(f"{args.lmdb}: {wrong}")
    report = survey(reader)
    for path, content in outcome(reader, report, args).items():
        writing.write_bytes(path, content, DataError)
    print(text(reader, report))
    if args.verify:
        print("verified: every record is as it was written")


if __name__ == "__main__":
    cli.run(main)

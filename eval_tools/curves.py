"""Draws loss, accuracy and learning rate of Caffe training logs, several runs in one figure.

Reads the log of any Caffe version (`caffe train ... 2> train.log`). Prints one line per run:
iterations, last loss, best test accuracy and, where there is one, best test IoU.
"""

from __future__ import annotations

import argparse
import io
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from boundary.interrupts import loading
from boundary.names import component
from boundary.reading import reading
from boundary.text import plain_math
from boundary.writing import write_bytes
from data_tools.cli import DataError, check_distinct, say
from eval_tools import cli
from eval_tools.caffe_log import Parser, Run, Series, measure, read_log
from eval_tools.caffe_log import panel as panel_of
from eval_tools.tables import Table
from eval_tools.tensorboard import write_events

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = ("loss", "accuracy", "learning rate")
FIGURES = (".png", ".svg", ".pdf")
POLL_SECONDS = 2.0
WIDTH = 8.0  # of the figure, in inches


def arguments() -> argparse.ArgumentParser:
    """The command's parser."""
    parser = cli.parser(__doc__, "curves")
    parser.add_argument("logs", nargs="+", metavar="LOG", help="log of caffe train")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("curves.png"),
        metavar="FILE",
        help="the figure, as .png, .svg or .pdf (default: curves.png)",
    )
    parser.add_argument(
        "--x",
        choices=["iterations", "time"],
        default="iterations",
        help="the horizontal axis (default: iterations)",
    )
    parser.add_argument(
        "--names", metavar="NAME,...", help="names of the runs (default: the files' names)"
    )
    parser.add_argument(
        "--smooth",
        type=cli.whole(1),
        default=1,
        metavar="N",
        help="average the training loss over N points",
    )
    parser.add_argument(
        "--follow",
        action="store_true",
        help="redraw as the logs grow, until all trainings are done",
    )
    parser.add_argument(
        "--tensorboard",
        type=Path,
        metavar="DIR",
        help="also write event files for TensorBoard, one folder per run",
    )
    return parser


def draw(runs: Sequence[Run], x: str = "iterations", smooth: int = 1) -> Figure:
    """The figure, with one panel each for losses, accuracies and learning rates, if there are any.

    Args:
        x: `iterations` or `time`.
        smooth: the number of points over which the training loss is averaged.
    """
    with loading():
        from matplotlib.figure import Figure

    panels = [panel for panel in PANELS if any(_pick(run, panel) for run in runs)]
    figure = Figure(figsize=(WIDTH, 1 + 3 * len(panels)))
    rows = figure.subplots(
        len(panels), squeeze=False, sharex=True, gridspec_kw=_margins(len(panels))
    )[:, 0]
    divisor, unit = _clock(runs) if x == "time" else (1, "iterations")
    for axes, panel in zip(rows, panels, strict=True):
        for number, run in enumerate(runs):
            for place, (key, series) in enumerate(_pick(run, panel).items()):
                values = series.values
                if key == "loss" and smooth > 1:
                    values = smoothed(values, smooth)
                along = series.seconds if x == "time" else series.iterations
                axes.plot(
                    [at / divisor for at in along],
                    values,
                    color=f"C{place if len(runs) == 1 else number}",
                    label=_label(run, key, len(runs)),
                    **_style(key),
                )
        axes.set_ylabel(panel)
        axes.set_yscale("log" if panel == "learning rate" else "linear")
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(fontsize=8)
    rows[-1].set_xlabel(unit)
    return figure


def _margins(panels: int) -> dict[str, float]:
    """Room for labels around panels, as shares of the figure. matplotlib could look for the least
    room that is enough, but that takes longer than the drawing.
    """
    height = 1 + 3 * panels
    between = 0.2  # inches, as below
    tall = (height - 0.85 - between * (panels - 1)) / panels
    return {
        "left": 1.1 / WIDTH,
        "right": 1 - 0.15 / WIDTH,
        "bottom": 0.55 / height,
        "top": 1 - 0.3 / height,
        "hspace": between / tall,
    }


def _pick(run: Run, panel: str) -> dict[str, Series]:
    """The curves of one panel."""
    # Test outputs come last, so that colours do not depend on the order of the log.
    keys = sorted(
        (key for key in run.series if panel_of(key) == panel),
        key=lambda key: (key.startswith("test"), key),
    )
    return {key: run.series[key] for key in keys}


def _label(run: Run, key: str, runs: int) -> str | None:
    what = {"loss": "train loss", "lr": ""}.get(key, key.replace("/", " "))
    if runs == 1:
        return plain_math(what) or None
    return plain_math(f"{run.name}: {what}" if what else run.name)


def _style(key: str) -> dict[str, object]:
    if key.startswith("test"):
        return {"linewidth": 1.6, "marker": "o", "markersize": 3}
    return {"linewidth": 1, "alpha": 0.7, "linestyle": ":" if key.startswith("train/") else "-"}


def _clock(runs: Sequence[Run]) -> tuple[int, str]:
    """The divisor of seconds, and the name of the resulting unit."""
    seconds = [s for run in runs for series in run.series.values() for s in series.seconds]
    longest = max((s for s in seconds if not math.isnan(s)), default=0)
    for limit, divisor, unit in ((180, 1, "seconds"), (3 * 3600, 60, "minutes")):
        if longest < limit:
            return divisor, unit
    return 3600, "hours"


def smoothed(values: Sequence[float], points: int) -> list[float]:
    """The mean of each value and up to points - 1 before it."""
    return [
        sum(values[max(0, i + 1 - points) : i + 1]) / min(points, i + 1) for i in range(len(values))
    ]


def summary(runs: Sequence[Run]) -> Table:
    """One row per run: iterations, last training loss, best test accuracy and its iteration; the
    same of the IoU if a run has one.
    """
    whats = ["accuracy"]
    if any(measure(key) == "IoU" for run in runs for key in run.series):
        whats.append("IoU")
    rows = []
    for run in runs:
        loss = run.series.get("loss", Series())
        last = f"{loss.values[-1]:.4g}" if loss.values else "-"
        iterations = max(series.iterations[-1] for series in run.series.values())
        rows.append([run.name, str(iterations), last, *(_best(run, what) for what in whats)])
    head = ["run", "iterations", "last loss", *(f"best test {what}" for what in whats)]
    return Table("Runs", head, rows)


def _best(run: Run, what: str) -> str:
    """The best test value of what is measured, and its iteration."""
    best = [
        (value, at)
        for key, series in run.series.items()
        if key.startswith("test") and measure(key) == what and "[" not in key
        for value, at in zip(series.values, series.iterations, strict=True)
        if not math.isnan(value)
    ]
    value, at = max(best, default=(None, None))
    return "-" if value is None else f"{value:.4g} at {at}"


def write_figure(path: Path, figure: Figure) -> None:
    """Writes a figure in the format of the file's suffix."""
    file = io.BytesIO()
    figure.savefig(file, format=path.suffix[1:].lower(), dpi=120)
    write_bytes(path, file.getvalue(), DataError)


class Followed:
    """A log that grows."""

    def __init__(self, path: str, name: str) -> None:
        self._path, self._parser, self._offset = path, Parser(name), 0

    @property
    def run(self) -> Run:
        """The run as read so far."""
        return self._parser.run

    def read(self) -> bool:
        """Reads new complete lines; returns whether there were any."""
        with reading(self._path, "a log", DataError), open(self._path, "rb") as file:
            if file.seek(0, 2) < self._offset:  # the file was overwritten
                self._offset, self._parser = 0, Parser(self.run.name)
            file.seek(self._offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        self._parser.feed(data[:whole].decode(errors="replace").splitlines())
        return whole > 0


def follow(args: argparse.Namespace, names: Sequence[str]) -> list[Run]:
    """Redraws whenever a log has grown, until all runs are done or the user interrupts."""
    logs = [Followed(path, name) for path, name in zip(args.logs, names, strict=True)]
    try:
        while True:
            grown = [log.read() for log in logs]
            runs = [log.run for log in logs if any(map(panel_of, log.run.series))]
            if any(grown) and runs:
                write_figure(args.out, draw(runs, args.x, args.smooth))
                say(f"{args.out}: " + ", ".join(f"{r[0]} at {r[1]}" for r in summary(runs).rows))
            if all(log.run.done for log in logs):
                break
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        pass  # Ctrl-C ends --follow
    return [log.run for log in logs if any(map(panel_of, log.run.series))]


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command. Raises DataError."""
    parser = arguments()
    args = parser.parse_args(argv)
    names = args.names.split(",") if args.names else _names(args.logs)
    if len(names) != len(args.logs):
        parser.error(f"--names has {len(names)} names for {len(args.logs)} logs")
    if args.out.suffix.lower() not in FIGURES:
        raise DataError(f"{args.out}: a figure is written as {', '.join(FIGURES)}")
    cli.check_output(args.out)
    check_distinct([("-o", args.out)], [("LOG", log) for log in args.logs])
    if args.follow:
        runs = follow(args, names)
    else:
        runs = [read_log(path, name) for path, name in zip(args.logs, names, strict=True)]
        write_figure(args.out, draw(runs, args.x, args.smooth))
    if runs:
        print(summary(runs).plain())
    for run in runs:
        if run.unread:
            say(f"warning: {run.name}: {run.unread} damaged lines were left out")
    for run in runs if args.tensorboard else ():
        write_events(args.tensorboard / component(run.name), _scalars(run))
    say(f"wrote {args.out}")


def _names(logs: Sequence[str]) -> list[str]:
    """The files' stems, or their paths if stems are equal."""
    stems = [Path(log).stem for log in logs]
    return stems if len(set(stems)) == len(stems) else [str(log) for log in logs]


def _scalars(run: Run) -> list[tuple[str, int, float, float]]:
    # Logs may lack the year, so times are relative to the start, as if the run ended now.
    begin = time.time() - max((s for x in run.series.values() for s in x.seconds), default=0)
    return [
        (key, at, value, begin + (0 if math.isnan(seconds) else seconds))
        for key, series in run.series.items()
        for at, value, seconds in zip(series.iterations, series.values, series.seconds, strict=True)
    ]


if __name__ == "__main__":
    cli.run("curves", main)

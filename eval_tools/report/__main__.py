"""Scores a net like `python -m eval_tools.evaluate` and writes the report, one HTML file.

Frames without true labels are shown with the net's labels, and how sure it is of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from eval_tools import cli, evaluate


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command. Raises DataError."""
    parser = evaluate.arguments("report", __doc__)
    parser.add_argument(
        "-o",
        "--out",
        dest="report",
        type=Path,
        metavar="FILE",
        help="the report (default: report.html)",
    )
    parser.set_defaults(report=Path("report.html"))  # evaluate's own --report has no default
    args = cli.parsed(parser, argv)
    cli.use_engine(args)
    run = evaluate.run_survey if evaluate.without_labels(args) else evaluate.run
    run(args)


if __name__ == "__main__":
    cli.run("report", main)

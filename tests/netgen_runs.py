"""netgen's command, run within the test's process."""

from __future__ import annotations

import pytest

from netgen.cli import main


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Exit status, what went to stdout and what to stderr."""
    try:
        status = main(list(argv))
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def run_line(capsys: pytest.CaptureFixture[str], line: str, code: int = 0) -> tuple[str, str]:
    """What went to stdout and to stderr. The exit status must be `code`."""
    status, out, err = run(capsys, *line.split())
    assert status == code, err
    return out, err

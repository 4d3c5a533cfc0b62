"""progress: when a line is drawn, and when lines are printed instead."""

from __future__ import annotations

import threading

import pytest

from boundary.streams import stderr
from caffe.process import progress
from caffe.process.progress import Redrawn, redraws


@pytest.mark.parametrize(
    ("terminal", "term", "drawn"),
    [(True, "xterm", True), (True, "dumb", False), (True, "", False), (False, "xterm", False)],
)
def test_what_can_be_redrawn(monkeypatch, terminal: bool, term: str, drawn: bool) -> None:
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(type(stderr()), "isatty", lambda _: terminal)
    assert redraws() is drawn


def test_lines_instead_and_none_twice(monkeypatch, capsys) -> None:
    monkeypatch.setattr(progress, "SECONDS_OF_LINES", 0.001)
    texts, all_told = iter(["1/3", "1/3", "2/3", "3/3"]), threading.Event()

    def line(width: int) -> str:
        text = next(texts, "3/3")
        if text == "3/3":
            all_told.set()
        return text

    redrawn = Redrawn(line)
    redrawn.start()
    assert all_told.wait(60)
    redrawn.stop()
    assert capsys.readouterr().err.splitlines()[:2] == ["1/3", "2/3"]


def test_a_run_that_is_over_at_once_draws_nothing(capsys) -> None:
    redrawn = Redrawn(lambda width: "1/1")
    redrawn.start()
    redrawn.stop()
    assert capsys.readouterr().err == ""

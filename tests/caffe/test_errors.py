"""Messages: one line of at most 300 characters, whatever they quote."""

from __future__ import annotations

import pytest

import caffe
from boundary.reading import check_file
from boundary.running import placed
from caffe.blob import Blob
from caffe.commands import flags, script
from caffe.errors import CaffeError


def test_a_line_break_in_a_path_shows_as_it_was_written(tmp_path) -> None:
    """A prototxt with source: "data\new" holds a line break."""
    with pytest.raises(CaffeError, match=r"^data\\new: No such file or directory$"):
        check_file("data\new", CaffeError)


def test_lines_become_one() -> None:
    assert str(CaffeError("a:\n  b\r\nc\0\x1b[1m\n")) == r"a: b c\x00\x1b[1m"


def test_what_is_quoted_loses_its_middle_and_the_rest_stays() -> None:
    line = str(CaffeError(f"net.prototxt:3:1: {'x' * 999!r} is no number; expected one of a, b"))
    assert line.startswith("net.prototxt:3:1: 'xxx")
    assert line.endswith("xxx' is no number; expected one of a, b")
    assert len(line) <= 300


def test_words_without_end_are_cut_too() -> None:
    line = str(CaffeError("first " + "word " * 999 + "last"))
    assert len(line) == 300
    assert line.startswith("first word")
    assert line.endswith("word last")


def test_a_shape_of_a_thousand_axes() -> None:
    with pytest.raises(CaffeError, match=r"^blob shape has 1000 axes, expected at most 32$"):
        Blob((1,) * 1000)


def test_commands_end_with_one_short_line(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(*_: object) -> int:
        raise caffe.CaffeError("a" * 999)

    def stumbles(*_: object) -> int:
        raise MemoryError("b" * 999 + "\nsecond line")

    for main, place in ((fails, "aaa\n"), (stumbles, ".py:")):
        assert script.status("a program", main) == 1
        assert flags.run(main, "usage", arguments=[], program="a program") == 1
        for line in capsys.readouterr().err.splitlines(keepends=True):
            assert line.startswith("a program: ")
            assert len(line) <= 301
            assert place in line


def test_an_unexpected_exception_names_its_place() -> None:
    with pytest.raises(ValueError, match="xxx") as caught:
        raise ValueError("x" * 999)
    line = placed(caught.value)
    assert line.startswith("ValueError: xxx")
    assert "(test_errors.py:" in line
    assert len(line) <= 300

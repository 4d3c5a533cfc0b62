"""The manners of every command, run as a process: help, exit codes, one line and no traceback."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

import data_tools
from data_tools import cli

COMMANDS = sorted(
    path.stem
    for path in Path(data_tools.__file__).parent.glob("*.py")
    if "cli.run(main)" in path.read_text()
)


def run(module, *arguments, cwd):
    return subprocess.run(
        [sys.executable, "-m", f"data_tools.{module}", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("module", COMMANDS)
def test_help_and_bad_usage(module, tmp_path):
    result = run(module, "--help", cwd=tmp_path)
    assert result.returncode == 0
    assert result.stdout.startswith(f"usage: python -m data_tools.{module} ")
    result = run(module, "--no-such-option", cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_bad_input_is_one_line_and_1(tmp_path):
    result = run("folder", "--rgb", "nowhere", "--depth", "nowhere", "db", cwd=tmp_path)
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr == "python -m data_tools.folder: nowhere: no such folder or file\n"


def test_errors_of_the_system_are_one_line():
    assert cli.describe(FileNotFoundError(2, "No such file or directory", "a/b")) == (
        "a/b: No such file or directory"
    )
    assert cli.describe(ValueError("two\n  lines")) == "two lines"
    assert cli.describe(KeyError()) == "KeyError"


@pytest.mark.parametrize(
    ("kind", "good", "value", "bad"),
    [
        (cli.size, "320x240", (320, 240), ["320", "0x5", "axb", "320x-1", "99999x5"]),
        (cli.whole(1), "3", 3, ["0", "x", "1.5", ""]),
        (cli.whole(0, 9), "9", 9, ["10", "-1"]),
        (cli.fraction, "0.25", 0.25, ["0", "1", "nan", "x"]),
        (cli.some_of(("a", "b")), "b,a", ["b", "a"], ["c", "a,a", ""]),
    ],
)
def test_argument_types(kind, good, value, bad):
    assert kind(good) == value
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="'"):
            kind(text)

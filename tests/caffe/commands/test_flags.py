"""flags: gflags' forms and its words about errors."""

from __future__ import annotations

import pytest

from caffe.commands.flags import Flag, FlagError, Usage, describe, parse, run
from caffe.errors import CaffeError

FLAGS = (
    Flag("iterations", 50, "How many."),
    Flag("model", "", "The net."),
    Flag("gray", False, "One channel."),
)


@pytest.mark.parametrize(
    ("line", "values", "others"),
    [
        ("", (50, "", False), []),
        ("-iterations 3 time -model=m", (3, "m", False), ["time"]),
        ("--iterations=0x10 --model m x", (16, "m", False), ["x"]),
        ("-gray true", (50, "", True), ["true"]),
        ("-gray=false a", (50, "", False), ["a"]),
        ("--gray --nogray", (50, "", False), []),
        ("-gray=T", (50, "", True), []),
        ("a - -- -gray -x", (50, "", False), ["a", "-", "-gray", "-x"]),
        ("-model -gray", (50, "-gray", False), []),
        ("-model=a=b -iterations -1", (-1, "a=b", False), []),
    ],
)
def test_forms(line: str, values: tuple, others: list[str]) -> None:
    got, rest, _ = parse(line.split(), FLAGS)
    assert (got.iterations, got.model, got.gray) == values
    assert rest == others


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("", None),
        ("-brief", True),
        ("--brief=true", True),
        ("-nobrief", False),
        ("-brief=false", False),
        ("-brief -brief=auto", None),
    ],
)
def test_a_boolean_that_is_automatic_unless_it_is_given(line: str, value: bool | None) -> None:
    flag = Flag("brief", None, "Say less.")
    assert parse(line.split(), [flag])[0].brief is value
    assert "-brief (Say less.) type: bool default: auto" in describe("x", [flag])
    with pytest.raises(FlagError, match=r"'maybe' .* 'brief'; expected true, false or auto$"):
        parse(["-brief=maybe"], [flag])


def test_which_flags_were_given() -> None:
    assert parse(["-iterations", "50", "-nogray"], FLAGS)[2] == {"iterations", "gray"}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("-foo x", "unknown command line flag 'foo'"),
        ("--foo=1", "unknown command line flag 'foo'"),
        ("-nomodel", "unknown command line flag 'nomodel'"),
        ("-iterations", "flag '-iterations' is missing its argument; flag description: How many."),
        ("-iterations abc", "illegal value 'abc' specified for int32 flag 'iterations'"),
        ("-iterations 3000000000", "illegal value '3000000000' specified for int32 flag"),
        ("-gray=auto", "illegal value 'auto' specified for bool flag"),
        ("-gray=maybe", "illegal value 'maybe' specified for bool flag 'gray'"),
    ],
)
def test_errors_in_gflags_words(line: str, words: str) -> None:
    with pytest.raises(FlagError) as error:
        parse(line.split(), FLAGS)
    assert str(error.value).startswith(words)


def _run(arguments: list[str], outcome: Exception | int = 0) -> int:
    def main(values, others, given) -> int:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return run(main, "use it so", FLAGS, arguments, "tool")


def test_exit_statuses_and_one_line(capsys) -> None:
    assert _run([], 5) == 5
    assert _run(["-foo"]) == 2
    assert capsys.readouterr().err == "ERROR: unknown command line flag 'foo'\n"
    assert _run([], CaffeError("f: is broken")) == 1
    assert capsys.readouterr().err == "tool: f: is broken\n"
    assert _run([], Usage("expected a file")) == 2
    assert capsys.readouterr().err.startswith("tool: expected a file\n\nuse it so\n")
    assert _run(["-log_dir", "/nowhere"]) == 1
    assert capsys.readouterr().err == "tool: -log_dir /nowhere: no such directory\n"


def test_help_goes_to_stdout(capsys) -> None:
    assert _run(["--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("use it so\n")
    assert "    -iterations (How many.) type: int32 default: 50\n" in out
    assert _run(["--", "-help"]) == 0
    assert capsys.readouterr().out == ""

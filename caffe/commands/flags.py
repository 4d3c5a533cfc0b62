"""Command lines in gflags' forms, as Caffe's tools take them.

`-name value`, `-name=value`, `--name value`, `--name=value`; for booleans `-name`, `-noname`,
`-name=false`, and `-name=auto` for those whose default is that. Flags and other arguments may come
in any order; `--` ends the flags. glog's flags (-log_dir, -minloglevel, ...) belong to every
program.
"""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from boundary import interrupts, running
from boundary.streams import say
from caffe.errors import CaffeError
from caffe.process.log import init_log, set_log_dir, set_verbosity

Value = bool | int | str | None

_TRUE, _FALSE = ("true", "t", "yes", "y", "1"), ("false", "f", "no", "n", "0")


@dataclass(frozen=True)
class Flag:
    """A flag: name, default and help text. The default's type (bool, int or str) is the flag's.

    None ('auto') is the default of a boolean on which the program decides, unless the user does.
    """

    name: str
    default: Value
    help: str

    @property
    def kind(self) -> str:
        """gflags' name of the type."""
        kinds = {bool: "bool", type(None): "bool", int: "int32", str: "string"}
        return kinds[type(self.default)]

    def value(self, text: str) -> Value:
        """The value that a text stands for. Raises FlagError if it does not fit the type."""
        try:
            if self.default is None and text.lower() == "auto":
                return None
            if self.kind == "bool":
                return {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False)}[text.lower()]
            if self.kind == "int32":
                number = int(text, 16 if text.lower().startswith(("0x", "-0x")) else 10)
                if not -(2**31) <= number < 2**31:
                    raise ValueError
                return number
        except (KeyError, ValueError):
            hint = "; expected true, false or auto" if self.default is None else ""
            raise FlagError(
                f"illegal value '{text}' specified for {self.kind} flag '{self.name}'{hint}"
            ) from None
        return text


class FlagError(CaffeError):
    """A command line that cannot be understood, in gflags' words."""


# glog adds these to every program. Some are accepted without effect: lines always go to stderr
# here, without colours.
GLOG = (
    Flag("log_dir", "", "Also write log files into this directory."),
    Flag("minloglevel", 0, "Lowest severity that is logged: 0 INFO, 1 WARNING, 2 ERROR, 3 FATAL."),
    Flag("logtostderr", False, "Log to stderr only, not into files."),
    Flag("alsologtostderr", True, "Log to stderr as well as into files; always so."),
    Flag("stderrthreshold", 0, "Lowest severity on stderr beside files; always 0."),
    Flag("colorlogtostderr", False, "Colours on a terminal; never."),
    Flag("v", 0, "Show verbose messages up to this level; 1: which -engine computes, and why."),
)


def parse(
    arguments: Sequence[str], flags: Iterable[Flag]
) -> tuple[SimpleNamespace, list[str], set[str]]:
    """The flags' values by name, the other arguments, and the names of the flags that were given.

    Raises FlagError.
    """
    known = {flag.name: flag for flag in (*GLOG, *flags)}
    values = SimpleNamespace(**{name: flag.default for name, flag in known.items()})
    others: list[str] = []
    given: set[str] = set()
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument == "--":
            others += rest
            break
        if not argument.startswith("-") or argument == "-":
            others.append(argument)
            continue
        name, equals, text = argument.removeprefix("-").removeprefix("-").partition("=")
        flag, negated = known.get(name), False
        if flag is None and name.startswith("no"):
            flag, negated = known.get(name[2:]), True
            if flag is not None and (flag.kind != "bool" or equals):
                flag = None
        if flag is None:
            raise FlagError(f"unknown command line flag '{name}'")
        if flag.kind == "bool" and not equals:
            text = "false" if negated else "true"
        elif not equals:
            if not rest:
                raise FlagError(
                    f"flag '{argument}' is missing its argument; flag description: {flag.help}"
                )
            text = rest.pop(0)
        setattr(values, flag.name, flag.value(text))
        given.add(flag.name)
    return values, others, given


def describe(usage: str, flags: Iterable[Flag]) -> str:
    """What -help prints: the usage, then each flag with its type and default."""
    lines = [usage.rstrip(), ""]
    for flag in sorted(flags, key=lambda flag: flag.name):
        default = "auto" if flag.default is None else str(flag.default).lower()
        if flag.kind == "string":
            default = f'"{flag.default}"'
        text = f"-{flag.name} ({flag.help}) type: {flag.kind} default: {default}"
        lines += textwrap.wrap(text, 79, initial_indent="    ", subsequent_indent="      ")
    return "\n".join(lines) + "\n"


class Usage(Exception):
    """The command line has the wrong number of arguments; the message says what was expected."""


def run(
    main: Callable[[SimpleNamespace, list[str], set[str]], int],
    usage: str,
    flags: Sequence[Flag] = (),
    arguments: Sequence[str] | None = None,
    program: str = "",
    at_once: bool = False,
) -> int:
    """Run a program's `main(values, others, given)` on a command line; returns the exit status.

    It is 0 for -help; 1 for bad input, with one line on stderr, and if output on stdout could not
    be written; 2 for a bad flag, with gflags' line, or if main raises Usage, with the usage; 130
    after an interrupt.
    arguments: by default the process's own.
    at_once: an interrupt ends the process, until main installs a handler of its own.
    """
    if at_once and arguments is None:
        interrupts.end_at_once()
    arguments = sys.argv[1:] if arguments is None else arguments
    program = program or os.path.basename(sys.argv[0]).removesuffix(".py")

    def work() -> int:
        try:
            return _run(main, usage, flags, arguments, program)
        except FlagError as error:
            say(f"ERROR: {error}")
        except Usage as error:
            say(f"{program}: {error}\n\n{describe(usage, flags).rstrip()}")
        return 2

    return running.status(program, work, (CaffeError,), at_once)


def _run(
    main: Callable[[SimpleNamespace, list[str], set[str]], int],
    usage: str,
    flags: Sequence[Flag],
    arguments: Sequence[str],
    program: str,
) -> int:
    if any(argument.lstrip("-") in ("help", "helpshort") for argument in _flags_of(arguments)):
        print(describe(usage, flags), end="")
        return 0
    values, others, given = parse(arguments, flags)
    if "minloglevel" in given:
        init_log(values.minloglevel)
    set_verbosity(values.v)
    directory = values.log_dir or os.environ.get("GLOG_log_dir", "")
    if directory and not values.logtostderr:
        set_log_dir(directory, program)
    return main(values, others, given)


def _flags_of(arguments: Sequence[str]) -> list[str]:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return [argument for argument in arguments[:end] if argument.startswith("-")]

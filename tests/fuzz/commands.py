"""Runs commands of the product in this process, as the interpreter would run them."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from typing import Any

Target = Callable[[], Any]


def data_tool(module: str, *arguments: Any) -> Target:
    """`python -m data_tools.MODULE`."""

    def run() -> None:
        from data_tools import cli

        tool = importlib.import_module(f"data_tools.{module}")
        sys.argv = [tool.__file__, *map(str, arguments)]
        cli.run(tool.main)

    return run


def eval_tool(module: str, *arguments: Any) -> Target:
    """`python -m eval_tools.MODULE`."""

    def run() -> None:
        from data_tools import cli

        place = f"eval_tools.{module}" + (".__main__" if module == "report" else "")
        tool = importlib.import_module(place)
        cli.run(lambda: tool.main([*map(str, arguments)]), f"python -m eval_tools.{module}")

    return run


def netgen(*arguments: Any) -> Target:
    """`python -m netgen`."""

    def run() -> None:
        from netgen.cli import main

        raise SystemExit(main([*map(str, arguments)]))

    return run


def caffe_command(*arguments: Any) -> Target:
    """`caffe`, and with a first argument that begins with `tools.` one of caffe.tools."""

    def run() -> None:
        place, given = "caffe.commands.cli", [*map(str, arguments)]
        if given[0].startswith("tools."):
            place = f"caffe.{given.pop(0)}"
        raise SystemExit(importlib.import_module(place).main(given))

    return run


def script(module: str, *arguments: Any) -> Target:
    """A command of caffe with argparse's options, such as caffe.convert."""

    def run() -> None:
        from caffe.commands.script import status

        main = importlib.import_module(f"caffe.{module}").main
        raise SystemExit(status(f"python -m caffe.{module}", lambda: main([*map(str, arguments)])))

    return run

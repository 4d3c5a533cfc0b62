"""Shared by Caffe's three upgrade tools: read a file, bring it to today's format, write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from caffe.commands.flags import Usage, run
from caffe.formats.upgrade import Log
from caffe.process.log import ERROR, INFO, emit

Read = Callable[[str], Any]
Write = Callable[[str, Any], None]


class Tool:
    """One upgrade tool.

    program: its name. kind: the message and its form, as in "NetParameter text proto".
    read(path): returns the content. needs(content): whether its format is an older one.
    upgrade(content, path, log): returns it in today's format. write(path, content): writes it.
    """

    def __init__(
        self,
        program: str,
        kind: str,
        read: Read,
        needs: Callable[[Any], bool],
        upgrade: Callable[[Any, str, Log], Any],
        write: Write,
    ) -> None:
        self.program, self.kind = program, kind
        self.read, self.needs, self.upgrade, self.write = read, needs, upgrade, write
        self.trouble = 0

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Run it; returns the exit status, 1 also if an old setting could not be kept."""
        usage = (
            f"Bring a {self.kind} of an older Caffe to today's format.\n"
            f"Usage: {self.program} FILE_IN FILE_OUT"
        )
        return run(self._main, usage, (), arguments, self.program)

    def _main(self, values: SimpleNamespace, files: list[str], given: set[str]) -> int:
        if len(files) != 2:
            raise Usage(f"expected FILE_IN and FILE_OUT, got {len(files)} arguments")
        source, target = files
        content = self.read(source)
        place = f"{self.program}.cpp"
        if self.needs(content):
            content = self.upgrade(content, source, self.log)
            if self.trouble:
                text = "Encountered error(s) while upgrading prototxt; see details above."
                emit(f"{place}:39", text, ERROR)
        else:
            emit(f"{place}:43", f"File already in latest proto format: {source}", ERROR)
        self.write(target, content)
        line = 48 if "binary" in self.kind else 49
        emit(f"{place}:{line}", f"Wrote upgraded {self.kind} to {target}", INFO)
        return 1 if self.trouble else 0

    def log(self, place: str, message: str, severity: int) -> None:
        self.trouble += severity >= ERROR
        emit(place, message, severity)

"""Commands and programs that the pages print: found in Markdown, and run in this process."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import runpy
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Words that a line of a shell begins with, on our pages.
PROGRAMS = ("python", "python3", "caffe", "pip", "make", "torchrun", "mkdir", "cp", "git")
_VARIABLE = re.compile(r"[A-Z_]+=\S* ")


@dataclass(frozen=True)
class Block:
    """A fenced or indented block of a page. kind: 'shell', 'python' or 'other'. line: its first."""

    page: str
    line: int
    kind: str
    text: str

    @property
    def commands(self) -> list[str]:
        """A shell block's commands, without comments, each in one line."""
        whole = self.text.replace("\\\n", " ")
        lines = (re.sub(r"(^|\s)#.*", "", line) for line in whole.splitlines())
        commands = (part for line in lines for part in line.split(" && "))
        return [" ".join(command.split()) for command in commands if command.strip()]


def pages() -> list[Path]:
    """README.md and the pages of docs/."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """All blocks of a page, in order."""
    name, found, lines = page.relative_to(ROOT).as_posix(), [], page.read_text().split("\n")
    place = 0
    while place < len(lines):
        start = place
        if fence := re.match(r"( *)```(\w*)", lines[place]):
            indent, language = len(fence[1]), fence[2]
            place += 1
            while not lines[place].lstrip().startswith("```"):
                place += 1
            text = "\n".join(line[indent:] for line in lines[start + 1 : place])
            found.append(Block(name, start + 2, _kind(text, language), text))
        elif lines[place].startswith("    ") and lines[place].strip() and _begins(lines, place):
            while place < len(lines) and (lines[place].startswith("    ") or not lines[place]):
                place += 1
            text = "\n".join(line[4:] for line in lines[start:place]).rstrip()
            found.append(Block(name, start + 1, _kind(text, ""), text))
            continue
        place += 1
    return found


def _begins(lines: list[str], place: int) -> bool:
    """Whether an indented line begins a block: it is no part of a paragraph or of a list."""
    if place and lines[place - 1].strip():
        return False
    above = next((line for line in reversed(lines[:place]) if line.strip()), "")
    return not above.lstrip().startswith(("- ", "* "))


def _kind(text: str, language: str) -> str:
    if language in ("sh", "bash", "console", "shell") or (not language and _is_shell(text)):
        return "shell"
    if language == "python" or (not language and _is_python(text)):
        return "python"
    return "other"


def _is_shell(text: str) -> bool:
    whole = text.replace("\\\n", " ")
    lines = [line for line in whole.splitlines() if line.strip() and not line.startswith("#")]
    firsts = [_VARIABLE.sub("", line.strip()).split()[0] for line in lines]
    if re.match(r"python -m \S+: ", text):  # an error that a command prints
        return False
    return bool(lines) and all(first in PROGRAMS for first in firsts)


def _is_python(text: str) -> bool:
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return False
    return any(isinstance(node, ast.Import | ast.ImportFrom) for node in tree.body)


def run(command: str) -> None:
    """Runs a command of this project (python -m MODULE, python FILE or caffe) in this process.

    Its stdout goes to the file behind `>`, if there is one. Raises AssertionError, with what it
    said, unless its exit status is 0.
    """
    words = shlex.split(command)
    target = None
    if ">" in words:
        target = Path(words[words.index(">") + 1])
        words = words[: words.index(">")]
    status, out, err = _status(words)
    assert status == 0, f"{command}\nends with status {status}: {err[-2000:]}"
    if target is not None:
        target.write_text(out)


def _status(words: list[str]) -> tuple[int, str, str]:
    if words[0] == "caffe":
        words = ["python", "-m", "caffe", *words[1:]]
    assert words[0] == "python", f"{words[0]}: is not run here"
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(),
    ):
        # A module that is loaded already is run again, as it would be in a process of its own.
        warnings.filterwarnings("ignore", message=".*found in sys.modules after import")
        try:
            if words[1] == "-m":
                sys.argv = words[2:]
                runpy.run_module(words[2], run_name="__main__")
            else:
                sys.argv = words[1:]
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        except SystemExit as end:
            code = end.code
            if isinstance(code, str):
                return 1, out.getvalue(), err.getvalue() + code
            return code or 0, out.getvalue(), err.getvalue()
        finally:
            sys.argv = before
    return 0, out.getvalue(), err.getvalue()

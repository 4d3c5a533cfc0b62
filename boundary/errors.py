"""InputError, the base of the packages' own errors, and texts of exceptions in one short line."""

from __future__ import annotations

import os
import re

LONGEST = 300  # characters of a message, and of a command's line
_PART = 60  # what is kept of a part that a long message quotes
_BREAKS = re.compile(r"[ \t]*[\r\n]\s*")
_PARTS = re.compile(r"""'[^']*'|"[^"]*"|\([^()]*\)|\[[^][]*\]|\S+""")


class InputError(Exception):
    """Bad input: a file, a net or an argument that cannot be used. The message is one clear line of
    at most 300 characters.

    Each package raises its own kind, which is also a built-in exception: caffe.errors.CaffeError is
    a RuntimeError, data_tools.cli.DataError a ValueError.

    longest: the characters of a message; more for the few kinds that must list what they found.
    """

    longest = LONGEST

    def __init__(self, message: object = "") -> None:
        super().__init__(shortened(str(message), self.longest))


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text in one line of at most `longest` characters.

    Line breaks become blanks, and other control characters, which names may hold, become escapes.
    (Paths are `shown` before: a line break in one reads as the prototxt has it.) In a longer text
    what it quotes loses its middle (a file's line, a shape of a thousand axes); if that is not
    enough, the text itself does.
    """
    text = _BREAKS.sub(" ", text.strip("\r\n"))
    text = "".join(c if c.isprintable() else _escaped(c) for c in text)
    if len(text) > longest:
        text = _PARTS.sub(lambda part: _without_middle(part[0], _PART), text)
    return _without_middle(text, longest)


def _without_middle(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    tail = longest // 3
    return f"{text[: longest - tail - 5]} ... {text[-tail:]}"


def one_line(text: str, longest: int = LONGEST) -> str:
    """What a library says, perhaps in several lines, as `shortened`; line breaks become blanks."""
    return shortened(" ".join(text.split()), longest)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def reason(error: BaseException) -> str:
    """What an exception of a library says, in a few words; its class where it says nothing."""
    if isinstance(error, OSError) and error.strerror:
        return one_line(str(error.strerror), 200)
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, KeyError) and error.args:
        return f"no {error.args[0]!r}"
    return one_line(str(error), 200) or type(error).__name__


def shown(path: str | bytes | os.PathLike) -> str:
    """A path as messages name it: bytes that are no UTF-8, and control characters, escaped."""
    text = os.fsdecode(path)
    return "".join(c if c.isprintable() else _escaped(c) for c in text)

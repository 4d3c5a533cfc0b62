"""InputError, the base of the packages' own errors, and texts of exceptions in one short line."""

from __future__ import annotations

import os

LONGEST = 300  # characters of a message


class InputError(Exception):
    """Bad input: a file, a net or an argument that cannot be used. The message is one clear line.

    Each package raises its own kind, which is also a built-in exception: caffe.errors.CaffeError is
    a RuntimeError, data_tools.cli.DataError a ValueError.
    """


def one_line(text: str, longest: int = LONGEST) -> str:
    """The text in one line of at most `longest` characters; a longer one lacks its middle.

    Only line breaks and other control characters change, to blanks or escapes: a backslash in a
    path stays what it is.
    """
    words = " ".join(text.split())
    words = "".join(c if c.isprintable() else _escaped(c) for c in words)
    if len(words) <= longest:
        return words
    tail = longest // 3
    return f"{words[: longest - tail - 5]} ... {words[-tail:]}"


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

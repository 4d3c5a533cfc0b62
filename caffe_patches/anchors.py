"""Finds anchors in a source text, and the block of braces that follows one."""

from __future__ import annotations

import re

from caffe_patches.errors import PatchError

# Braces, and the tokens of C++ and proto in which braces do not count: comments and literals.
_TOKEN = re.compile(
    r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'|[{}]", re.DOTALL
)


def find_once(text: str, anchor: str) -> int:
    """The offset after the anchor, which must occur in the text exactly once, as whole words.

    Raises PatchError otherwise.
    """
    before = r"(?<!\w)" if re.match(r"\w", anchor) else ""
    after = r"(?!\w)" if re.search(r"\w$", anchor) else ""
    found = list(re.finditer(before + re.escape(anchor) + after, text))
    if len(found) != 1:
        raise PatchError(f"is there {len(found)} times, expected once")
    return found[0].end()


def line_start(text: str, offset: int) -> int:
    """The offset of the first character of the line that contains offset."""
    return text.rfind("\n", 0, offset) + 1


def line_end(text: str, offset: int) -> int:
    """The offset after the line that contains offset."""
    newline = text.find("\n", offset)
    return len(text) if newline < 0 else newline + 1


def block(text: str, offset: int) -> tuple[int, int]:
    """The offsets of the first opening brace at or after offset, and of its closing brace.

    Raises PatchError if there is no such pair.
    """
    opening, depth = -1, 0
    for token in _TOKEN.finditer(text, offset):
        if token[0] == "{":
            opening = token.start() if depth == 0 else opening
            depth += 1
        elif token[0] == "}" and depth > 0:
            depth -= 1
            if depth == 0:
                return opening, token.start()
    raise PatchError("is followed by no block of braces")

"""Names from files (records, frames, classes, runs) as one component of a path."""

from __future__ import annotations

import hashlib
import re

LONGEST = 200  # bytes; file systems allow 255, and endings are added

_HEX = re.compile("[0-9A-Fa-f]{2}")


def component(name: str | bytes) -> str:
    """A name as one component of a path, different for different names.

    Slashes and what else has a meaning in paths are written as in URLs: '/' becomes %2F. That holds
    for backslashes, control characters, bytes that are no UTF-8, a dot at the beginning, and a '%'
    that would look like such an escape; an empty name becomes '%'. `original` undoes it. A name of
    more than LONGEST bytes lacks its middle and has a hash of all of it instead.
    """
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    out = []
    whole = text
    if len(text) > 2 * LONGEST:  # its middle does not show anyway
        text = text[:LONGEST] + text[-LONGEST:]
    for place, character in enumerate(text):
        escape = (
            character in "/\\\x7f"
            or not character.isprintable()
            or (character == "." and place == 0)
            or (character == "%" and (len(text) == 1 or _HEX.match(text, place + 1)))
        )
        if escape:
            data = character.encode("utf-8", "surrogateescape" if _raw(character) else "strict")
            out.append("".join(f"%{byte:02X}" for byte in data))
        else:
            out.append(character)
    found = "".join(out) or "%"
    data = found.encode()
    if len(data) <= LONGEST and text is whole:
        return found
    digest = hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    half = (LONGEST - len(digest) - 2) // 2
    head, tail = data[:half].decode(errors="ignore"), data[-half:].decode(errors="ignore")
    return f"{head}~{digest}~{tail}"


def _raw(character: str) -> bool:
    """Whether it stands for a byte that is no UTF-8 (Python's surrogateescape)."""
    return "\udc80" <= character <= "\udcff"


def original(component: str) -> str:
    """The name that became this component; one that was too long stays shortened."""
    if component == "%":
        return ""
    data = bytearray()
    place = 0
    while place < len(component):
        character = component[place]
        if character == "%" and _HEX.match(component, place + 1):
            data.append(int(component[place + 1 : place + 3], 16))
            place += 3
        else:
            data += character.encode("utf-8", "surrogatepass")
            place += 1
    return data.decode("utf-8", "surrogateescape")

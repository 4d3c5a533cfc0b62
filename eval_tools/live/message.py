"""Messages between the page and the server: facts as JSON, and blocks of bytes.

A message is the length of its JSON (4 bytes, little-endian), the JSON, and the blocks one after
another. The JSON's "blocks" says the name and the number of bytes of each.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

from boundary.reading import reading
from data_tools.cli import DataError

_LENGTH = struct.Struct("<I")
_MOST = 2**16  # bytes of the page's JSON


def pack(facts: Mapping[str, Any], blocks: Mapping[str, bytes]) -> bytes:
    """A message."""
    sizes = [[name, len(data)] for name, data in blocks.items()]
    head = json.dumps({**facts, "blocks": sizes}).encode()
    return b"".join([_LENGTH.pack(len(head)), head, *blocks.values()])


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A message's facts and blocks. Raises DataError if it is none."""
    with reading("the page's message", "a message that can be read", DataError):
        (length,) = _LENGTH.unpack_from(data)
        place = _LENGTH.size + length
        if length > _MOST or place > len(data):
            raise ValueError(f"its head has {length} bytes")
        facts = json.loads(data[_LENGTH.size : place])
        blocks: dict[str, bytes] = {}
        for name, size in facts.pop("blocks"):
            if type(size) is not int or not 0 <= size <= len(data) - place:
                raise ValueError(f"block {name} of {size} bytes")
            blocks[str(name)] = data[place : place + size]
            place += size
        if place != len(data):
            raise ValueError(f"{len(data) - place} bytes are left over")
    return facts, blocks

"""Seeded mutators of bytes, text and protobuf messages. All draw from a random.Random alone."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

INTEGERS = (
    0, 1, -1, 2, 3, 7, 16, 100, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 10**6,
    2**24, 2**28, 2**31 - 1, 2**31, -(2**31), 2**32 - 1, 2**32, 10**12, 2**62, 2**63 - 1, 2**63,
    2**64 - 1,
)  # fmt: skip
NUMBERS = (
    "0", "-0", "1", "-1", "2", "17", "0.5", "1e-320", "1e38", "1e39", "1e308", "1e400", "nan",
    "-nan", "inf", "-inf", "127", "128", "255", "256", "65536", "1000000", "2147483647",
    "2147483648", "-2147483648", "4294967295", "4294967296", "9223372036854775807",
    "9223372036854775808", "18446744073709551615", "18446744073709551616", "1.5.5", "0x10",
    "0777", "1,5", "1f", "1e", "--1", "+1", "\u0663", "1_000", "",
)  # fmt: skip
FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-40, 1e-320, 1e38, 3.5e38, 1e308, float("nan"), float("inf"),
    float("-inf"), -1e30,
)  # fmt: skip
WORDS = (
    "", " ", "\0", "a\0b", "\n", "a\nb", "\u00e4", "\u2028", "\u202e", "x" * 300, "x" * 5000,
    "../x", "/", ".", "..", "%s", "{data}", "nan", "0", "-1", "TRAIN", "data", "label", "loss",
    "MAX", "x/y", "\\", '"', "'", "#", "e\u0301", "\U0001f600", "nowhere.txt", "nul",
)  # fmt: skip

# Whether files stay as they are: the sound input of each family must be read without complaint.
idle = False

BytesMutator = Callable[[random.Random, bytes, bytes], bytes]


# ---------------------------------------------------------------------------------------------
# Bytes
# ---------------------------------------------------------------------------------------------


def _place(rng: random.Random, data: bytes) -> int:
    """A position; half of them near an end, where headers and tables of contents are."""
    how = rng.random()
    if how < 0.35:
        return rng.randrange(min(len(data), 64) or 1)
    if how < 0.45:
        return len(data) - 1 - rng.randrange(min(len(data), 64)) if data else 0
    return rng.randrange(len(data) or 1)


def _flip(rng: random.Random, data: bytes, other: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        if out:
            out[_place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(out)


def _byte(rng: random.Random, data: bytes, other: bytes) -> bytes:
    out = bytearray(data)
    if out:
        out[_place(rng, data)] = rng.choice((0, 1, 10, 32, 127, 128, 255, rng.randrange(256)))
    return bytes(out)


def _insert(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + rng.randbytes(rng.choice((1, 1, 2, 4, 16, 300))) + data[at:]


def _delete(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at = _place(rng, data)
    return data[:at] + data[at + rng.choice((1, 1, 2, 4, 8, 64, 1024)) :]


def _truncate(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: _place(rng, data)]


def _repeat(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at, size = _place(rng, data), rng.choice((1, 4, 16, 64, 512))
    return data[:at] + data[at : at + size] * rng.choice((2, 3, 10, 100)) + data[at + size :]


def _splice(rng: random.Random, data: bytes, other: bytes) -> bytes:
    return data[: _place(rng, data)] + other[_place(rng, other) :]


def _copy_block(rng: random.Random, data: bytes, other: bytes) -> bytes:
    source, target = _place(rng, data), _place(rng, data)
    size = rng.choice((1, 2, 4, 8, 32, 256))
    block = data[source : source + size]
    return data[:target] + block + data[target + len(block) :]


def _integer(rng: random.Random, data: bytes, other: bytes) -> bytes:
    size = rng.choice((1, 2, 4, 4, 8))
    value = (rng.choice(INTEGERS) % 2 ** (8 * size)).to_bytes(size, rng.choice(("little", "big")))
    at = _place(rng, data)
    if rng.random() < 0.5:
        at -= at % size
    return data[:at] + value + data[at + size :]


def _step(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Adds a little to a number: sizes and counts become off by one."""
    size, order = rng.choice((1, 2, 4)), rng.choice(("little", "big"))
    at = _place(rng, data)
    value = int.from_bytes(data[at : at + size], order) + rng.choice((-2, -1, 1, 2, 16, 4096))
    return data[:at] + (value % 2 ** (8 * size)).to_bytes(size, order) + data[at + size :]


def _floating(rng: random.Random, data: bytes, other: bytes) -> bytes:
    value = rng.choice(FLOATS)
    order = rng.choice("<>")
    if rng.random() < 0.5:
        packed = struct.pack(order + "d", value)
    else:
        packed = struct.pack(order + "f", value if abs(value) < 3e38 else float("inf"))
    at = _place(rng, data)
    return data[:at] + packed + data[at + len(packed) :]


def _fill(rng: random.Random, data: bytes, other: bytes) -> bytes:
    at, size = _place(rng, data), rng.choice((4, 16, 64, 4096))
    filling = bytes([rng.choice((0, 255, 65))]) * len(data[at : at + size])
    return data[:at] + filling + data[at + size :]


BYTES: tuple[BytesMutator, ...] = (
    _flip, _flip, _byte, _byte, _insert, _delete, _truncate, _repeat, _splice, _copy_block,
    _integer, _integer, _step, _floating, _fill,
)  # fmt: skip


def some_bytes(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """`data` after one to four byte-level changes; `other`: a second file to splice in."""
    if idle:
        return data
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        data = rng.choice(BYTES)(rng, data, other or data)
    return data


# ---------------------------------------------------------------------------------------------
# Text
# ---------------------------------------------------------------------------------------------

_TOKEN = re.compile(
    rb"[A-Za-z_]\w*|[-+]?\d[\w.+-]*|\"[^\"\n]*\"|'[^'\n]*'|[ \t]+|\n|[^\w\s]", re.ASCII
)
_NUMBER = re.compile(rb"[-+]?\d[\d.]*(?:[eE][-+]?\d+)?")


def _tokens(data: bytes) -> list[bytes]:
    return _TOKEN.findall(data)


def _swap_tokens(rng: random.Random, data: bytes, other: bytes) -> bytes:
    parts = _tokens(data)
    if len(parts) > 1:
        i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
        parts[i], parts[j] = parts[j], parts[i]
    return b"".join(parts)


def _drop_token(rng: random.Random, data: bytes, other: bytes) -> bytes:
    parts = _tokens(data)
    if parts:
        del parts[rng.randrange(len(parts))]
    return b"".join(parts)


def _repeat_token(rng: random.Random, data: bytes, other: bytes) -> bytes:
    parts = _tokens(data)
    if parts:
        i = rng.randrange(len(parts))
        parts[i : i + 1] = [parts[i]] * rng.choice((2, 3, 50))
    return b"".join(parts)


def _foreign_token(rng: random.Random, data: bytes, other: bytes) -> bytes:
    parts, others = _tokens(data), _tokens(other)
    if parts and others:
        parts[rng.randrange(len(parts))] = rng.choice(others)
    return b"".join(parts)


def _number(rng: random.Random, data: bytes, other: bytes) -> bytes:
    found = list(_NUMBER.finditer(data))
    if not found:
        return data + rng.choice(NUMBERS).encode()
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(NUMBERS).encode() + data[match.end() :]


def _word(rng: random.Random, data: bytes, other: bytes) -> bytes:
    found = list(re.finditer(rb"(?<=\")[^\"\n]*(?=\")|[A-Za-z_]\w*", data))
    if not found:
        return data + rng.choice(WORDS).encode()
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(WORDS).encode() + data[match.end() :]


def _lines(rng: random.Random, data: bytes, other: bytes) -> bytes:
    lines = data.split(b"\n")
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    how = rng.randrange(5)
    if how == 0:
        del lines[i]
    elif how == 1:
        lines.insert(j, lines[i])
    elif how == 2:
        lines[i], lines[j] = lines[j], lines[i]
    elif how == 3:
        lines.insert(i, rng.choice(other.split(b"\n")))
    else:
        lines[i] = lines[i][: rng.randrange(len(lines[i]) + 1)]
    return b"\n".join(lines)


def _encoding(rng: random.Random, data: bytes, other: bytes) -> bytes:
    how = rng.randrange(8)
    at = _place(rng, data)
    if how == 0:
        return b"\xef\xbb\xbf" + data
    if how == 1:
        return data.decode("latin-1").encode("utf-16")
    if how == 2:
        return data[:at] + b"\0" + data[at:]
    if how == 3:
        return data[:at] + rng.choice((b"\xe4", b"\xff", b"\xc3", b"\x80")) + data[at:]
    if how == 4:
        return data.replace(b"\n", rng.choice((b"\r\n", b"\r", b"\n\n", b"", b"\x0b", b"\x85")))
    if how == 5:
        return data.replace(b" ", rng.choice((b"\t", b"   ", b"", b"\xc2\xa0")))
    if how == 6:
        return data.replace(b",", rng.choice((b";", b"\t", b",,", b", ")))
    return data[:at] + rng.choice(WORDS).encode() + data[at:]


def _nesting(rng: random.Random, data: bytes, other: bytes) -> bytes:
    opening = rng.choice((b"{", b"[", b"(", b'{"a":', b"x {", b"layer {"))
    at, count = _place(rng, data), rng.choice((1, 20, 300, 5000))
    return data[:at] + opening * count + data[at:]


def _stretch(rng: random.Random, data: bytes, other: bytes) -> bytes:
    parts = _tokens(data)
    if parts:
        i = rng.randrange(len(parts))
        parts[i] = parts[i] * rng.choice((100, 1000, 20000))
    return b"".join(parts)


TEXT: tuple[BytesMutator, ...] = (
    _swap_tokens, _drop_token, _repeat_token, _foreign_token, _foreign_token, _number, _number,
    _number, _number, _word, _word, _lines, _lines, _encoding, _nesting, _stretch,
)  # fmt: skip


def some_text(rng: random.Random, data: bytes, other: bytes = b"") -> bytes:
    """`data`, a text, after one to four changes of tokens, numbers, lines, encoding or bytes."""
    if idle:
        return data
    for _ in range(rng.choice((1, 1, 1, 2, 2, 4))):
        mutators = BYTES if rng.random() < 0.1 else TEXT
        data = rng.choice(mutators)(rng, data, other or data)
    return data


# ---------------------------------------------------------------------------------------------
# Protobuf
# ---------------------------------------------------------------------------------------------

_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}


def _messages(message: Message) -> list[Message]:
    """The message and those in it."""
    found = [message]
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if field.is_repeated else [value]:
                found += _messages(part)
    return found


def _value(rng: random.Random, field: FieldDescriptor, words: Sequence[str]) -> Any:
    if field.cpp_type in _RANGES:
        low, high = _RANGES[field.cpp_type]
        return min(max(rng.choice(INTEGERS), low), high)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
        return rng.choice(FLOATS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM:
        return rng.choice(list(field.enum_type.values)).number
    if field.type == FieldDescriptor.TYPE_BYTES:
        return rng.choice((b"", b"\0", b"\x89PNG", bytes(300), rng.randbytes(20)))
    return rng.choice(tuple(words) or WORDS) if rng.random() < 0.6 else rng.choice(WORDS)


def _set_field(
    rng: random.Random, message: Message, field: FieldDescriptor, words: Sequence[str]
) -> None:
    if field.is_repeated:
        values = getattr(message, field.name)
        if values and rng.random() < 0.4:
            del values[rng.randrange(len(values)) :]
        for _ in range(rng.choice((0, 1, 1, 1, 2, 5, 40))):
            if field.message_type is None:
                values.append(_value(rng, field, words))
            elif values and rng.random() < 0.7:
                values.add().CopyFrom(rng.choice(list(values)))
            else:
                values.add()
    elif field.message_type is not None:
        if rng.random() < 0.15:
            message.ClearField(field.name)
        else:
            part = getattr(message, field.name)
            part.SetInParent()
            some_message(rng, part, words, 1)
    elif rng.random() < 0.1:
        message.ClearField(field.name)
    else:
        setattr(message, field.name, _value(rng, field, words))


def some_message(
    rng: random.Random, message: Message, words: Sequence[str] = (), changes: int | None = None
) -> None:
    """Sets one to four fields, at any depth, to values of their types that are rarely met.

    words: likely values of texts. Fields that are set already are taken more often than others.
    """
    if idle:
        return
    for _ in range(changes or rng.choice((1, 1, 1, 2, 2, 4))):
        part = rng.choice(_messages(message))
        known = [field for field, _ in part.ListFields()]
        fields = known if known and rng.random() < 0.5 else list(part.DESCRIPTOR.fields)
        if fields:
            _set_field(rng, part, rng.choice(fields), words)


# ---------------------------------------------------------------------------------------------
# JSON
# ---------------------------------------------------------------------------------------------


def _json_value(rng: random.Random) -> Any:
    return rng.choice((
        None, True, False, 0, -1, 2**63, 10**400, 1.5, 1e308, float("nan"), "", "x", "x" * 400,
        "a\nb", "\ud800", [], [1], ["a"], [[1, 2]], [None], {}, {"a": 1}, [[0, 0, 0]] * 3,
        list(range(500)),
    ))  # fmt: skip


def some_json(rng: random.Random, data: bytes) -> bytes:
    """A JSON text with one to three values replaced by others of any type, or keys changed."""
    if idle:
        return data
    tree = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places: list[tuple[Any, Any]] = []
        waiting = [tree]
        while waiting:
            part = waiting.pop()
            if isinstance(part, (dict, list)):
                keys = list(part) if isinstance(part, dict) else range(min(len(part), 4))
                places += [(part, key) for key in keys]
                waiting += [part[key] for key in keys]
        if not places or rng.random() < 0.03:
            tree = _json_value(rng)
            continue
        part, key = rng.choice(places)
        how = rng.random()
        if how < 0.75:
            part[key] = _json_value(rng)
        elif how < 0.9:
            del part[key]
        elif isinstance(part, dict):
            part[rng.choice(WORDS)] = part.pop(key)
    return json.dumps(tree).encode()

"""Respells fields that a fork repeats and BVLC's schema has once, so that its texts are read.

Greentea and others pool over any number of axes, `kernel_size: 2 kernel_size: 2 kernel_size: 1`;
TSN's solvers name several devices, `device_id: [0, 1]`. Such values go to a repeated field.
"""

from __future__ import annotations

from google.protobuf.descriptor import Descriptor

from caffe.formats.unknown import Token, tokens

# (message, field that BVLC has once) -> the repeated field that a fork's several values go to.
REPEATED = {
    ("PoolingParameter", "kernel_size"): "kernel_size_3d",
    ("PoolingParameter", "stride"): "stride_3d",
    ("PoolingParameter", "pad"): "pad_3d",
    ("SolverParameter", "device_id"): "device_ids",
}
# The fields that two such values go to: those of height and width.
PAIRS = {
    ("PoolingParameter", "kernel_size"): ("kernel_h", "kernel_w"),
    ("PoolingParameter", "stride"): ("stride_h", "stride_w"),
    ("PoolingParameter", "pad"): ("pad_h", "pad_w"),
}


def respelled(text: str, root: Descriptor) -> str:
    """The text with these fields under their other names where they have several values; the same
    text if there are none. Lines stay where they are.
    """
    found: list[tuple[Token, str]] = []
    try:
        _message(tokens(text), 0, root, found)
    except (IndexError, RecursionError):  # it ends early, or never stops opening
        return text
    lines = text.split("\n")
    for token, other in sorted(found, key=lambda pair: pair[0][1:], reverse=True):
        line, start = lines[token.line - 1], token.column - 1
        lines[token.line - 1] = line[:start] + other + line[start + len(token.text) :]
    return "\n".join(lines)


def _message(
    pieces: list[Token], at: int, kind: Descriptor | None, found: list[tuple[Token, str]]
) -> int:
    """Go through one message from a place; returns the place of its end."""
    seen: dict[str, list[Token]] = {}
    several: set[str] = set()
    while at < len(pieces) and pieces[at].text not in ("}", ">"):
        name = pieces[at]
        at += 1
        if name.text in (";", ","):
            continue
        field = kind.fields_by_name.get(name.text) if kind else None
        seen.setdefault(name.text, []).append(name)
        if pieces[at].text == ":":
            at += 1
        if pieces[at].text == "[":
            several.add(name.text)
        at = _value(pieces, at, field.message_type if field else None, found)
    for name, places in seen.items():
        other = REPEATED.get((kind.name, name)) if kind else None
        pair = PAIRS.get((kind.name, name), ()) if kind else ()
        if len(places) == len(pair) and name not in several:
            found.extend(zip(places, pair, strict=True))
        elif other and (len(places) > 1 or name in several):
            found.extend((place, other) for place in places)
    return at


def _value(
    pieces: list[Token], at: int, kind: Descriptor | None, found: list[tuple[Token, str]]
) -> int:
    """Go through one value; returns the place behind it."""
    opening = pieces[at].text
    if opening in ("{", "<"):
        return _message(pieces, at + 1, kind, found) + 1
    if opening == "[":
        at += 1
        while pieces[at].text != "]":
            at = _value(pieces, at, kind, found)
            at += pieces[at].text == ","
        return at + 1
    at += 2 if opening == "-" else 1
    while at < len(pieces) and opening[:1] in "\"'" and pieces[at].text[:1] in "\"'":
        at += 1  # texts one after another are one
    return at

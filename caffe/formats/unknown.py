"""Finds everything in a text or a net that this engine does not know, to tell it in one message.

protobuf's parser stops at the first unknown field. A text from a fork of Caffe may have many, and
who wants to run it needs to know all of them, and which fork it is.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from caffe.errors import CaffeError
from caffe.formats.forks import FORK_TYPES, fork_of
from caffe.proto import caffe_pb2 as pb

_TOKENS = re.compile(
    r"""(?P<blank>\s+|\#[^\n]*)
    |(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    |(?P<word>[A-Za-z0-9_.+-]+)
    |(?P<mark>.)""",
    re.VERBOSE | re.DOTALL,
)
_ENDS = ("}", ">", "]")
_LONGEST = 60  # characters of a name that are shown
_NAMED = 6  # places or layers that are listed of each name; of more, the number is given


class Unknown(CaffeError):
    """A text or a net with names that this engine does not know; the message has all of them."""

    longest = 20_000


class Token(NamedTuple):
    """A piece of a text, and its place, from 1."""

    text: str
    line: int
    column: int


@dataclass(frozen=True)
class Name:
    """A name that is not known: a field of a message, or a value of an enumeration."""

    owner: str
    name: str
    kind: str  # "field" or "value"
    among: tuple[str, ...]  # the names that are known there


def tokens(text: str) -> list[Token]:
    """The pieces of a protobuf text, without blanks and comments."""
    found, line, start = [], 1, 0
    for match in _TOKENS.finditer(text):
        piece = match[0]
        if match.lastgroup != "blank":
            found.append(Token(piece, line, match.start() - start + 1))
        if breaks := piece.count("\n"):
            line += breaks
            start = match.start() + piece.rindex("\n") + 1
    return found


class Reading:
    """What going through a text finds.

    names: all names that its messages do not know -> their places, (line, column). types: the
    layers' types and names. forks: how often fields of each fork are set.
    A text that is no protobuf text gives what is found before its fault.
    """

    def __init__(self, text: str, root: Descriptor) -> None:
        self.names: dict[Name, list[tuple[int, int]]] = {}
        self.layers: list[tuple[str, str]] = []
        self.forks: Counter[str] = Counter()
        with suppress(IndexError, RecursionError):  # it ends early, or never stops opening
            _Walker(tokens(text), self).message(root)


class _Walker:
    """Goes through a text's tokens beside the descriptors of its messages."""

    def __init__(self, found: list[Token], reading: Reading) -> None:
        self.tokens = found
        self.reading = reading
        self.at = 0

    def take(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def peek(self) -> str:
        return self.tokens[self.at].text

    def message(self, kind: Descriptor | None) -> None:
        """The fields up to the message's end, or the text's."""
        known: dict[str, str] = {}
        while self.at < len(self.tokens) and self.peek() not in _ENDS:
            name = self.take()
            if name.text in (";", ","):
                continue
            field = kind.fields_by_name.get(name.text) if kind else None
            if field is not None:
                _vote(field, self.reading.forks)
            elif kind is not None and name.text[:1].isalpha():
                self.note(Name(kind.name, name.text, "field", tuple(kind.fields_by_name)), name)
            if self.peek() == ":":
                self.take()
            known[name.text] = self.peek()[1:-1]
            self.value(field)
        if kind is not None and kind.name == "LayerParameter":
            self.reading.layers.append((known.get("type", ""), known.get("name", "")))

    def value(self, field: FieldDescriptor | None) -> None:
        """One value, or a list of values."""
        if self.peek() == "[":
            self.take()
            while self.peek() != "]":
                self.value(field)
                if self.peek() == ",":
                    self.take()
            self.take()
        elif self.peek() in ("{", "<"):
            self.take()
            self.message(field.message_type if field else None)
            self.take()
        else:
            value = self.take()
            if value.text == "-":
                value = self.take()
            while self.at < len(self.tokens) and value.text[:1] in "\"'" and self.is_text():
                self.take()  # texts one after another are one
            if field is not None and field.enum_type is not None:
                self.check(field.enum_type, value)

    def is_text(self) -> bool:
        return self.peek()[:1] in ('"', "'")

    def check(self, kind: EnumDescriptor, value: Token) -> None:
        if value.text[:1].isalpha() and value.text not in kind.values_by_name:
            self.note(Name(kind.name, value.text, "value", tuple(kind.values_by_name)), value)

    def note(self, name: Name, token: Token) -> None:
        self.reading.names.setdefault(name, []).append((token.line, token.column))


# ---------------------------------------------------------------------------------------------
# Layer types
# ---------------------------------------------------------------------------------------------

_types: Collection[str] = ()


def set_types(types: Collection[str]) -> None:
    """Tell the readers of texts which layer types there are; the catalogue of layers does so."""
    global _types
    _types = types


def types_among(layers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """The types that are not known -> the names of their layers; layers: (type, name) of each."""
    found: dict[str, list[str]] = {}
    for kind, name in layers if _types else ():
        if kind and kind not in _types:
            found.setdefault(kind, []).append(name)
    return found


def check_types(net: pb.NetParameter) -> None:
    """Raise Unknown, naming all of them and their layers, if types of a net are not known.

    A type that a Python module of the user registers is known. One single layer is left to the
    catalogue, which also looks for the nearest name.
    """
    found = types_among((r.type, r.name) for r in net.layer if not r.python_param.module)
    if sum(map(len, found.values())) < 2:
        return
    where = f"net {net.name!r}: " if net.name else "the net: "
    forks: Counter[str] = Counter()
    _count(net, forks)
    raise Unknown(where + _of_types(found) + _looks_like("net", forks, found))


def _of_types(found: dict[str, list[str]]) -> str:
    """'unknown layer types 'A' (layers 'x', 'y'), 'B' (layer 'z')'."""
    shown = [
        f"{_cut(kind)!r} ({_listed('layer', [repr(_cut(n)) for n in names])})"
        for kind, names in found.items()
    ]
    return f"unknown layer type{'s' if len(found) > 1 else ''} " + ", ".join(shown)


def _listed(what: str, items: Sequence[str]) -> str:
    more = f" and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return f"{what}{'s' if len(items) > 1 else ''} {', '.join(items[:_NAMED])}{more}"


# ---------------------------------------------------------------------------------------------
# Which fork
# ---------------------------------------------------------------------------------------------


def _looks_like(what: str, forks: Counter[str], types: Iterable[str] = ()) -> str:
    """'; it looks like a net of NVCaffe' by the fields and types that only forks have, or ''."""
    votes = forks.copy()
    for kind in types:
        if fork := FORK_TYPES.get(kind):
            votes[fork] += 40  # a type tells more than a field that several forks share
    return f"; it looks like a {what} of {votes.most_common(1)[0][0]}" if votes else ""


def _vote(field: FieldDescriptor, votes: Counter[str]) -> None:
    forks = [name for name in fork_of(field).split(", ") if name]
    for name in forks:
        votes[name] += 4 // len(forks)


def _count(message: Message, votes: Counter[str]) -> None:
    for field, value in message.ListFields():
        _vote(field, votes)
        if field.message_type is not None:
            for item in [value] if isinstance(value, Message) else value:
                _count(item, votes)


# ---------------------------------------------------------------------------------------------
# The message
# ---------------------------------------------------------------------------------------------


def explain(
    text: str, root: type[Message], source: str, near: Callable[[Name], str]
) -> Unknown | None:
    """The error that names everything unknown in a text; None if nothing in it is.

    near: the hint for a wrong name, ' (did you mean "x"?)', or ''.
    """
    found = Reading(text, root.DESCRIPTOR)
    if not found.names:
        return None
    types = types_among(found.layers)
    (first, places), *others = found.names.items()
    line, column = places[0]
    said = f'{source}:{line}:{column}: {first.owner} has no {first.kind} "{_cut(first.name)}"'
    said += near(first)
    parts = [f"also at {_at(places[1:])}"] if len(places) > 1 else []
    parts += [f"{n.owner} has no {n.kind} {_cut(n.name)!r}: {_at(at)}" for n, at in others]
    parts += [_of_types(types)] if types else []
    what = "solver" if root is pb.SolverParameter else "net"
    return Unknown("; ".join([said, *parts]) + _looks_like(what, found.forks, types))


def _cut(name: str) -> str:
    """A name as it is, or the beginning of one that nobody would write."""
    return name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."


def _at(places: Sequence[tuple[int, int]]) -> str:
    more = f" and {len(places) - _NAMED} more places" if len(places) > _NAMED else ""
    return ", ".join(f"{line}:{column}" for line, column in places[:_NAMED]) + more

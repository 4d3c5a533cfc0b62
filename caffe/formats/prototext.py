"""Reads and prints protobuf's text format like C++ Caffe: prototxt files, settings in logs."""

from __future__ import annotations

import difflib
import math
import re
import struct
from collections.abc import Iterator
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from caffe.errors import CaffeError
from caffe.formats import unknown
from caffe.formats.respelled import respelled

M = TypeVar("M", bound=Message)

# What Python's parser says of unknown names, and the position that starts it.
_NO_NAME = re.compile(r"has no field named|has no value named")
_POSITION = re.compile(r"^\d+:\d+ : ")
_ESCAPES = {10: "\\n", 13: "\\r", 9: "\\t", 34: '\\"', 39: "\\'", 92: "\\\\"}


# ---------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------


def parse(data: bytes, message_class: type[M], source: str) -> M:
    """Parse a message from its text form.

    source: the name of the text in errors, usually its path.

    Raises CaffeError "SOURCE:LINE:COLUMN: what is wrong", with the nearest known name if a field or
    value is unknown. There is no position if the data is binary or a required field is unset.
    """
    if b"\0" in data:
        raise CaffeError(f"{source}: binary data; expected a {_short(message_class)} as text")
    # Comments may be in any encoding; undecodable bytes become escapes, which strings may hold.
    text = data.decode("utf-8-sig", errors="backslashreplace")
    message = message_class()
    try:
        _fill(message, text)
    except text_format.ParseError as error:
        raise _explain(error, text, message_class, source) from None
    missing = message.FindInitializationErrors()
    if missing:
        raise CaffeError(f"{source}: required field {missing[0]} is not set")
    if b"\\" in data:
        check_texts(message, source)
    return message


def _fill(message: Message, text: str) -> None:
    """Parse a text into an empty message, if need be with a fork's repeated fields respelled."""
    try:
        text_format.Parse(text, message)
    except text_format.ParseError:
        other = respelled(text, message.DESCRIPTOR)
        if other == text:
            raise
        message.Clear()
        text_format.Parse(other, message)


def check_texts(message: Message, source: str) -> None:
    """Raise CaffeError, starting with `source`, if a name or path holds a null character."""
    field = _holds_null(message)
    if field:
        raise CaffeError(f"{source}: {field} holds a null character, which no name or path may")


def _holds_null(message: Message) -> str:
    """The first field with a null character in its text, as 'layer.data_param.source'."""
    kinds = FieldDescriptor.CPPTYPE_STRING, FieldDescriptor.CPPTYPE_MESSAGE
    for field, value in message.ListFields():
        if field.cpp_type not in kinds:
            continue
        for item in value if _is_repeated(value) else (value,):
            if isinstance(item, Message):
                if inner := _holds_null(item):
                    return f"{field.name}.{inner}"
            elif isinstance(item, str) and "\0" in item:
                return field.name
    return ""


def _short(message_class: type[Message]) -> str:
    return message_class.DESCRIPTOR.name


def _explain(
    error: text_format.ParseError, text: str, root: type[Message], source: str
) -> CaffeError:
    """The error with its position; for unknown names all of them, each with its position."""
    line, column = error.GetLine(), error.GetColumn()
    place = source if line is None else f"{source}:{line}:{column}"
    what = _POSITION.sub("", str(error))
    if line is not None:  # remove the parser's quote of the line, which may be the whole file
        what = what.removeprefix(f"'{text.split(chr(10))[line - 1]}': ")
    what = " ".join(what.split())
    if _NO_NAME.search(what) and (found := unknown.explain(text, root, source, _near)):
        return found
    return CaffeError(f"{place}: {what}")


def _near(name: unknown.Name) -> str:
    """The nearest known name, or the few that there are."""
    known = {_core(n): n for n in name.among}
    wrong = _core(name.name)
    near = difflib.get_close_matches(wrong, known, n=1, cutoff=0.85)
    near = near or [core for core in known if core.startswith(wrong)]
    if not near and name.kind == "value":
        near = difflib.get_close_matches(wrong, known, n=1)
    if near:
        return f' (did you mean "{known[near[0]]}"?)'
    few = name.kind == "value" and len(known) <= 6
    return f"; expected {', '.join(name.among)}" if few else ""


def _core(name: str) -> str:
    """What tells a name from others: permute_param and parameter_param have little in common."""
    return name.lower().removesuffix("_param")


# ---------------------------------------------------------------------------------------------
# Printing
# ---------------------------------------------------------------------------------------------


def text(message: Message) -> str:
    """A message as C++ protobuf's TextFormat prints it: one field per line in the order of field
    numbers, indented by two spaces per level. Floats have six digits, or nine if six are not exact.
    """
    return "".join(_lines(message, ""))


def _lines(message: Message, indent: str) -> Iterator[str]:
    for field, value in message.ListFields():
        # We avoid `field.label`, which newer protobuf runtimes deprecate.
        values = value if _is_repeated(value) else (value,)
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for item in values:
                yield f"{indent}{field.name} {{\n"
                yield from _lines(item, indent + "  ")
                yield f"{indent}}}\n"
        else:
            for item in values:
                yield f"{indent}{field.name}: {_scalar(field, item)}\n"


def _is_repeated(value: Any) -> bool:
    return hasattr(value, "append") or hasattr(value, "add")


def _scalar(field: FieldDescriptor, value: Any) -> str:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_FLOAT:
        return _float(value)
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return _double(value)
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return "true" if value else "false"
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else str(value)
    if kind == FieldDescriptor.CPPTYPE_STRING:
        data = value.encode() if isinstance(value, str) else value
        return '"' + "".join(map(_escape, data)) + '"'
    return str(value)


def _escape(byte: int) -> str:
    if byte in _ESCAPES:
        return _ESCAPES[byte]
    return chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"


def _float(value: float) -> str:
    if not math.isfinite(value):
        return f"{value:g}"
    short = f"{value:.6g}"
    try:
        exact = struct.pack("<f", float(short)) == struct.pack("<f", value)
    except OverflowError:  # six digits can round the largest floats up beyond the range
        exact = False
    return short if exact else f"{value:.9g}"


def _double(value: float) -> str:
    short = f"{value:.15g}"
    return short if float(short) == value else f"{value:.17g}"

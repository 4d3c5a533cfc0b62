"""Reads and prints protobuf's text format like C++ Caffe: prototxt files, settings in logs."""

from __future__ import annotations

import difflib
import math
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TypeVar

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from caffe.errors import CaffeError

M = TypeVar("M", bound=Message)

# The messages of Python's parser about unknown names, and the position that starts them.
_NO_FIELD = re.compile(r'Message type "(?P<type>[\w.]+)" has no field named "(?P<name>[^"]*)"')
_NO_VALUE = re.compile(r'Enum type "(?P<type>[\w.]+)" has no value named (?P<name>\S+?)\.?$')
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
        text_format.Parse(text, message)
    except text_format.ParseError as error:
        raise CaffeError(_explain(error, text, message.DESCRIPTOR, source)) from None
    missing = message.FindInitializationErrors()
    if missing:
        raise CaffeError(f"{source}: required field {missing[0]} is not set")
    if b"\\" in data:
        check_texts(message, source)
    return message


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


def _explain(error: text_format.ParseError, text: str, root: Descriptor, source: str) -> str:
    """One line: the position, the error, and the nearest known name if a name is unknown."""
    line, column = error.GetLine(), error.GetColumn()
    place = source if line is None else f"{source}:{line}:{column}"
    what = _POSITION.sub("", str(error))
    if line is not None:  # remove the parser's quote of the line, which may be the whole file
        what = what.removeprefix(f"'{text.split(chr(10))[line - 1]}': ")
    what = " ".join(what.split())
    if found := _NO_FIELD.search(what):
        descriptor = _find(root, found["type"])
        names = [field.name for field in descriptor.fields] if descriptor else []
        return f'{place}: {_last(found)} has no field "{found["name"]}"{_near(found, names)}'
    if found := _NO_VALUE.search(what):
        enum = _find(root, found["type"])
        names = [value.name for value in enum.values] if enum else []
        expected = f"; expected {', '.join(names)}" if 0 < len(names) <= 6 else ""
        near = _near(found, names) or expected
        return f'{place}: {_last(found)} has no value "{found["name"]}"{near}'
    return f"{place}: {what}"


def _last(found: re.Match[str]) -> str:
    return found["type"].rpartition(".")[2]


def _near(found: re.Match[str], names: list[str]) -> str:
    lower = {name.lower(): name for name in names}
    wrong = found["name"].lower()
    near = difflib.get_close_matches(wrong, lower, n=1, cutoff=0.8)
    near = near or [name for name in lower if name.startswith(wrong)]
    near = near or difflib.get_close_matches(wrong, lower, n=1)
    return f' (did you mean "{lower[near[0]]}"?)' if near else ""


def _find(root: Descriptor, full_name: str) -> Any:
    """The message or enum with that name, in the file of `root` or one that it imports, or None."""
    pool = root.file.pool
    for find in pool.FindMessageTypeByName, pool.FindEnumTypeByName:
        with suppress(KeyError):
            return find(full_name)
    return None


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

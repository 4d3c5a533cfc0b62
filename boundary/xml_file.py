"""Reads XML as a tree of elements. Document types are refused, so that no entity is expanded."""

from __future__ import annotations

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from boundary.errors import InputError, shown
from boundary.reading import PathLike, read_bytes, reading

MAX_XML = 2**24  # bytes of a file; its tree takes many times that
MAX_NODES = 2**22  # elements and attributes of a file
MAX_DEPTH = 100  # elements within elements


def read_xml(path: PathLike, root: str, error: type[InputError], most: int = MAX_XML) -> Element:
    """The outermost element, which must be <root>.

    most: the bytes that are read; more is sound where long texts are expected.

    Raises `error` if the file cannot be read, is no XML, declares a document type, has more than
    MAX_NODES elements and attributes, nests elements deeper than MAX_DEPTH, or has another element
    outermost.
    """
    data = read_bytes(path, error, most, plain=True)
    with reading(path, "XML", error):
        tree = _parsed(data)
    if tree.tag != root:
        raise error(f"{shown(path)}: the outermost element is {tree.tag!r}, expected {root!r}")
    return tree


def _parsed(data: bytes) -> Element:
    parser, builder, depth, nodes = expat.ParserCreate(), TreeBuilder(), 0, 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth, nodes
        depth += 1
        nodes += 1 + len(attributes)
        if nodes > MAX_NODES:
            raise ValueError(f"more than {MAX_NODES} elements and attributes")
        if depth > MAX_DEPTH:
            raise ValueError(f"line {parser.CurrentLineNumber}: more than {MAX_DEPTH} levels")
        builder.start(tag, attributes)

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise ValueError(f"line {parser.CurrentLineNumber}: declares a document type")

    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(data, True)
    return builder.close()

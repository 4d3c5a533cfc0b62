"""The commands: `python -m netgen NET` and its companions solver, summary, draw and papers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from boundary.errors import shortened
from boundary.streams import say
from caffe import TEST, TRAIN
from caffe.commands.script import load_engine, status
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.graph.rules import layers_in
from caffe.proto.caffe_pb2 import NetParameter
from netgen import filelist, known
from netgen.arguments import PHASES, parse
from netgen.papers import write_papers
from netgen.texts import net_text, solver_text

if TYPE_CHECKING:
    from caffe.graph.sketch import LayerSketch


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit status: 0, 1 for bad input, 2 for bad usage."""
    return status("netgen: error", lambda: _run(sys.argv[1:] if argv is None else argv))


def _run(argv: list[str]) -> None:
    args = parse(argv)
    _COMMANDS.get(args.command, _print_net)(args)


def _print_net(args: argparse.Namespace) -> None:
    for note in known.complete(args):
        _say(note)
    with _in_range():
        text = net_text(args)
    _write(*text)


def _print_solver(args: argparse.Namespace) -> None:
    net = files.read_net(args.net)
    with _in_range():
        text = solver_text(args, net)
    _write(*text)


@contextmanager
def _in_range() -> Iterator[None]:
    """Numbers that follow from the options may be larger than a field holds (a ValueError)."""
    try:
        yield
    except ValueError as error:
        raise CaffeError(str(error)) from None


def _write(text: str, warnings: list[str]) -> None:
    for warning in warnings:
        _say(f"warning: {warning}")
    sys.stdout.write(text)


def _say(text: str) -> None:
    say(shortened(f"netgen: {text}"))


def _print_summary(args: argparse.Namespace) -> None:
    net, phase = _read_net(args)
    load_engine()
    from netgen.summary import summary

    sys.stdout.write(summary(net, phase, _sketch(args, net, phase)))


def _draw(args: argparse.Namespace) -> None:
    net, phase = _read_net(args)
    load_engine()
    from netgen.draw import draw

    try:
        sketches = _sketch(args, net, phase)
    except CaffeError as error:
        if args.input:
            raise
        _say(f"warning: drawn without sizes: {error}")
        sketches = None
    draw(net, args.out, phase, sketches, title=args.title, expand=args.expand)


def _write_papers(args: argparse.Namespace) -> None:
    _say(f"wrote {len(write_papers(args.folder))} files to {args.folder}")


_COMMANDS = {
    "solver": _print_solver,
    "summary": _print_summary,
    "draw": _draw,
    "papers": _write_papers,
}


# -------------------------------------------------------------------------------------------------
# Nets in files
# -------------------------------------------------------------------------------------------------


def _read_net(args: argparse.Namespace) -> tuple[NetParameter, int]:
    """The net in args.file with the state that the arguments give it, and the phase to show."""
    net = files.read_net(args.file)
    if args.level is not None:
        net.state.level = args.level
    net.state.stage.extend(args.stage)
    try:
        return net, PHASES[args.phase] if args.phase else _default_phase(net)
    except CaffeError as error:
        raise CaffeError(f"{args.file}: {error}") from None


def _default_phase(net: NetParameter) -> int:
    """TRAIN for a net that has layers for training alone, such as its data; else TEST."""
    train, test = layers_in(net, TRAIN), layers_in(net, TEST)
    return TRAIN if any(layer not in test for layer in train) else TEST


def _sketch(args: argparse.Namespace, net: NetParameter, phase: int) -> list[LayerSketch]:
    """The layers with their shapes; warns of layers of an unknown type."""
    from caffe.graph.sketch import UnknownShape, sketch

    try:
        inputs = filelist.shapes(layers_in(net, phase)) | dict(args.input)
        sketches = sketch(net, phase, inputs)
        if "" in inputs and not _needs_unnamed(net, phase, inputs, sketches):
            raise CaffeError(
                "--input without a blob's name is for an input whose shape is not known, and there "
                "is none; expected --input BLOB=N,C,H,W"
            )
    except UnknownShape as error:
        raise CaffeError(f"{args.file}: {error} with --input N,C,H,W") from None
    except CaffeError as error:
        raise CaffeError(f"{args.file}: {error}") from None
    for item in sketches:
        if item.unknown and filelist.settings(item.layer) and None not in item.tops:
            item.problem, item.unknown = "", False  # RGBDImages has no parameters
        if item.unknown and None in item.tops:
            _warn_of_unknown(args.file, item)
    return sketches


def _needs_unnamed(
    net: NetParameter, phase: int, inputs: dict, sketches: list[LayerSketch]
) -> bool:
    """Whether the shape without a name changes anything."""
    from caffe.graph.sketch import sketch

    named = {name: shape for name, shape in inputs.items() if name}
    try:
        return [item.tops for item in sketch(net, phase, named)] != [s.tops for s in sketches]
    except CaffeError:
        return True


def _warn_of_unknown(file: str, item: LayerSketch) -> None:
    names = [name for name, s in zip(item.layer.top, item.tops, strict=True) if s is None]
    options = " ".join(f"--input {name}=N,C,H,W" for name in names)
    where = f"{file}: layer {item.layer.name!r} ({item.layer.type})"
    _say(f"warning: {where}: {item.problem}; give the shape of {', '.join(names)} with {options}")

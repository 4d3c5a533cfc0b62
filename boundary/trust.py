"""What a net's prototxt may do: whether layers would run code or write files.

It looks at a parsed NetParameter of any Caffe's schema and imports nothing that the net names, so
it can stand before `caffe.Net`, on this engine and on others.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Layers of ours that only read: (module, class).
OWN = {("data_tools.layers", "RGBDImages")}
# The place of the project's packages, beside this one.
HOME = Path(__file__).resolve().parent.parent


def add_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add --trust to a command that loads a net."""
    parser.add_argument(
        "--trust",
        action="store_true",
        help="let the net's layers run Python code and write files, as its prototxt says "
        "(default: such nets are refused)",
    )


def check(net: Any, where: object, error: type[Exception]) -> None:
    """Raise `error` for the first layer that would run code or write files; our own may run.

    net: a NetParameter of any age, upgraded or not; all of its layers count, whatever their phase.
    where: the name of the net's file, for the message.
    """
    for name, kind, layer in _layers(net):
        if what := _misdeed(kind, layer):
            raise error(
                f"{where}: layer {name!r} ({kind}) {what}; refused unless --trust is given, with "
                "which a net's layers may run code and write files"
            )


def _layers(net: Any) -> Iterator[tuple[str, str, Any]]:
    """(name, type, message with the layer's parameters), in the words of the net's own format."""
    for layer in net.layer:
        yield layer.name, layer.type, layer
    for old in net.layers:
        if hasattr(old, "layer") and old.HasField("layer"):  # V0: one level deeper, type as text
            yield old.layer.name, old.layer.type, old.layer
        else:  # V1: type as an enum
            kinds = old.DESCRIPTOR.fields_by_name["type"].enum_type.values_by_number
            yield old.name, kinds[old.type].name if old.type in kinds else "", old


def _misdeed(kind: str, layer: Any) -> str:
    """What the layer would do that only trusted nets may; empty if nothing."""
    python = getattr(layer, "python_param", None)
    module = python.module if python else ""
    plain = kind.replace("_", "").lower()  # HDF5Output, HDF5_OUTPUT (V1), hdf5_output (V0)
    if plain == "python" or module:
        own = (module, python.layer if python else "") in OWN and _is_ours(module)
        return "" if own else f"runs the Python module {module!r}"
    if plain == "hdf5output":
        return f"writes the file {layer.hdf5_output_param.file_name!r}"
    if plain == "flowriter":  # in FlowNet2's fork
        place = layer.writer_param.file or layer.writer_param.folder
        return f"writes files of flows: {place!r}"
    if plain == "matwrite":  # in DeepLab's forks
        return "writes .mat files"
    detection = getattr(layer, "detection_output_param", None)  # in SSD's forks
    saved = getattr(detection, "save_output_param", None)
    folder = getattr(saved, "output_directory", "")
    return f"writes into the folder {folder!r}" if folder else ""


def _is_ours(module: str) -> bool:
    """Whether importing that module of a package would load our file, not one that shadows it."""
    package, _, name = module.partition(".")
    loaded = sys.modules.get(module)
    if loaded is not None:
        return _same(getattr(loaded, "__file__", None), HOME / package / f"{name}.py")
    try:
        spec = importlib.util.find_spec(package)  # of a top package: imports nothing
    except (ImportError, ValueError):
        return False
    return spec is not None and _same(spec.origin, HOME / package / "__init__.py")


def _same(path: str | None, ours: Path) -> bool:
    return path is not None and os.path.realpath(path) == os.path.realpath(ours)

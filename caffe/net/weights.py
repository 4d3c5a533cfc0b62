"""Weights into a net and out of it: Caffe's files, and sharing between nets."""

from __future__ import annotations

import difflib
import fnmatch
import os
from collections.abc import Sequence, Set

import numpy as np
import torch

from caffe.blob import Blob, shape_string
from caffe.errors import CaffeError
from caffe.formats import files
from caffe.graph.wiring import Wiring
from caffe.layers import Layer
from caffe.process.log import WARNING, emit
from caffe.process.ranks import announce

# How users of commands, and of functions, accept weights that are not the whole net's.
PARTIAL = " (accepted with --partial)"


def load(
    wiring: Wiring,
    weights_file: files.PathLike,
    complete: bool = False,
    fresh: Sequence[str] = (),
) -> int:
    """Load a file's weights; see Net.copy_from. Returns how many layers took some."""
    path = os.fspath(weights_file)
    left_out = matching(wiring, fresh)
    weights = files.read_weights(path, emit)
    whole = weights.net is not None  # HDF5 leaves out what a layer shares with an earlier one
    copies: list[tuple[Blob, np.ndarray]] = []
    found: set[tuple[str, int]] = set()
    for name, arrays in weights.items():
        if name in left_out:
            continue
        if name not in wiring.by_name:
            line = 746 if whole else 801
            announce(f"net.cpp:{line}", f"Ignoring source layer {name}")
            continue
        copies += _match(wiring, wiring.by_name[name], arrays, path, whole)
        found |= {(name, i) for i, array in enumerate(arrays) if array is not None}
    if left_out:
        names = ", ".join(left_out)
        announce("net.cpp:1", f"Fresh, whatever {path} has for them: {names}")
        # A parameter that such a layer shares starts afresh, too, whoever else has it.
        keys = {id(blob.data_key) for name in left_out for blob in wiring.by_name[name].blobs}
        copies = [(blob, array) for blob, array in copies if id(blob.data_key) not in keys]
        found |= {(name, i) for name in left_out for i in range(len(wiring.by_name[name].blobs))}
    learned = [name for name, layer in wiring.by_name.items() if layer.blobs]
    if learned and not found:  # Caffe says nothing
        announce(
            "net.cpp:1",
            f"{path}: no weights for any of the {len(learned)} layers that have some; all keep "
            "what they had",
            WARNING,
        )
    if complete:
        others = [name for name, arrays in weights.items() if arrays]
        # Other layers, as losses of the training net, are usual; only others are another net's.
        check_complete(wiring, found, path, [] if found else others)
    for blob, array in copies:
        blob.tensor().copy_(torch.from_numpy(np.ascontiguousarray(array)).view(blob.shape))
    return len({name for name, _ in found}.difference(left_out))


def matching(wiring: Wiring, patterns: Sequence[str]) -> list[str]:
    """The layers with weights that one of the patterns names, in the net's order.

    patterns: names, or fnmatch's patterns, of layers. Raises CaffeError for one without a layer.
    """
    names = [name for name, layer in wiring.by_name.items() if layer.blobs]
    chosen: set[str] = set()
    for pattern in patterns:
        fitting = [n for n in names if n == pattern or fnmatch.fnmatchcase(n, pattern)]
        if not fitting:
            near = difflib.get_close_matches(pattern, names, n=3)
            known = f"near it: {_some(near)}" if near else f"they are: {_some(names) or 'none'}"
            raise CaffeError(f"fresh: no layer with weights is named {pattern!r}; {known}")
        chosen.update(fitting)
    return [name for name in names if name in chosen]


def check_complete(
    wiring: Wiring,
    found: Set[tuple[str, int]],
    where: str,
    left: Sequence[str] = (),
    hint: str = "",
) -> None:
    """Raise CaffeError unless weights were found for all parameters of a net, and nothing is left.

    Layers with weights must have names of their own, or their weights could not be told apart.

    found: (layer name, number of the blob) of each; what layers share is needed once. left: names
    in the file that fit nothing. hint: what may be done about them.
    """
    missing = [
        f"{name!r} ({i})"
        for name, layer in wiring.by_name.items()
        for i in range(len(layer.blobs))
        if (name, i) not in found and not wiring.parameters.is_shared(layer, i)
    ]
    with_blobs = [layer.name for layer in wiring.layers if layer.blobs]
    twice = sorted({repr(name) for name in with_blobs if with_blobs.count(name) > 1})
    if twice:  # a file's weights are found by the layer's name
        raise CaffeError(f"{where}: several layers with weights share the name {_some(twice)}")
    problems = [
        f"{what}: {_some(names)}{then}"
        for what, names, then in (
            ("no weights for these parameters of layers", missing, ""),
            ("these names of the file are no layer's parameter", left, hint),
        )
        if names
    ]
    if problems:
        raise CaffeError(f"{where}: {'; '.join(problems)}{PARTIAL}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _match(
    wiring: Wiring, layer: Layer, arrays: Sequence[np.ndarray | None], path: str, whole: bool
) -> list[tuple[Blob, np.ndarray]]:
    where = f"{path}: layer {layer.name!r}"
    blobs = layer.blobs
    hint = (
        f"to learn this layer from scratch: -fresh {layer.name}, in Python fresh=[{layer.name!r}]"
    )
    if (len(arrays) != len(blobs)) if whole else (len(arrays) > len(blobs)):
        raise CaffeError(
            f"{where}: the file has {len(arrays)} parameter blob(s), the net {len(blobs)}; {hint}"
        )
    pairs = []
    for i, blob in enumerate(blobs):
        array = layer.from_file(i, arrays)
        if array is None:
            if wiring.parameters.is_shared(layer, i):
                continue
            raise CaffeError(f"{where}: the file has no parameter blob {i}")
        legacy = (1,) * (4 - len(blob.shape)) + blob.shape
        same = layer.unit_axes and _without_units(array.shape) == _without_units(blob.shape)
        if not same and array.shape not in (blob.shape, legacy):
            raise CaffeError(
                f"{where}, parameter blob {i}: shape mismatch: the file has "
                f"{shape_string(array.shape)}, the net {shape_string(blob.shape)}; {hint}"
            )
        pairs.append((blob, array))
    return pairs


def _without_units(shape: Sequence[int]) -> list[int]:
    return [n for n in shape if n != 1]


def share(target: Wiring, source: Wiring) -> None:
    """Let `target` use the weights of `source`, as one memory, in the layers of the same name.

    Raises CaffeError if their parameters differ in number or shape.
    """
    for theirs in source.layers:
        mine = target.by_name.get(theirs.name)
        if mine is None:
            announce("net.cpp:678", f"Ignoring source layer {theirs.name}")
            continue
        if len(mine.blobs) != len(theirs.blobs):
            raise CaffeError(
                f"layer {theirs.name!r}: cannot share {len(theirs.blobs)} parameter blob(s) "
                f"with {len(mine.blobs)}"
            )
        for i, (blob, other) in enumerate(zip(mine.blobs, theirs.blobs, strict=True)):
            if blob.shape != other.shape:
                raise CaffeError(
                    f"layer {theirs.name!r}, parameter blob {i}: cannot share "
                    f"{shape_string(other.shape)} with {shape_string(blob.shape)}"
                )
            blob.share_data(other)


def save(wiring: Wiring, path: files.PathLike, write_diff: bool) -> None:
    """Write a .caffemodel: structure and weights, and with write_diff the gradients."""
    data = {name: [b.data for b in layer.blobs] for name, layer in wiring.by_name.items()}
    diffs = _diffs(wiring) if write_diff else None
    files.write_weights(path, wiring.to_proto(), data, diffs)


def save_hdf5(wiring: Wiring, path: files.PathLike, write_diff: bool) -> None:
    """Write the weights as HDF5; a shared parameter is written once, by its owner."""
    data = {
        name: [
            None if wiring.parameters.is_shared(layer, i) else b.data
            for i, b in enumerate(layer.blobs)
        ]
        for name, layer in wiring.by_name.items()
    }
    files.write_weights_hdf5(path, data, _diffs(wiring) if write_diff else None)


def _diffs(wiring: Wiring) -> dict[str, list[np.ndarray]]:
    return {name: [b.diff for b in layer.blobs] for name, layer in wiring.by_name.items()}

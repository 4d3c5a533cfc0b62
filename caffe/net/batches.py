"""Passes over any number of inputs, batch by batch, as pycaffe's forward_all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np

from caffe.blob import Blob
from caffe.errors import CaffeError


class Runs(Protocol):
    """The part of a net that passes over batches need."""

    blobs: Mapping[str, Blob]
    inputs: Sequence[str]
    outputs: Sequence[str]

    def forward(self, blobs: Sequence[str] | None = None, **inputs: np.ndarray) -> dict: ...

    def backward(self, diffs: Sequence[str] | None = None, **top_diffs: np.ndarray) -> dict: ...


def run(
    net: Runs,
    inputs: Mapping[str, Sequence[np.ndarray]],
    tops: Mapping[str, Sequence[np.ndarray]],
    blobs: Sequence[str] | None,
    diffs: Sequence[str] | None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Run a net over all batches of `inputs`; returns the joined outputs and gradients.

    inputs: arrays by name, one sample per entry of the first axis. tops: the outputs' gradients.
    blobs: names of blobs to return beside the outputs. diffs: blobs whose gradients are returned
    beside those of the inputs; None: no backward passes.

    Raises CaffeError for arrays of different lengths.
    """
    counts = {len(v) for v in (*inputs.values(), *tops.values())}
    if len(counts) != 1:
        raise CaffeError(f"arrays of one length were expected, got lengths {sorted(counts)}")
    outs: dict[str, list] = {name: [] for name in {*net.outputs, *(blobs or [])}}
    grads: dict[str, list] = {}
    if diffs is not None:
        grads = {name: [] for name in {*net.inputs, *diffs}}
    back = list(pieces(net, tops)) if tops else []
    for k, batch in enumerate(pieces(net, inputs)):
        for name, values in net.forward(blobs=blobs, **batch).items():
            outs[name].extend(values.copy())
        if diffs is not None:
            given = back[k] if back else {}
            for name, values in net.backward(diffs=diffs, **given).items():
                grads[name].extend(values.copy())
    count = counts.pop()
    joined = ({k: np.asarray(v)[:count] for k, v in d.items()} for d in (outs, grads))
    return next(joined), next(joined)


def pieces(
    net: Runs, arrays: Mapping[str, Sequence[np.ndarray]]
) -> Iterator[dict[str, np.ndarray]]:
    """The arrays in pieces of the net's batch size, the last one filled up with zeros."""
    size = next(iter(net.blobs.values())).shape[0]
    for k in range(0, len(next(iter(arrays.values()))), size):
        batch = {}
        for name, values in arrays.items():
            piece = np.asarray(values[k : k + size])
            missing = size - len(piece)
            batch[name] = np.concatenate([piece, np.zeros((missing, *piece.shape[1:]))])
        yield batch

"""Inputs on which a net is compared with what was made of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from caffe.graph.wiring import Wiring
from caffe.net import Net

HIGHEST = (255, 1, 255, 1)  # of each draw: as pictures have them, or as floats
Feeds = dict[str, np.ndarray]


def draws(net: Net, names: Sequence[str], more_samples: int = 0) -> Iterator[Feeds]:
    """Several draws of values for these inputs of a net, each by name.

    They are different numbers that lie evenly, so that pooling finds no near equals in the inputs
    themselves: of 0 to 255, and of 0 to 1 in every other draw. Where a layer takes whole numbers
    (Layer.choices), it gets those; the sequence indicators of a recurrent layer are 0 at the first
    step. Last come zeros, for a net that refuses all of these.
    more_samples: how many samples are added to those of the prototxt.
    """
    shapes = {name: net.blobs[name].shape for name in names}
    shapes = {n: (s[0] + more_samples, *s[1:]) if s else s for n, s in shapes.items()}
    choices = {name: _choices(net.wiring, name) for name in names}
    for seed, high in enumerate(HIGHEST):
        rng = np.random.default_rng(seed)
        yield {n: _drawn(rng, shape, choices[n], high) for n, shape in shapes.items()}
    yield {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


def _drawn(rng: np.random.Generator, shape: Sequence[int], choices: int, high: float) -> np.ndarray:
    if choices:
        values = rng.integers(0, choices, shape).astype(np.float32)
        if choices == 2 and len(shape) > 1:
            values[:1] = 0
        return values
    count = math.prod(shape)
    values = rng.permutation(count) * (high / max(count - 1, 1))
    return values.astype(np.float32).reshape(shape)


def _choices(wiring: Wiring, name: str) -> int:
    """How many whole numbers the layers that take an input accept; 0: any value."""
    waiting, found = [wiring.blob_names.index(name)], []
    while waiting:
        number = waiting.pop()
        for layer, bottoms, tops in wiring:
            if number not in bottoms:
                continue
            index = bottoms.index(number)
            shapes = [wiring.blobs[i].shape for i in bottoms]
            if few := layer.choices(index, shapes):
                found.append(few)
            elif layer.copies() or layer.shares_memory:
                waiting += [top for top in tops if top != number]
    return min(found, default=0)


def inputs_of(net: Net, outputs: Sequence[str]) -> list[str]:
    """The inputs that these outputs depend on."""
    found = []
    for i, needed in net.wiring.needed_for(outputs):
        layer = net.wiring.layers[i]
        if layer.source and not layer.fillers_of_tops() and not layer.blobs:
            found += [top for top in net.wiring.names(net.wiring.tops[i]) if top in needed]
    return found

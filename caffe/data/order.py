"""In which order records are read, and the random numbers of each."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from caffe.formats.db import Database


def epoch_order(count: int, seed: int, source: str, epoch: int) -> np.ndarray:
    """The order of `count` records in one epoch: the same for the same seed, source and epoch."""
    entropy = [seed & 0xFFFFFFFF, zlib.crc32(source.encode(errors="surrogateescape")), epoch]
    return np.random.default_rng(entropy).permutation(count)


@dataclass(frozen=True)
class Turns:
    """Which records of an endless stream, numbered from 0, fall to one of several readers.

    `first`, and then every `step`-th: readers in step take turns, and a number says it all: what
    epoch a record is of, where in it, and what is drawn for it.
    """

    first: int = 0
    step: int = 1


def endless(
    count: int,
    turns: Turns,
    seed: int | None = None,
    source: str = "",
    on_restart: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, int]]:
    """(number, index) of a reader's records, forever: each index below `count` once an epoch.

    In order, or, with a seed, permuted anew each epoch. on_restart: called after each epoch.
    """
    number = turns.first
    while True:
        epoch, place = divmod(number, count)
        order = range(count) if seed is None else epoch_order(count, seed, source, epoch)
        for i in order[place :: turns.step]:
            yield number, int(i)
            number += turns.step
        on_restart()


def endless_records(
    database: Database,
    turns: Turns,
    seed: int | None,
    source: str,
    on_restart: Callable[[], None],
) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, key, record) of a reader's records, forever, as `endless` orders them."""
    count = len(database)
    if seed is not None:
        keys = database.keys()
        for number, i in endless(count, turns, seed, source, on_restart):
            yield number, keys[i], database.get(keys[i])
    number = turns.first
    while True:
        for key, value in database.every(number % count, turns.step):
            yield number, key, value
            number += turns.step
        on_restart()


class RecordRandom:
    """Random numbers for each record of a stream: a function of seed, name and record number.

    So that a position in the stream is all there is to remember, and that it does not matter how
    many readers share the records out.
    """

    def __init__(self, seed: int, name: str, phase: int) -> None:
        entropy = [seed & 0xFFFFFFFF, zlib.crc32(name.encode()), phase]
        key = np.random.SeedSequence(entropy).generate_state(2, np.uint64)
        self._bits = np.random.Philox(key=key)
        self._start = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, number: int) -> np.random.Generator:
        """Record `number`'s random numbers, from the first; the generator is one for all."""
        self._start["state"]["counter"][1] = number  # counter[0] counts what is drawn
        self._bits.state = self._start
        return self._generator

"""The order in which records are read, and the random numbers of each record."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from caffe.formats.db import Database


@dataclass(frozen=True)
class Shuffling:
    """A new order each epoch. It depends on the seed and the number of records alone, so that
    layers whose sources hold equally many records, such as pictures and their labels, stay in step.

    source: only for runs that began when the source's name counted, too; empty for all others.
    """

    seed: int
    source: str = ""

    def order(self, count: int, epoch: int, part: int | None = None) -> np.ndarray:
        """A permutation of `count` records in an epoch; part: the number of their file, if a source
        consists of several.
        """
        seed = self.seed & 0xFFFFFFFF
        if self.source:
            name = self.source if part is None else f"{self.source}:{part}"
            entropy = [seed, zlib.crc32(name.encode(errors="surrogateescape")), epoch]
        else:
            entropy = [seed, epoch, part or 0]
        return np.random.default_rng(entropy).permutation(count)


@dataclass(frozen=True)
class Turns:
    """The records that one of several readers takes from an endless stream, numbered from 0.

    The reader takes record `first` and then every `step`-th. A record's number fixes its epoch, its
    place there and its random draws.
    """

    first: int = 0
    step: int = 1


def endless(
    count: int,
    turns: Turns,
    shuffling: Shuffling | None = None,
    on_restart: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, int]]:
    """(number, index) of a reader's records, forever; an epoch holds each index below `count` once.

    The indices are in order or, with `shuffling`, permuted anew each epoch. on_restart: called
    after each epoch.
    """
    number = turns.first
    while True:
        epoch, place = divmod(number, count)
        for i in epoch_order(count, shuffling, epoch)[place :: turns.step]:
            yield number, int(i)
            number += turns.step
        on_restart()


def epoch_order(
    count: int, shuffling: Shuffling | None, epoch: int, part: int | None = None
) -> Sequence[int] | np.ndarray:
    """The numbers below `count` in order or, with `shuffling`, in the order of its `order`."""
    return range(count) if shuffling is None else shuffling.order(count, epoch, part)


def endless_records(
    database: Database,
    turns: Turns,
    shuffling: Shuffling | None,
    on_restart: Callable[[], None],
) -> Iterator[tuple[int, bytes, bytes]]:
    """(number, key, record) of a reader's records, forever, in the order of `endless`."""
    count = len(database)
    if shuffling is not None:
        keys = database.keys()
        for number, i in endless(count, turns, shuffling, on_restart):
            yield number, keys[i], database.get(keys[i])
    number = turns.first
    while True:
        for key, value in database.every(number % count, turns.step):
            yield number, key, value
            number += turns.step
        on_restart()


class RecordRandom:
    """Random numbers for each record of a stream, fixed by seed, name, phase and record number.

    A snapshot therefore only needs the position in the stream, and the numbers do not depend on how
    many readers divide the records.
    """

    def __init__(self, seed: int, name: str, phase: int) -> None:
        entropy = [seed & 0xFFFFFFFF, zlib.crc32(name.encode()), phase]
        key = np.random.SeedSequence(entropy).generate_state(2, np.uint64)
        self._bits = np.random.Philox(key=key)
        self._start = self._bits.state
        self._generator = np.random.Generator(self._bits)

    def at(self, number: int) -> np.random.Generator:
        """The generator, set to the start of record `number`'s random numbers.

        All calls return the same generator, so use it up before the next call.
        """
        self._start["state"]["counter"][1] = number  # counter[0] counts the draws
        self._bits.state = self._start
        return self._generator

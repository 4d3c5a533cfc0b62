"""The order in which records are read, and the random numbers of each record."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from caffe.formats.db import Database


def epoch_order(count: int, seed: int, source: str, epoch: int) -> np.ndarray:
    """A permutation of `count` records that depends on seed, source and epoch alone."""
    entropy = [seed & 0xFFFFFFFF, zlib.crc32(source.encode(errors="surrogateescape")), epoch]
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
    seed: int | None = None,
    source: str = "",
    on_restart: Callable[[], None] = lambda: None,
) -> Iterator[tuple[int, int]]:
    """(number, index) of a reader's records, forever; an epoch holds each index below `count` once.

    The indices are in order or, with a seed, permuted anew each epoch. on_restart: called after
    each epoch.
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
    """(number, key, record) of a reader's records, forever, in the order of `endless`."""
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

"""Fixtures of the netgen tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from caffe.process.log import init_log, lowest_level
from caffe.proto.caffe_pb2 import Datum


@pytest.fixture
def make_lmdb(tmp_path: Path) -> Callable[..., str]:
    """Makes an LMDB of `count` blank records below tmp_path; returns its path."""

    def make(name: str, count: int, width: int = 320, height: int = 240, channels: int = 5) -> str:
        path = str(tmp_path / name)
        data = bytes(channels * width * height)
        datum = Datum(channels=channels, height=height, width=width, data=data)
        # Only the first record is ever looked into.
        first, blank = datum.SerializeToString(), Datum().SerializeToString()
        with lmdb.open(path, map_size=2**26) as env, env.begin(write=True) as transaction:
            for i in range(count):
                transaction.put(b"%08d" % i, blank if i else first)
        return path

    return make


@pytest.fixture(autouse=True)
def _log_level_as_before() -> Iterator[None]:
    """The commands set the engine's log level for their process."""
    before = lowest_level()
    yield
    init_log(before)

"""For all tests: what a test sets for the whole process does not reach the next one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from caffe.process import log


@pytest.fixture(autouse=True)
def the_log_as_it_was() -> Iterator[None]:
    """Commands that run in this process keep the log quiet from then on."""
    sink, level = log._sink, log._sink.min_level
    yield
    log._sink = sink
    sink.min_level = level

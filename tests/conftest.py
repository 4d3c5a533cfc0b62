"""For all tests: what a test sets for the whole process does not reach the next one."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a core; before torch counts them
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some tests import onnxruntime themselves

from caffe.process import log

SINK = log._sink
LEVEL = SINK.min_level


@pytest.fixture(autouse=True)
def the_log_as_it_was() -> Iterator[None]:
    """Commands that run in this process, in fixtures as well, keep the log quiet from then on."""
    log._sink = SINK
    SINK.min_level = LEVEL
    yield
    log._sink = SINK
    SINK.min_level = LEVEL

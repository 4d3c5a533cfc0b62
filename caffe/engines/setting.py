"""Which engine nets have: caffe.set_engine."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from caffe.engines.choosing import TORCH
from caffe.engines.delegate import EngineDelegate
from caffe.engines.programs import ENGINES, Engine
from caffe.errors import CaffeError
from caffe.net import Net
from caffe.plan import delegates

AUTO = "auto"
NAMES = (AUTO, TORCH, *ENGINES)


@dataclass(frozen=True)
class _Delegates:
    """Gives nets their delegates. chooses: whether these find out which engine is the fastest."""

    name: str
    engines: tuple[Engine, ...]
    chooses: bool

    def of(self, net: Net) -> EngineDelegate:
        return EngineDelegate(net, self.engines, self.chooses)


def set_engine(name: str) -> None:
    """Choose what computes whole passes of nets in TEST phase with `observed = False`.

    'torch', the default: PyTorch, by the net's plan. 'openvino', 'onnxruntime': that program, in
    float32 on the CPU, where it can. 'auto': the fastest of these that are installed. It is found
    out in a net's first pass for each shape of its inputs, by some passes of each, and kept under
    $XDG_CACHE_HOME/fusenet; only a program whose answers are the plan's to 1e-4 of an output's
    largest value is taken.

    Layers without an ONNX form (losses, boxes, Python), passes that start or end at a layer or ask
    for blobs in between, and nets on a GPU or in precision bf16 stay with PyTorch; -v 1 of the
    commands logs why. Nets with a plan, too, change over with their next pass.

    Raises CaffeError for any other name, and for a program that is not installed.
    """
    delegates.use(_found(name))


def engine() -> str:
    """The name that set_engine was given last; 'torch' by default."""
    found = delegates.current()
    return found.name if isinstance(found, _Delegates) else TORCH


@contextmanager
def using(name: str) -> Iterator[None]:
    """Within the block, nets have that engine; then the one before. As set_engine, this is for the
    whole process, so threads must not be in such blocks at the same time.
    """
    before = delegates.current()
    set_engine(name)
    try:
        yield
    finally:
        delegates.use(before)


@functools.cache  # one object for each name, by which nets notice a change
def _for(name: str) -> _Delegates:
    if name != AUTO:
        return _Delegates(name, (ENGINES[name],), False)
    return _Delegates(name, tuple(e for e in ENGINES.values() if e.is_installed()), True)


def _found(name: str) -> _Delegates | None:
    if name not in NAMES:
        raise CaffeError(f"engine {name!r} is unknown; expected one of {', '.join(NAMES)}")
    if name == TORCH:
        return None
    if name != AUTO and not ENGINES[name].is_installed():
        raise CaffeError(
            f"engine {name!r} needs the packages {name} and onnx: pip install 'fusenet[cpu]'"
        )
    return _for(name)

"""What the tests of engines share: a cache of their own, nets to compute, and an engine that is
plain Python.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import caffe
from caffe.engines import programs, setting
from caffe.engines.programs import Engine
from caffe.process import log

pytest.importorskip("onnx", reason="the package onnx is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where choices are kept; engines compute on the CPU."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    caffe.set_mode_cpu()
    return tmp_path / "fusenet" / "engines"


@pytest.fixture
def deploy(make_net: Callable[..., caffe.Net]) -> Callable[..., caffe.Net]:
    """deploy(text): a net in TEST phase that is not observed, with random inputs."""

    def make(text: str) -> caffe.Net:
        net = make_net(text, caffe.TEST)
        net.observed = False
        rng = np.random.default_rng(1)
        for name in net.inputs:
            net.blobs[name].data[...] = rng.normal(size=net.blobs[name].shape)
        return net

    return make


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What engines tell of themselves."""
    lines: list[str] = []
    monkeypatch.setattr(log, "detail", lambda place, message: lines.append(message))
    return lines


class Fake:
    """An engine that runs onnx's reference program, and does what a test says.

    compiled: the shapes of the inputs of each model that was compiled. passes: how many there were.
    broken: the exception that compiling, or a pass, raises. off: what is added to all answers.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.compiled: list[list[tuple[int, ...]]] = []
        self.passes = 0
        self.broken: dict[str, Exception] = {}
        self.off = 0.0
        self.seconds = 0.0  # what a pass takes on the clock that the test gives
        self.threads: list[int] = []
        self.clock: list[float] = [0.0]

    def compile(self, content: bytes, threads: int) -> programs.Compiled:
        import onnx
        from onnx.reference import ReferenceEvaluator

        if "compile" in self.broken:
            raise self.broken["compile"]
        model = onnx.load_from_string(content)
        self.compiled.append(
            [tuple(d.dim_value for d in i.type.tensor_type.shape.dim) for i in model.graph.input]
        )
        self.threads.append(threads)
        evaluator = ReferenceEvaluator(model)

        return Bound(self, evaluator)


class Bound:
    """A model of a Fake, which computes on the memory that it was told last."""

    def __init__(self, fake: Fake, evaluator: Any) -> None:
        self.fake, self.evaluator = fake, evaluator

    def bind(
        self, inputs: Mapping[str, torch.Tensor], outputs: Sequence[torch.Tensor]
    ) -> programs.Run:
        self.inputs = {name: values.numpy() for name, values in inputs.items()}
        self.outputs = [values.numpy() for values in outputs]
        return lambda: self.run()  # another one each time

    def run(self) -> None:
        fake = self.fake
        if "run" in fake.broken:
            raise fake.broken["run"]
        fake.passes += 1
        fake.clock[0] += fake.seconds
        made = self.evaluator.run(None, self.inputs)
        for place, values in zip(self.outputs, made, strict=True):
            place[...] = values + fake.off


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Fake]]:
    """Fakes in place of the real engines, by their names."""
    found = {name: Fake(name) for name in ("openvino", "onnxruntime")}
    engines = {name: Engine(name, fake.compile) for name, fake in found.items()}
    monkeypatch.setattr(Engine, "is_installed", lambda self: True)
    monkeypatch.setattr(setting, "ENGINES", engines)
    setting._for.cache_clear()
    yield found
    setting._for.cache_clear()

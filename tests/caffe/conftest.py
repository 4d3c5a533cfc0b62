"""What the engine's tests share: a GPU that is not there, and nets from text."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from google.protobuf import text_format
from torch.overrides import TorchFunctionMode

import caffe
from caffe.plan import delegates
from caffe.process import device, execution, log, ranks, seeds
from caffe.proto import caffe_pb2 as pb


@pytest.fixture(autouse=True)
def _settings_as_before() -> Iterator[None]:
    """After each test, the process has its settings back (rank, device, precision, log level, ...).

    CAFFE_TEST_DEVICE=cuda starts each on the GPU (bench/gpu.py does).
    """
    states = [module._state for module in (device, seeds, ranks)]
    places, arithmetic = [dict(vars(state)) for state in states], execution.settings()
    logged, least, brief = log._sink, log._sink.min_level, log._sink.brief
    verbosity, found = log._sink.verbosity, delegates.current()
    if os.environ.get("CAFFE_TEST_DEVICE") == "cuda":
        caffe.set_mode_gpu()
    yield
    for state, place in zip(states, places, strict=True):
        vars(state).update(place)
    logged.min_level, logged.brief, logged.verbosity = least, brief, verbosity
    delegates.use(found)
    if execution.settings() != arithmetic:
        execution.take(arithmetic)


@pytest.fixture
def uncollected() -> Iterator[None]:
    """The garbage collector is off: only reference counts free memory."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


CUDA = torch.device("cuda", 0)


class OnGPU(torch.Tensor):
    """A tensor in host memory that claims to be on a GPU, as do all tensors computed from it."""

    @property
    def device(self) -> torch.device:
        return CUDA


class PretendGPU(TorchFunctionMode):
    """What PyTorch does with a GPU, as far as places go: tensors are there or on the host, `to`
    and `copy_` pass between the two, and all else that mixes them, or looks from numpy, fails.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to and isinstance(args[1], torch.device):
            return self._to(*args, **kwargs)
        if func is torch.Tensor.copy_:
            _host(args[0]).copy_(_host(args[1]))
            return args[0]
        if func is torch.Tensor.numpy and isinstance(args[0], OnGPU):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        asked = kwargs.get("device")
        on_gpu = asked is not None and torch.device(asked).type == "cuda"
        if on_gpu:
            kwargs["device"] = "cpu"
        tensors = [t for t in _flat((args, kwargs)) if t.dim() and t.device.type != "meta"]
        if len({isinstance(t, OnGPU) for t in tensors}) > 1:
            raise RuntimeError(f"{func.__name__}: tensors on cuda:0 and cpu")
        result = func(*args, **kwargs)
        return result.as_subclass(OnGPU) if on_gpu else result

    @staticmethod
    def _to(tensor: torch.Tensor, place: torch.device, copy: bool = False, **_: bool):
        is_there = isinstance(tensor, OnGPU) == (place.type == "cuda")
        if is_there and not copy:
            return tensor
        new = _host(tensor).clone()
        return new.as_subclass(OnGPU) if place.type == "cuda" else new


def _host(tensor: torch.Tensor) -> torch.Tensor:
    with torch._C.DisableTorchFunctionSubclass():
        return tensor.as_subclass(torch.Tensor)


def _flat(values: object) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, dict):
        yield from _flat(list(values.values()))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _flat(value)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread, in commands that tests start, too: the nets are tiny, others would only wait."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """GPU mode on a machine without one; results are the CPU's, in the GPU's places."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    caffe.set_mode_gpu()
    with PretendGPU():
        yield
    caffe.set_mode_cpu()


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine as it starts: on the CPU, alone, not seeded by the caller; PyTorch's seed is 0."""
    for module in (device, seeds, ranks):
        monkeypatch.setattr(module, "_state", module._State())
    torch.manual_seed(0)


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new folder is the working directory, and the log is one that no test has written to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(log, "_sink", log._Sink())
    return tmp_path


@pytest.fixture
def make_net() -> Callable[..., caffe.Net]:
    """make_net(text, phase=TRAIN, **state): a net from prototxt text."""

    def make(text: str, phase: int = caffe.TRAIN, **state: object) -> caffe.Net:
        return caffe.Net(text_format.Parse(text, pb.NetParameter()), phase, **state)

    return make


Nets = tuple[caffe.Net, caffe.Net]


@pytest.fixture
def pair() -> Callable[[pb.NetParameter | str, int], Nets]:
    """pair(param, phase): one net twice, with equal weights and inputs; the second by its plan."""

    def make(param: pb.NetParameter | str, phase: int = caffe.TRAIN) -> Nets:
        if isinstance(param, str):
            param = text_format.Parse(param, pb.NetParameter())
        caffe.set_random_seed(1)
        nets = caffe.Net(param, phase), caffe.Net(param, phase)
        rng = np.random.default_rng(5)
        for name, blobs in nets[0].params.items():
            for mine, theirs in zip(nets[1].params[name], blobs, strict=True):
                mine.data[...] = theirs.data
        for name in nets[0].inputs:
            values = rng.normal(size=nets[0].blobs[name].shape)
            for net in nets:
                net.blobs[name].data[...] = values
        nets[1].observed = False
        return nets

    return make


@pytest.fixture
def same_passes() -> Callable[..., None]:
    """same_passes(nets, backward): both give the same outputs, gradients and statistics."""

    def close(a: np.ndarray, b: np.ndarray, what: str) -> None:
        scale = max(1.0, float(np.abs(a).max()))
        np.testing.assert_allclose(b, a, rtol=0, atol=1e-5 * scale, err_msg=what)

    def check(nets: Nets, backward: bool) -> None:
        for _ in range(2):  # gradients add up, statistics move
            outs = [net.forward() for net in nets]
            for name, values in outs[0].items():
                close(values, outs[1][name], name)
            if backward:
                for net in nets:
                    net.backward()
        for name, blobs in nets[0].params.items():
            for i, (a, b) in enumerate(zip(blobs, nets[1].params[name], strict=True)):
                close(a.data, b.data, f"{name} {i}")
                if backward:
                    close(a.diff, b.diff, f"gradient of {name} {i}")

    return check


@pytest.fixture
def same_refusal() -> Callable[[Nets, str, tuple[int, ...]], None]:
    """same_refusal(nets, blob, shape): both run, and refuse alike when a blob gets that shape."""

    def check(nets: Nets, blob: str, shape: tuple[int, ...]) -> None:
        lines = []
        for net in nets:
            net.forward()
            net.blobs[blob].reshape(*shape)
            with pytest.raises(caffe.CaffeError) as error:
                net.forward()
            lines.append(str(error.value))
        assert lines[0] == lines[1]

    return check

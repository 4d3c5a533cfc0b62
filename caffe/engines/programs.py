"""The programs that can be engines, OpenVINO and onnxruntime: they run ONNX models in this process.

They compute in float32, on as many threads as PyTorch would take.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from boundary.telemetry import load_onnxruntime, load_openvino
from caffe.formats.onnx import TARGETS, Target

Run = Callable[[], object]


class Compiled(Protocol):
    """A model that is ready to compute."""

    def bind(self, inputs: Mapping[str, torch.Tensor], outputs: Sequence[torch.Tensor]) -> Run:
        """A function that reads the inputs where they lie and writes the outputs where they lie.

        inputs: by name. All are float32 in C order, of the shapes that the model was written for.
        The function holds until bind() is called again, and raises whatever the program does.
        """
        ...


@dataclass(frozen=True)
class Engine:
    """A program: its name, the module that it is, and how it prepares a model for so many threads.

    compile: takes a serialized ONNX model; raises whatever the program raises.
    """

    name: str
    compile: Callable[[bytes, int], Compiled]

    @property
    def target(self) -> Target:
        """How files for it are written."""
        return TARGETS[self.name]

    def is_installed(self) -> bool:
        """Whether it can run here; the package onnx, which writes its models, is needed, too."""
        return _is_there(self.name) and _is_there("onnx")


def _is_there(module: str) -> bool:
    if module in sys.modules:
        return sys.modules[module] is not None
    return importlib.util.find_spec(module) is not None


def _compile_for_openvino(model: bytes, threads: int) -> Compiled:
    core = _core()
    compiled = core.compile_model(
        core.read_model(model),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16, where the processor has it
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # processes would all take the same cores
        },
    )
    return _OpenVINO(compiled)


@functools.cache
def _core() -> Any:
    openvino = load_openvino()
    return openvino.Core()


class _OpenVINO:
    """One request of a compiled model, over and over."""

    def __init__(self, compiled: Any) -> None:
        openvino = load_openvino()
        self._tensor = openvino.Tensor
        self._request = compiled.create_infer_request()
        self._inputs = {name: i for i, port in enumerate(compiled.inputs) for name in port.names}
        self._shapes = [tuple(port.shape) for port in compiled.outputs]

    def bind(self, inputs: Mapping[str, torch.Tensor], outputs: Sequence[torch.Tensor]) -> Run:
        for name, values in inputs.items():
            self._request.set_input_tensor(self._inputs[name], self._shared(values))
        for i, (values, shape) in enumerate(zip(outputs, self._shapes, strict=True)):
            self._request.set_output_tensor(i, self._shared(values.reshape(shape)))
        return functools.partial(self._request.infer, share_outputs=True)

    def _shared(self, values: torch.Tensor) -> Any:
        return self._tensor(values.numpy(), shared_memory=True)


def _compile_for_onnxruntime(model: bytes, threads: int) -> Compiled:
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return _OnnxRuntime(session)


class _OnnxRuntime:
    """A session, which is told where values lie: that takes less time than to pass them."""

    def __init__(self, session: Any) -> None:
        self._session, self._binding = session, session.io_binding()
        self._outputs = [output.name for output in session.get_outputs()]
        self._bound: list[torch.Tensor] = []  # it holds addresses alone

    def bind(self, inputs: Mapping[str, torch.Tensor], outputs: Sequence[torch.Tensor]) -> Run:
        binding = self._binding
        for name, values in inputs.items():
            binding.bind_input(name, *_PLACE, values.shape, values.data_ptr())
        for name, values in zip(self._outputs, outputs, strict=True):
            binding.bind_output(name, *_PLACE, values.shape, values.data_ptr())
        self._bound = [*inputs.values(), *outputs]
        return functools.partial(self._session.run_with_iobinding, binding)


_PLACE = ("cpu", 0, np.float32)  # of values: the device, its number, and their type


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("openvino", _compile_for_openvino),
        Engine("onnxruntime", _compile_for_onnxruntime),
    )
}

"""The programs that can be engines, OpenVINO and onnxruntime: they run ONNX models in this process.

They compute in float32, on as many threads as PyTorch would take.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from caffe.formats.onnx import TARGETS, Target

# From the values of the model's inputs, by name and in C order, to those of its outputs. The
# results may lie in memory that the next call overwrites.
Compiled = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]


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
    import openvino

    return openvino.Core()


class _OpenVINO:
    """One request of a compiled model, over and over. It reads its inputs where they lie."""

    def __init__(self, compiled: Any) -> None:
        import openvino

        self._tensor = openvino.Tensor
        self._request = compiled.create_infer_request()
        self._inputs = {name: i for i, port in enumerate(compiled.inputs) for name in port.names}
        # Memory of our own, which blobs may hold for longer than the model lives.
        self._outputs = [np.empty(tuple(port.shape), np.float32) for port in compiled.outputs]
        for i, values in enumerate(self._outputs):
            self._request.set_output_tensor(i, self._tensor(values, shared_memory=True))

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        for name, values in feeds.items():
            tensor = self._tensor(values, shared_memory=True)
            self._request.set_input_tensor(self._inputs[name], tensor)
        self._request.infer(share_outputs=True)
        return self._outputs


def _compile_for_onnxruntime(model: bytes, threads: int) -> Compiled:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda feeds: session.run(None, feeds)


ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("openvino", _compile_for_openvino),
        Engine("onnxruntime", _compile_for_onnxruntime),
    )
}

"""An ONNX file behind what the tools use of pycaffe's Net; onnxruntime runs it on the CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boundary.errors import one_line, shown
from boundary.reading import read_bytes
from data_tools.cli import DataError

FLOAT = "tensor(float)"


class Values:
    """What a Blob is to the tools: `data`, float32, and reshape."""

    def __init__(self, shape: Sequence[int]) -> None:
        self.data = np.zeros(shape, np.float32)

    def reshape(self, *shape: int) -> None:
        if shape != self.data.shape:
            self.data = np.zeros(shape, np.float32)


class OnnxNet:
    """An ONNX file as a net: inputs, outputs, blobs (of both), params, forward and reshape.

    Its batch size does not bind: more samples are run one batch after another. Sizes of images do:
    forward raises RuntimeError for others, as pycaffe does.

    Raises DataError if onnxruntime is missing or does not take the file, or if inputs and outputs
    are not float32 of known sizes.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise DataError(
                f"{shown(path)}: running it needs onnxruntime: pip install 'fusenet[onnx]'"
            ) from None
        content = read_bytes(path, DataError)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            raise DataError(
                f"{shown(path)}: onnxruntime does not take the file: {one_line(str(error), 240)}"
            ) from error
        taken = {item.name: _shape(item, path) for item in self._session.get_inputs()}
        given = {item.name: _shape(item, path) for item in self._session.get_outputs()}
        self.inputs, self.outputs = list(taken), list(given)
        self.params: Mapping[str, Any] = {}
        self.blobs = {name: Values(shape) for name, shape in {**taken, **given}.items()}
        self._batch = next(iter(taken.values()))[0] if taken else 1

    def reshape(self) -> None:
        """Nothing follows from the inputs' shapes before forward."""

    def forward(self) -> None:
        """Compute the outputs from the inputs, which all have as many samples."""
        feeds = {name: self.blobs[name].data for name in self.inputs}
        count = len(next(iter(feeds.values())))
        parts = [self._run(feeds, start) for start in range(0, count, self._batch)]
        for name, *found in zip(self.outputs, *parts, strict=True):
            self.blobs[name].data = np.concatenate(found)[:count]

    def _run(self, feeds: Mapping[str, np.ndarray], start: int) -> list[np.ndarray]:
        """The outputs for one batch; zeros fill it if samples are too few."""
        batch = {name: values[start : start + self._batch] for name, values in feeds.items()}
        lacking = self._batch - len(next(iter(batch.values())))
        if lacking:
            batch = {
                name: np.concatenate([values, np.zeros((lacking, *values.shape[1:]), np.float32)])
                for name, values in batch.items()
            }
        try:
            return self._session.run(self.outputs, batch)
        except Exception as error:
            raise RuntimeError(one_line(str(error), 240)) from error


def _shape(item: Any, path: str | Path) -> tuple[int, ...]:
    """The shape of an input or output; a free batch is 1. Raises DataError if sizes are free."""
    free_batch = item.shape and not isinstance(item.shape[0], int)
    shape = [1, *item.shape[1:]] if free_batch else list(item.shape)
    if item.type != FLOAT or not all(isinstance(side, int) and side > 0 for side in shape):
        raise DataError(
            f"{shown(path)}: {item.name!r} is {item.type} of {item.shape}; expected float32 of "
            "fixed sizes, as caffe.convert writes without --with-preprocessing"
        )
    return tuple(shape)

"""An ONNX file behind what the tools use of pycaffe's Net; onnxruntime runs it on the CPU."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from boundary.errors import one_line, shown
from boundary.reading import read_bytes
from boundary.telemetry import load_onnxruntime
from data_tools.cli import DataError

FLOAT = "tensor(float)"
# Where onnxruntime looks for weights that the file has elsewhere: by default in the working
# directory, as it is not told where the file lies. No folder is named, so that it opens no file.
FOLDER_OF_WEIGHTS = "session.model_external_initializers_file_folder_path"


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
    are not float32 of known sizes that fit into memory.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            onnxruntime = load_onnxruntime()
        except ImportError:
            raise DataError(
                f"{shown(path)}: running it needs onnxruntime: pip install 'fusenet[onnx]'"
            ) from None
        content = read_bytes(path, DataError)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised
        options.add_session_config_entry(FOLDER_OF_WEIGHTS, os.devnull)
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class
            if "External data path" in str(error):
                raise DataError(
                    f"{shown(path)}: has weights in another file (external data); expected a file "
                    "that holds all, as caffe.convert writes"
                ) from error
            raise DataError(
                f"{shown(path)}: onnxruntime does not take the file: {one_line(str(error), 240)}"
            ) from error
        taken = {item.name: _shape(item, path) for item in self._session.get_inputs()}
        given = {item.name: _shape(item, path) for item in self._session.get_outputs()}
        self.inputs, self.outputs = list(taken), list(given)
        self.params: Mapping[str, Any] = {}
        self.blobs = {name: _values(name, shape, path) for name, shape in (taken | given).items()}
        self._batch = next(iter(taken.values()))[0] if taken else 1
        self._given = given

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
            found = self._session.run(self.outputs, batch)
        except Exception as error:
            raise RuntimeError(one_line(str(error), 240)) from error
        for (name, shape), values in zip(self._given.items(), found, strict=True):
            if values.shape != shape:  # which onnxruntime only warns of
                raise RuntimeError(f"{name!r} is {values.shape}; the file says {shape}")
        return found


def _values(name: str, shape: tuple[int, ...], path: str | Path) -> Values:
    """Zeros of that shape. Raises DataError if they do not fit into memory."""
    try:
        return Values(shape)
    except (MemoryError, ValueError):  # ValueError: more bytes than there are addresses
        raise DataError(f"{shown(path)}: {name!r} of {shape} does not fit into memory") from None


def _shape(item: Any, path: str | Path) -> tuple[int, ...]:
    """The shape of an input or output; a free batch is 1. Raises DataError for a scalar, and if
    sizes are free.
    """
    free_batch = item.shape and not isinstance(item.shape[0], int)
    shape = [1, *item.shape[1:]] if free_batch else list(item.shape)
    fixed = shape and all(isinstance(side, int) and side > 0 for side in shape)
    if item.type != FLOAT or not fixed:
        raise DataError(
            f"{shown(path)}: {item.name!r} is {item.type} of {item.shape}; expected float32 of "
            "fixed sizes, as caffe.convert writes without --with-preprocessing"
        )
    return tuple(shape)

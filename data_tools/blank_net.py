"""Loads a net for the sake of its parameters: small, and without its LMDBs.

Parameter shapes of a fully convolutional net do not depend on the image size. So data layers become
DummyData of SIDE x SIDE pixels, and Unpooling, whose output size may be fixed, gets scale 2. Only
pycaffe's public API is used.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from google.protobuf import text_format

import caffe
from boundary import reading, trust, writing
from caffe.proto import caffe_pb2
from data_tools.cli import DataError, describe

try:  # this engine's own reader: it names the place of an error, and reads old formats
    from caffe.formats.files import read_net as _read_net
except ImportError:  # BVLC's pycaffe
    _read_net = None

SIDE = 64
# Channels of the tops of netgen's data layers.
CHANNELS = {"data": 5, "rgb": 3, "depth": 1, "rgbd": 4, "label": 1}
DATA_LAYERS = ("Data", "Python", "ImageData", "HDF5Data", "MemoryData")


def read_prototxt(path: str | Path) -> Any:
    """The NetParameter of a prototxt. Raises DataError, naming the place, for anything else."""
    param = caffe_pb2.NetParameter()
    if _read_net is not None:
        try:
            return _read_net(path)
        except RuntimeError as error:  # it names the file
            raise DataError(describe(error)) from error
    # Comments may be in any encoding.
    text = reading.read_bytes(path, DataError).decode("utf-8-sig", errors="backslashreplace")
    with reading.reading(path, "a net's prototxt", DataError):
        text_format.Parse(text, param)
    return param


def check_trust(path: str | Path) -> None:
    """Raise DataError if a prototxt's layers would run code or write files."""
    trust.check(read_prototxt(path), path, DataError)


def _with_layers(path: str | Path) -> Any:
    param = read_prototxt(path)
    if not param.layer:
        raise DataError(f"{path}: has no layers")
    return param


def without_data(param: Any) -> Any:
    """A copy of a NetParameter that needs no LMDB and accepts any image size."""
    blank = caffe_pb2.NetParameter()
    blank.CopyFrom(param)
    for layer in blank.layer:
        if not layer.bottom and layer.type in DATA_LAYERS:
            _feed_nothing(layer)
        elif layer.type == "Input":
            for shape in layer.input_param.shape:
                _resize(shape.dim)
        elif layer.type == "Unpooling":
            layer.ClearField("unpooling_param")
            layer.unpooling_param.scale = 2
    for shape in blank.input_shape:
        _resize(shape.dim)
    for i in range(len(blank.input_dim)):
        blank.input_dim[i] = SIDE if i % 4 > 1 else blank.input_dim[i]
    return blank


def _resize(dim: Any) -> None:
    if len(dim) == 4:
        dim[0], dim[2], dim[3] = 1, SIDE, SIDE


def _feed_nothing(layer: Any) -> None:
    layer.type = "DummyData"
    for field in ("data_param", "transform_param", "python_param", "image_data_param",
                  "hdf5_data_param", "memory_data_param"):  # fmt: skip
        layer.ClearField(field)
    for top in layer.top:
        picture = top in CHANNELS
        shape = [1, CHANNELS[top], SIDE, SIDE] if picture else [1]
        layer.dummy_data_param.shape.add().dim.extend(shape)


def load(path: str | Path, seed: int, phase: int = caffe.TEST, trusted: bool = False) -> Any:
    """The net of a prototxt (train+test or deploy), with parameters drawn by its fillers.

    seed: of the fillers. trusted: whether layers may run code and write files. Raises DataError
    for a prototxt that is not a valid net, and for such layers in a net that is not trusted.
    """
    blank = without_data(_with_layers(path))
    if not trusted:  # a source of data in Python runs no more: it was replaced
        trust.check(blank, path, DataError)
    with tempfile.NamedTemporaryFile("wb", suffix=".prototxt", delete=False) as file:
        file.write(text_format.MessageToString(blank).encode())
    if "GLOG_minloglevel" not in os.environ and hasattr(caffe, "init_log"):  # old pycaffes: none
        caffe.init_log(2)  # a net logs a hundred lines of setup, which would bury ours
    try:
        caffe.set_mode_cpu()
        if hasattr(caffe, "set_random_seed"):  # new in Caffe 1.0; before, fillers differ by run
            caffe.set_random_seed(seed)
        return caffe.Net(file.name, phase)
    except RuntimeError as error:
        raise DataError(f"{path}: {describe(error).replace(file.name, 'the net')}") from error
    finally:
        os.unlink(file.name)


def save(net: Any, path: str | Path) -> None:
    """Writes a .caffemodel, which appears under its name only when complete."""
    with writing.atomic_write(path, DataError) as beside:
        try:
            net.save(str(beside))
        except RuntimeError as error:
            words = describe(error).replace(str(beside), str(path))
            raise DataError(words if str(path) in words else f"{path}: {words}") from error

"""Reads and writes all of Caffe's files: nets, solvers, weights, solver states, mean blobs.

Text (.prototxt), binary protobuf (.caffemodel, .solverstate, .binaryproto) and HDF5
(.caffemodel.h5, .solverstate.h5) can be exchanged with Caffe in both directions. Every error with a
file is a CaffeError of one line that starts with the file's path. Files are written under a
temporary name and renamed when complete.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from google.protobuf.message import Message

from boundary import writing
from boundary.errors import shown
from boundary.late import h5py
from boundary.reading import check_plain, read_bytes, reading
from caffe.errors import CaffeError
from caffe.formats import prototext, wire
from caffe.formats.meaning import settle
from caffe.formats.prototext import text as text
from caffe.formats.upgrade import INFO, Log, upgrade_net, upgrade_solver
from caffe.proto import caffe_pb2 as pb

if TYPE_CHECKING:
    from boundary.hdf5 import Hdf5

M = TypeVar("M", bound=Message)
PathLike = str | os.PathLike[str]


def atomic_write(path: PathLike) -> AbstractContextManager[Path]:
    """boundary.writing.atomic_write, whose errors are CaffeErrors."""
    return writing.atomic_write(path, CaffeError)


# ---------------------------------------------------------------------------------------------
# Text: nets and solvers
# ---------------------------------------------------------------------------------------------


def read_text(path: PathLike, message_class: type[M]) -> M:
    """The message in a text file (.prototxt), without upgrading it.

    Raises CaffeError "PATH:LINE:COLUMN: what is wrong".
    """
    return prototext.parse(read_bytes(path, CaffeError), message_class, shown(path))


def write_text(path: PathLike, message: Message) -> None:
    """Write a message as text, formatted like C++ protobuf."""
    with atomic_write(path) as beside:
        beside.write_text(text(message), encoding="ascii")


def read_net(path: PathLike, log: Log | None = None) -> pb.NetParameter:
    """The net in a prototxt, upgraded to today's format.

    A comment '# fork: NAME' counts (caffe.formats.meaning).
    log: as upgrade_net's. Raises CaffeError as read_text and upgrade_net do.
    """
    data = read_bytes(path, CaffeError)
    net = upgrade_net(prototext.parse(data, pb.NetParameter, shown(path)), str(path), log)
    settle(net, data, shown(path))
    return net


def read_solver(path: PathLike, log: Log | None = None) -> pb.SolverParameter:
    """The solver in a prototxt, upgraded to today's format, with its snapshot_prefix completed.

    If it is unset, it becomes the solver file's path without extension. If it names an existing
    directory, the solver file's stem is appended.

    Raises CaffeError as read_text and upgrade_solver do.
    """
    solver = upgrade_solver(read_text(path, pb.SolverParameter), str(path), log)
    stem = os.path.splitext(os.fspath(path))[0]
    if not solver.HasField("snapshot_prefix"):
        solver.snapshot_prefix = stem
        line, what = 1108, "was not specified and is set to"
    elif os.path.isdir(solver.snapshot_prefix):
        solver.snapshot_prefix = os.path.join(solver.snapshot_prefix, os.path.basename(stem))
        line, what = 1113, "was a directory and is replaced to"
    else:
        return solver
    if log is not None:
        log(f"upgrade_proto.cpp:{line}", f"snapshot_prefix {what} {solver.snapshot_prefix}", INFO)
    return solver


# ---------------------------------------------------------------------------------------------
# Weights
# ---------------------------------------------------------------------------------------------


class Weights(dict[str, list[np.ndarray | None]]):
    """Layer name -> its blobs, in the file's order; layers without blobs have an empty list.

    Arrays are float32 in the shape that the file states (4-D in models older than BlobShape). A
    blob is None only in HDF5 files, where another layer stores it because both share it.

    net: the structure saved with the weights, in today's format and without blobs; None for HDF5,
        which stores no structure.
    diffs: layer name -> gradients, in the same form, for layers whose gradients were saved.
    """

    def __init__(self) -> None:
        super().__init__()
        self.net: pb.NetParameter | None = None
        self.diffs: dict[str, list[np.ndarray | None]] = {}


def read_weights(path: PathLike, log: Log | None = None) -> Weights:
    """The weights in a .caffemodel of any format version or in an HDF5 file; the content tells
    which. Takes little more memory than the arrays themselves.

    log: as upgrade_net's. Raises CaffeError if the file is neither or is damaged.
    """
    path = os.fspath(path)
    if is_hdf5(path):
        return _read_weights_hdf5(path)
    net, blobs = wire.read(path, pb.NetParameter, wire.NET)
    net = upgrade_net(net, path, log)
    weights = Weights()
    for layer in net.layer:
        where = f"{path}: layer {layer.name!r}"
        data = [_array(blob, blobs, where, j) for j, blob in enumerate(layer.blobs)]
        diff = [_array(blob, blobs, where, j, diff=True) for j, blob in enumerate(layer.blobs)]
        if data or layer.name not in weights:
            weights[layer.name] = data
        if any(array is not None for array in diff):
            weights.diffs[layer.name] = diff
        del layer.blobs[:]
    weights.net = net
    return weights


def _array(
    blob: pb.BlobProto, blobs: list[wire.Blob], where: str, number: int, diff: bool = False
) -> np.ndarray | None:
    """The values of a blob in its shape, float32; None for a diff that was not saved."""
    place = wire.index(blob)
    assert place is not None  # wire.read gives every blob one
    values = blobs[place].diff if diff else blobs[place].data
    if values is None:
        if diff:
            return None
        values = np.empty(0, np.float32)
    shape = wire.shape(blob)
    if math.prod(shape) != values.size or min(shape, default=0) < 0:
        shown = "x".join(map(str, shape)) or "(scalar)"
        raise CaffeError(
            f"{where}, blob {number}: shape {shown} asks for {math.prod(shape)} values, "
            f"the file has {values.size}"
        )
    return values.astype(np.float32, copy=False).reshape(shape)


def write_weights(
    path: PathLike,
    net: pb.NetParameter,
    blobs: Mapping[str, Sequence[np.ndarray]],
    diffs: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> None:
    """Write a .caffemodel.

    net: the structure to save with the weights, in today's format; blobs in it are ignored.
    blobs: layer name -> arrays of any shape, float32; contiguous ones are written without a copy.
    diffs: layer name -> gradients, with the shapes of the blobs.

    Raises CaffeError, before anything is written, if a name is not a layer of the net or the file
    would exceed protobuf's limit of 2 GiB.
    """
    outline = pb.NetParameter()
    outline.CopyFrom(net)
    arrays: list[wire.Blob] = []
    unknown = {*blobs, *(diffs or {})} - {layer.name for layer in net.layer}
    if unknown:
        raise CaffeError(f"{path}: weights of layer {min(unknown)!r}, which the net does not have")
    for layer in outline.layer:
        del layer.blobs[:]
        gradients = (diffs or {}).get(layer.name, ())
        for data, diff in itertools.zip_longest(blobs.get(layer.name, ()), gradients):
            wire.set_index(_with_shape(layer.blobs.add(), data.shape), len(arrays))
            arrays.append(wire.Blob(data, diff))
    _write_binary(path, outline, wire.NET, arrays)


def _with_shape(blob: pb.BlobProto, shape: Sequence[int]) -> pb.BlobProto:
    blob.shape.dim.extend(shape)
    return blob


def _write_binary(path: PathLike, outline: Message, plan: Any, arrays: list[wire.Blob]) -> None:
    try:
        pieces = wire.chunks(outline, plan, arrays)
    except CaffeError as error:
        raise CaffeError(f"{path}: {error}") from None
    with atomic_write(path) as beside, beside.open("wb") as file:
        for piece in pieces:
            file.write(piece)


def read_model(path: PathLike) -> tuple[pb.NetParameter, list[wire.Blob]]:
    """A .caffemodel, not upgraded: its outline (see caffe.formats.wire) and its arrays, for tools
    that write it again. Raises CaffeError if it cannot be read.
    """
    return wire.read(os.fspath(path), pb.NetParameter, wire.NET)


def write_model(path: PathLike, outline: pb.NetParameter, arrays: list[wire.Blob]) -> None:
    """Write the outline, upgraded or not, and the arrays that read_model returned.

    Raises CaffeError if the file would exceed protobuf's limit of 2 GiB.
    """
    _write_binary(path, outline, wire.NET, arrays)


# ---------------------------------------------------------------------------------------------
# Solver states
# ---------------------------------------------------------------------------------------------


@dataclass
class SolverStateData:
    """The state that a solver needs, besides the weights, to resume training.

    iter: iterations done. learned_net: path of the weights, None if the file names none.
    current_step: steps that lr_policy multistep has taken. history: one float32 array per parameter
    (Adam and AdaDelta: all first moments, then all second). minimum_loss, iter_last_event: of
    SSD's lr_policy plateau; None where the file has none.
    """

    iter: int = 0
    learned_net: str | None = None
    current_step: int = 0
    history: list[np.ndarray] = field(default_factory=list)
    minimum_loss: float | None = None
    iter_last_event: int = 0


def read_solver_state(path: PathLike) -> SolverStateData:
    """The state in a .solverstate or .solverstate.h5; the content tells which.

    Raises CaffeError if the file is neither or is damaged.
    """
    path = os.fspath(path)
    state = _read_solver_state_hdf5(path) if is_hdf5(path) else _read_solver_state_binary(path)
    for name in ("iter", "current_step", "iter_last_event"):
        value = getattr(state, name)
        if not 0 <= value < 2**31:
            raise CaffeError(f"{path}: {name} is {value}; expected a number of iterations or steps")
    return state


def _read_solver_state_binary(path: str) -> SolverStateData:
    state, blobs = wire.read(path, pb.SolverState, wire.SOLVER_STATE)
    history = [_array(b, blobs, f"{path}: history", j) for j, b in enumerate(state.history)]
    learned_net = state.learned_net if state.HasField("learned_net") else None
    lowest = state.minimum_loss if state.HasField("minimum_loss") else None
    last = state.iter_last_event
    return SolverStateData(state.iter, learned_net, state.current_step, history, lowest, last)


def write_solver_state(path: PathLike, state: SolverStateData) -> None:
    """Write a .solverstate. Raises CaffeError if it would exceed protobuf's limit of 2 GiB."""
    outline = pb.SolverState(iter=state.iter, current_step=state.current_step)
    if state.learned_net is not None:
        outline.learned_net = state.learned_net
    if state.minimum_loss is not None:
        outline.minimum_loss, outline.iter_last_event = state.minimum_loss, state.iter_last_event
    for place, array in enumerate(state.history):
        wire.set_index(_with_shape(outline.history.add(), array.shape), place)
    arrays = [wire.Blob(array) for array in state.history]
    _write_binary(path, outline, wire.SOLVER_STATE, arrays)


# ---------------------------------------------------------------------------------------------
# Single blobs: mean files
# ---------------------------------------------------------------------------------------------


def read_blob(path: PathLike) -> np.ndarray:
    """The float32 array in a .binaryproto, in the shape that the file states; in mean files, which
    have the old form, 1 x channels x height x width. Raises CaffeError if it cannot be read.
    """
    path = os.fspath(path)
    blob, blobs = wire.read(path, pb.BlobProto, wire.BLOB)
    array = _array(blob, blobs, path, 0)
    assert array is not None
    return array


def read_mean(path: PathLike) -> np.ndarray:
    """The mean in a .binaryproto, float32, channels x height x width; Caffe's have a leading 1.

    Raises CaffeError if it cannot be read or has another number of axes.
    """
    blob = read_blob(path)
    if blob.ndim < 3 or blob.size != math.prod(blob.shape[-3:]) or not blob.size:
        shape = "x".join(map(str, blob.shape)) or "a single value"
        raise CaffeError(f"{path}: a mean of {shape}; expected channels x height x width")
    return blob.reshape(blob.shape[-3:])


def write_blob(path: PathLike, array: np.ndarray, old_form: bool = False) -> None:
    """Write an array as .binaryproto. old_form: store its four axes as num, channels, height and
    width instead of a shape, as Caffe's compute_image_mean does.
    """
    blob = pb.BlobProto()
    if old_form:
        blob.num, blob.channels, blob.height, blob.width = array.shape
    else:
        _with_shape(blob, array.shape)
    wire.set_index(blob, 0)
    _write_binary(path, blob, wire.BLOB, [wire.Blob(array)])


# ---------------------------------------------------------------------------------------------
# HDF5
# ---------------------------------------------------------------------------------------------


def is_hdf5(path: PathLike) -> bool:
    """True if a file contains HDF5. Raises CaffeError if it cannot be read."""
    check_plain(path, CaffeError)
    with reading(path, "a file that can be read", CaffeError), open(path, "rb") as file:
        for offset in (0, 512, 1024, 2048):  # HDF5 allows a user block before its signature
            file.seek(offset)
            if file.read(8) == b"\x89HDF\r\n\x1a\n":
                return True
    return False


def _read_weights_hdf5(path: str) -> Weights:
    """Layout of the file: group data (and diff) / a group for each layer / datasets 0, 1, ..."""
    from boundary.hdf5 import Hdf5

    weights = Weights()
    with Hdf5(path, "weights in HDF5", CaffeError) as file:
        for name, blobs in _layers_hdf5(file, file.members(file.group("data")), path):
            weights[name] = blobs
        if file.get("diff") is not None:
            for name, blobs in _layers_hdf5(file, file.members(file.group("diff")), path):
                if blobs:
                    weights.diffs[name] = blobs
    return weights


def _layers_hdf5(
    file: Hdf5, members: dict[str, Any], path: str, prefix: str = ""
) -> Iterator[tuple[str, list[np.ndarray | None]]]:
    """(name, blobs) of each layer. HDF5 splits a layer name at '/' into nested groups."""
    for key, layer in members.items():
        name = prefix + key
        if not isinstance(layer, h5py.Group):
            raise CaffeError(f"{path}: {name!r} is no group; expected one for each layer")
        found = file.members(layer)
        inner = {k: item for k, item in found.items() if isinstance(item, h5py.Group)}
        own = {k: item for k, item in found.items() if k not in inner}
        if own or not inner:
            yield name, _blobs_hdf5(file, own, f"{path}: layer {name!r}")
        if inner:
            yield from _layers_hdf5(file, inner, path, f"{name}/")


def _blobs_hdf5(file: Hdf5, found: dict[str, Any], where: str) -> list[np.ndarray | None]:
    for key, dataset in found.items():
        if not key.isdecimal() or str(int(key)) != key:
            raise CaffeError(f"{where}: dataset {key!r}; expected blob numbers 0, 1, ...")
        if getattr(dataset, "dtype", np.dtype(object)).kind not in "fiu":
            raise CaffeError(f"{where}: dataset {key!r} does not hold numbers")
    count = max((int(key) + 1 for key in found), default=0)
    if count > 2 * len(found) + 64:  # a stray number, not gaps for shared blobs
        raise CaffeError(f"{where}: dataset '{count - 1}' among {len(found)}")
    return [file.read(found[str(j)], np.float32) if str(j) in found else None for j in range(count)]


def write_weights_hdf5(
    path: PathLike,
    blobs: Mapping[str, Sequence[np.ndarray | None]],
    diffs: Mapping[str, Sequence[np.ndarray]] | None = None,
) -> None:
    """Write weights as HDF5 (.caffemodel.h5).

    blobs: layer name -> arrays, for every layer of the net, also those without blobs. None stands
        for a blob shared with an earlier layer; as in Caffe, only that layer stores it.
    diffs: layer name -> gradients, stored in every layer, also of shared blobs.

    Raises CaffeError for a layer name with '/', which HDF5 would split into nested groups that
    Caffe cannot read.
    """
    from boundary.hdf5 import writing_hdf5

    for name in (*blobs, *(diffs or {})):
        if "/" in name:
            raise CaffeError(
                f"{path}: layer {name!r} cannot be saved as HDF5, where '/' separates groups "
                "(Caffe could not read it); use snapshot_format: BINARYPROTO or rename the layer"
            )
    with writing_hdf5(path, CaffeError) as file:
        for kind, layers in (("data", blobs), ("diff", diffs)):
            if layers is None:
                continue
            group = file.create_group(kind)
            for name, arrays in layers.items():
                layer = group.create_group(name)
                for j, array in enumerate(arrays):
                    if array is not None:
                        layer.create_dataset(str(j), data=np.asarray(array, np.float32))


def _read_solver_state_hdf5(path: str) -> SolverStateData:
    from boundary.hdf5 import Hdf5

    with Hdf5(path, "a solver state in HDF5", CaffeError) as file:

        def number(name: str, kinds: str = "iu") -> Any:
            found = file.read(file.dataset(name))
            if found.size != 1 or found.dtype.kind not in kinds:
                raise CaffeError(f"{path}: {name} is {found.dtype} of shape {found.shape}")
            return found.reshape(()).item()

        learned_net = None
        if file.get("learned_net") is not None:
            learned_net = _text_hdf5(file.read(file.dataset("learned_net")), path)
        history = _blobs_hdf5(file, file.members(file.group("history")), f"{path}: history")
        if any(array is None for array in history):
            raise CaffeError(f"{path}: history has gaps; expected datasets 0, 1, ...")
        state = SolverStateData(number("iter"), learned_net, number("current_step"), history)
        if file.get("minimum_loss") is not None:
            state.minimum_loss = number("minimum_loss", "f")
            state.iter_last_event = number("iter_last_event")
        return state


def _text_hdf5(value: np.ndarray, path: str) -> str:
    text = value.reshape(-1)[0] if value.size == 1 else None
    if isinstance(text, bytes):
        return os.fsdecode(text.split(b"\0")[0])
    raise CaffeError(f"{path}: learned_net is {value.dtype} of shape {value.shape}, not a text")


def write_solver_state_hdf5(path: PathLike, state: SolverStateData) -> None:
    """Write a solver state as HDF5 (.solverstate.h5)."""
    from boundary.hdf5 import writing_hdf5

    with writing_hdf5(path, CaffeError) as file:
        file["iter"] = np.array([state.iter], np.int32)
        if state.learned_net is not None:
            # Caffe relies on the terminating zero of a C string.
            data = os.fsencode(state.learned_net) + b"\0"
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(len(data))
            space = h5py.h5s.create(h5py.h5s.SCALAR)
            dataset = h5py.h5d.create(file.id, b"learned_net", kind, space)
            dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(data, f"S{len(data)}"), kind)
        file["current_step"] = np.array([state.current_step], np.int32)
        if state.minimum_loss is not None:
            file["iter_last_event"] = np.array([state.iter_last_event], np.int32)
            file["minimum_loss"] = np.array([state.minimum_loss], np.float32)
        history = file.create_group("history")
        for j, array in enumerate(state.history):
            history.create_dataset(str(j), data=np.asarray(array, np.float32))

"""HDF5 files of every use, spoiled by bytes and made hostile in structure."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import h5py
import numpy as np

import caffe
from caffe.formats import files
from caffe.proto import caffe_pb2 as pb
from fuzz import commands, mutate
from fuzz.families import Draw, Target, family

HUGE = (2**31, 2**33, 2**40, 2**62, 10**9)


def _places(group: h5py.Group, depth: int = 0) -> list[tuple[h5py.Group, str]]:
    """(group, name) of every member, without following links."""
    found = []
    for name in list(group):
        found.append((group, name))
        if group.get(name, getclass=True, getlink=True) is h5py.HardLink and depth < 6:
            item = group[name]
            if isinstance(item, h5py.Group):
                found += _places(item, depth + 1)
    return found


def _shape(draw: Draw, old: tuple[int, ...]) -> tuple[int, ...]:
    shape = list(old) or [1]
    how = draw.rng.randrange(5)
    if how == 0:
        shape[draw.rng.randrange(len(shape))] = draw.pick(*HUGE)
    elif how == 1:
        shape[draw.rng.randrange(len(shape))] = draw.pick(0, 1, 2, 7)
    elif how == 2:
        shape = [1] * draw.pick(0, 1, 5, 17, 32)
    elif how == 3:
        shape = shape[1:]
    else:
        shape = [draw.pick(1, 2, 3, 1000) for _ in range(draw.pick(1, 2, 3, 4))]
    return tuple(shape)


def _odd_dataset(draw: Draw, group: h5py.Group, name: str, shape: tuple[int, ...]) -> None:
    """A dataset of another type or shape, huge ones without a single value in the file."""
    how = draw.rng.randrange(12)
    if how == 0:
        group[name] = draw.pick("text", "", b"\xff\xfe", "x" * 1000)
    elif how == 1:
        group[name] = np.array([("a", 1)], dtype=[("x", "S3"), ("y", "i4")])
    elif how == 2:
        group.create_dataset(name, (2,), h5py.ref_dtype)
    elif how == 3:
        group.create_dataset(name, (2,), h5py.vlen_dtype(np.float32))
    elif how == 4:
        group[name] = h5py.Empty(draw.pick("f4", "S5", "i8"))
    elif how == 5:
        dtype = draw.pick("f2", "f8", "i1", "u8", "c8", "?", ">f4", "V7", "S4", "f16")
        group.create_dataset(name, shape if np.prod(shape, dtype=float) < 1e6 else (3,), dtype)
    elif how == 6:
        group.create_dataset(name, (3,), h5py.enum_dtype({"a": 0, "b": 1}, basetype="i4"))
    elif how == 7:
        group.create_dataset(name, (3,), h5py.string_dtype(), data=["a", "\u00e4", ""])
    elif how == 8:
        values = draw.numbers.choice(mutate.FLOATS, (shape and shape[0] < 100 and shape[0]) or 3)
        group[name] = values
    else:
        with np.errstate(all="ignore"):
            huge = _shape(draw, shape)
            chunks = tuple(min(n, 64) or 1 for n in huge) if draw.chance(0.7) and huge else None
            packing = {"compression": "gzip"} if chunks and draw.chance(0.5) else {}
            fill = draw.pick(0, 1, float("nan"), float("inf"))
            dtype = draw.pick("f4", "u1", "i8")
            if chunks and np.prod(chunks, dtype=float) > 1e6:
                chunks = tuple(min(n, 2) for n in chunks)
            filling = None if dtype != "f4" else fill
            group.create_dataset(name, huge, dtype, chunks=chunks, fillvalue=filling, **packing)


def _foreign(draw: Draw, group: h5py.Group, name: str, shape: tuple[int, ...]) -> None:
    """Something that leads elsewhere."""
    how = draw.rng.randrange(9)
    if how == 0:
        group[name] = h5py.ExternalLink(draw.pick("other.h5", "/etc/passwd", "x.h5"), "/data")
    elif how == 1:
        group[name] = h5py.SoftLink(draw.pick("/nowhere", "/", ".", "/data", "/conv"))
    elif how == 2:
        group[name] = h5py.SoftLink(f"{group.name.rstrip('/')}/{name}")  # itself
    elif how == 3:
        group[name] = group  # a loop of groups
    elif how == 4:
        small = shape if np.prod(shape, dtype=float) < 1e6 else (3,)
        layout = h5py.VirtualLayout(small or (1,), "f4")
        layout[...] = h5py.VirtualSource(draw.pick("other.h5", "x.h5"), "data", small or (1,))
        group.create_virtual_dataset(name, layout)
    elif how == 5:
        place = draw.pick("/etc/passwd", "other.h5", "nowhere")
        group.create_dataset(name, (4,), "u1", external=[(place, 0, 4)])
    elif how == 6:
        group.create_group(name)
    elif how == 7:
        inner = group.create_group(name)
        for _ in range(draw.pick(3, 40, 400)):
            inner = inner.create_group("a")
    else:
        group[name] = np.dtype("f4")  # a named type


def hostile(draw: Draw, pattern: str, path: str) -> Path:
    """An HDF5 file of the corpus with odd members, and perhaps spoiled bytes."""
    content = draw.sound(pattern)
    if mutate.idle:
        return draw.write(path, content)
    if draw.chance(0.35):
        return draw.write(path, mutate.some_bytes(draw.rng, content, draw.sound(pattern)))
    with h5py.File(io.BytesIO(), "w") as other:
        other["data"] = np.arange(12, dtype=np.float32)
        other.flush()
        draw.write("other.h5", other.id.get_file_image())
    # In memory: a reader may have left the file of the last input open, and HDF5 knows it again.
    held = io.BytesIO(content)
    with h5py.File(held, "r+") as file:
        for _ in range(draw.pick(1, 1, 1, 2, 3)):
            places = _places(file)
            if not places:
                break
            group, name = draw.rng.choice(places)
            link = group.get(name, getlink=True)
            item = group[name] if isinstance(link, h5py.HardLink) else None
            shape = tuple(getattr(item, "shape", None) or ())
            if not draw.chance(0.1):
                del group[name]
            if draw.chance(0.15):
                continue
            if draw.chance(0.1) or name in group:
                name = draw.pick("0", "1", "x", "\u00e4", "a b", "99999999999", "-1", "data")
                if name in group:
                    del group[name]
            change = _odd_dataset if draw.chance(0.6) else _foreign
            # HDF5 itself refuses some, and not all versions of it the same.
            with contextlib.suppress(ValueError, TypeError, OSError, RuntimeError):
                change(draw, group, name, shape)
    content = held.getvalue()
    if draw.chance(0.15):
        content = mutate.some_bytes(draw.rng, content)
    return draw.write(path, content)


@family()
def weights_hdf5(draw: Draw) -> Target:
    """A hostile .caffemodel.h5: read, and copied into its net."""
    path = str(hostile(draw, "weights/*.caffemodel.h5", "x.caffemodel.h5"))
    draw.copy("nets/deploy.prototxt", "net.prototxt")

    def run() -> None:
        files.read_weights(path)
        caffe.Net("net.prototxt", caffe.TEST, weights=path)

    return run


@family()
def state_hdf5(draw: Draw) -> Target:
    """A hostile .solverstate.h5: restored by its solver."""
    name = draw.pick("sgd", "adam")
    draw.copy("nets/small.prototxt", "small.prototxt")
    draw.copy(f"solvers/{name}.prototxt", "solver.prototxt")
    for ending in ("caffemodel", "caffemodel.h5", "resume"):
        draw.copy(f"states/{name}_iter_2.{ending}")
    path = f"states/{name}_iter_2.solverstate.h5"
    hostile(draw, path, path)

    def run() -> None:
        solver = caffe.get_solver("solver.prototxt")
        solver.restore(path)
        solver.step(1)

    return run


@family()
def hdf5_data(draw: Draw) -> Target:
    """HDF5Data with a hostile file or a spoiled list."""
    for name in ("data.h5", "more.h5"):
        draw.copy(f"hdf5/{name}", name)
    if draw.chance(0.2):
        draw.text("lists/hdf5.txt", "list.txt")
    else:
        draw.copy("lists/hdf5.txt", "list.txt")
        source = draw.pick("data.h5", "packed.h5")
        hostile(draw, f"hdf5/{source}", draw.pick("data.h5", "more.h5"))
    source = "data.h5" if draw.chance(0.05) else "list.txt"
    layer = pb.LayerParameter(name="data", type="HDF5Data", top=["data", "label"])
    layer.hdf5_data_param.source, layer.hdf5_data_param.batch_size = source, draw.pick(1, 3)
    layer.hdf5_data_param.shuffle = draw.chance(0.3)

    def run() -> None:
        net = caffe.Net(pb.NetParameter(layer=[layer]), caffe.TRAIN)
        for _ in range(4):
            net.forward()

    return run


@family(0.6)
def nyuv2(draw: Draw) -> Target:
    """data_tools.nyuv2 on a hostile MATLAB 7.3 file."""
    hostile(draw, draw.pick("mat/nyu.mat", "mat/packed.mat"), "x.mat")
    more = draw.pick(
        (), ("--scene-labels",), ("--depth", "raw"), ("--skip-bad",), ("--classes", "13")
    )
    return commands.data_tool("nyuv2", "x.mat", "out", "--size", "8x6", *more)


@family(0.6)
def zanil(draw: Draw) -> Target:
    """data_tools.prepared on a hostile HDF5 file."""
    hostile(draw, "prepared/zanil.h5", "x.h5")
    more = draw.pick((), ("--skip-bad",), ("--float-depth",))
    return commands.data_tool("prepared", "x.h5", "out", *more)


@family(0.5)
def sunrgbd_labels(draw: Draw) -> Target:
    """data_tools.sunrgbd with hostile labels."""
    draw.copy("sunrgbd")
    place = "sunrgbd/toolbox/Metadata/SUNRGBD2Dseg.mat"
    hostile(draw, place, place)
    more = ("--skip-bad",) if draw.chance(0.3) else ()
    return commands.data_tool("sunrgbd", "sunrgbd/data", "sunrgbd/toolbox", "out", *more)

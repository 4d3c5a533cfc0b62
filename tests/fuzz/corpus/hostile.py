"""Known hostile inputs, the smallest of each kind: every one once broke a reader or a command.

Each function writes its files into the working directory and returns what reads them.
"""

from __future__ import annotations

import json
import os
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx

import caffe
from caffe import io
from caffe.export.state_dict import read_state_dict
from caffe.formats import db, files
from caffe.proto import caffe_pb2 as pb
from data_tools import images, matfile
from eval_tools import caffe_log
from fuzz import commands
from fuzz.corpus.sound import DEPLOY, SMALL, exr, write_lmdb
from fuzz.families import Draw, Target

Case = Callable[[Draw], Target]
CASES: dict[str, Case] = {}

SIDE = 30000  # of a picture that takes gigabytes
DEPLOYED = ("nets/deploy.prototxt", "weights/tiny.caffemodel")


def case(make: Case) -> Case:
    """Registers a function as a known input."""
    CASES[make.__name__] = make
    return make


def several(**variants: Any) -> Callable[[Callable[[Draw, Any], Target]], Any]:
    """Registers a function once for each keyword, with its value as second argument."""

    def add(make: Callable[[Draw, Any], Target]) -> Any:
        for name, value in variants.items():
            CASES[f"{make.__name__}_{name}"] = lambda draw, value=value: make(draw, value)
        return make

    return add


def zeros(count: int) -> bytes:
    """A zlib stream of so many zeros, a thousandth of their size, made without compressing them."""
    step = 1 << 20
    packer = zlib.compressobj(9)
    head = packer.compress(b"") + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(step)) + packer.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.compressobj(9, zlib.DEFLATED, -15)
    end = rest.compress(bytes(count % step)) + rest.flush()
    # Adler-32 of zeros: the first sum stays 1, the second counts them.
    checksum = struct.pack(">I", (count % 65521) << 16 | 1)
    return head + block * (count // step) + end + checksum


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(channels: int = 3) -> bytes:
    """A sound PNG of SIDE x SIDE black pixels."""
    head = struct.pack(">IIBBBBB", SIDE, SIDE, 8, 2 if channels == 3 else 0, 0, 0, 0)
    data = zeros(SIDE * (SIDE * channels + 1))
    return (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")
    )


def _net(*layers: str) -> pb.NetParameter:
    from caffe.formats.prototext import parse

    return parse(" ".join(layers).encode(), pb.NetParameter, "net")


def _forward(*layers: str, phase: int = caffe.TRAIN) -> Target:
    def run() -> None:
        caffe.Net(_net(*layers), phase).forward()

    return run


def _data_layer(kind: str, source: str, more: str = "") -> str:
    field = {"Data": "data_param", "ImageData": "image_data_param", "HDF5Data": "hdf5_data_param"}
    backend = "backend: LMDB" if kind == "Data" else ""
    return (
        f'layer {{ name: "data" type: "{kind}" top: "data" top: "label" {more} '
        f'{field[kind]} {{ source: "{source}" batch_size: 1 {backend} }} }}'
    )


# ---------------------------------------------------------------------------------------------
# Sizes that files claim
# ---------------------------------------------------------------------------------------------


@several(color=images.read_color, depth=images.read_depth, label=images.read_label,
         pycaffe=io.load_image)  # fmt: skip
def png_of_gigabytes(draw: Draw, read: Any) -> Target:
    """A small PNG of many black pixels."""
    draw.write("x.png", png_bomb(3 if read in (images.read_color, io.load_image) else 1))
    return lambda: read("x.png")


@case
def png_of_gigabytes_in_a_list(draw: Draw) -> Target:
    """ImageData on a list of a PNG of gigabytes."""
    draw.write("x.png", png_bomb())
    draw.write("list.txt", b"x.png 0\n")
    return _forward(_data_layer("ImageData", "list.txt"))


@case
def png_of_gigabytes_in_a_record(draw: Draw) -> Target:
    """A Data layer on a Datum whose picture takes gigabytes."""
    datum = pb.Datum(encoded=True, data=png_bomb())
    write_lmdb("x", [(b"0", datum.SerializeToString())])
    return _forward(_data_layer("Data", "x"))


@case
def png_of_gigabytes_in_a_folder(draw: Draw) -> Target:
    """data_tools.folder leaves it out with --skip-bad."""
    draw.copy("folder")
    draw.write("folder/rgb/0000_rgb.png", png_bomb())
    return commands.data_tool("folder", "out", "--rgb", "folder/rgb", "--depth", "folder/depth",
                              "--skip-bad")  # fmt: skip


@case
def exr_of_gigabytes(draw: Draw) -> Target:
    """An EXR of deflated zeros."""
    content = exr(np.zeros((16, 8), np.float32), 3)
    at = content.find(b"dataWindow\0box2i\0") + 21
    head = (
        content[: content.find(b"screenWindowWidth")]
        + content[content.find(b"screenWindowWidth") : content.find(b"screenWindowWidth") + 33]
    )
    head = head[:at] + struct.pack("<4i", 0, 0, SIDE - 1, SIDE - 1) + head[at + 16 :]
    data = zeros(16 * SIDE * 4)
    count = -(-SIDE // 16)
    first = len(head) + 8 * count
    offsets = [first + i * (8 + len(data)) for i in range(count)]
    blocks = b"".join(struct.pack("<ii", 16 * i, len(data)) + data for i in range(count))
    draw.write("x.exr", head + struct.pack(f"<{count}Q", *offsets) + blocks)
    return lambda: images.read_depth("x.exr")


@case
def mat_of_gigabytes(draw: Draw) -> Target:
    """A level-5 file whose one variable is deflated zeros."""
    packed = zeros(3 << 30)
    head = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"
    draw.write("x.mat", head + struct.pack("<II", 15, len(packed)) + packed)
    return lambda: matfile.read("x.mat", "x")


@several(large=2**30, huge=2**40)
def hdf5_weights_that_are_not_there(draw: Draw, count: int) -> Target:
    """A dataset of fill values only."""
    with h5py.File("x.h5", "w") as file:
        shape, chunks = (count,), (2**20,)
        file.create_dataset("data/conv/0", shape, "f4", chunks=chunks, fillvalue=1.0)
    return lambda: files.read_weights("x.h5")


@case
def hdf5_data_that_is_not_there(draw: Draw) -> Target:
    """HDF5Data on datasets of fill values only."""
    with h5py.File("x.h5", "w") as file:
        for name in ("data", "label"):
            file.create_dataset(name, (2**30,), "f4", chunks=(2**20,))
    draw.write("list.txt", b"x.h5\n")
    return _forward(_data_layer("HDF5Data", "list.txt"))


@several(negative=(-1, -2, 3), zero=(0, 0, 0), large=(1, 60000, 60000), huge=(2**31 - 1,) * 3)
def datum_of_shape(draw: Draw, shape: tuple[int, ...]) -> Target:
    """A record that claims another shape than its data has."""
    channels, height, width = shape
    datum = pb.Datum(channels=channels, height=height, width=width, data=b"abc")
    write_lmdb("x", [(b"0", datum.SerializeToString())])
    return draw.pick(
        _forward(_data_layer("Data", "x")),
        commands.data_tool("inspect", "x"),
        commands.caffe_command("tools.compute_image_mean", "x", "o.binaryproto"),
    )


@several(huge=(2**62, 4), negative=(-1, 3), many=(1,) * 1000, overflowing=(2**32, 2**32))
def blob_of_shape(draw: Draw, shape: tuple[int, ...]) -> Target:
    """Weights, state and mean that claim another shape than their values have."""
    blob = pb.BlobProto(data=[1.0, 2.0])
    blob.shape.dim.extend(shape)
    layer = pb.LayerParameter(name="ip", type="InnerProduct", blobs=[blob])
    model = pb.NetParameter(name="small", layer=[layer])
    draw.write("x.caffemodel", model.SerializeToString())
    draw.write("x.solverstate", pb.SolverState(iter=1, history=[blob]).SerializeToString())
    draw.write("x.binaryproto", blob.SerializeToString())
    return draw.pick(
        lambda: files.read_weights("x.caffemodel"),
        lambda: files.read_solver_state("x.solverstate"),
        lambda: files.read_blob("x.binaryproto"),
    )


@several(large="(1000000000, 10)", negative="(-1, 3)", nested="(" * 200, text="'x'")
def npy_of_shape(draw: Draw, shape: str) -> Target:
    """An .npy that claims another shape than it has."""
    head = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    draw.write("x.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + bytes(64))
    return lambda: images.read_depth("x.npy")


@several(input=2**31, large=10**6)
def net_of_huge_input(draw: Draw, side: int) -> Target:
    """An Input layer that nobody can fill."""
    dims = f"dim: 1 dim: 3 dim: {side} dim: {side}"
    return _forward(
        f'layer {{ name: "x" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}'
    )


@case
def spp_of_many_levels(draw: Draw) -> Target:
    """netgen draw of a pyramid without end."""
    draw.write("net.prototxt", b"""
        layer { name: "x" type: "Input" top: "x"
          input_param { shape { dim: 1 dim: 1 dim: 4 dim: 4 } } }
        layer { name: "s" type: "SPP" bottom: "x" top: "s"
          spp_param { pyramid_height: 4294967295 } }""")  # fmt: skip
    return commands.netgen("draw", "net.prototxt", "o.svg")


@several(huge=2**31, text="4", none=None, fraction=1.5)
def rgbd_images_of_batch(draw: Draw, size: Any) -> Target:
    """netgen's solver for a Python layer with an odd batch size."""
    for name in ("rgb.png", "depth.png", "label.png"):
        draw.copy(f"pictures/{name}", name)
    draw.copy("lists/frames.txt", "list.txt")
    text = json.dumps({"source": "list.txt", "batch_size": size, "size": [8, 6]})
    net = pb.NetParameter(name="x")
    data = net.layer.add(name="data", type="Python", top=["rgb", "depth", "label"])
    data.python_param.module, data.python_param.layer = "data_tools.layers", "RGBDImages"
    data.python_param.param_str = text
    files.write_text("net.prototxt", net)
    return draw.pick(
        commands.netgen("solver", "--net", "net.prototxt"),
        commands.netgen("summary", "net.prototxt"),
        lambda: caffe.Net("net.prototxt", caffe.TRAIN).forward(),
    )


# ---------------------------------------------------------------------------------------------
# Databases
# ---------------------------------------------------------------------------------------------

PAGE = 4096
_ENTRIES = 120  # where a meta page counts the records


def _scan(source: str) -> Target:
    def run() -> None:
        database = db.Database.open(source)
        database.keys()
        for _ in database.items():
            pass

    return run


@several(two=2, three=3, eight=8, sixteen=16)
def lmdb_cut_by_pages(draw: Draw, pages: int) -> Target:
    """A copy of data.mdb that was broken off."""
    draw.write("x/data.mdb", draw.sound("many/data.mdb")[: -PAGE * pages])
    return _scan("x")


@case
def lmdb_cut_under_a_reader(draw: Draw) -> Target:
    """data.mdb becomes shorter while a layer reads it."""
    draw.copy("many", "x")

    def run() -> None:
        net = caffe.Net(_net(_data_layer("Data", "x")), caffe.TRAIN)
        net.forward()
        size = os.path.getsize("x/data.mdb")
        os.truncate("x/data.mdb", size // 2 // PAGE * PAGE)
        for _ in range(300):
            net.forward()

    return run


@several(more=10**6, huge=2**62, none=0, negative=2**64 - 1)
def lmdb_of_entries(draw: Draw, entries: int) -> Target:
    """A wrong count of records in both meta pages."""
    content = bytearray(draw.sound("many/data.mdb"))
    for page in (0, PAGE):
        content[page + _ENTRIES : page + _ENTRIES + 8] = entries.to_bytes(8, "little")
    draw.write("x/data.mdb", bytes(content))
    return draw.pick(_scan("x"), _forward(_data_layer("Data", "x")),
                     commands.data_tool("inspect", "x"))  # fmt: skip


@several(leaf=0x0010, branch=0x0001, overflow=0x0004)
def lmdb_of_page_flags(draw: Draw, flags: int) -> Target:
    """Pages of another kind than they are."""
    content = bytearray(draw.sound("many/data.mdb"))
    for page in range(2 * PAGE, len(content), PAGE):
        content[page + 10 : page + 12] = flags.to_bytes(2, "little")
    draw.write("x/data.mdb", bytes(content))
    return _scan("x")


# ---------------------------------------------------------------------------------------------
# Names
# ---------------------------------------------------------------------------------------------


def _stays_inside(target: Target, *outside: Path) -> Target:
    """The target, which must write nothing at these places."""

    def run() -> None:
        try:
            target()
        finally:
            found = [path for path in outside if path.exists() or path.with_suffix(".png").exists()]
            for path in found:
                path.with_suffix(".png").unlink(missing_ok=True)
            if found:
                raise AssertionError(f"written outside of the folder: {found}")

    return run


@several(predict=True, convert=False)
def record_key_leads_outside(draw: Draw, predict: bool) -> Target:
    """Keys that are paths."""
    outside = Path.cwd().parent / "escaped"
    keys = [f"00000000_{outside}", "00000001_../../escaped", "00000002_../escaped"]
    write_lmdb("x", [(key.encode(), draw.sound("datums/raw")) for key in keys])
    target = commands.data_tool("convert", "x", "out", "--to", "folder")
    if predict:
        for name, place in zip(DEPLOYED, ("net.prototxt", "w.caffemodel"), strict=True):
            draw.copy(name, place)
        target = commands.eval_tool("predict", "net.prototxt", "w.caffemodel", "--lmdb", "x", "-o",
                                    "out")  # fmt: skip
    return _stays_inside(target, outside, outside.parent.parent / "escaped")


@case
def run_name_leads_outside(draw: Draw) -> Target:
    """curves --tensorboard with a name that is a path."""
    draw.copy("logs/train.log", "x.log")
    return _stays_inside(
        commands.eval_tool("curves", "x.log", "-o", "o.svg", "--tensorboard", "tb", "--names",
                           "../../escaped"),
        Path.cwd().parent / "escaped",
    )  # fmt: skip


@several(layer="ImageData", tool="convert_imageset", pycaffe="load_image")
def picture_of_latin_1_name(draw: Draw, how: str) -> Target:
    """A picture whose name is no UTF-8."""
    name = os.fsdecode(b"gr\xfcn.png")
    draw.copy("pictures/rgb.png", name)
    draw.write("list.txt", os.fsencode(name) + b" 0\n")
    if how == "load_image":
        return lambda: io.load_image(name)
    if how == "ImageData":
        return _forward(_data_layer("ImageData", "list.txt"))
    return commands.caffe_command("tools.convert_imageset", "./", "list.txt", "out")


@several(data="Data", pictures="ImageData", hdf5="HDF5Data")
def path_with_nul(draw: Draw, kind: str) -> Target:
    """A source with a NUL in it."""
    return _forward(_data_layer(kind, "a\\000b"))


@several(image="ImageData", hdf5="HDF5Data")
def list_with_nul(draw: Draw, kind: str) -> Target:
    """A list whose paths have a NUL in them."""
    draw.write("list.txt", b"a\0b.png 0\n")
    return _forward(_data_layer(kind, "list.txt"))


# ---------------------------------------------------------------------------------------------
# Links
# ---------------------------------------------------------------------------------------------


@several(external="external", soft="soft", loop="loop", virtual="virtual", storage="storage",
         group="group")  # fmt: skip
def hdf5_that_leads_elsewhere(draw: Draw, how: str) -> Target:
    """Weights that are links: to other files, to themselves, to a virtual dataset."""
    with h5py.File("other.h5", "w") as other:
        other["data"] = np.ones(4, np.float32)
    with h5py.File("x.caffemodel.h5", "w") as file:
        group = file.create_group("data/conv")
        if how == "external":
            group["0"] = h5py.ExternalLink("other.h5", "/data")
        elif how == "soft":
            group["0"] = h5py.SoftLink("/nowhere")
        elif how == "loop":
            group["0"] = h5py.SoftLink("/data/conv/0")
        elif how == "group":
            group["conv"] = file["data"]
        elif how == "virtual":
            layout = h5py.VirtualLayout((4,), "f4")
            layout[...] = h5py.VirtualSource("other.h5", "data", (4,))
            group.create_virtual_dataset("0", layout)
        else:
            group.create_dataset("0", (4,), "u1", external=[("other.h5", 0, 4)])
    return lambda: files.read_weights("x.caffemodel.h5")


# ---------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------


@several(number="loss = 1.51.5", month="month", iteration="Iteration " + "9" * 5000 + ", loss = 1")
def log_line(draw: Draw, what: str) -> Target:
    """Log lines that no Caffe writes."""
    line = "I9928 21:00:00.000000 1 solver.cpp:228] Iteration 0, loss = 1"
    if what != "month":
        line = f"I1128 21:00:00.000000 1 solver.cpp:228] Iteration 0, {what}"
    draw.write("x.log", line.encode() + b"\n")
    return lambda: caffe_log.read_log("x.log")


@several(count={"classes": 5}, table={"classes": {"a": 1}}, names={"classes": [None, 3]},
         palette={"palette": "x"}, short={"palette": [[1]] * 5}, frames={"frames": [1]},
         frame={"frames": {"00000000_frame0": 3}}, options={"options": 3}, scenes={"scenes": 7},
         list=[1], shape={"shape": "x", "type": 3},
         colors={"palette": [[300, -1, 1e9]] * 5})  # fmt: skip
def dataset_json_of(draw: Draw, values: Any) -> Target:
    """A dataset.json with values of other types."""
    draw.copy("lmdb", "x")
    info = json.loads(draw.sound("lmdb/dataset.json"))
    info = {**info, **values} if isinstance(values, dict) else values
    draw.write("x/dataset.json", json.dumps(info).encode())
    for name, place in zip(DEPLOYED, ("net.prototxt", "w.caffemodel"), strict=True):
        draw.copy(name, place)
    every = [
        commands.data_tool("inspect", "x", "--html", "o.html"),
        commands.data_tool("convert", "x", "out", "--to", "folder"),
        commands.data_tool("class_weights", "x"),
        commands.eval_tool("evaluate", "net.prototxt", "w.caffemodel", "x", "--bootstrap", 0),
        commands.eval_tool("predict", "net.prototxt", "w.caffemodel", "--lmdb", "x", "-o", "p"),
    ]
    return draw.rng.choice(every)


@several(nets={"nets": 3}, position={"nets": [[{"layer": 3}]]}, words={"nets": [["a"]]},
         random={"random": [1]}, states={"random": [{"cpu": "!", "cuda": None}]},
         short={"random": [{"cpu": "AAAA", "cuda": None}]}, loss={"loss": 3},
         window={"loss": {"window": 3, "mean": "x", "since": None}}, iteration={"iteration": True},
         model={"model": {"file": 3}}, format={"format": [1]}, seed={"seed": "x"},
         numbers={"loss": {"window": ["x"], "mean": 1.0, "since": 0}}, list=[1])  # fmt: skip
def side_file_of(draw: Draw, values: Any) -> Target:
    """A .resume with values of other types."""
    draw.copy("nets/small.prototxt", "small.prototxt")
    draw.copy("solvers/sgd.prototxt", "solver.prototxt")
    for ending in ("caffemodel", "solverstate"):
        draw.copy(f"states/sgd_iter_2.{ending}")
    content = json.loads(draw.sound("states/sgd_iter_2.resume"))
    content = {**content, **values} if isinstance(values, dict) else values
    draw.write("states/sgd_iter_2.resume", json.dumps(content).encode())
    return commands.caffe_command("train", "-solver", "solver.prototxt", "-snapshot",
                                  "states/sgd_iter_2.solverstate")  # fmt: skip


@several(momentum2='type: "Adam" momentum: 0.9 momentum2: 1', beyond='type: "Adam" momentum2: 2',
         clip="clip_gradients: inf", rate="base_lr: nan", decay="weight_decay: inf",
         policy='lr_policy: "inv" gamma: inf power: nan', step='lr_policy: "step" stepsize: 0',
         delta='type: "AdaDelta" momentum: 0.9 delta: 0', size="iter_size: 0",
         rms='type: "RMSProp" rms_decay: 2')  # fmt: skip
def solver_value(draw: Draw, more: str) -> Target:
    """Solver values beyond their range."""
    draw.copy("nets/small.prototxt", "small.prototxt")
    lines = (
        'net: "small.prototxt"',
        "base_lr: 0.1",
        'lr_policy: "fixed"',
        "max_iter: 2",
        "display: 1",
    )
    kept = [line for line in lines if line.split()[0] not in more]
    draw.write("solver.prototxt", "\n".join([*kept, more]).encode())
    return commands.caffe_command("train", "-solver", "solver.prototxt")


@several(nan="std: nan", infinite="std: inf", bounds="min: nan max: inf", value="value: nan")
def filler_value(draw: Draw, more: str) -> Target:
    """Fillers without numbers."""
    kind = "uniform" if "min" in more else "constant" if "value" in more else "gaussian"
    return _forward(SMALL.replace('type: "xavier"', f'type: "{kind}" {more}'))


@several(tile='type: "Tile" tile_param { tiles: 2 }',
         lstm='type: "LSTM" recurrent_param { num_output: 2 }', argmax='type: "ArgMax"',
         rnn='type: "RNN" recurrent_param { num_output: 2 }', concat='type: "Concat"',
         flatten='type: "Flatten"')  # fmt: skip
def in_place(draw: Draw, what: str) -> Target:
    """Layers that cannot work in place."""
    return _forward(
        'layer { name: "x" type: "DummyData" top: "x" dummy_data_param {'
        " shape { dim: 2 dim: 3 dim: 4 } } }",
        f'layer {{ name: "l" {what} bottom: "x" top: "x" }}',
    )


@several(values=3, shape=0)
def vgg_blob_counts(draw: Draw, which: int) -> Target:
    """VGG weights with other counts of values than their shapes have."""
    model = pb.NetParameter()
    layer = model.layer.add(name="conv1_1", type="Convolution")
    for shape in ((64, 3, 3, 3), (64,)):
        blob = layer.blobs.add(data=[0.0] * (which or 5))
        blob.shape.dim.extend(shape if which else (-1, 2))
    draw.write("x.caffemodel", model.SerializeToString())
    draw.write("net.prototxt", DEPLOY.encode())
    return commands.data_tool("vgg_surgery", "x.caffemodel", "net.prototxt", "out.caffemodel")


@several(bom=b"\xef\xbb\xbfrgb.png 0\n", latin=b"gr\xfcn.png 0\n", excel=b"rgb.png;0\r\n",
         tab=b"rgb.png\t0\n", blanks=b"rgb.png   0\n",
         wide="rgb.png 0\n".encode("utf-16"))  # fmt: skip
def list_as_written_by_others(draw: Draw, content: bytes) -> Target:
    """Lists as Windows and spreadsheets write them."""
    draw.copy("pictures/rgb.png", "rgb.png")
    draw.write("list.txt", content)
    return draw.pick(
        _forward(_data_layer("ImageData", "list.txt")),
        commands.caffe_command("tools.convert_imageset", "./", "list.txt", "out"),
    )


@several(bom=b"\xef\xbb\xbflabel,name\n1,a\n", latin=b"label,name\n1,gr\xfcn\n",
         excel=b"label;name\n1;a\n", nul=b"label,name\n1,a\0b\n",
         long=b"label,name\n1," + b"x" * 200000)  # fmt: skip
def table_as_written_by_others(draw: Draw, content: bytes) -> Target:
    """Tables of classes as Windows and spreadsheets write them."""
    draw.write("t.csv", content)
    draw.copy("folder")
    return commands.data_tool("folder", "out", "--rgb", "folder/rgb", "--depth", "folder/depth",
                              "--label", "folder/label", "--classes", "t.csv")  # fmt: skip


@case
def weights_instead_of_a_state(draw: Draw) -> Target:
    """-snapshot with a .caffemodel."""
    draw.copy("nets/small.prototxt", "small.prototxt")
    draw.copy("solvers/sgd.prototxt", "solver.prototxt")
    draw.copy("states/sgd_iter_2.caffemodel", "m.caffemodel")
    return commands.caffe_command(
        "train", "-solver", "solver.prototxt", "-snapshot", "m.caffemodel"
    )


@case
def hdf5_file_instead_of_a_list(draw: Draw) -> Target:
    """HDF5Data whose source is the file itself."""
    draw.copy("hdf5/data.h5", "data.h5")
    return _forward(_data_layer("HDF5Data", "data.h5"))


@case
def records_of_four_channels(draw: Draw) -> Target:
    """A net for five channels on records of four."""
    datum = pb.Datum(channels=4, height=6, width=8, data=bytes(192))
    write_lmdb("lmdb", [(b"0", datum.SerializeToString())])
    net = draw.copy("nets/train.prototxt", "net.prototxt")
    return lambda: caffe.Net(str(net), caffe.TRAIN).forward()


@case
def whole_module_pickled(draw: Draw) -> Target:
    """A .pth that needs code."""
    import torch

    torch.save(torch.nn.Linear(2, 2), "x.pth")
    return lambda: read_state_dict("x.pth")


@case
def hdf5_output_without_space(draw: Draw) -> Target:
    """HDF5Output on a disk that is full; here, a file that must not grow."""
    layers = (
        'layer { name: "x" type: "DummyData" top: "x" top: "y" dummy_data_param {'
        " shape { dim: 64 dim: 1000 } } }",
        'layer { name: "o" type: "HDF5Output" bottom: "x" bottom: "y"'
        ' hdf5_output_param { file_name: "o.h5" } }',
    )

    def run() -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
        try:
            _forward(*layers)()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return run


def _onnx(draw: Draw, change: Callable[[onnx.GraphProto], object]) -> Target:
    """evaluate of a sound ONNX file but for one thing."""
    model = onnx.ModelProto.FromString(draw.sound("onnx/tiny.onnx"))
    change(model.graph)
    draw.write("net.onnx", model.SerializeToString())
    draw.copy("lmdb", "x")
    return commands.eval_tool("evaluate", "net.onnx", "x", "--bootstrap", 20)


@case
def onnx_input_without_axes(draw: Draw) -> Target:
    """An ONNX file whose first input is a scalar."""
    return _onnx(draw, lambda graph: graph.input[0].type.tensor_type.shape.Clear())


@case
def onnx_output_of_another_shape(draw: Draw) -> Target:
    """An ONNX file that gives other scores than it says."""

    def change(graph: onnx.GraphProto) -> None:
        graph.output[0].type.tensor_type.shape.dim[1].dim_value = 7

    return _onnx(draw, change)


@several(of_gigabytes=2**31 - 1, beyond_all_addresses=2**62)
def net_as_onnx(draw: Draw, side: int) -> Target:
    """An ONNX file whose output is larger than any memory."""

    def change(graph: onnx.GraphProto) -> None:
        graph.output[0].type.tensor_type.shape.dim[3].dim_value = side

    return _onnx(draw, change)


@case
def deep_prototxt(draw: Draw) -> Target:
    """Braces without end."""
    draw.write("net.prototxt", b"layer { " * 20000)
    return lambda: caffe.Net("net.prototxt", caffe.TEST)


@case
def deep_json(draw: Draw) -> Target:
    """Brackets without end."""
    draw.copy("lmdb", "x")
    draw.write("x/dataset.json", b"[" * 100000)
    return commands.data_tool("inspect", "x")

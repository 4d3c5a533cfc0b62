"""The smallest sound file of each kind that the product reads: what the mutators start from.

Code makes all of it, so that no binary file needs to be kept, and so that it follows the formats as
they change.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import pickle
import re
import struct
import sys
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
import torch
from PIL import Image

import caffe
from boundary import packed
from caffe.convert import to_onnx
from caffe.formats import db, files
from caffe.proto import caffe_pb2 as pb
from caffe.quantize import quantize
from data_tools import port_weights, store
from data_tools.cli import DataError
from data_tools.record import to_datum
from data_tools.store import key
from netgen.cli import main as netgen_main

ROOT = Path(__file__).resolve().parents[3]
# The writers of .mat files lie beside the tests of their readers.
sys.path.append(str(ROOT / "tests" / "data_tools"))

import bags  # noqa: E402
import camera_files  # noqa: E402
import layouts  # noqa: E402
import mat_files  # noqa: E402

NAMES = ["(ignored)", "wall", "floor", "chair", "table"]

DEPLOY = """name: "tiny"
layer { name: "rgb" type: "Input" top: "rgb"
  input_param { shape { dim: 1 dim: 3 dim: 6 dim: 8 } } }
layer { name: "depth" type: "Input" top: "depth"
  input_param { shape { dim: 1 dim: 1 dim: 6 dim: 8 } } }
layer { name: "all" type: "Concat" bottom: "rgb" bottom: "depth" top: "all" }
layer { name: "conv" type: "Convolution" bottom: "all" top: "conv"
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "bn" type: "BatchNorm" bottom: "conv" top: "conv" }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool" top: "mask"
  pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "unpool" type: "Unpooling" bottom: "pool" bottom: "mask" top: "unpool"
  unpooling_param { scale: 2 } }
layer { name: "score" type: "Convolution" bottom: "unpool" top: "score"
  convolution_param { num_output: 5 kernel_size: 1 weight_filler { type: "xavier" } } }
layer { name: "prob" type: "Softmax" bottom: "score" top: "prob" }
"""

TRAIN = """name: "trained"
layer { name: "data" type: "Data" top: "data" include { phase: TRAIN }
  transform_param { mirror: true scale: 0.01 }
  data_param { source: "lmdb" backend: LMDB batch_size: 2 shuffle: true } }
layer { name: "data" type: "Data" top: "data" include { phase: TEST }
  data_param { source: "lmdb" backend: LMDB batch_size: 1 } }
layer { name: "slice" type: "Slice" bottom: "data" top: "input" top: "label"
  slice_param { axis: 1 slice_point: 4 } }
layer { name: "conv" type: "Convolution" bottom: "input" top: "conv" param { lr_mult: 1 }
  convolution_param { num_output: 4 kernel_size: 3 pad: 1 weight_filler { type: "msra" } } }
layer { name: "drop" type: "Dropout" bottom: "conv" top: "conv"
  dropout_param { dropout_ratio: 0.5 } }
layer { name: "score" type: "Convolution" bottom: "conv" top: "score"
  convolution_param { num_output: 5 kernel_size: 1 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "score" bottom: "label" top: "loss"
  loss_param { ignore_label: 0 } }
layer { name: "accuracy" type: "Accuracy" bottom: "score" bottom: "label" top: "accuracy"
  include { phase: TEST } accuracy_param { ignore_label: 0 } }
"""

AUGMENT = """layer { name: "data" type: "Data" top: "data" include { phase: TRAIN }
  transform_param { mirror: true augmentation_param {
    color_channel: 0 color_channel: 1 color_channel: 2 label_channel: 4 depth_channel: 3
    min_scale: 0.75 max_scale: 1.5 max_angle: 10 crop_h: 5 crop_w: 7
    min_depth_scale: 0.9 max_depth_scale: 1.1 brightness: 0.2 contrast: 0.2 hue: 0.05 } }
  data_param { source: "lmdb" backend: LMDB batch_size: 2 shuffle: true } }
"""

SMALL = """name: "small"
layer { name: "x" type: "DummyData" top: "x" top: "t" dummy_data_param {
  shape { dim: 2 dim: 3 } shape { dim: 2 dim: 2 } data_filler { type: "gaussian" std: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" param { lr_mult: 1 decay_mult: 1 }
  inner_product_param { num_output: 2 weight_filler { type: "xavier" } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "t" top: "loss" }
"""

VOC = """<?xml version="1.0"?>
<annotation><filename>rgb.png</filename>
  <size><width>8</width><height>6</height><depth>3</depth></size>
  <object><name>chair</name><pose>Left</pose><truncated>0</truncated><difficult>1</difficult>
    <bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object>
  <object><name>table</name><difficult>0</difficult>
    <bndbox><xmin>2.5</xmin><ymin>1</ymin><xmax>8</xmax><ymax>4</ymax></bndbox>
    <part><name>top</name><bndbox><xmin>2</xmin></bndbox></part></object>
</annotation>
"""

CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><task><labels>
  <label><name>chair</name><color>#3d3df5</color><type>any</type></label>
  <label><name>table</name><color>#fa3253</color><type>any</type></label></labels></task></meta>
  <image id="0" name="rgb.png" width="8" height="6">
    <polygon label="chair" points="1.50,1.00;6.00,1.20;5.00,4.00" z_order="1"/>
    <box label="table" xtl="2.00" ytl="1.00" xbr="7.50" ybr="3.00" rotation="30.0" z_order="0"/>
    <mask label="chair" rle="1, 2, 3" left="2" top="1" width="3" height="2" z_order="2"/>
    <ellipse label="table" cx="4.00" cy="3.00" rx="2.00" ry="1.50" rotation="10.0" z_order="0"/>
    <polyline label="chair" points="1.00,1.00;2.00,2.00" z_order="0"/>
  </image></annotations>
"""

SOLVERS = {
    "sgd": 'type: "SGD" momentum: 0.9 weight_decay: 0.001 lr_policy: "step" gamma: 0.5 stepsize: 2',
    "adam": 'type: "Adam" momentum: 0.9 momentum2: 0.999 delta: 1e-8 lr_policy: "fixed"',
    "rmsprop": 'type: "RMSProp" rms_decay: 0.98 lr_policy: "inv" gamma: 0.1 power: 0.75',
    "nesterov": 'type: "Nesterov" momentum: 0.9 lr_policy: "multistep" stepvalue: 1 stepvalue: 3',
    "adadelta": 'type: "AdaDelta" momentum: 0.9 delta: 1e-6 lr_policy: "poly" power: 1 '
    "clip_gradients: 5",
    "adagrad": 'type: "AdaGrad" lr_policy: "sigmoid" gamma: 0.1 stepsize: 2 iter_size: 2',
}

LOG = """I1128 21:00:00.000000 12 solver.cpp:279] Solving tiny
I1128 21:00:00.100000 12 solver.cpp:337] Iteration 0, Testing net (#0)
I1128 21:00:00.200000 12 solver.cpp:404]     Test net output #0: accuracy = 0.25
I1128 21:00:00.200000 12 solver.cpp:404]     Test net output #1: loss = 1.609 (* 1 = 1.609 loss)
I1128 21:00:01.000000 12 solver.cpp:228] Iteration 0 (0 iter/s, 1s/20 iters), loss = 1.61
I1128 21:00:01.000000 12 solver.cpp:244]     Train net output #0: loss = 1.61 (* 1 = 1.61 loss)
I1128 21:00:01.000000 12 sgd_solver.cpp:106] Iteration 0, lr = 0.001
I1231 23:59:59.900000 12 solver.cpp:228] Iteration 20 (9 iter/s, 2s/20 iters), loss = 1.2e-1
I0101 00:00:02.000000 12 sgd_solver.cpp:106] Iteration 20, lr = 0.0001
I20270101 00:00:03.000000 12 solver.cpp:337] Iteration 40, Testing net (#1)
I20270101 00:00:04.000000 12 solver.cpp:404]     Test net output #0: accuracy = nan
I20270101 00:00:05.000000 12 solver.cpp:317] Iteration 40, loss = 0.5
I20270101 00:00:05.000000 12 solver.cpp:322] Optimization Done.
"""


def write(folder: Path) -> None:
    """Writes the whole corpus to a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else _within(folder):
        rng = np.random.default_rng(0)
        cv2.setNumThreads(0)
        for make in (
            texts, records, models, arrays, hdf5_data, pictures, mats, prepared, folders,
            state_dicts, port, packed_models, recordings, onnx_files,
        ):  # fmt: skip
            make(rng)
        annotations()


@contextlib.contextmanager
def _within(folder: Path):
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _text(path: str, content: str) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(content, encoding="utf-8")


def texts(rng: np.random.Generator) -> None:
    """Nets, solvers, lists, tables, logs."""
    _text("nets/deploy.prototxt", DEPLOY)
    _text("nets/train.prototxt", TRAIN)
    _text("nets/small.prototxt", SMALL)
    _text("augment.prototxt", AUGMENT)
    for name, more in (
        ("train", "--source lmdb"),
        ("deploy", "--deploy"),
        ("list", "--data-list l"),
    ):
        argv = f"sf2 --classes 4 --size 64x48 --width-multiplier 0.03 {more}"
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            assert netgen_main(argv.split()) == 0
        _text(f"earlier/{name}.prototxt", printed.getvalue())
    for version in ("v0", "v1"):
        old = (ROOT / "tests" / "golden" / "interop" / f"{version}.prototxt").read_text()
        _text(f"nets/{version}.prototxt", old)
    for name, more in SOLVERS.items():
        _text(
            f"solvers/{name}.prototxt",
            f'net: "small.prototxt" base_lr: 0.01 max_iter: 4 display: 1 snapshot: 2\n{more}\n'
            'test_iter: 1 test_interval: 2 snapshot_prefix: "run" random_seed: 1\n',
        )
    _text("tables/classes.csv", "label,name,r,g,b\n" + "".join(
        f"{i},{name},{10 * i},{20 * i},{30 * i}\n" for i, name in enumerate(NAMES)))  # fmt: skip
    _text("tables/plain.csv", "label,name\n1,wall\n2,floor\n3,chair\n4,table\n")
    _text("tables/map.csv", "from,to,name\n1,1,wall\n2,1,\n3,2,thing\n4,0,\n")
    _text("tables/names.txt", "\n".join(NAMES[1:]) + "\n")
    _text("tables/keys.txt", "frame1\nframe0\n")
    _text("tables/weights.txt", "0 1.5, 0.25 # the first two\n3 1e-3\n")
    _text("tables/modules.txt", "features.0 conv # first\nclassifier score\n")
    _text("tables/windows.csv", "filename,ymin,xmin,ymax,xmax\nrgb.png,0,0,4,4\nrgb.png,1,1,5,6\n")
    _text("tables/detect.txt", "rgb.png\nbmp.bmp\n")
    for name in ("ROWS", "REALSENSE", "PRINTED", "PRINTED_MOTION", "K4A", "ROS1", "ROS2",
                 "ROS_FILE", "OPENCV", "ORB_SLAM", "SCANNET"):  # fmt: skip
        _text(f"cameras/{name.lower()}.txt", getattr(camera_files, name))
    named = json.loads((ROOT / "data_tools" / "tables" / "cameras.json").read_text())
    for name, camera in named.items():
        _text(f"cameras/{name}.json", json.dumps(camera))
    _text("cameras/one.json", json.dumps(named["kinect-v1"]["color"]))
    _text("cameras/place.json", json.dumps(named["kinect-v1"]["extrinsics"]))
    choice = {"net": "n", "program": "openvino", "milliseconds": {"torch": 2.5, "openvino": 1}}
    _text("engines/choice.json", json.dumps(choice))
    _text("logs/train.log", LOG)
    _text("logs/short.log", "\n".join(LOG.splitlines()[4:7]) + "\n")
    _text("lists/images.txt", "rgb.png 0\nbmp.bmp 1\njpeg.jpg 2\n")
    _text("lists/labels.txt", "rgb.png label.png\n")
    _text("lists/frames.txt", "rgb.png depth.png label.png 1\nrgb.png depth.png label.png 0\n")
    _text("lists/scenes.txt", "# 0\nrgb.png\n3\n6\n8\n2\n1 0 1 1 5 5\n2 1 0 0 6 5\n1\n0 0 2 2\n")
    _text("lists/windows.txt", "# 0\nrgb.png\n3\n6\n8\n2\n1 0.9 0 0 4 4\n0 0.1 1 1 5 5\n"
          "# 1\nbmp.bmp\n3\n6\n8\n1\n2 0.7 0 0 6 5\n")  # fmt: skip
    _text("lists/hdf5.txt", "data.h5\nmore.h5\n")
    _text("voc/list.txt", "rgb.png rgb.xml\nrgb.png rgb.xml\n")
    _text("voc/labels.prototxt", "".join(
        f'item {{ name: "{name}" label: {i} display_name: "A {name}" }}\n'
        for i, name in enumerate(NAMES)))  # fmt: skip
    _text("voc/rgb.xml", VOC)
    _text("scannet/scannetv2_train.txt", "scene0000_00\nscene0001_00\n")
    _text("scannet/scannetv2_val.txt", "scene0001_00\n")


# ---------------------------------------------------------------------------------------------
# Records
# ---------------------------------------------------------------------------------------------


def planes(rng: np.random.Generator, height: int = 6, width: int = 8) -> np.ndarray:
    """A record of five channels."""
    drawn = rng.integers(1, 256, (5, height, width)).astype(np.uint8)
    drawn[4] %= len(NAMES)
    return drawn


def write_lmdb(path: str, items: list[tuple[bytes, bytes]]) -> None:
    """An LMDB of these keys and values."""
    Path(path).mkdir(parents=True)
    env = lmdb.open(path, map_size=1 << 22, lock=False)
    with env.begin(write=True) as transaction:
        for name, value in items:
            transaction.put(name, value)
    env.close()


def records(rng: np.random.Generator) -> None:
    """LMDBs: of five channels, of floats, of encoded pictures, of many records; dataset.json."""
    frames = [(key(i, f"frame{i}"), to_datum(planes(rng), i % 2)) for i in range(3)]
    write_lmdb("lmdb", frames)
    info = {
        "tool": "data_tools.folder", "dataset": "tiny", "split": "train",
        "labeled": True, "classes": NAMES,
        "type": "uint8", "shape": [5, 6, 8],
        "palette": [[10 * i, 20 * i, 30 * i] for i in range(5)], "scenes": ["bedroom", "kitchen"],
        "source": {"rgb": "rgb", "depth": "depth", "label": "label"},
        "frames": {name.decode(): {"camera": "kv1", "files": {"color": "a.png"}}
                   for name, _ in frames},
        "options": {"size": [8, 6], "depth_unit": "1000", "depth_range": "authors",
                    "float_depth": False},
    }  # fmt: skip
    info |= store.survey(iter(store.Reader("lmdb")), "lmdb")
    _text("lmdb/dataset.json", json.dumps(info))
    write_lmdb("floats", [(key(0, "f"), to_datum(planes(rng).astype(np.float32), 0))])
    picture = cv2.imencode(".png", rng.integers(0, 256, (6, 8, 3)).astype(np.uint8))[1].tobytes()
    datum = pb.Datum(encoded=True, data=picture, label=1)
    write_lmdb("encoded", [(b"0000", datum.SerializeToString())])
    write_lmdb("many", [(b"%05d" % i, to_datum(planes(rng, 2, 3), i)) for i in range(300)])
    Path("datums").mkdir()
    Path("datums/raw").write_bytes(frames[0][1])
    Path("datums/encoded").write_bytes(datum.SerializeToString())
    Path("datums/floats").write_bytes(to_datum(planes(rng).astype(np.float32), 0))
    with contextlib.suppress(caffe.CaffeError), db.create("leveldb", "leveldb") as put:
        for name, value in frames:
            put(name, value)
    for path in Path().glob("leveldb/LOG"):  # it tells the time, and nobody reads it
        path.write_bytes(b"")


# ---------------------------------------------------------------------------------------------
# Weights, states, arrays
# ---------------------------------------------------------------------------------------------


def models(rng: np.random.Generator) -> None:
    """Weights, solver states and side files, as training and saving write them."""
    caffe.set_random_seed(1)
    net = caffe.Net("nets/deploy.prototxt", caffe.TEST)
    Path("weights").mkdir()
    net.save("weights/tiny.caffemodel")
    net.save_hdf5("weights/tiny.caffemodel.h5")
    Path("states").mkdir()
    for name in SOLVERS:
        for form in ("BINARYPROTO", "HDF5"):
            param = files.read_solver(f"solvers/{name}.prototxt")
            param.net = "nets/small.prototxt"
            param.snapshot_prefix = f"states/{name}"
            param.snapshot_format = pb.SolverParameter.SnapshotFormat.Value(form)
            caffe.get_solver(param).step(2)
    for path in Path("states").glob("*.solverstate.h5"):
        _without_time(path)
    for path in Path("states").glob("*.resume"):
        text = re.sub(r'"written": [\d.]+', '"written": 1.0', path.read_text())
        # Without the checksum spoiled values are looked at.
        path.write_text(re.sub(r' "crc32": \d+,\n', "", text, count=1))
    old = pb.NetParameter(name="old")
    layer = old.layers.add(name="conv", type=pb.V1LayerParameter.CONVOLUTION)
    layer.bottom.append("data"), layer.top.append("conv")
    blob = layer.blobs.add(num=2, channels=1, height=2, width=2)
    blob.data.extend(range(8))
    Path("weights/v1.caffemodel").write_bytes(old.SerializeToString())
    Path("weights/small.caffemodel").write_bytes(Path("states/sgd_iter_2.caffemodel").read_bytes())


def _without_time(path: Path) -> None:
    """Writes a solver state in HDF5 again, without the moment at which its parts were made."""
    with h5py.File(path) as old, h5py.File(io.BytesIO(), "w") as new:
        for name in ("iter", "current_step", "history"):
            old.copy(name, new)
        name = old["learned_net"]
        timeless = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        timeless.set_obj_track_times(False)
        space, kind = h5py.h5s.create(h5py.h5s.SCALAR), name.id.get_type()
        made = h5py.h5d.create(new.id, b"learned_net", kind, space, timeless)
        made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.array(name[()], f"S{kind.get_size()}"), kind)
        new.flush()
        content = new.id.get_file_image()
    path.write_bytes(content)


def arrays(rng: np.random.Generator) -> None:
    """Means as .binaryproto and .npy, and other arrays."""
    mean = rng.uniform(0, 255, (3, 6, 8)).astype(np.float32)
    blob = pb.BlobProto(num=1, channels=3, height=6, width=8)
    blob.data.extend(mean.ravel().tolist())
    Path("arrays").mkdir()
    Path("arrays/mean.binaryproto").write_bytes(blob.SerializeToString())
    np.save("arrays/mean.npy", mean)
    np.save("arrays/pictures.npy", rng.uniform(0, 1, (2, 6, 8, 3)).astype(np.float32))
    np.savez("arrays/several.npz", a=mean, b=mean)
    np.save("arrays/objects.npy", np.array({"a": [1]}, dtype=object), allow_pickle=True)


def state_dicts(rng: np.random.Generator) -> None:
    """PyTorch's files, new and old form, and pickles."""
    Path("torch").mkdir()
    state = {
        "conv.weight": torch.ones(4, 4, 3, 3), "conv.bias": torch.ones(4),
        "bn.weight": torch.ones(4), "bn.bias": torch.zeros(4), "bn.running_mean": torch.zeros(4),
        "bn.running_var": torch.ones(4), "bn.num_batches_tracked": torch.tensor(3),
        "score.weight": torch.ones(5, 4, 1, 1), "score.bias": torch.zeros(5),
    }  # fmt: skip
    torch.save(state, "torch/tiny.pth")
    torch.save({"state_dict": state, "epoch": 3}, "torch/checkpoint.pth")
    # The old form names a storage by its address, and orders them by it: one, with another name.
    buffer = io.BytesIO()
    one = {"conv.weight": state["conv.weight"]}
    torch.save(one, buffer, _use_new_zipfile_serialization=False)
    address = re.compile(rb"X[\x0a-\x10]\0\0\0\d{10,16}")
    Path("torch/old.pth").write_bytes(address.sub(b"X\x02\0\0\x0042", buffer.getvalue()))
    Path("pickles").mkdir()
    for protocol in (0, 2, 4):
        with open(f"pickles/splits{protocol}.pkl", "wb") as file:
            pickle.dump({"trainval": np.array([1]), "test": [2]}, file, protocol)


def port(rng: np.random.Generator) -> None:
    """A narrow SF5 and a state dict of the PyTorch port that fits it; a narrow VGG and its net."""
    argv = ["sf5", "--classes", "4", "--deploy", "--size", "32x32", "--width-multiplier", "0.03"]
    with contextlib.redirect_stdout(io.StringIO()) as text:
        assert netgen_main([*argv, "--pooling", "floor"]) == 0
    _text("port/sf5.prototxt", text.getvalue())
    params = caffe.Net("port/sf5.prototxt", caffe.TEST).params
    state = {}
    for name, source in port_weights.sources().items():
        weight, bias = (blob.data.copy() for blob in params[name])
        if source.change(weight).shape != weight.shape or name.endswith("_D"):
            weight = weight.transpose(1, 0, 2, 3)
        state |= {f"{source.key}.weight": weight, f"{source.key}.bias": bias}
        if source.bn:
            for leaf in ("running_mean", "running_var", "weight", "bias"):
                state[f"{source.norm_key}.{leaf}"] = np.ones_like(bias)
    tensors = {key: torch.from_numpy(np.ascontiguousarray(value)) for key, value in state.items()}
    torch.save(tensors, "port/port.pth")
    _text("vgg/net.prototxt", "".join(
        f'layer {{ name: "{name}" type: "Input" top: "{name}" input_param {{ '
        f"shape {{ dim: 1 dim: {channels} dim: 6 dim: 8 }} }} }}\n"
        for name, channels in (("rgb", 3), ("depth", 1))
    ) + "".join(
        f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}"\n'
        "  convolution_param { num_output: 2 kernel_size: 3 pad: 1 } }\n"
        for name, bottom in (("conv1_1", "rgb"), ("conv1_1_pair1ch", "depth"),
                             ("conv1_2", "conv1_1"), ("conv1_2_D", "conv1_2"))
    ))  # fmt: skip
    ours = {
        "conv1_1": rng.normal(size=(2, 3, 3, 3)), "conv1_2": rng.normal(size=(2, 2, 3, 3)),
    }  # fmt: skip
    model, tensors = pb.NetParameter(name="VGG"), {}
    for index, (name, weight) in zip((0, 2), ours.items(), strict=True):
        layer = model.layer.add(name=name, type="Convolution")
        for values in (weight, np.zeros(2)):
            blob = layer.blobs.add(data=values.ravel().tolist())
            blob.shape.dim.extend(values.shape)
        tensors[f"features.{index}.weight"] = torch.from_numpy(weight).float()
        tensors[f"features.{index}.bias"] = torch.zeros(2)
    Path("vgg/vgg.caffemodel").write_bytes(model.SerializeToString())
    torch.save(tensors, "vgg/vgg.pth")


# ---------------------------------------------------------------------------------------------
# HDF5, pictures, MATLAB, other people's data sets
# ---------------------------------------------------------------------------------------------


def hdf5_data(rng: np.random.Generator) -> None:
    """What HDF5Data reads."""
    Path("hdf5").mkdir()
    for name, count in (("data.h5", 4), ("more.h5", 3)):
        with h5py.File(f"hdf5/{name}", "w") as file:
            file["data"] = rng.normal(size=(count, 3, 2)).astype(np.float32)
            file["label"] = np.arange(count, dtype=np.float32)
    with h5py.File("hdf5/packed.h5", "w") as file:
        values = rng.normal(size=(4, 3, 2)).astype(np.float32)
        file.create_dataset("data", data=values, chunks=(2, 3, 2), compression="gzip")
        file.create_dataset("label", data=np.arange(4, dtype=np.int8), chunks=(2,), shuffle=True)


def pictures(rng: np.random.Generator) -> None:
    """A picture of each format and use."""
    Path("pictures").mkdir()
    color = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    grey = rng.integers(0, 5, (6, 8)).astype(np.uint8)
    depth = rng.integers(500, 5000, (6, 8)).astype(np.uint16)
    metres = (depth / 1000).astype(np.float32)
    for name, image in (
        ("rgb.png", color), ("label.png", grey), ("depth.png", depth), ("bmp.bmp", color),
        ("jpeg.jpg", color), ("tiff.tif", color), ("deep.tiff", depth), ("floats.tiff", metres),
        ("grey.pgm", grey), ("deep.pgm", depth), ("ppm.ppm", color), ("webp.webp", color),
    ):  # fmt: skip
        assert cv2.imwrite(f"pictures/{name}", image)
    palette = Image.fromarray(grey, "P")
    palette.putpalette([10 * (i % 20) for i in range(768)])
    palette.save("pictures/palette.png")
    Image.fromarray(color).save("pictures/gif.gif")
    Image.fromarray(np.dstack([color, grey])).save("pictures/alpha.png")
    np.save("pictures/depth.npy", metres)
    np.save("pictures/label.npy", grey)
    for compression in (0, 1, 2, 3):
        Path(f"pictures/exr{compression}.exr").write_bytes(exr(metres, compression))


def exr(values: np.ndarray, compression: int) -> bytes:
    """An OpenEXR picture of scan lines with one channel Z of floats: 0 none, 1 run lengths, 2 and
    3 deflated, by 1 and 16 lines."""
    import zlib

    height, width = values.shape

    def attribute(name: str, kind: str, value: bytes) -> bytes:
        return name.encode() + b"\0" + kind.encode() + b"\0" + struct.pack("<i", len(value)) + value

    box = struct.pack("<4i", 0, 0, width - 1, height - 1)
    head = struct.pack("<ii", 20000630, 2)
    head += attribute("channels", "chlist", b"Z\0" + struct.pack("<iiii", 2, 0, 1, 1) + b"\0")
    head += attribute("compression", "compression", bytes([compression]))
    head += attribute("dataWindow", "box2i", box) + attribute("displayWindow", "box2i", box)
    head += attribute("lineOrder", "lineOrder", b"\0")
    head += attribute("pixelAspectRatio", "float", struct.pack("<f", 1))
    head += attribute("screenWindowCenter", "v2f", struct.pack("<ff", 0, 0))
    head += attribute("screenWindowWidth", "float", struct.pack("<f", 1)) + b"\0"
    step = 16 if compression == 3 else 1
    blocks = []
    for y in range(0, height, step):
        raw = values[y : y + step].astype("<f4").tobytes()
        mixed = np.frombuffer(raw[::2] + raw[1::2], np.uint8).astype(np.int64)
        deltas = np.diff(mixed, prepend=mixed[0]) + 128
        deltas[0] = mixed[0]
        data = (deltas % 256).astype(np.uint8).tobytes()
        if compression == 1:
            data = b"".join(struct.pack("b", -1) + data[i : i + 1] for i in range(len(data)))
        elif compression in (2, 3):
            data = zlib.compress(data)
        if compression == 0 or len(data) >= len(raw):
            data = raw
        blocks.append(struct.pack("<ii", y, len(data)) + data)
    at, table = len(head) + 8 * len(blocks), []
    for block in blocks:
        table.append(at)
        at += len(block)
    return head + struct.pack(f"<{len(table)}Q", *table) + b"".join(blocks)


def mats(rng: np.random.Generator) -> None:
    """MATLAB files: level 5, compressed and not, and 7.3; SUN RGB-D's toolbox with its frames."""
    Path("mat").mkdir()
    mat_files.write_nyu(Path("mat/nyu.mat"), 2, size=(8, 6))
    mat_files.write_nyu(Path("mat/packed.mat"), 2, size=(8, 6), chunk=1, compression="gzip")
    for name, compress in (("plain", False), ("packed5", True)):
        mat_files.write_level5(
            Path(f"mat/{name}.mat"), compress, text="wall", numbers=np.arange(6.0).reshape(2, 3),
            cells=["a", "bc"], rows=[{"one": "x", "two": np.arange(3, dtype=np.int32)}],
        )  # fmt: skip
    frames = ["kv1/b3dodata/img1", "xtion/sun3ddata/img2"]
    top = "/n/fs/sun3d/data/SUNRGBD/"
    rows = [
        {"rgbpath": f"{top}{name}/image/rgb.jpg", "rgbname": "rgb.jpg", "depthname": "depth.png"}
        for name in frames
    ]
    meta, split = Path("sunrgbd/toolbox/Metadata"), Path("sunrgbd/toolbox/traintestSUNRGBD")
    meta.mkdir(parents=True), split.mkdir()
    mat_files.write_level5(meta / "SUNRGBDMeta.mat", SUNRGBDMeta=rows)
    mat_files.write_level5(
        split / "allsplit.mat", alltrain=[top + frames[0]], alltest=[top + frames[1]]
    )
    with h5py.File(meta / "SUNRGBD2Dseg.mat", "w", userblock_size=512) as file:
        references = file.create_dataset("SUNRGBD2Dseg/seglabel", (1, 2), h5py.ref_dtype)
        for i in range(2):
            label = rng.integers(0, 38, (8, 6)).astype(np.float64)
            references[0, i] = file.create_dataset(f"#refs#/{i}", data=label).ref
    with open(meta / "SUNRGBD2Dseg.mat", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    for name in frames:
        for part, file_name in (("image", "rgb.jpg"), ("depth_bfx", "depth.png")):
            _frame_file(rng, Path("sunrgbd/data") / name / part / file_name, part)


def _frame_file(rng: np.random.Generator, path: Path, part: str, highest: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if part.startswith("depth"):
        image = rng.integers(500, 5000, (6, 8)).astype(np.uint16)
    elif part.startswith(("label", "seglabel")):
        image = rng.integers(0, highest + 1, (6, 8)).astype(np.uint8)
    else:
        image = rng.integers(0, 256, (6, 8, 3)).astype(np.uint8)
    assert cv2.imwrite(str(path), image)


def prepared(rng: np.random.Generator) -> None:
    """The three forms that data_tools.prepared reads."""
    for folder in ("images-224", "depth-inpaint-u8-224", "seglabel-224"):
        part = folder.split("-")[0].replace("images", "image")
        for number in (1, 2):
            path = Path(f"prepared/sun/{folder}/{number}.png")
            _frame_file(rng, path, part)
            if part == "depth":
                assert cv2.imwrite(str(path), rng.integers(1, 256, (6, 8)).astype(np.uint8))
    with open("prepared/sun/splits.pkl", "wb") as file:
        pickle.dump({"trainval": np.array([1]), "test": [2]}, file, 2)
    parts = {
        "rgb_images": [rng.integers(0, 256, (6, 8, 3)).astype(np.uint8) for _ in range(3)],
        "depth_images": [rng.integers(1, 256, (6, 8)).astype(np.uint8) for _ in range(3)],
        "masks": [rng.integers(0, 41, (6, 8)).astype(np.uint8) for _ in range(3)],
    }
    np.save("prepared/nyuv2.npy", np.array(parts, dtype=object), allow_pickle=True)
    with h5py.File("prepared/zanil.h5", "w") as file:
        for part in ("train", "test"):
            file[f"rgb_{part}"] = rng.integers(0, 256, (2, 3, 6, 8)).astype(np.uint8)
            file[f"depth_{part}"] = rng.integers(1, 256, (2, 1, 6, 8)).astype(np.uint8)
            file[f"label_{part}"] = rng.integers(0, 41, (2, 6, 8)).astype(np.uint8)
            file[f"class_{part}"] = np.array([1, 2])


def folders(rng: np.random.Generator) -> None:
    """Folders of frames: one's own, and ScanNet's."""
    for part, word in (("rgb", "rgb"), ("depth", "depth"), ("label", "label")):
        for number in (0, 1):
            _frame_file(rng, Path(f"folder/{part}/{number:04d}_{word}.png"), part)
    for scene in ("scene0000_00", "scene0001_00"):
        top = Path("scannet/scannet_frames_25k") / scene
        for part, ending in (("color", "jpg"), ("depth", "png"), ("label", "png")):
            _frame_file(rng, top / part / f"000000.{ending}", part)


def packed_models(rng: np.random.Generator) -> None:
    """A net, its weights and an example in one file."""
    Path("packed").mkdir()
    info = {
        "tool": "fusenet 0.1.0",
        "options": {"size": [8, 6], "fit": "crop", "depth_range": "0:8 m", "float_depth": False},
        "classes": NAMES,
        "palette": [[10 * label] * 3 for label in range(5)],
        "figures": [{"mean_iou": 0.5}],
        "example": {"depth_unit": "mm"},
    }
    packed.write("packed/tiny.fusenet", info, PACKED, DataError)


def onnx_files(rng: np.random.Generator) -> None:
    """A net as an ONNX file, in float32 and in int8."""
    Path("onnx").mkdir()
    net = caffe.Net("nets/deploy.prototxt", caffe.TEST, weights="weights/tiny.caffemodel")
    to_onnx(net, "onnx/tiny.onnx", check=False)
    quantize(net, "lmdb", "onnx/int8.onnx", auto=False, target="onnxruntime", tell=lambda line: 0)


# The parts of that file.
PACKED = {
    "net": "nets/deploy.prototxt",
    "weights": "weights/tiny.caffemodel",
    "color": "pictures/rgb.png",
    "depth": "pictures/depth.png",
}


def recordings(rng: np.random.Generator) -> None:
    """Recordings of three frames, one of each kind."""
    frames = [
        (
            rng.integers(0, 256, (6, 8, 3)).astype(np.uint8),
            rng.integers(0, 5000, (6, 8)).astype(np.uint16),
        )
        for _ in range(3)
    ]
    top = Path("recordings")
    layouts.tum(top / "tum", frames)
    layouts.seven_scenes(top / "7scenes", frames)
    labels = [np.full((6, 8), label, np.uint16) for label in (0, 1, 1163)]
    layouts.scannet(top / "scannet", frames, labels, suffix=".png")
    _text("recordings/labels.tsv", "id\traw_category\tnyu40id\n1\twall\t1\n1163\tthing\t40\n")
    layouts.redwood(top / "redwood", frames, [(0, 1000), (33000, 33000), (67000, 60000)])
    layouts.nyuv2_raw(top / "nyuv2-raw", [(color, depth % 1024) for color, depth in frames])
    _write_named(top, frames)
    metres = [(color, (depth / 1000).astype(np.float32)) for color, depth in frames]
    layouts.record3d(top / "record3d", metres, ".png")
    large = [(np.full((48, 64, 3), 80 * i, np.uint8), depth) for i, (_, depth) in enumerate(frames)]
    for codec, name in (("MJPG", "c.avi"), ("mp4v", "c.mp4"), ("MJPG", "c.mkv")):
        layouts.stray(top / "stray" / name[2:], large, codec=codec, name=name)
    bags.write(top / "ros1.bag", frames)
    for storage in ("SQLITE3", "MCAP"):
        bags.write(top / storage.lower(), frames, storage)


def _write_named(top: Path, frames: list) -> None:
    """Recordings that names tell."""
    layouts.named(top / "folders", frames, lambda i: f"images/7_{i / 8}.png",
                  lambda i: f"depths/7_{i / 8}.png")  # fmt: skip
    layouts.named(top / "mixed", frames, lambda i: f"left{i}.png", lambda i: f"depth{i}.png")
    _text("recordings/mixed/cam_params.json", '{"camera": {"w": 8, "h": 6, "scale": 6553.5}}')
    layouts.named(top / "polycam", frames, lambda i: f"keyframes/images/14420{i}.png",
                  lambda i: f"keyframes/depth/14420{i}.png")  # fmt: skip
    _text("recordings/polycam/keyframes/cameras/144200.json", "{}")


# ---------------------------------------------------------------------------------------------
# Files of labelling tools
# ---------------------------------------------------------------------------------------------


def annotations() -> None:
    """Each tool's files for pictures/rgb.png, which has 8x6 pixels."""
    _text("annotations/cvat/annotations.xml", CVAT)
    _text("annotations/masks/labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\n"
          "chair:61,61,245::\ntable:250,50,83::\n")  # fmt: skip
    drawn = np.zeros((6, 8, 3), np.uint8)
    drawn[1:4, 2:5] = (245, 61, 61)  # BGR
    data = cv2.imencode(".png", drawn)[1].tobytes()
    for name in ("masks/SegmentationClass/rgb.png", "panoptic/panoptic/rgb.png"):
        Path("annotations", name).parent.mkdir(parents=True)
        Path("annotations", name).write_bytes(data)
    mask = cv2.imencode(".png", np.eye(3, dtype=np.uint8))[1].tobytes()
    corners = {"polygon": [[1, 1], [6.5, 1], [5, 4]], "rectangle": [[1, 1], [4, 3]],
               "circle": [[4, 3], [5, 3]], "mask": [[1, 1], [3, 3]], "point": [[1, 1]]}  # fmt: skip
    shapes = [{"label": "chair", "points": points, "shape_type": kind,
               "mask": base64.b64encode(mask).decode() if kind == "mask" else None}
              for kind, points in corners.items()]  # fmt: skip
    _text("annotations/labelme/rgb.json", json.dumps({
        "version": "5.5.0", "shapes": shapes, "imagePath": "rgb.png", "imageData": None,
        "imageHeight": 6, "imageWidth": 8}))  # fmt: skip
    categories = [{"id": 7, "name": "chair", "color": [1, 2, 3]}, {"id": 9, "name": "table"}]
    images = [{"id": 1, "file_name": "rgb.png", "width": 8, "height": 6}]
    segments: list = [[[1, 1, 6, 1, 5, 4]], {"counts": [7, 3, 38], "size": [6, 8]},
                      {"counts": "73V1", "size": [6, 8]}]  # fmt: skip
    _text("annotations/coco/instances.json", json.dumps({
        "images": images, "categories": categories,
        "annotations": [{"id": i, "image_id": 1, "category_id": 7, "iscrowd": 0,
                         "segmentation": part} for i, part in enumerate(segments)]}))  # fmt: skip
    number = 61 + 256 * 61 + 65536 * 245
    _text("annotations/panoptic/panoptic.json", json.dumps({
        "images": images, "categories": categories, "annotations": [
            {"image_id": 1, "file_name": "rgb.png",
             "segments_info": [{"id": number, "category_id": 9}]}]}))  # fmt: skip
    head = f"{8 * 6 * 4:032b}{7:05b}{2:04b}{3:04b}{7:04b}{15:04b}"
    stroke = f"{head}000111{'11111111' * 8}110{183:08b}{'0' * 8}".ljust(152, "0")
    values = [
        {"points": [[10, 10], [80, 15], [60, 70]], "polygonlabels": ["chair"]},
        {"x": 20, "y": 20, "width": 30, "height": 40, "rotation": 15, "rectanglelabels": ["table"]},
        {"x": 50, "y": 50, "radiusX": 20, "radiusY": 10, "rotation": 0, "ellipselabels": ["table"]},
        {"format": "rle", "rle": [int(stroke[i : i + 8], 2) for i in range(0, len(stroke), 8)],
         "brushlabels": ["chair"]},
    ]  # fmt: skip
    common = {"original_width": 8, "original_height": 6, "image_rotation": 0}
    results = [
        {"id": str(i), **common, "type": list(value)[-1], "value": value}
        for i, value in enumerate(values)
    ]
    _text("annotations/studio/export.json", json.dumps([{
        "id": 1, "data": {"image": "/data/upload/1/0a1b2c3d-rgb.png"},
        "annotations": [{"id": 2, "was_cancelled": False, "result": results}]}]))  # fmt: skip

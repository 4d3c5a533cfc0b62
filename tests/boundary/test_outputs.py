"""Every option that names a file to write: devices, pipes and links are written through."""

import json
import os
import runpy
import shutil
import stat
import sys
import threading

import cv2
import lmdb
import numpy as np
import pytest

import caffe
from caffe.proto import caffe_pb2 as pb

NET = """
name: "small"
layer { name: "rgb" type: "Input" top: "rgb" input_param { shape { dim: 1 dim: 3 dim: 6 dim: 8 } } }
layer { name: "score" type: "Convolution" bottom: "rgb" top: "score"
        convolution_param { num_output: 3 kernel_size: 1 weight_filler { type: "gaussian" } } }
"""
CLASSES = (
    NET
    + """
layer { name: "mean" type: "Pooling" bottom: "score" top: "mean"
        pooling_param { pool: AVE global_pooling: true } }
"""
)
LOG = "I1122 16:49:00.500000 1 solver.cpp:239] Iteration 0, loss = 1.5\n"
MODEL = "--model_def classes.prototxt --pretrained_model net.caffemodel"
WINDOWS = "filename,ymin,xmin,ymax,xmax\npicture.png,0,0,4,4\n"

# The command, with OUT for the file, and the file's ending.
COMMANDS = [
    ("data_tools.inspect lmdb --sheet OUT", "png"),
    ("data_tools.inspect lmdb --html OUT", "html"),
    ("eval_tools.evaluate net.prototxt net.caffemodel lmdb --json OUT", "json"),
    ("eval_tools.evaluate net.prototxt net.caffemodel lmdb --markdown OUT", "md"),
    ("eval_tools.evaluate net.prototxt net.caffemodel lmdb --confusion OUT", "npz"),
    ("eval_tools.evaluate net.prototxt net.caffemodel lmdb --confusion OUT", "csv"),
    ("eval_tools.report net.prototxt net.caffemodel lmdb -o OUT", "html"),
    ("eval_tools.predict net.prototxt net.caffemodel --rgb picture.png -o OUT", "png"),
    ("eval_tools.pack net.prototxt net.caffemodel OUT --dataset lmdb", "fusenet"),
    ("eval_tools.curves train.log -o OUT", "svg"),
    ("netgen draw net.prototxt OUT", "svg"),
    ("caffe.tools.draw_net net.prototxt OUT", "svg"),
    (f"caffe.tools.classify picture.png OUT {MODEL} --images_dim 6,8", "npy"),
    (f"caffe.tools.detect windows.csv OUT {MODEL} --crop_mode list --context_pad 0", "csv"),
    ("caffe.tools.upgrade_net_proto_text net.prototxt OUT", "prototxt"),
    ("caffe.tools.upgrade_net_proto_binary net.caffemodel OUT", "caffemodel"),
    ("caffe.tools.compute_image_mean lmdb OUT", "binaryproto"),
    ("caffe.convert net.prototxt net.caffemodel OUT", "onnx"),
    ("caffe.convert net.prototxt net.caffemodel OUT", "pth"),
    ("caffe.quantize net.prototxt net.caffemodel lmdb OUT --for onnxruntime", "onnx"),
]
IDS = [f"{text.partition(' ')[0]}-{ending}" for text, ending in COMMANDS]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with all that the commands read, as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "classes.prototxt").write_text(CLASSES)
    caffe.Net("net.prototxt", caffe.TEST).save("net.caffemodel")
    (tmp_path / "train.log").write_text(LOG)
    (tmp_path / "windows.csv").write_text(WINDOWS)
    cv2.imwrite("picture.png", np.full((6, 8, 3), 90, np.uint8))
    with lmdb.open("lmdb") as env, env.begin(write=True) as transaction:
        for i in range(2):
            planes = np.random.default_rng(i).integers(1, 3, (5, 6, 8), np.uint8)
            datum = pb.Datum(channels=5, height=6, width=8, data=planes.tobytes())
            transaction.put(b"%08d_x" % i, datum.SerializeToString())
    (tmp_path / "lmdb" / "dataset.json").write_text(json.dumps({"classes": ["-", "a", "b"]}))
    return tmp_path


def run(monkeypatch, text, out):
    """Runs a command in this process; returns its exit status."""
    name, *arguments = (str(out) if word == "OUT" else word for word in text.split())
    if "draw_net" in name and not shutil.which("dot"):
        pytest.skip("Graphviz is not installed")
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    try:
        runpy.run_module(name, run_name="__main__", alter_sys=False)
    except SystemExit as end:
        return end.code or 0
    return 0


@pytest.mark.parametrize(("text", "ending"), COMMANDS, ids=IDS)
def test_a_link_stays_a_link(folder, monkeypatch, text, ending):
    (folder / "real").write_text("old")
    link = folder / f"link.{ending}"
    link.symlink_to("real")
    assert run(monkeypatch, text, link) == 0
    assert link.is_symlink()
    assert (folder / "real").read_bytes() not in (b"old", b"")


@pytest.mark.parametrize(("text", "ending"), COMMANDS, ids=IDS)
def test_a_device_stays_a_device(folder, monkeypatch, text, ending):
    device = folder / f"null.{ending}"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))  # as /dev/null
        device.write_bytes(b"x")
    except OSError:
        pytest.skip("devices can be made by root alone")
    assert run(monkeypatch, text, device) == 0
    assert stat.S_ISCHR(device.stat().st_mode)


@pytest.mark.parametrize(("text", "ending"), COMMANDS, ids=IDS)
def test_a_pipe_gets_what_a_file_would(folder, monkeypatch, text, ending):
    pipe = folder / f"pipe.{ending}"
    os.mkfifo(pipe)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert run(monkeypatch, text, pipe) == 0
    reader.join(20)
    assert found
    assert found[0]
    assert stat.S_ISFIFO(pipe.stat().st_mode)

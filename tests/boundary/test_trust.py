"""Which layers of a net would run code or write files, and the commands that ask."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from records import make_lmdb

import caffe
import caffe.convert
import caffe.quantize
import caffe.tools.classify
import caffe.tools.detect
from boundary import trust
from caffe.formats.upgrade import upgrade_net
from caffe.layers import python_layer
from caffe.process import log
from caffe.proto import caffe_pb2 as pb
from data_tools import blank_net, port_weights, vgg_surgery
from data_tools.cli import DataError
from eval_tools import evaluate, predict
from eval_tools.report import __main__ as report
from netgen import cli as netgen

INPUT = (
    'layer { name: "rgb" type: "Input" top: "rgb"'
    " input_param { shape { dim: 1 dim: 3 dim: 12 dim: 16 } } }"
)
SCORE = (
    'layer { name: "score" type: "Convolution" bottom: "rgb" top: "score"'
    " convolution_param { num_output: 5 kernel_size: 1 } }"
)
EVIL = (
    'layer { name: "x" type: "Python" bottom: "score" top: "y"'
    ' python_param { module: "evil_of_a_test" layer: "Evil" } }'
)
UNKNOWN = EVIL.replace('"Python"', '"Nope"')
WRITES = (
    'layer { name: "x" type: "HDF5Output" bottom: "score" bottom: "score"'
    ' hdf5_output_param { file_name: "mine.txt" } }'
)
FLOWS = 'layer { name: "x" type: "FLOWriter" bottom: "u" writer_param { file: "mine.flo" } }'
BOXES = (
    'layer { name: "x" type: "DetectionOutput" bottom: "l" bottom: "c" bottom: "p" top: "d"'
    ' detection_output_param { save_output_param { output_directory: "mine" } } }'
)
OURS = (
    'layer { name: "x" type: "Python" top: "a" python_param'
    ' { module: "data_tools.layers" layer: "RGBDImages" } }'
)
V1 = 'layers { name: "x" type: HDF5_OUTPUT hdf5_output_param { file_name: "mine.txt" } }'
V0 = "layers { layer { " + V1[len("layers { ") :].replace("HDF5_OUTPUT", '"hdf5_output"') + " }"
EVIL_CODE = """
import caffe
open("ran", "w").close()
class Evil(caffe.Layer):
    def reshape(self, bottom, top):
        top[0].reshape(*bottom[0].shape)
    def forward(self, bottom, top):
        top[0].data[...] = 0
"""


def problem(text: str) -> str:
    """What check says of a net as written, and, the same, of its upgraded form."""
    net = text_format.Parse(text, pb.NetParameter())
    said = set()
    for form in (net, upgrade_net(net)):
        try:
            trust.check(form, "net.prototxt", ValueError)
            said.add("")
        except ValueError as error:
            said.add(str(error).partition(";")[0].partition(")")[2])
    assert len(said) == 1
    return said.pop()


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        (EVIL, " runs the Python module 'evil_of_a_test'"),
        (EVIL.replace("evil_of_a_test", "os"), " runs the Python module 'os'"),
        (UNKNOWN, " runs the Python module 'evil_of_a_test'"),
        ('layer { name: "x" type: "Python" }', " runs the Python module ''"),
        (EVIL.replace('top: "y"', "include { phase: TRAIN }"), " runs the Python module 'evil_of"),
        (WRITES, " writes the file 'mine.txt'"),
        (V1, " writes the file 'mine.txt'"),
        (V0, " writes the file 'mine.txt'"),
        (FLOWS, " writes files of flows: 'mine.flo'"),
        (FLOWS.replace("file:", "folder:"), " writes files of flows: 'mine.flo'"),
        (BOXES, " writes into the folder 'mine'"),
        (INPUT + SCORE, ""),
        (OURS, ""),
        (OURS.replace("RGBDImages", "main"), " runs the Python module 'data_tools.layers'"),
        (OURS.replace("data_tools.layers", "data_tools.layers.x"), " runs the Python module"),
        (OURS.replace("data_tools.layers", ".layers"), " runs the Python module '.layers'"),
        (OURS.replace("data_tools", "DATA_TOOLS"), " runs the Python module 'DATA_TOOLS.layers'"),
    ],
)
def test_what_is_refused(layer, said):
    assert problem(layer).startswith(said) if said else problem(layer) == ""


def test_the_line_says_where_what_and_the_way_out():
    net = text_format.Parse(INPUT + EVIL, pb.NetParameter())
    with pytest.raises(
        DataError,
        match=r"^a\.prototxt: layer 'x' \(Python\) runs the Python module 'evil_of_a_test'; "
        r"refused unless --trust is given, with which a net's layers may run code and write files$",
    ):
        trust.check(net, "a.prototxt", DataError)


def test_a_module_that_shadows_ours_is_not_ours(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "data_tools"]:
        monkeypatch.delitem(sys.modules, name)
    assert problem(OURS) == ""
    assert "data_tools" not in sys.modules  # it looks, and loads nothing
    (tmp_path / "data_tools").mkdir()
    (tmp_path / "data_tools" / "__init__.py").write_text("raise SystemExit('ran')")
    (tmp_path / "data_tools" / "layers.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(tmp_path)
    assert problem(OURS) == " runs the Python module 'data_tools.layers'"


def test_a_loaded_module_of_our_name_is_not_ours_either(monkeypatch):
    monkeypatch.setitem(sys.modules, "data_tools.layers", type(sys)("data_tools.layers"))
    assert problem(OURS) == " runs the Python module 'data_tools.layers'"


def test_every_layer_that_writes_files_is_known():
    """Whoever writes in another family's file tells `trust`, too, and adds a row above."""
    folder = Path(python_layer.__file__).parent
    writers = ("atomic_write(", "writing_hdf5(", "write_text(", "write_bytes(")
    sources = {path.name: path.read_text() for path in folder.glob("*.py")}
    found = {name for name, text in sources.items() if any(writer in text for writer in writers)}
    assert found == {"hdf5_data.py", "detection_files.py", "flow_data.py"}


# -- the commands -----------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with a stranger's module, and a file that nobody may overwrite."""
    (tmp_path / "evil_of_a_test.py").write_text(EVIL_CODE)
    (tmp_path / "mine.txt").write_text("mine")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(log, "_sink", log._Sink())  # commands are quiet from then on
    yield tmp_path
    sys.modules.pop("evil_of_a_test", None)


def untouched(place) -> bool:
    return not (place / "ran").exists() and (place / "mine.txt").read_bytes() == b"mine"


def write_net(place, layer: str) -> None:
    (place / "bare.prototxt").write_text(INPUT + SCORE)
    caffe.Net(str(place / "bare.prototxt"), caffe.TEST).save(str(place / "w.caffemodel"))
    (place / "net.prototxt").write_text(INPUT + SCORE + layer)


PYCAFFE = ["--model_def", "net.prototxt", "--pretrained_model", "w.caffemodel"]
COMMANDS = {
    "convert": (caffe.convert.main, ["net.prototxt", "w.caffemodel", "out.pt"]),
    "convert a state dict": (caffe.convert.main, ["net.prototxt", "w.pth", "out.caffemodel"]),
    "quantize": (caffe.quantize.main, ["net.prototxt", "w.caffemodel", "lmdb", "out.onnx"]),
    "classify": (caffe.tools.classify.main, ["in.npy", "out.npy", *PYCAFFE]),
    "detect": (caffe.tools.detect.main, ["in.csv", "out.csv", *PYCAFFE]),
    "predict": (predict.main, ["net.prototxt", "w.caffemodel", "--rgb", "in.png"]),
    "evaluate": (evaluate.main, ["net.prototxt", "w.caffemodel", "lmdb"]),
    "versus": (evaluate.main, ["bare.prototxt", "w.caffemodel", "lmdb", "--versus",
                               "net.prototxt", "w.caffemodel"]),
    "report": (report.main, ["net.prototxt", "w.caffemodel", "lmdb"]),
}  # fmt: skip


@pytest.mark.parametrize("layer", [EVIL, UNKNOWN, WRITES], ids=["python", "unknown", "output"])
@pytest.mark.parametrize("command", COMMANDS)
def test_commands_refuse_strangers_nets(place, command, layer):
    write_net(place, layer)
    np.save("in.npy", np.zeros((1, 12, 16, 3), np.float32))
    if command in ("evaluate", "versus", "report"):
        make_lmdb(place / "lmdb", [np.ones((5, 12, 16), np.uint8)])
    main, arguments = COMMANDS[command]
    with pytest.raises((caffe.CaffeError, DataError), match=r"net\.prototxt: layer 'x' .*--trust"):
        main(arguments)
    assert untouched(place)


@pytest.mark.parametrize("text", [EVIL, V1, V0], ids=["today's", "V1", "V0"])
def test_the_tools_ask_on_other_pycaffes_too(place, text, monkeypatch):
    """Theirs have no reader of prototxts, so the tools parse by the messages alone."""
    monkeypatch.setattr(blank_net, "_read_net", None)
    (place / "net.prototxt").write_bytes(b"# Gr\xfc\xdfe\n" + text.encode())
    (place / "w.caffemodel").write_bytes(b"")
    main, arguments = COMMANDS["predict"]
    with pytest.raises(DataError, match=r"net\.prototxt: layer 'x' .*--trust"):
        main(arguments)
    (place / "net.prototxt").write_text(text + "nonsense")
    with pytest.raises(DataError, match=r"net\.prototxt: not a net's prototxt: "):
        main(arguments)


@pytest.mark.parametrize("tool", [vgg_surgery, port_weights])
def test_tools_that_fill_nets_refuse_them(place, tool, monkeypatch):
    write_net(place, EVIL)
    monkeypatch.setattr(tool, "read_source", lambda path: ({}, []), raising=False)
    monkeypatch.setattr(tool, "read_state", lambda path: {}, raising=False)
    monkeypatch.setattr(sys, "argv", ["tool", "w", "net.prototxt", "out"])
    with pytest.raises(DataError, match=r"net\.prototxt: layer 'x' .*--trust"):
        tool.main()
    assert untouched(place)


def test_trust_lets_the_layers_work(place):
    write_net(place, EVIL + WRITES.replace('name: "x"', 'name: "h"'))
    main, arguments = COMMANDS["convert"]
    main([*arguments, "--trust"])
    assert (place / "ran").exists()
    assert (place / "out.pt").exists()


def test_predict_with_trust_writes_what_the_net_says(place):
    import cv2

    write_net(place, WRITES)
    cv2.imwrite("in.png", np.zeros((12, 16, 3), np.uint8))
    main, arguments = COMMANDS["predict"]
    main([*arguments, "--trust"])
    assert not untouched(place)


def test_layers_that_are_not_made_need_no_trust(place):
    """convert drops what makes a blob that --input names, and leaves out other phases' layers."""
    data = EVIL.replace('bottom: "score" top: "y"', 'top: "rgb"')
    train = WRITES.replace('file_name: "mine.txt" }', 'file_name: "mine.txt" } include'
                           " { phase: TRAIN }").replace('name: "x"', 'name: "t"')  # fmt: skip
    write_net(place, "")
    (place / "net.prototxt").write_text(data + SCORE + train)
    main, arguments = COMMANDS["convert"]
    main([*arguments, "--input", "rgb=1x3x12x16"])
    assert untouched(place)


@pytest.mark.parametrize("layer", [EVIL, UNKNOWN, WRITES], ids=["python", "unknown", "output"])
@pytest.mark.parametrize(
    "command",
    [
        ["summary", "net.prototxt"],
        ["draw", "net.prototxt", "out.svg"],
        ["solver", "--net", "net.prototxt"],
    ],
    ids=lambda command: command[0],
)
def test_netgen_runs_nothing(place, command, layer):
    write_net(place, layer)
    netgen.main(command)
    assert untouched(place)

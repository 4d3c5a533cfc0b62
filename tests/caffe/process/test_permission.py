"""Whether nets may run Python code."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from google.protobuf import text_format

import caffe
from caffe.commands.cli import main
from caffe.process import permission
from caffe.proto import caffe_pb2 as pb

NET = """
layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { dim: 1 } } }
layer { name: "py" type: "Python" bottom: "data" top: "loss" loss_weight: 1
        python_param { module: "code_of_a_test" layer: "One" } }
"""
CODE = """
import caffe
open("ran", "a").close()
class One(caffe.Layer):
    def reshape(self, bottom, top): top[0].reshape(1)
    def forward(self, bottom, top): top[0].data[...] = 1
    def backward(self, top, propagate_down, bottom): pass
"""
REFUSED = "layer 'py' (Python): Python layers are not allowed here"


@pytest.fixture
def place(tmp_path, monkeypatch):
    (tmp_path / "code_of_a_test.py").write_text(CODE)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "solver.prototxt").write_text(
        'net: "net.prototxt" base_lr: 1 lr_policy: "fixed" max_iter: 1 snapshot_after_train: false'
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(permission.VARIABLE, "1")  # and so what a test sets is undone
    monkeypatch.delenv(permission.VARIABLE)
    yield tmp_path
    sys.modules.pop("code_of_a_test", None)


@pytest.mark.parametrize(
    ("value", "allowed"),
    [("", True), ("1", True), ("True", True), ("0", False), ("false", False), ("off", False)],
)
def test_the_variable(monkeypatch, value, allowed):
    monkeypatch.setenv(permission.VARIABLE, value)
    assert permission.allow_python() == allowed


def test_the_setting_holds_for_new_nets_and_new_processes(place):
    net = text_format.Parse(NET, pb.NetParameter())
    caffe.set_allow_python(False)
    with pytest.raises(caffe.CaffeError, match=r"not allowed here .*'code_of_a_test'"):
        caffe.Net(net, caffe.TEST)
    assert not (place / "ran").exists()
    code = "from caffe.process.permission import allow_python; print(allow_python())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment) == b"False\n"
    caffe.set_allow_python(True)
    caffe.Net(net, caffe.TEST)
    assert (place / "ran").exists()


@pytest.mark.parametrize(
    "command",
    [
        ["train", "-solver", "solver.prototxt"],
        ["train", "-solver", "solver.prototxt", "-cpu", "2"],
        ["time", "-model", "net.prototxt", "-iterations", "1"],
    ],
    ids=["train", "two processes", "time"],
)
def test_the_flag(place, command, capfd):
    assert main([*command, "-allow_python=false"]) == 1
    assert REFUSED in capfd.readouterr().err
    assert not (place / "ran").exists()


def test_the_variable_holds_for_the_command_and_the_flag_wins(place, monkeypatch, capfd):
    monkeypatch.setenv(permission.VARIABLE, "0")
    command = ["time", "-model", "net.prototxt", "-iterations", "1"]
    assert main(command) == 1
    assert REFUSED in capfd.readouterr().err
    assert main([*command, "-allow_python"]) == 0
    assert (place / "ran").exists()


def test_modules_that_register_types_of_the_users_own(place):
    net = text_format.Parse(NET.replace('"Python"', '"TypeOfATest"'), pb.NetParameter())
    caffe.set_allow_python(False)
    with pytest.raises(caffe.CaffeError, match=r"not allowed here .*'code_of_a_test'"):
        caffe.Net(net, caffe.TEST)
    assert not (place / "ran").exists()

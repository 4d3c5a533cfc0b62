"""The commands classify, detect and draw_net."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

import caffe
from caffe.commands.script import run
from caffe.formats.files import write_blob
from caffe.proto import caffe_pb2 as pb
from caffe.tools import classify, detect, draw_net

# The net answers each channel's mean, in the order in which the channels come.
NET = """
layer { name: "data" type: "Input" top: "data"
  input_param { shape { dim: 2 dim: 3 dim: 8 dim: 8 } } }
layer { name: "mean" type: "Pooling" bottom: "data" top: "mean"
  pooling_param { pool: AVE global_pooling: true } }
"""


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The options that name the net, and a folder of three pictures of one colour each."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.prototxt").write_text(NET)
    (tmp_path / "net.caffemodel").write_bytes(pb.NetParameter(name="none").SerializeToString())
    (tmp_path / "pictures").mkdir()
    for i, colour in enumerate([(10, 20, 30), (40, 50, 60), (70, 80, 90)]):  # B, G, R
        image = np.full((16, 16, 3), colour, np.uint8)
        cv2.imwrite(f"pictures/{i}.png", image)
    return ["--model_def", "net.prototxt", "--pretrained_model", "net.caffemodel"]


def classified(arguments):
    classify.main(["pictures", "out.npy", "--ext", "png", "--images_dim", "16,16", *arguments])
    return np.load("out.npy").reshape(-1, 3)


def test_classify(model, capsys):
    expected = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    np.testing.assert_allclose(classified(model), expected, rtol=1e-5)
    output = capsys.readouterr()
    assert output.out == ""
    assert "Classifying 3 inputs." in output.err
    rgb = classified([*model, "--channel_swap", "", "--center_only", "--raw_scale", "1"])
    np.testing.assert_allclose(rgb, np.array(expected)[:, ::-1] / 255, rtol=1e-5)


@pytest.mark.parametrize("kind", ["npy", "binaryproto"])
def test_classify_less_a_mean(model, kind):
    mean = np.broadcast_to(np.array([1, 2, 3], np.float32)[:, None, None], (3, 8, 8))
    if kind == "npy":
        np.save("mean.npy", mean)
    else:
        write_blob("mean.binaryproto", mean[None], old_form=True)
    found = classified([*model, "--mean_file", f"mean.{kind}", "--input_scale", "0.5"])
    np.testing.assert_allclose(found[0], [4.5, 9, 13.5], rtol=1e-5)


def test_classify_an_array_and_a_file(model):
    np.save("in.npy", np.full((2, 8, 8, 3), 0.5, np.float32))
    classify.main(["in.npy", "out.npy", "--images_dim", "8,8", *model])
    np.testing.assert_allclose(np.load("out.npy"), 127.5, rtol=1e-5)
    classify.main(["pictures/2.png", "out.npy", "--images_dim", "16,16", *model])
    np.testing.assert_allclose(np.load("out.npy").ravel(), [70, 80, 90], rtol=1e-5)


def test_classify_errors(model, capsys):
    for arguments, message in (
        (["nothing.png", "out.npy", *model], "nothing.png: No such file"),
        (["pictures", "out.npy", *model], "no pictures with the ending .jpg"),
        (["pictures/0.png", "out.npy", *model, "--mean_file", "m.npy"], "m.npy: No such file"),
        (["pictures/0.png", "no/out.npy", *model], "no/out.npy"),
    ):
        with pytest.raises(caffe.CaffeError, match=message):
            classify.main(arguments)
    with pytest.raises(SystemExit) as info:
        classify.main(["a", "b", *model, "--images_dim", "16"])
    assert info.value.code == 2
    assert "expected 2 numbers" in capsys.readouterr().err


@pytest.fixture
def computed(monkeypatch):
    """The engines that nets with one have asked for passes; they answer as they do."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    pytest.importorskip("onnx", reason="the package onnx is not installed")
    from caffe.engines.delegate import EngineDelegate

    titles, run = [], EngineDelegate.run

    def noted(self, *given):
        tops = run(self, *given)
        titles.append(self.title)
        return tops

    monkeypatch.setattr(EngineDelegate, "run", noted)
    yield titles
    caffe.set_engine("torch")


def test_an_engine_computes_what_is_classified(model, computed):
    wanted = classified(model)
    assert computed == []
    found = classified([*model, "--engine", "onnxruntime"])
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert set(computed) == {"onnxruntime"}


def test_an_engine_computes_what_is_detected(model, computed):
    detected(model, "a.h5")
    detected(model, "b.h5", "--engine", "onnxruntime")
    with h5py.File("a.h5") as a, h5py.File("b.h5") as b:
        np.testing.assert_allclose(b["prediction"], a["prediction"], rtol=1e-5)
    assert set(computed) == {"onnxruntime"}


@pytest.mark.parametrize("command", [classify, detect])
def test_an_unknown_engine(command, model):
    with pytest.raises(caffe.CaffeError, match="--engine: engine 'x' is unknown; expected one of"):
        command.main(["pictures", "out.npy", *model, "--engine", "x"])


def windows_file():
    with open("windows.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["filename", "xmin", "ymin", "xmax", "ymax"])
        rows.writerow(["pictures/1.png", 0, 0, 8, 8])
        rows.writerow(["pictures/0.png", 1, 2, 12, 12])
        rows.writerow(["pictures/1.png", 4, 4, 15, 15])


def detected(model, out, *more):
    windows_file()
    detect.main(["windows.csv", out, "--crop_mode", "list", "--context_pad", "0", *model, *more])


def test_detect_to_csv(model):
    detected(model, "out.csv")
    with open("out.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("filename", "ymin", "xmin", "ymax", "xmax", "class0", "class1", "class2")
    ]
    # A picture's windows come together.
    assert [(row["filename"], row["xmin"], row["ymax"]) for row in rows] == [
        ("pictures/1.png", "0", "8"),
        ("pictures/1.png", "4", "15"),
        ("pictures/0.png", "1", "12"),
    ]
    assert float(rows[2]["class2"]) == pytest.approx(30, rel=1e-5)


def test_detect_to_hdf5_less_a_mean(model):
    np.save("mean.npy", np.arange(12, dtype=np.float32).reshape(3, 2, 2))  # means 1.5, 5.5, 9.5
    detected(model, "out.h5", "--mean_file", "mean.npy")
    with h5py.File("out.h5") as file:
        assert file["filename"].asstr()[0] == "pictures/1.png"
        assert file["window"][1].tolist() == [4, 4, 15, 15]
        expected = np.array([40, 50, 60]) - [1.5, 5.5, 9.5]
        np.testing.assert_allclose(file["prediction"][0].ravel(), expected, rtol=1e-5)


def test_detect_errors(model):
    with open("bad.csv", "w") as file:
        file.write("filename,ymin,xmin,ymax,xmax\na.png,1,2,x,4\n")
    with open("short.csv", "w") as file:
        file.write("filename,ymin,xmin,ymax\n")
    for arguments, message in (
        (["bad.csv", "out.csv", "--crop_mode", "list"], "bad.csv:2: expected numbers"),
        (["short.csv", "out.csv", "--crop_mode", "list"], "no column 'xmax'"),
        (["bad.txt", "out.csv", "--crop_mode", "list"], "windows from a .csv"),
        (["bad.csv", "out.csv"], "names from a .txt"),
        (["bad.csv", "out.npy"], "expected .csv or .h5"),
    ):
        with pytest.raises(caffe.CaffeError, match=message):
            detect.main([*arguments, *model])


def test_draw_net(model, capsys):
    pytest.importorskip("pydot", reason="pydot is not installed")
    if shutil.which("dot") is None:
        pytest.skip("Graphviz is not installed")
    draw_net.main(["net.prototxt", "net.svg", "--phase", "TEST", "--rankdir", "TB"])
    with open("net.svg") as file:
        assert "(Pooling AVE)" in file.read()
    with pytest.raises(SystemExit) as info:
        draw_net.main(["net.prototxt", "net.svg", "--phase", "VAL"])
    assert info.value.code == 2
    assert "choose from" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (caffe.CaffeError("a: b\nc"), 1, "prog: a: b c\n"),
        (FileNotFoundError(2, "No such file or directory", "x"), 1, "prog: "),
        (KeyboardInterrupt(), 130, "prog: interrupted\n"),
    ],
)
def test_a_commands_end(error, code, line, capsys):
    def main():
        raise error

    with pytest.raises(SystemExit) as info:
        run("prog", main, quiet=False)
    assert info.value.code == code
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == 1


@pytest.mark.parametrize("command", [classify, detect])
def test_weights_of_another_net_need_partial(model, command):
    """Caffe leaves what a file lacks to the fillers; scores of such nets mean nothing."""
    learned = NET + 'layer { name: "fc" type: "InnerProduct" bottom: "mean" top: "fc"' \
        " inner_product_param { num_output: 3 } }"  # fmt: skip
    (Path("net.prototxt")).write_text(learned)
    np.save("in.npy", np.zeros((1, 8, 8, 3), np.float32))
    cv2.imwrite("a.png", np.zeros((8, 8, 3), np.uint8))
    Path("in.csv").write_text("filename,ymin,xmin,ymax,xmax\na.png,0,0,8,8\n")
    names = ["in.npy", "out.npy"] if command is classify else ["in.csv", "out.csv"]
    options = [] if command is classify else ["--crop_mode", "list", "--context_pad", "0"]
    with pytest.raises(caffe.CaffeError, match=r"^net\.caffemodel: no weights .*'fc' \(0\), 'fc' "):
        command.main([*names, *model, *options])
    command.main([*names, *model, *options, "--partial"])
    assert Path(names[1]).exists()

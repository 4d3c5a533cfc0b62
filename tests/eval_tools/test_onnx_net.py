"""ONNX files in place of a prototxt and its weights."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

import caffe
from data_tools.cli import DataError
from eval_tools import evaluate, predict
from eval_tools.network import load

onnx = pytest.importorskip("onnx", reason="the package onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

from caffe.convert import to_onnx  # noqa: E402


@pytest.fixture(scope="module")
def file(model, tmp_path_factory) -> str:
    """The toy net as an ONNX file, which gives out probabilities."""
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    to_onnx(caffe.Net(*model, caffe.TEST), path, check=False)
    return str(path)


def figures(tmp_path: Path, *arguments: str) -> dict:
    evaluate.main([*arguments, "--json", str(tmp_path / "figures.json")])
    return json.loads((tmp_path / "figures.json").read_text())


@pytest.mark.parametrize("more", [[], ["--batch-size", "4"], ["--flip"]])
def test_figures_are_those_of_the_net(model, data, file, tmp_path, more) -> None:
    expected = figures(tmp_path, *model, str(data[0]), *more)
    found = figures(tmp_path, file, str(data[0]), *more)
    assert found["mean_iou"] == pytest.approx(expected["mean_iou"])
    assert found["classes"] == expected["classes"]


def test_versus_a_net(model, data, file, tmp_path) -> None:
    found = figures(tmp_path, *model, str(data[0]), "--versus", file)
    (other,) = found["versus"]
    assert other["mean_iou"] == pytest.approx(found["mean_iou"])


def test_a_file_of_several_samples_runs_any_number(model, tmp_path) -> None:
    text = Path(model[0]).read_text().replace("dim: 1 dim", "dim: 3 dim")
    (tmp_path / "net.prototxt").write_text(text)
    net = caffe.Net(str(tmp_path / "net.prototxt"), model[1], caffe.TEST)
    to_onnx(net, tmp_path / "net.onnx", check=False)
    rng = np.random.default_rng(0)
    color = [rng.integers(0, 255, (12, 16, 3), np.uint8) for _ in range(4)]
    depth = [rng.integers(0, 255, (12, 16), np.uint8) for _ in range(4)]
    network, expected = load(tmp_path / "net.onnx"), load(*model)
    for count in (1, 4):
        found = network.scores(color[:count], depth[:count]).argmax(1)
        wanted = expected.scores(color[:count], depth[:count]).argmax(1)
        np.testing.assert_array_equal(found, wanted)


def test_predict(data, file, tmp_path) -> None:
    predict.main([file, "--lmdb", str(data[0]), "-o", str(tmp_path / "out")])
    assert len([*(tmp_path / "out").glob("*.png")]) == 6


def test_sizes_are_the_files_own(file, toy, tmp_path) -> None:
    path = str(toy.lmdb(tmp_path / "lmdb", toy.frames(1, (24, 32))))
    with pytest.raises(DataError, match=r"net.onnx on a batch of 1 frames of 32x24 \(the net take"):
        evaluate.main([file, path])
    assert figures(tmp_path, file, path, "--size", "32x24")["frames"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"m.onnx: No such file"),
        (b"", r"m.onnx: onnxruntime does not take the file"),
        (b"\x08\x08\x12", r"m.onnx: onnxruntime does not take the file"),
    ],
)
def test_files_that_are_no_model(tmp_path, content, message) -> None:
    if content is not None:
        (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "m.onnx")


def test_other_types_are_refused(tmp_path) -> None:
    """As of files that take whole frames."""
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    for kind, shape in ((onnx.TensorProto.UINT8, [1, 3, 4, 4]), (onnx.TensorProto.FLOAT, ["h", 3])):
        x, y = (onnx.helper.make_tensor_value_info(name, kind, shape) for name in "xy")
        opset = onnx.helper.make_opsetid("", 17)
        model = onnx.helper.make_model(
            onnx.helper.make_graph([node], "g", [x], [y]), opset_imports=[opset], ir_version=8
        )
        onnx.save(model, tmp_path / "m.onnx")
        with pytest.raises(DataError, match=r"m.onnx: .*expected (float32 of fixed|colour)"):
            load(tmp_path / "m.onnx")


def unpooled(path: Path, given: list[int], dims: list[int]) -> Path:
    """A file that pools and unpools its input; onnxruntime infers no shape behind MaxUnpool.

    given, dims: the shapes of input and output that it states.
    """
    nodes = [
        onnx.helper.make_node("MaxPool", ["x"], ["y", "at"], kernel_shape=[2, 2], strides=[2, 2]),
        onnx.helper.make_node("MaxUnpool", ["y", "at", "size"], ["z"], kernel_shape=[2, 2]),
    ]
    if not given:
        nodes = [onnx.helper.make_node("Expand", ["x", "size"], ["z"])]
    size = onnx.helper.make_tensor("size", onnx.TensorProto.INT64, [4], [1, 4, 12, 16])
    x, z = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", given), ("z", dims))
    )
    opset = onnx.helper.make_opsetid("", 17)
    graph = onnx.helper.make_graph(nodes, "g", [x], [z], [size])
    path.write_bytes(
        onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    )
    return path


@pytest.mark.parametrize(
    ("given", "dims", "message"),
    [
        ([], [1, 4, 12, 16], r"m.onnx: 'x' is tensor\(float\) of \[\]; expected float32 of fixed"),
        ([1, 4, 12, 16], [], r"m.onnx: 'z' is tensor\(float\) of \[\]; expected float32 of fixed"),
        ([1, 4, 12, 16], [1, 4, 12, 2**40], r"m.onnx: 'z' of \(.*\) does not fit into memory"),
        ([1, 4, 12, 16], [1, 4, 12, 2**62], r"m.onnx: 'z' of \(.*\) does not fit into memory"),
    ],
)
def test_shapes_that_no_net_has(tmp_path, given, dims, message) -> None:
    with pytest.raises(DataError, match=message):
        load(unpooled(tmp_path / "m.onnx", given, dims))


def test_weights_in_another_file_are_refused(file, tmp_path, monkeypatch) -> None:
    """Also those that lie where onnxruntime would look by itself, in the working directory."""
    monkeypatch.chdir(tmp_path)
    found = onnx.load(file)
    onnx.save(found, "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    with pytest.raises(DataError, match=r"m.onnx: has weights in another file \(external data\)"):
        load("m.onnx")


@pytest.mark.parametrize("dims", [[1, 7, 12, 16], [1, 4, 12, 15]])
def test_outputs_that_are_not_what_the_file_says(tmp_path, dims) -> None:
    network = load(unpooled(tmp_path / "m.onnx", [1, 4, 12, 16], dims))
    frame = [np.zeros((12, 16, 3), np.uint8)], [np.zeros((12, 16), np.uint8)]
    said = re.escape(f"'z' is (1, 4, 12, 16); the file says {tuple(dims)}")
    with pytest.raises(DataError, match=said):
        network.scores(*frame)


def test_weights_and_a_gpu_are_too_much(file, model, data, tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        evaluate.main([file, model[1], str(data[0])])
    assert "an ONNX file has its own weights" in capsys.readouterr().err
    with pytest.raises(DataError, match="ONNX files run on the CPU, without --gpu"):
        evaluate.main([file, str(data[0]), "--gpu", "0"])


def test_without_onnxruntime(file, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DataError, match=r"needs onnxruntime: pip install 'fusenet\[onnx\]'"):
        load(file)

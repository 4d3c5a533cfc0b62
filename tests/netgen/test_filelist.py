"""Nets that read picture files by a list, as netgen prints them and its other commands see them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import text_format

from caffe import TEST, TRAIN
from caffe.errors import CaffeError
from caffe.graph.rules import layers_in
from caffe.proto.caffe_pb2 import LayerParameter, NetParameter, SolverParameter
from netgen import Architecture, Training, filelist, train_net
from netgen.cli import main
from netgen.filelist import Files

ARCH = Architecture("sf1", classes=5, size=(64, 48))


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(list(argv)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_the_options_become_the_layers_settings(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(
        capsys, "sf2", "--classes", "7", "--size", "96x64", "--batch-size", "3",
        "--data-list", "a.txt", "--test-data-list", "b.txt", "--data-root", "pictures",
        "--depth-unit", "5000", "--depth-range", "0:8", "--data-seed", "6",
    )  # fmt: skip
    param = text_format.Parse(out, NetParameter())
    train, test = (layers_in(param, phase)[0] for phase in (TRAIN, TEST))
    both = {"size": [96, 64], "classes": 7, "root": "pictures", "seed": 6, "depth_unit": "5000",
            "depth_range": "0:8"}  # fmt: skip
    assert filelist.settings(train) == {
        "source": "a.txt", "batch_size": 3, "shuffle": True, **both
    }  # fmt: skip
    assert filelist.settings(test) == {"source": "b.txt", "batch_size": 1, **both}
    for layer in (train, test):
        assert (layer.name, layer.type, list(layer.top)) == (
            "data", "Python", ["rgb", "depth", "label"]
        )  # fmt: skip
    assert "Slice" not in [layer.type for layer in param.layer]


def test_all_else_is_the_net_that_reads_lmdbs() -> None:
    nets = [train_net(ARCH, Training("a", "b", files=files)) for files in (None, Files())]
    after = [[layer for layer in net.layer if layer.name not in ("data", "slice_data")]
             for net in nets]  # fmt: skip
    assert after[0] == after[1]


def test_without_test_frames_the_net_has_none() -> None:
    net = train_net(ARCH, Training("a", None, files=Files()))
    assert layers_in(net, TRAIN)[0].type == "Python"
    assert [layer.type for layer in net.layer].count("Python") == 1
    assert layers_in(net, TEST)[0].type == "Convolution"


def test_the_scene_is_a_fourth_top() -> None:
    arch = Architecture("sf1", classes=5, size=(64, 48), scene_classes=3)
    net = train_net(arch, Training("a", "b", files=Files()))
    assert list(net.layer[0].top) == ["rgb", "depth", "label", "scene"]
    planes = {"rgb": (4, 3, 48, 64), "depth": (4, 1, 48, 64), "label": (4, 1, 48, 64)}
    assert filelist.shapes(layers_in(net, TRAIN)) == {**planes, "scene": (4,)}
    assert filelist.shapes(layers_in(net, TEST))["rgb"] == (1, 3, 48, 64)


def test_shapes_need_a_size() -> None:
    """Without one, each frame keeps its own."""
    layer = LayerParameter(name="p", type="Python", top=["rgb"])
    layer.python_param.module, layer.python_param.layer = filelist.MODULE, filelist.LAYER
    layer.python_param.param_str = json.dumps({"source": "x"})
    assert filelist.shapes([layer, LayerParameter(type="Python", top=["y"])]) == {}


def test_solvers_count_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.txt").write_text("c d l\n" * 10 + "\n")
    Path("b.txt").write_text("c d l\n" * 3)
    options = ["--classes", "2", "--data-list", "a.txt"]
    net = printed(capsys, "rgb", *options, "--test-data-list", "b.txt")
    Path("net.prototxt").write_text(net)
    out = printed(capsys, "solver", "--net", "net.prototxt", "--epochs", "2")
    solver = text_format.Parse(out, SolverParameter())
    assert solver.max_iter == 5  # 2 epochs of 10 frames in batches of 4
    assert list(solver.test_iter) == [3]
    Path("net.prototxt").write_text(printed(capsys, "rgb", *options))
    assert main(["solver", "--net", "net.prototxt"]) == 0
    out, err = capsys.readouterr()
    assert "test_iter" not in out
    assert "no tests during training" in err
    Path("a.txt").unlink()
    assert main(["solver", "--net", "net.prototxt"]) == 1
    assert "a.txt: No such file or directory: give" in capsys.readouterr().err


def test_a_deploy_net_says_how_depth_was_scaled(capsys: pytest.CaptureFixture[str]) -> None:
    for options, rule in (
        ([], "authors"),
        (["--depth-range", "valid"], "valid"),
        (["--depth-unit", "scaled"], "none"),
    ):
        out = printed(capsys, "sf1", "--deploy", "--data-list", "a.txt", *options)
        assert f"# depth_range: {rule}\n" in out


def test_a_list_of_381_frames_is_the_train_split_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("train.txt").write_text("c d l\n" * 381)
    assert main(["sf1", "--data-list", "train.txt"]) == 0
    assert "train.txt has 381 frames, NYUv2's train split alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--data-root", "x"], "--data-root goes with --data-list"),
        (["--data-list", "a", "--source", "b"], "takes the place of --source"),
    ],
)
def test_options_that_do_not_go_together(
    options: list[str], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sf1", *options])
    assert stop.value.code == 2
    assert what in capsys.readouterr().err


def test_settings_of_other_layers_and_broken_ones() -> None:
    layer = LayerParameter(name="p", type="Python")
    assert filelist.settings(layer) is None
    layer.python_param.module, layer.python_param.layer = filelist.MODULE, filelist.LAYER
    for text, what in (("source: x", "p: param_str is not JSON"), ("[]", "no JSON object")):
        layer.python_param.param_str = text
        with pytest.raises(CaffeError, match=what):
            filelist.settings(layer)
    layer.python_param.param_str = json.dumps({"source": "x"})
    assert filelist.settings(layer) == {"source": "x"}


@pytest.mark.parametrize("size", [None, 0, -1, 1.5, "4", True, 2**31])
def test_batch_sizes_that_are_none(size) -> None:
    layer = LayerParameter(name="p", type="Python")
    layer.python_param.module, layer.python_param.layer = filelist.MODULE, filelist.LAYER
    layer.python_param.param_str = json.dumps({"source": "x", "batch_size": size})
    with pytest.raises(CaffeError, match=r"layer p: batch_size is .*; expected a whole number"):
        filelist.settings(layer)


@pytest.mark.parametrize("size", [[6], [[1], 6], [320, 0], "320x240", [320.0, 240], [2**40, 1]])
def test_sizes_that_are_none(size) -> None:
    layer = LayerParameter(name="p", type="Python")
    layer.python_param.module, layer.python_param.layer = filelist.MODULE, filelist.LAYER
    layer.python_param.param_str = json.dumps({"source": "x", "size": size})
    with pytest.raises(CaffeError, match=r"layer p: size is .*; expected \[WIDTH, HEIGHT\]"):
        filelist.settings(layer)

"""What netgen takes from an earlier net, with --from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from netgen_runs import run_line as run

from caffe.formats import files
from caffe.proto.caffe_pb2 import NetParameter
from netgen import NETS, Architecture, Training, deploy_net, earlier, train_net

NAMES = ["(ignored)", "wall", 'a "door"', "sofa\nbed"]
FACTS = {"classes": NAMES, "options": {"depth_range": "0:8 m"}}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def without_head(text: str) -> str:
    return "".join(line for line in text.splitlines(True) if not line.startswith("#"))


@pytest.fixture
def data(make_lmdb: Callable[..., str]) -> Callable[..., str]:
    """Makes an LMDB with a dataset.json; returns its path."""

    def make(name: str, size: tuple[int, int] = (160, 120), **facts: object) -> str:
        make_lmdb(name, 3, *size)
        shape = {"shape": [5, size[1], size[0]]}
        Path(name, "dataset.json").write_text(json.dumps({**FACTS, **shape, **facts}))
        return name

    return make


# -- what a net says ------------------------------------------------------------------------------


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize(
    "options",
    [
        "--dataset nyuv2-40 --size 320x240",
        "--dataset sunrgbd-37 --size 225x224 --width-multiplier 0.25 --dropout 0.4",
        "--classes 7 --size 33x47 --source a --test-source b --pooling floor --scene-classes 5",
        "--classes 7 --size 64x65 --moving-average-fraction 0.95 --scene-classes 3 "
        "--scene-loss-weight 0.3 --source a --test-source b",
        "--classes 2 --data-list a.txt --test-data-list b.txt --data-root here --size 96x64 "
        "--depth-unit m --depth-range 0.5:8 --data-seed 3",
        "--classes 2 --data-list a.txt --size 96x64 --width-multiplier 0.1",
    ],
)
def test_the_next_net_is_the_same_where_options_say_nothing(capsys, net, options) -> None:
    train, deploy = run(capsys, f"{net} {options}")[0], run(capsys, f"{net} {options} --deploy")[0]
    Path("train.prototxt").write_text(train)
    Path("deploy.prototxt").write_text(deploy)
    assert without_head(run(capsys, f"{net} --from train.prototxt")[0]) == without_head(train)
    for file in ("train", "deploy"):
        again = run(capsys, f"{net} --from {file}.prototxt --deploy")[0]
        assert without_head(again) == without_head(deploy)
    if "scene-loss-weight" not in options and "list" not in options:
        source = "--source a --test-source b " if "source" in options else ""
        again = run(capsys, f"{net} --from deploy.prototxt {source}")[0]
        assert without_head(again) == without_head(train)


@pytest.mark.parametrize("factor", [0.02, 0.04, 0.1, 0.125, 0.25, 0.3, 0.5, 1, 1.5, 2])
def test_width_multipliers(factor: float) -> None:
    arch = Architecture("sf1", 3, (64, 64), width_multiplier=factor)
    files.write_text("net.prototxt", deploy_net(arch))
    found = earlier.read("net.prototxt").options["width_multiplier"]
    assert found == factor or factor < 0.1  # of few channels, several factors are true
    again = Architecture("sf1", 3, (64, 64), width_multiplier=found)
    assert deploy_net(again) == deploy_net(arch)


def test_widths_of_no_multiplier_are_not_taken() -> None:
    net = deploy_net(Architecture("sf1", 3, (64, 64)))
    layers = {layer.name: layer for layer in net.layer}
    layers["conv3_2"].convolution_param.num_output = 200
    files.write_text("net.prototxt", net)
    assert "width_multiplier" not in earlier.read("net.prototxt").options


@pytest.mark.parametrize(
    ("size", "said"),
    [((320, 240), True), ((160, 120), True), ((33, 47), True), ((224, 224), False)],
)
def test_sizes_follow_from_odd_levels(size: tuple[int, int], said: bool) -> None:
    """A net for training on an LMDB that is not there says them by its Unpooling layers."""
    for floor in (False, True):
        arch = Architecture("rgb", 3, size, floor_pooling=floor)
        files.write_text("net.prototxt", train_net(arch, Training("a", "b")))
        assert earlier.read("net.prototxt").size == (size if said else None)


def test_sizes_that_only_the_records_say(capsys, data, make_lmdb) -> None:
    data("known", (64, 96))
    make_lmdb("bare", 2, width=96, height=32)
    for source, size in (("known", (64, 96)), ("bare", (96, 32))):
        text = run(capsys, f"rgb --classes 3 --source {source} --size 64x64")[0]
        Path("net.prototxt").write_text(text)
        assert earlier.read("net.prototxt").size == size
    # Crops of training are not the size of the frames.
    crops = run(capsys, "rgb --classes 3 --source none --size 80x80 --augment crop=64x64")[0]
    Path("net.prototxt").write_text(crops)
    assert "does not say" not in run(capsys, "rgb --from net.prototxt --size 80x80 --deploy")[1]
    assert "--size WxH does" in run(capsys, "rgb --from net.prototxt --deploy")[1]


def test_dropout_of_a_frozen_net_is_that_of_its_other_parts(capsys) -> None:
    Path("net.prototxt").write_text(run(capsys, "sf5 --freeze encoder --dropout 0.3")[0])
    assert earlier.read("net.prototxt").options["dropout"] == 0.3


# -- who wins -------------------------------------------------------------------------------------


def test_a_line_says_what_was_taken(capsys, data) -> None:
    data("mine")
    weights = "0 1 2.5 0.1"
    Path("w.txt").write_text(weights)
    text = run(capsys, "sf5 --source mine --dropout 0.4 --label-weights w.txt")[0]
    Path("old.prototxt").write_text(text)
    out, err = run(capsys, "rgb --from old.prototxt")
    assert err == (
        "netgen: old.prototxt gives 3 classes and their names, size 160x120, width multiplier 1, "
        "dropout 0.4, its data (mine), its label weights\n"
    )
    net = text_format.Parse(out, NetParameter())
    (loss,) = [layer for layer in net.layer if layer.name == "loss"]
    assert list(loss.loss_param.label_weights) == pytest.approx([0, 1, 2.5, 0.1])
    assert net.layer[0].data_param.source == "mine"


def test_options_win(capsys, data) -> None:
    data("mine")
    Path("old.prototxt").write_text(run(capsys, "sf5 --source mine --dropout 0.4")[0])
    more = "--classes 5 --size 64x64 --dropout 0 --width-multiplier 0.5 --pooling floor --source b"
    mine, err = run(capsys, f"rgb --from old.prototxt {more}")
    assert without_head(mine) == without_head(run(capsys, f"rgb {more}")[0])
    assert err == ""
    # With another number of classes, its data and their weights do not fit.
    out, err = run(capsys, "rgb --from old.prototxt --classes 5")
    assert 'source: "lmdb/custom_train"' in out
    assert "its data" not in err


def test_a_scene_branch_can_be_left_out(capsys) -> None:
    Path("old.prototxt").write_text(run(capsys, "sf5 --scene-classes 4")[0])
    out, _ = run(capsys, "sf5 --from old.prototxt --scene-classes 0")
    assert "scene" not in without_head(out)


def test_named_records_win_over_the_net(capsys, data) -> None:
    """Its dataset.json says what the labels are; label weights were for other data."""
    data("old")
    data("new", (96, 64), classes=["(ignored)", "a", "b", "c", "d"])
    Path("w.txt").write_text("0 1 2 3")
    text = run(capsys, "sf5 --source old --dropout 0.4 --label-weights w.txt")[0]
    Path("old.prototxt").write_text(text)
    out, err = run(capsys, "sf5 --from old.prototxt --source new")
    assert err == (
        "netgen: old.prototxt gives width multiplier 1, dropout 0.4\n"
        "netgen: new: its dataset.json gives 4 classes, size 96x64\n"
    )
    assert "label_weights" not in out
    deploy, _ = run(capsys, "sf5 --from old.prototxt --source new --deploy")
    assert json.loads(deploy.splitlines()[2].removeprefix("# classes: "))[1:] == [*"abcd"]


def test_depth_of_another_range_is_said(capsys, data) -> None:
    data("old")
    data("new", options={"depth_range": "valid"})
    Path("old.prototxt").write_text(run(capsys, "sf5 --source old")[0])
    err = run(capsys, "sf5 --from old.prototxt --source new")[1]
    assert err.splitlines()[1] == (
        "netgen: warning: depth of new is valid, but the net of old.prototxt was trained with 0:8 m"
    )


# -- names and depth ------------------------------------------------------------------------------


def test_names_and_range_go_from_net_to_net(capsys, data) -> None:
    """From the dataset.json beside the LMDB that the first net names, or from comments."""
    data("mine")
    Path("a.prototxt").write_text(run(capsys, "sf5 --source mine")[0])
    Path("b.prototxt").write_text(run(capsys, "sf5 --from a.prototxt --deploy")[0])
    heads = [Path("b.prototxt").read_text().splitlines()[1:3]]
    Path("mine/dataset.json").unlink()
    for file, options in (("c", ""), ("d", "--deploy")):
        before = chr(ord(file) - 1)
        text = run(capsys, f"rgb --from {before}.prototxt --source mine {options}")[0]
        Path(f"{file}.prototxt").write_text(text)
        heads.append(text.splitlines()[1:3])
    assert heads == [["# depth_range: 0:8 m", f"# classes: {json.dumps(NAMES)}"]] * 3


def test_benchmarks_are_known_by_the_nets_name(capsys) -> None:
    Path("old.prototxt").write_text(run(capsys, "sf5 --dataset nyuv2-13")[0])
    out, err = run(capsys, "rgb --from old.prototxt")
    assert 'name: "fusenet-rgb-nyuv2-13"' in out
    assert "gives nyuv2-13, size" in err
    # A net of that name with another number of classes is no benchmark's.
    other = Path("old.prototxt").read_text().replace("num_output: 14", "num_output: 15")
    Path("old.prototxt").write_text(other)
    assert "gives 14 classes, size" in run(capsys, "rgb --from old.prototxt")[1]


# -- what does not fit ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("conv3_2", "other"), "no net of FuseNet's form: it has no Convolution called conv3_2"),
        (('"pool1"', '"other"'), "no net of FuseNet's form: it has no Pooling called pool1"),
        (("unpool2", "other"), "no net of FuseNet's form: it has no Unpooling called unpool2"),
        (("score", "other"), "no net of FuseNet's form: it has no Convolution called score"),
        (("num_output: 4", "num_output: 1"), "layer score has 1 outputs; expected 2 or more"),
        (("0.5", "1.5"), "dropout 1.5 is not within 0 and 1"),
        (("layer {", "layer"), "old.prototxt:"),
    ],
)
def test_nets_that_are_none(capsys, change, message: str) -> None:
    text = run(capsys, "sf1 --classes 3 --deploy --width-multiplier 0.25")[0]
    Path("old.prototxt").write_text(text.replace(*change))
    out, err = run(capsys, "sf1 --from old.prototxt", code=1)
    assert out == ""
    assert err.splitlines()[-1].startswith("netgen: error: ")
    assert message in err
    assert "No such file" in run(capsys, "sf1 --from none.prototxt", code=1)[1]


def test_nothing_of_a_strange_net_becomes_text_of_the_next(capsys) -> None:
    """Comments end with their line."""
    text = run(capsys, "sf1 --classes 3 --data-list a --depth-range valid --size 64x64")[0]
    net = text_format.Parse(text, NetParameter())
    settings = json.loads(net.layer[0].python_param.param_str)
    settings["depth_range"] = 'x\nlayer { name: "mine" }'
    net.layer[0].python_param.param_str = json.dumps(settings)
    files.write_text("old.prototxt", net)
    for options in ("", "--deploy"):
        out = run(capsys, f"sf1 --from old.prototxt {options}")[0]
        assert "mine" not in [layer.name for layer in text_format.Parse(out, NetParameter()).layer]

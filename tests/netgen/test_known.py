"""What netgen takes from the data that a net reads, where options say nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf import text_format
from netgen_runs import run_line as run

from caffe.proto.caffe_pb2 import NetParameter
from netgen.cli import main
from netgen.papers import paper_files

FACTS = {
    "classes": ["(ignored)", "wall", 'a "door"', "sofa\nbed"],
    "shape": [5, 120, 160],
    "options": {"depth_range": "0:8 m", "float_depth": False},
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(make_lmdb: Callable[..., str]) -> Callable[..., str]:
    """Makes an LMDB of 160x120 with a dataset.json; returns its path."""

    def make(name: str = "mine", **facts: object) -> str:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        make_lmdb(name, 3, width=160, height=120)
        Path(name, "dataset.json").write_text(json.dumps({**FACTS, **facts}))
        return name

    return make


def shown(text: str) -> tuple[str, int, tuple[int, int] | None]:
    """A net's name, its classes, and width and height where it states them."""
    net = text_format.Parse(text, NetParameter())
    layers = {layer.name: layer for layer in net.layer}
    unpool = layers["unpool4"].unpooling_param
    size = (unpool.output_w * 8, unpool.output_h * 8) if unpool.output_w else None
    if "rgb" in layers:
        dims = layers["rgb"].input_param.shape[0].dim
        size = (dims[3], dims[2])
    return net.name, layers["score"].convolution_param.num_output - 1, size


def test_classes_and_size_are_the_records(capsys, data) -> None:
    data()
    out, err = run(capsys, "sf5 --source mine")
    assert shown(out) == ("fusenet-sf5-custom", 3, (160, 120))
    assert err == "netgen: mine: its dataset.json gives 3 classes, size 160x120\n"
    out, err = run(capsys, "sf5 --source mine --deploy")
    assert shown(out) == ("fusenet-sf5-custom", 3, (160, 120))
    lines = out.splitlines()
    assert lines[1] == "# depth_range: 0:8 m"
    assert json.loads(lines[2].removeprefix("# classes: ")) == FACTS["classes"]


def test_options_win(capsys, data) -> None:
    data()
    line = "sf5 --source mine --classes 7 --size 96x64"
    out, err = run(capsys, f"{line} --deploy --depth-range valid")
    assert shown(out) == ("fusenet-sf5-custom", 7, (96, 64))
    assert "# depth_range: valid\n" in out
    assert "# classes" not in out
    assert err == ""
    out, err = run(capsys, line)
    assert err == (
        "netgen: warning: mine holds frames of 160x120, the net is made for 96x64\n"
        "netgen: warning: mine lists 3 classes in its dataset.json, the net has 7\n"
    )
    out, err = run(capsys, "sf5 --source mine --dataset sunrgbd-37 --deploy")
    assert shown(out) == ("fusenet-sf5-sunrgbd-37", 37, (160, 120))


def test_a_benchmark_is_known_by_its_name(capsys, data) -> None:
    names = ["(ignored)", *map(str, range(37))]
    data("sun", dataset="sunrgbd-37", classes=names)
    out, err = run(capsys, "sf5 --source sun")
    assert shown(out)[:2] == ("fusenet-sf5-sunrgbd-37", 37)
    assert "label_weights" in out  # the authors' choice for this data set
    assert "the data set sunrgbd-37, size 160x120" in err
    # Records of other classes are not that benchmark's any more.
    data("fewer", dataset="sunrgbd-37")
    assert shown(run(capsys, "sf5 --source fewer")[0])[:2] == ("fusenet-sf5-custom", 3)
    # Nor is a data set that the user calls custom.
    assert shown(run(capsys, "sf5 --dataset custom --source sun")[0])[1] == 37


@pytest.mark.parametrize("facts", [{}, {"classes": ["(ignored)"]}, {"dataset": "kitti"}])
def test_where_nothing_is_known_the_defaults_stay(capsys, data, facts) -> None:
    data()
    Path("mine/dataset.json").write_text(json.dumps(facts))
    out, err = run(capsys, "sf5 --source mine --deploy")
    assert shown(out) == ("fusenet-sf5-nyuv2-40", 40, (320, 240))
    assert err == ""
    _, err = run(capsys, "sf5 --dataset custom --source mine", code=1)
    assert "--dataset custom needs --classes N: mine has no dataset.json with classes" in err


def test_a_file_of_weights_says_how_many_classes_there_are(capsys, data) -> None:
    Path("w.txt").write_text("1 2 3 4 5 6 # six labels")
    out, err = run(capsys, "sf1 --label-weights w.txt")
    assert shown(out)[:2] == ("fusenet-sf1-custom", 5)
    assert err == "netgen: w.txt: its numbers are for 5 classes and label 0\n"
    data()
    _, err = run(capsys, "sf1 --label-weights w.txt --source mine", code=1)
    assert err.endswith("w.txt: 6 numbers for 3 classes; expected 4, one a label with the ignored "
                        "label 0 first\n")  # fmt: skip
    _, err = run(capsys, "sf1 --label-weights w.txt --dataset nyuv2-13", code=1)
    assert "6 numbers for 13 classes" in err
    Path("w.txt").write_text("1 " * 41)
    out, err = run(capsys, "sf1 --label-weights w.txt")
    assert (shown(out)[0], err) == ("fusenet-sf1-nyuv2-40", "")
    Path("w.txt").write_text("# none\n")
    assert "0 numbers; expected one a label" in run(capsys, "sf1 --label-weights w.txt", 1)[1]


def test_what_data_tools_writes_is_what_a_net_looks_for(capsys, data) -> None:
    names = ["(ignored)", *map(str, range(40))]
    for split in ("train", "val"):
        data(f"lmdb/{split}", dataset="scannet-40", classes=names)
    out, err = run(capsys, "sf5 --dataset scannet-40")
    sources = [x.data_param.source for x in text_format.Parse(out, NetParameter()).layer[:2]]
    assert sources == ["lmdb/train", "lmdb/val"]
    assert "lmdb/train: its dataset.json says that it holds scannet-40; taken" in err
    assert "size 160x120" in err
    # Another data set's are left alone, and the papers' nets do not depend on what lies around.
    out, err = run(capsys, "sf5 --dataset sunrgbd-37")
    assert (err, "lmdb/sunrgbd-37_train" in out) == ("", True)
    data("lmdb/scannet-40_train", dataset="scannet-40", classes=names)
    assert 'source: "lmdb/scannet-40_train"' in run(capsys, "sf5 --dataset scannet-40")[0]
    data("lmdb/trainval", dataset="nyuv2-40", classes=names)
    assert 'source: "lmdb/trainval"' in run(capsys, "sf5")[0]
    assert 'source: "lmdb/nyuv2-40_trainval"' in dict(paper_files())["nyuv2-40/sf5/train.prototxt"]


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"classes": "many"}, "dataset.json: classes: expected a list of 1 to 256 names"),
        ({"shape": [160, 120]}, "dataset.json: shape: expected [channels, height, width]"),
        ({"options": {"depth_range": "a\nb"}}, "dataset.json: options.depth_range: expected"),
    ],
)
def test_a_dataset_json_that_is_wrong(capsys, data, facts, message) -> None:
    data(**facts)
    out, err = run(capsys, "sf5 --source mine --deploy", code=1)
    assert (out, message in err, err.splitlines()[-1].startswith("netgen: error: ")) == (
        "", True, True,
    )  # fmt: skip
    Path("mine/dataset.json").write_text("{")
    assert "dataset.json: not JSON" in run(capsys, "sf5 --source mine", code=1)[1]


@pytest.mark.parametrize("rule", ["8:0", "near", "1.2.3:4", "valid\nlayer{}"])
def test_a_range_that_is_none_is_bad_usage(capsys, rule) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sf5", "--deploy", "--depth-range", rule])
    assert stop.value.code == 2
    assert "is neither authors, valid nor MIN:MAX in metres" in capsys.readouterr().err

"""A packed model: what it keeps, and the commands that take it in place of DEPLOY WEIGHTS."""

import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from boundary import packed
from caffe import convert
from data_tools.cli import DataError
from data_tools.images import read_label
from eval_tools import evaluate, pack, predict
from eval_tools.network import load
from eval_tools.report import __main__ as report

DATASET = {
    "dataset": "nyuv2-4",
    "classes": ["(ignored)", "bluish", "greenish", "reddish", "far"],
    "palette": [[0, 0, 0], [9, 8, 255], [0, 255, 0], [255, 0, 0], [9, 9, 9]],
    "options": {"size": [64, 48], "depth_range": "valid", "float_depth": True, "fit": "pad"},
}
PYTHON = """
layer { name: "p" type: "Python" bottom: "score" top: "p"
        python_param { module: "evil" layer: "L" } }
"""


def run(*args):
    pack.main([str(arg) for arg in args])


def facts(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("model.json"))


@pytest.fixture
def dataset(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(DATASET))
    return path


@pytest.fixture
def packed_model(model, dataset, tmp_path):
    run(*model, tmp_path / "m.fusenet", "--dataset", dataset)
    return tmp_path / "m.fusenet"


@pytest.fixture
def frame(tmp_path):
    """(COLOUR, DEPTH) of 64x48, depth in millimetres."""
    random = np.random.default_rng(0)
    paths = tmp_path / "rgb.png", tmp_path / "depth.png"
    cv2.imwrite(str(paths[0]), random.integers(0, 256, (48, 64, 3), np.uint8))
    cv2.imwrite(str(paths[1]), random.integers(500, 8000, (48, 64), np.uint16))
    return paths


# -- what it keeps ---------------------------------------------------------------------------------


def test_the_dataset_says_it_all(packed_model, model):
    found = facts(packed_model)
    assert found["options"] == {
        "size": [16, 12], "fit": "pad", "depth_range": "valid", "float_depth": True,
    }  # fmt: skip
    assert {key: found[key] for key in ("dataset", "classes", "palette")} == {
        key: DATASET[key] for key in ("dataset", "classes", "palette")
    }
    with zipfile.ZipFile(packed_model) as archive:
        for member, file in zip(("deploy.prototxt", "weights.caffemodel"), model, strict=True):
            assert archive.read(member) == Path(file).read_bytes()


def test_the_same_files_and_options_give_the_same_bytes(packed_model, model, dataset, tmp_path):
    run(*model, tmp_path / "n.fusenet", "--dataset", dataset)
    assert (tmp_path / "n.fusenet").read_bytes() == packed_model.read_bytes()


def test_options_win(model, dataset, tmp_path, capsys):
    run(*model, tmp_path / "m.fusenet", "--dataset", dataset, "--depth-range", "0.5:8",
        "--fit", "crop")  # fmt: skip
    options = facts(tmp_path / "m.fusenet")["options"]
    assert (options["depth_range"], options["float_depth"]) == ("0.5:8 m", False)
    assert options["fit"] == "crop"
    assert "--depth-range is 0.5:8 m, but the net was trained with valid" in capsys.readouterr().err


def test_the_prototxt_says_the_depth_rule(model, tmp_path, capsys):
    deploy = tmp_path / "net.prototxt"
    deploy.write_text("# depth_range: 0:8 m float\n" + Path(model[0]).read_text())
    run(deploy, model[1], tmp_path / "m.fusenet")
    found = facts(tmp_path / "m.fusenet")
    assert found["options"]["depth_range"] == "0:8 m"
    assert found["options"]["float_depth"] is True
    assert found["classes"] == ["(ignored)", "1", "2", "3", "4"]
    assert "classes have numbers for names" in capsys.readouterr().err


def test_the_prototxt_names_the_classes(model, tmp_path, capsys):
    deploy = tmp_path / "net.prototxt"
    names = json.dumps(DATASET["classes"])
    deploy.write_text(f"# depth_range: valid\n# classes: {names}\n" + Path(model[0]).read_text())
    run(deploy, model[1], tmp_path / "m.fusenet")
    assert facts(tmp_path / "m.fusenet")["classes"] == DATASET["classes"]
    assert "classes have numbers" not in capsys.readouterr().err


def test_an_unknown_depth_rule_is_an_error(model, tmp_path):
    with pytest.raises(DataError, match="nothing says how depth became"):
        run(*model, tmp_path / "m.fusenet")
    assert not (tmp_path / "m.fusenet").exists()


def test_figures_of_evaluate(packed_model, model, data, dataset, tmp_path):
    figures = tmp_path / "figures.json"
    evaluate.main([*map(str, [packed_model, data[0], "--bootstrap", 0, "--json", figures])])
    run(*model, tmp_path / "n.fusenet", "--dataset", dataset, "--evaluation", figures)
    assert facts(tmp_path / "n.fusenet")["figures"] == [json.loads(figures.read_text())]
    with pytest.raises(DataError, match=r"dataset\.json: expected the figures"):
        run(*model, tmp_path / "n.fusenet", "--dataset", dataset, "--evaluation", dataset)


def test_an_example_is_kept_as_it_is(model, dataset, frame, tmp_path):
    run(*model, tmp_path / "m.fusenet", "--dataset", dataset, "--example", *frame,
        "--depth-unit", "5000")  # fmt: skip
    found = packed.read(tmp_path / "m.fusenet", DataError)
    assert found.part("color") == frame[0].read_bytes()
    assert found.part("depth") == frame[1].read_bytes()
    assert found.info["example"] == {"depth_unit": "5000"}


def test_an_example_that_cannot_be_labelled_is_told_now(model, dataset, frame, tmp_path):
    cv2.imwrite(str(frame[1]), np.zeros((48, 64), np.uint16))
    with pytest.raises(DataError, match="no reading"):
        run(*model, tmp_path / "m.fusenet", "--dataset", dataset, "--example", *frame)
    assert not (tmp_path / "m.fusenet").exists()


@pytest.mark.parametrize("name", ["m.zip", "net.caffemodel"])
def test_the_name_ends_in_fusenet(model, name, capsys):
    with pytest.raises(SystemExit) as ended:
        run(*model, name)
    assert ended.value.code == 2
    assert f"{name}: expected a name that ends in .fusenet" in capsys.readouterr().err


def test_weights_that_do_not_fit_are_not_packed(model, toy, dataset, tmp_path):
    text = toy.deploy.replace("num_output: 5", "num_output: 6")
    other = tmp_path / "other.prototxt"
    other.write_text(text.replace("HEIGHT", "12").replace("WIDTH", "16"))
    with pytest.raises(DataError, match="does not fit"):
        run(other, model[1], tmp_path / "m.fusenet", "--dataset", dataset)


# -- the commands that take it ---------------------------------------------------------------------


def test_evaluate(packed_model, model, data, tmp_path):
    scores = []
    for number, files in enumerate([model, [packed_model]]):
        out = tmp_path / f"{number}.json"
        evaluate.main([*map(str, [*files, "--bootstrap", 0, data[0], "--json", out])])
        scores.append(json.loads(out.read_text()))
    assert scores[1].pop("model") == "m"
    assert scores[0].pop("model") == "net"
    assert scores[0] == scores[1]


def test_evaluate_takes_names_from_it(packed_model, toy, tmp_path, capsys):
    toy.lmdb(tmp_path / "db", toy.frames(1))  # without a dataset.json
    evaluate.main([str(packed_model), str(tmp_path / "db")])
    assert "greenish" in capsys.readouterr().out


@pytest.mark.parametrize("order", [0, 1])
def test_versus(packed_model, model, data, order, capsys):
    models = [[packed_model], list(model)]
    first, second = models[order], models[1 - order]
    evaluate.main([*map(str, [*first, "--versus", *second, data[0], "--bootstrap", 20])])
    assert "global accuracy" in capsys.readouterr().out.split("Differences")[-1]


def test_predict(packed_model, model, frame, dataset, tmp_path):
    for name, files in (("a", [*model, "--dataset", dataset]), ("b", [packed_model])):
        predict.main([*map(str, [*files, "--rgb", frame[0], "--depth", frame[1], "--overlay",
                                 "--size", "original", "-o", tmp_path / name])])  # fmt: skip
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["legend.png", "rgb.png", "rgb_overlay.png"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len(np.unique(read_label(tmp_path / "b" / "rgb.png"))) > 2


def test_report(packed_model, data, tmp_path):
    report.main([str(packed_model), str(data[0]), "-o", str(tmp_path / "r.html")])
    assert "bluish" in (tmp_path / "r.html").read_text()


def test_convert(packed_model, tmp_path, capsys):
    convert.main([str(packed_model), str(tmp_path / "o.onnx")])
    assert [blob.name for blob in onnx.load(tmp_path / "o.onnx").graph.output] == ["prob"]
    assert "fusenet-" not in capsys.readouterr().err


@pytest.mark.parametrize("main", [evaluate.main, predict.main])
def test_one_weights_file_too_many_or_too_few(main, packed_model, model, capsys):
    more = ["lmdb"] if main is evaluate.main else ["--lmdb", "lmdb"]
    for files, message in (
        ([packed_model, model[1]], "a packed model has its own weights; "),
        ([model[0]], "WEIGHTS is missing; only a packed model (.fusenet) and an ONNX file "),
    ):
        with pytest.raises(SystemExit) as ended:
            main([*map(str, files), *more])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_convert_too_many_or_too_few(packed_model, model, capsys):
    for more in ([model[1], "o.onnx"], []):
        with pytest.raises(SystemExit) as ended:
            convert.main([str(packed_model), *more])
        assert ended.value.code == 2
        assert "expected PACKED OUT" in capsys.readouterr().err


def test_a_strangers_file_may_not_run_code(model, dataset, tmp_path):
    deploy = tmp_path / "net.prototxt"
    deploy.write_text(Path(model[0]).read_text() + PYTHON)
    path = tmp_path / "evil.fusenet"
    packed.write(path, DATASET, {"net": deploy, "weights": model[1]}, DataError)
    with pytest.raises(DataError, match=r"evil\.fusenet/deploy\.prototxt: layer 'p' \(Python\)"):
        load(path)
    with pytest.raises(RuntimeError, match=r"evil\.fusenet/deploy\.prototxt: layer 'p' \(Python\)"):
        convert.main([str(path), str(tmp_path / "o.onnx")])
    with pytest.raises(DataError, match="refused unless --trust"):
        run(deploy, model[1], tmp_path / "m.fusenet", "--dataset", dataset)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": "wall"}, "classes: expected a list"),
        ({"palette": [[1, 2]]}, "palette: expected a list"),
        ({"options": {"depth_range": 5}}, "options.depth_range: expected a text"),
        ({"options": {"fit": "zoom"}}, "options.fit: expected one of crop, pad, stretch"),
        ({"options": []}, "options: expected an object"),
    ],
)
def test_facts_of_other_types(model, frame, tmp_path, change, message):
    path = tmp_path / "m.fusenet"
    files = dict(zip(("net", "weights"), model, strict=True))
    packed.write(path, {**DATASET, **change}, files, DataError)
    with pytest.raises(DataError) as caught:
        predict.main([str(path), "--rgb", str(frame[0]), "--depth", str(frame[1])])
    assert str(caught.value).startswith(f"{path}: model.json: {message}")


def test_weights_that_are_not_finite_are_told_of_by_the_packed_name(model, toy, tmp_path, capsys):
    weight, bias = toy.brightest()["score"]
    text = toy.deploy.replace("HEIGHT", "12").replace("WIDTH", "16")
    files = toy.model(tmp_path, text, {"score": [weight, [np.nan, *bias[1:]]]})
    parts = dict(zip(("net", "weights"), files, strict=True))
    packed.write(tmp_path / "m.fusenet", {}, parts, DataError)
    load(tmp_path / "m.fusenet")
    said = capsys.readouterr().err
    assert f"warning: {tmp_path}/m.fusenet/weights.caffemodel: layer 'score', blob 1" in said

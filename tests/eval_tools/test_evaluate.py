"""The command as a user meets it: figures of a net whose answers are known, and bad input."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest

import caffe
from data_tools import convert
from data_tools.cli import DataError
from data_tools.record import to_datum
from eval_tools import evaluate, network, predict
from eval_tools.metrics import ConfusionMatrix


def run(tmp_path, *args):
    """The command's figures (--json)."""
    file = tmp_path / "figures.json"
    evaluate.main([*map(str, args), "--json", str(file)])
    return json.loads(file.read_text())


def expected(frames):
    matrix = ConfusionMatrix(4)
    for found, truth in frames.values():
        matrix.update(truth, found)
    return matrix


@pytest.mark.parametrize("batch", [1, 4, 6, 50])
def test_figures_are_those_of_the_painted_answers(model, data, tmp_path, batch, capsys, toy):
    path, frames = data
    found = run(tmp_path, *model, path, "--batch-size", batch)
    matrix = expected(frames)
    assert found["frames"] == 6
    assert found["pixels"] == matrix.pixels
    assert found["global_accuracy"] == pytest.approx(matrix.global_accuracy)
    assert found["mean_accuracy"] == pytest.approx(matrix.mean_accuracy)
    assert found["mean_iou"] == pytest.approx(matrix.mean_iou)
    assert found["frequency_weighted_iou"] == pytest.approx(matrix.frequency_weighted_iou)
    assert [c["iou"] for c in found["classes"]] == pytest.approx(matrix.iou)
    assert [c["name"] for c in found["classes"]] == toy.names[1:]
    text = capsys.readouterr().out
    assert f"mean IoU                {100 * matrix.mean_iou:.2f}" in text
    assert "greenish" in text


def test_records_of_another_size_than_the_nets_are_told(model, tmp_path, toy, capsys):
    path = toy.lmdb(tmp_path / "lmdb", toy.frames(2, (7, 9)))
    told = f"{path}: records are 9x7, the net takes 16x12; {model[0]} runs at 9x7 (--size 9x7"
    run(tmp_path, *model, path)
    assert told in capsys.readouterr().err
    predict.main([*model, "--lmdb", str(path), "-o", str(tmp_path / "out")])
    assert told in capsys.readouterr().err
    run(tmp_path, *model, path, "--size", "9x7")
    assert "the net takes" not in capsys.readouterr().err


def test_a_net_that_runs_at_one_size_only_says_which(tmp_path, toy):
    text = toy.deploy.replace("HEIGHT", "12").replace("WIDTH", "16").replace(
        'bottom: "rgb" bottom: "depth" top: "all"',
        'bottom: "rgb" bottom: "depth" bottom: "still" top: "all"',
    )  # fmt: skip
    text += """
    layer { name: "still" type: "DummyData" top: "still"
            dummy_data_param { shape { dim: 1 dim: 1 dim: 12 dim: 16 } } }
    """
    parts = text.split("layer {")
    text = "layer {".join([parts[0], parts[-1], *parts[1:-1]])
    weight = np.zeros((5, 5))
    model = toy.model(tmp_path, text, {"score": [weight, [1, 0, 0, 0, 0]]}, "still")
    path = toy.lmdb(tmp_path / "lmdb", toy.frames(1, (7, 9)))
    wanted = r"on a batch of 1 frames of 9x7 \(the net takes 16x12\): layer 'all'"
    with pytest.raises(DataError, match=wanted):
        evaluate.main([*model, str(path)])


def test_records_of_several_sizes_and_floats(model, tmp_path, toy):
    frames = {**toy.frames(2), **{f"b{k}": v for k, v in toy.frames(2, (7, 9), 1).items()}}
    path = toy.lmdb(tmp_path / "lmdb", frames, dtype=np.float32)
    found = run(tmp_path, *model, path, "--batch-size", 3)
    assert found["mean_iou"] == pytest.approx(expected(frames).mean_iou)


def test_absent_classes_are_named_and_left_out(model, tmp_path, capsys, toy):
    frames = toy.frames(3)
    for _, truth in frames.values():
        truth[truth == 3] = 0
    path = toy.lmdb(tmp_path / "lmdb", frames, {"classes": toy.names})
    found = run(tmp_path, *model, path)
    assert found["absent"] == ["reddish"]
    assert found["mean_iou"] == pytest.approx(expected(frames).mean_iou)
    assert found["classes"][2]["iou"] is None
    assert "left out of the means: reddish" in capsys.readouterr().out


def test_size_upsamples_scores_bilinearly_and_takes_full_size_labels(model, tmp_path, toy):
    # Left half bluish, right half reddish at 16x12; at 32x24 the border lies exactly in the middle.
    found = np.repeat([[1] * 8 + [3] * 8], 12, 0)
    truth = np.repeat([[1] * 16 + [3] * 16], 24, 0)
    small = toy.lmdb(tmp_path / "small", {"one": (found, found)})
    full = toy.lmdb(tmp_path / "full", {"one": (truth, truth)})
    figures = run(tmp_path, *model, small, "--size", "32x24", "--labels", full)
    assert (figures["pixels"], figures["global_accuracy"]) == (32 * 24, 1.0)
    # Records of full size: the net sees them at its own 16x12.
    figures = run(tmp_path, *model, full, "--size", "32x24")
    assert figures["global_accuracy"] == 1.0
    pictures = tmp_path / "labels"
    pictures.mkdir()
    cv2.imwrite(str(pictures / "one.png"), np.where(truth == 3, 1, truth).astype(np.uint8))
    figures = run(tmp_path, *model, small, "--size", "32x24", "--labels", pictures)
    assert figures["global_accuracy"] == 0.5


def test_a_kind_of_labels_needs_labels(model, tmp_path, toy):
    found = np.ones((12, 16), np.uint8)
    path = toy.lmdb(tmp_path / "db", {"one": (found, found)})
    with pytest.raises(DataError, match="--labels-kind goes with --labels-from"):
        run(tmp_path, *model, path, "--labels-kind", "coco")


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_labels_of_another_view_than_the_records_are_refused(model, tmp_path, toy, fit):
    """The middle of a frame is not its whole; a frame that was squeezed is."""
    found, truth = np.repeat([[1] * 8 + [3] * 8], 12, 0), np.repeat([[1] * 24 + [3] * 24], 24, 0)
    info = {"options": {"fit": fit}}
    small = toy.lmdb(tmp_path / "small", {"one": (found, found)}, info)
    wide = toy.lmdb(tmp_path / "wide", {"one": (truth, truth)})
    options = [*model, small, "--size", "48x24", "--labels", wide]
    if fit == "stretch":
        assert run(tmp_path, *options)["global_accuracy"] == 1.0
    else:
        with pytest.raises(DataError, match=f"became 16x12 by --fit {fit}, so that labels of 48x"):
            run(tmp_path, *options)
    full = toy.lmdb(tmp_path / "full", {"one": (truth[:, 8:40], truth[:, 8:40])})
    assert run(tmp_path, *model, small, "--size", "32x24", "--labels", full)["pixels"] == 32 * 24


def test_groups_of_dataset_json(model, tmp_path, toy):
    frames = toy.frames(5)
    cameras = ["kv1", "kv2", "kv1", "kv1", "kv2"]
    about = {f"{i:08d}_frame{i}": {"camera": camera} for i, camera in enumerate(cameras)}
    path = toy.lmdb(tmp_path / "lmdb", frames, {"classes": toy.names, "frames": about})
    groups = run(tmp_path, *model, path, "--group", "camera")["groups"]
    assert set(groups) == {"kv1", "kv2"}
    for camera in groups:
        part = [f for f, c in zip(frames.values(), cameras, strict=True) if c == camera]
        assert groups[camera]["mean_iou"] == pytest.approx(expected(dict(enumerate(part))).mean_iou)
    with pytest.raises(DataError, match="no 'sensor' of any frame; it says of its frames: camera"):
        run(tmp_path, *model, path, "--group", "sensor")


def test_some_classes_alone(model, data, tmp_path):
    # Only 2 and 4 count: others in the truth are ignored, and the net chooses between these two.
    figures = run(tmp_path, *model, data[0], "--classes", "2,4")
    assert [c["label"] for c in figures["classes"]] == [2, 4]
    right = total = 0
    for found, truth in data[1].values():
        # Where it sees neither, both planes have the same value and the first of them is taken.
        chosen = np.where(found == 4, 4, 2)
        right += np.count_nonzero((chosen == truth) & np.isin(truth, [2, 4]))
        total += np.count_nonzero(np.isin(truth, [2, 4]))
    assert figures["pixels"] == total
    assert figures["global_accuracy"] == pytest.approx(right / total)


def test_flip_and_scales_of_a_net_that_sees_single_pixels(model, tmp_path, toy):
    # A 1x1 net answers mirrored frames mirrored; at twice the size each pixel is four.
    frames = toy.frames(2, right=1)
    path = toy.lmdb(tmp_path / "lmdb", frames)
    for options in (["--flip"], ["--scales", "1,3"], ["--scales", "0.5,1,1.5", "--flip"]):
        figures = run(tmp_path, *model, path, *options)
        assert figures["global_accuracy"] == expected(frames).global_accuracy


def test_two_models_in_one_call(model, data, tmp_path, toy, capsys):
    params = toy.brightest()
    params["score"][0] = np.roll(params["score"][0], 1, 1)  # labels all but 0 wrongly
    params["score"][0][0] = 0
    text = toy.deploy.replace("HEIGHT", "12").replace("WIDTH", "16")
    other = toy.model(tmp_path, text, params, "rolled")
    figures = run(tmp_path, *model, data[0], "--versus", *other, "--bootstrap", 200)
    assert [figures["model"], figures["versus"][0]["model"]] == ["net", "rolled"]
    low, high = figures["intervals_95"]["mean_iou"]
    assert low < figures["mean_iou"] < high
    difference = figures["versus"][0]["minus_first"]["mean_iou"]
    gap = figures["versus"][0]["mean_iou"] - figures["mean_iou"]
    assert difference["value"] == pytest.approx(gap)
    # Six frames, each better in the first: chance does that or its mirror image twice in 64.
    assert difference["p"] == pytest.approx(2 / 64, abs=0.035)
    assert difference["high"] < 0
    assert "rolled minus net" in capsys.readouterr().out


def test_markdown_and_names(model, data, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("one\ntwo\nthree\nfour|4\n")
    file = tmp_path / "figures.md"
    evaluate.main([*model, str(data[0]), "--names", str(names), "--markdown", str(file)])
    lines = file.read_text().splitlines()
    assert "| class | pixels | share % | accuracy % | IoU % |" in lines
    assert any(line.startswith(r"| four\|4 | ") for line in lines)


def test_names_in_tables_are_text(model, toy, tmp_path, capsys):
    names = ["(ignored)", "a|b`c", "<b>*x*</b> [y](z)", "two\nlines\x1b[31m", "$x$ & \\"]
    lmdb = toy.lmdb(tmp_path / "lmdb", toy.frames(2), {"classes": names})
    file, svg = tmp_path / "figures.md", tmp_path / "m.svg"
    evaluate.main([*model, str(lmdb), "--markdown", str(file), "--confusion", str(svg)])
    lines = file.read_text().splitlines()
    first = lines.index("### Classes") + 4
    assert [line.partition(" | ")[0] for line in lines[first : first + 4]] == [
        r"| a\|b\`c",
        r"| \<b\>\*x\*\</b\> \[y\](z)",
        r"| two lines \[31m",
        r"| \$x\$ \& \\",
    ]
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "two lines" in printed
    comments = re.findall("<!-- (.*?) -->", svg.read_text())
    assert "$x$ &amp; \\" in comments  # no formula
    assert "two lines [31m" in comments
    ElementTree.parse(svg)


def bad_input(kind, model, data, tmp_path, toy):
    """The arguments of a call that must fail, and what its message must say."""
    deploy, weights = model
    path, frames = data
    if kind == "missing deploy":
        return [tmp_path / "no.prototxt", weights, path], r"no\.prototxt: no such file"
    if kind == "pipe":
        os.mkfifo(tmp_path / "pipe")
        return [tmp_path / "pipe", weights, path], "pipe: is no plain file"
    if kind == "missing weights":
        return [deploy, tmp_path / "no.caffemodel", path], r"no\.caffemodel: no such file"
    if kind == "missing lmdb":
        return [deploy, weights, tmp_path / "none"], "none: does not exist"
    if kind == "typo":
        (tmp_path / "typo.prototxt").write_text("layer {\n  nmae: 'x'\n}\n")
        return [tmp_path / "typo.prototxt", weights, path], r"typo\.prototxt:2:\d+: .*nmae"
    if kind == "no model":
        (tmp_path / "text.caffemodel").write_text("hello")
        return [deploy, tmp_path / "text.caffemodel", path], r"text\.caffemodel: not a caffemodel"
    if kind == "other shape":
        text = toy.deploy.replace("num_output: 5", "num_output: 7")
        text = text.replace("HEIGHT", "12").replace("WIDTH", "16")
        (tmp_path / "wide.prototxt").write_text(text)
        return (
            [tmp_path / "wide.prototxt", weights, path],
            "blob 0 of layer 'score' has shape 5x4x1x1 there, expected 7x4x1x1",
        )
    if kind == "other layers":
        text = toy.deploy.replace('name: "score"', 'name: "other"')
        text = text.replace("HEIGHT", "12").replace("WIDTH", "16")
        (tmp_path / "other.prototxt").write_text(text)
        return [tmp_path / "other.prototxt", weights, path], "lacks 1 of 1 layers .* 'other'"
    if kind == "no labels":
        bare = {name: (found, None) for name, (found, _) in frames.items()}
        return [deploy, weights, toy.lmdb(tmp_path / "bare", bare)], "has no label channel"
    if kind == "all ignored":
        empty = {name: (found, 0 * truth) for name, (found, truth) in frames.items()}
        return [deploy, weights, toy.lmdb(tmp_path / "empty", empty)], "no pixel has a label"
    if kind == "label too high":
        high = {name: (found, truth + 3) for name, (found, truth) in frames.items()}
        path = toy.lmdb(tmp_path / "high", high)
        return [deploy, weights, path], r"frame0: label 7, but .* scores only labels up to 4"
    if kind == "channels":
        env = lmdb.open(str(tmp_path / "rgb"), map_size=1 << 20)
        with env.begin(write=True) as transaction:
            transaction.put(b"0", to_datum(np.zeros((3, 4, 4), np.uint8)))
        env.close()
        return [deploy, weights, tmp_path / "rgb"], "record 0: 3 channels, expected 5"
    if kind == "no datum":
        env = lmdb.open(str(tmp_path / "junk"), map_size=1 << 20)
        with env.begin(write=True) as transaction:
            transaction.put(b"0", b"\xff\xff\xff")
        env.close()
        return [deploy, weights, tmp_path / "junk"], "record 0: not a Datum"
    if kind == "label size":
        return [deploy, weights, path, "--size", "32x24"], "labels are 16x12, expected 32x24"
    if kind == "classes":
        return [deploy, weights, path, "--classes", "scannet-20"], "label 5 is not among .* 1..4"
    if kind == "blob":
        return [deploy, weights, path, "--score", "nix"], "no blob 'nix'; outputs: 'prob'"
    assert kind == "output"
    return [deploy, weights, path, "--json", tmp_path / "no" / "x.json"], "folder .* does not exist"


BAD = [
    "missing deploy",
    "missing weights",
    "pipe",
    "missing lmdb",
    "typo",
    "no model",
    "other shape",
    "other layers",
    "no labels",
    "all ignored",
    "label too high",
    "channels",
    "no datum",
    "label size",
    "classes",
    "blob",
    "output",
]


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_met_with_one_clear_line(kind, model, data, tmp_path, toy, capsys):
    args, message = bad_input(kind, model, data, tmp_path, toy)
    with pytest.raises(DataError, match=message) as error:
        evaluate.main([str(arg) for arg in args])
    assert "\n" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_exit_codes_and_streams(model, data):
    command = [sys.executable, "-m", "eval_tools.evaluate"]
    good = subprocess.run([*command, *model, data[0]], capture_output=True, text=True, check=False)
    assert (good.returncode, "mean IoU" in good.stdout) == (0, True)
    bad = subprocess.run([*command, *model, "none"], capture_output=True, text=True, check=False)
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr.splitlines()[-1] == "python -m eval_tools.evaluate: none: does not exist"
    usage = subprocess.run([*command, "--size", "3"], capture_output=True, text=True, check=False)
    assert usage.returncode == 2


SCENES = """
layer { name: "rgb" type: "Input" top: "rgb"
        input_param { shape { dim: 1 dim: 3 dim: 12 dim: 16 } } }
layer { name: "score" type: "Convolution" bottom: "rgb" top: "score"
        convolution_param { num_output: 5 kernel_size: 1 } }
layer { name: "mean" type: "Pooling" bottom: "rgb" top: "mean"
        pooling_param { pool: AVE global_pooling: true } }
layer { name: "scene_score" type: "InnerProduct" bottom: "mean" top: "scene_score"
        inner_product_param { num_output: 3 } }
layer { name: "scene_prob" type: "Softmax" bottom: "scene_score" top: "scene_prob" }
"""


def test_scene_classification(toy, tmp_path, capsys):
    # The scene is the colour that the frame has most of: 0 blue, 1 green, 2 red.
    params = {"score": [np.eye(5, 3), np.zeros(5)], "scene_score": [np.eye(3), np.zeros(3)]}
    model = toy.model(tmp_path, SCENES, params)
    colors, scenes = [1, 2, 3, 2, 1], [0, 1, 2, 0, 0]
    frames = {f"f{i}": (np.full((12, 16), c),) * 2 for i, c in enumerate(colors)}
    info = {"scenes": ["bedroom", "kitchen", "office"]}
    path = toy.lmdb(tmp_path / "lmdb", frames, info, scenes)
    for options in ([], ["--flip", "--batch-size", "3"]):
        found = run(tmp_path, *model, path, *options)["scenes"]
        assert found["accuracy"] == 4 / 5
        assert found["mean_accuracy"] == pytest.approx((2 / 3 + 1 + 1) / 3)
        assert found["confusion"] == [[2, 1, 0], [0, 1, 0], [0, 0, 1]]
    text = capsys.readouterr().out
    assert "bedroom                   3       66.67" in text
    matrix = tmp_path / "m.csv"
    evaluate.main(
        [*model, str(path), "--confusion", str(matrix), "--report", str(tmp_path / "r.html")]
    )
    assert (tmp_path / "m_scenes.csv").read_text().splitlines()[1] == "bedroom,2,1,0"
    assert '"scene":[0,1]' in (tmp_path / "r.html").read_text()
    wrong = toy.lmdb(tmp_path / "wrong", frames, info, [0, 1, 2, 3, 0])
    with pytest.raises(DataError, match=r"f3: scene 3, but .* tells only 0\.\.2"):
        run(tmp_path, *model, wrong)


def test_frames_known_to_have_no_labels_are_refused(model, toy, tmp_path):
    path = toy.lmdb(tmp_path / "lmdb", toy.frames(1), {"labeled": False})
    with pytest.raises(DataError, match=r"its frames have no labels, as dataset\.json says"):
        run(tmp_path, *model, path)


FUSION = """
layer { name: "rgb" type: "Input" top: "rgb"
        input_param { shape { dim: 1 dim: 3 dim: 12 dim: 16 } } }
layer { name: "depth" type: "Input" top: "depth"
        input_param { shape { dim: 1 dim: 1 dim: 12 dim: 16 } } }
layer { name: "a" type: "Convolution" bottom: "rgb" top: "a" CONV }
layer { name: "a_n" type: "BatchNorm" bottom: "a" top: "a" }
layer { name: "a_s" type: "Scale" bottom: "a" top: "a" }
layer { name: "a_r" type: "ReLU" bottom: "a" top: "a" }
layer { name: "b" type: "Convolution" bottom: "depth" top: "b" CONV }
layer { name: "b_n" type: "BatchNorm" bottom: "b" top: "b" }
layer { name: "sum" type: "Eltwise" bottom: "a" bottom: "b" top: "s"
        eltwise_param { operation: FUSE } }
layer { name: "pool" type: "Pooling" bottom: "s" top: "p" top: "k"
        pooling_param { pool: MAX kernel_size: 2 stride: 2 } }
layer { name: "c" type: "Convolution" bottom: "p" top: "c" CONV }
layer { name: "c_r" type: "ReLU" bottom: "c" top: "c" }
layer { name: "up" type: "Unpooling" bottom: "c" bottom: "k" top: "u" unpooling_param { scale: 2 } }
layer { name: "score" type: "Convolution" bottom: "u" top: "score" CONV }
""".replace(
    "CONV",
    'convolution_param { num_output: 5 pad: 1 kernel_size: 3 weight_filler { type: "msra" } }',
)


@pytest.mark.parametrize("layer", ["a", "b_n", "c", "score"])
@pytest.mark.parametrize("fuse", ["SUM", "MAX"])
def test_a_weight_that_is_nan_scores_as_layer_by_layer(
    fuse, layer, data, tmp_path, capsys, toy, monkeypatch
):
    """MAX chooses bottom 1 where bottom 0 is NaN, so that the broken net has a score."""
    text = FUSION.replace("FUSE", fuse)
    names = ["a_n", "b_n"]
    statistics = {name: [np.ones(5), np.full(5, 1e4), [1]] for name in names}
    deploy, weights = toy.model(tmp_path, text, statistics)
    net = caffe.Net(deploy, weights, caffe.TEST)
    net.params[layer][0].data.reshape(-1)[2] = np.nan
    net.save(weights)
    found = []
    for by_plan in (True, False):
        if not by_plan:
            monkeypatch.setattr(network, "scores_only", lambda param, net, wanted: (param, net))
        try:
            found.append(run(tmp_path, deploy, weights, data[0], "--bootstrap", 0))
        except DataError as error:
            found.append(str(error))
        (said,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("warning"))
        assert f"{weights}: layer {layer!r}, blob 0 holds NaN or infinity" in said
    assert found[0] == found[1]
    assert isinstance(found[0], str) != (fuse == "MAX" and layer == "a")


def test_weights_that_are_finite_need_no_warning(model, data, tmp_path, capsys):
    run(tmp_path, *model, data[0])
    assert "warning" not in capsys.readouterr().err


def test_files_to_write_are_distinct_and_no_inputs(model, data, tmp_path, toy):
    names = tmp_path / "names.csv"
    names.write_text("label,name\n" + "".join(f"{i},{name}\n" for i, name in enumerate(toy.names)))
    log = tmp_path / "train.log"
    log.write_text("")
    shapes = tmp_path / "labelme" / "a.json"
    shapes.parent.mkdir()
    shapes.write_text('{"shapes": []}')
    j, database = tmp_path / "j.csv", data[0] / "data.mdb"
    files = [names, database, log, shapes, *map(Path, model)]
    kept = [path.read_bytes() for path in files]
    for options, told in (
        (["--json", j, "--markdown", j], "--markdown would overwrite --json"),
        (["--json", j, "--markdown", tmp_path / "lmdb" / ".." / "j.csv"], "would overwrite --json"),
        (["--names", names, "--confusion", names], "--confusion would overwrite --names"),
        (["--json", database], "--json would overwrite LMDB"),
        (["--json", shapes, "--labels-from", shapes.parent], "would overwrite --labels-from"),
        (["--json", model[1]], "--json would overwrite WEIGHTS"),
        (["--report", log, "--log", log], "the report would overwrite --log"),
        (["--confusion", j, "--json", tmp_path / "j_scenes.csv"], "scenes would overwrite --json"),
    ):
        with pytest.raises(DataError, match=told):
            evaluate.main([*model, str(data[0]), *map(str, options)])
    assert kept == [path.read_bytes() for path in files]
    assert not j.exists()
    # What is written through may be written twice.
    evaluate.main([*model, str(data[0]), "--json", "/dev/null", "--markdown", "/dev/null"])


def test_pictures_of_labels_as_others_store_them(model, tmp_path, toy):
    frames = toy.frames(2)
    path = toy.lmdb(tmp_path / "lmdb", frames, {"classes": toy.names})
    folder = tmp_path / "labels"
    folder.mkdir()
    for name, (_, truth) in frames.items():
        label = truth.astype(np.uint8)
        assert cv2.imwrite(str(folder / f"{name}.png"), np.where(label, label - 1, 255))
    others = ["--size", "16x12", "--labels", folder, "--ignore-label", "255", "--zero-based"]
    assert run(tmp_path, *model, path, *others)["global_accuracy"] == pytest.approx(
        expected(frames).global_accuracy
    )
    with pytest.raises(DataError, match="--ignore-label and --zero-based go with the pictures of"):
        run(tmp_path, *model, path, "--zero-based")


def test_labels_of_a_labelling_tool(model, tmp_path, toy, capsys):
    """Left half bluish, right half reddish; the truth has twice the records' resolution."""
    found = np.repeat([[1] * 8 + [3] * 8], 12, 0)
    path = toy.lmdb(tmp_path / "lmdb", {"one": (found, found)}, {"classes": toy.names})
    shapes = {"BLUISH": "0,0;16,0;16,24;0,24", "greenish": "16,0;32,0;32,24;16,24"}
    drawn = "".join(f'<polygon label="{n}" points="{p}"/>' for n, p in shapes.items())
    image = f'<image name="one.jpg" width="32" height="24">{drawn}</image>'
    xml = tmp_path / "annotations.xml"
    xml.write_text(f"<annotations>{image}</annotations>")
    figures = run(tmp_path, *model, path, "--size", "32x24", "--labels-from", xml)
    assert figures["global_accuracy"] == 0.5
    assert "annotations.xml: CVAT for images, 1 pictures, 2 classes" in capsys.readouterr().err
    with pytest.raises(DataError, match="labels are 32x24, expected 16x12"):
        run(tmp_path, *model, path, "--labels-from", xml)
    xml.write_text(f"<annotations>{image.replace('BLUISH', 'mauve')}</annotations>")
    with pytest.raises(DataError, match=r"picture 'one.jpg': 'mauve' is not in the table of"):
        run(tmp_path, *model, path, "--size", "32x24", "--labels-from", xml)
    xml.write_text(f"<annotations>{image.replace('one.jpg', 'two.jpg')}</annotations>")
    with pytest.raises(DataError, match=r"annotations\.xml: no picture named one"):
        run(tmp_path, *model, path, "--size", "32x24", "--labels-from", xml)


def test_labels_in_the_folder_that_convert_writes(model, tmp_path, toy, monkeypatch):
    frames = toy.frames(3)
    frames = {f"kitchen/{name}": maps for name, maps in frames.items()}
    path = toy.lmdb(tmp_path / "lmdb", frames, {"classes": toy.names})
    monkeypatch.setattr(sys, "argv", ["convert", str(path), str(tmp_path / "fo"), "--to", "folder"])
    convert.main()
    assert (tmp_path / "fo" / "label" / "00000000_kitchen%2Fframe0.png").is_file()
    figures = run(tmp_path, *model, path, "--size", "16x12", "--labels", tmp_path / "fo" / "label")
    assert figures["global_accuracy"] == pytest.approx(expected(frames).global_accuracy)
    (tmp_path / "fo" / "label" / "00000001_kitchen%2Fframe1.png").unlink()
    with pytest.raises(DataError, match="no label picture named kitchen/frame1"):
        run(tmp_path, *model, path, "--size", "16x12", "--labels", tmp_path / "fo" / "label")
